#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: host
#
# ARCH=arm64 is for the stock machine, costs nobody else anything, and is still Kbuild's where people build
# with it.
source "$TOP/tests/lib.sh"

dir=$(mktemp -d)
at_exit rm -rf "$dir"

# refused ARCH WHY COMMAND…: in one line, which is WHY.
refused() {
	local status=0
	ARCH=$1 "$TOP/scripts/$3" "${@:4}" >"$dir/err" 2>&1 </dev/null || status=$?
	is "$status $(<"$dir/err")" "1 error: $2" "ARCH=$1 scripts/${*:3} is refused in one line"
}
none="no machine is called 'uml' with ARCH=arm64; there are: stock"
refused arm64 "$none" vm --machine uml -- true
refused arm64 "$none" build-for --machine uml -- true
refused arm64 "$none" setup uml
refused arm64 "$none" demo --machine uml
MACHINE=uml refused arm64 "$none" check
refused riscv "no machine has ARCH=riscv; there are: amd64 arm64" vm --machine stock -- true

# What setup would make, it says where there is no room for it.
mkdir "$dir/small"
mount -t tmpfs -o size=1G tmpfs "$dir/small"
at_exit umount "$dir/small"
needs() { sed -n 's/^error: .* needs \([0-9]*\) GB of disk.*/\1/p' <(NFT_OFFLOAD_CACHE=$dir/small "$@" 2>&1); }
plain=$(needs "$TOP/scripts/setup" stock)
is "$(needs env ARCH=arm64 "$TOP/scripts/setup" stock)" $((plain + 1)) "arm64 takes a GB more than $plain"
is "$(needs env ARCH=x86_64 "$TOP/scripts/setup" stock)" "$plain" "ARCH=x86_64 is the host's own"

# Something that looks like a kernel build directory, and tells what Kbuild would be told.
mkdir -p "$dir"/kernel/{include/config,rust}
echo 99.0-arm64 >"$dir/kernel/include/config/kernel.release"
touch "$dir/kernel/rust/libkernel.rmeta"
echo >"$dir/kernel/Module.symvers"
# shellcheck disable=SC2016
printf 'modules:\n\t@echo $(ARCH) $(CROSS_COMPILE) >/share/told\n' >"$dir/kernel/Makefile"
"$TOP/scripts/enter" --share "$dir" -- bash -euc '
	printf "CONFIG_%s\n" RUST=y MODULES=y NF_TABLES=m NF_FLOW_TABLE=m \
		"RUSTC_VERSION_TEXT=\"$(rustc --version)\"" >kernel/.config
	mkdir checkout
	cp -r /src/{Makefile,scripts} checkout
	make -s -C checkout ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- KDIR=/share/kernel' >"$dir/out" 2>&1 ||
	sed 's/^/# /' "$dir/out"
is "$(cat "$dir/told")" "arm64 aarch64-linux-gnu-" "make ARCH=… KDIR=… builds for that kernel, as Kbuild does"

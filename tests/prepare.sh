#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: host
# timeout: 1800
# manual: it takes a kernel's packages from the archive, and minutes
#
# On a Debian machine that runs the stock kernel, with nothing prepared and neither headers nor
# source installed, `make` does what is missing. Only the answer of uname is made up: the module is
# then loaded into that kernel.
source "$TOP/tests/lib.sh"
source "$TOP/scripts/lib.sh"

release=$(krelease stock)
root=$(root_dir)
dir=$(mktemp -d)
at_exit rm -rf "$dir"
mkdir -p "$dir"/{upper,work,root,cache,checkout}
mount -t overlay -o "lowerdir=$root,upperdir=$dir/upper,workdir=$dir/work" root "$dir/root"
at_exit umount "$dir/root"
git -C "$TOP" -c safe.directory="$TOP" archive HEAD | tar -x -C "$dir/checkout"

# user COMMAND…: on that machine, in the checkout.
user() {
	local CACHE=$dir/cache TOP=$dir/checkout
	(in_root "$dir/root" "" env DEBIAN_FRONTEND=noninteractive "$@")
}

printf '#!/bin/sh\n[ "$1" = -r ] && echo %s || exec /usr/bin/uname "$@"\n' "$release" \
	>"$dir/root/usr/local/bin/uname"
chmod +x "$dir/root/usr/local/bin/uname"
check "make without the kernel's package is refused" fails user make
check "the machine has the stock kernel" user \
	sh -ec 'apt-get -q update && apt-get -qy -t "$1" install "$2"' sh \
	"$SUITE-backports" "linux-image-$release=$(kernel_version)"
check "make prepares a build directory and builds" user make
ko=$dir/checkout/build/$release/nft_offload.ko
check "make again finds it prepared" eval 'said=$(user make 2>&1) && [[ $said != *preparing* ]]'
check "the kernel that it was prepared for takes the module" "$TOP/scripts/vm" --machine stock --share "${ko%/*}" -- sh -euc '
	modprobe -a nf_tables nf_flow_table
	insmod /share/nft_offload.ko
	nft "table inet t { flowtable f { hook ingress priority 0; devices = { lo }; }; }"
	lsmod | grep "^nft_offload .* 1"'

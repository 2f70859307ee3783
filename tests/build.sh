#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# in-tree: it is about this checkout
#
# A kernel that the module cannot be built for ends in one line that says what to do.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
TOP=${TOP:-/src}
# shellcheck source=scripts/config.sh
source "$TOP/scripts/config.sh"

dir=$(mktemp -d)
at_exit rm -rf "$dir"

# kernel RELEASE CONFIG-LINE…: something that looks like a kernel build directory.
kernel() {
	rm -rf "$dir/kernel"
	mkdir -p "$dir/kernel/include/config"
	echo "$1" >"$dir/kernel/include/config/kernel.release"
	touch "$dir/kernel/Makefile"
	shift
	printf '%s\n' CONFIG_MODULES=y CONFIG_NF_TABLES=m CONFIG_NF_FLOW_TABLE=m "$@" >"$dir/kernel/.config"
}

# refused TEXT WORDS [ARGUMENT]: with an exit status, in one line, in these words. With --offline it is for the
# running kernel.
refused() {
	local message status=0
	message=$("$TOP/scripts/find-kdir" "${3:-$dir/kernel}" 2>&1) || status=$?
	check "$1: is refused" [ "$status" != 0 ]
	is "$(wc -l <<<"$message")" 1 "$1: in one line"
	check "$1: which says \"$2\"" grep -q -- "$2" <<<"$message"
}

refused "no directory" "name a kernel build directory"
kernel "$KERNEL_OLDEST.0"
rm "$dir/kernel/.config"
refused "an unprepared directory" "make prepare"
kernel "$KERNEL_OLDEST.0"
refused "a kernel without Rust" "without CONFIG_RUST=y"
kernel 6.12.9 CONFIG_RUST=y
refused "an old kernel" "too old"
kernel "$KERNEL_OLDEST.0" CONFIG_RUST=y CONFIG_NF_FLOW_TABLE_INET=y
refused "a kernel with the C module built in" "CONFIG_NF_FLOW_TABLE_INET=m"
kernel "$KERNEL_OLDEST.0" CONFIG_RUST=y CONFIG_NF_FLOW_TABLE_INET=m
refused "a headers package" "no Rust metadata"
mkdir "$dir/kernel/rust"
touch "$dir/kernel/rust/libkernel.rmeta"
refused "a directory without symbols" "no Module.symvers"
echo >"$dir/kernel/Module.symvers"
echo 'CONFIG_RUSTC_VERSION_TEXT="rustc 1.2.3"' >>"$dir/kernel/.config"
refused "a kernel of another compiler" "built with 'rustc 1.2.3'"

# program NAME COMMAND: comes before the real one.
program() { install -D /dev/stdin "$dir/bin/$1" <<<"#!/bin/sh"$'\n'"$2"; }
PATH=$dir/bin:$PATH
program uname "echo 99.1.2-none"
program dpkg-query "exit 1"
refused "a running kernel of unknown origin" "kernel 99.1.2-none is of no package" --offline

# A Debian that runs a kernel of version 99.1.2-1.
headers=/usr/src/linux-headers-99.1.2-none
mkdir "$headers" "$dir/small"
program dpkg-query 'case "$*" in
	*linux-source*) echo "installed 99.0-1" ;;
	*Status*) echo "installed 99.1.2-1" ;;
	*) echo 99.1.2-1 ;;
	esac'
echo CONFIG_MODULES=y >/boot/config-99.1.2-none
refused "a running kernel without Rust" "has no CONFIG_RUST=y" --offline
echo CONFIG_RUST=y >/boot/config-99.1.2-none
refused "a source package of another version" "first: apt install linux-source-99.1=99.1.2-1$" --offline
program dpkg-query 'case "$*" in *linux-image*) ;; *) echo -n "installed " ;; esac; echo 99.1.2-1'
echo 'CONFIG_RUSTC_VERSION_TEXT="rustc 1.2.3"' >"$headers/.config"
refused "packages of another compiler" "built with 'rustc 1.2.3'" --offline
echo "CONFIG_RUSTC_VERSION_TEXT=\"$(rustc --version)\"" >"$headers/.config"
mount -t tmpfs -o size=10M tmpfs "$dir/small"
at_exit umount "$dir/small"
export NFT_OFFLOAD_CACHE=$dir/small
refused "a small disk" "MB of disk, and $dir/small has [0-9]*: make room" --offline
program uname "echo 6.12.9-old"
refused "an old running kernel" "too old" --offline

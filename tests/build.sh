#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
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

# refused TEXT WORDS: with an exit status, in one line, in these words.
refused() {
	local message status=0
	message=$("$TOP/scripts/find-kdir" "$dir/kernel" 2>&1) || status=$?
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

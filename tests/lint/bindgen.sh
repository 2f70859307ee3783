#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: host
#
# Kbuild.bindgen leaves out all compiler options that rust/Makefile leaves out: external modules have to have
# that list themselves.
set -euo pipefail
source "$TOP/scripts/lib.sh"

options() { sed -n '/^bindgen_skip_c_flags := /,/[^\\]$/p' "$1" | sed 's/^.*:=//; s/\\$//' | xargs -n 1 | sort -u; }

theirs=$(options "$CACHE$(kernel_source)/rust/Makefile")
[ -n "$theirs" ]
missing=$(comm -23 <(echo "$theirs") <(options "$TOP/rust/bindings/Kbuild.bindgen"))
[ -z "$missing" ] || {
	echo "rust/bindings/Kbuild.bindgen lacks" "$missing"
	exit 1
}

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: host
set -euo pipefail
source "$TOP/scripts/lib.sh"
# FILE_PATH_CHANGES and the like are about patches; SPDX, style and safety are about files. struct Qdisc is
# the kernel's own name.
"$TOP/scripts/enter" -- bash -euc '
	mapfile -t files < <(find rust tests \( -name "*.c" -o -name "*.h" \) -not -name "*.mod.c")
	[ ${#files[@]} -gt 0 ]
	"$1/scripts/checkpatch.pl" --no-tree --strict --ignore CAMELCASE --no-summary --terse -f "${files[@]}"
' sh "$(kernel_source)"

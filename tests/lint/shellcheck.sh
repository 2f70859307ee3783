#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: host
# timeout: 300
set -euo pipefail
"$TOP/scripts/enter" -- bash -euc '
	files=$(scripts/sources shell)
	mapfile -t files <<<"$files"
	echo "${#files[@]} scripts"
	shellcheck -x "${files[@]}"'

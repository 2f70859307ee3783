#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: host
# timeout: 300
set -euo pipefail
"$TOP/scripts/enter" -- bash -euc '
	mapfile -t files < <(scripts/sources shell)
	echo "${#files[@]} scripts"
	shellcheck -x "${files[@]}"'

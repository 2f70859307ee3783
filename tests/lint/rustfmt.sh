#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: host
set -euo pipefail
source "$TOP/scripts/lib.sh"
# shellcheck disable=SC2016
"$TOP/scripts/enter" -- bash -euc '
	mapfile -t files < <(find rust tools -name "*.rs" -not -path "*/target/*" 2>/dev/null)
	[ ${#files[@]} -gt 0 ]
	echo "${#files[@]} files"
	rustfmt --edition 2021 --config-path "$1/.rustfmt.toml" --check "${files[@]}"
' sh "$(kernel_source)"

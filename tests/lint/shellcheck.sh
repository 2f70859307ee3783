#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: host
set -euo pipefail
"$TOP/scripts/enter" -- bash -euc '
	mapfile -t files < <(git -c safe.directory=/src ls-files -co --exclude-standard |
		while read -r file; do
			[ -f "$file" ] || continue
			case $file in
			*.sh) echo "$file" ;;
			*) ! head -n 1 "$file" | grep -qaE "^#!.*\b(ba)?sh\b|shellcheck shell=" || echo "$file" ;;
			esac
		done)
	echo "${#files[@]} scripts"
	shellcheck -x "${files[@]}"'

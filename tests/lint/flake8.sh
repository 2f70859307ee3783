#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: host
set -euo pipefail
"$TOP/scripts/enter" -- bash -euc '
	files=$(scripts/sources python)
	mapfile -t files <<<"$files"
	echo "${#files[@]} programs"
	# E203: slices are written as in data[at : at + size].
	flake8 --max-line-length 100 --extend-ignore E203 "${files[@]}"'

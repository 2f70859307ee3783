#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: host
# timeout: 600
#
# `make deb`, and what lintian has to say about the packages.
source "$TOP/tests/lib.sh"
source "$TOP/scripts/lib.sh"

check "make deb" make --no-print-directory -C "$TOP" deb
check "lintian finds nothing" env IN_ROOT_ADDON="$(addon_dir packaging)" "$TOP/scripts/enter" -- bash -c '
	lintian --allow-root --info --display-info --pedantic --fail-on error,warning,info,pedantic build/nft-offload*.deb'
check "the program of the package runs, and has its man page" "$TOP/scripts/enter" -- bash -euc '
	dpkg-deb -x build/nft-offload_*.deb /tmp/unpacked
	/tmp/unpacked/usr/bin/nft-offload reasons --all --json | jq -e ".reasons | length > 30"
	zgrep -q "Exit status" /tmp/unpacked/usr/share/man/man1/nft-offload.1.gz'

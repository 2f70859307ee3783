#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# in-tree: kselftest has it already
# timeout: 900
#
# The kernel's own test of the software path, unmodified, with this module in the place of
# the C one.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

selftests=$KSRC/tools/testing/selftests/net/netfilter
load_module

# It sources its library from where it is, and calls itself again by the name it was given.
cd "$selftests"
status=0
log=$(mktemp)
./nft_flowtable.sh 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
cd /
is "$status" 0 "nft_flowtable.sh ends with success"
# Two of its failures end with success too, so its words count.
check "nft_flowtable.sh reports no failure" fails grep -E '^(FAIL|ERROR|SKIP)' "$log"
check "nft_flowtable.sh reports successes" grep -q '^PASS' "$log"
check "the C module is not there" [ ! -d /sys/module/nf_flow_table_inet ]
check "this module is in use no more" busywait "$LIMIT" \
	grep -q '^nft_offload [0-9]* 0 ' /proc/modules
rm -f "$log"

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# in-tree: it needs the kernel's source, and the specification
# timeout: 1200
#
# Requests to the generic netlink family at random, made from its specification, while flows and rulesets come
# and go. FUZZ_MESSAGES and FUZZ_SEED set how many, and which.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ -n "${KSRC:-}" ] || skip "the kernel's source is not there (KSRC=DIR names it)"
python3 -c 'import yaml, jsonschema' 2>/dev/null || skip "python3-yaml or python3-jsonschema is not there"

count=${FUZZ_MESSAGES:-$((50000 / SLOWNESS))} seed=${FUZZ_SEED:-$RANDOM}
echo "# $count requests, FUZZ_SEED=$seed"
load_module
topology
flowtable_ruleset | load_ruleset
for ((i = 0; i < 12; i++)); do flow_open "flow$i" "$([ $((i % 2)) = 0 ] && echo tcp4 || echo udp6)"; done
check "flows are in the NIC" wait_rules 24

on "$router" python3 "$_here/netlink/fuzz.py" "$count" "$seed" >"$_output.fuzz" 2>&1 &
fuzzer=$!
is_over() { ! kill -0 $fuzzer 2>/dev/null; }
changes=0
until is_over; do
	flow_send "flow$((RANDOM % 12))" 200 >/dev/null || true
	case $((RANDOM % 16)) in
	0) on "$router" nft flush ruleset && flowtable_ruleset | load_ruleset ;;
	1) on "$router" nft flush ruleset && flowtable_ruleset flags= | load_ruleset ;;
	2) nic faults "replace -$((1 + RANDOM % 30)) 5 nic$((RANDOM % 2))" ;;
	*) nic faults none ;;
	esac
	changes=$((changes + 1))
done
check "the fuzzer runs to its end" wait $fuzzer
relay "requests at random" cat "$_output.fuzz"
check "things have changed meanwhile" [ "$changes" -ge 5 ]
nic faults none
on "$router" nft flush ruleset
check "no rule is left" wait_rules 0

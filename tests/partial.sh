#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
#
# partial=1: the direction that the driver takes is kept.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module partial=1 report_ms=0
topology
flowtable_ruleset | load_ruleset

hw_offload() { on "$router" conntrack -L 2>/dev/null | grep HW_OFFLOAD; }

for port in nic0 nic1; do
	nic faults "replace -28 100 $port"
	flow_open half tcp4
	check "$port refuses: the other direction is in the NIC" wait_rules 1
	is "$(nic_rules | grep -c "in=$port ")" 0 "$port refuses: it is the other one"
	check "$port refuses: the log says what is in software" \
		grep "stays in software in one direction: .* direction: the driver refused" <(last_told)
	check "$port refuses: the connection goes on" flow_send half 5000
	check "$port refuses: conntrack shows [HW_OFFLOAD]" hw_offload
	nic faults none
	check "$port is willing: the other direction follows" \
		flow_send_until half 60000 rules_are 2
	flow_close half
	on "$router" conntrack -F 2>/dev/null
	check "both are removed" wait_rules 0
done
is "$(nic_counter replace_eexist)" 0 "no rule was installed twice"
is "$(nic_counter destroy_enoent)" 0 "no rule was removed that was not there"
on "$router" nft flush ruleset

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 200
# exclusive: times are measured
#
# A NIC that takes its time and fails to remove rules, 120 of them: it is in nobody's way.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

flows=60
has_time || flows=15

many_stay() {
	open_flows $flows
	busywait $LIMIT rules_are_in_first $flows >/dev/null
	nic latency_us "$latency_us"
	nic faults "destroy -5 100"
	nic counters 0
	on "$router" conntrack -D -d 10.0.2.2 >/dev/null 2>&1
	busywait $((LIMIT + latency_us / 500)) eval '[ "$(nic_counter destroy_failed)" -ge 1 ]'
}
relieve() {
	nic faults none
	nic latency_us 0
}
they_are_there() {
	echo "destroy_failed $(nic_counter destroy_failed), $(nic_counter nic0.rules) rules"
	rules_are_in_first $flows
}

load_module report_ms=0
two_nics
flowtable_ruleset devices="nic0, nic1, nic2, nic3" | load_ruleset
stranger_begins
follow_begins
control
as_before "a slow NIC fails to remove $((2 * flows)) rules" many_stay they_are_there
check "the rules are gone when it can remove them" busywait $((6 * LIMIT)) rules_are_in_first 0
for counter in replace_eexist replace_dup_match destroy_enoent; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

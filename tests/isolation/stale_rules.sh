#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 150
#
# A NIC fails to remove rules: each removal is tried again after 1 s, then 2, 4, 8 s and so on, however many
# there are, and no flow that comes meanwhile changes that.
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

flows=40 removals=80

is_failed() { [ "$(nic_counter destroy_failed)" -ge "$1" ]; }
is_over() { is_later $((begin + $1 * 1000000)); }

load_module report_ms=0
topology
flowtable_ruleset | load_ruleset
for ((i = 0; i < flows; i++)); do flow_open "$i" udp4; done
check "$removals rules are in the NIC" busywait $LIMIT has_rules $removals
for ((i = 0; i < flows; i++)); do flow_close "$i"; done
nic counters 0
nic faults "destroy -5 100"
on "$router" conntrack -D -p udp >/dev/null 2>&1
check "the NIC has failed to remove all rules" busywait $LIMIT is_failed $removals
begin=${EPOCHREALTIME/./}
is "$(nic_counter destroy_failed)" $removals "the NIC was asked to remove each rule once before the first second is over"

# Rounds after 1, 3, 7, 15 s.
check "all removals are tried again after a second" busywait $LIMIT is_failed $((2 * removals))
second=$(((${EPOCHREALTIME/./} - begin) / 1000))
check "all removals are tried once more after two seconds" busywait $LIMIT is_failed $((3 * removals))
third=$(((${EPOCHREALTIME/./} - begin) / 1000))
check "all removals are tried once more after four seconds" busywait $LIMIT is_failed $((4 * removals))
fourth=$(((${EPOCHREALTIME/./} - begin) / 1000))
echo "# after $second, $third and $fourth ms"
check "between two tries of a removal is a pause that grows" \
	[ $((fourth - third)) -gt $(((third - second) * 3 / 2)) ]

# Others come and go, and fail too.
nic counters 0
for ((i = 0; i < 5; i++)); do flow_open "new$i" udp4; done
check "rules of new flows get in all the same" busywait $LIMIT has_rules $((removals + 10))
on "$router" conntrack -D -p udp >/dev/null 2>&1
check "the NIC fails to remove rules of new flows too" busywait $LIMIT is_failed 10
begin=${EPOCHREALTIME/./}
busywait $LIMIT is_over 5
calls=$(nic_counter destroy_failed)
check "failures of new rules do not have the old ones tried again and again" [ "$calls" -le $((3 * (removals + 10))) ]
echo "# $calls calls in 5 s"

nic faults none
check "all are gone soon after the NIC can remove them" busywait $((2 * LIMIT)) has_rules 0
echo "# $(((${EPOCHREALTIME/./} - begin) / 1000)) ms after that"
for counter in replace_eexist replace_dup_match destroy_enoent; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

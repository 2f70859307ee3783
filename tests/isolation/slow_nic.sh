#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 200
# exclusive: times are measured
#
# A NIC whose driver takes its time for each call, one after the other: neither a hundred flows that wait to
# get into it are in anybody's way, nor a hundred that have to leave it.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

flows=100
has_time || flows=20

slow_down() {
	nic counters 0
	nic serial 1
	nic latency_us "$latency_us"
}
relieve() {
	nic latency_us 0
	nic serial 0
}

many_wait() {
	open_flows 0
	slow_down
	open_flows $flows
}
some_wait() {
	echo "replace_ok $(nic_counter replace_ok)"
	[ "$(nic_counter replace_ok)" -lt $flows ]
}

macs=0
many_leave() {
	open_flows $flows
	busywait $LIMIT rules_are_in_first $flows >/dev/null
	slow_down
	macs=$((macs + 1))
	on "$server" ip link set wire1 address "02:00:00:00:99:$((10 + macs))"
	busywait $LIMIT eval 'on "$router" ip neigh show dev nic1 10.0.2.2 | grep "99:$((10 + macs))" >/dev/null'
}
some_are_left() {
	echo "destroy_ok $(nic_counter destroy_ok)"
	[ "$(nic_counter destroy_ok)" -lt $flows ]
}

load_module report_ms=0
two_nics
on "$server" sysctl -qw net.ipv4.conf.wire1.arp_notify=1
flowtable_ruleset devices="nic0, nic1, nic2, nic3" | load_ruleset
stranger_begins
follow_begins
control
as_before "$flows flows wait for a slow NIC" many_wait some_wait
check "the flows get into the NIC in the end" busywait $LIMIT rules_are_in_first $flows

as_before "$flows flows leave a slow NIC" many_leave some_are_left

for counter in replace_eexist replace_dup_match destroy_enoent destroy_failed; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

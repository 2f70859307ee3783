#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
# timeout: 200
#
# conntrack forgets a connection while the NIC takes its time: no rule goes in for it any more, and what is
# in already is withdrawn at once.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module report_ms=0
topology
flowtable_ruleset | load_ruleset
# So that an entry's connection is not made anew from the middle.
on "$router" sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0

at_exit nic latency_us 0
at_exit nic serial 0
nic serial 1

has_entry() { on "$router" conntrack -L -p tcp --dport "$1" 2>/dev/null | grep -F 'OFFLOAD]'; }
forget() { on "$router" conntrack -D -p tcp --dport "$1" >/dev/null 2>&1; }
# All that was made is gone.
is_over() { rules_are 0 && [ "$(nic_counter replace_ok)" = "$(nic_counter destroy_ok)" ]; }

# While the driver is called for the first rule of a connection. The shorter the call, the less often garbage
# collection comes by before its end; but the machine has to be faster.
calls=0 rounds=0 port=5100 latency_us=$((400000 * SLOWNESS))
while [ $rounds -lt 5 ] && [ $port -lt 5130 ]; do
	port=$((port + 1))
	nic counters 0
	nic latency_us $latency_us
	flow_open f$port tcp4 $port
	forget $port
	before=$(nic_counter replace_ok)
	nic latency_us 0
	busywait $LIMIT counter_reaches replace_ok 1 >/dev/null || true
	busywait $LIMIT is_over >/dev/null
	after=$(nic_counter replace_ok)
	if [ "$before" = 0 ] && [ "$after" -gt 0 ]; then
		rounds=$((rounds + 1)) calls=$((calls + after))
	else
		latency_us=$((latency_us * 3 / 2))
	fi
done
is $rounds 5 "five connections are forgotten while their first rule is made, and it is withdrawn"
is $calls 5 "five connections forgotten while their first rule is made: no second rule is"

# While it waits behind another one.
nic counters 0
nic latency_us $((6000000 * SLOWNESS))
flow_open first tcp4 5201
flow_open second tcp4 5202
busywait $LIMIT has_entry 5202 >/dev/null
forget 5202
is "$(nic_counter replace_ok)" 0 "two connections wait for the NIC when the second one is forgotten"
nic latency_us 0
check "forgotten while it waits: the other one gets into the NIC" wait_rules 2
is "$(nic_rules | grep -c "=5202 ")" 0 "forgotten while it waits: no rule is left of it"
# Its first one may have been on its way.
check "forgotten while it waits: no second rule was made" [ "$(nic_counter replace_ok)" -le 3 ]
on "$router" nft flush ruleset
is "$(nic_rules)" "" "no rule is left"
for counter in replace_eexist replace_dup_match destroy_enoent destroy_failed; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
#
# Routers that do not send packets by their destination alone: which of their flows get into the NIC,
# and that those which do not are left alone in software.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module report_ms=0
topology

# by_mark KEPT: packets from the client have a mark, which conntrack keeps or does not.
by_mark() {
	flowtable_ruleset | load_ruleset
	load_ruleset <<-END
		add chain inet fw before { type filter hook prerouting priority mangle; }
		add rule inet fw before iifname "nic0" meta mark set 7 $1
	END
}
# in_hardware_by_mark TEXT NAME: where conntrack keeps the mark.
in_hardware_by_mark() {
	by_mark "ct mark set meta mark"
	flow_open "$2" tcp4
	check "$1: in the NIC" flow_send_until "$2" $LIMIT rules_are 2
	flow_close "$2"
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
}
complaints() { told "is not found again" | grep -c . || true; }

# The main table does not know the way.
on "$router" ip route del 10.0.2.0/24 dev nic1
on "$router" ip route add 10.0.2.0/24 dev nic1 table 7
on "$router" ip rule add fwmark 7 lookup 7

in_hardware_by_mark "routed by a mark that conntrack keeps" kept

# The table of an uplink: it does not know the way back, which replies, without the mark, do not need.
on "$router" ip route replace default via 10.0.2.2 dev nic1 onlink table 7
on "$router" ip route del 10.0.2.0/24 dev nic1 table 7
in_hardware_by_mark "by a mark that replies do not have" uplink
on "$router" ip route add 10.0.2.0/24 dev nic1 table 7
on "$router" ip route del default table 7

by_mark ""
flow_open lost udp4
complained() { [ "$(complaints)" -gt 0 ]; }
check "by one that nobody keeps: the log says what to do" flow_send_until lost $LIMIT complained
# Offered each second, looked at less and less often.
before=$(complaints)
end=$((SECONDS + 8))
while [ $SECONDS -lt $end ]; do flow_send lost 100; done
check "and the flow is left alone" [ $(($(complaints) - before)) -le 4 ]
check "in software" grep -q '\[OFFLOAD\]' <(on "$router" conntrack -L -p udp 2>/dev/null)
is "$(nic_rules)" "" "no rule is there for it"
flow_close lost
on "$router" nft flush ruleset
on "$router" ip rule del fwmark 7 lookup 7
on "$router" ip route add 10.0.2.0/24 dev nic1

on "$router" ip link add red type vrf table 10
on "$router" ip link set red up
on "$router" ip link set nic0 master red
on "$router" ip link set nic1 master red
# They go with the change of the table.
on "$router" ip addr replace fd00:1::1/64 dev nic0 nodad
on "$router" ip addr replace fd00:2::1/64 dev nic1 nodad
ways_work
flowtable_ruleset | load_ruleset
for proto in tcp4 udp6; do
	flow_open $proto $proto
	check "within a VRF, $proto: in the NIC" flow_send_until $proto $LIMIT rules_are 2
	flow_close $proto
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
	flowtable_ruleset | load_ruleset
done
on "$router" nft flush ruleset
check "no rule is left" rules_are 0

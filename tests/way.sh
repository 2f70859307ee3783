#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 300
#
# Ways that hardware cannot tell from others: those that let packets be less long than the port does, and those of VLAN
# devices that give priorities.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module report_ms=0
topology
source "$(dirname "${BASH_SOURCE[0]}")/sides.sh"
nic accept "default +pppoe_match"

port=7000
# run LENGTH [COUNT]: of a connection of its own, in $json, with $six of IPv6. run_on: of the last one.
six=
run_on() { json=$("$_here/way.py" $six "$client" "$server" "$wire" $port "$@"); }
run() {
	port=$((port + 1))
	mark_log
	run_on "$@"
}
of() { jq -c ".$1" <<<"$json"; }
in_nic() {
	run_on 100
	[ "$(grep -c "port=$port " $NIC/rules)" = 2 ]
}
out_of_nic() {
	run_on 100
	[ "$(grep -c "port=$port " $NIC/rules)" = 0 ]
}
is_told() { told "$1" | grep ":$port "; }

# short TEXT MTU: packets of this way must not be longer.
short() {
	flowtable_ruleset | load_ruleset
	run 100
	check "$1: the log says why the connection stays in software" \
		busywait $LIMIT is_told "lets packets be less long than the port"
	run_on 1400
	check "$1: no packet is longer than $2" [ "$(of longest)" -le "$2" ]
	check "$1: the client is told" [ "$(of refused)" -gt 0 ]
	check "$1: there is no rule" out_of_nic
	on "$router" nft flush ruleset
	on "$client" ip route flush cache
	on "$client" ip -6 route flush cache
}
# keeps MTU: whether packets of the last connection are not longer, and longer ones are answered.
keeps() {
	run_on 1400 10
	[ "$(of longest)" -le "$1" ] && [ "$(of refused)" -gt 0 ]
}
has_entry() {
	run_on 100 5
	on "$router" conntrack -L -f "$1" 2>/dev/null | grep "dport=$port .*OFFLOAD"
}
# short_in_software TEXT MTU: IPv6, whose routes ask for that; in a table without flags, within two seconds.
short_in_software() {
	run 100 5
	check "without a flowtable, $1: longer packets are answered" keeps "$2"
	on "$client" ip -6 route flush cache
	flowtable_ruleset flags= | load_ruleset
	run 100 5
	check "in software, $1: there is an entry" busywait $LIMIT has_entry ipv6
	check "in software, $1: longer packets are answered" busywait 4000 keeps "$2"
	on "$router" nft flush ruleset
	on "$client" ip -6 route flush cache
}
# full TEXT: this way takes what the port takes.
full() {
	flowtable_ruleset | load_ruleset
	run 100
	check "$1: the connection is in the NIC" busywait $LIMIT in_nic
	on "$router" nft flush ruleset
}

wire=wire1
on "$router" ip route replace 10.0.2.2/32 dev nic1 mtu 1300
short "a route with an MTU of 1300" 1300
on "$router" ip route replace 10.0.2.2/32 dev nic1
full "a route without an MTU"
six=-6
on "$router" ip -6 route replace fd00:2::2/128 dev nic1 mtu 1300
short "an IPv6 route with an MTU of 1300" 1300
short_in_software "an IPv6 route with an MTU of 1300" 1300
on "$router" ip -6 route del fd00:2::2/128 dev nic1
full "an IPv6 route without an MTU"
six=

flowtable_ruleset | load_ruleset
run 100
check "before a route gets an MTU: the connection is in the NIC" busywait $LIMIT in_nic
on "$router" ip route replace 10.0.2.2/32 dev nic1 mtu 1300
check "after a route has got an MTU: its rules are gone" busywait $LIMIT out_of_nic
on "$router" nft flush ruleset
on "$router" ip route del 10.0.2.2/32 dev nic1

side 1 vlan
wire=${host_top[1]}
full "a VLAN device with the MTU of its port"
on "$router" ip link set "${top[1]}" mtu 1300
short "a VLAN device with an MTU of 1300" 1300

if modprobe -a pppoe ppp_generic 2>/dev/null; then
	side 1 pppoe
	wire=${host_top[1]}
	full "a PPPoE session with an MTU of 1492"
	on "$router" ip link set "${top[1]}" mtu 1300
	short "a PPPoE session with an MTU of 1300" 1300
fi

# Priorities. The NIC gives them only if it reads rules as tc means them.
side 1 vlan
wire=wire1
all="0:3 1:3 2:3 3:3 4:3 5:3 6:3 7:3 8:3 9:3 10:3 11:3 12:3 13:3 14:3 15:3"
priorities() {
	# shellcheck disable=SC2086
	on "$router" ip link set "${top[1]}" type vlan egress-qos-map $1
}
# in_software TEXT WORDS
in_software() {
	flowtable_ruleset | load_ruleset
	run 100
	check "$1: the log says why the connection stays in software" busywait $LIMIT is_told "$2"
	check "$1: there is no rule" out_of_nic
	on "$router" nft flush ruleset
}
priorities "0:3 6:5"
in_software "priorities that depend on the packet" "priorities that depend on the packet"
priorities "$all"
in_software "one priority, and a NIC that would not give it" "does not set the priority"

nic accept "default +ttl_add"
flowtable_ruleset | load_ruleset
run 100
check "one priority, and a NIC that gives it: the connection is in the NIC" busywait $LIMIT in_nic
run_on 100
is "$(of pcp)" "[3]" "one priority, and a NIC that gives it: frames have it"
priorities "0:2"
check "the priorities have changed: the rules are gone" busywait $LIMIT out_of_nic
on "$router" nft flush ruleset

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 300
#
# Connections with VLAN tags, of 802.1Q and 802.1ad, go through a NIC that takes rules as tc
# means them, or stay whole in software, and the log says why.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module report_ms=0
topology

# tagged DEV "[PROTOCOL…]" IPV4 IPV6 [GATEWAY4 GATEWAY6]: commands for ip -batch that move the addresses
# of DEV into tags of these kinds, the outermost first, each with VLAN 7.
tagged() {
	local dev=$1 proto
	[ -z "${is_tagged[$1]:-}" ] || echo "link del $dev.7"
	is_tagged[$1]=$2
	echo "addr flush dev $dev scope global"
	for proto in $2; do
		echo "link add link $dev name $dev.7 type vlan id 7 protocol $proto"
		dev=$dev.7
		echo "link set $dev up"
	done
	echo "addr add $3 dev $dev"
	echo "addr add $4 dev $dev nodad"
	[ -z "${5:-}" ] || printf 'route replace default via %s\n' "$5" "$6"
}
declare -A is_tagged=()

# wires "[PROTOCOL…]" "[PROTOCOL…]": the tags on the client's and the server's wire.
wires() {
	tagged wire0 "$1" 192.168.1.2/24 fd00:1::2/64 192.168.1.1 fd00:1::1 >"$_output.client"
	tagged wire1 "$2" 10.0.2.2/24 fd00:2::2/64 10.0.2.1 fd00:2::1 >"$_output.server"
	{
		tagged nic0 "$1" 192.168.1.1/24 fd00:1::1/64
		tagged nic1 "$2" 10.0.2.1/24 fd00:2::1/64
	} >"$_output.router"
	ip -n "$client" -batch "$_output.client"
	ip -n "$router" -batch "$_output.router"
	ip -n "$server" -batch "$_output.server"
	ways_work
}

close() {
	flow_close "$1"
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
}

# hardware TEXT PROTO VLANS: with these VLANs at the server's wire.
hardware() {
	local text="$1, $2"
	flowtable_ruleset masquerade=1 | load_ruleset
	flow_open "$text" "$2"
	check "$text: both directions are in the NIC" wait_rules 2
	is "$(nic_rules | grep -o "in=nic1 vlan=[^ ]*")" "in=nic1 vlan=$3" "$text: with the right tags"
	check "$text: packets pass in the NIC" in_hardware "$text" 50000
	close "$text"
}

# software TEXT PROTO WORDS
said() { last_told "stays in software"; }
says_more_than() { [ "$(said)" != "$1" ]; }
software() {
	local text="$1, $2" before
	before=$(said)
	flowtable_ruleset | load_ruleset
	flow_open "$text" "$2"
	check "$text: is refused" flow_send_until "$text" $((3 * LIMIT)) says_more_than "$before"
	check "$text: the log says \"$3\"" grep -E "direction: $3( |\$)" <(said)
	check "$text: the connection goes on" flow_send "$text" 5000
	is "$(nic_rules)" "" "$text: nothing is in the NIC"
	close "$text"
}

nic accept "default +8021ad +ttl_add"
wires "" 802.1ad
for proto in tcp4 udp6; do hardware "802.1ad at one side" $proto 88a8:7; done
wires "" "802.1ad 802.1Q"
for proto in tcp6 udp4; do hardware "802.1Q in 802.1ad at one side" $proto 88a8:7.7; done
nic accept "default +ttl_add"
software "802.1ad, and the NIC knows none" tcp4 "the driver refused the rule: .* \"emunic: .*"
wires 802.1ad 802.1ad
nic accept "default +8021ad +ttl_add"
hardware "802.1ad at both sides" tcp4 88a8:7

nic accept "default +8021ad +push_outer_first"
software "802.1ad, and the NIC routes" tcp4 "the driver does not match ingress VLAN tags of type 0x88a8.*"

# Two tags in the place of one cannot be had from drivers that take rules as tc means them; the
# NIC has to be asked whether it is one of these.
wires 802.1Q "802.1Q 802.1Q"
nic accept "default +8021ad +ttl_add"
software "two tags for one" udp4 "the driver cannot replace VLAN tags by another type or number of tags"
nic accept "default +push_outer_first"
hardware "two tags for one, by a NIC that routes" tcp6 7.7

for counter in replace_eexist replace_dup_match destroy_enoent stats_enoent; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
# timeout: 300
#
# Connections with VLAN tags, of 802.1Q and 802.1ad, go through a NIC that takes rules as tc
# means them, or stay whole in software, and the log says why.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module report_ms=0
topology

# tagged NAMESPACE DEV IPV4 IPV6 [PROTOCOL…]: moves the addresses of DEV into tags of these
# kinds, the outermost first, each with VLAN 7.
tagged() {
	local ns=$1 dev=$2 v4=$3 v6=$4 proto
	shift 4
	on "$ns" ip link del "$dev.7" 2>/dev/null || true
	on "$ns" ip addr flush dev "$dev" scope global
	for proto; do
		on "$ns" ip link add link "$dev" name "$dev.7" type vlan id 7 protocol "$proto"
		on "$ns" ip link set "$dev.7" up
		dev=$dev.7
	done
	_address "$ns" "$dev" "$v4" "$v6"
}

# wires "[PROTOCOL…]" "[PROTOCOL…]": the tags on the client's and the server's wire.
wires() {
	# shellcheck disable=SC2086
	{
		tagged "$client" wire0 192.168.1.2/24 fd00:1::2/64 $1
		tagged "$router" nic0 192.168.1.1/24 fd00:1::1/64 $1
		tagged "$router" nic1 10.0.2.1/24 fd00:2::1/64 $2
		tagged "$server" wire1 10.0.2.2/24 fd00:2::2/64 $2
	}
	on "$client" ip route replace default via 192.168.1.1
	on "$client" ip -6 route replace default via fd00:1::1
	on "$server" ip route replace default via 10.0.2.1
	on "$server" ip -6 route replace default via fd00:2::1
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
said() { dmesg | grep 'nft_offload: .* stays in software' | tail -n 1 || true; }
says_more_than() { [ "$(said)" != "$1" ]; }
software() {
	local text="$1, $2" before
	before=$(said)
	flowtable_ruleset | load_ruleset
	flow_open "$text" "$2"
	check "$text: is refused" flow_send_until "$text" $((3 * LIMIT)) says_more_than "$before"
	check "$text: the log says \"$3\"" grep -E "direction: $3 " <(said)
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
software "802.1ad, and the NIC routes" tcp4 "the driver would not look at the tag 0x88a8 .*"

# Two tags in the place of one cannot be had from drivers that take rules as tc means them; the
# NIC has to be asked whether it is one of these.
wires 802.1Q "802.1Q 802.1Q"
nic accept "default +8021ad +ttl_add"
software "two tags for one" udp4 "tags are replaced by others of another kind or number"
nic accept "default +push_outer_first"
hardware "two tags for one, by a NIC that routes" tcp6 7.7

for counter in replace_eexist replace_dup_match destroy_enoent stats_enoent; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

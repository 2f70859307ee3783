#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 240
#
# Routers that do not send packets by their destination alone: which of their flows get into the NIC,
# and that those which do not are left alone in software.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module report_ms=0
topology
# shellcheck source=tests/sides.sh
source "$_here/sides.sh"

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
flow_open unkept udp4
check "by a mark that conntrack does not keep: in the NIC" flow_send_until unkept $LIMIT rules_are 2
flow_close unkept
on "$router" nft flush ruleset
on "$router" conntrack -F 2>/dev/null
on "$router" ip rule del fwmark 7 lookup 7
on "$router" ip route add 10.0.2.0/24 dev nic1

# --- rules that ask for the device by which packets come in: what one side sends has to go by a box

# A box on the third port sends everything back, with a TTL that is less by two then.
box=''
add_ns box
ip link set nic2 netns "$router"
ip link set wire2 netns "$box"
_address "$router" nic2 10.0.3.1/24 fd00:3::1/64
_address "$box" wire2 10.0.3.2/24 fd00:3::2/64 10.0.3.1 fd00:3::1
on "$box" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
	net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.wire2.send_redirects=0
for family in -4 -6; do
	gateway=10.0.3.2
	[ $family = -4 ] || gateway=fd00:3::2
	on "$router" ip $family route add default via $gateway dev nic2 table 100
	busywait $LIMIT on "$router" ping -q -c 1 -W 1 $gateway >/dev/null
done
# What comes straight to the sides, of all and of what a rule in the NIC has sent (as the NIC says by
# the priority).
for side in 0 1; do
	on "${wire_ns[side]}" nft -f - <<-END
		table netdev straight {
			counter every { }
			counter by_nic { }
			chain comes {
				type filter hook ingress device wire$side priority 0; policy accept;
				ip ttl != 63 accept
				ip6 hoplimit != 63 accept
				meta l4proto { tcp, udp } counter name every
				meta l4proto { tcp, udp } meta priority != none counter name by_nic
			}
		}
	END
done
# straight SIDE: how many packets to that side went past the box since it was last asked, and how many of
# them the NIC has sent.
straight() {
	local counts
	mapfile -t counts < <(on "${wire_ns[$1]}" nft reset counters | sed -n 's/.*packets \([0-9]*\).*/\1/p')
	echo "${counts[*]}"
}

# detour "OPTION…": a rule with these sends packets by the box; undo takes it away.
# shellcheck disable=SC2086
detour() {
	on "$router" ip rule add $1 lookup 100 priority 100
	on "$router" ip -6 rule add ${1/192.168.1.0\/24/fd00:1::\/64} lookup 100 priority 100
}
undo() {
	on "$router" ip rule del priority 100
	on "$router" ip -6 rule del priority 100
}

# by_the_box SIDE, not_followed: where packets from a side are by now.
by_the_box() { grep -q "in=nic$1 .* out=nic2 " $NIC/rules; }
not_followed() { [ "$(complaints)" -gt 0 ]; }

# judged NAME SIDE MADE TEXT: a flow that must not go straight from a side. MADE is the direction whose
# packets make the entry: of the other one, C does not know that the rule applies to it, so that it is left
# to the host.
judged() {
	local right=reply text="made by $3, $4"
	[ "$2" = 1 ] || right=original
	if [ "$3" = $right ]; then
		check "$text: by the box, in the NIC" flow_send_until "$1" $LIMIT by_the_box "$2"
	else
		check "$text: the log says that it is not followed" flow_send_until "$1" $LIMIT not_followed
		is "$(nic_rules)" "" "$text: no rule is there for it"
		is "$(on "$router" conntrack -L 2>/dev/null | grep -c OFFLOAD)" 0 "$text: it is left to the host"
	fi
	straight $((1 - $2)) >/dev/null
	flow_send "$1" 5000
	read -r every _ < <(straight $((1 - $2)))
	is "$every" 0 "$text: no packet past the box"
}
fresh() {
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
	mark_log
}

# asks_for_device SIDE MADE PROTO RULE TEXT: the rule is there before the flow, and comes while it is in
# the NIC; without a flowtable nothing goes past the box.
asks_for_device() {
	local side=$1 made=$2 proto=$3 rule=$4 text="$3, $5" every by_nic
	detour "$rule"
	flow_open control "$proto"
	straight $((1 - side)) >/dev/null
	flow_send control 5000
	read -r every _ < <(straight $((1 - side)))
	is "$every" 0 "without a flowtable, $text: all packets go by the box"
	flow_close control

	fresh
	flowtable_ruleset devices="nic0, nic1, nic2" of="ct direction $made" | load_ruleset
	flow_open before "$proto"
	judged before "$side" "$made" "$text that is there before"
	flow_close before

	undo
	fresh
	flowtable_ruleset devices="nic0, nic1, nic2" of="ct direction $made" | load_ruleset
	flow_open during "$proto"
	flow_send_until during $LIMIT rules_are 2 >/dev/null
	straight $((1 - side)) >/dev/null
	flow_send during 5000
	read -r _ by_nic < <(straight $((1 - side)))
	check "made by $made, $text that is not there: straight, by the NIC" [ "$by_nic" -gt 0 ]
	detour "$rule"
	judged during "$side" "$made" "$text that comes"
	flow_close during
	undo
	fresh
}

asks_for_device 1 original tcp4 "iif nic1" "a rule for what comes from the server"
asks_for_device 1 reply udp6 "iif nic1" "a rule for what comes from the server"
asks_for_device 0 original tcp6 "iif nic0" "a rule for what comes from the client"
asks_for_device 0 reply udp4 "iif nic0" "a rule for what comes from the client"

# Where only a rule for a VLAN device knows the way back.
side 1 vlan
on "$router" ip route del 192.168.1.0/24 dev nic0
on "$router" ip route add 192.168.1.0/24 dev nic0 table 8
on "$router" ip rule add iif nic1.20 lookup 8
asks_for_device 0 reply udp4 "iif nic0" "a rule for what comes from the client, and another one for the VLAN"
on "$router" ip rule del iif nic1.20 lookup 8
on "$router" ip route add 192.168.1.0/24 dev nic0

# A device gets the name that a rule asks for. No poll shows it soon.
detour "iif uplink"
on "$router" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=3000
flowtable_ruleset devices="nic0, nic1, nic2" of="ct direction reply" | load_ruleset
flow_open named udp4
check "a rule for a device that is not there: in the NIC" flow_send_until named $LIMIT rules_are 2
on "$router" ip link set nic1.20 name uplink
judged named 1 reply "a rule for the name that a device gets"
flow_close named
on "$router" ip link set uplink name nic1.20
undo
fresh
side 1 plain

# --- VRFs: rules see them as the device by which packets come in, and those of IPv4 their ports, too

# into_red DEVICE-0 DEVICE-1, out_of_red DEVICE-0 DEVICE-1
into_red() {
	on "$router" ip link add red type vrf table 10
	on "$router" ip link set red up
	on "$router" ip link set "$1" master red
	on "$router" ip link set "$2" master red
	moved "$@"
}
out_of_red() {
	on "$router" ip link del red
	moved "$@"
}
# These addresses go with the change of the table.
moved() {
	on "$router" ip addr replace fd00:1::1/64 dev "$1" nodad
	on "$router" ip addr replace fd00:2::1/64 dev "$2" nodad
	ways_work
}
# in_hardware_in_red TEXT PROTO…
in_hardware_in_red() {
	local proto
	for proto in "${@:2}"; do
		flowtable_ruleset | load_ruleset
		flow_open "$proto" "$proto"
		check "within a VRF, $1, $proto: in the NIC" flow_send_until "$proto" $LIMIT rules_are 2
		flow_close "$proto"
		fresh
	done
}
into_red nic0 nic1
in_hardware_in_red "two ports" tcp4 udp6

# What comes back from the box, which is outside.
on "$router" ip route add 192.168.1.0/24 dev nic0
on "$router" ip -6 route add fd00:1::/64 dev nic0
asks_for_device 1 original udp6 "iif red to 192.168.1.0/24" "a rule for what comes from the VRF"
asks_for_device 1 original tcp4 "iif nic1" "a rule for what comes from a port of it"
# IPv6 does not know it.
detour "iif nic1"
flow_open control udp6
straight 0 >/dev/null
flow_send control 5000
read -r every _ < <(straight 0)
check "without a flowtable, udp6, a rule for what comes from a port of it does nothing" [ "$every" -gt 0 ]
in_hardware_in_red "a rule for what comes from one" udp6
undo

out_of_red nic0 nic1
side 0 vlan
side 1 vlan
into_red "${top[@]}"
in_hardware_in_red "two VLANs" tcp6 udp4
on "$router" nft flush ruleset
check "no rule is left" rules_are 0

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug stock
# also: flows of all kinds get into hardware
# timeout: 300
#
# Connections go through the NIC: TCP, UDP and GRE, IPv4 and IPv6, routed and translated.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module
topology

has_hw_offload() {
	local lines
	lines=$(on "$router" conntrack -L "$@" 2>/dev/null)
	echo "$lines"
	[ "$(wc -l <<<"$lines")" = "$(grep -c '\[HW_OFFLOAD\]' <<<"$lines")" ]
}

# What conntrack has counted for the client's packets, once the last poll is in.
counted() {
	on "$router" conntrack -L -p tcp 2>/dev/null | grep -o 'bytes=[0-9]*' | head -1 | cut -d= -f2
}
counted_at_least() { [ "$(counted)" -ge "$1" ]; }

on "$router" sysctl -qw net.netfilter.nf_conntrack_acct=1

for proto in tcp4 tcp6 udp4 udp6; do
	flowtable_ruleset | load_ruleset
	flow_open routed $proto
	check "$proto, routed: both directions are in the NIC" wait_rules 2
	check "$proto, routed: packets pass in the NIC" in_hardware routed 50000
	flow_close routed
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null

	flowtable_ruleset masquerade=1 | load_ruleset
	flow_open masqueraded $proto
	check "$proto, masqueraded: both directions are in the NIC" wait_rules 2
	check "$proto, masqueraded: packets pass in the NIC" in_hardware masqueraded 50000
	check "$proto, masqueraded: conntrack shows [HW_OFFLOAD]" \
		has_hw_offload -p "${proto%?}" -f "ipv${proto: -1}"
	flow_close masqueraded
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
done

# The server is reached by the router's address and another port, and sees another client.
flowtable_ruleset | load_ruleset
on "$router" nft -f - <<-END
	table inet nat {
		chain prerouting {
			type nat hook prerouting priority -100; policy accept;
			iifname "nic0" meta nfproto ipv4 tcp dport 5999 dnat ip to 10.0.2.2:7000
			iifname "nic0" meta nfproto ipv6 udp dport 5999 dnat ip6 to [fd00:2::2]:7000
		}
		chain postrouting {
			type nat hook postrouting priority 100; policy accept;
			oifname "nic1" ip protocol { tcp, udp } snat ip to 10.0.2.1:2000-3000
			oifname "nic1" meta nfproto ipv6 snat ip6 to fd00:2::1
		}
	}
END
for proto in tcp4 udp6; do
	to=10.0.2.2
	[ $proto = tcp4 ] || to=fd00:2::2
	flow_open both $proto 5999 $to 7000
	check "$proto, source and destination translated: both directions are in the NIC" wait_rules 2
	check "$proto, source and destination translated: packets pass in the NIC" in_hardware both 50000
	is "$(nic_rules | grep -cE 'dport=5999 .*(src|sip).*dport:7000')" 1 \
		"$proto, source and destination translated: the rule says so"
	flow_close both
	on "$router" conntrack -F 2>/dev/null
	check "$proto: nothing stays in the NIC" wait_rules 0
done
on "$router" nft flush ruleset

# A tunnel of GRE between client and server is a connection of its own.
tunnel() {
	local mode=$1 hosts=("$2" "$3") inner=(172.16.0.1 172.16.0.2) namespaces=("$client" "$server") i
	for i in 0 1; do
		# shellcheck disable=SC2086
		on "${namespaces[i]}" ip link add gre_test type $mode \
			local "${hosts[i]}" remote "${hosts[1 - i]}" ttl 64
		on "${namespaces[i]}" ip addr add "${inner[i]}/30" dev gre_test
		on "${namespaces[i]}" ip link set gre_test mtu 1400 up
	done
}
through_tunnel() { on "$client" ping -q -i 0.01 -c "$1" -s 972 172.16.0.2; }
for mode in gre ip6gre; do
	case $mode in
	gre) tunnel gre 192.168.1.2 10.0.2.2 ;;
	# Without the extension header that it has by default.
	ip6gre) tunnel "ip6gre encaplimit none" fd00:1::2 fd00:2::2 ;;
	esac
	flowtable_ruleset | sed 's/tcp, udp/&, gre/' | load_ruleset
	busywait $LIMIT through_tunnel 3
	check "$mode: both directions are in the NIC" wait_rules 2
	check "$mode: the rules match the protocol and no ports" \
		[ "$(nic_rules | grep -c 'proto=gre .*sport=0 .*dport=0')" = 2 ]
	check "$mode: packets pass in the NIC" moves_in_hardware 50000 through_tunnel 50
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
	for ns in "$client" "$server"; do on "$ns" ip link del gre_test; done
done

# Hardware's packets are added to conntrack's counters, at the latest when the flow ends.
flowtable_ruleset | load_ruleset
flow_open counted tcp4
check "for counting: both directions are in the NIC" wait_rules 2
flow_send counted 300000
on "$router" nft flush ruleset
check "conntrack has counted what the NIC has forwarded" busywait $LIMIT counted_at_least 300000
check "the connection goes on without the ruleset" flow_send counted 1000
flow_close counted
on "$router" conntrack -F 2>/dev/null

# The old flow is destroyed a second after the new one has been installed.
flowtable_ruleset | load_ruleset
flow_open moved tcp4
check "for a change of the way: both directions are in the NIC" wait_rules 2
moved() { rules_are 2 && fails grep -qF "$cookie" $NIC/rules; }
read -r cookie _ <$NIC/rules
on "$router" ip link set nic1 mtu 1400
check "a change of the way: the connection gets back into the NIC" flow_send_until moved $LIMIT moved
later=$((${EPOCHREALTIME/./} + 4000000))
busywait $LIMIT is_later $later
check "a change of the way: conntrack shows [HW_OFFLOAD] after the old flow is destroyed" has_hw_offload -p tcp
on "$router" nft flush ruleset
check "conntrack shows no [HW_OFFLOAD] after nft flush ruleset" fails has_hw_offload -p tcp
on "$router" ip link set nic1 mtu 1500
flow_close moved
on "$router" conntrack -F 2>/dev/null

# The table looks up by the tuple, and may find an old entry as long as one is there: of many in one second, too, the
# last one is found, or none is made meanwhile.
flowtable_ruleset | load_ruleset
flow_open shaken udp4
check "for many changes of the way: both directions are in the NIC" wait_rules 2
read -r cookie _ <$NIC/rules
flow_flood shaken
for mtu in {1401..1480}; do
	echo "link set nic1 mtu $mtu"
done >"$_output.batch"
on "$router" ip -batch "$_output.batch"
check "many changes of the way: the connection gets back into the NIC" busywait $LIMIT moved
flow_close shaken
on "$router" nft flush ruleset
on "$router" ip link set nic1 mtu 1500
on "$router" conntrack -F 2>/dev/null

# What follows is arithmetic, for which the debug machine is too slow.
if has_time; then
	# A driver whose counters start anew gives a difference below zero, which is nearly 2^64.
	flowtable_ruleset | load_ruleset
	flow_open restarted tcp4
	check "for counting anew: both directions are in the NIC" wait_rules 2
	flow_send restarted 300000
	check "for counting anew: the statistics are asked for" busywait $LIMIT counted_at_least 300000
	nic reset 2
	flow_send restarted 5000
	on "$router" nft flush ruleset
	check "counters that go backwards take nothing away" [ "$(counted)" -ge 300000 ]
	check "counters that go backwards add nothing" [ "$(counted)" -lt 1000000 ]
	flow_close restarted
	on "$router" conntrack -F 2>/dev/null

	flowtable_ruleset counter= | load_ruleset
	flow_open uncounted tcp4
	check "without \"counter\": both directions are in the NIC" wait_rules 2
	check "without \"counter\": packets pass in the NIC" in_hardware uncounted 300000
	on "$router" nft flush ruleset
	check "without \"counter\": no rule is left" rules_are 0
	check "without \"counter\": conntrack does not know what the NIC has forwarded" [ "$(counted)" -lt 100000 ]
fi

for counter in replace_eexist replace_dup_match destroy_enoent stats_enoent; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

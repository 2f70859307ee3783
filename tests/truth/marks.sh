#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 500
# exclusive: times are measured
#
# The mark of a connection, by which packets are routed, changes while the connection goes on: nobody tells,
# so packets take the new way with the next garbage collection.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Garbage collection comes once a second.
second=$((1500 * SLOWNESS))

# remark MARK: the words of a command, for event.
remark() {
	echo "for f in ipv4 ipv6; do ip netns exec '$router' conntrack -U -m $1 -f \$f >/dev/null 2>&1; done"
}
by_mark() {
	on "$router" ip route add 10.9.9.9 via 10.0.3.2 table 100
	on "$router" ip route add fd00:9::9 via fd00:3::2 table 100
	on "$router" ip rule add fwmark 7 lookup 100
	on "$router" ip -6 rule add fwmark 7 lookup 100
	load_ruleset <<<'table inet marks {
		chain before {
			type filter hook prerouting priority mangle
			meta mark set ct mark
		}
	}'
	busywait $LIMIT on "$router" ping -q -c 1 -W 1 10.0.3.2 >/dev/null
	busywait $LIMIT on "$router" ping -q -c 1 -W 1 fd00:3::2 >/dev/null
}
events() {
	by_mark
	GRACE=$second gone_limit=$second
	event "connections get a mark" --old wire=wire1 -- "$(back_by_wire2)" "$(remark 7)"
	way_back
	# The mark says nothing about the way: nothing changes for the connections.
	promise="stall kept"
	event "connections get a mark that no rule knows" --limit 3000 -- "$(remark 5)"
	promise="stall gone back"
}

# What comes to the server by each of its cables, but for TCP's last words.
count_wires() {
	local wire
	for wire in wire1 wire2; do
		echo "table netdev $wire {
			counter every { }
			chain comes {
				type filter hook ingress device $wire priority 0; policy accept;
				meta l4proto { tcp, udp } counter name every
			}
		}"
	done | on "$server" nft -f -
}
# only_by WIRE FLOW: what the flow sends now comes by that one.
only_by() {
	local other=wire1 mine theirs
	[ "$1" = wire2 ] || other=wire2
	on "$server" nft reset counters >/dev/null
	flow_send "$2" 5000
	mine=$(on "$server" nft list counter netdev "$1" every | sed -n 's/.*packets \([0-9]*\).*/\1/p')
	theirs=$(on "$server" nft list counter netdev $other every | sed -n 's/.*packets \([0-9]*\).*/\1/p')
	echo "$mine by $1, $theirs by $other"
	[ "$mine" -gt 0 ] && [ "$theirs" = 0 ]
}
offloaded() { on "$router" conntrack -L -f "$1" 2>/dev/null | grep -F '[OFFLOAD]'; }
# A table without `flags offload` is looked at once a second, too: it has seen the entry before it can see
# a change.
software() {
	local proto family later
	load_module
	world
	by_mark
	count_wires
	flowtable_ruleset flags= devices="nic0, nic1, nic2" of="" | load_ruleset
	for proto in udp4 tcp6; do
		family=ipv4 flow_to=10.9.9.9
		[ $proto = udp4 ] || family=ipv6 flow_to=fd00:9::9
		flow_open software $proto
		check "in software, $proto: has an entry" flow_send_until software $LIMIT offloaded $family
		later=$((${EPOCHREALTIME/./} + 2000000 * SLOWNESS))
		busywait $LIMIT is_later $later
		check "in software, $proto: goes the way without a mark" only_by wire1 software
		on "$router" conntrack -U -f $family -m 7 >/dev/null 2>&1
		check "in software, $proto: gets a mark, and goes its way" busywait 2000 only_by wire2 software
		check "in software, $proto: has an entry again" flow_send_until software $LIMIT offloaded $family
		busywait $LIMIT is_later $((${EPOCHREALTIME/./} + 2000000 * SLOWNESS))
		on "$router" conntrack -U -f $family -m 0 >/dev/null 2>&1
		check "in software, $proto: loses the mark, and goes back" busywait 2000 only_by wire1 software
		flow_close software
	done
	on "$router" nft flush ruleset
}

both
module=nft_offload
start_over
software

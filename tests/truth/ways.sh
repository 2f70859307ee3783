#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# also: what the host would do is found with the kernel's own functions
# timeout: 600
# exclusive: times are measured
#
# Neighbours, routes, rules and the egress device change under connections.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

events() {
	local new

	new=02:00:00:00:99:0$((RANDOM % 10))
	event "neighbour changes its MAC" --old dmac="$(mac_of "$server" wire1)" -- \
		"$(s4 link set wire1 address $new)"

	event "neighbour is deleted" -- \
		"$(r4 neigh del 10.0.2.2 dev nic1)" "$(r6 neigh del fd00:2::2 dev nic1)"

	new=02:00:00:00:98:0$((RANDOM % 10))
	event "deleted neighbour answers with another MAC" --old dmac="$(mac_of "$server" wire1)" -- \
		"$(s4 link set wire1 address $new)" \
		"$(r4 neigh del 10.0.2.2 dev nic1)" "$(r6 neigh del fd00:2::2 dev nic1)"

	event "neighbour fails" -- "$(r4 neigh replace 10.0.2.2 dev nic1 nud failed)" \
		"$(r6 neigh replace fd00:2::2 dev nic1 nud failed)"

	event "route is replaced" --old wire=wire1 -- "$(back_by_wire2)" \
		"$(r4 route replace 10.9.9.9 via 10.0.3.2)" "$(r6 route replace fd00:9::9 via fd00:3::2)"
	way_back

	on "$router" ip route add 10.9.9.0/24 via 10.0.3.2
	on "$router" ip route add fd00:9::/64 via fd00:3::2
	event "route is deleted" --old wire=wire1 -- "$(back_by_wire2)" \
		"$(r4 route del 10.9.9.9)" "$(r6 route del fd00:9::9)"
	way_back
	on "$router" ip route del 10.9.9.0/24
	on "$router" ip route del fd00:9::/64

	on "$router" ip route del 10.9.9.9
	on "$router" ip route del fd00:9::9
	on "$router" ip route add 10.9.9.0/24 via 10.0.2.2
	on "$router" ip route add fd00:9::/64 via fd00:2::2
	event "a better route appears" --old wire=wire1 -- "$(back_by_wire2)" \
		"$(r4 route add 10.9.9.9 via 10.0.3.2)" "$(r6 route add fd00:9::9 via fd00:3::2)"
	on "$router" ip route del 10.9.9.0/24
	on "$router" ip route del fd00:9::/64
	way_back

	on "$router" ip route add 10.9.9.9 via 10.0.3.2 table 100
	on "$router" ip route add fd00:9::9 via fd00:3::2 table 100
	event "policy rule is added" --old wire=wire1 -- "$(back_by_wire2)" \
		"$(r4 rule add to 10.9.9.9 lookup 100)" "$(r6 rule add to fd00:9::9 lookup 100)"
	event "policy rule is deleted" --old wire=wire2 -- \
		"$(s4 route replace default via 10.0.2.1)" "$(s6 route replace default via fd00:2::1)" \
		"$(r4 rule del to 10.9.9.9 lookup 100)" "$(r6 rule del to fd00:9::9 lookup 100)"

	# It is there before the connections are: an entry is made for the mark that its connection has then.
	load_ruleset <<<'table inet marks {
		chain before {
			type filter hook prerouting priority mangle
			ct mark set 7 meta mark set ct mark
		}
	}'
	event "policy rule is added for a mark" --old wire=wire1 -- "$(back_by_wire2)" \
		"$(r4 rule add fwmark 7 lookup 100)" "$(r6 rule add fwmark 7 lookup 100)"
	event "marked packets have another route" --old wire=wire2 -- \
		"$(s4 route replace default via 10.0.2.1)" "$(s6 route replace default via fd00:2::1)" \
		"$(r4 route replace 10.9.9.9 via 10.0.2.2 table 100)" \
		"$(r6 route replace fd00:9::9 via fd00:2::2 table 100)"
	on "$router" nft delete table inet marks
	on "$router" ip rule del fwmark 7 lookup 100
	on "$router" ip -6 rule del fwmark 7 lookup 100

	on "$router" ip nexthop add id 4 via 10.0.2.2 dev nic1
	on "$router" ip nexthop add id 6 via fd00:2::2 dev nic1
	on "$router" ip route replace 10.9.9.9 nhid 4
	on "$router" ip -6 route del fd00:9::9
	on "$router" ip -6 route add fd00:9::9 nhid 6
	event "next-hop object is replaced" --old wire=wire1 -- "$(back_by_wire2)" \
		"ip -n $router nexthop replace id 4 via 10.0.3.2 dev nic2" \
		"ip -n $router nexthop replace id 6 via fd00:3::2 dev nic2"
	way_back
	on "$router" ip nexthop flush >/dev/null 2>&1

	event "egress device changes its MAC" --old smac="$(mac_of "$router" nic1)" -- \
		"$(r4 link set nic1 address 02:00:00:00:98:0$((RANDOM % 10)))"

	event "egress device changes its MTU" -- "$(r4 link set nic1 mtu 1400)"
	on "$router" ip link set nic1 mtu 1500
}

echo "# random MACs: TRUTH_SEED=${TRUTH_SEED:=$RANDOM}"
RANDOM=$TRUTH_SEED
both

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# also: what the host would do is found with the kernel's own functions
# timeout: 600
# exclusive: times are measured
#
# Rules by ports and protocols, rules that lead to others, routes that lead nowhere, and addresses that are replaced by
# others, as prefixes that a provider delegates and uplinks that fail over.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

both_families() { # WORDS…: for `ip` on the router
	on "$router" ip "$@"
	on "$router" ip -6 "$@"
}
# rules WORDS…: of both families, in a command for event.
rules() { printf '%s\n' "$(r4 rule "$@")" "$(r6 rule "$@")"; }
# nowhere TYPE: routes to the server that lead there.
nowhere() { printf '%s\n' "$(r4 route replace "$1" 10.9.9.9)" "$(r6 route replace "$1" fd00:9::9)"; }
somewhere() { printf '%s\n' "$(r4 route replace 10.9.9.9 via 10.0.2.2)" "$(r6 route replace fd00:9::9 via fd00:2::2)"; }

events() {
	local kind

	on "$router" ip route add 10.9.9.9 via 10.0.3.2 table 100
	on "$router" ip route add fd00:9::9 via fd00:3::2 table 100
	event "policy rule is added for ports of UDP" --old wire=wire1 --flows udp4,udp6 -- "$(back_by_wire2)" \
		"$(rules add ipproto udp sport 1-65534 dport 7000-8000 lookup 100)"
	event "policy rule is deleted for ports of UDP" --old wire=wire2 --flows udp4,udp6 -- \
		"$(s4 route replace default via 10.0.2.1)" "$(s6 route replace default via fd00:2::1)" \
		"$(rules del ipproto udp sport 1-65534 dport 7000-8000 lookup 100)"

	both_families rule add prio 200 lookup main
	both_families rule add prio 300 lookup 100
	event "policy rule leads past the others (goto)" --old wire=wire1 -- "$(back_by_wire2)" \
		"$(rules add prio 100 goto 300)"
	event "policy rule does not lead past the others any more" --old wire=wire2 -- \
		"$(s4 route replace default via 10.0.2.1)" "$(s6 route replace default via fd00:2::1)" \
		"$(rules del prio 100)"
	event "policy rule gets suppress_prefixlength" --old wire=wire1 -- "$(back_by_wire2)" \
		"$(rules add prio 100 lookup main suppress_prefixlength 128)" "$(rules del prio 200)"
	way_back
	both_families rule del prio 100
	both_families rule del prio 300

	both_families rule add prio 100 lookup 100
	eval "$(back_by_wire2)"
	event "route of a table becomes one of type throw" --old wire=wire2 -- \
		"$(s4 route replace default via 10.0.2.1)" "$(s6 route replace default via fd00:2::1)" \
		"$(r4 route replace throw 10.9.9.9 table 100)" "$(r6 route replace throw fd00:9::9 table 100)"
	both_families rule del prio 100
	both_families route flush table 100

	promise="gone back" log_says="the host does not forward it"
	for kind in blackhole unreachable prohibit; do
		event "route becomes one of type $kind" --old wire=wire1 --undo "$(somewhere)" -- "$(nowhere $kind)"
	done
	log_says=''

	# Answers to the old addresses have no way any more.
	event "the prefix of the clients is replaced" --flows tcp6,udp6 --old wire=wire0 \
		--undo "$(r6 addr add fd00:1::1/64 dev nic0 nodad)" -- \
		"$(r6 addr add fd00:11::1/64 dev nic0 nodad)" "$(r6 addr del fd00:1::1/64 dev nic0)"
	on "$router" ip addr del fd00:11::1/64 dev nic0

	# What conntrack has masqueraded ends, and the next packet begins anew; TCP could not go on.
	load_ruleset <<<'table inet nat {
		chain after {
			type nat hook postrouting priority srcnat
			oifname { "nic1", "nic2" } masquerade
		}
	}'
	event "masqueraded connections get another uplink" --flows udp4,udp6 --old wire=wire1 -- "$(back_by_wire2)" \
		"$(r4 route replace 10.9.9.9 via 10.0.3.2)" "$(r6 route replace fd00:9::9 via fd00:3::2)"
	way_back
	event "the address of masqueraded connections is replaced" --flows udp4 --old saddr=10.0.2.1 -- \
		"$(r4 addr del 10.0.2.1/24 dev nic1)" "$(r4 addr add 10.0.2.7/24 dev nic1)" \
		"$(r4 route replace 10.9.9.9 via 10.0.2.2)"
	on "$router" nft delete table inet nat
}

both report_ms=0

# A resilient group of next hops moves what is idle, and has to know of packets that it does not see.
bucket_used() { # the index of the one that has seen a packet of late
	on "$router" ip nexthop bucket show id 10 | sed -n 's/.*index \([0-9]*\) idle_time [01]\(\.[0-9]*\)\? .*/\1/p'
}
one_is_used() { [ "$(bucket_used | grep -c .)" = 1 ]; }
stays_used() { # IDLE-TIMER INDEX: four times as long
	local end=$((${EPOCHREALTIME/./} + 4000000 * $1)) seconds
	until is_later $end; do
		seconds=$(on "$router" ip nexthop bucket show id 10 | sed -n "s/.*index $2 idle_time \([0-9]*\).*/\1/p")
		[ "$seconds" -lt "$1" ] || {
			echo "no packet for $seconds s"
			return 1
		}
		read -rt 0.2 -u "$_never" || true
	done
}
buckets_left() { # those that go by the first next hop
	on "$router" ip nexthop bucket show id 10 nhid 1
}
one_is_left() { [ "$(buckets_left | grep -c .)" = 1 ]; }
is_idle() { buckets_left | grep -v 'idle_time [0-3]\b'; }
in_flowtable() { on "$router" conntrack -L 2>/dev/null | grep "dport=$port .*$1"; }
resilient() { # TEXT [STATE]: with the ruleset that is loaded, a connection gets this state
	local idle=$((2 + SLOWNESS)) index
	port=$((port + 1))
	on "$router" ip nexthop add id 10 group 1,255/2,1 type resilient buckets 32 idle_timer $idle unbalanced_timer 0
	on "$router" ip route replace 10.9.9.9 nhid 10
	flow_to=10.9.9.9 flow_open busy udp4 $port
	flow_flood busy
	[ -z "${2:-}" ] || check "$1: the connection is there" busywait $LIMIT in_flowtable "$2"
	check "$1: one bucket is in use" busywait $LIMIT one_is_used
	index=$(bucket_used)
	check "$1: the bucket is in use for $((4 * idle)) s" stays_used $idle "$index"
	# Of its 32 buckets the first next hop keeps one.
	on "$router" ip nexthop replace id 10 group 1,1/2,31 type resilient
	check "$1: idle buckets get another next hop" busywait $LIMIT one_is_left
	check "$1: the bucket in use does not" grep " index $index " <<<"$(buckets_left)"
	flow_close busy
	check "$1: its bucket is idle when the connection is silent" busywait $LIMIT is_idle
	on "$router" ip route replace 10.9.9.9 via 10.0.2.2
	on "$router" ip nexthop del id 10
}

module=nft_offload
start_over
load_module report_ms=0
world
on "$router" ip nexthop add id 1 via 10.0.2.2 dev nic1
on "$router" ip nexthop add id 2 via 10.0.3.2 dev nic2
resilient "resilient group without a flowtable"
flowtable_ruleset devices="nic0, nic1, nic2" | load_ruleset
resilient "resilient group, hardware" "HW_OFFLOAD"
on "$router" nft delete table inet fw
flowtable_ruleset devices="nic0, nic1, nic2" flags= | load_ruleset
resilient "resilient group, software" "OFFLOAD"

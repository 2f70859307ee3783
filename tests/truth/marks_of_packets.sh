#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# also: what the host would do is found with the kernel's own functions
# timeout: 500
# exclusive: times are measured
#
# Packets are routed by a mark or a DSCP that conntrack does not keep: their connections follow its routes
# and rules, and are left to the host where their entry is wrong.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# by_wire WIRE: what is in table 100 goes there, and comes back from there.
by_wire() {
	printf '%s\n' "$(s4 route replace default via "10.0.$1.1")" "$(s6 route replace default via "fd00:$1::1")" \
		"$(r4 route replace 10.9.9.9 via "10.0.$1.2" table 100)" \
		"$(r6 route replace fd00:9::9 via "fd00:$1::2" table 100)"
}
# rules add|del WORDS…
rules() { printf '%s\n' "$(r4 rule "$@" lookup 100)" "$(r6 rule "$@" lookup 100)"; }

# follows WHAT RULE…: packets go by wire2 only by that rule.
follows() {
	local what=$1
	shift
	eval "$(by_wire 3)"
	eval "$(rules add "$@")"
	event "$what is routed elsewhere" --old wire=wire2 -- "$(by_wire 2)"
	eval "$(by_wire 3)"
	event "the rule for $what is deleted" --old wire=wire2 -- "$(s4 route replace default via 10.0.2.1)" \
		"$(s6 route replace default via fd00:2::1)" "$(rules del "$@")"
}
events() {
	busywait $LIMIT on "$router" ping -q -c 1 -W 1 10.0.3.2 >/dev/null
	busywait $LIMIT on "$router" ping -q -c 1 -W 1 fd00:3::2 >/dev/null
	load_ruleset <<<'table inet marks {
		chain before {
			type filter hook prerouting priority mangle
			ip daddr 10.9.9.9 meta mark set 7
			ip6 daddr fd00:9::9 meta mark set 7
		}
	}'
	follows "a mark that is not kept" fwmark 7
	on "$router" nft delete table inet marks
	on "$client" nft -f - <<<'table inet dscp {
		chain leaves {
			type filter hook output priority 0
			ip dscp set 4
			ip6 dscp set 4
		}
	}'
	follows "a DSCP" tos 0x10
}

# --- a mark that sends requests by a gateway in the client's own network, and answers not

gateway_in_lan() {
	local gw=''
	topology
	add_ns gw
	on "$client" ip link add gw0 link wire0 type macvlan mode bridge
	on "$client" ip link set gw0 netns "$gw"
	_address "$gw" gw0 192.168.1.3/24 fd00:1::3/64
	on "$gw" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
	ip link add v0 netns "$gw" type veth peer name v1 netns "$server"
	_address "$gw" v0 10.7.0.1/24 fd00:7::1/64
	_address "$server" v1 10.7.0.2/24 fd00:7::2/64
	on "$server" ip addr add 10.9.9.9/32 dev lo
	on "$server" ip addr add fd00:9::9/128 dev lo
	on "$server" ip route replace default via 10.7.0.1
	on "$server" ip -6 route replace default via fd00:7::1
	on "$gw" ip route add 10.9.9.9 via 10.7.0.2
	on "$gw" ip -6 route add fd00:9::9 via fd00:7::2
	on "$router" sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.nic0.send_redirects=0
	on "$router" ip route add default via 192.168.1.3 dev nic0 table 100
	on "$router" ip -6 route add default via fd00:1::3 dev nic0 table 100
	eval "$(rules add fwmark 7)"
	gateway=$gw
	# What the gateway would send on to the client.
	on "$gw" nft -f - <<-'END'
		table netdev astray {
			counter answers { }
			chain comes {
				type filter hook ingress device gw0 priority 0
				ip saddr 10.9.9.9 ip daddr 192.168.1.2 counter name answers drop
				ip6 saddr fd00:9::9 ip6 daddr fd00:1::2 counter name answers drop
			}
		}
	END
}
# Answers that have gone to the gateway since it was last asked for.
astray() { on "$gateway" nft reset counters | sed -n 's/.*packets \([0-9]*\).*/\1/p'; }

# start KEPT [FLOWTABLE]: requests get the mark, which conntrack keeps or does not.
start() {
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
	mark_log
	[ -z "${2:-}" ] || flowtable_ruleset | load_ruleset
	load_ruleset <<-END
		table inet marks {
			counter invalid { }
			chain before {
				type filter hook prerouting priority mangle
				ct state invalid counter name invalid drop
				iifname "nic0" ip saddr 192.168.1.2 ip daddr 10.9.9.9 meta mark set 7 $1
				iifname "nic0" ip6 saddr fd00:1::2 ip6 daddr fd00:9::9 meta mark set 7 $1
			}
			chain after {
				type nat hook postrouting priority srcnat
				oifname "nic0" masquerade
			}
		}
	END
}
entry_of() { on "$router" conntrack -L -f "$family" 2>/dev/null | grep " dport=$port "; }
is_assured() { entry_of | grep -F '[ASSURED]'; }
is_left() { has_told "is not found again"; }
# out_of_window FLOW: whether packets that are are found invalid. (Those behind the window, half of them, may be
# late ones; and of the others one may be within.)
out_of_window() {
	local sport invalid
	sport=$(entry_of | sed -n 's/.* src=\(192.168.1.2\|fd00:1::2\) [^=]*=[^ ]* sport=\([0-9]*\) .*/\2/p')
	on "$router" nft reset counters >/dev/null
	"$(dirname "${BASH_SOURCE[0]}")/far.py" "$client" "$source" "$sport" "$flow_to" "$port"
	flow_send "$1" 100
	invalid=$(on "$router" nft list counter inet marks invalid | sed -n 's/.*packets \([0-9]*\).*/\1/p')
	echo "$invalid of 4 are invalid"
	[ "$invalid" -ge 1 ]
}
# judged FLOW: conntrack sees the packets of the connection.
judged() {
	if [[ $proto = tcp* ]]; then
		check "$text: packets out of the window are invalid" busywait 2000 out_of_window "$1"
	else
		flow_flood "$1"
		check "$text: becomes assured" busywait $LIMIT is_assured
	fi
}
# left TEXT PROTO KEPT
left() {
	local text="$1, $2" proto=$2 family=ipv4 flow_to=10.9.9.9 source=192.168.1.2
	[[ $proto != *6 ]] || family=ipv6 flow_to=fd00:9::9 source=fd00:1::2

	port=$((port + 1))
	start "$3"
	flow_open control "$proto" $port
	text="without a flowtable, $text" judged control
	flow_close control

	port=$((port + 1))
	start "$3" flowtable
	flow_open left "$proto" $port
	# What of UDP goes astray until then is lost.
	if [[ $proto = tcp* ]]; then
		check "$text: the log says that it is not followed" flow_send_until left $LIMIT is_left
	else
		flow_flood left
		check "$text: the log says that it is not followed" busywait $LIMIT is_left
	fi
	astray >/dev/null
	judged left
	is "$(astray)" 0 "$text: no answer goes to the gateway"
	is "$(nic_rules)" "" "$text: there is no rule"
	check "$text: conntrack has it" entry_of
	is "$(entry_of | grep -c OFFLOAD)" 0 "$text: conntrack shows no entry"
	flow_close left
}

both
module=nft_offload
start_over
load_module report_ms=0
gateway_in_lan
# A timeout that is as long as a stream's does not keep it from being one.
on "$router" sysctl -qw net.netfilter.nf_conntrack_udp_timeout=$((121 * SLOWNESS))
left "gateway in the client's network by a mark that is not kept" udp4 ""
left "gateway in the client's network by a mark that is not kept" tcp6 ""
left "gateway in the client's network by a mark that is kept" tcp4 "ct mark set meta mark"
left "gateway in the client's network by a mark that is kept" udp6 "ct mark set meta mark"
on "$router" nft flush ruleset

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 400
# exclusive: times are measured
#
# conntrack knows of a connection in a flowtable what it knows of one beside it, which is in none and does the
# same at the same time: answered, assured, and when it is forgotten.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module report_ms=0
topology
on "$router" sysctl -qew net.netfilter.nf_flowtable_tcp_timeout=$((5 * SLOWNESS)) \
	net.netfilter.nf_flowtable_udp_timeout=$((5 * SLOWNESS)) \
	net.netfilter.nf_conntrack_udp_timeout=$((20 * SLOWNESS)) \
	net.netfilter.nf_conntrack_udp_timeout_stream=$((100 * SLOWNESS))

# Of a pair, the connection to the lower port has an entry.
ruleset() {
	echo "table inet fw {
		flowtable ft { hook ingress priority 0; devices = { nic0, nic1 }; $1 counter; }
		chain forward {
			type filter hook forward priority 0; policy accept;
			meta l4proto { tcp, udp } ct original proto-dst 5000-5999 flow add @ft
		}
	}"
}

begin() {
	local line
	coproc PAIRS { exec "$_here/truth/pairs.py" "$client" "$server" "$1" tcp:5001 udp:5002 udp:5003 udp:5004; }
	pairs=$PAIRS_PID
	exec {ask}>&"${PAIRS[1]}" {answer}<&"${PAIRS[0]}"
	read -r line <&"$answer" && [ "$line" = ready ]
}
finish() {
	exec {ask}>&- {answer}<&-
	kill "$pairs"
	wait "$pairs" 2>/dev/null || true
}
# move PORT c|s N MS: all of it arrives, on both.
move() {
	local arrived
	echo "${*:1:4}" >&"$ask"
	read -r arrived <&"$answer"
	is "$arrived" "$3 $3" "$text, $5"
}
# known PORT [OPTION…]: what conntrack says of it.
known() { on "$router" conntrack -L -f "$family" "${@:2}" 2>/dev/null | grep "[ ]dport=$1 "; }
has_entry() { known "$1" | grep -F 'OFFLOAD]'; }
# By both: `conntrack -L` says for the one only that it has an entry.
is_assured() { on "$router" conntrack -L -f "$family" -o xml 2>/dev/null | sed 's/<flow>/\n&/g' | grep -F "<dport>$1<" | grep -F '<assured/>'; }
has_rules_of() { [ "$(nic_rules | grep -c "port=$1 ")" = "$2" ]; }

# the_same PORT WORDS: as soon as the entry is gone, the rest is that of the other one.
the_same() {
	local lines mine theirs
	is_free() {
		lines=$(on "$router" conntrack -L -f "$family" 2>/dev/null | grep -E "[ ]dport=($1|$(($1 + 1000))) ")
		[[ $lines != *OFFLOAD* ]]
	}
	busywait 15000 is_free "$1" >/dev/null || true
	is_free "$1" || true
	echo "# ${lines//$'\n'/$'\n'# }"
	mine=$(grep "[ ]dport=$1 " <<<"$lines" | grep -oE 'UNREPLIED|ASSURED' || true)
	theirs=$(grep "[ ]dport=$(($1 + 1000)) " <<<"$lines" | grep -oE 'UNREPLIED|ASSURED' || true)
	is "$mine" "$theirs" "$text, $2: its marks are those of the one without an entry ($theirs)"
	mine=$(grep "[ ]dport=$1 " <<<"$lines" | awk '{ print $3 }')
	theirs=$(grep "[ ]dport=$(($1 + 1000)) " <<<"$lines" | awk '{ print $3 }')
	within "${mine:-0}" "${theirs:-0}" "$2"
}
within() {
	local more=$(($1 - $2))
	check "$text, $3: has $1 s left, the one without an entry $2" [ "${more#-}" -le $((3 * SLOWNESS)) ]
}

run() { # FLAGS TO
	local port
	family=ipv4
	[[ $2 != *:* ]] || family=ipv6
	text="$family, ${1:-without flags offload}"
	text=${text%;}
	ruleset "$1" | load_ruleset
	begin "$2"

	move 5001 c 1 0 "TCP: a question arrives"
	move 5001 s 1 0 "TCP: and its answer"
	move 5002 c 3 50 "UDP: questions arrive"
	check "$text, UDP without an answer: has an entry" busywait $LIMIT has_entry 5002
	if [ -n "$1" ]; then
		check "$text, UDP without an answer: has one rule" busywait $LIMIT has_rules_of 5002 1
		is "$(nic_rules | grep -c " sport=5002 ")" 0 "$text, UDP without an answer: none for answers"
	else
		# The core has looked at it.
		busywait $LIMIT is_later $((${EPOCHREALTIME/./} + 1500000 * SLOWNESS))
	fi
	move 5002 s 1 0 "UDP: one answer arrives"
	check "$text, UDP: conntrack has seen the answer" fails grep UNREPLIED <(known 5002)
	move 5002 s 40 100 "UDP: answers arrive for four seconds"
	[ -z "$1" ] || check "$text, UDP: both directions are in the NIC" rules_are_of 5002
	check "$text, UDP: the one without an entry is assured" is_assured 6002
	check "$text, UDP: is assured" busywait 4000 is_assured 5002
	move 5003 c 1 0 "short UDP: one question arrives"
	move 5003 s 2 20 "short UDP: and two answers"
	move 5004 c 3 50 "UDP that nobody answers: arrives"
	the_same 5001 "idle TCP"
	the_same 5002 "idle UDP"
	the_same 5003 "short UDP"
	the_same 5004 "UDP that nobody answers"
	finish
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
}
rules_are_of() { busywait $LIMIT has_rules_of "$1" 2; }

run "flags offload;" 10.0.2.2
run "" 10.0.2.2
run "flags offload;" fd00:2::2

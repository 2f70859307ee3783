#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
# timeout: 240
#
# The ruleset changes: what nftables says of a connection's packets now is done soon, though they take
# the fast path or the NIC, and all flows are back there afterwards.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

pause=2
load_module report_ms=0 ruleset_s=$pause
topology

block() {
	on "$router" nft -f - <<-END
		table inet block {
			set hosts { type ipv4_addr; }
			chain forward {
				type filter hook forward priority -1
				udp dport 5001 counter drop
			}
		}
	END
}
unblock() { on "$router" nft delete table inet block; }
drops() { on "$router" nft list table inet block | grep -q 'counter packets [1-9]'; }
all_are_back() { flow_send other 100 && rules_are 4; }
# offloaded PORT…: connections to these have entries, and no others.
offloaded() {
	[ "$(on "$router" conntrack -L 2>/dev/null | sed -n '/\[\(HW_\)\?OFFLOAD\]/s/[^=]*=[^=]*=[^=]*=[^=]*dport=\([0-9]*\) .*/\1/p' | sort | xargs)" = "$*" ]
}

flowtable_ruleset | load_ruleset
flow_open blocked udp4 5001
flow_open other tcp6
flow_flood blocked
check "two flows are in the NIC" wait_rules 4

block
check "a rule drops a connection in the NIC: it is dropped" busywait $((3 * LIMIT)) drops
back() { flow_send other 100 && rules_are 2; }
check "a rule drops a connection in the NIC: the other one is back there" busywait $((3 * LIMIT)) back
unblock
check "the rule is gone: both are in the NIC" busywait $((3 * LIMIT)) all_are_back

block
on "$router" nft delete rule inet block forward handle \
	"$(on "$router" nft -a list chain inet block forward | sed -n 's/.*counter.*# handle //p')"
rounds_are() { [ "$(nic_counter replace_ok)" -ge $((before + 4 * $1)) ]; }
element_changes() {
	on "$router" nft add element inet block hosts '{ 192.0.2.1 }'
	on "$router" nft delete element inet block hosts '{ 192.0.2.1 }'
	flow_send other 100
}
changes_for_two_rounds() {
	element_changes || return
	rounds_are 2
}
check "after that: both are in the NIC again" busywait $((3 * LIMIT)) all_are_back
before=$(nic_counter replace_ok) start=${EPOCHREALTIME/./}
check "a set changes all the time: flows are made anew, and again" busywait $((5 * LIMIT)) changes_for_two_rounds
check "a set changes all the time: not sooner than after ruleset_s=$pause" is_later $((start + pause * 1000000))
unblock

# --- entries know 16 bits of the ruleset's generation

if has_time; then
	check "40,000 transactions later: both are in the NIC" eval \
		'on "$router" "$_here/transactions.py" 40000 && busywait $((3 * LIMIT)) all_are_back'
	flow_flood blocked
	block
	check "40,000 transactions later: a rule drops a connection in the NIC: it is dropped" busywait $((3 * LIMIT)) drops
	unblock
fi

# --- without flags offload

again() {
	on "$router" nft flush ruleset
	unload_module nft_offload
	load_module report_ms=0 "$1"
}
again ruleset_s=$pause
flowtable_ruleset flags= | load_ruleset
flow_send other 100
on "$router" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=$((2 * SLOWNESS))
flow_open witness udp4 5003
check "in software: three connections have entries" busywait $LIMIT offloaded 5001 5002 5003
check "in software: garbage collection has been there" busywait $((3 * LIMIT)) offloaded 5001 5002
flow_close witness
block
check "in software: a rule drops a connection: it is dropped" busywait $((3 * LIMIT)) drops
check "in software: the other one has an entry" flow_send_until other $((3 * LIMIT)) offloaded 5002
unblock
check "in software: the rule is gone: both have" flow_send_until other $((3 * LIMIT)) offloaded 5001 5002

# --- ruleset_s=0

again ruleset_s=0
flowtable_ruleset | load_ruleset
flow_send other 100
check "ruleset_s=0: two flows are in the NIC" wait_rules 4
block
# Of this, garbage collection hears too.
on "$router" conntrack -D -p tcp >/dev/null 2>&1
check "ruleset_s=0: garbage collection has found what is dying" wait_rules 2
check "ruleset_s=0: the flow that a rule would drop goes on" fails drops

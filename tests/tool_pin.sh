#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan stock
# timeout: 200
# in-tree: the program is built by this checkout
# tool: what it keeps in software
#
# nft-offload pin, unpin and capture: a connection's packets are the host's for as long as the user wants, however the
# program ends, and hardware's afterwards. And what is said of connections that wait for a new ruleset.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tests/tool_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"

has_entry() { on "$router" conntrack -L "$@" 2>/dev/null | grep OFFLOAD; }
# in_software FLOW BYTES: by the host alone.
in_software() {
	local nic
	nic=$(nic_counter nic_packets)
	flow_send "$1" "$2" || return
	nic=$(($(nic_counter nic_packets) - nic))
	echo "$nic packets in the NIC"
	[ "$nic" = 0 ]
}
back() { flow_send_until tcp $LIMIT rules_are 4; }

load_module report_ms=0 ruleset_s=2
topology
flow_open tcp tcp4 5001
load_ruleset <<<"table inet plain { chain forward { type filter hook forward priority 0; ct state new; }; }"
flow_send tcp 1000
check "no flowtable: nothing can be pinned" says "this namespace has no flowtable" pin :5001
flowtable_ruleset | load_ruleset
flow_send tcp 1000
flow_open udp udp6 5002
check "two connections are in the NIC" wait_rules 4

check "one that is not there" ends 6 pin :5009
check "one that is not pinned" says "this connection is not pinned" unpin :5001
check "pin" says "1 connection kept in software for 300 s" pin :5001
check "its rules are gone" busywait $LIMIT rules_are 2
check "its packets are the host's" in_software tcp 100000
check "it has no entry" fails has_entry -p tcp
check "why says so" says "kept in software on request" why :5001
check "flows says so" holds '[.flows[] | select(.original.state == "left" and .original.why[0].reason == "pinned")] | length == 1' flows
check "reasons says so" holds '[.reasons[] | select(.reason == "pinned" and .by == "module" and .flows == 1)] | length == 1' reasons
check "another namespace knows nothing of it" fails grep -F 192.168.1.2 <(on "$client" $TOOL flows)
check "unpin" says "1 connection may get into hardware again" unpin :5001
check "it gets back into the NIC" back

check "pin for two seconds" ends 0 pin --for 2 :5001
check "its rules are gone" busywait $LIMIT rules_are 2
check "it gets back into the NIC when that is over" back

check "capture ends as its command" ends 3 capture :5001 -- sh -c \
	'until [ "$(grep -c 5001 <$0)" = 0 ]; do :; done; exit 3' $NIC/rules
check "it gets back into the NIC then" back
mkfifo "$_output.fifo"
on "$router" $TOOL capture :5001 -- cat "$_output.fifo" 2>/dev/null &
capture=$!
check "capture: the connection is in software" busywait $LIMIT rules_are 2
check "capture: the host sees its packets" in_software tcp 1000
pkill -KILL -f "$TOOL capture"
check "capture is killed: it gets back into the NIC" back

# Two, and a time, each for itself; and a new ruleset.
on "$router" $TOOL capture :5001 -- cat "$_output.fifo" 2>/dev/null &
other=$!
check "capture anew: the connection is in software" busywait $LIMIT rules_are 2
check "another capture of it ends" ends 0 capture :5001 -- true
check "pinned for a second, too" ends 0 pin --for 1 :5001
busywait $LIMIT is_later $((${EPOCHREALTIME/./} + 2500000))
on "$router" nft flush ruleset
flowtable_ruleset | load_ruleset
check "the other connection is in the NIC" flow_send_until udp $LIMIT rules_are 2
check "the first capture still sees its packets" in_software tcp 1000
check "unpin ends all of that" ends 0 unpin :5001
check "it gets back into the NIC after that" back
: >"$_output.fifo"
wait "$capture" "$other" 2>/dev/null || true

# The answers of one are dropped from now on, so that it waits for these to pass.
flow_flood udp
on "$router" nft insert rule inet fw forward ct direction reply udp sport 5002 drop
waits() { holds '[.flows[] | select(.original.why[0].reason == "new-ruleset")] | length > 0' flows; }
check "a connection waits for the new ruleset" busywait $((3 * LIMIT)) waits
check "reasons counts it" holds '[.reasons[] | select(.reason == "new-ruleset" and .flows > 0)] | length == 1' reasons
check "status counts it" ends 0 status

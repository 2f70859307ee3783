#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
# timeout: 120
#
# Ports and rulesets that go and come back: what goes leaves no rule and nothing bound, what comes back is in hardware
# again with the ruleset that is there.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module
topology
ready() {
	_address "$router" nic1 10.0.2.1/24 fd00:2::1/64
	ways_work
}
bound() { is "$(nic_counter nic0.bound_ft)$(nic_counter nic1.bound_ft)" "$1" "$2"; }
comes_back() { flow_send_until web $((3 * LIMIT)) rules_are 2; }

flowtable_ruleset | load_ruleset
flow_open web tcp4
check "a flow is in the NIC" wait_rules 2

# --- a port

on "$router" ip link set nic1 netns 1
check "a port moves to another namespace: no rule is left" rules_are 0
bound 10 "a port moves to another namespace: its driver is unbound, and no other"
ip link set nic1 netns "$router"
bound 11 "the port comes back: its driver is bound"
ready
check "the port comes back: the flow is in the NIC again" comes_back

nic vanish nic1
check "a port is unplugged: no rule is left" rules_are 0
nic appear nic1
ip link set nic1 netns "$router"
bound 11 "the port is plugged in again: its driver is bound"
# The other end of the cable has gone and come too.
ip link set wire1 netns "$server"
_address "$server" wire1 10.0.2.2/24 fd00:2::2/64 10.0.2.1 fd00:2::1
ready
check "the port is plugged in again: the flow is in the NIC again" comes_back

on "$router" ip -batch - <<-END
	link set nic1 down
	link set nic1 name wan
END
check "a port gets another name: no rule is left" rules_are 0
bound 10 "a port gets another name: its driver is unbound"
on "$router" ip link set wan name nic1
on "$router" ip link set nic1 up
on "$router" ip addr add fd00:2::1/64 dev nic1 nodad
ways_work
bound 11 "the port gets its name back: its driver is bound"
check "the port gets its name back: the flow is in the NIC again" comes_back
on "$router" nft flush ruleset
bound 00 "nft flush ruleset: nothing is bound"

# --- a ruleset with an owner

flowtable_ruleset | sed 's/^table inet fw {/&\nflags owner/' >"$_output.nft"
fifo=$_output.fifo
mkfifo "$fifo"
ip netns exec "$router" nft -i <"$fifo" >/dev/null 2>&1 &
owner=$!
exec {commands}>"$fifo"
echo "include \"$_output.nft\"" >&"$commands"
has_owner() { on "$router" nft list ruleset | grep 'flags owner'; }
check "a table with an owner is there" busywait $LIMIT has_owner
check "a table with an owner: the flow is in the NIC" comes_back
kill -KILL $owner
wait $owner 2>/dev/null || true
exec {commands}>&-
has_gone() { ! on "$router" nft list table inet fw; }
check "its owner is killed: the table goes" busywait $LIMIT has_gone
check "its owner is killed: no rule is left" rules_are 0
bound 00 "its owner is killed: nothing is bound"
check "its owner is killed: the connection goes on" flow_send web 1000

for counter in replace_eexist replace_dup_match destroy_enoent destroy_failed; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

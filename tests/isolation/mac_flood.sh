#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 120
# exclusive: times are measured
#
# A bridge port learns random source MACs, as many as come: that neither delays a neighbour's change, nor
# has flows that the driver has refused offered to it more often. The same flood from one MAC is the control.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The flood's bridge is in the router's namespace; its frames go nowhere else.
bridge() {
	flooder=
	add_ns flooder
	on "$router" ip link add br0 type bridge
	on "$router" ip link add leak type veth peer name pipe netns "$flooder"
	on "$router" ip link set leak master br0 up
	on "$router" ip link set br0 up
	on "$flooder" ip link set pipe up
}
learned() {
	on "$router" ip -d -j link show br0 | jq '.[0].linkinfo.info_data.fdb_n_learned'
}
has_learned() { [ "$(learned)" -ge "$1" ]; }

flood_begins() {
	exec {flood}< <(exec "$_here/isolation/flood.py" "$flooder" pipe "$1")
	flood_pid=$!
	at_exit flood_ends
	read -ru "$flood" line
	echo "$line"
}
flood_ends() { kill "$flood_pid" 2>/dev/null || true; }

load_module report_ms=0
two_nics
bridge
flowtable_ruleset devices="nic0, nic1, nic2, nic3" | load_ruleset
follow_begins

flood_begins same
busywait $LIMIT has_learned 1
changes control
flood_ends

nic counters 0
nic faults "replace -28 100 nic0"
flow_open refused udp4
flow_flood refused
busywait $LIMIT eval '[ "$(nic_counter replace_failed)" -ge 1 ]'
begin=$SECONDS
flood_begins random
changes flood
busywait $((2 * LIMIT)) is_later $(((${EPOCHREALTIME/./}) + 1000000 * (12 - (SECONDS - begin))))
seconds=$((SECONDS - begin + 1)) tries=$(nic_counter replace_failed)
check "the bridge has learned many addresses" busywait $((3 * LIMIT)) has_learned 10000
echo "# $(learned) in $((SECONDS - begin)) s"
flood_ends

as_without "beside random MACs" flood control
most=$(most_tries $seconds)
check "beside random MACs, the driver is asked for a flow that it refuses $most times at most in $seconds s" \
	[ "$tries" -le "$most" ]
echo "# it was asked $tries times"
nic faults none
for counter in replace_eexist replace_dup_match destroy_enoent destroy_failed; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

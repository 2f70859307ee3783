#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
# timeout: 200
#
# Flows that end while they wait for a slow NIC: its driver is never called for them.
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

flows=60
has_time || flows=30
ways_of_ending=(udp4 tcp4 flush)

load_module report_ms=0
topology
nic serial 1
at_exit nic latency_us 0

# Each of the two devices has a work per CPU, two to eight: so many calls may be under way when the flows
# end, and what they have installed is to be removed.
works=$(nproc)
works=$((works < 2 ? 2 : works > 8 ? 8 : works))
most=$((2 * 2 * works))
calls() { echo $(($(nic_counter replace_ok) + $(nic_counter replace_failed))); }
in_software() { on "$router" conntrack -L 2>/dev/null | grep -F "[OFFLOAD]"; }
open() { on "$server" ss -Htn state established | grep .; }
offered() { [ "$(in_software | wc -l)" -ge $((flows - $(calls))) ]; }
has_rules() { [ "$(grep -c "port=$1 " $NIC/rules)" = 2 ]; }

port=9000
for way in "${ways_of_ending[@]}"; do
	proto=${way/flush/udp4}
	flowtable_ruleset | load_ruleset
	nic counters 0
	nic latency_us $((500000 * SLOWNESS))
	for ((i = 0; i < flows; i++)); do flow_open "$i" "$proto"; done
	check "$way: $flows flows wait" busywait $LIMIT offered
	case $way in
	tcp4)
		how="FIN"
		for ((i = 0; i < flows; i++)); do flow_close "$i"; done
		check "$way: both ends have closed" busywait $LIMIT fails open
		;;
	udp4)
		how="conntrack -D"
		on "$router" conntrack -D -p udp >/dev/null 2>&1
		;;
	flush)
		how="nft flush ruleset"
		on "$router" nft flush ruleset
		check "$way: no rule is left" rules_are 0
		flowtable_ruleset | load_ruleset
		;;
	esac
	before=$(calls)
	check "$way: $how comes before the turn of most" [ "$before" -lt $flows ]
	[ "$way" = tcp4 ] || for ((i = 0; i < flows; i++)); do flow_close "$i"; done

	# Whatever still waits would come before this one.
	port=$((port + 1))
	flow_open last udp4 $port
	check "$way: a flow that goes on has its turn" busywait $((2 * LIMIT)) has_rules $port
	after=$(($(calls) - 2))
	check "$way: after $how, no call for a flow that has ended" [ "$after" -le $((before + most)) ]
	echo "# $before calls until then, and $((after - before)) after it"
	nic latency_us 0
	check "$way: only its rules are there in the end" wait_rules 2
	flow_close last
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
done
for counter in replace_eexist replace_dup_match destroy_enoent destroy_failed; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

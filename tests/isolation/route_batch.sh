#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 200
# exclusive: times are measured
#
# Thousands of routes change at once, many of which concern all flows. A table that goes meanwhile does not
# wait until all of that has been looked into.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$(dirname "${BASH_SOURCE[0]}")/hosts.sh"

flows=1500 prefixes=100 routes=4000

# The routes that all flows take, over and over; the way is the same.
for ((len = 18; len < 18 + prefixes; len++)); do
	echo "route replace fd00:9::/$len via fd00:2::2 dev nic1"
done >"$_output.routes"
# Of all events in a batch, that of this address is looked into last.
marker=fd01:9::9

in_the_nic() { has_rules $((2 * flows + 2)); }
fill() {
	load_ruleset <"$_output.ruleset"
	hosts_answer
	flow_send_until marker $LIMIT in_the_nic
}
batch() {
	"$_here/isolation/routes.py" "$router" batch $routes nic1:10.0.2.2
	ip -6 -n "$router" -batch "$_output.routes"
	ip -6 -n "$router" route replace $marker via fd00:2::3 dev nic1
}
marker_rules() { sed -n '/dport=6800 /s/ via.*//p' $NIC/rules; }
marker_is_gone() { [ "$(marker_rules)" != "$marker_was" ]; }
flush() { on "$router" nft flush ruleset; }

load_module report_ms=0
topology
flowtable_ruleset >"$_output.ruleset"
on "$router" ip route add fd00:9::/64 via fd00:2::2
on "$router" ip route add $marker via fd00:2::2
on "$router" ip neigh add fd00:2::3 lladdr "$(mac_of "$server" wire1)" dev nic1 nud permanent
on "$server" ip route add local fd00:9::/64 dev lo
on "$server" ip addr add $marker/128 dev lo
on "$router" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=86400
on "$router" nft -f "$_output.ruleset"

check "$flows flows have entries" hosts_begin fd00:9::1 $flows
flow_to=$marker flow_open marker udp6 6800
check "$flows flows are in the NIC" busywait $LIMIT in_the_nic
hosts_answer

# How long each takes alone.
took=${EPOCHREALTIME/./}
flush
alone=$((${EPOCHREALTIME/./} - took))
is "$(nic_rules)" "" "nft flush ruleset leaves no rule"
check "the flows are in the NIC again" fill
marker_was=$(marker_rules)
took=${EPOCHREALTIME/./}
batch
changed=$((${EPOCHREALTIME/./} - took))
check "the last one of $((prefixes + routes)) route events is looked into" busywait $((3 * LIMIT)) marker_is_gone
batch=$((${EPOCHREALTIME/./} - took))
is "$(nic_counter destroy_ok)" $((2 * flows + 4)) "$((prefixes + routes)) route events evict one flow"

on "$router" ip -6 route replace $marker via fd00:2::2 dev nic1
flow_send_until marker $LIMIT in_the_nic >/dev/null
batch
took=${EPOCHREALTIME/./}
flush
took=$((${EPOCHREALTIME/./} - took))
is "$(nic_rules)" "" "in the middle of route events nft flush ruleset leaves no rule"
# On one CPU it takes turns with the work that looks into them.
check "in the middle of route events nft flush ruleset does not wait for them: a quarter of their time at most" \
	[ $took -le $((3 * alone + (batch - changed) / 4)) ]
echo "# $((took / 1000)) ms, without $((alone / 1000)) ms; the changes took $((changed / 1000)) ms, to look into them $((batch / 1000)) ms"
for counter in replace_eexist replace_dup_match destroy_enoent destroy_failed; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

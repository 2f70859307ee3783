#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 200
# exclusive: times are measured
#
# So many events in one namespace that some are lost, and everything is looked at there, again and again: in
# another namespace a neighbour's change is followed as soon as without, and in neither do flows that the
# driver has refused come to it more often.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$(dirname "${BASH_SOURCE[0]}")/hosts.sh"

flows=1000 prefixes=100

# All routes of the first router's flows are replaced by the same, and very many others.
noise_begins() {
	yes "$(<"$_output.routes")" | exec ip -6 -n "$router" -batch - &
	noise=$!
	exec {churn}< <(exec "$_here/isolation/routes.py" "$router" churn 20000 nic1:10.0.2.2 nic1:10.0.2.3)
	churn_pid=$!
	at_exit noise_ends
	read -ru "$churn" line
}
noise_ends() { kill "$noise" "$churn_pid" 2>/dev/null || true; }

for ((len = 18; len < 18 + prefixes; len++)); do
	echo "route replace fd00:9::/$len via fd00:2::2 dev nic1"
done >"$_output.routes"

load_module report_ms=0
two_routers
on "$router" ip route add fd00:9::/64 via fd00:2::2
on "$server" ip route add local fd00:9::/64 dev lo
on "$router" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=86400
flowtable_ruleset devices="nic2, nic3" >"$_output.nft"
on "$other" nft -f "$_output.nft"
follow_begins

# The same, without flows that it might concern.
noise_begins
changes control
noise_ends

flowtable_ruleset | load_ruleset
check "$flows flows have entries" hosts_begin fd00:9::1 $flows
check "the rules of $flows flows are in the NIC" busywait $LIMIT has_rules $((2 * flows + 2))
noise_begins
changes noise
as_without "beside lost events of others" noise control

nic counters 0
nic faults "replace -28 100 nic0; replace -28 100 nic2"
begin=$SECONDS
flow_open refused udp4 6900
flow_to=10.0.4.2 flow_open other udp4 6901
flow_flood refused
flow_flood other
busywait $((2 * LIMIT)) is_later $((${EPOCHREALTIME/./} + 12000000))
seconds=$((SECONDS - begin + 1)) tries=$(nic_counter replace_failed)
check "others have lost events all the time" kill -0 "$noise" "$churn_pid"
noise_ends
most=$(most_tries $seconds)
check "beside lost events, the driver is asked for each of two flows that it refuses $most times at most in $seconds s" \
	[ "$tries" -le $((2 * most)) ]
echo "# it was asked $tries times"
is "$(nic_counter destroy_ok)" 0 "lost events evict no flow whose route is the same"
nic faults none
for counter in replace_eexist replace_dup_match destroy_enoent destroy_failed; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 180
# exclusive: times are measured
#
# Addresses that no flow has to do with come and go all the time: that evicts nothing, and a neighbour's
# change is followed as soon as without. One that flows are translated to evicts these and no others.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$(dirname "${BASH_SOURCE[0]}")/hosts.sh"

flows=1000 addresses=2000

# Many addresses come and go: sets $ticks, the CPU time that the kernel's workers take for it.
address_changes() {
	local before
	before=$(kworkers)
	ip -n "$router" -batch "$_output.addresses"
	# Events are looked into once more a little later.
	busywait $LIMIT is_later $((${EPOCHREALTIME/./} + 200000))
	ticks=$(($(kworkers) - before))
}
kworkers() {
	local stat sum=0
	for stat in /proc/[0-9]*/stat; do
		read -r stat <"$stat" || continue
		[[ $stat == *"(kworker"* ]] || continue
		# shellcheck disable=SC2086
		set -- ${stat##*) }
		sum=$((sum + ${12} + ${13}))
	done 2>/dev/null
	echo "$sum"
}
churn_begins() {
	yes $'addr add 172.18.0.2/32 dev dum0\naddr del 172.18.0.2/32 dev dum0' |
		exec ip -n "$router" -batch - &
	churn_pid=$!
	at_exit churn_ends
}
churn_ends() { kill "$churn_pid" 2>/dev/null || true; }

for ((i = 0; i < addresses; i++)); do
	printf 'addr add 172.17.%s.%s/32 dev dum0\naddr del 172.17.%s.%s/32 dev dum0\n' $((i >> 8)) $((i & 255)) $((i >> 8)) $((i & 255))
done >"$_output.addresses"

load_module report_ms=0
two_nics
on "$router" ip link add dum0 type dummy
on "$router" ip link set dum0 up
# Behind a gateway, so that they share a path; they are not to leave for being idle.
on "$router" ip route add 10.9.0.0/16 via 10.0.2.2
on "$server" ip route add local 10.9.0.0/16 dev lo
on "$router" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=86400
flowtable_ruleset devices="nic0, nic1, nic2, nic3" | load_ruleset
address_changes
few=$ticks

check "$flows flows have entries" hosts_begin 10.9.0.1 $flows
check "the rules of $flows flows are in the NIC" busywait $LIMIT has_rules $((2 * flows))
nic counters 0
address_changes
is "$(nic_counter destroy_ok)" 0 "addresses elsewhere evict nothing"
check "$addresses addresses elsewhere cost as much with $flows flows as with none" \
	[ "$ticks" -le $((3 * few + 20)) ]
echo "# $ticks ticks of CPU time of the kernel's workers, without flows $few"

follow_begins
changes still
churn_begins
changes churn
check "addresses have come and gone all the time" kill -0 "$churn_pid"
churn_ends
as_without "while addresses elsewhere come and go" churn still

# --- an address to which flows are translated

hosts_end
on "$router" nft flush ruleset
on "$router" conntrack -F 2>/dev/null
# The way to the receiver does not depend on the address.
on "$router" ip addr add 10.0.7.1/24 dev nic1
on "$router" ip route add 10.0.7.2 dev nic1
on "$server" ip addr add 10.0.7.2/24 dev wire1
flowtable_ruleset masquerade=1 | load_ruleset
flow_to=10.0.7.2 flow_open translated udp4 6001
flow_open other udp4 6002
cookies() { sed -n "/port=$1 /s/ via.*//p" $NIC/rules; }
has_two() { [ "$(cookies "$1" | wc -l)" = 2 ]; }
check "a flow that is translated to an address is in the NIC" busywait $LIMIT has_two 6001
check "a flow that is translated to another address is in the NIC" busywait $LIMIT has_two 6002
translated=$(cookies 6001) other=$(cookies 6002)
ip -n "$router" -batch "$_output.addresses"
is "$(cookies 6001)" "$translated" "a translated flow stays when other addresses go"
on "$router" ip addr del 10.0.7.1/24 dev nic1
is_gone() { [ -z "$(cookies 6001)" ]; }
check "a translated flow leaves when its address goes" busywait 2000 is_gone
is "$(cookies 6002)" "$other" "a flow that is translated to another address stays when that goes"
for counter in replace_eexist replace_dup_match destroy_enoent destroy_failed; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

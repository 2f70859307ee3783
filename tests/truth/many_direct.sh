#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 200
#
# Thousands of connections by a bridge, in a table without `flags offload`: their entries have the MAC address of a
# gateway, which gets another one. All have entries again soon, and to the new address.
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
# shellcheck source=tests/isolation/hosts.sh
source "$(dirname "${BASH_SOURCE[0]}")/../isolation/hosts.sh"

flows=3000

load_module
topology
# shellcheck source=tests/sides.sh
source "$(dirname "${BASH_SOURCE[0]}")/../sides.sh"
side 1 bridge
on "$router" ip route add 10.64.0.0/16 via 10.0.2.2
on "$server" ip route add local 10.64.0.0/16 dev lo
on "$router" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=120 net.netfilter.nf_conntrack_udp_timeout=300 \
	net.netfilter.nf_conntrack_udp_timeout_stream=300
flowtable_ruleset flags= | load_ruleset

entries() { on "$router" conntrack -L -p udp 2>/dev/null | grep -c "OFFLOAD"; }
have_entries() {
	hosts_answer
	echo "$answered have answered, $(entries) have entries"
	[ "$(entries)" -ge $flows ]
}
check "$flows connections by a bridge answer" hosts_begin 10.64.0.1 $flows
check "$flows connections by a bridge have entries" busywait $LIMIT have_entries
all_answer() {
	hosts_answer
	echo "$answered have answered"
	[ "$answered" = $flows ]
}
for turn in 1 2 3; do
	mac=02:5a:5b:00:0$turn:99
	on "$server" ip link set wire1 address $mac
	on "$server" ping -q -c 1 -W 1 10.0.2.1 >/dev/null || true
	on "$router" ip neigh replace 10.0.2.2 lladdr $mac dev br1 nud reachable
	check "change $turn of the gateway's address: $flows connections have entries again" busywait $((2 * LIMIT)) have_entries
	check "change $turn of the gateway's address: all answer" busywait $LIMIT all_answer
done

# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What tests share that have flowbench.ko make flows beside the router's: see flowbench.h. Sourced after tests/lib.sh.

# bench_begins FLOWS [ASSIGNMENT…]: what flowbench needs, in the initial namespace: ways to its clients and servers, a
# flowtable, as flowtable_ruleset has it, and connections.
bench_begins() {
	local many=$1
	shift
	_insmod "$MODULES/bench/flowbench.ko" flows="$many"
	ip -batch - <<-END
		addr add 192.168.1.1/24 dev bench0
		addr add 10.0.2.1/24 dev bench1
		link set bench0 up
		link set bench1 up
		route add 10.128.0.0/9 via 192.168.1.2
		route add 10.64.0.0/10 via 10.0.2.2
		neigh replace 192.168.1.2 lladdr 02:00:00:00:01:02 dev bench0 nud permanent
		neigh replace 10.0.2.2 lladdr 02:00:00:00:02:02 dev bench1 nud permanent
	END
	sysctl -qw net.ipv4.ip_forward=1 net.netfilter.nf_conntrack_max=$((4 * many + 10000)) \
		net.netfilter.nf_flowtable_udp_timeout=86400
	at_exit sysctl -qw net.ipv4.ip_forward=0
	flowtable_ruleset devices="bench0, bench1" "$@" | nft -f -
	at_exit nft flush ruleset
	bench "connections udp $many"
}
bench() { echo "$*" >/sys/kernel/debug/flowbench/do; }

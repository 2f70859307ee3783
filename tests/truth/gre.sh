#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 300
#
# GRE, of which conntrack sees a packet now and then: a fragment, or one whose TTL is over. The connection
# goes on, in the NIC, or in software in a table without `flags offload`; and when it is idle it has GRE's own
# timeout.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module report_ms=0
topology
modprobe -a ip_gre ip6_gre nf_conntrack

# tunnel gre|ip6gre
tunnel() {
	local inner=(172.16.0.1 172.16.0.2) namespaces=("$client" "$server") i
	local hosts=(192.168.1.2 10.0.2.2) kind="gre" more=nopmtudisc
	[ "$1" = gre ] || { hosts=(fd00:1::2 fd00:2::2) kind="ip6gre encaplimit none" more=''; }
	for i in 0 1; do
		# shellcheck disable=SC2086
		on "${namespaces[i]}" ip link add gre_test type $kind local "${hosts[i]}" remote "${hosts[1 - i]}" $more
		[ "$1" != gre ] || on "${namespaces[i]}" ip link set gre_test mtu 2000
		on "${namespaces[i]}" ip link set gre_test up
		on "${namespaces[i]}" ip addr add "${inner[i]}/30" dev gre_test
	done
}
# Nobody but the client may begin: what conntrack forgets does not come back by itself.
ruleset() {
	echo "table inet fw {
		flowtable ft { hook ingress priority 0; devices = { nic0, nic1 }; $1 counter; }
		chain forward {
			type filter hook forward priority 0; policy drop;
			ct state established meta l4proto gre flow add @ft
			ct state established,related accept
			iifname nic0 accept
			meta l4proto { icmp, ipv6-icmp } accept
		}
	}"
}
pings() { on "$1" ping -q -i 0.05 -c "$2" -W 2 "$3"; }
large() { on "$server" ping -q -M dont -c 2 -i 0.1 -W 2 -s 1800 172.16.0.1; }
# A TTL of 1, as the router gets it.
short_lived() {
	on "$server" ip link set gre_test type "$1" ttl 1 "${@:2}"
	on "$server" ping -q -c 3 -i 0.1 -W 1 172.16.0.1 >/dev/null || true
	on "$server" ip link set gre_test type "$1" ttl 64 "${@:2}"
}
assured_by_host() { on "$router" conntrack -L -f "$1" -p gre 2>/dev/null | grep -F '[ASSURED]'; }
# timeout FAMILY: what conntrack says, if the connection has no entry.
timeout_of() { on "$router" conntrack -L -f "$1" -p gre 2>/dev/null | awk '{ print $3 }'; }
gone_from_flowtable() { [[ $(timeout_of "$1") =~ ^[0-9]+$ ]]; }

mark_log
for kind in gre ip6gre; do
	family=ipv4 args=()
	[ $kind = gre ] || family=ipv6 args=(encaplimit none)
	for flags in "flags offload;" ""; do
		text="$kind, ${flags:-without flags offload}"
		text=${text%;}
		tunnel $kind
		ruleset "$flags" | load_ruleset
		check "$text: the client's pings are answered" busywait $LIMIT pings "$client" 5 172.16.0.2
		if [ -n "$flags" ]; then
			check "$text: in the NIC" wait_rules 2
		else
			check "$text: in software, by conntrack" busywait $LIMIT assured_by_host $family
		fi
		[ $kind != gre ] || check "$text: pings in fragments are answered" large
		short_lived $kind "${args[@]}"
		check "$text: after packets without TTL, all pings of the server are answered for four seconds" \
			pings "$server" 80 172.16.0.1
		[ -z "$flags" ] || check "$text: still in the NIC" rules_are 2

		for ns in "$client" "$server"; do on "$ns" ip link del gre_test; done
		if [ -n "$flags" ]; then
			check "$text: idle, it leaves the NIC" busywait 60000 rules_are 0
		fi
		check "$text: idle, it leaves the flowtable" busywait 60000 gone_from_flowtable $family
		left=$(timeout_of $family)
		check "$text: idle, it has GRE's own timeout, $left s" [ "$left" -le 182 ]
		[ -z "$flags" ] || check "$text: idle, and not longer than without a flowtable" [ "$left" -gt $((150 - 30 * SLOWNESS)) ]
		on "$router" nft flush ruleset
		on "$router" conntrack -F 2>/dev/null
	done
done
is "$(kernel_log WARNING)" "" "the kernel has not warned"

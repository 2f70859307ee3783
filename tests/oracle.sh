#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# no-kmemleak: it makes and frees rules without an end, which takes fifteen times as long
# timeout: 600
#
# The translation against nf_flow_rule_route_ipv4() and _ipv6(), on every combination of
# family, protocol, NAT, headers and ways out, with random values: tests/oracle/oracle.h.
# ORACLE_SEED repeats a run, ORACLE_FLOWS makes it shorter or longer:
#
#   scripts/vm -- env ORACLE_SEED=1 ORACLE_FLOWS=100000 tests/oracle.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ko=$MODULES/oracle/oracle.ko
need "$ko"

# Where the flows go: a neighbour, one of whom nothing is known, and hosts behind either, for
# IPv4 also behind a gateway of IPv6.
world=
add_ns world
modprobe dummy
for i in 0 1 2; do
	on "$world" ip link add "oracle$i" type dummy
	# Devices without ARP have neighbours that are always resolved.
	on "$world" ip link set "oracle$i" arp on up address "02:0a:c1:e0:5f:1$i"
	on "$world" ip addr add "192.0.2.$((i * 64 + 1))/26" dev "oracle$i"
	on "$world" ip addr add "2001:db8:$i::1/64" dev "oracle$i" nodad
	on "$world" ip neigh add "192.0.2.$((i * 64 + 2))" lladdr "02:a$i:b1:c2:d3:e4" dev "oracle$i" nud permanent
	on "$world" ip neigh add "2001:db8:$i::2" lladdr "06:1$i:72:83:94:a5" dev "oracle$i" nud permanent
done
on "$world" ip route add 198.51.100.0/25 via 192.0.2.2
on "$world" ip route add 198.51.100.128/25 via 192.0.2.3
on "$world" ip route add 203.0.113.0/24 via inet6 2001:db8:1::2 dev oracle1
on "$world" ip route add 2001:db8:a::/64 via 2001:db8:2::2
on "$world" ip route add 2001:db8:b::/64 via 2001:db8:2::3
# Behind lightweight tunnels, of either family.
on "$world" ip route add 203.0.114.0/25 encap ip id 42 src 192.0.2.1 dst 192.0.2.9 tos 4 ttl 9 key \
	via 192.0.2.66 dev oracle1
on "$world" ip route add 203.0.114.128/25 encap ip6 id 43 dst 2001:db8:ff::9 hoplimit 7 \
	via 192.0.2.66 dev oracle1
on "$world" ip route add 2001:db8:c::/64 encap ip id 44 dst 192.0.2.9 ttl 9 \
	via 2001:db8:1::2 dev oracle1
on "$world" ip route add 2001:db8:d::/64 encap ip6 id 45 src 2001:db8:ff::1 dst 2001:db8:ff::9 \
	via 2001:db8:1::2 dev oracle1
hops=192.0.2.2,192.0.2.3,192.0.2.66,198.51.100.1,198.51.100.200,203.0.113.1
hops+=,2001:db8::2,2001:db8::3,2001:db8:1::2,2001:db8:a::1,2001:db8:b::1
hops+=,203.0.114.1,203.0.114.129,2001:db8:c::1,2001:db8:d::1

log() { dmesg | grep -o 'oracle: .*' | cut -d ' ' -f 2-; }
compare() {
	modprobe -a nf_flow_table
	on "$world" insmod "$ko" hops="$hops" seed="${ORACLE_SEED:-0}" flows="${ORACLE_FLOWS:-0}" &&
		rmmod oracle
}

check "the action lists are those of the C functions, or differ on purpose" compare
compared=$(log | sed -n 's/ flows compared in both directions, seed.*//p')
log | sed 's/^/# /'
if [ -z "${ORACLE_FLOWS:-}" ]; then
	check "at least a million flows were compared" [ "${compared:-0}" -ge 1000000 ]
	for some in "through lightweight tunnels" "equal but for tags of 802.1ad put right" "refused in the dialect of tc alone"; do
		check "some are $some" grep -qE "^[1-9][0-9]* (rules )?$some\$" <(log)
	done
	for kind in "IP tunnel" "lightweight tunnel but of IP" "lightweight tunnel with options" \
		"IPsec" "other protocol" "802.1ad at ingress" \
		"header within PPPoE at ingress" "GRE with NAT"; do
		check "some differ on purpose: $kind" grep -q " differ on purpose: $kind\$" <(log)
	done
fi
echo "${compared:-0} flows compared"

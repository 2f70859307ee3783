#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 900
#
# Equal on the wire: each kind of flow that hardware can carry, once in the software of the
# flowtable and once in the NIC, as each driver has it: wire.py compares what leaves, byte
# by byte. WIRE_SEED repeats a run.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

here=$(dirname "${BASH_SOURCE[0]}")
seed=${WIRE_SEED:-$RANDOM$RANDOM}
echo "# WIRE_SEED=$seed"
load_module report_ms=0
topology
# shellcheck source=tests/sides.sh
source "$here/sides.sh"
# A flowtable in software sends with the address of the port, whatever the VLAN device's is.
own_mac=
for n in 0 1; do
	on "${wire_ns[n]}" ip link set "wire$n" mtu 9000
	on "$router" ip link set "nic$n" addrgenmode none
done
on "$router" sysctl -qw net.netfilter.nf_conntrack_tcp_be_liberal=1 \
	net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0 net.ipv4.conf.all.log_martians=0

macs=(02:00:00:00:0c:09 02:00:00:00:05:09)
both=(plain plain)
packets=0 in_nic=0

# wire KIND KIND CASE…: of all that crosses these two sides
wire() {
	local kinds=("$1" "$2") cases totals n mtu
	shift 2
	cases=$*
	for n in 0 1; do
		mtu=$((9000 - 1000 * n))
		[[ ${kinds[n]} != *pppoe ]] || mtu=1500
		on "$router" ip link set "nic$n" mtu $mtu
		[ "${kinds[n]}" = "${both[n]}" ] || router_side $n "${kinds[n]}" "${macs[n]}"
		both[n]=${kinds[n]}
	done
	relay "${kinds[0]} to ${kinds[1]}" "$here/wire.py" "$client" "$router" "$server" \
		"${kinds[0]}:${top[0]}:$(mac_of "$router" "${base[0]}")" \
		"${kinds[1]}:${top[1]}:$(mac_of "$router" "${base[1]}")" \
		"${WIRE_PROFILES:-mlx5-ft,mtk_ppe,airoha_ppe}" "${cases// /,}" "$seed"
	read -ra totals < <(grep ^total "$_output.relay") || return 0
	packets=$((packets + totals[1])) in_nic=$((in_nic + totals[2]))
}

l4="tcp4 udp4 tcp6 udp6"
plain=
for nat in routed snat dnat masquerade both port; do
	for proto in $l4; do plain+=" $nat-$proto"; done
done
few="routed-tcp4 routed-udp6 masquerade-udp4"

if [ -n "${WIRE_ONLY:-}" ]; then
	# "vlan pppoe masquerade-udp4": two kinds and cases
	# shellcheck disable=SC2086
	wire $WIRE_ONLY
else
	# shellcheck disable=SC2086
	wire plain plain $plain routed-gre4 routed-gre6
	while read -r kinds && [ -n "$kinds" ]; do
		# shellcheck disable=SC2086
		wire $kinds $few
	done <<-END
		vlan plain
		plain vlan
		vlan vlan
		qinq plain
		plain qinq
		qinq vlan
		vlan qinq
		8021ad plain
		plain 8021ad
		vlan 8021ad
		8021ad-vlan plain
		plain 8021ad-vlan
		pppoe plain
		plain pppoe
		vlan pppoe
		vlan vlan-pppoe
		bridge plain
		plain bridge
		vlan-bridge plain
		plain vlan-bridge
		vlan-bridge-untagged vlan
	END
fi
if [ -z "${WIRE_ONLY:-}" ]; then
	check "not all of it stayed in software" [ $packets -ge 20000 ]
	check "not all of it went by the host" [ $in_nic -ge $((packets / 2)) ]
fi
echo "# of $packets packets, $in_nic were forwarded by the NIC"
echo "$packets packets compared"

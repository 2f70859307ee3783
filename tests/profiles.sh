#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# in-tree: the table is that of the documentation
# timeout: 900
#
# The table of Documentation/drivers.md: which flows get into the hardware of which driver, as
# real connections have it; and it must be the one that is there. What the run made of it is
# left in /share/drivers.md; `make drivers-table` puts that where it belongs.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

here=$(dirname "${BASH_SOURCE[0]}")
document=$here/../Documentation/drivers.md
profiles=mlx5-ft,mlx5-tc,mtk_ppe,airoha_ppe
load_module report_ms=0
topology
# shellcheck source=tests/sides.sh
source "$here/sides.sh"
# airoha_ppe sends IPv6 with the address of the port, which a PPPoE peer does not take for that
# of the VLAN device below the session.
own_mac=
results=$(mktemp)
at_exit rm -f "$results"
# To which sources are translated.
on "$router" ip addr add 10.0.2.77/24 dev nic1
on "$router" ip addr add fd00:2::77/64 dev nic1 nodad

now=(plain plain)

# cases KIND KIND CASE…: of all that crosses these two sides
cases() {
	local n kinds=("$1" "$2")
	shift 2
	for n in 0 1; do
		[ "${kinds[n]}" = "${now[n]}" ] || side $n "${kinds[n]}"
		now[n]=${kinds[n]}
	done
	SLOWNESS=$SLOWNESS python3 "$here/profiles.py" "$client" "$router" "$server" "$profiles" \
		"${kinds[@]}" "$@" >>"$results"
}

# tunnel NAMESPACE NAME TYPE LOCAL REMOTE ADDRESS [OPTIONS]: one that says nothing by itself. (What
# IPv6 asks its neighbours would make a connection before the ruleset can translate it.)
tunnel() {
	on "$1" ip -batch - <<-END
		link add $2 type $3 local $4 remote $5 ${7:-}
		link set $2 addrgenmode none
		addr add $6 dev $2
		link set $2 up
	END
}

plain=()
for nat in routed snat dnat snat+dnat masquerade port; do
	for proto in tcp4 udp4 tcp6 udp6; do plain+=("$nat-$proto"); done
done
few=(routed-tcp4 routed-udp6 masquerade-udp4)
cases plain plain "${plain[@]}"

# Tunnels from host to host, which the router forwards.
tunnel "$client" gre4 gre 192.168.1.2 10.0.2.2 172.16.4.1/30
tunnel "$server" gre4 gre 10.0.2.2 192.168.1.2 172.16.4.2/30
tunnel "$client" gre6 ip6gre fd00:1::2 fd00:2::2 172.16.6.1/30 "encaplimit none"
tunnel "$server" gre6 ip6gre fd00:2::2 fd00:1::2 172.16.6.2/30 "encaplimit none"
cases plain plain routed-gre4 routed-gre6
# Masqueraded, the far end has to know the router for its peer.
on "$server" ip link del gre4
tunnel "$server" gre4 gre 10.0.2.2 10.0.2.1 172.16.4.2/30
cases plain plain masquerade-gre4
on "$client" ip link del gre4
on "$client" ip link del gre6
on "$server" ip link del gre4
on "$server" ip link del gre6

# Tunnels that end at the router.
tunnel "$router" tun4 ipip 10.0.2.1 10.0.2.2 172.16.14.1/30
tunnel "$server" tun4 ipip 10.0.2.2 10.0.2.1 172.16.14.2/30
tunnel "$router" tun6 ip6tnl fd00:2::1 fd00:2::2 fd00:16::1/64 "mode ip6ip6 encaplimit none"
tunnel "$server" tun6 ip6tnl fd00:2::2 fd00:2::1 fd00:16::2/64 "mode ip6ip6 encaplimit none"
on "$server" ip route add 192.168.1.0/24 dev tun4
on "$server" ip -6 route add fd00:1::/64 dev tun6
cases plain plain routed-ipip routed-ip6ip6
for ns in "$router" "$server"; do
	on "$ns" ip link del tun4
	on "$ns" ip link del tun6
done

# xfrm NAMESPACE HERE THERE GATEWAY-HERE GATEWAY-THERE: what goes between two networks
xfrm() {
	local key=0x0123456789abcdef0123456789abcdef dir
	on "$1" ip xfrm state add src "$4" dst "$5" proto esp spi 0x1000 mode tunnel \
		enc 'cbc(aes)' $key auth 'hmac(sha1)' $key
	on "$1" ip xfrm state add src "$5" dst "$4" proto esp spi 0x1000 mode tunnel \
		enc 'cbc(aes)' $key auth 'hmac(sha1)' $key
	on "$1" ip xfrm policy add src "$2" dst "$3" dir out \
		tmpl src "$4" dst "$5" proto esp mode tunnel
	for dir in in fwd; do
		on "$1" ip xfrm policy add src "$3" dst "$2" dir $dir \
			tmpl src "$5" dst "$4" proto esp mode tunnel
	done
}
xfrm "$router" 192.168.1.0/24 10.0.2.2/32 10.0.2.1 10.0.2.2
xfrm "$server" 10.0.2.2/32 192.168.1.0/24 10.0.2.2 10.0.2.1
cases plain plain routed-ipsec
for ns in "$router" "$server"; do
	on "$ns" ip xfrm policy flush
	on "$ns" ip xfrm state flush
done

for kind in vlan qinq 8021ad 8021ad-vlan pppoe vlan-pppoe bridge vlan-bridge vlan-bridge-untagged; do
	cases plain $kind "${few[@]}"
done
for kind in vlan qinq 8021ad 8021ad-vlan pppoe vlan-pppoe bridge vlan-bridge vlan-bridge-untagged; do
	cases $kind plain "${few[@]}"
done
cases vlan vlan "${few[@]}"
cases vlan pppoe "${few[@]}"
cases vlan vlan-pppoe "${few[@]}"
cases vlan-bridge vlan "${few[@]}"
cases vlan 8021ad "${few[@]}"
cases 8021ad vlan "${few[@]}"
cases qinq qinq "${few[@]}"
on "$router" nft flush ruleset

table() { python3 "$here/profiles_table.py" <"$results"; }
[ ! -d /share ] || table >/share/drivers.md
check "no case went wrong" fails grep ERROR "$results"
check "no connection stands still" fails grep 'stands still' "$results"
check "the table is that of Documentation/drivers.md" \
	diff <(sed -n '/^<!-- drivers/,/^<!-- end/p' "$document" | sed '1d;$d') <(table)
for profile in ${profiles//,/ }; do
	ok "$profile: $(grep -c "|$profile|hardware$" "$results" || true) of $(grep -c "|$profile|" "$results") in hardware"
done
check "each profile has something in hardware, but for mlx5-tc" \
	[ "$(grep 'hardware$' "$results" | cut -d'|' -f5 | sort -u | grep -vc mlx5-tc)" = 3 ]
echo "$(cut -d'|' -f1-4 "$results" | sort -u | wc -l) cases on $(tr , '\n' <<<$profiles | wc -l) profiles"

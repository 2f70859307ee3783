#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 300
# also: the fast path is the kernel's own
#
# nf_flow_offload_inet_hook() is not to send frames that are not for the host, frames to the zero address, nor packets
# into tunnels of another kind than the route's.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module report_ms=0
topology
# shellcheck source=tests/sides.sh
source "$(dirname "${BASH_SOURCE[0]}")/sides.sh"
# The kernel's own part of the file in /proc.
on "$router" conntrack -C >/dev/null

fast_path() { # COMMAND…
	{ flowtable_ruleset flags= && count_forwarded; } | load_ruleset
	relay "$*" "$(dirname "${BASH_SOURCE[0]}")/fast_path.py" "$client" "$router" "$server" $SLOWNESS "$@"
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
}

fast_path neighbour nic1 del SERVER dev nic1
fast_path neighbour nic1 flush dev nic1
fast_path stale nic1

# IPv4 in IPv6, as DS-Lite and MAP-E have it.
for ns in "$router" "$server"; do
	here=fd00:2::1 there=fd00:2::2
	[ "$ns" = "$router" ] || here=fd00:2::2 there=fd00:2::1
	on "$ns" ip link add ds type ip6tnl mode ipip6 local $here remote $there encaplimit none
	on "$ns" ip link set ds up
done
on "$server" ip addr add 10.9.9.9/32 dev lo
on "$server" ip route add 192.168.1.0/24 dev ds src 10.9.9.9
on "$router" ip route add 10.9.9.9 dev ds
on "$server" nft -f - <<-END
	table inet count {
		counter past { }
		chain before {
			type filter hook prerouting priority -500
			iifname "wire1" ip protocol { tcp, udp, ipencap } counter name past
		}
	}
END
past_the_tunnel() { on "$server" nft list counter inet count past; }
flowtable_ruleset flags= devices="nic0, nic1, ds" | load_ruleset
# On a kernel whose flowtables have no such tunnels, there is no entry.
has_no_entry() {
	flow_send "$1" 1000
	fails on "$router" grep -F '[OFFLOAD]' /proc/net/nf_conntrack
}
dslite() { # TEXT
	local proto
	for proto in tcp4 udp4; do
		check "$1, $proto: the connection is there" eval "flow_to=10.9.9.9 flow_open ds $proto"
		check "$1, $proto: all comes back" flow_send ds 1000000
		check "$1, $proto: the connection is left to the host" busywait $LIMIT has_no_entry ds
		check "$1, $proto: nothing has gone past the tunnel" grep "packets 0 " <<<"$(past_the_tunnel)"
		flow_close ds
	done
}
dslite "through a tunnel of IPv6"
# By which the core finds a way for the tunnel.
on "$router" ip route add default via 10.0.2.2
dslite "through a tunnel of IPv6, beside a default route"
on "$router" ip route del default
on "$server" nft flush ruleset
on "$router" nft flush ruleset
on "$router" ip link del ds
on "$server" ip link del ds

on "$router" ip link set nic0 promisc on
fast_path others wire0 "$(mac_of "$router" nic0)" "a promiscuous port"
on "$router" ip link set nic0 promisc off

# vmac DEVICE HOST-DEVICE: the host sends to a macvlan device on it, as VRRP has one.
vmac=00:00:5e:00:01:33
vmac() {
	on "$router" ip link add vrrp link "$1" address $vmac type macvlan mode bridge
	on "$router" ip link set vrrp up
	on "$client" ip neigh replace 192.168.1.1 lladdr $vmac dev "$2" nud permanent
	on "$client" ip neigh replace fd00:1::1 lladdr $vmac dev "$2" nud permanent
}
vmac nic0 wire0
fast_path others wire0 $vmac "a macvlan device on the port"
on "$router" ip link del vrrp
on "$client" ip neigh flush dev wire0 nud permanent

side 0 bridge
on "$router" ip link set br0 address 02:5a:5b:00:00:99
on "$client" ip neigh flush dev wire0
ways_work
fast_path others wire0 02:5a:5b:00:00:99 "a bridge with an address of its own"
own_mac=
side 0 vlan
fast_path others wire0.10 "$(mac_of "$router" nic0.10)" "a VLAN device"
vmac nic0.10 wire0.10
fast_path others wire0.10 $vmac "a macvlan device on a VLAN device"
on "$router" ip link del vrrp
# The core would send with the port's address.
own_mac=1
side 0 vlan
fast_path source wire0.10 "$(mac_of "$router" nic0.10)" "a VLAN device with an address of its own"

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 300
# also: to which frames a rule applies is the kernel's own matter
#
# Rules of drivers that match MAC addresses are for frames to the host only: those of the device that has its IP, or of a
# macvlan device, as VRRP has one.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module report_ms=0
topology
# shellcheck source=tests/sides.sh
source "$(dirname "${BASH_SOURCE[0]}")/sides.sh"
on "$router" conntrack -C >/dev/null
on "$router" ip link set nic0 promisc on

# hardware PROFILE DEVICE MAC TEXT
hardware() {
	nic profile "$1"
	{ flowtable_ruleset && count_forwarded; } | load_ruleset
	relay "$1, $4" "$(dirname "${BASH_SOURCE[0]}")/fast_path.py" "$client" "$router" "$server" $SLOWNESS \
		hardware "$2" "$3" "$1, $4"
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
}

# vmac DEVICE HOST-DEVICE: the host sends to a macvlan device on it.
vmac=00:00:5e:00:01:33
vmac() {
	on "$router" ip link add vrrp link "$1" address $vmac type macvlan mode bridge
	on "$router" ip link set vrrp up
	to_mac "$2" $vmac
}
to_mac() {
	on "$client" ip neigh replace 192.168.1.1 lladdr "$2" dev "$1" nud permanent
	on "$client" ip neigh replace fd00:1::1 lladdr "$2" dev "$1" nud permanent
}
no_vmac() {
	on "$router" ip link del vrrp
	on "$client" ip neigh flush dev "$1" nud permanent
}
# rules_to MAC: those of frames of the client's to this address.
rules_to() {
	nic_rules | grep "in=nic0 .* to=$1 "
	[ "$(nic_rules | grep -c "in=nic0 .* to=$1 ")" = "${2:-2}" ]
}
no_rules_to() { rules_to "$1" 0; }

for profile in mlx5-ft mlx5-tc; do
	hardware $profile wire0 "$(mac_of "$router" nic0)" "a promiscuous port"
done
vmac nic0 wire0
hardware mlx5-ft wire0 $vmac "a macvlan device on the port"

# Connections go on while the address moves.
nic profile mlx5-ft
to_mac wire0 "$(mac_of "$router" nic0)"
flowtable_ruleset | load_ruleset
flow_open tcp4 tcp4
flow_open udp6 udp6
moved() { flow_send tcp4 100 && flow_send udp6 100 && rules_to "$1"; }
check "the client sends to the port: connections are in hardware" busywait $LIMIT moved "$(mac_of "$router" nic0)"
to_mac wire0 $vmac
check "the client sends to a macvlan device on it: they get back into hardware" busywait $LIMIT moved $vmac
check "the client sends to a macvlan device on it: there are no other rules" rules_are 4
on "$router" ip link set vrrp down
check "the macvlan device goes down: rules for frames to it are gone" busywait 2000 no_rules_to $vmac
on "$router" ip link set vrrp up
check "the macvlan device is up again: connections get back into hardware" busywait $LIMIT moved $vmac
on "$router" ip link set vrrp address 00:00:5e:00:01:34
check "the macvlan device gets another address: rules for frames to the old one are gone" busywait 2000 no_rules_to $vmac
on "$router" ip link set vrrp address $vmac
check "the macvlan device has its address again: connections get back into hardware" busywait $LIMIT moved $vmac
on "$router" ip link del vrrp
check "the macvlan device is deleted: rules for frames to it are gone" busywait 2000 no_rules_to $vmac
to_mac wire0 "$(mac_of "$router" nic0)"
check "the client sends to the port again: connections get back into hardware" \
	busywait $LIMIT moved "$(mac_of "$router" nic0)"
flow_close tcp4
flow_close udp6
on "$router" nft flush ruleset

# What does not match MAC addresses takes the rules all the same.
nic accept "-dmac_match"
flowtable_ruleset | load_ruleset
mark_log
flow_open lax tcp4
check "a driver that does not match MAC addresses: connections are in hardware" wait_rules 2
check "a driver that does not match MAC addresses: the rules have none" fails grep " to=" $NIC/rules
check "a driver that does not match MAC addresses: the log says so" busywait $LIMIT told "nic0: the driver does not match MAC addresses"
refused=$(nic_counter replace_eopnotsupp)
flow_open second tcp4
check "a driver that does not match MAC addresses: the next connection is in hardware" wait_rules 4
is "$(nic_counter replace_eopnotsupp)" "$refused" "a driver that does not match MAC addresses: it is not asked for them again"
is "$(told "nic0: the driver does not match" | grep -c .)" 1 "a driver that does not match MAC addresses: the log says it once"
flow_close lax
flow_close second
on "$router" nft flush ruleset
on "$client" ip neigh flush dev wire0 nud permanent

side 0 bridge
on "$router" ip link set br0 address 02:5a:5b:00:00:99
on "$client" ip neigh flush dev wire0
ways_work
hardware mlx5-ft wire0 02:5a:5b:00:00:99 "a bridge with an address of its own"
side 0 vlan
hardware mlx5-ft wire0.10 "$(mac_of "$router" nic0.10)" "a VLAN device with an address of its own"
vmac nic0.10 wire0.10
hardware mlx5-ft wire0.10 $vmac "a macvlan device on a VLAN device"
no_vmac wire0.10

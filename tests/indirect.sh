#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
# smp: drivers leave while rulesets go
# timeout: 300
#
# Devices that have no driver of their own for rules are offered to the drivers of others (indirect
# blocks), which may take them, refuse them, and leave at any time.
#
# The server is in VLAN 7, which the router has below a macvlan: of a VLAN device nftables makes
# entries only if the port is in the flowtable too, and then the rules are the port's.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module
topology

logged() { told | grep -q "$@"; }
bound_are() {
	local are
	are="$(nic_counter nic0.bound_ft) $(nic_counter nic1.bound_ft) $(nic_counter nic1.bound_indr)"
	echo "bound: $are"
	[ "$are" = "$1" ]
}

on "$server" ip link add link wire1 name wire1.7 type vlan id 7
on "$server" ip addr flush dev wire1 scope global
_address "$server" wire1.7 10.0.2.2/24 fd00:2::2/64
on "$server" ip route replace default via 10.0.2.1
on "$server" ip -6 route replace default via fd00:2::1
on "$router" ip addr flush dev nic1 scope global
on "$router" ip link add link nic1 name nic1.7 type vlan id 7
on "$router" ip link set nic1.7 up
add_upper() {
	on "$router" ip link add link nic1.7 name upper type macvlan mode passthru
	_address "$router" upper 10.0.2.1/24 fd00:2::1/64
	ways_work
}
add_upper

ruleset() { flowtable_ruleset devices="nic0, upper" "$@"; }
flush() { on "$router" nft flush ruleset; }
forget() {
	flow_close "$1"
	on "$router" conntrack -F 2>/dev/null
}

for proto in tcp4 udp6; do
	ruleset | load_ruleset
	check "$proto: the driver is bound" bound_are "1 0 1"
	flow_open $proto $proto
	check "$proto: both directions are in the NIC" wait_rules 2
	check "$proto: one of them is the device's" grep -q 'via=indr in=nic1 vlan=7 .* out=nic0' <(nic_rules)
	check "$proto: packets pass in the NIC" in_hardware $proto 50000
	flush
	check "$proto: nft flush ruleset leaves no rule" rules_are 0
	check "$proto: nft flush ruleset leaves nothing bound" bound_are "0 0 0"
	check "$proto: the connection goes on" flow_send $proto 1000
	forget $proto
done

on "$router" ip link add link nic1 name nic1.8 type vlan id 8
flowtable_ruleset devices="nic0, nic1, nic1.8, upper" | load_ruleset
check "a VLAN device can be bound beside its port" bound_are "1 1 2"
flush
check "a VLAN device beside its port is unbound" bound_are "0 0 0"

flow_open flood udp4
flow_flood flood
ruleset | load_ruleset
flow_open tcp tcp4
check "four rules are in the NIC" wait_rules 4
(
	echo "delete table inet fw"
	ruleset
) | load_ruleset
check "a ruleset that replaces itself stays bound" bound_are "1 0 1"
check "a ruleset that has replaced itself works" flow_send_until tcp $LIMIT rules_are 4
on "$router" ip link del upper
check "the device is deleted under traffic: no rule is left" rules_are 0
check "the device is deleted under traffic: it is not bound" bound_are "1 0 0"
flush
add_upper
ruleset | load_ruleset
check "the device is made again: its connection is in the NIC" flow_send_until tcp $LIMIT rules_are 4

mark_log
nic indirect 0
is "$(grep "in=nic1 .*vlan=7" $NIC/rules)" "" "the driver leaves under traffic: it has no rule left"
check "the driver leaves under traffic: rules of others to its device go" busywait $LIMIT rules_are 0
check "the driver leaves under traffic: nothing of it is bound" bound_are "1 0 0"
check "the driver leaves under traffic: the connection goes on" flow_send tcp 50000
check "the driver leaves under traffic: the log says what has happened and what to do" \
	logged 'upper: the driver unregistered; .* Reload the ruleset'
check "the driver leaves under traffic: the log says why flows stay in software" \
	flow_send_until tcp $((2 * LIMIT)) logged 'upper takes no rules for this flowtable'
is "$(nic_rules)" "" "the driver leaves under traffic: no rule comes back"
flush
check "without the driver, the ruleset is refused" fails eval 'ruleset | load_ruleset'

# The core offers what it remembers to drivers that register.
nic accept "default +replay"
nic indirect 1
check "the driver is back: it finds nothing that was bound" bound_are "0 0 0"
ruleset | load_ruleset
check "the driver is back: the next ruleset binds it" bound_are "1 0 1"
check "the driver is back: the connection gets back into the NIC" \
	flow_send_until tcp $LIMIT rules_are 4
check "the driver is back: all packets of the connection pass in the NIC" in_hardware tcp 50000

nic indirect 0
nic indirect 1
check "the driver leaves and comes back: it is not bound" bound_are "1 0 0"
(
	echo "delete table inet fw"
	ruleset
) | load_ruleset
check "the driver leaves and comes back: a ruleset that replaces itself binds it" bound_are "1 0 1"
check "the driver leaves and comes back: the connection gets back into the NIC" flow_send_until tcp $LIMIT rules_are 4

on "$router" ip link add plain type dummy
for time in first second; do
	mark_log
	check "a device that nobody takes fails the ruleset, the $time time" \
		fails eval 'flowtable_ruleset devices=plain | load_ruleset'
	check "the log says that nobody takes the device, the $time time" logged 'plain: cannot offload, so the flowtable is refused: -EOPNOTSUPP'
done
on "$router" ip link del plain
nic indirect 0
nic indirect 1
ok "of a device that nobody takes, the core remembers nothing"
flush

# Whoever comes first: the ruleset that goes, or the driver.
rounds=20
has_time || rounds=10
for ((i = 0; i < rounds; i++)); do
	ruleset | load_ruleset
	[ $((i % 2)) = 0 ] || busywait $LIMIT rules_are 1 -ge
	nic indirect 0 &
	sleep 0.00$((i % 10))
	flush
	wait $!
	is "$(nic_rules)" "" "the driver and the ruleset leave at once: no rule is left ($i)"
	bound_are "0 0 0" >/dev/null || not_ok "the driver and the ruleset leave at once: nothing is bound ($i)"
	nic indirect 1
done

# A driver that does not give its callback back calls the module when it leaves.
ruleset | load_ruleset
mark_log
nic faults "unbind 95 100% nic1"
flush
check "a driver that refuses to be unbound is told of" \
	logged 'upper: the driver refused to be unbound: -EOPNOTSUPP "emunic: injected failure"'
nic faults none
forget tcp
forget flood
check "a driver that refuses to be unbound holds the module" fails rmmod nft_offload
nic indirect 0
check "the module can be unloaded when the driver that held it has left" unload_module nft_offload
nic indirect 1
load_module incapable=1
mark_log
nic indirect 0
ruleset | load_ruleset
check "with incapable=1 the ruleset works without the driver" \
	logged 'upper: cannot offload, so its flows stay in software'
flow_open soft tcp4
check "with incapable=1 flows stay in software without the driver" flow_send_until soft $((2 * LIMIT)) logged 'upper takes no rules for this flowtable'
check "with incapable=1 the connection goes on without the driver" flow_send soft 5000
is "$(nic_rules)" "" "with incapable=1 nothing is in the NIC without the driver"
flush
nic indirect 1

for counter in replace_eexist replace_dup_match destroy_enoent stats_enoent; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

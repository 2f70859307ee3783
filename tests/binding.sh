#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
# timeout: 300
#
# Drivers that take no rules for flowtables but for tc (TC_SETUP_BLOCK), and devices that take
# none at all.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

bound() { is "$(nic_counter nic0.bound_ft) $(nic_counter nic0.bound_block)" "$1" "$2"; }
not_bound() { [ "$(nic_counter nic0.bound_block)$(nic_counter nic1.bound_block)" = 00 ]; }

load_module
topology
nic accept "-ft +block"

for proto in tcp4 udp6; do
	flowtable_ruleset | load_ruleset
	bound "0 1" "the driver is bound as for tc"
	flow_open $proto $proto
	check "$proto: both directions are in the NIC" wait_rules 2
	is "$(nic_rules | grep -c via=block)" 2 "$proto: as rules of tc"
	cpu=$(nic_counter cpu_packets)
	flow_send $proto 20000
	check "$proto: packets pass in the NIC" [ $(($(nic_counter cpu_packets) - cpu)) -lt 10 ]
	on "$router" nft flush ruleset
	check "$proto: nft flush ruleset leaves no rule" rules_are 0
	check "$proto: and the driver is unbound" busywait $LIMIT not_bound
	check "$proto: the connection goes on" flow_send $proto 1000
	flow_close $proto
	on "$router" conntrack -F 2>/dev/null
done

flowtable_ruleset | load_ruleset
for _ in 1 2 3; do
	(
		flowtable_ruleset
		echo "delete table inet fw"
		flowtable_ruleset
	) | load_ruleset
done
bound "0 1" "a ruleset that replaces itself stays bound"
flow_open again udp4
check "and works" wait_rules 2
check "tc cannot have the device meanwhile" fails on "$router" tc qdisc add dev nic0 ingress_block 1 clsact
on "$router" tc qdisc del dev nic0 clsact 2>/dev/null || true
flow_close again
on "$router" nft flush ruleset
check "nothing is bound" busywait $LIMIT not_bound

on "$router" tc qdisc add dev nic0 clsact
check "a device that tc has fails the ruleset" fails eval 'flowtable_ruleset | load_ruleset'
check "the log says what to do" grep -q 'nic0: tc has the driver.* remove its ingress or clsact qdisc' <(told)
on "$router" tc qdisc del dev nic0 clsact
check "then it works" eval 'flowtable_ruleset | load_ruleset'
on "$router" nft flush ruleset

# A real driver that agrees to be bound for flowtables and has no callback.
modprobe netdevsim
at_exit modprobe -r netdevsim
echo "1 1" >/sys/bus/netdevsim/new_device
sim=$(ls /sys/bus/netdevsim/devices/netdevsim1/net)
ip link set "$sim" netns "$router"
on "$router" tc qdisc add dev "$sim" clsact
check "netdevsim, if tc has it, fails the ruleset" \
	fails eval 'flowtable_ruleset devices="nic0, $sim" | load_ruleset'
check "and the log says what to do" grep -q "$sim: tc has the driver.* remove its ingress" <(told)
on "$router" tc qdisc del dev "$sim" clsact
mark_log
flowtable_ruleset devices="nic0, $sim" | load_ruleset
check "netdevsim takes rules for tc, so nothing is said about it" \
	fails grep -q "$sim" <(told)
echo 1 >/sys/bus/netdevsim/del_device
check "and it goes" fails on "$router" ip link show "$sim"
on "$router" nft flush ruleset

on "$router" ip link add plain type dummy
check "a device that cannot offload fails the ruleset" \
	fails eval 'flowtable_ruleset devices="nic0, plain" | load_ruleset'
check "the log says so" grep -q 'plain: cannot offload, so the flowtable is refused' <(last_told)
check "everything is unbound again" busywait $LIMIT not_bound
rmmod nft_offload
load_module incapable=1
check "with incapable=1 it does not" eval 'flowtable_ruleset devices="nic0, nic1, plain" | load_ruleset'
check "and there is a warning" grep -q 'plain: cannot offload, so its flows stay in software' <(last_told)
check "the other devices work" eval 'flow_open rest tcp4 && wait_rules 2'
on "$router" ip link del plain
check "the incapable device can go" rules_are 2
nic vanish nic1
check "a port that is unplugged: no rule is left" rules_are 0
nic appear nic1
on "$router" nft flush ruleset
check "and nothing is bound" busywait $LIMIT not_bound

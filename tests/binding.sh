#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 300
#
# Drivers that take no rules for flowtables but for tc (TC_SETUP_BLOCK): those that are bound so, those
# that must not be, and devices that take none at all.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

bound() { is "$(nic_counter nic0.bound_ft) $(nic_counter nic0.bound_block)" "$1" "$2"; }
not_bound() { [ "$(nic_counter nic0.bound_block)$(nic_counter nic1.bound_block)" = 00 ]; }

load_module
topology
nic profile mlx5-tc

for proto in tcp4 udp6; do
	flowtable_ruleset | load_ruleset
	bound "0 1" "the driver is bound as for tc"
	flow_open $proto $proto
	check "$proto: both directions are in the NIC" wait_rules 2
	is "$(nic_rules | grep -c 'via=block .*ttl_dec')" 2 "$proto: as rules of tc, which say that the TTL is decremented"
	cpu=$(nic_counter cpu_packets)
	flow_send $proto 20000
	check "$proto: packets pass in the NIC" [ $(($(nic_counter cpu_packets) - cpu)) -lt 10 ]
	on "$router" nft flush ruleset
	check "$proto: nft flush ruleset leaves no rule" rules_are 0
	check "$proto: nft flush ruleset unbinds the driver" busywait $LIMIT not_bound
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
check "a ruleset that has replaced itself works" wait_rules 2
check "tc cannot have the device meanwhile" fails on "$router" tc qdisc add dev nic0 ingress_block 1 clsact
on "$router" tc qdisc del dev nic0 clsact 2>/dev/null || true
flow_close again
on "$router" nft flush ruleset
check "nothing is bound" busywait $LIMIT not_bound

on "$router" tc qdisc add dev nic0 clsact
mark_log
flowtable_ruleset | load_ruleset
logged() { grep "$1" <(told); }
check "a device that tc has is not bound: the log says what to do" \
	busywait $LIMIT logged 'nic0: tc has the driver.* remove its ingress or clsact qdisc'
check "a device that tc has is not bound: the log says what becomes of its flows" busywait $LIMIT logged 'nic0: cannot offload, so its flows stay in software'
on "$router" nft flush ruleset
on "$router" tc qdisc del dev nic0 clsact
flowtable_ruleset | load_ruleset
bound "0 1" "without the qdisc, the next ruleset binds it"
on "$router" nft flush ruleset
check "nothing is bound" busywait $LIMIT not_bound

for_tc_only() { logged "$1: cannot offload, so its flows stay in software: its driver takes rules for tc only.*unlocked_driver_cb"; }
stays_in_software() { told "stays in software: .* takes no rules for this flowtable" | grep .; }
is_not_asked() { [ "$(nic_counter replace_ok)$(nic_counter replace_failed)" = 00 ]; }

# One that takes what it does not understand, and one that counts on RTNL when it is given a rule.
unload_module nft_offload
load_module report_ms=0
for profile in bnxt tc-rtnl; do
	nic profile $profile
	nic counters 0
	mark_log
	flowtable_ruleset | load_ruleset
	for nic in nic0 nic1; do
		check "$profile: the log says why $nic is not bound" busywait $LIMIT for_tc_only $nic
	done
	check "$profile: nothing is bound" busywait $LIMIT not_bound
	is "$(nic_counter bind_ok)" "$(nic_counter unbind_ok)" "$profile: the driver is unbound as often as it was bound"
	flow_open $profile tcp4
	check "$profile: flows stay in software" flow_send_until $profile $LIMIT stays_in_software
	check "$profile: they work" flow_send $profile 20000
	check "$profile: tc can have the device" on "$router" tc qdisc add dev nic0 clsact
	on "$router" nft flush ruleset
	mark_log
	flowtable_ruleset devices=nic0 | load_ruleset
	check "$profile: nobody is sent to tc in vain" \
		eval 'busywait $LIMIT for_tc_only nic0 && fails logged "remove its"'
	on "$router" nft flush ruleset
	on "$router" tc qdisc del dev nic0 clsact
	check "$profile: no rule was given to it" is_not_asked
	flow_close $profile
	on "$router" conntrack -F 2>/dev/null
done

# A real one of that kind, which agrees to be bound for flowtables and has no callback for them.
modprobe netdevsim
at_exit modprobe -r netdevsim
echo "1 1" >/sys/bus/netdevsim/new_device
sim=$(ls /sys/bus/netdevsim/devices/netdevsim1/net)
ip link set "$sim" netns "$router"
nic profile mlx5-tc
mark_log
flowtable_ruleset devices="nic0, $sim" | load_ruleset
check "the log says why netdevsim is not bound" busywait $LIMIT for_tc_only "$sim"
check "netdevsim is unbound: tc can have it" on "$router" tc qdisc add dev "$sim" clsact
on "$router" nft flush ruleset
check "everything is unbound again" busywait $LIMIT not_bound
echo 1 >/sys/bus/netdevsim/del_device
check "netdevsim goes" fails on "$router" ip link show "$sim"

# What reads rules as tc means them is told of the TTL, whatever the parameter says.
unload_module nft_offload
load_module ttl=2
flowtable_ruleset | load_ruleset
flow_open ttl udp4
check "ttl=2: both directions are in the NIC" wait_rules 2
is "$(nic_rules | grep -c ttl_dec)" 2 "ttl=2: as rules of tc, which say that the TTL is decremented"
flow_close ttl
on "$router" nft flush ruleset
check "nothing is bound" busywait $LIMIT not_bound

on "$router" ip link add plain type dummy
check "a device that cannot offload fails the ruleset" \
	fails eval 'flowtable_ruleset devices="nic0, plain" | load_ruleset'
check "the log says that a device cannot offload" grep -q 'plain: cannot offload, so the flowtable is refused' <(last_told)
check "everything is unbound again" busywait $LIMIT not_bound
rmmod nft_offload
load_module incapable=1 report_ms=0
nic profile mlx5-tc
check "with incapable=1 a device that cannot offload does not fail the ruleset" eval 'flowtable_ruleset devices="nic0, nic1, plain" | load_ruleset'
check "with incapable=1 the log warns of a device that cannot offload" logged "plain: cannot offload, so its flows stay in software"
check "with incapable=1 the other devices work" eval 'flow_open rest tcp4 && wait_rules 2'
on "$router" ip link del plain
check "the incapable device can go" rules_are 2
nic vanish nic1
check "a port that is unplugged: no rule is left" rules_are 0
nic appear nic1
on "$router" nft flush ruleset
check "after a port was unplugged, nft flush ruleset leaves nothing bound" busywait $LIMIT not_bound

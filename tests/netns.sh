#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
# smp: namespaces go under traffic
# timeout: 120
#
# The router's namespace is deleted with its flowtable, connections and ports: no rule is left,
# and the module can go.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need /sys/kernel/debug/failslab

load_module
topology
flowtable_ruleset | load_ruleset
for proto in tcp4 tcp6 udp4 udp6; do flow_open $proto $proto; done
check "eight rules are in the NIC" wait_rules 8

ip netns delete "$router"
check "the namespace goes: no rule is left" wait_rules 0
ports_are_back() { [ -e /sys/class/net/nic0 ] && [ -e /sys/class/net/nic1 ]; }
check "the ports are back in the initial namespace" busywait $LIMIT ports_are_back
for port in nic0 nic1; do
	is "$(nic_counter $port.bound_ft)" 0 "the driver of $port is not bound"
done
check "the module can be unloaded" busywait $LIMIT _unload nft_offload
for counter in replace_eexist replace_dup_match destroy_enoent destroy_failed; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

unused() { [ "$(</sys/module/nft_offload/refcnt)" = 0 ]; }

start_over
load_module
topology
flowtable_ruleset | load_ruleset
for proto in tcp4 udp6; do flow_open $proto $proto; done
check "four rules are in the NIC" wait_rules 4
at_exit memory_is_short 0
memory_is_short 100 workers
on "$router" nft flush ruleset
check "no memory for workers: the flowtable goes all the same" busywait $LIMIT unused
check "no memory for workers: they have asked for some" [ "$(memory_failures)" -gt 0 ]
memory_is_short 0
is "$(nic_rules)" "" "no rule is left"
ip netns delete "$router"
busywait $LIMIT ports_are_back
# Namespaces go one after the other, and conntrack's part comes last.
next=''
add_ns next
ip link set nic0 netns "$next"
ip netns delete "$next"
check "no connection of it holds the namespace" busywait $LIMIT ports_are_back

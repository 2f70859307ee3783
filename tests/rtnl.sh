#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
# timeout: 90
#
# Drivers of devices without ndo_setup_tc are bound with RTNL held. The kernel log shows whether the module gives
# up what it does not hold.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module
topology

# --- nftables has a device join with RTNL held: one that a flowtable names and that comes later

flowtable_ruleset devices="nic0, nic1, late" | load_ruleset
for turn in 1 2 3; do
	mark_log
	check "time $turn: a device without a driver for rules comes" on "$router" ip link add late type dummy
	check "time $turn: the log says that its flows stay in software" busywait $LIMIT told "late: cannot offload, so its flows stay"
	check "time $turn: the device goes" on "$router" ip link del late
done
flow_open web tcp4
check "flows of the other devices are in the NIC" busywait $LIMIT has_rules 2
on "$router" nft flush ruleset

# --- other tasks have it all the time: a flowtable is refused all the same

on "$router" ip link add plain type dummy
ip link add dum0 type dummy
at_exit ip link del dum0
yes $'link set dum0 up\nlink set dum0 down' | exec ip -batch - &
churn_pid=$!
at_exit eval "kill $churn_pid; wait $churn_pid 2>/dev/null"
echo "table inet t { flowtable f { hook ingress priority 0; devices = { nic0, plain }; flags offload; }; }" >"$_output.nft"
refused=0
for ((turn = 0; turn < 20; turn++)); do
	if on "$router" nft -f "$_output.nft" 2>/dev/null; then
		on "$router" nft flush ruleset
	else
		refused=$((refused + 1))
	fi
done
is "$refused" 20 "a device that cannot offload fails the ruleset each time"
check "devices went up and down all the time" kill -0 $churn_pid
is "$(nic_counter nic0.bound_ft)" 0 "the other device is not bound any more"

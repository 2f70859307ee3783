#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
# timeout: 60
#
# A flowtable names a device that comes later: nftables has it join with RTNL held, by which the driver is not
# bound. The kernel log shows whether RTNL is still held after that.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module
topology
flowtable_ruleset devices="nic0, nic1, late" | load_ruleset
for turn in 1 2 3; do
	mark_log
	check "time $turn: a device without a driver for rules comes" on "$router" ip link add late type dummy
	check "time $turn: the log says that its flows stay in software" busywait $LIMIT told "late: cannot offload, so its flows stay"
	check "time $turn: the device goes" on "$router" ip link del late
done
flow_open web tcp4
check "flows of the other devices are in the NIC" busywait $LIMIT has_rules 2

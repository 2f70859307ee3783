#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 150
#
# ethtool -K DEV hw-tc-offload off, which the kernel tells of when it has happened: rules are withdrawn, and none is
# given to the driver until it is on again. And a port that is closed and opened again before anything can be
# looked into.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module report_ms=0
topology
said() { told "$@" | grep .; }
tc_offload() { on "$router" ethtool -K "$1" hw-tc-offload "$2"; }
counts() { echo "$(nic_counter replace_ok) $(nic_counter replace_failed)"; }
without_hw_offload() { fails grep HW_OFFLOAD <(on "$router" conntrack -L 2>/dev/null); }
flows_pass() { flow_send tcp 2000 && flow_send udp 2000; }
# A flow is offered once a second as long as its packets come by in software.
offers_are() { [ "$(told "stays in software: .*hw-tc-offload is off (ethtool -K $1 hw-tc-offload on)" | wc -l)" -ge "$2" ]; }
flows_are_offered() { flow_send_until tcp $((3 * LIMIT)) offers_are "$1" 3; }
both_come_back() { flow_send udp 100 && flow_send tcp 100 && rules_are 4; }

flowtable_ruleset | load_ruleset
flow_open tcp tcp4
flow_open udp udp6
check "two flows are in the NIC" wait_rules 4

for port in nic0 nic1; do
	mark_log
	tc_offload $port off
	check "$port is switched off: no rule is left" wait_rules 0
	check "$port is switched off: connections go on" flows_pass
	check "$port is switched off: no connection claims to be in hardware" without_hw_offload
	before=$(counts)
	check "$port is switched off: the log says so of each flow that is offered" flows_are_offered $port
	is "$(counts)" "$before" "$port is switched off: the driver is given no rule"
	tc_offload $port on
	check "$port is switched on: flows come back" busywait $((3 * LIMIT)) both_come_back
done

# --- a ruleset that is loaded meanwhile

tc_offload nic1 off
on "$router" nft flush ruleset
mark_log
check "a ruleset with a port that is switched off is taken" eval 'flowtable_ruleset | load_ruleset'
check "a ruleset with a port that is switched off: the log says why flows stay in software" flow_send_until tcp $LIMIT offers_are nic1 1
is "$(nic_counter rules)" 0 "a ruleset with a port that is switched off: no rule is in the NIC"
tc_offload nic1 on
check "it is switched on: flows come back" busywait $((3 * LIMIT)) both_come_back

# --- drivers that refuse removals too as long as it is off (mtk, airoha, DSA)

nic faults "destroy -95 100% nic0"
mark_log
tc_offload nic0 off
check "removals are refused as well: the log says what to do" \
	busywait $LIMIT said "nic0: the driver did not remove a rule: .*Switch hw-tc-offload on again .*take the device out of the flowtable"
check "removals are refused as well: the other port's rules are gone" wait_rules 2
check "removals are refused as well: connections go on" flows_pass
nic faults none
tc_offload nic0 on
check "it is switched on: the old rules are gone, and flows come back" busywait $((3 * LIMIT)) both_come_back
for counter in replace_eexist replace_dup_match destroy_enoent; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

# --- other features

before=$(nic_counter destroy_ok)
on "$router" ethtool -K nic0 gro off
on "$router" ethtool -K nic0 gro on
check "another feature is switched: connections go on" flows_pass
is "$(nic_counter rules) $(nic_counter destroy_ok)" "4 $before" "another feature is switched: rules stay"

# --- closed and opened

on "$router" sysctl -qw net.ipv6.conf.nic0.keep_addr_on_down=1 net.ipv6.conf.nic0.accept_dad=0
on "$router" ip -batch - <<-END
	link set nic0 down
	link set nic0 up
END
ways_work
gone() { [ "$(nic_counter destroy_ok)" -ge $((before + 4)) ]; }
check "a port is closed and opened again at once: its rules are removed" busywait $LIMIT gone
check "a port is closed and opened again at once: flows come back" busywait $((3 * LIMIT)) both_come_back

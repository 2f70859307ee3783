#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 300
#
# What the driver or the NIC does not take: the connection goes on in software, and the log
# says why.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module
topology
flowtable_ruleset | load_ruleset

refused() { [ "$(nic_counter replace_failed)" -ge "${1:-1}" ]; }
hw_offload() { on "$router" conntrack -L 2>/dev/null | grep HW_OFFLOAD; }

nic faults "replace -28 100 nic1"
flow_open half tcp4
check "the NIC refuses the reply direction" busywait $LIMIT refused
check "the NIC refuses the reply direction: the original direction is not there either" busywait $LIMIT rules_are 0
check "the NIC refuses the reply direction: the connection goes on" flow_send half 5000
check "the NIC refuses the reply direction: conntrack does not say [HW_OFFLOAD]" fails hw_offload
check "the log says which flow, direction and error" \
	grep -q 'tcp 192.168.1.2:.* -> 10.0.2.2:.* reply direction: .*-\(ENOSPC\|28\)' <(last_told)

# C offers the flow again each second with packets. Not every offer reaches the driver.
before=$(nic_counter replace_failed)
end=$((SECONDS + 8))
while [ $SECONDS -lt $end ]; do
	flow_send half 100
	# Not the flowtable's, it changes nothing.
	on "$router" ip link add noise type dummy
	on "$router" ip link del noise
done
check "a refused flow is offered less and less often, whatever other devices do" [ $(($(nic_counter replace_failed) - before)) -le 4 ]

nic faults none
check "when there is room the connection gets into the NIC" flow_send_until half 60000 rules_are 2
flow_close half
on "$router" conntrack -F 2>/dev/null
check "a connection that conntrack forgets gets out of the NIC" wait_rules 0

nic capacity 1
flow_open full udp6
check "a full NIC refuses" busywait $LIMIT eval '[ "$(nic_counter replace_enospc)" -ge 1 ]'
check "a full NIC: the connection stays whole in software" busywait $LIMIT rules_are 0
nic capacity 0
flow_close full
on "$router" nft flush ruleset
on "$router" conntrack -F 2>/dev/null

nic faults "bind -16 100 nic1"
check "a driver that refuses to be bound fails the ruleset" fails eval 'flowtable_ruleset | load_ruleset'
check "the log names device, error and what to do" \
	grep -q 'nic1: cannot offload.*-\(EBUSY\|16\).*flags offload' <(last_told)
is "$(nic_counter nic0.bound_ft)" 0 "the other device is not bound any more"
nic faults none

on "$router" ip link add plain type dummy
check "a device that cannot offload fails the ruleset" fails eval 'flowtable_ruleset devices="nic0, plain" | load_ruleset'
check "the log says that a device does not support it" grep -q 'plain: cannot offload.*-\(EOPNOTSUPP\|95\)' <(last_told)
is "$(nic_counter nic0.bound_ft)" 0 "a device that cannot offload leaves nothing bound"
check "without offload, the same flowtable works" \
	eval 'flowtable_ruleset flags= devices="nic0, plain" | load_ruleset'
on "$router" nft flush ruleset

flowtable_ruleset | load_ruleset
flow_open lost tcp6
check "a flow is in the NIC" wait_rules 2
nic evict all
check "the NIC loses its rules: the connection goes on" flow_send lost 5000
check "the NIC loses its rules: the connection gets into the NIC again" flow_send_until lost 60000 rules_are 2
# mlx5 does not say ENOENT.
nic accept "default +unknown_einval"
nic evict all
check "the NIC says EINVAL of rules that it has lost: the connection goes on" flow_send lost 5000
check "the NIC says EINVAL of rules that it has lost: the connection gets into the NIC again" flow_send_until lost 60000 rules_are 2
nic accept default
flow_close lost
on "$router" nft flush ruleset
check "no rule is left" rules_are 0

# Whose business the TTL is can be said; a NIC that does not take the rule is not asked otherwise.
rmmod nft_offload
load_module ttl=1 report_ms=1500
told_again() { [ "$(told "stays in software" | grep -c .)" -ge 2 ]; }
mark_log
taken=$(nic_counter replace_ok)
flowtable_ruleset | load_ruleset
flow_open ttl udp4
check "ttl=1: a NIC that takes no such action gets no rule, and the log says so again and again" \
	flow_send_until ttl 20000 told_again
is "$(nic_counter replace_ok)" "$taken" "ttl=1: the NIC was not asked to take another one"
mapfile -t times < <(told "stays in software" | sed -n "s/^\[ *\([0-9]*\)\.\([0-9]*\)\].*/\1\2/p")
for ((i = 1; i < ${#times[@]}; i++)); do
	check "report_ms=1500: so much is between two messages" [ $((times[i] - times[i - 1])) -ge 1490000 ]
done
nic accept "default +ttl_add"
check "ttl=1: a NIC that takes the action gets rules" flow_send_until ttl 60000 rules_are 2
is "$(nic_rules | grep -c ttl_dec)" 2 "ttl=1: the rules of both directions have the action"
flow_close ttl
on "$router" nft flush ruleset
nic accept default
unload_module nft_offload
load_module ttl=2
flowtable_ruleset | load_ruleset
flow_open unasked udp4
check "ttl=2: both directions are in the NIC" wait_rules 2
is "$(nic_rules | grep -c ttl_dec)" 0 "ttl=2: the rules do not say that the TTL is decremented"
flow_close unasked
on "$router" nft flush ruleset

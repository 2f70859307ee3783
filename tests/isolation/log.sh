#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 200
#
# The log does not say everything that often, but what happens in one namespace is said whatever goes on in
# another one.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Flows of a stranger are refused all the time.
strangers_flows() {
	local i
	for ((i = 0; i < 20; i++)); do
		flow_open "stranger$i" udp4
		flow_flood "stranger$i"
	done
}
said() { told "$1" | grep -F -e "$2"; }

load_module
two_routers

# The first router is the stranger's here.

# --- flows that stay in software

flowtable_ruleset | load_ruleset
flowtable_ruleset devices="nic2, nic3" >"$_output.nft"
on "$other" nft -f "$_output.nft"
nic faults "replace -28 100 nic0; replace -95 100 nic2"
strangers_flows
check "a flow is refused, and the log says so" busywait $LIMIT said "stays in software" "-> 10.0.2.2:"
mark_log
flow_to=10.0.4.2 flow_open other udp4 6900
check "a flow in another namespace is refused, and the log says so at once" \
	busywait $LIMIT said "stays in software" "-> 10.0.4.2:6900"

# --- devices that are refused

on "$router" ip link add theirs type dummy
on "$other" ip link add ours type dummy
echo "add table ip t; add flowtable ip t f { hook ingress priority 0; devices = { theirs }; flags offload; }" \
	>"$_output.theirs"
sed 's/theirs/ours/' "$_output.theirs" >"$_output.ours"
mark_log
begin=$SECONDS
# A stranger tries more often than the log says it in five seconds, and then the other one does.
for ((turn = 0; turn < 5; turn++)); do
	for ((i = 0; i < 12; i++)); do
		on "$router" nft -f "$_output.theirs" 2>/dev/null || true
	done
	on "$other" nft -f "$_output.ours" 2>/dev/null || true
done
check "a stranger's device cannot offload, and the log says so" said "cannot offload" theirs
check "not more than ten times in five seconds" \
	[ "$(said "cannot offload" theirs | wc -l)" -le $((10 * ((SECONDS - begin) / 5 + 2))) ]
is "$(said "cannot offload" ours | wc -l)" 5 \
	"in another namespace a device cannot offload, and the log says so each time"
nic faults none

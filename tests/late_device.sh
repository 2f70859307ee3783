#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 150
#
# A device that comes, or gets its name, after the ruleset that names it, and cannot offload: it can come, the log
# says once what becomes of its flows, and only rulesets that are loaded are refused.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module
topology ports=4
modprobe -a dummy veth tun pppoe ppp_generic
flowtable_ruleset devices="nic0, nic1, late, ppp0" | load_ruleset
flow_open web tcp4
check "the devices that are there are bound: both directions of a flow are in the NIC" wait_rules 2

said() { told "$@" | grep .; }
said_once() { is "$(told "${1:-late}: cannot offload, so its flows stay in software" | wc -l)" 1 "$2: the log says once that its flows stay in software"; }
leaves() {
	on "$router" ip link del late
	check "$1: it can go again" fails on "$router" ip link show late
}

# comes WHAT COMMAND…: by which a device called "late" is there.
comes() {
	local what=$1
	shift
	mark_log
	check "$what: it can come" "$@"
	said_once late "$what"
	check "$what: the log says what to do" said "late: .*It came after the ruleset.*take the device or .* out of the flowtable"
}
renamed() {
	on "$router" ip link add other type "$1"
	on "$router" ip link set other name late
}
moved() {
	ip link add late type dummy
	ip link set late netns "$router"
}

comes "a new dummy" on "$router" ip link add late type dummy
leaves "a new dummy"
comes "a dummy that gets the name" renamed dummy
leaves "a dummy that gets the name"
comes "a dummy from another namespace" moved
leaves "a dummy from another namespace"
comes "a new veth" on "$router" ip link add late type veth peer name peer
leaves "a new veth"
comes "a new tun device" on "$router" ip tuntap add dev late mode tun
leaves "a new tun device"
check "a port that is bound can be renamed: its rules go" eval 'on "$router" ip link set nic1 down && on "$router" ip link set nic1 name wan && wait_rules 0'
on "$router" ip link set wan name nic1
on "$router" ip link set nic1 up
on "$router" ip route replace default dev nic1 2>/dev/null || true
check "a port that gets its name back: flows are in the NIC again" flow_send_until web $((3 * LIMIT)) rules_are 2

session() {
	local pid
	# Not by way of a function: the process has to be the program itself.
	ip netns exec "$router" "$_here/drivers/pppoe.py" nic1 $((0x1235)) "$(mac_of "$server" wire1)" >"$_output.ppp" 2>&1 &
	pid=$!
	at_exit eval "kill $pid 2>/dev/null; wait $pid 2>/dev/null"
	busywait $((3 * LIMIT)) grep -E '^ppp|Error' "$_output.ppp"
	grep -q ^ppp0 "$_output.ppp" && [ "$(on "$router" ip -br link show ppp0)" ]
}
mark_log
check "a PPPoE session: it can be made" session
said_once ppp0 "a PPPoE session"

# --- a port whose driver fails just then

on "$router" ip link add plain type dummy
ip link set nic2 netns "$router"
nic faults "bind -5 100% nic2"
mark_log
check "a port whose driver fails: it can get the name" on "$router" ip link set nic2 name late
said_once late "a port whose driver fails"
check "a port whose driver fails: the log has what it says" said 'late: .*: -E\?[I5]'
check "a port whose driver fails: flows of the others stay in the NIC" flow_send_until web $LIMIT rules_are 2

# Rulesets that are loaded meanwhile.
mark_log
check "a ruleset with the device is refused" fails eval \
	'flowtable_ruleset devices="nic0, late" | sed "s/table inet fw/table inet second/" | load_ruleset'
check "a ruleset with the device is refused: the log says so" said "late: cannot offload, so the flowtable is refused"
check "a flowtable that is to have a device that cannot offload is left as it was" fails on "$router" nft \
	'add flowtable inet fw ft { hook ingress priority 0; devices = { plain }; flags offload; }'
check "a flowtable that is to have a device that cannot offload: the log says that this is refused" \
	said "plain: cannot offload, so the flowtable is refused"
check "a flowtable that is refused a device: its flows stay in the NIC" flow_send_until web $LIMIT rules_are 2

nic faults none
on "$router" ip link set late name away
on "$router" ip link set away name late
is "$(nic_counter nic2.bound_ft)" 1 "a port whose driver does not fail any more is bound when it gets the name again"
on "$router" nft flush ruleset
is "$(nic_counter nic2.bound_ft)$(nic_counter nic0.bound_ft)" 00 "nft flush ruleset leaves nothing bound"
on "$router" ip link set late name nic2

# --- a flowtable none of whose devices is there yet

flowtable_ruleset devices="late, nic2" | sed 's/nic2/later/' | load_ruleset
comes "the first device of a flowtable" on "$router" ip link add late type dummy
on "$router" ip link set nic2 name later
is "$(nic_counter nic2.bound_ft)" 1 "the second device of the flowtable, which can offload, is bound"
leaves "the first device of a flowtable"
on "$router" nft flush ruleset
is "$(nic_counter nic2.bound_ft)" 0 "nft flush ruleset leaves nothing bound once more"

# --- the parameter

unload_module nft_offload
load_module incapable=1
flowtable_ruleset devices="nic0, late" | load_ruleset
mark_log
check "incapable=1: a new dummy can come" on "$router" ip link add late type dummy
said_once late "incapable=1: a new dummy"
check "incapable=1: the log says nothing of a ruleset that is refused" fails grep refused <(told)

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 150
#
# Qdiscs past which hardware sends: the log says so of those that do more than to queue, whenever they come; or,
# with bypass_qdisc=0, flows by such a device stay in software.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module report_ms=0
topology
modprobe -a sch_tbf sch_htb sch_fq_codel sch_netem 8021q
said() { told "$@" | grep .; }
qdisc() { on "$router" tc qdisc "$1" dev "$2" root "${@:3}"; }
tbf=(tbf rate 500mbit burst 1m latency 50ms)
_send_and() { flow_send tcp 100 >/dev/null && "$@"; }
# sending LIMIT COMMAND…: until COMMAND succeeds, with packets all the time.
sending() { busywait "$1" _send_and "${@:2}"; }

way_back() {
	on "$server" ip route replace default via 10.0.2.1
	on "$server" ip -6 route replace default via fd00:2::1
	ways_work
}

# --- one that is there before

qdisc replace nic1 "${tbf[@]}"
flowtable_ruleset | load_ruleset
mark_log
flow_open tcp tcp4
check "a shaper that is there: flows are in the NIC" wait_rules 2
check "a shaper that is there: the log says that hardware sends past it" said 'nic1: its qdisc tbf does more than to queue, and hardware sends past it.*bypass_qdisc=0'
flow_open second tcp4
check "a second flow is in the NIC" wait_rules 4
is "$(told 'its qdisc' | wc -l)" 1 "a shaper that is there: the log says so once"
flow_close second

# --- one that comes later

qdisc del nic1
qdisc replace nic0 fq_codel
mark_log
check "a flow in the NIC, and a shaper comes: the log says that hardware sends past it" eval \
	'qdisc replace nic1 handle 7: htb default 1 && sending $LIMIT said "nic1: its qdisc htb does more than to queue"'
check "a flow in the NIC, and a shaper comes: rules stay" rules_are 2 -ge
check "what only queues is not told of" fails said "nic0: its qdisc"

# --- of a device on top

on "$router" ip link add link nic1 name vlan10 type vlan id 10
on "$server" ip link add link wire1 name vlan10 type vlan id 10
on "$router" ip addr flush dev nic1 scope global
on "$server" ip addr flush dev wire1 scope global
_address "$router" vlan10 10.0.2.1/24 fd00:2::1/64
_address "$server" vlan10 10.0.2.2/24 fd00:2::2/64
way_back
qdisc del nic1
qdisc replace vlan10 netem delay 1us
mark_log
check "a flow by a VLAN device is in the NIC" sending $((3 * LIMIT)) rules_are 2
check "a shaper of a VLAN device: the log says that hardware sends past it" sending $LIMIT said "vlan10: its qdisc netem does more than to queue, and hardware sends past it"
on "$router" ip link del vlan10
on "$server" ip link del vlan10
_address "$router" nic1 10.0.2.1/24 fd00:2::1/64
_address "$server" wire1 10.0.2.2/24 fd00:2::2/64
way_back

# --- the parameter

flow_close tcp
on "$router" nft flush ruleset
on "$router" conntrack -F 2>/dev/null
check "bypass_qdisc=2 is out of range" fails eval 'unload_module nft_offload && insmod "$NFT_OFFLOAD_KO" bypass_qdisc=2'
load_module report_ms=0 bypass_qdisc=0
qdisc replace nic1 "${tbf[@]}"
flowtable_ruleset | load_ruleset
mark_log
flow_open tcp tcp4
stays() { told "stays in software: original direction: hardware would send past the qdisc of nic1" | grep .; }
check "bypass_qdisc=0: the log says why a flow stays in software" sending $LIMIT stays
check "bypass_qdisc=0: the log says of the device that its flows do" said "nic1: its qdisc tbf does more than to queue, so that flows by it stay in software"
check "bypass_qdisc=0: no rule is in the NIC" rules_are 0
qdisc del nic1
check "bypass_qdisc=0: without the shaper, flows get into the NIC" sending $((3 * LIMIT)) rules_are 2
qdisc replace nic1 "${tbf[@]}"
check "bypass_qdisc=0: a shaper comes back, and rules go" sending $LIMIT rules_are 0
check "bypass_qdisc=0: the connection goes on" flow_send tcp 5000
sent() { on "$router" tc -s qdisc show dev nic1 | sed -n 's/.*Sent [0-9]* bytes \([0-9]*\) pkt.*/\1/p'; }
before=$(sent)
flow_send tcp 5000
check "bypass_qdisc=0: its packets go by the shaper" [ "$(sent)" -gt "$before" ]

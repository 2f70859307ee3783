#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan stock
# timeout: 300
# in-tree: the program is built by this checkout
# tool: what it shows of the module
#
# What nft-offload shows of the module: flows in hardware, refused, switched off, without offload, left to the host; what
# it changes; who may ask. Without the module: tool_doctor.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tests/tool_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"

# has N FILTER…: so many flows are shown, as lines, as JSON and as JSON lines.
has() {
	local lines
	mapfile -t lines < <(tool flows "${@:2}")
	printf '%s\n' "${lines[@]}"
	[ ${#lines[@]} = $(($1 + 1)) ] && holds ".flows | length == $1" flows "${@:2}" &&
		[ "$(tool flows "${@:2}" --json-lines | jq -s length)" = "$1" ]
}

load_module report_ms=0
topology
check "no ruleset: status" holds '.total.flows == 0 and .tables == []' status
check "no ruleset: flows" has 0
check "no ruleset: no device" says "no device is in a flowtable" devices
on "$router" sysctl -qw net.netfilter.nf_conntrack_acct=1
flowtable_ruleset | load_ruleset
flow_open tcp tcp4 5001
flow_open udp udp6 5002
check "two flows are in the NIC" wait_rules 4

# --- in hardware

all_in_hardware() { holds '.total."in-hardware" == 2 and .total.flows == 2' status; }
check "status: both flows are in hardware" busywait $LIMIT all_in_hardware
check "status, as text" says "connections: 2 in flowtables, 2 (100.0%) in hardware in both directions" status
check "status ends with 0" ends 0 status
# A call may begin and end in the same tick of the clock.
time=0
[[ $(</sys/devices/system/clocksource/clocksource0/current_clocksource) == *jiffies ]] || time=1
check "devices: both are bound, each has two rules, and calls took some time" \
	holds '[.devices[] | select(."bind-type" == "flowtable" and .rules == 2 and ."add-latency".count >= 2 and ."add-latency".longest >= '$time') | .name] == ["nic0", "nic1"]' devices
check "devices, as text" says "nic1 flowtable " devices
check "tables: its name, flags, members and entries" \
	holds '.tables | length == 1 and (.[0] | .table == "fw" and .flowtable == "ft" and .offload and .counter and .entries == 2 and ([.port[].name] | sort) == ["nic0", "nic1"])' tables
check "tables, as text" says "inet fw ft priority 0 flags offload counter 2 entries nic" tables
check "flows: all" has 2
check "flows, as text: where and by what" says "udp [fd00:1::2]:" flows
check "flows: of a protocol" has 1 --protocol tcp
check "flows: of a device" has 2 --device nic0
check "flows: in a state" has 2 --state hardware
check "flows: in another state" has 0 --state stale
check "flows: of a prefix" has 1 --address 192.168.1.0/24
check "flows: of a port" has 1 --port 5002
check "flows: all conditions at once" has 0 --port 5002 --protocol tcp
check "flows: with a reason that none has" has 0 --reason no-room
check "flows: no more than" eval '[ "$(tool flows --limit 1 --json-lines | wc -l)" = 1 ]'
flow_send tcp 20000
larger_first() { holds '[.flows[].original.tuple.l4proto] == [6, 17]' flows --sort bytes; }
check "flows: the larger first" flow_send_until udp $((3 * LIMIT)) larger_first
check "flows: the smaller first" holds '[.flows[].original.tuple.l4proto] == [17, 6]' flows --sort bytes --reverse
check "flows: of a device that is not there ends with 6" ends 6 flows --device nic7
check "reasons: none" says "no connection has a reason" reasons

check "why: where the packets come and go" says "original: in hardware for" why 192.168.1.2 10.0.2.2:5001
check "why: by which devices" says "comes in by nic0, goes to 10.0.2.2 by nic1" why :5001
check "why: what was counted" says "conntrack has counted" why :5001
check "why: what hardware has forwarded" flow_send_until tcp $((3 * LIMIT)) says "hardware has forwarded" why :5001
check "why: a line of conntrack" eval 'says "udp [fd00:1::2]:" why "$(on "$router" conntrack -L -f ipv6 -p udp 2>/dev/null | grep -m 1 dport=5002)"'
check "why: the kernel's object, as JSON" holds '.flows[0].original.state == "hardware"' why :5001

check "metrics: how many are in hardware" eval 'tool metrics | grep -x "nft_offload_flows_in_hardware 2"'
check "metrics: their end is marked" eval '[ "$(tool metrics | tail -n 1)" = "# EOF" ]'
forwarded() { tool metrics | grep -E '^nft_offload_device_forwarded_bytes_total\{device="nic0"\} [0-9]{5,}$'; }
check "metrics: what rules have forwarded" flow_send_until tcp $((3 * LIMIT)) forwarded
check "metrics: a file is replaced" eval 'tool metrics -o /tmp/x.prom && grep -q "# EOF" /tmp/x.prom && [ "$(echo /tmp/x.prom*)" = /tmp/x.prom ]'
check "report has them" says '"l4proto":6' report
check "doctor: the module is there, its devices take rules" \
	holds '[.findings[] | select(.check == "bound" or .check == "module") | .level] == ["ok", "ok", "ok"]' doctor

# --- who may ask, and where

check "another namespace has nothing" eval '[ "$(on "$client" $TOOL flows --json-lines | wc -l)" = 0 ]'
unprivileged() {
	local status=0
	on "$router" setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set -all --inh-caps -all $TOOL status || status=$?
	[ $status = 5 ]
}
check "without CAP_NET_ADMIN it ends with 5" unprivileged

# --- changes

check "evict: one is meant by this" says "1 connection evicted" evict :5001
both_are_in() { flow_send udp 100 && rules_are 4; }
check "evict: the connection goes on, and comes back" flow_send_until tcp 30000 both_are_in
check "evict: of several, none without --all" eval 'flow_open tcp2 tcp4 5003; flow_send udp 100; wait_rules 6; ends 2 evict 192.168.1.2'
check "evict: all of these" says "2 connections evicted" evict 192.168.1.2 --all
flow_close tcp2
check "flush: the udp flow is still in the NIC" flow_send_until udp 30000 rules_are 2 -ge
check "flush: the rules of a device are gone" says " taken out; what goes on sending comes back" flush nic0
both_come_back() { flow_send udp 100 && all_in_hardware; }
check "flush: the connections come back" flow_send_until tcp 30000 both_come_back
check "evict: of what is not there ends with 6" ends 6 evict 203.0.113.7
check "flush: of a device that is not there ends with 6" ends 6 flush nic7
flow_close udp
flow_close tcp
on "$router" conntrack -F 2>/dev/null
check "no rule is left" wait_rules 0

# --- reasons

# turn [ARGUMENT…]: a ruleset, and no connection from before.
turn() {
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
	flowtable_ruleset "$@" | load_ruleset
}
# told REASON WORDS REMEDY NAME: of a flow.
told_why() {
	# shellcheck disable=SC2317
	is_told() { says "- $1, by $2" why "$3"; }
	check "$1: why has it" flow_send_until "$4" $((3 * LIMIT)) is_told "$1" "$2" ":$3"
	check "$1: why says what to change" says "$5" why ":$3"
	check "$1: reasons has it" holds "[.reasons[].reason] | index(\"$1\") != null" reasons
	check "$1: flows has it" holds '.flows | length == 1' flows --reason "$1"
}

nic faults "replace -28 100 nic1"
flow_open refused tcp4 5101
told_why refused 'the driver: the driver refused the rule (nic1, -ENOSPC, "emunic: injected failure")' 5101 refused "=> Connections that go on sending get the places"
check "refused: the other direction says so" says "- other-direction, by the module" why :5101
check "refused: devices counts them by errno" says "refused -ENOSPC: " devices
nic faults none
flow_close refused

turn flags=
flow_open plain udp4 5102
told_why no-flag "the ruleset: the flowtable is for software only" 5102 plain "Add 'flags offload;' to the flowtable"
check "no-flag: the table says so" says "no flags offload: software only" tables
flow_close plain

turn
on "$router" ethtool -K nic0 hw-tc-offload off
flow_open off tcp4 5103
told_why switched-off "the host: hw-tc-offload is off" 5103 off "ethtool -K nic0 hw-tc-offload on"
on "$router" ethtool -K nic0 hw-tc-offload on
flow_close off

turn
flow_open blocked udp4 5104
check "a flow is in the NIC" wait_rules 2
on "$router" ip xfrm policy add src 192.168.1.2 dst 10.0.2.2 dir fwd action block
is_left() { says "left to the host" why :5104 && holds '.total.left == 1' status && has 1 --state left; }
check "a connection that is left to the host" busywait $LIMIT is_left
on "$router" ip xfrm policy flush
flow_close blocked

turn
nic capacity 2
flow_open first udp4 5105
check "a flow has all places of the NIC" wait_rules 2
flow_open full udp6 5106
is_full() { says "- refused, by the driver: the driver refused the rule (nic" why :5106 || says "- no-room, by the driver: the device has no room" why :5106; }
check "a full NIC: why says so" flow_send_until full $((3 * LIMIT)) is_full
check "a full NIC: why says what to change" says "Connections that go on sending get the places" why :5106
check "a full NIC: devices say so" flow_send_until full $((3 * LIMIT)) says "full for" devices
nic capacity 0
flow_close full
flow_close first

turn
flow_open stale udp4 5107
check "a flow is in the NIC" wait_rules 2
nic faults "destroy -5 100"
on "$router" conntrack -D -p udp >/dev/null 2>&1
stale() { ends 1 status && says "that the driver has failed to remove go on forwarding" status; }
check "status: rules that the driver does not remove should not be there" busywait $LIMIT stale
check "doctor says so too" holds '[.findings[] | select(.check == "driver")] | length > 0' doctor
nic faults none
check "no rule is left in the end" busywait $((6 * LIMIT)) rules_are 0

# --- many

if has_time; then
	on "$router" nft flush ruleset
	flowtable_ruleset | sed 's/ct state established meta/meta/' | load_ruleset
	# send_many FIRST: by these ports.
	send_many() {
		on "$client" python3 -c '
import socket, sys
for port in range(int(sys.argv[1]), 13000):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("", port))
        for _ in range(2):
            sender.sendto(b"x", ("10.0.2.2", 5202))' "$1"
	}
	# within_memory ARGUMENT…: with no more than 2 MB of it. (1: flows come and go meanwhile.)
	within_memory() {
		local status=0
		on "$router" prlimit --data=2000000 $TOOL "$@" >"$_output.many" || status=$?
		[ $status -le 1 ]
	}
	# The host drops what comes faster than it forwards (net.core.netdev_max_backlog): the first ones get through.
	many=0
	thousands() {
		send_many $((10000 + many))
		within_memory flows --json-lines || return 1
		many=$(wc -l <"$_output.many")
		echo "$many flows"
		[ "$many" -gt 2000 ]
	}
	check "flows --json-lines: thousands in little memory" busywait $LIMIT thousands
	check "flows, as text: thousands in little memory" within_memory flows
	check "flows --sort: that takes more" fails within_memory flows --sort idle --json-lines
fi

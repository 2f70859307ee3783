#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 300
#
# The emulated NIC: commands that fail, take their time, or come one after the other.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

hosts

nic counters 0
nic faults "replace 28 100 nic1"
check "a fault of nic1 does not concern nic0" rule nic0 nic1 4000
check "a fault of nic1 makes REPLACE fail there" refused "injected failure" rule nic1 nic0 4000
is "$(cat $NIC/faults)" "replace -28 100% nic1" "a fault can be read"
nic faults none
is "$(cat $NIC/faults)" "" "without faults none can be read"
check "without faults REPLACE works" rule nic1 nic0 4000
check "a fault is counted" counters_are replace_failed 1 faults 1

flush nic0 nic1
rule nic0 nic1 4000
nic faults "destroy -5 100%"
flush
check "a fault of DESTROY leaves the rule" counters_are rules 1
check "a fault of DESTROY is counted" counter_reaches destroy_failed 1
nic counters 0
PREF=2 check "a rule that DESTROY has left refuses another one with its match" refused "match already" rule nic0 nic1 4000
check "a rule that meets one that DESTROY has left is counted apart" counters_are replace_dup_kept 1 replace_dup_match 0
nic faults none
nic evict all

flush
nic counters 0
nic faults "replace 12 50%"
for ((port = 1; port <= 100; port++)); do
	echo "filter add dev nic0 ingress protocol ip pref 1 flower skip_sw $(udp $port) $(to nic1)"
done >"$_output.batch"
tc -force -batch "$_output.batch" 2>/dev/null || true
nic faults none
good=$(nic_counter rules)
about_half() { [ "$good" -gt 20 ] && [ "$good" -lt 80 ]; }
check "with a fault of 50%, about half of 100 rules are taken: $good" about_half
check "a fault of 50% is counted each time" counters_are faults $((100 - good))

flush
choose_latency
nic latency_us "$latency"
took rule nic0 nic1 4000
nic latency_us 0
check "a rule takes as long as the latency" [ "$took" -ge "$latency" ]

# tc takes RTNL for neither, as the blocks were bound without a profile.
two_at_once() {
	local other
	flush nic0 nic1
	nic counters 0
	nic latency_us "$latency"
	rule nic0 nic1 4000 &
	other=$!
	rule nic1 nic0 4000
	wait $other
	nic latency_us 0
}
two_at_once
check "two commands are under way at the same time" counters_are rules 2 most_at_once 2
nic serial 1
two_at_once
check "with the knob serial, commands come one after the other" counters_are rules 2 most_at_once 1
nic serial 0
flush nic0 nic1

tc qdisc del dev nic0 clsact
check "without clsact the block is not bound" counters_are nic0.bound_block 0
nic counters 0
nic faults "bind 95 100 nic0"
tc qdisc add dev nic0 clsact 2>/dev/null || true
check "a fault of BIND leaves the block unbound" counters_are nic0.bound_block 0
check "a fault of BIND is counted" counter_reaches bind_failed 1
nic faults none
tc qdisc del dev nic0 clsact 2>/dev/null || true
nic accept -block
tc qdisc add dev nic0 clsact 2>/dev/null || true
check "with -block no block is bound" counters_are nic0.bound_block 0
nic accept default
tc qdisc del dev nic0 clsact 2>/dev/null || true
check "clsact works again" tc qdisc add dev nic0 clsact
check "clsact binds a block again, which is none of a flowtable" counters_are nic0.bound_block 1 nic0.bound_ft 0

# tc withdraws its rules when it unbinds; those for which DESTROY fails stay.
rule nic0 nic1 4000
nic faults "destroy 5 100"
tc qdisc del dev nic0 clsact
nic faults none
check "UNBIND flushes nothing" counters_are rules 1 nic0.bound_block 0
nic evict all

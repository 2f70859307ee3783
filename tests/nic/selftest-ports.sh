#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 300
#
# The emulated NIC: its ports as network devices, and how they come, go, move and belong together.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

for ports in 1 65; do
	check "ports=$ports is refused" fails insmod "$NIC_KO" ports=$ports
done
check "loads with 4 ports" hosts
check "the seed is printed" grep . <(kernel_log "emunic: 4 ports, seed=[0-9]")
check "ethtool knows the driver" grep "^driver: emunic" <(ethtool -i nic0)
check "hw-tc-offload is on" grep "^hw-tc-offload: on" <(ethtool -k nic0)
check "there is no segmentation and no checksum offload" \
	fails grep -E "^(tcp-seg.*|tx-checksumming|rx-checksumming): on" <(ethtool -k nic0)
check "a MTU of 9000 is taken" ip link set nic3 mtu 9000
check "a MTU of 9001 is refused" fails ip link set nic3 mtu 9001

carrier_is() { [ "$(cat /sys/class/net/nic0/carrier)" = "$1" ]; }
check "a port has a carrier while the other end is up" carrier_is 1
on "$client" ip link set wire0 down
check "a port has no carrier while the other end is down" carrier_is 0
on "$client" ip link set wire0 up
on "$client" ip route replace default via 10.0.0.1
check "a port whose other end is up again carries packets" busywait 2000 on "$client" ping -qc1 -W1 10.0.0.1
check "clsact binds the block" counters_are nic0.bound_block 1

ethtool -K nic0 hw-tc-offload off
check "with hw-tc-offload off, a rule is refused" fails rule nic0 nic1 4000
ethtool -K nic0 hw-tc-offload on

nic apart nic2
nic apart nic3
is "$(cat $NIC/apart)" $'nic2\nnic3' "nic2 and nic3 are of another NIC"
for dev in nic2 nic3; do tc qdisc add dev $dev clsact; done
check "no rule leads to a port of another NIC" refused "not a port of this NIC" rule nic0 nic2 4000
check "no rule leads from a port of another NIC" refused "not a port of this NIC" rule nic2 nic0 4000
check "a rule within the other NIC is taken" rule nic2 nic3 4000
flush nic2
choose_latency
nic latency_us "$latency"
nic faults "replace 28 100"
took rule nic2 nic3 4000
well=$took
check "a fault does not concern the other NIC" has_rule in=nic2
took check "a fault concerns this NIC" refused "injected failure" rule nic0 nic1 4000
nic faults none
nic latency_us 0
check "a latency does not concern the other NIC: $((well / 1000)) ms there, $((took / 1000)) ms here" \
	[ $((took - well)) -ge $((latency / 2)) ]
flush nic2
nic apart none
is "$(cat $NIC/apart)" "" "all ports are of one NIC again"
check "a rule leads from one port of the one NIC to each other" rule nic2 nic0 4000
flush nic2
for dev in nic2 nic3; do tc qdisc del dev $dev clsact; done

flush nic0 nic1
nic counters 0
rule nic0 nic1 4000
rule nic1 nic0 4000
rule nic0 nic2 4001
check "a port that will vanish: there are three rules before" counters_are rules 3
nic vanish nic1
# tc withdrew the rule of nic1's own block when it was unbound.
check "a port that has vanished takes its rules with it" counters_are rules 1 destroy_ok 1 vanished 1 nic1.present 0
check "a port that has vanished is no device" fails ip link show nic1
check "a port that has vanished takes the other end with it" fails on "$server" ip link show wire1
check "a port vanishes only once" fails nic vanish nic1
send 4000 1
check "no rule forwards to a port that has vanished" counters_are nic_packets 0

check "a port comes back" nic appear nic1
check "a port that has come back is present" counters_are nic1.present 1
ip link set wire1 netns "$server"
_host "$server" wire1 10.0.1.2
_host "" nic1 10.0.1.1
tc qdisc add dev nic1 clsact
rule nic0 nic1 4005
nic counters 0
send 4005 2
check "a rule forwards to a port that has come back" busywait 2000 counter_reaches nic0.nic_packets 2

other=''
add_ns other
ip link set nic2 name lan2
ip link set lan2 netns "$other"
on "$other" ip link set lan2 up
ip link set wire2 up
is "$(ip netns exec "$other" cat /sys/class/net/lan2/carrier)" 1 "a port that was renamed has a carrier in another namespace"
on "$other" tc qdisc add dev lan2 clsact
check "a port in another namespace is bound there" counters_are nic2.bound_block 1
ip netns del "$other"
check "a port comes back from a namespace that is gone" busywait 5000 ip link show lan2
check "a port from a namespace that is gone is not bound" busywait 5000 counters_are nic2.bound_block 0
nic vanish nic2
nic appear nic2
check "a port that was renamed comes back with its first name" ip link show nic2

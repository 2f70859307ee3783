#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 300
#
# The emulated NIC: what it makes of packets, frame by frame, and how it counts them.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

hosts

# What reaches the CPU must not come back out.
sysctl -qw net.ipv4.ip_forward=0
relay "frame by frame" "$_here/nic/frames.py" "$client" "$server"
sysctl -qw net.ipv4.ip_forward=1

# A TCP transfer that the host routes, and that the NIC is asked to take over.
# tcp_rule IN SRC SPORT DST DPORT OUT SMAC DMAC
tcp_rule() {
	# shellcheck disable=SC2046
	tc filter add dev "$1" ingress protocol ip flower skip_sw ip_proto tcp src_ip "$2" src_port "$3" \
		dst_ip "$4" dst_port "$5" tcp_flags 0/5 \
		action pedit ex munge eth src set "$7" munge eth dst set "$8" pipe $(to "$6")
}
bytes=2000000
listens() { on "$server" ss -Hltn 'sport = 5000' | grep -q 5000; }
transfer() {
	head -c $bytes /dev/urandom >"$_output.sent"
	on "$server" socat -u TCP-LISTEN:5000,reuseaddr "CREATE:$_output.got" &
	busywait 5000 listens &&
		timeout 120 ip netns exec "$client" socat -u "FILE:$_output.sent" TCP:10.0.1.2:5000,bind=:4000 &&
		wait %% && cmp "$_output.sent" "$_output.got"
}
tcp_rule nic0 10.0.0.2 4000 10.0.1.2 5000 nic1 "$(mac_of "" nic1)" "$(mac_of "$server" wire1)"
tcp_rule nic1 10.0.1.2 5000 10.0.0.2 4000 nic0 "$(mac_of "" nic0)" "$(mac_of "$client" wire0)"
nic counters 0
check "a TCP transfer is whole" transfer
check "a TCP transfer passes in the NIC: $(nic_counter nic_packets) packets, $(nic_counter nic_bytes) bytes" \
	[ "$(nic_counter nic_bytes)" -gt $bytes ]
check "next to nothing of a TCP transfer gets to the CPU: $(nic_counter cpu_packets) packets" \
	[ "$(nic_counter cpu_packets)" -lt 20 ]
check "SYN and FIN of a TCP transfer are exceptions" counter_reaches exception_tcp_flags 3

flush nic0 nic1
tc_counts() { tc -s -j filter show dev nic0 ingress | grep "\"packets\":$1[,}]"; }
rule nic0 nic1 4000
send 4000 3
check "tc counts the packets of a rule" busywait 2000 tc_counts 3
check "tc counts no packet twice" tc_counts 3
send 4000 2
check "tc adds what comes later" busywait 2000 tc_counts 5
check "tc adds nothing twice" tc_counts 5
check "a rule shows its packets and bytes" has_rule " packets=5 bytes=710 "
nic reset 2
check "counters of rules start anew" fails has_rule "packets=[1-9]"

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 600
#
# The emulated NIC: which rules it takes, how it loses them, and what its knobs take.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

many=${RULES:-1000}
hosts

rule nic0 nic1 4000
nic counters 0
PREF=2 check "the same match twice is refused" refused "match already" rule nic0 nic1 4000
check "the same match twice is counted" counters_are replace_dup_match 1

flush
nic counters 0
for port in 4001 4002 4003 4004; do rule nic0 nic1 $port; done
check "four rules are there" counters_are rules 4
nic evict 1
check "one rule is evicted" counters_are rules 3
check "it is the oldest rule that is evicted" fails has_rule sport=4001
cookie=$(sed -n 's/^cookie=\(0x[0-9a-f]*\) .*sport=4003 .*/\1/p' "$NIC/rules")
nic evict "$cookie"
check "a rule is evicted by its cookie" counters_are rules 2
check "the rule of that cookie is the one that is gone" fails has_rule sport=4003
check "a cookie is evicted only once" fails nic evict "$cookie"
nic evict all
check "all rules are evicted" counters_are rules 0 evicted 4
check "no evicted rule is shown" rules_are 0
tc -s filter show dev nic0 ingress >/dev/null
check "STATS of evicted rules is answered with ENOENT" counter_reaches stats_enoent 4
flush
check "DESTROY of evicted rules is answered with ENOENT" counters_are destroy_enoent 4 destroy_ok 0

rule nic0 nic1 4000
nic accept +silent_zero
nic counters 0
nic reset 1
flush
nic accept -silent_zero
check "with +silent_zero, DESTROY of a lost rule is answered with success" counters_are destroy_enoent 1 evicted 1 rules 0

nic counters 0
nic capacity 2
rule nic0 nic1 4001
rule nic0 nic1 4002
check "a rule beyond the capacity is refused" refused "table full" rule nic0 nic1 4003
nic capacity 0
check "without a capacity the same rule is taken" rule nic0 nic1 4003
check "a rule beyond the capacity is counted" counters_are rules 3 replace_enospc 1

flush
nic accept +overcommit
nic capacity 2
nic counters 0
for port in 4001 4002 4003; do rule nic0 nic1 $port; done
check "with +overcommit, a rule beyond the capacity is taken" counters_are rules 3
is "$(grep -c ' waiting$' "$NIC/rules")" 1 "with +overcommit, a rule beyond the capacity waits"
send 4003 1
check "a packet of a rule that waits gets to the CPU" busywait 2000 counter_reaches nic0.cpu_packets 1
check "no rule that waits forwards" counters_are nic_packets 0
nic evict 1
check "a rule that waits gets the place of one that is gone" fails has_rule waiting
send 4003 1
check "a rule that has waited forwards" busywait 2000 counter_reaches nic_packets 1
flush
check "with +overcommit, ENOSPC is never said" counters_are replace_enospc 0
nic profile none

check "a redirect to another device is refused" refused "not a port of this NIC" rule nic0 lo 4000

ip link add other0 type veth peer name other1
for dev in other0 other1; do ip link set $dev addrgenmode none up; done
nic accept +wed
nic counters 0
check "with +wed, a redirect to another device is taken" rule nic0 other0 4000
check "with +wed, a rule shows the other device" has_rule " out=dev$(cat /sys/class/net/other0/ifindex) "
send 4000 3
check "with +wed, the NIC forwards to another device" busywait 2000 counters_are nic_packets 3
is "$(cat /sys/class/net/other1/statistics/rx_packets)" 3 "with +wed, the packets come out of the other device"
ip link set other0 down
send 4000 1
check "a packet for another device that is down is an exception" busywait 2000 counters_are nic0.exception_egress 1
check "no packet is forwarded to another device that is down" counters_are nic_packets 3
flush
ip link delete other0
nic accept default

# flower [PREFIX]MATCH ACTION…: a rule for UDP from the client to the server.
flower() {
	# shellcheck disable=SC2046,SC2086
	tc filter add dev nic0 ingress protocol ip flower skip_sw ip_proto udp dst_ip 10.0.1.2 $1 ${2:-} $(to nic1)
}
host="src_ip 10.0.0.2" ports="src_port 1 dst_port 2"
check "an unknown key is refused" refused "not supported" flower "$host $ports ip_tos 4"
check "a wide match is refused" refused "mask not exact" flower "src_ip 10.0.0.0/24 $ports"
check "a drop is refused" refused "redirect must be" tc filter add dev nic0 ingress protocol ip \
	flower skip_sw ip_proto udp src_ip 10.0.0.2 dst_ip 10.0.1.2 src_port 1 dst_port 2 action drop
check "a push of an 802.1ad tag is refused" refused "vlan push" \
	flower "$host $ports" "action vlan push id 5 protocol 802.1ad pipe"
check "a TTL action is refused" refused "add of header" \
	flower "$host $ports" "action pedit ex munge ip ttl add 255 pipe"

for bad in "accept +nonsense" "accept ft" "faults replace 28" "faults replace 28 101" \
	"faults forget 28 10" "faults replace 28 10 nic9" "evict some" "counters 1" "reset 0" \
	"vanish eth0" "appear nic0" "profile mlx4" "indirect 2" "wifi eth0"; do
	check "bad write: $bad" fails nic "${bad%% *}" "${bad#* }"
done

flush
nic evict all
for ((i = 1; i <= many; i++)); do
	echo "filter add dev nic0 ingress protocol ip pref 1 flower skip_sw ip_proto udp" \
		"src_ip 10.0.0.2 dst_ip 10.1.$((i / 250)).$((i % 250)) src_port 1 dst_port 1 $(to nic1)"
done >"$_output.batch"
check "tc adds $many rules" tc -batch "$_output.batch"
check "$many rules are counted" counters_are rules "$many"
is "$(sort -u "$NIC/rules" | grep -c dst=10.1)" "$many" "$many rules are shown"
check "rules were taken before counters start from zero" counter_reaches replace_ok 1
nic counters 0
check "counters start from zero, but for those of rules" \
	counters_are replace_ok 0 nic_packets 0 rules "$many" rules_max "$many"

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan stock
# in-tree: it needs the kernel's source, and the specification
# timeout: 600
#
# The generic netlink family, as the kernel's own tools see it: what is told of flows that are in hardware,
# refused, left to the host and in a flowtable without offload; who may ask; what is refused.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ -n "${KSRC:-}" ] || skip "the kernel's source is not there (KSRC=DIR names it)"
python3 -c 'import yaml, jsonschema' 2>/dev/null || skip "python3-yaml or python3-jsonschema is not there"

load_module
topology
ask() { on "$router" python3 "$_here/netlink/check.py" "$@"; }
# told_of TEXT WHAT [ARGUMENT…]: what check.py finds.
told_of() { relay "$1" on "$router" python3 "$_here/netlink/check.py" "${@:2}"; }

told_of "the specification" schema
told_of "the specification and the kernel" policies
told_of "malformed requests" malformed
told_of "many requests at once" busy

on "$router" sysctl -qw net.netfilter.nf_conntrack_acct=1
flowtable_ruleset | load_ruleset
flow_open tcp tcp4
flow_open udp udp6
check "two flows are in the NIC" wait_rules 4
check "what the NIC has forwarded is told" flow_send_until tcp 30000 ask is_counted
told_of "flows in hardware" hardware
relay "another namespace" on "$client" python3 "$_here/netlink/check.py" nothing
relay "without CAP_NET_ADMIN" on "$router" setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set -all \
	--inh-caps -all python3 "$_here/netlink/check.py" forbidden
if unshare -Urn true 2>/dev/null; then
	relay "a namespace of one's own" unshare -Urn python3 "$_here/netlink/check.py" nothing
fi

told_of "evict" evict "$((5000 + _flow[tcp]))"
check "evict: the rules of a flow are gone, the connection goes on" eval 'flow_send tcp 1000'
both_send() { flow_send udp 100 && rules_are 4; }
check "evict: it gets into the NIC again" flow_send_until tcp 30000 both_send
told_of "flush-device" flush nic0
check "flush-device: the connections go on" eval 'flow_send tcp 1000 && flow_send udp 1000'
check "flush-device: they get into the NIC again" flow_send_until tcp 30000 both_send
flow_close tcp
flow_close udp
on "$router" conntrack -F 2>/dev/null
check "no rule is left" wait_rules 0
check "no flow is left" busywait $LIMIT ask no_flow

nic faults "replace -28 100 nic1"
flow_open refused tcp4
refused() { [ "$(nic_counter replace_failed)" -ge 1 ]; }
check "the NIC refuses the reply direction" busywait $LIMIT refused
check "the other direction is taken back" busywait $LIMIT rules_are 0
told_of "a refused flow" refused 28 "injected failure"
nic faults none
flow_close refused
on "$router" nft flush ruleset
on "$router" conntrack -F 2>/dev/null

flowtable_ruleset flags= | load_ruleset
flow_open plain udp4
told_of "a flowtable without offload" plain
flow_close plain
on "$router" nft flush ruleset
on "$router" conntrack -F 2>/dev/null

flowtable_ruleset | load_ruleset
flow_open blocked udp4
check "a flow is in the NIC" wait_rules 2
on "$router" ip xfrm policy add src 192.168.1.2 dst 10.0.2.2 dir fwd action block
check "a policy comes: the flow is out of the NIC" wait_rules 0
check "its connection is left to the host" busywait $LIMIT ask is_left
told_of "a connection that is left to the host" left
on "$router" ip xfrm policy flush
flow_close blocked
on "$router" nft flush ruleset
on "$router" conntrack -F 2>/dev/null

flowtable_ruleset | load_ruleset
for ((i = 0; i < 20; i++)); do flow_open "many$i" udp4; done
check "20 flows are in the NIC" wait_rules 40
mkfifo "$_output.go"
on "$router" python3 "$_here/netlink/check.py" grow 60 <"$_output.go" >"$_output.grow" 2>&1 &
exec {go}>"$_output.go"
check "flows are being dumped" busywait $LIMIT grep -q "under way" "$_output.grow"
for ((i = 20; i < 60; i++)); do flow_open "many$i" udp4; done
check "60 flows are in the NIC" wait_rules 120
echo >&"$go"
check "the dump ends" wait $!
relay "a flowtable that grows" cat "$_output.grow"
told_of "dumps that take long" slow 60
check "no rule is left after them" wait_rules 0

unload_module nft_offload
load_module incapable=1
devices=()
for ((i = 0; i < 150; i++)); do devices+=("manydevices$i"); done
on "$router" ip -batch - < <(printf 'link add %s type dummy\n' "${devices[@]}")
on "$router" nft -f - <<-END
	table inet fw {
		flowtable ft {
			hook ingress priority filter
			devices = { $(IFS=, && echo "${devices[*]}") }
			flags offload
		}
	}
END
told_of "a flowtable with many devices" many 150
on "$router" nft flush ruleset
on "$router" ip -batch - < <(printf 'link del %s\n' "${devices[@]}")

unload_module nft_offload
load_module partial=1
nic faults "replace -28 100"
flowtable_ruleset | load_ruleset
flow_open both tcp4
check "partial=1: each direction has the refusal of its own" flow_send_until both 30000 ask each_is_refused
nic faults none
flow_close both
on "$router" nft flush ruleset

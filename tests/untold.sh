#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
# timeout: 120
#
# A setting that nothing tells of, and that is compared once a second, is another one for a moment only: a flow that
# got its rules in that moment does not keep them. (Of those of IPv4, the generation of routes tells the core.)
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

modprobe xfrm_user
load_module report_ms=0
topology
policies_apply() { on "$router" sysctl -qw net.ipv6.conf.nic0.disable_policy=$((! $1)); }
on "$router" ip xfrm policy add src fd00:1::/64 dst fd00:2::/64 dir fwd action block

policies_apply 0
load_ruleset <<<"table inet plain { chain forward { type filter hook forward priority 0; ct state new; }; }"
flow_open tcp tcp6
is_established() { flow_send tcp 100 && on "$router" conntrack -L 2>/dev/null | grep -q ASSURED; }
check "a connection is established" busywait $LIMIT is_established
# With the first flowtable, settings are compared from then on; it goes, and they are for a while.
for round in "the first flowtable" "the next one" "the third one"; do
	policies_apply 0
	flowtable_ruleset | load_ruleset
	check "$round: no policy applies: the flow is in the NIC" flow_send_until tcp $LIMIT rules_are 2
	policies_apply 1
	check "$round: policies apply: no rule is left" wait_rules 0
	on "$router" nft delete table inet fw
done

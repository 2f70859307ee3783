#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan stock
# timeout: 200
# in-tree: the program is built by this checkout
# tool: what it finds
#
# nft-offload audit: nothing where all is well, and each lie of the NIC, whose table it reads as that of mtk_eth_soc and
# airoha.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tests/tool_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"

well() { ends 0 audit; }
# finds LEVEL ABOUT WORDS: audit ends with 1 and has one such finding, and no other. (In the pattern ABOUT, * is anything.)
finds() {
	local json status=0 level about what more
	json=$(tool audit --json) || status=$?
	echo "status $status: $json"
	[ $status = 1 ] || return 1
	IFS=$'\t' read -r level about what more < <(jq -r '[.findings[] | .level, .about, .what] | @tsv' <<<"$json")
	# shellcheck disable=SC2053
	[ "$level" = "$1" ] && [[ $about == $2 && $what == $3 ]] && [ -z "$more" ]
}
# cookie_of WORDS: of the rule whose line has them.
cookie_of() {
	local cookie
	read -r cookie _ < <(grep -- "$1" $NIC/rules)
	echo "${cookie#cookie=}"
}
# anew: the flow's rules are made anew.
anew() {
	tool evict :5001 >/dev/null
	flow_send_until nat $LIMIT rules_are 6
}

load_module report_ms=0
topology
check "no flowtable: nothing is wrong" well
flowtable_ruleset masquerade=1 | load_ruleset
flow_open nat tcp4 5001
flow_open udp udp4 5002
flow_open six udp6 5003
check "three flows are in the NIC" wait_rules 6
check "all is well" busywait $LIMIT well
check "all is well, as text" says "table as it should be: 6 rules in 1 table" audit
check "how much was looked at" holds '.flows == 3 and ."directions-in-hardware" == 6 and ."hardware-tables" == 1 and ."rules-in-tables" == 6' audit

nic lie "mac $(cookie_of "in=nic0.*dport=5001 ")"
check "a wrong MAC is found" finds table "tcp 192.168.1.2:* -> 10.0.2.2:5001" "goes to *, not to *"
anew
check "all is well again" busywait $LIMIT well

nic lie "nat $(cookie_of "in=nic0.*dport=5001 ")"
check "a wrong translation is found" finds table "tcp 192.168.1.2:* -> 10.0.2.2:5001" "is translated to *, not to 10.0.2.1:*"
anew

cookie=$(cookie_of "in=nic1.*sport=5003 ")
nic lie "extra $cookie"
check "a rule that nobody asked for is found" finds table "udp [[]fd00:2::2]:* -> [[]fd00:2::1]:*" "is in the table, and no flowtable has it there"
check "and is told of" says "no flowtable has it there" audit
nic evict "0x$(printf %x $((~cookie)))"
check "when it is gone, all is well" busywait $LIMIT well

# Statistics would tell the module, which makes the rule anew.
nic faults "stats -5 100"
nic evict "$(cookie_of "in=nic0.*dport=5002 ")"
check "a lost rule is found" finds table "udp 192.168.1.2:* -> 10.0.2.2:5002" "*is not in the table"
nic faults none
check "the module makes it anew with the next packet" flow_send_until udp $LIMIT rules_are 6
check "all is well then" busywait $LIMIT well

nic faults "destroy -5 100"
on "$router" conntrack -D -p udp --dport 5002 >/dev/null 2>&1
check "rules that the driver does not remove are found" busywait $LIMIT \
	holds '[.findings[] | select(.level == "driver")] | length > 0' audit
nic faults none
flow_close udp
check "all is well when it has removed them" busywait $((6 * LIMIT)) well

# The table is one for all namespaces.
on "$router" nft flush ruleset
check "other namespaces' rules are no finding: none" on "$client" $TOOL audit
flowtable_ruleset masquerade=1 | load_ruleset
flow_send_until nat $LIMIT rules_are 2
check "other namespaces' rules are no finding" on "$client" $TOOL audit

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# in-tree: the table is that of the documentation
# timeout: 900
#
# Why drivers that take rules for tc only are not bound unless they set unlocked_driver_cb: what the
# real parsers of two that do not (stmmac_tc.c, bnxt_tc.c) would make of the rules of plain connections,
# as a table. It must be the one in Documentation/drivers.md; what the run made of it is left in
# /share/lax.md, and `make drivers-table` puts that where it belongs.
#
# shellcheck source=tests/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

NIC=/sys/kernel/debug/ppe_judge
here=$(dirname "${BASH_SOURCE[0]}")
judge=$MODULES/drivers/ppe_judge.ko
table=$_output.table # which goes at the end

# ruleset NAT
ruleset() {
	flowtable_ruleset ${1:+masquerade=1} | load_ruleset
	[ "$1" != snat+dnat ] || nft -f - <<-END
		table inet nat {
			chain prerouting {
				type nat hook prerouting priority -100
				meta nfproto ipv4 meta l4proto { tcp, udp } iifname nic0 th dport 5900 dnat to 10.0.2.2:7000
			}
		}
	END
}

says() { last_told "stays in software" | grep 'original direction: the driver refused the rule'; }
decided() { grep -q ^nic0 $NIC/rules || says; }
# names COMMA-SEPARATED: as a cell of the table
names() { sed 's/,$//; s/,/, /g; s/^$/none/' <<<"$1"; }

# row PROTOCOL KIND [NAT [PORT LISTEN-ADDRESS LISTEN-PORT]]: what becomes of the original direction.
row() {
	local proto=$1 kind=$2 nat=${3:-} flow l4 no_keys no_actions told
	l4=${proto%?}
	flow="${l4^^}, IPv${proto: -1}${kind:+, to a VLAN}${nat:+, $nat}"
	mark_log
	ruleset "$nat"
	flow_open "$flow" "$proto" "${@:4}"
	check "$soc: $flow: the driver takes the rule or refuses it" flow_send_until "$flow" $LIMIT decided
	if IFS='|' read -r _ _ no_keys _ no_actions < <(grep ^nic0 $NIC/rules); then
		told=$(sed -n 's/^nic0: //p' $NIC/entries | sed 's/=[^ ,]*//g')
		echo "| $soc | $flow | $(names "$no_keys") | $(names "$no_actions") | $told |"
	else
		echo "| $soc | $flow | $(says | sed -E 's/.*(refused) the rule: [^ ]* "ppe_judge: ([^"]*)".*/\1: \2/') | | |"
	fi >>"$table"
	nft flush ruleset
	is "$(<$NIC/rules)" "" "$soc: $flow: nothing is left in the driver"
	flow_close "$flow"
	conntrack -F 2>/dev/null
}

echo "| driver | flow | keys that it does not look at | actions that it does not do | what the hardware is told |" >"$table"
echo "|---|---|---|---|---|" >>"$table"
for soc in stmmac bnxt; do
	load_module report_ms=0
	_insmod "$judge" soc=$soc
	topology --init
	flowtable_ruleset | load_ruleset
	not_taken() { grep "flows stay in software: its driver takes rules for tc only" <(told); }
	check "$soc is not bound, and the log says why" busywait $LIMIT not_taken
	start_over

	# As if it could be bound.
	load_module report_ms=0
	_insmod "$judge" soc=$soc unlocked=1
	topology --init
	# shellcheck source=tests/sides.sh
	source "$here/../sides.sh"
	row tcp4 ""
	row udp4 ""
	row tcp6 ""
	row tcp4 "" masquerade
	row udp4 "" snat+dnat 5900 10.0.2.2 7000
	side 1 vlan
	row tcp4 vlan
	start_over
done

cat "$table"
[ ! -d /share ] || cp "$table" /share/lax.md
check "the table is that of Documentation/drivers.md" \
	diff <(sed -n '/^<!-- lax/,/^<!-- end/p' "$here/../../Documentation/drivers.md" | sed '1d;$d') "$table"

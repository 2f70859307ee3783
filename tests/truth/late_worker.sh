#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
# timeout: 240
# exclusive: many flows are offered at once
#
# So many flows are offered at once that the core's worker comes to a new entry 100 ms late and more. If its
# way changes meanwhile, packets go the old way as with the C module, but no longer than until the module
# has seen the entry. How many have is counted, beside the C module. If it is the ruleset that changes, the
# entry is known for one of the ruleset before.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$_here/bench/lib.sh"

many=20000 few=5000
has_time || many=2000 few=100

# What it has left in its NIC, which the C module does not remove.
bench_ends() {
	bench until
	bench start
	nft flush ruleset
	bench clear
}

declare -A result=()
found() { jq -r ".$2 // empty" <<<"${result[$1]}"; }

# late NAME EVENT FLOWS [OPTION…]: an event of the functions below beside so many flows; options for late_worker.py.
late() {
	world
	load_ruleset <<<"table inet late { chain forward { type filter hook forward priority -1; }; }"
	flowtable_ruleset devices="$devices" | load_ruleset
	bench_begins "$3"
	bench flows
	result[$1]=$("$_here/truth/late_worker.py" --client "$client" --server "$server" --to 10.9.9.9 \
		--control 10.0.2.2 --old wire1 --new wire2 --pace $PACE --grace $GRACE \
		--limit $((60000 * SLOWNESS)) "${@:4}" "$("$2")")
	echo "# $1: ${result[$1]}"
	bench_ends
	is "$(found "$1" error)" "" "$1: entries are made, and offered, while $3 other flows are"
	check "$1: the core's worker comes $late ms late and more" [ "$(found "$1" late_ms)" -ge "$late" ]
}
late=100

need "$MODULES/bench/flowbench.ko"
by_wire2() { r4 route replace 10.9.9.9 via 10.0.3.2; }
drop() { echo "ip netns exec $router nft add rule inet late forward ip daddr 10.9.9.9 drop"; }

load_module
late nft_offload by_wire2 $many
is "$(found nft_offload after)" 0 "no packet over the old way $GRACE ms after the module has seen the entry, if its way has changed before"
check "packets take the new way" [ "$(found nft_offload by_new)" -gt 0 ]
for counter in replace_eexist replace_dup_match destroy_enoent destroy_failed; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done
start_over
load_module
dropped=$((5000 * SLOWNESS))
# Not more than two seconds late, after which that is not promised.
late=20 late ruleset drop $few --grace $dropped --watch $((dropped + 500))
is "$(found ruleset after)" 0 "no packet $dropped ms after the module has seen the entry, if a rule drops it since before"
start_over
load_c_module
late c by_wire2 $many
check "with the C module, packets still go over the old way then" [ "$(found c after)" -gt 0 ]
for module in nft_offload ruleset c; do
	echo "# $module: worker $(found $module late_ms) ms late: $(found $module before) packets over the old way until then, $(found $module after) later"
done

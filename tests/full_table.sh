#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 400
#
# A NIC without room, and one that fails everything: flows that send get the places that become free as soon as with
# the C module, and its driver is left alone meanwhile.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

run() { # WHAT [OPTION…]: prints JSON
	"$_here/full_table.py" "$1" "$client" "$server" "${@:2}"
}
scene() { # MODULE
	if [ "$1" = c ]; then load_c_module; else load_module; fi
	topology
	on "$router" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=$((2 * SLOWNESS))
	flowtable_ruleset | load_ruleset
}
declare -A json=()
of() { jq ".$2" <<<"${json[$1]}"; }

# Where time is not real, only that it works is looked at.
modules=(nft_offload c) flows=400
storm=(seconds=25 rate=60)
has_time || modules=(nft_offload) flows=40 storm=(seconds=40 rate=10 grace=10 limit=300)

for module in "${modules[@]}"; do
	scene "$module"
	nic capacity 20
	json[$module]=$(run storm "${storm[@]}")
	echo "# $module, storm of short flows: ${json[$module]}"
	nic capacity 0
	start_over
done
is "$(of nft_offload in_nic)" 5 "after a storm of short flows all 5 long ones are in the NIC"
if has_time; then
	check "after a storm of short flows long ones are in the NIC as soon as with the C module, or 3 s later" \
		[ "$(of nft_offload after_ms)" -le $(($(of c after_ms) + 3000)) ]
	# One look in ten may come before the first rules are in.
	check "during the storm they are in the NIC no less often than with the C module" \
		[ $(($(of nft_offload percent) + 10)) -ge "$(of c percent)" ]
	check "the NIC, which is full, refuses no more than half as many rules as with the C module" \
		[ $((2 * $(of nft_offload refused))) -le "$(of c refused)" ]
fi

for module in "${modules[@]}"; do
	scene "$module"
	nic faults "replace -5 100"
	json[$module]=$(run sick flows=$flows seconds=8)
	echo "# $module, a NIC that fails everything for 8 s: ${json[$module]}"
	nic faults none
	start_over
done
is "$(of nft_offload in_nic)" $flows "after a NIC has failed everything, all $flows flows get into it"
if has_time; then
	check "a NIC that fails everything is asked for no more than a fourth of what the C module asks for" \
		[ $((4 * $(of nft_offload refused))) -le "$(of c refused)" ]
fi

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: stock
# timeout: 300
#
# XDP programs find the flows of flowtables without "flags offload", as with the C module.
# Only on stock: it takes the BTF of the kernel and of nf_flow_table.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

protos="tcp4 tcp6 udp4 udp6"
declare -A ifindex

clang=$(compgen -c clang- | grep -x 'clang-[0-9]*' | sort -u | tail -n 1) || skip "this machine has no compiler"

dir=$(mktemp -d /tmp/xdp_XXXXXX) # libbpf has no dots in paths
at_exit rm -r "$dir"
mkdir "$dir/bpf"
mount -t bpf bpf "$dir/bpf"
at_exit umount "$dir/bpf"

attach() {
	local nic
	"$clang" -target bpf -g -O2 -Wall -Werror -idirafter "/usr/include/$(uname -m)-linux-gnu" \
		-c "$(dirname "${BASH_SOURCE[0]}")/xdp/lookup.bpf.c" -o "$dir/lookup.o"
	bpftool prog load "$dir/lookup.o" "$dir/bpf/lookup" pinmaps "$dir/bpf/maps"
	for nic in nic0 nic1; do
		on "$router" ip link set dev $nic xdpgeneric pinned "$dir/bpf/lookup"
		ifindex[$nic]=$(on "$router" ip -j link show $nic | jq '.[0].ifindex')
	done
}

# counts NIC PROTO: "FOUND MISSED" of all packets that came in there.
counts() {
	local family=2 proto=6
	[[ $2 != *6 ]] || family=10
	[[ $2 != udp* ]] || proto=17
	bpftool -j map dump pinned "$dir/bpf/maps/lookups" |
		jq -r --argjson key "{\"ifindex\":${ifindex[$1]},\"family\":$family,\"proto\":$proto}" \
			'[.[].formatted | select(.key == $key).value][0] | "\(.found // 0) \(.missed // 0)"'
}

# lookups PROTO WANT0 WANT1: sends over the flow; at nic0 and nic1 all lookups are "found",
# or all are "missed".
lookups() {
	local proto=$1 nic found missed status=0
	local -A want=([nic0]=$2 [nic1]=$3) before
	for nic in nic0 nic1; do before[$nic]=$(counts $nic "$proto"); done
	flow_send "$proto" 20000
	for nic in nic0 nic1; do
		read -r found missed < <(counts $nic "$proto")
		found=$((found - ${before[$nic]% *})) missed=$((missed - ${before[$nic]#* }))
		echo "$nic: $found found, $missed missed"
		case ${want[$nic]} in
		found) [ $found -ge 5 ] && [ $missed = 0 ] ;;
		missed) [ $found = 0 ] && [ $missed -ge 5 ] ;;
		esac || status=1
	done
	return $status
}

all_lookups() {
	local proto
	for proto in $protos; do
		check "$module: $1: $proto: $2 at nic0, $3 at nic1" lookups "$proto" "$2" "$3"
	done
}

in_flowtable() {
	local lines
	lines=$(on "$router" conntrack -L 2>/dev/null)
	echo "$lines"
	[ "$(grep -c '\[OFFLOAD\]' <<<"$lines")" = 4 ]
}

open_flows() {
	local proto
	for proto in $protos; do flow_open "$proto" "$proto"; done
	check "$module: $1: four flows are in the flowtable" busywait $LIMIT in_flowtable
}

close_flows() {
	local proto
	for proto in $protos; do flow_close "$proto"; done
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
}

lookups_with() {
	flowtable_ruleset flags= | load_ruleset
	open_flows "in software"
	all_lookups "in software" found found
	on "$router" nft 'delete flowtable inet fw ft { devices = { nic1 }; }'
	all_lookups "without nic1" found missed
	on "$router" nft 'add flowtable inet fw ft { devices = { nic1 }; }'
	all_lookups "with nic1 again" found found
	on "$router" nft flush ruleset
	all_lookups "without the ruleset" missed missed
	close_flows

	# With flags offload there are no lookups, not even if the flow is not in the NIC.
	nic faults "replace -28 100"
	flowtable_ruleset | load_ruleset
	open_flows "flags offload, refused"
	all_lookups "flags offload, refused" missed missed
	close_flows
	nic faults none
}

# Devices that come and go change the ruleset, after which entries are made anew.
load_module ruleset_s=0
topology
attach
module="this module"
lookups_with
unload_module nft_offload

load_c_module
module="the C module"
lookups_with

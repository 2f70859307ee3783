#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml stock
# timeout: 7200
# manual: a benchmark, make bench
#
# Many flows: how long it takes until they are in the NIC, what memory they take, and how long the NIC
# is wrong when the way of some or all of them changes; with this module, or with SCALE_MODULE=c with the
# C one. SCALE_WHAT=memory is for a machine that nothing has run in before.
#
# The clients are behind one gateway, and each server is a neighbour with an address and a MAC of its own.
# No program answers for them: scale.py puts the frames on the cables.
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

flows=${SCALE_FLOWS:-100000}
servers=100
module=${SCALE_MODULE:-nft_offload}

world() {
	topology
	local n commands=
	for ((n = 100; n < 100 + servers; n++)); do
		commands+="neigh replace 10.0.2.$n lladdr 02:00:00:00:00:$(printf %02x "$n") dev nic1 nud permanent"$'\n'
	done
	on "$router" ip -batch - <<-END
		route add 10.128.0.0/9 via 192.168.1.2
		neigh replace 192.168.1.2 lladdr $(mac_of "$client" wire0) dev nic0 nud permanent
		neigh replace 192.168.1.3 lladdr 02:00:00:00:01:03 dev nic0 nud permanent
		$commands
	END
	# Nobody goes for being idle, and the table of connections is as large as a router's would be.
	sysctl -qw net.netfilter.nf_conntrack_max=$((2 * flows))
	on "$router" sysctl -qw net.netfilter.nf_conntrack_udp_timeout=86400 \
		net.netfilter.nf_conntrack_udp_timeout_stream=86400 net.netfilter.nf_flowtable_udp_timeout=86400
}

modprobe nf_conntrack hashsize=$((flows < 65536 ? 65536 : flows))
for what in ${SCALE_WHAT:-events flush}; do
	if [ "$module" = c ]; then load_c_module; else load_module; fi
	world
	"$(dirname "${BASH_SOURCE[0]}")/scale.py" "$what" --module "$module" --flows "$flows" \
		--servers $servers --client "$client" --server "$server" --router "$router" \
		--ruleset "$(flowtable_ruleset)" --limit $((10 + flows / 10000)) | sed 's/^/# /'
	ok "$what of $flows flows with $module"
	[ "$module" = c ] || is "$(nic_counter replace_eexist) $(nic_counter destroy_enoent)" "0 0" \
		"the driver saw no cookie twice, and none that it did not know"
	on "$router" conntrack -F 2>/dev/null
	start_over
done

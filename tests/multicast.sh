#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: stock
# timeout: 600
#
# Multicasts go to all receivers, whatever the ruleset says of flows.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module report_ms=0
topology ports=4
second=''
add_ns second
ip link set nic2 netns "$router"
ip link set wire2 netns "$second"
_address "$router" nic2 10.0.3.1/24 fd00:3::1/64
_address "$second" wire2 10.0.3.2/24 fd00:3::2/64
# The kernel's own part of the file in /proc.
on "$router" conntrack -C >/dev/null
on "$router" sysctl -qw net.ipv4.conf.all.rp_filter=0

for flags in offload ""; do
	for version in 6 4; do
		text="IPv$version, ${flags:-no flags}"
		flowtable_ruleset devices="nic0, nic1, nic2" flags=$flags | sed 's/ct state established //' | load_ruleset
		relay "$text" "$(dirname "${BASH_SOURCE[0]}")/multicast.py" "$client" "$router" "$server" "$second" \
			$SLOWNESS $version "$text"
		on "$router" nft flush ruleset
		on "$router" conntrack -F 2>/dev/null
	done
done

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 900
#
# A RST of which conntrack cannot know if it is right, for it has not seen the packets before, ends nothing.
# RESETS=GLOB: only these parts.
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

limit=$((2000 * SLOWNESS))

resets() { # TEXT offload|software [WHAT]
	local flags=
	# shellcheck disable=SC2053
	[[ $1 == ${RESETS:-*} ]] || return 0
	[ "$2" != offload ] || flags=offload
	flowtable_ruleset masquerade=1 flags=$flags devices="$devices" | load_ruleset
	# Where conntrack has lost a connection, its packets are invalid.
	on "$router" nft add rule inet fw forward ct state invalid drop
	relay "$1" "$(dirname "${BASH_SOURCE[0]}")/resets.py" "$client" "$router" "$server" $limit "$1" "$2" \
		"$device" "${@:3}"
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
}
devices="nic0, nic1" device=wire0

load_module report_ms=0
topology
# shellcheck source=tests/sides.sh
source "$(dirname "${BASH_SOURCE[0]}")/../sides.sh"
# The kernel's own part of the file in /proc.
on "$router" conntrack -C >/dev/null
on "$router" sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0

resets "in the NIC" offload
resets "in software" software
resets "with a priority tag" offload tag 0
resets "at the end, in the NIC" offload reuse
resets "at the end, in software" software reuse

_ready() { [ -s "$_output.tun" ]; }
modprobe tun
"$(dirname "${BASH_SOURCE[0]}")/tun_pair.py" "$client" "$router" >"$_output.tun" &
at_exit kill $!
busywait $((LIMIT * 3)) _ready
_address "$router" tun0 192.168.9.1/24 fd00:9::1/64
_address "$client" tun0 192.168.9.2/24 fd00:9::2/64
on "$client" ip route add 10.0.2.2 via 192.168.9.1
on "$client" ip route add fd00:2::2 via fd00:9::1
ways_work
devices="tun0, nic1" device=tun0
resets "at the end, from a tun device" software reuse
on "$client" ip route del 10.0.2.2
on "$client" ip route del fd00:2::2

side 0 vlan
on "$client" ip link set wire0.10 type vlan egress-qos-map 0:5
devices="nic0, nic1" device=wire0.10
resets "in a VLAN with a priority" offload tag 10
resets "at the end, in a VLAN with a priority" offload reuse

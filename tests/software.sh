#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 300
# also: the fast path is the kernel's own
#
# In a table without `flags offload`, connections stay in the fast path, whatever the devices are like by which their
# packets come and go: what is looked up for them each second is what the core has made.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module report_ms=0
topology
# shellcheck source=tests/sides.sh
source "$(dirname "${BASH_SOURCE[0]}")/sides.sh"
# The kernel's own part of the file in /proc.
on "$router" conntrack -C >/dev/null
# With one of its own, they are the host's: see fast_path.sh.
own_mac=

# stays TEXT [DEVICE]: by DEVICE instead of nic0.
stays() {
	{ flowtable_ruleset flags= devices="${2:-nic0}, nic1" && count_forwarded; } | load_ruleset
	relay "$1" "$(dirname "${BASH_SOURCE[0]}")/fast_path.py" "$client" "$router" "$server" $SLOWNESS stays "${2:-nic0}" "$1"
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
}

for kind in plain vlan qinq 8021ad 8021ad-vlan pppoe vlan-pppoe bridge vlan-bridge vlan-bridge-untagged; do
	side 0 "$kind"
	stays "$kind"
done
side 0 plain

# over TYPE WORDS…: a device of this type on the client's port, which has the router's address there.
over() {
	on "$router" ip addr flush dev nic0 scope global
	on "$router" ip link add over0 "${@:2}" type "$1"
	if [ "$1" = bond ]; then
		on "$router" ip link set nic0 down
		on "$router" ip link set nic0 master over0
	fi
	on "$router" ip link set over0 up
	_address "$router" over0 192.168.1.1/24 fd00:1::1/64
	on "$client" ip neigh flush dev wire0
	ways_work
	stays "$1" over0
	on "$router" ip link del over0
	on "$router" ip link set nic0 up
}
modprobe bonding
over macvlan link nic0
over bond

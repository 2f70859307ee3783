#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# also: nftables has flows of Wi-Fi devices since Linux 7.3
#
# Flows of Wi-Fi clients: to who asks for the way that frames take, a port of the NIC is a Wi-Fi device.
# tests/hwsim.sh has devices of mac80211, whose drivers take no rules.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

wifi_topology() {
	topology "$@"
	nic wifi nic0
}

# Whether a flow has an entry.
is_offloaded() { on "$router" conntrack -L -p tcp 2>/dev/null | grep -E '\[(HW_)?OFFLOAD\]'; }

load_c_module
wifi_topology
flowtable_ruleset flags= | load_ruleset
flow_open c tcp4
flow_send c 1000
followed=
! is_offloaded >/dev/null || followed=1
[ -z "${KSRC:-}" ] || is "$(grep -c '^	DEV_PATH_IEEE80211' "$KSRC/include/linux/netdevice.h")" "${followed:-0}" \
	"nftables makes entries for Wi-Fi devices if the kernel has the step"
start_over

load_module report_ms=0
wifi_topology
flowtable_ruleset | load_ruleset
flow_open 4 tcp4
flow_open 6 tcp6
if [ -z "$followed" ]; then
	flow_send 4 1000
	flow_send 6 1000
	check "a flow that nftables makes no entry for has none" fails is_offloaded
	check "a flow that nftables makes no entry for has no rule" rules_are 0
	is "$(told)" "" "of a flow that nftables makes no entry for nothing is said"
	exit
fi

check "flows from a Wi-Fi device are in the NIC, both ways" wait_rules 4
check "packets from a Wi-Fi device pass in the NIC, IPv4" in_hardware 4 1000000
check "packets from a Wi-Fi device pass in the NIC, IPv6" in_hardware 6 1000000
on "$router" ip neigh replace 192.168.1.2 dev nic0 lladdr 02:00:00:00:00:99 nud permanent
check "flows whose client has another address are not in the NIC any more" wait_rules 2
on "$router" ip neigh replace 192.168.1.2 dev nic0 lladdr "$(mac_of "$client" wire0)" nud permanent
check "flows whose client has its address back are in the NIC when their packets are seen again" flow_send_until 4 $LIMIT rules_are 4

# As at home: Wi-Fi and cables are one network.
flow_close 4
flow_close 6
check "rules go when the flows end" wait_rules 0
on "$router" ip -batch - <<-END
	link add br0 type bridge
	addr flush dev nic0
	link set nic0 master br0
END
_address "$router" br0 192.168.1.1/24 fd00:1::1/64
ways_work
flow_open bridged4 tcp4
flow_open bridged6 tcp6
check "flows from a Wi-Fi device in a bridge are in the NIC, both ways" wait_rules 4
check "packets from a Wi-Fi device in a bridge pass in the NIC, IPv4" in_hardware bridged4 1000000
check "packets from a Wi-Fi device in a bridge pass in the NIC, IPv6" in_hardware bridged6 1000000
is "$(told 'stays in software')" "" "no flow stays in software"

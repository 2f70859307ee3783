#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 900
# exclusive: times are measured
#
# Ports go down, lose their cable, leave, or a host roams to another port of a bridge: packets
# take the other way, if there is one, and no rule of the port is left.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Another way for when nic1 is of no use.
other_way() {
	on "$router" sysctl -qw net.ipv4.conf.all.ignore_routes_with_linkdown=1 \
		net.ipv6.conf.all.ignore_routes_with_linkdown=1
	on "$router" ip route replace 10.9.9.9 via 10.0.3.2 metric 100
	on "$router" ip route replace fd00:9::9 via fd00:3::2 metric 2000
	on "$router" ip -6 neigh flush all
	on "$router" ping -q -c 1 10.0.3.2 >/dev/null
	on "$router" ping -q -c 1 fd00:3::2 >/dev/null
}

# nic1 is as it was.
restore() {
	_address "$router" nic1 10.0.2.1/24 fd00:2::1/64 2>/dev/null || on "$router" ip link set nic1 up
	on "$router" ip addr replace fd00:2::1/64 dev nic1 nodad
	on "$server" ip addr replace fd00:2::2/64 dev wire1 nodad
	on "$server" ip link set wire1 up
	busywait $LIMIT on "$router" ping -q -c 1 -W 1 10.0.2.2 >/dev/null
	busywait $LIMIT on "$router" ping -q -c 1 -W 1 fd00:2::2 >/dev/null
	way_back
}

# The kernel looks at carriers once a second (linkwatch): a cable that is pulled sooner after another
# change is noticed late, whatever this module does.
links_settle() { busywait $LIMIT is_later $((${EPOCHREALTIME/./} + 1100000)); }

second=$((1500 * SLOWNESS))
# The words of a command, for event.
bridge_of_router() { echo "bridge -n '$router' $*"; }

events() {
	other_way
	event "egress port goes down" --old wire=wire1 -- "$(back_by_wire2)" \
		"$(r4 link set nic1 down)"
	restore

	# IPv6 keeps routes by gateways to which it has lost the network.
	event "egress port loses its addresses" --flows tcp4,udp4 --old wire=wire1 -- \
		"$(back_by_wire2)" "$(r4 addr flush dev nic1 scope global)"
	restore

	links_settle
	event "cable is pulled" --old wire=wire1 -- "$(back_by_wire2)" \
		"$(s4 link set wire1 down)"
	restore

	event "port moves to another namespace" --old wire=wire1 -- "$(back_by_wire2)" \
		"$(r4 link set nic1 netns "$client")"
	on "$client" ip link set nic1 netns "$router"
	restore

	event "port is unplugged" --old wire=wire1 -- "$(back_by_wire2)" "echo nic1 >$NIC/vanish"
	nic appear nic1
	ip link set nic1 netns "$router"
	ip link set wire1 netns "$server"

	# From here on nic1 and nic2 are ports of a bridge, and the server has one address that
	# is found behind one cable or the other.
	on "$router" ip link add br0 type bridge forward_delay 0
	on "$server" ip link add sta address 02:00:00:00:97:01 type bond mode active-backup miimon 10
	for dev in nic1 nic2; do
		on "$router" ip addr flush dev $dev
		on "$router" ip link set $dev master br0 up
	done
	for dev in wire1 wire2; do
		on "$server" ip link set $dev down
		on "$server" ip link set $dev master sta
	done
	on "$server" ip link set sta type bond active_slave wire1
	_address "$router" br0 10.0.2.1/24 fd00:2::1/64
	_address "$server" sta 10.0.2.2/24 fd00:2::2/64
	on "$server" ip route replace default via 10.0.2.1
	on "$server" ip -6 route replace default via fd00:2::1
	on "$router" ip route replace 10.9.9.9 via 10.0.2.2
	on "$router" ip -6 route replace fd00:9::9 via fd00:2::2
	busywait $LIMIT on "$router" ping -q -c 1 -W 1 10.0.2.2 >/dev/null
	busywait $LIMIT on "$router" ping -q -c 1 -W 1 fd00:2::2 >/dev/null
	event "host roams to another bridge port" --old wire=wire1 -- \
		"$(s4 link set sta type bond active_slave wire2)"

	# It roams without a word, and the bridge does not learn where to.
	on "$server" ip link set sta type bond active_slave wire1
	busywait $LIMIT on "$router" ping -q -c 1 -W 1 10.0.2.2 >/dev/null
	on "$server" ip link set sta type bond num_grat_arp 0
	on "$router" ip link set nic2 type bridge_slave learning off
	# br_switchdev_fdb_notify() leaves out dynamic entries of users: Monitor compares paths once a second.
	promise="gone back"
	GRACE=$second gone_limit=$second event "bridge is told of another port for the host" --old wire=wire1 \
		--watch $((second + 500)) -- "$(s4 link set sta type bond active_slave wire2)" \
		"$(bridge_of_router fdb replace 02:00:00:00:97:01 dev nic2 master dynamic)"
	on "$router" ip link set nic2 type bridge_slave learning on
	on "$server" ip link set sta type bond active_slave wire1
	busywait $LIMIT on "$router" ping -q -c 1 -W 1 10.0.2.2 >/dev/null

	# These concern frames from port to port, or from hosts that the bridge does not know.
	promise="stall kept"
	event "bridge ports are isolated, and get hairpin mode" --limit 1000 -- \
		"$(bridge_of_router link set dev nic1 isolated on hairpin on)" \
		"$(bridge_of_router link set dev nic2 isolated on hairpin on)"
	for dev in nic1 nic2; do
		on "$router" bridge link set dev $dev isolated off hairpin off
	done
	event "bridge port is locked, and knows the host" --limit 1000 -- \
		"$(bridge_of_router link set dev nic1 learning off locked on)"
	promise="gone back"
	# The bridge tells no notifier of entries that it has learned, either.
	GRACE=$second gone_limit=$second event "locked bridge port does not know the host any more" --old wire=wire0 \
		--watch $((second + 500)) \
		--undo "$(bridge_of_router link set dev nic1 learning on locked off)" -- \
		"$(bridge_of_router fdb del 02:00:00:00:97:01 dev nic1 master)"

	event "bridge port is disabled" --old wire=wire0 --old wire=wire1 \
		--undo "$(bridge_of_router link set dev nic1 state 3)" -- "$(bridge_of_router link set dev nic1 state 0)"
	on "$router" ip link set br0 type bridge vlan_filtering 1
	event "bridge port's VLAN gets tagged" --old wire=wire0 --old wire=wire1 \
		--undo "$(bridge_of_router vlan add dev nic1 vid 1 pvid untagged)" -- \
		"$(bridge_of_router vlan add dev nic1 vid 1)"
	event "bridge port gets another VLAN for untagged frames" --old wire=wire0 \
		--undo "$(bridge_of_router vlan add dev nic1 vid 1 pvid untagged; bridge_of_router vlan del dev nic1 vid 5)" -- \
		"$(bridge_of_router vlan add dev nic1 vid 5 pvid untagged)"
	event "bridge port leaves the VLAN" --old wire=wire0 --old wire=wire1 \
		--undo "$(bridge_of_router vlan add dev nic1 vid 1 pvid untagged)" -- \
		"$(bridge_of_router vlan del dev nic1 vid 1)"
	on "$router" ip link set br0 type bridge vlan_filtering 0
	on "$router" bridge vlan del dev nic1 vid 1
	event "bridge filters VLANs, of which the port is in none" --old wire=wire0 --old wire=wire1 \
		--undo "$(r4 link set br0 type bridge vlan_filtering 0)" -- \
		"$(r4 link set br0 type bridge vlan_filtering 1)"
	promise="stall gone back"
}

both

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 150
#
# The wrong devices in a flowtable: the log names those that belong there. The kernel makes entries only for those
# that send and receive the frames, and says nothing if one is missing.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module incapable=1
topology ports=4
modprobe -a bridge bonding 8021q
ip link set nic2 netns "$router"
ip link set wire2 netns "$server"
on "$router" conntrack -C >/dev/null # connections are tracked from now on
# Between the ways that follow, no flow waits for packets that are lost.
turns=0

said() { told "$@" | grep .; }
said_nothing() { fails said "is in no flowtable\|cannot offload"; }
missing() { said "$1: is in no flowtable, and sends or receives for connections such as from $2"; }

# turn TEXT DEVICES: a ruleset with these, and a flow.
turn() {
	turns=$((turns + 1))
	mark_log
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
	flowtable_ruleset devices="$2" | load_ruleset
	flow_open turn$turns tcp4 $((6000 + turns))
}
told_missing() { # TEXT DEVICE
	check "$1: the log says that $2 is missing" flow_send_until turn$turns $LIMIT missing "$2" "\(192.168.1.2 to 10.0.2.2\|10.0.2.2 to 192.168.1.2\)"
	check "$1: connections work" flow_send turn$turns 1000
	flow_close turn$turns
}
is_offloaded() { # TEXT
	check "$1: flows are in the NIC" busywait $LIMIT rules_are 2
	check "$1: the log says nothing of devices" said_nothing
	flow_close turn$turns
}

turn right "nic0, nic1"
is_offloaded "the right devices"

turn forgotten "nic0, nic2"
told_missing "the way out was forgotten" nic1
check "the way out was forgotten: the log says what to do" said "nic1: .*Add it to the devices of the flowtable"
turn again "nic0, nic2"
check "the way out was forgotten: a connection more" flow_send turn$turns 1000
is "$(told "is in no flowtable" | wc -l)" 0 "the way out was forgotten: the log has said so once"
flow_close turn$turns

# Put right, and forgotten again.
turn remembered "nic0, nic1"
is_offloaded "the way out is remembered"
turn twice "nic0, nic2"
told_missing "the way out was forgotten again" nic1
turn remembered "nic0, nic1"
is_offloaded "the way out is remembered again"

# Neither end is in a flowtable: nobody asked for it.
turn neither "nic2"
check "a flowtable with neither end: connections work" flow_send turn$turns 1000
check "a flowtable with neither end: the log says nothing of devices" said_nothing
flow_close turn$turns

# --- a VLAN device in the place of its port

on "$router" ip addr flush dev nic1 scope global
on "$server" ip addr flush dev wire1 scope global
on "$router" ip link add link nic1 name vlan10 type vlan id 10
on "$server" ip link add link wire1 name vlan10 type vlan id 10
_address "$router" vlan10 10.0.2.1/24 fd00:2::1/64
_address "$server" vlan10 10.0.2.2/24 fd00:2::2/64
on "$server" ip route replace default via 10.0.2.1
on "$server" ip -6 route replace default via fd00:2::1
ways_work
nic accept "-indirect" # no driver takes rules for the VLAN device
turn vlan "nic0, vlan10"
check "a VLAN device: the log says which device belongs there" busywait $LIMIT said "vlan10: cannot offload.* The device below the VLAN device sends for it: put nic1 there instead"
told_missing "a VLAN device" nic1
nic accept default
turn port "nic0, nic1"
is_offloaded "the port below a VLAN device"
on "$router" ip link del vlan10
on "$server" ip link del vlan10

# --- a bond

on "$router" ip link add bond0 type bond mode active-backup miimon 100
for port in nic1 nic2; do
	on "$router" ip link set $port down
	on "$router" ip link set $port master bond0
done
on "$server" ip link set wire2 up
_address "$router" bond0 10.0.2.1/24 fd00:2::1/64
_address "$server" wire1 10.0.2.2/24 fd00:2::2/64
on "$server" ip route replace default via 10.0.2.1
on "$server" ip -6 route replace default via fd00:2::1
ways_work
turn bond-ports "nic0, nic1, nic2"
told_missing "a bond's ports" bond0
check "a bond's ports: the log says that nothing can be offloaded there" said "bond0: .*Nothing that goes by a bond can be offloaded"
turn bond "nic0, bond0"
check "a bond: the log says that nothing can be offloaded there" busywait $LIMIT said "bond0: cannot offload.* Nothing that goes by a bond can be offloaded, nor by its ports"
flow_close turn$turns
on "$router" ip link del bond0
_address "$router" nic1 10.0.2.1/24 fd00:2::1/64
ways_work

# --- a bridge in the place of its port

on "$router" ip addr flush dev nic0 scope global
on "$router" ip link add br0 type bridge
on "$router" ip link set nic0 master br0
_address "$router" br0 192.168.1.1/24 fd00:1::1/64
ways_work
turn bridge "br0, nic1"
check "a bridge: the log says which devices belong there" busywait $LIMIT said "br0: cannot offload.* The ports of the bridge send for it: put nic0 there instead"
told_missing "a bridge" nic0
turn bridge-port "nic0, nic1"
is_offloaded "the port of a bridge"

# --- refused, without the parameter

on "$router" nft flush ruleset
unload_module nft_offload
load_module
mark_log
check "a bridge is refused without incapable=1" fails eval 'flowtable_ruleset devices="br0, nic1" | load_ruleset'
check "a bridge that is refused: the log says which devices belong there" said "br0: cannot offload, so the flowtable is refused: .* put nic0 there instead"

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 300
#
# The emulated NIC: VLAN devices over its ports, which are bound indirectly. Beside what is in lib.sh there are
#
#   nic1.5   10.0.5.1 -- wire1.5   10.0.5.2 :server
#   nic1.5.6 10.0.6.1 -- wire1.5.6 10.0.6.2 :server
#
# cls_flower takes no skip_sw for a VLAN device: the NIC's counters say whether NIC or host has forwarded.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

hosts

# vlan NAMESPACE DEVICE ID ADDRESS: VLAN device DEVICE.ID
vlan() {
	on "$1" ip link add link "$2" name "$2.$3" type vlan id "$3"
	_host "$1" "$2.$3" "$4"
}
vlan "" nic1 5 10.0.5.1
vlan "$server" wire1 5 10.0.5.2
vlan "" nic1.5 6 10.0.6.1
vlan "$server" wire1.5 6 10.0.6.2
check "a VLAN device over a port carries packets" on "$client" ping -qc1 -W2 10.0.5.2
check "a VLAN device over a VLAN device carries packets" on "$client" ping -qc1 -W2 10.0.6.2

# bind DEVICE…, unbind DEVICE…
bind() { local dev && for dev; do tc qdisc add dev "$dev" clsact; done; }
unbind() { local dev && for dev; do tc qdisc del dev "$dev" clsact; done; }
# answers NET: the server's way to the client, by that network.
answers_by() { on "$server" ip route replace 10.0.0.0/24 via "10.0.$1.1"; }

# vlan_rule IN SRC SPORT DST DPORT OUT DMAC [MATCH…]
vlan_rule() {
	# shellcheck disable=SC2046
	tc filter add dev "$1" ingress protocol ip pref 1 flower "${@:8}" ip_proto udp src_ip "$2" \
		src_port "$3" dst_ip "$4" dst_port "$5" action pedit ex munge eth dst set "$7" pipe $(to "$6")
}
wire1=$(mac_of "$server" wire1) wire0=$(mac_of "$client" wire0)
# there DEVICE NET, back DEVICE NET [MATCH…]: a flow's two directions
there() { vlan_rule nic0 10.0.0.2 4000 "10.0.$2.2" 5000 "$1" "$wire1"; }
back() { vlan_rule "$1" "10.0.$2.2" 5000 10.0.0.2 4000 nic0 "$wire0" "${@:3}"; }
# tagged DEVICE ID ACTION…: of a rule for what has one more tag
tagged() {
	# shellcheck disable=SC2046
	tc filter add dev "$1" ingress protocol 802.1q pref 1 flower vlan_id "$2" vlan_ethtype ip \
		ip_proto udp src_ip 10.0.6.2 dst_ip 10.0.0.2 src_port 1 dst_port 2 "${@:3}" $(to nic0)
}

nic counters 0
bind nic1.5 nic1.5.6
check "VLAN devices are bound indirectly" counters_are nic1.bound_indr 2 nic0.bound_indr 0 bind_ok 2
ip link add link wire3 name other.5 type vlan id 5
ip link add link nic1.5.6 name three type vlan id 7
bind other.5 three
check "a VLAN device over no port, and one with three tags, are not bound" \
	counters_are bind_ok 2 bind_failed 0 nic1.bound_indr 2
ip link del other.5
ip link del three
check "VLAN devices that are not bound are not unbound" counters_are unbind_ok 0 unbind_failed 0

back nic1.5 5 indev nic1.5
check "a rule of a VLAN device is taken" counters_are rules 1
check "a rule of a VLAN device matches its tag" has_rule "in=nic1 vlan=5 "
flush nic1.5
# Any packet that matches would do in software, so tc keeps it.
nic counters 0
back nic1.5 5 indev nic1
check "a rule of a VLAN device that names the port is refused" counters_are rules 0 replace_failed 1
flush nic1.5
tagged nic1.5 6 action vlan pop pipe
check "a tag that a rule of a VLAN device matches is a second one, and both are popped" \
	has_rule "via=indr_block in=nic1 vlan=5.6 .* actions=vlan_pop,vlan_pop,redirect "
flush nic1.5
back nic1.5.6 6 indev nic1.5.6
check "a rule of a VLAN device over another one matches both tags" has_rule "in=nic1 vlan=5.6 "
flush nic1.5.6
tagged nic1.5.6 7
check "a rule that matches three tags is refused" counters_are rules 0
flush nic1.5.6

# passes DEVICE NET TAGS POPS
passes() {
	nic counters 0
	there "$1" "$2"
	back "$1" "$2"
	check "$1: a rule to it pushes its tags" \
		has_rule "via=block in=nic0 vlan=none .* out=nic1 actions=.*vlan_push:$3,redirect "
	check "$1: a rule from it pops its tags" \
		has_rule "via=indr_block in=nic1 vlan=$3 .* out=nic0 actions=.*[^p],${4}redirect "
	answers_by "$2"
	check "$1: packets come and go" echo_of 4000 5 "10.0.$2.2"
	check "$1: packets pass in the NIC" counters_are nic0.nic_packets 5 nic1.nic_packets 5
	flush "$1" nic0
	check "$1: its rules are gone" counters_are rules 0
}
passes nic1.5 5 5 vlan_pop,
passes nic1.5.6 6 5.6 vlan_pop,vlan_pop,

# Each push and pop is one of two, and a push after a pop is a new ID.
nic profile mlx5-tc
nic counters 0
tagged nic1.5 6 action vlan pop pipe action vlan push id 9 pipe
check "mlx5-tc: a push after a pop is a new ID" has_rule "vlan=5.6 .* actions=vlan_pop,vlan_id:9,redirect "
flush nic1.5
nic accept +hairpin
vlan_rule nic1.5 10.0.5.2 1 10.0.6.2 2 nic1.5 02:00:00:00:05:02
check "mlx5-tc: back into the same VLAN is a pop and a push" counters_are rules 1
flush nic1.5
vlan_rule nic1.5.6 10.0.5.2 1 10.0.6.2 2 nic1.5 02:00:00:00:05:02
check "mlx5-tc: two pops and a push are too many" counters_are rules 0
flush nic1.5.6
nic profile none

there nic1.5 5
nic counters 0
ip link set nic1.5 down
send 4000 1 10.0.5.2
check "a packet for a VLAN device that is down is an exception" busywait 2000 counter_reaches nic0.exception_egress 1
check "no packet is forwarded to a VLAN device that is down" counters_are nic_packets 0
flush
there nic1.5 5
check "a rule to a VLAN device that is down is taken" counters_are rules 1
ip link set nic1.5 up
ip link set nic1.5.6 up
answers_by 5
check "packets come and go when the VLAN device is up again" echo_of 4000 2 10.0.5.2
check "packets pass in the NIC when the VLAN device is up again" counters_are nic0.nic_packets 2
flush

nic accept -redirect_vlan_dev
check "with -redirect_vlan_dev, no rule leads to a VLAN device" refused "not a port of this NIC" rule nic0 nic1.5 4000
nic accept default
rule nic0 nic1.5 4000
check "a VLAN device goes down under a rule" ip link set nic1.5.6 down
flush
ip link set nic1.5.6 up

unbind nic1.5
check "a VLAN device is unbound" counters_are nic1.bound_indr 1
nic counters 0
nic faults "bind 95 100 nic1"
bind nic1.5
check "a fault of BIND leaves a VLAN device unbound" counters_are nic1.bound_indr 1 bind_failed 1
nic faults none
unbind nic1.5
check "a VLAN device that is not bound cannot be unbound" counters_are unbind_failed 1
nic accept -indirect
bind nic1.5
check "with -indirect no VLAN device is bound" counters_are nic1.bound_indr 1 bind_failed 2
nic accept default
unbind nic1.5
bind nic1.5
check "a VLAN device is bound again" counters_are nic1.bound_indr 2 bind_ok 1

# tc withdraws its rules in the cleanup callback.
back nic1.5 5
back nic1.5.6 6
check "the NIC will unregister: there are two rules before" counters_are rules 2
nic indirect 0
check "a NIC that has unregistered has no rule of a VLAN device" counters_are nic1.bound_indr 0 rules 0
is "$(cat $NIC/indirect)" 0 "that the NIC has unregistered can be read"
unbind nic1.5
bind nic1.5
check "a NIC that has unregistered binds no VLAN device" counters_are nic1.bound_indr 0
nic indirect 0
nic indirect 1
nic indirect 1
check "a NIC that registers binds no VLAN device that was there" counters_are nic1.bound_indr 0
unbind nic1.5 nic1.5.6
bind nic1.5 nic1.5.6
check "a NIC that has registered again binds VLAN devices" counters_are nic1.bound_indr 2

# One of each block is replayed.
nic accept +replay
nic indirect 0
check "with +replay a NIC that has unregistered has nothing bound" counters_are nic1.bound_indr 0
nic indirect 1
check "with +replay a NIC that registers binds the VLAN devices that were there" counters_are nic1.bound_indr 2
nic accept default
unbind nic1.5 nic1.5.6
bind nic1.5 nic1.5.6
check "VLAN devices that were replayed are bound again" counters_are nic1.bound_indr 2

unbind nic1.5
nic counters 0
load_c_module
# Its rules are of ports, whatever devices there are, and do not say that they match a tag: one way only.
load_ruleset <<-END
	table inet nicself {
		flowtable ft {
			hook ingress priority 0
			devices = { nic0, nic1, nic1.5 }
			flags offload
		}
		chain forward {
			type filter hook forward priority 0; policy accept;
			meta l4proto udp ct state established flow add @ft
		}
	}
END
check "a flowtable with a VLAN device is bound to it and to the ports" \
	counters_are nic0.bound_ft 1 nic1.bound_ft 1 nic1.bound_indr 2
answers_by 5
check "a flow of a flowtable goes to a VLAN device" echo_of 4000 3 10.0.5.2
check "a flow of a flowtable is in the NIC" busywait 5000 counter_reaches rules 1
check "a flow's rule pushes the tag of the VLAN device" \
	has_rule "via=ft in=nic0 .* out=nic1 actions=.*vlan_push:5,redirect"
check "a flow to a VLAN device has its echo" echo_of 4000 3 10.0.5.2
check "a flow to a VLAN device passes in the NIC" counter_reaches nic0.nic_packets 3
# The flow does not enter there.
nic indirect 0
check "a NIC that has unregistered keeps the flow to a VLAN device" \
	counters_are nic1.bound_indr 0 nic1.bound_ft 1 rules 1
nic indirect 1
check "a flow that the NIC has kept has its echo" echo_of 4000 3 10.0.5.2
check "a flow that the NIC has kept passes in it" counter_reaches nic0.nic_packets 6
nft delete table inet nicself
# It unbinds before it withdraws.
check "a flowtable that is deleted is not bound" busywait 5000 counters_are nic0.bound_ft 0 nic1.bound_ft 0
nic evict all
bind nic1.5
unbind nic1.5.6
bind nic1.5.6
check "VLAN devices are bound after a flowtable" counters_are nic1.bound_indr 2

nic counters 0
there nic1.5 5
there nic1.5.6 6
back nic1.5.6 6
check "VLAN devices will be deleted: there are three rules before" counters_are rules 3
ip link del nic1.5.6
check "a VLAN device that is deleted takes its rules with it" counters_are rules 1 vanished 1 nic1.bound_indr 1
check "a VLAN device that is deleted leaves the rule of another one" has_rule vlan_push:5,
back nic1.5 5
ip link del nic1.5
check "the last VLAN device that is deleted takes its rules with it" counters_are rules 0 vanished 2 nic1.bound_indr 0
flush
ip link set nic3 up
vlan "" nic3 9 10.0.9.1
bind nic3.9
rule nic0 nic3.9 4000
check "a VLAN device over a port that will vanish is bound" counters_are nic3.bound_indr 1
nic vanish nic3
check "a port that vanishes takes the rules of its VLAN devices with it" counters_are rules 0 nic3.bound_indr 0
flush
nic appear nic3

# The core must not clean up what its binder has given up; the NIC frees it when it unloads.
ip link set nic3 up
vlan "" nic3 9 10.0.9.1
bind nic3.9
nic counters 0
nic faults "unbind 5 100 nic3"
unbind nic3.9
nic faults none
check "an UNBIND of a VLAN device that fails leaves it bound" counters_are unbind_failed 1 nic3.bound_indr 1
nic indirect 0
nic indirect 1
check "a VLAN device whose UNBIND has failed stays bound when the NIC unregisters" counters_are nic3.bound_indr 1
check "a VLAN device whose UNBIND has failed can be deleted" ip link del nic3.9

vlan "" nic1 5 10.0.5.1
bind nic1.5
back nic1.5 5
rule nic0 nic1 4000
rule nic1 nic0 4000
nic counters 0
check "traffic will run: there is a rule of a VLAN device, and it is bound" counters_are nic1.bound_indr 1 rules 3
send 4000 1000000000 &
flood=$!
check "the NIC forwards traffic" busywait 5000 counter_reaches nic_packets 1000
check "the NIC unloads under traffic, with rules and bound blocks" rmmod emunic
kill $flood
wait $flood 2>/dev/null || true
check "a NIC that was unloaded leaves nothing in debugfs" [ ! -e $NIC ]
check "a NIC that was unloaded leaves no device" fails ip link show nic0
check "a NIC that was unloaded has freed what was still bound" grep . <(kernel_log "emunic: a block of a VLAN device")
check "the NIC can be loaded again" insmod "$NIC_KO" indirect=0
is "$(cat $NIC/indirect)" 0 "with indirect=0 the NIC does not register for VLAN devices"

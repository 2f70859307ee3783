# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# The two sides of the router, each in any of these kinds. Sourced after lib.sh, used after
# `topology`:
#
#   plain                   IP on the port
#   vlan                    an 802.1Q device on it
#   qinq                    802.1Q in 802.1Q
#   8021ad                  802.1ad
#   8021ad-vlan             802.1Q in 802.1ad
#   pppoe, vlan-pppoe       a PPPoE session, on the port or on a VLAN
#   bridge                  a bridge, of which the port is a member
#   vlan-bridge             a VLAN on a bridge that filters; the port is a tagged member
#   vlan-bridge-untagged    the same; the port is an untagged member
#
# Side 0 is the client's, 1 the server's. VLANs are 10 and 11 there, 20 and 21 here; PPPoE
# sessions 0x1234 and 0x1235.
#
# What is used here is of lib.sh and topology; what is set here is for who sources it.
# shellcheck disable=SC2034,SC2086,SC2154

wire_ns=("$client" "$server")
router_v4=(192.168.1.1 10.0.2.1) router_v6=(fd00:1::1 fd00:2::1)
host_v4=(192.168.1.2 10.0.2.2) host_v6=(fd00:1::2 fd00:2::2)
kind=(plain plain) plug=(0 1)
# The device at which IP is, on the router and on the host beyond, and the one whose MAC
# frames have; the sessions' processes, those of the host last.
top=(nic0 nic1) host_top=(wire0 wire1) base=(nic0 nic1) host_base=(wire0 wire1) pids=('' '')

# sub NAMESPACE LOWER ID [PROTOCOL]: a VLAN device. Prints its name. It has an address of its
# own, so that it shows whose address a rule writes, unless $own_mac is empty.
own_mac=1
sub() {
	local name=$2.$3 end=a
	[ "$1" != "$router" ] || end=b
	on "$1" ip link add link "$2" name "$name" type vlan id "$3" protocol "${4:-802.1Q}"
	[ -z "$own_mac" ] || on "$1" ip link set "$name" address "02:5a:5$end:00:00:$((10 + $3))"
	on "$1" ip link set "$name" up
	echo "$name"
}

# session NAMESPACE DEV SID MAC: prints "PID NAME".
session() {
	local file pid
	file=$(mktemp)
	# Not by way of a function: the process has to be the program itself.
	${1:+ip netns exec "$1"} "$(dirname "${BASH_SOURCE[0]}")/drivers/pppoe.py" "$2" "$3" "$4" >"$file" 2>&1 &
	pid=$!
	busywait $LIMIT grep -q ^ppp "$file"
	echo "$pid $(cat "$file")"
	rm "$file"
}

_no_device() { ! on "$1" ip link show "$2" >/dev/null 2>&1; }

# end_sessions SIDE: until their netdevs are gone.
end_sessions() {
	[ -n "${pids[$1]}" ] || return 0
	# shellcheck disable=SC2086
	kill ${pids[$1]}
	pids[$1]=
	busywait $LIMIT _no_device "$router" "${top[$1]}"
	[[ ${host_top[$1]} != ppp* ]] || busywait $LIMIT _no_device "${wire_ns[$1]}" "${host_top[$1]}"
}
at_exit end_sessions 0
at_exit end_sessions 1

# _stack NAMESPACE DEV KIND ID: the devices of a kind, less PPPoE; prints the topmost.
_stack() {
	local dev=$2
	case $3 in
	vlan | vlan-pppoe) dev=$(sub "$1" "$dev" "$4") ;;
	qinq) dev=$(sub "$1" "$(sub "$1" "$dev" "$4")" $(($4 + 1))) ;;
	8021ad) dev=$(sub "$1" "$dev" "$4" 802.1ad) ;;
	8021ad-vlan) dev=$(sub "$1" "$(sub "$1" "$dev" "$4" 802.1ad)" $(($4 + 1))) ;;
	esac
	echo "$dev"
}

# _bridge SIDE DEV: the bridge of a side, and the VLAN device on it; prints the topmost.
_bridge() {
	local br=br$1 id=$((10 * $1 + 10))
	case ${kind[$1]} in
	bridge) on "$router" ip link add "$br" type bridge ;;
	*) on "$router" ip link add "$br" type bridge vlan_filtering 1 ;;
	esac
	on "$router" ip link set "$2" master "$br"
	on "$router" ip link set "$br" up
	case ${kind[$1]} in
	bridge) echo "$br" && return ;;
	vlan-bridge) on "$router" bridge vlan add dev "$2" vid $id ;;
	vlan-bridge-untagged) on "$router" bridge vlan add dev "$2" vid $id pvid untagged ;;
	esac
	on "$router" bridge vlan add dev "$br" vid $id self
	# With the bridge's own address: it takes in no other.
	on "$router" ip link add link "$br" name "$br.$id" type vlan id $id
	on "$router" ip link set "$br.$id" up
	echo "$br.$id"
}

_clear_side() {
	local n=$1 nic=nic${plug[$1]} wire=wire${plug[$1]} id=$((10 * $1 + 10)) dev
	end_sessions "$n"
	on "$router" ip link del "br$n" 2>/dev/null || true
	for dev in "$id.$((id + 1))" "$id"; do
		on "$router" ip link del "$nic.$dev" 2>/dev/null || true
		on "${wire_ns[n]}" ip link del "$wire.$dev" 2>/dev/null || true
	done
	on "$router" ip addr flush dev "$nic" scope global
	on "${wire_ns[n]}" ip addr flush dev "$wire" scope global
}

# _build_router SIDE KIND MAC
_build_router() {
	local n=$1 nic=nic${plug[$1]} pid
	kind[n]=$2
	case $2 in
	*bridge*) nic=$(_bridge "$n" "$nic") ;;
	*) nic=$(_stack "$router" "$nic" "$2" $((10 * n + 10))) ;;
	esac
	base[n]=$nic
	case $2 in
	*pppoe)
		read -r pid nic < <(session "$router" "$nic" $((0x1234 + n)) "$3")
		pids[n]=$pid
		;;
	esac
	top[n]=$nic
	_address "$router" "$nic" "${router_v4[n]}/24" "${router_v6[n]}/64"
}

# router_side SIDE KIND MAC: rebuilds that side of the router, for a peer with that address.
router_side() {
	_clear_side "$1"
	_build_router "$@"
}

# host_kind SIDE: what the host has to have for the router's kind.
host_kind() {
	case ${kind[$1]} in
	vlan-bridge) echo vlan ;;
	*bridge*) echo plain ;;
	*) echo "${kind[$1]}" ;;
	esac
}

# side SIDE KIND: rebuilds that side of the router, and the host beyond.
side() {
	local n=$1 ns=${wire_ns[$1]} wire pid
	_clear_side "$n"
	kind[n]=$2
	wire=$(_stack "$ns" "wire${plug[n]}" "$(host_kind "$n")" $((10 * n + 10)))
	host_base[n]=$wire
	_build_router "$n" "$2" "$(mac_of "$ns" "$wire")"
	case $2 in
	*pppoe)
		read -r pid wire < <(session "$ns" "$wire" $((0x1234 + n)) "$(mac_of "$router" "${base[n]}")")
		pids[n]+=" $pid"
		;;
	esac
	host_top[n]=$wire

	_address "$ns" "$wire" "${host_v4[n]}/24" "${host_v6[n]}/64"
	case $2 in
	*pppoe)
		on "$router" ip link set "${top[n]}" mtu 1492
		on "$ns" ip link set "$wire" mtu 1492
		on "$ns" ip route replace default dev "$wire"
		on "$ns" ip -6 route replace default dev "$wire"
		;;
	*)
		on "$ns" ip route replace default via "${router_v4[n]}"
		on "$ns" ip -6 route replace default via "${router_v6[n]}"
		;;
	esac
	ways_work
}

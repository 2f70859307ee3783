# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What the NIC's self tests share. Their rules come from tc flower with skip_sw: software has none of them.
#
#   client: wire0 10.0.0.2 -- nic0 10.0.0.1  host  nic1 10.0.1.1 -- wire1 10.0.1.2 :server
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# hosts: the NIC with four ports, and hosts on the wires of two: the namespaces $client and $server. The ports are in
# the initial namespace.
hosts() {
	modprobe -qa sch_ingress cls_flower act_mirred act_pedit act_csum act_vlan 8021q || skip "tc or VLANs are not there"
	load_nic ports=4
	router=''
	add_ns client server
	ip -batch - <<-END
		link set wire0 netns $client
		link set wire1 netns $server
	END
	_host "" nic0 10.0.0.1
	_host "" nic1 10.0.1.1
	_host "$client" wire0 10.0.0.2 10.0.0.1
	_host "$server" wire1 10.0.1.2 10.0.1.1
	tc -batch - <<-END
		qdisc add dev nic0 clsact
		qdisc add dev nic1 clsact
	END
	sysctl -qw net.ipv4.ip_forward=1
	at_exit sysctl -qw net.ipv4.ip_forward=0
}

_host() { # NAMESPACE DEVICE ADDRESS [GATEWAY]: which says nothing by itself
	on "$1" ip -batch - <<-END
		link set $2 addrgenmode none up
		addr add $3/24 dev $2
		${4:+route add default via $4}
	END
}

# udp SPORT: what matches a flow from client to server. to DEVICE: the action.
udp() { echo "ip_proto udp src_ip 10.0.0.2 dst_ip 10.0.1.2 src_port $1 dst_port 5000"; }
to() { echo "action mirred egress redirect dev $1"; }

# [PREF=N] rule IN OUT SPORT: for that flow.
rule() {
	# shellcheck disable=SC2046
	tc filter add dev "$1" ingress protocol ip pref "${PREF:-1}" flower skip_sw $(udp "$3") $(to "$2")
}

# flush [DEVICE…]: tc withdraws its rules of nic0, or of these.
flush() {
	local dev
	for dev in "${@:-nic0}"; do tc filter del dev "$dev" ingress 2>/dev/null || true; done
}

# took COMMAND…: sets $took to the microseconds that it takes.
took() {
	local from=${EPOCHREALTIME/./}
	"$@"
	took=$((${EPOCHREALTIME/./} - from))
}

# choose_latency: sets $latency, in microseconds, beside which what tc takes by itself is little.
# shellcheck disable=SC2034 # others use it
choose_latency() {
	took rule nic0 nic1 3999
	flush
	latency=$((10 * took > 300000 ? 10 * took : 300000))
}

# refused WORDS COMMAND…: it fails, and says these words.
refused() {
	local words=$1 said
	shift
	! said=$("$@" 2>&1) || return
	echo "$said"
	[[ $said == *"$words"* ]]
}

# has_rule PATTERN: the NIC has one with this in its line.
has_rule() { grep -e "$1" $NIC/rules; }

# send SPORT COUNT [ADDRESS]: datagrams from the client to the server's port 5000. echo_of …: one after the other, each
# with its echo.
send() { "$_here/nic/udp.py" "$client" "$server" "${3:-10.0.1.2}" "$1" "$2"; }
echo_of() { "$_here/nic/udp.py" "$client" "$server" "${3:-10.0.1.2}" "$1" "$2" echo; }

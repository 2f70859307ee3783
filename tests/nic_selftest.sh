#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 900
#
# The emulated NIC by itself: rules come from tc flower with skip_sw. tc offers none of a VLAN
# device with skip_sw, so the NIC's own counters tell who forwarded.
# NIC_KO names the module, if scripts/kselftest-install has not left it here. Exits 0 if all is well, 4 if
# the kernel lacks what it needs.
#
#   client: wire0 10.0.0.2 -- nic0 10.0.0.1  host  nic1 10.0.1.1 -- wire1 10.0.1.2 :server
#                                 nic1.5 10.0.5.1 -- wire1.5 10.0.5.2, and VLAN 6 in that one
set -u

HERE=$(cd "$(dirname "$0")" && pwd)
NIC_KO=${NIC_KO:-$HERE/modules/$(uname -r)/nic/emunic.ko}
NIC=/sys/kernel/debug/emunic
RULES=${RULES:-1000}
CLIENT=nicself-c-$$ SERVER=nicself-s-$$ OTHER=nicself-o-$$
TMP=$(mktemp -d)
count=0 failed=0
echo "KTAP version 1"

ok() {
	count=$((count + 1))
	echo "ok $count $1"
}

not_ok() {
	count=$((count + 1)) failed=$((failed + 1))
	echo "not ok $count $1"
	[ -s "$TMP/out" ] && sed 's/^/# /' "$TMP/out"
	return 1
}

# t NAME COMMAND…: a test that must succeed; fails NAME COMMAND…: one that must not.
t() {
	local name=$1
	shift
	if "$@" >"$TMP/out" 2>&1; then ok "$name"; else not_ok "$name"; fi
}

fails() {
	local name=$1
	shift
	if "$@" >"$TMP/out" 2>&1; then not_ok "$name"; else ok "$name"; fi
}

skip_all() {
	echo "1..0 # SKIP $1"
	exit 4
}

# shellcheck disable=SC2329 # run by the trap
cleanup() {
	jobs -p | xargs -r kill 2>/dev/null
	wait 2>/dev/null
	lsmod | grep -q '^emunic ' && rmmod emunic
	modprobe -qr nf_flow_table_inet
	sysctl -qw net.ipv4.ip_forward=0
	for ns in "$CLIENT" "$SERVER" "$OTHER"; do
		ip netns del "$ns" 2>/dev/null
	done
	rm -rf "$TMP"
}
trap cleanup EXIT

# busywait MS COMMAND…: until COMMAND succeeds, MS at most.
busywait() {
	local end=$((${EPOCHREALTIME/./} + $1 * 1000))
	shift
	until "$@"; do
		[ "${EPOCHREALTIME/./}" -lt "$end" ] || return 1
	done
}

counter() { sed -n "s/^$1 //p" "$NIC/counters"; }
is() { [ "$(counter "$1")" = "$2" ] || { grep -E "^($1|rules) " "$NIC/counters"; false; }; }
at_least() { [ "$(counter "$1")" -ge "$2" ]; }
knob() { echo "$2" >"$NIC/$1"; }
rules() { grep -c . "$NIC/rules"; }

# [PREF=N] rule IN OUT SPORT: UDP from client to server, in hardware only
rule() {
	tc filter add dev "$1" ingress protocol ip pref "${PREF:-1}" flower skip_sw ip_proto udp \
		src_ip 10.0.0.2 dst_ip 10.0.1.2 src_port "$3" dst_port 5000 \
		action mirred egress redirect dev "$2"
}
flush() { tc filter del dev "${1:-nic0}" ingress 2>/dev/null; }
refused() { # WORDS COMMAND…: fails, and the driver's words are among the output
	local words=$1
	shift
	"$@" 2>"$TMP/err" && return 1
	cat "$TMP/err"
	grep -q "$words" "$TMP/err"
}

topology() {
	ip link set wire0 netns "$CLIENT" && ip link set wire1 netns "$SERVER" || return
	ip -n "$CLIENT" addr add 10.0.0.2/24 dev wire0
	ip -n "$SERVER" addr add 10.0.1.2/24 dev wire1
	ip addr add 10.0.0.1/24 dev nic0
	ip addr add 10.0.1.1/24 dev nic1
	for dev in nic0 nic1; do
		ip link set "$dev" addrgenmode none up
		tc qdisc add dev "$dev" clsact || return
	done
	ip -n "$CLIENT" link set wire0 addrgenmode none up
	ip -n "$SERVER" link set wire1 addrgenmode none up
	ip -n "$CLIENT" route add default via 10.0.0.1
	ip -n "$SERVER" route add default via 10.0.1.1
}

load() {
	insmod "$NIC_KO" ports=4 && [ -d "$NIC" ] && topology
}

# A TCP transfer of 2 MB that the host routes and the NIC is asked to take over.
tcp_transfer() {
	local bytes nic cpu mac0 mac1 cmac smac
	mac0=$(cat /sys/class/net/nic0/address) mac1=$(cat /sys/class/net/nic1/address)
	cmac=$(ip -n "$CLIENT" -j link show wire0 | sed 's/.*"address":"\([^"]*\)".*/\1/')
	smac=$(ip -n "$SERVER" -j link show wire1 | sed 's/.*"address":"\([^"]*\)".*/\1/')
	tc filter add dev nic0 ingress protocol ip flower skip_sw ip_proto tcp \
		src_ip 10.0.0.2 dst_ip 10.0.1.2 src_port 4000 dst_port 5000 tcp_flags 0/5 \
		action pedit ex munge eth src set "$mac1" munge eth dst set "$smac" pipe \
		action mirred egress redirect dev nic1 || return
	tc filter add dev nic1 ingress protocol ip flower skip_sw ip_proto tcp \
		src_ip 10.0.1.2 dst_ip 10.0.0.2 src_port 5000 dst_port 4000 tcp_flags 0/5 \
		action pedit ex munge eth src set "$mac0" munge eth dst set "$cmac" pipe \
		action mirred egress redirect dev nic0 || return
	knob counters 0
	ip netns exec "$SERVER" socat -u TCP-LISTEN:5000,reuseaddr "CREATE:$TMP/got" &
	busywait 5000 listening || return
	head -c 2000000 /dev/urandom >"$TMP/sent"
	timeout 120 ip netns exec "$CLIENT" socat -u "FILE:$TMP/sent" \
		TCP:10.0.1.2:5000,bind=:4000 || return
	wait %% 2>/dev/null
	cmp "$TMP/sent" "$TMP/got" || return
	bytes=$(counter nic_bytes) nic=$(counter nic_packets) cpu=$(counter cpu_packets)
	echo "nic $nic packets $bytes bytes, cpu $cpu packets"
	[ "$bytes" -gt 2000000 ] && [ "$cpu" -lt 20 ] && at_least exception_tcp_flags 3
}
listening() { ip netns exec "$SERVER" ss -Hltn 'sport = 5000' | grep -q 5000; }

# shellcheck disable=SC2329 # run by at_load
send_udp() { # SPORT COUNT
	ip netns exec "$CLIENT" python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', $1))
for i in range($2):
    s.sendto(b'x' * 100, ('10.0.1.2', 5000))"
}

stats_are_deltas() {
	local n
	rule nic0 nic1 4000 || return
	send_udp 4000 3
	busywait 2000 hw_packets 3 || return
	hw_packets 3 || return
	send_udp 4000 2
	busywait 2000 hw_packets 5 && hw_packets 5
	n=$(sed -n 's/.* packets=\([0-9]*\) bytes=\([0-9]*\) .*/\1 \2/p' "$NIC/rules")
	[ "$n" = "5 710" ]
}
hw_packets() {
	tc -s -j filter show dev nic0 ingress >"$TMP/tc"
	grep -q "\"packets\":$1[,}]" "$TMP/tc"
}

evict() {
	local cookie
	flush
	knob counters 0
	for p in 1 2 3 4; do rule nic0 nic1 400$p || return; done
	is rules 4 || return
	knob evict 1
	is rules 3 && ! grep -q sport=4001 "$NIC/rules" || return
	cookie=$(sed -n 's/^cookie=\(0x[0-9a-f]*\) .*sport=4003 .*/\1/p' "$NIC/rules")
	knob evict "$cookie"
	is rules 2 && ! grep -q sport=4003 "$NIC/rules" || return
	knob evict "$cookie" 2>/dev/null && return 1
	knob evict all
	is rules 0 && is evicted 4 && [ "$(rules)" = 0 ] || return
	tc -s filter show dev nic0 ingress >/dev/null
	at_least stats_enoent 4 || return
	flush
	is destroy_enoent 4 && is destroy_ok 0
}

silent_zero() {
	rule nic0 nic1 4000 && knob accept +silent_zero && knob counters 0 && knob reset 1 || return
	flush
	knob accept -silent_zero
	is destroy_enoent 1 && is evicted 1 && is rules 0
}

capacity() {
	knob capacity 2
	rule nic0 nic1 4001 && rule nic0 nic1 4002 || return
	refused "table full" rule nic0 nic1 4003 || return
	knob capacity 0
	rule nic0 nic1 4003 && is rules 3 && is replace_enospc 1
}

overcommit() {
	flush
	knob accept +overcommit && knob capacity 2 && knob counters 0 || return
	rule nic0 nic1 4001 && rule nic0 nic1 4002 && rule nic0 nic1 4003 && is rules 3 || return
	[ "$(grep -c ' waiting$' "$NIC/rules")" = 1 ] || return
	send_udp 4003 1
	busywait 2000 at_least nic0.cpu_packets 1 && is nic_packets 0 || return
	knob evict 1
	! grep waiting "$NIC/rules" || return
	send_udp 4003 1
	busywait 2000 at_least nic_packets 1 || return
	flush
	is replace_enospc 0
	knob profile none
}

# --- profiles: what a driver takes, and with which error it refuses the rest

macs="action pedit ex munge eth src set 02:00:00:00:05:01 munge eth dst set 02:00:00:00:05:02 pipe"
# each: a name, verdicts of mlx5, mtk_ppe, airoha_ppe, bnxt (+ taken, I -EINVAL, S -EOPNOTSUPP, any
# other: not asked), protocol, match, actions before the way out; _ for none, @MACS for both MACs
profile_cases() {
	local udp='ip_proto udp src_port 1 dst_port 2' gre='ip_proto 2f'
	local v4='src_ip 10.0.0.2 dst_ip 10.0.1.2' v6='src_ip fd00::2 dst_ip fd01::2'
	local q='vlan_id 7 vlan_ethtype ip' in='indev nic0'
	cat <<-END
		plain|++++|ip|$in $udp $v4|$macs
		IPv6|++++|ipv6|$in $udp $v6|$macs
		no META|+SS+|ip|$udp $v4|$macs
		no MACs|+II+|ip|$in $udp $v4|
		a multicast MAC|.II.|ip|$in $udp $v4|${macs/05:02/05:02 munge eth src set 01:00:00:00:00:01}
		one MAC|+II.|ip|$in $udp $v4|${macs/munge eth dst set 02:00:00:00:05:02/}
		TTL|+SS+|ip|$in $udp $v4|${macs/pipe/munge ip ttl add 255 pipe}
		hop limit|+SS+|ipv6|$in $udp $v6|${macs/pipe/munge ip6 hoplimit add 255 pipe}
		DSCP|.III|ip|$in $udp $v4|${macs/pipe/munge ip tos set 4 pipe}
		the same bits twice|S...|ip|$in $udp $v4|${macs/pipe/munge ip src set 10.0.0.9 munge ip src set 10.0.0.8 pipe}
		IPv4 NAT|++++|ip|$in $udp $v4|${macs/pipe/munge ip src set 10.0.0.9 munge udp sport set 9 pipe}
		IPv6 NAT|+SS+|ipv6|$in $udp $v6|${macs/pipe/munge ip6 src set fd00::9 munge udp sport set 9 pipe}
		GRE|+SS+|ip|$in $gre $v4|$macs
		GRE with NAT|SSS+|ip|$in $gre $v4|${macs/pipe/munge ip src set 10.0.0.9 pipe}
		ICMP|.SS.|ip|$in ip_proto icmp $v4|$macs
		an unknown key|.+++|ip|$in $udp $v4 ip_tos 4|$macs
		CSUM of what was not rewritten|S..+|ip|$in $udp $v4|action csum udp and ip4h pipe
		CSUM after a rewrite|++++|ip|$in $udp $v4|${macs/pipe/munge ip src set 10.0.0.9 pipe} action csum udp and ip4h pipe
		a tag|++++|ip|$in $udp $v4|$macs action vlan push id 7 pipe
		an 802.1ad tag|+SS+|ip|$in $udp $v4|$macs action vlan push id 7 protocol 802.1ad pipe
		two tags|+++.|ip|$in $udp $v4|$macs action vlan push id 7 pipe action vlan push id 8 pipe
		three tags|SSS.|ip|$in $udp $v4|$macs action vlan push id 7 pipe action vlan push id 8 pipe action vlan push id 9 pipe
		a tag taken off|++++|802.1Q|$in $q $udp $v4|$macs action vlan pop pipe
		an 802.1ad tag taken off|++++|802.1ad|$in $q $udp $v4|$macs action vlan pop pipe
		a tag changed|++++|802.1Q|$in $q $udp $v4|$macs action vlan pop pipe action vlan push id 8 pipe
		a tag changed, with priority|S+++|802.1Q|$in $q $udp $v4|$macs action vlan pop pipe action vlan push id 8 priority 3 pipe
		an 802.1ad tag changed|S+++|802.1ad|$in $q $udp $v4|$macs action vlan pop pipe action vlan push id 8 pipe
		a tag changed, another added|S++.|802.1Q|$in $q $udp $v4|$macs action vlan pop pipe action vlan push id 8 pipe action vlan push id 9 pipe
		priority 16|++++|pref 16 ip|$in $udp $v4|$macs
		priority 17|S+++|pref 17 ip|$in $udp $v4|$macs
		back where it came from|S+++|ip|$in $udp $v4|$macs|nic0
		another device|SSII|ip|$in $udp $v4|$macs|lo
	END
}

# verdict MATCH ACTIONS OUT: what the NIC makes of a rule
verdict() {
	local all other
	knob evict all && knob counters 0
	# shellcheck disable=SC2086
	tc filter add dev nic0 ingress protocol $1 $2 action mirred egress redirect dev $3 2>"$TMP/err"
	if is replace_ok 1 >/dev/null; then
		echo +
		flush
		return
	fi
	all=$(counter replace_failed) other=$(counter replace_eopnotsupp)
	case $all$other in
	10) echo I ;;
	11) echo S ;;
	*) echo "? $(cat "$TMP/err")" ;;
	esac
}

profile() { # NAME COLUMN
	local name verdicts proto match actions out got want failed=0 n=0
	# tc is told at BIND whether it needs RTNL
	tc qdisc del dev nic0 clsact && knob profile "$1" && [ "$(cat $NIC/profile)" = "$1" ] &&
		tc qdisc add dev nic0 clsact || return
	while IFS='|' read -r name verdicts proto match actions out; do
		want=${verdicts:$2:1}
		[ "$want" != . ] || continue
		case $proto in
		pref*) ;;
		*) proto="$proto pref 1" ;;
		esac
		[ "${proto% ip}" = "$proto" ] || proto="ip ${proto% ip}"
		got=$(verdict "$proto flower skip_sw $match" "$actions" "${out:-nic1}")
		n=$((n + 1))
		[ "$got" = "$want" ] || {
			echo "$name: $got, not $want"
			failed=1
		}
	done < <(profile_cases)
	echo "$n cases"
	[ $n -ge 25 ] && [ $failed = 0 ]
}

profile_capacity() {
	local name
	for name in mlx5-ft:65536 mlx5-tc:0 mtk_ppe:16384 airoha_ppe:24576 bnxt:0 \
		tc-rtnl:0 none:0; do
		knob profile "${name%:*}" && [ "$(cat $NIC/profile)" = "${name%:*}" ] &&
			[ "$(cat $NIC/capacity)" = "${name#*:}" ] || return
	done
	knob accept +8021ad && [ "$(cat $NIC/profile)" = custom ] && knob profile none &&
		grep -q -- -8021ad $NIC/accept
}

fault_always() {
	knob counters 0
	knob faults "replace 28 100 nic1"
	rule nic0 nic1 4000 || return
	refused "injected failure" rule nic1 nic0 4000 || return
	[ "$(cat $NIC/faults)" = "replace -28 100% nic1" ] || return
	knob faults none
	[ ! -s "$NIC/faults" ] || [ -z "$(cat $NIC/faults)" ] || return
	rule nic1 nic0 4000 && is replace_failed 1 && is faults 1
}

fault_destroy() {
	flush nic1
	flush
	rule nic0 nic1 4000 && knob faults "destroy -5 100%" || return
	flush
	is rules 1 && at_least destroy_failed 1 || return
	knob counters 0
	PREF=2 refused "match already" rule nic0 nic1 4000 || return
	is replace_dup_kept 1 && is replace_dup_match 0 || return
	knob faults none
	knob evict all
}

fault_half() {
	local good
	knob faults "replace 12 50%"
	for p in $(seq 100); do
		echo "filter add dev nic0 ingress protocol ip pref 1 flower skip_sw ip_proto udp" \
			"src_ip 10.0.0.2 dst_ip 10.0.1.2 src_port $p dst_port 1" \
			"action mirred egress redirect dev nic1"
	done >"$TMP/batch"
	tc -force -batch "$TMP/batch" 2>/dev/null
	knob faults none
	good=$(counter rules)
	echo "$good of 100"
	[ "$good" -gt 20 ] && [ "$good" -lt 80 ] && is faults $((100 - good))
}

latency() {
	local from
	knob latency_us 200000
	from=$(date +%s%3N)
	rule nic0 nic1 4000
	knob latency_us 0
	[ $(($(date +%s%3N) - from)) -ge 200 ]
}

# ms COMMAND…: how long it takes
ms() {
	local from=${EPOCHREALTIME/./}
	"$@" >&2 || echo failed
	echo $(((${EPOCHREALTIME/./} - from) / 1000))
}

# tc takes RTNL for neither.
two_at_once() {
	local other status
	rule nic0 nic1 4000 &
	other=$!
	rule nic1 nic0 4000
	status=$?
	wait $other && return $status
}
serial() {
	knob latency_us 300000
	knob counters 0
	two_at_once && is most_at_once 2 || return
	flush
	flush nic1
	knob serial 1
	knob counters 0
	two_at_once && is most_at_once 1 || return
	knob serial 0
	knob latency_us 0
	flush
	flush nic1
}

# nic2 and nic3 are of another NIC.
apart() {
	local slow well
	knob apart nic2 && knob apart nic3 && [ "$(paste -sd ' ' $NIC/apart)" = "nic2 nic3" ] || return
	for dev in nic2 nic3; do tc qdisc add dev $dev clsact; done
	refused "not a port of this NIC" rule nic0 nic2 4000 && refused "not a port of this NIC" rule nic2 nic0 4000 || return
	rule nic2 nic3 4000 && flush nic2 && knob latency_us 300000 && knob faults "replace 28 100" || return
	well=$(ms rule nic2 nic3 4000)
	slow=$(ms refused "injected failure" rule nic0 nic1 4000)
	knob faults none
	knob latency_us 0
	echo "$well ms, $slow ms"
	[ $((slow - well)) -ge 200 ] && flush nic2 && knob apart none && [ ! -s <(cat $NIC/apart) ] || return
	rule nic2 nic0 4000 && flush nic2
	for dev in nic2 nic3; do tc qdisc del dev $dev clsact; done
}

bind_fault() {
	tc qdisc del dev nic0 clsact
	is nic0.bound_block 0 || return
	knob faults "bind 95 100 nic0"
	tc qdisc add dev nic0 clsact 2>/dev/null
	is nic0.bound_block 0 && at_least bind_failed 1 || return
	knob faults none
	tc qdisc del dev nic0 clsact 2>/dev/null
	knob accept -block
	tc qdisc add dev nic0 clsact 2>/dev/null
	is nic0.bound_block 0 || return
	knob accept default
	tc qdisc del dev nic0 clsact 2>/dev/null
	tc qdisc add dev nic0 clsact && is nic0.bound_block 1 && is nic0.bound_ft 0
}

leak_on_unbind() {
	# a tc qdisc withdraws its rules first, so let DESTROY fail: the NIC must not flush
	rule nic0 nic1 4000 && knob faults "destroy 5 100" || return
	tc qdisc del dev nic0 clsact
	knob faults none
	is rules 1 && is nic0.bound_block 0 && knob evict all && tc qdisc add dev nic0 clsact
}

vanish() {
	flush
	flush nic1
	knob counters 0
	rule nic0 nic1 4000 && rule nic1 nic0 4000 && rule nic0 nic2 4001 && is rules 3 || return
	knob vanish nic1
	# tc withdrew the rule of nic1's own block when it was unbound
	is rules 1 && is destroy_ok 1 && is vanished 1 && is nic1.present 0 || return
	ip link show nic1 2>/dev/null && return 1
	ip -n "$SERVER" link show wire1 2>/dev/null && return 1
	knob vanish nic1 2>/dev/null && return 1
	send_udp 4000 1
	is nic_packets 0
}

appear() {
	knob appear nic1 && is nic1.present 1 && ip link set wire1 netns "$SERVER" || return
	ip -n "$SERVER" addr add 10.0.1.2/24 dev wire1
	ip link set nic1 addrgenmode none up && ip addr add 10.0.1.1/24 dev nic1
	ip -n "$SERVER" link set wire1 addrgenmode none up
	tc qdisc add dev nic1 clsact && rule nic0 nic1 4005 || return
	knob counters 0
	send_udp 4005 2
	busywait 2000 at_least nic0.nic_packets 2
}

move_and_rename() {
	ip link set nic2 name lan2 && ip link set lan2 netns "$OTHER" || return
	ip -n "$OTHER" link set lan2 up && ip link set wire2 up || return
	[ "$(ip netns exec "$OTHER" cat /sys/class/net/lan2/carrier)" = 1 ] || return
	ip netns exec "$OTHER" tc qdisc add dev lan2 clsact && is nic2.bound_block 1 || return
	ip netns del "$OTHER"
	busywait 5000 ip link show lan2 || return
	busywait 5000 is nic2.bound_block 0 && knob vanish nic2 && knob appear nic2 &&
		ip link show nic2
}

scale() {
	local p
	flush
	for p in $(seq "$RULES"); do
		echo "filter add dev nic0 ingress protocol ip pref 1 flower skip_sw ip_proto udp" \
			"src_ip 10.0.0.2 dst_ip 10.1.$((p / 250)).$((p % 250)) src_port 1 dst_port 1" \
			"action mirred egress redirect dev nic1"
	done >"$TMP/batch"
	tc -batch "$TMP/batch" || return
	is rules "$RULES" || return
	[ "$(sort -u "$NIC/rules" | grep -c dst=10.1)" = "$RULES" ]
}

restart_counters() {
	grep -q "packets=[1-9]" "$NIC/rules" && knob reset 2 && ! grep -q "packets=[1-9]" "$NIC/rules"
}

reset_counters() {
	at_least replace_ok 1 && knob counters 0 && is replace_ok 0 && is rules_max "$RULES" &&
		is nic_packets 0 && is rules "$RULES"
}

carrier() {
	[ "$(cat /sys/class/net/nic0/carrier)" = 1 ] || return
	ip -n "$CLIENT" link set wire0 down
	[ "$(cat /sys/class/net/nic0/carrier)" = 0 ] || return
	ip -n "$CLIENT" link set wire0 up
	ip -n "$CLIENT" route replace default via 10.0.0.1
	busywait 2000 ip netns exec "$CLIENT" ping -qc1 -W1 10.0.0.1
}

# --- VLAN devices over ports

vlan_topology() {
	local sub=5 dev
	for dev in 1 1.5; do
		ip link add link nic$dev name nic$dev.$sub type vlan id $sub || return
		ip -n "$SERVER" link add link wire$dev name wire$dev.$sub type vlan id $sub
		ip addr add 10.0.$sub.1/24 dev nic$dev.$sub
		ip -n "$SERVER" addr add 10.0.$sub.2/24 dev wire$dev.$sub
		ip link set nic$dev.$sub addrgenmode none up
		ip -n "$SERVER" link set wire$dev.$sub addrgenmode none up
		sub=6
	done
	ip netns exec "$CLIENT" ping -qc1 -W2 10.0.5.2 && ip netns exec "$CLIENT" ping -qc1 -W2 10.0.6.2
}

# vlan_rule IN SRC SPORT DST DPORT OUT DMAC [MATCH…]
vlan_rule() {
	tc filter add dev "$1" ingress protocol ip pref 1 flower "${@:8}" ip_proto udp src_ip "$2" \
		src_port "$3" dst_ip "$4" dst_port "$5" action pedit ex munge eth dst set "$7" pipe \
		action mirred egress redirect dev "$6"
}
mac() { ip -n "$1" -j link show "$2" | sed 's/.*"address":"\([^"]*\)".*/\1/'; }
there() { vlan_rule nic0 10.0.0.2 4000 "10.0.$2.2" 5000 "$1" "$(mac "$SERVER" wire1)"; }
back() { vlan_rule "$1" "10.0.$2.2" 5000 10.0.0.2 4000 nic0 "$(mac "$CLIENT" wire0)" "${@:3}"; }

# vlan_echo NET COUNT: there and back, one after another
vlan_echo() {
	ip -n "$SERVER" route replace 10.0.0.0/24 via "10.0.$1.1" || return
	ip netns exec "$SERVER" python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('10.0.$1.2', 5000))
for i in range($2):
    s.sendto(*s.recvfrom(200))" &
	busywait 5000 udp_listening || return
	ip netns exec "$CLIENT" python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 4000))
s.settimeout(5)
for i in range($2):
    s.sendto(b'x' * 100, ('10.0.$1.2', 5000))
    s.recv(200)"
	local status=$?
	kill %% 2>/dev/null
	wait %% 2>/dev/null
	return $status
}
udp_listening() { ip netns exec "$SERVER" ss -Hlun 'sport = 5000' | grep -q 5000; }

vlan_bind() {
	local dev
	knob counters 0
	for dev in nic1.5 nic1.5.6; do tc qdisc add dev $dev clsact || return; done
	is nic1.bound_indr 2 && is nic0.bound_indr 0 && is bind_ok 2 || return
	# not of a port, and too many tags
	ip link add link wire3 name other.5 type vlan id 5
	ip link add link nic1.5.6 name three type vlan id 7
	for dev in other.5 three; do tc qdisc add dev $dev clsact || return; done
	is bind_ok 2 && is bind_failed 0 && is nic1.bound_indr 2 || return
	for dev in other.5 three; do ip link del $dev || return; done
	is unbind_ok 0 && is unbind_failed 0
}

vlan_passes() { # DEV NET TAGS POPS
	knob counters 0
	there "$1" "$2" && back "$1" "$2" || return
	cat $NIC/rules
	grep -q "via=block in=nic0 vlan=none .* out=nic1 actions=.*vlan_push:$3,redirect " $NIC/rules &&
		grep -q "via=indr_block in=nic1 vlan=$3 .* out=nic0 actions=.*[^p],${4}redirect " \
			$NIC/rules || return
	vlan_echo "$2" 5 && is nic0.nic_packets 5 && is nic1.nic_packets 5 || return
	flush "$1"
	flush
	is rules 0
}

# Rules that come to the callback of nic1.5
vlan_ingress() {
	back nic1.5 5 indev nic1.5 && is rules 1 || return
	grep -q "in=nic1 vlan=5 " $NIC/rules || return
	flush nic1.5
	# any packet that matches would do in software, so tc keeps them
	back nic1.5 5 indev nic1 && is rules 0 && is replace_failed 1 || return
	flush nic1.5
	tc filter add dev nic1.5 ingress protocol 802.1q pref 1 flower vlan_id 6 vlan_ethtype ip \
		ip_proto udp src_ip 10.0.6.2 dst_ip 10.0.0.2 src_port 1 dst_port 2 \
		action vlan pop pipe action mirred egress redirect dev nic0 || return
	cat $NIC/rules
	grep -q "via=indr_block in=nic1 vlan=5.6 .* actions=vlan_pop,vlan_pop,redirect " $NIC/rules ||
		return
	flush nic1.5
	back nic1.5.6 6 indev nic1.5.6 && grep -q "in=nic1 vlan=5.6 " $NIC/rules || return
	flush nic1.5.6
	tc filter add dev nic1.5.6 ingress protocol 802.1q pref 1 flower vlan_id 7 vlan_ethtype ip \
		ip_proto udp src_ip 10.0.6.2 dst_ip 10.0.0.2 src_port 1 dst_port 2 \
		action mirred egress redirect dev nic0 || return
	is rules 0 || return
	flush nic1.5.6
}

# What mlx5 makes of tags: each push and pop is one of two, and a push after a pop is a new ID
vlan_profile() {
	knob profile mlx5-tc && knob counters 0 || return
	tc filter add dev nic1.5 ingress protocol 802.1q pref 1 flower vlan_id 6 vlan_ethtype ip \
		ip_proto udp src_ip 10.0.6.2 dst_ip 10.0.0.2 src_port 1 dst_port 2 \
		action vlan pop pipe action vlan push id 9 pipe action mirred egress redirect dev nic0 ||
		return
	cat $NIC/rules
	grep -q "vlan=5.6 .* actions=vlan_pop,vlan_id:9,redirect " $NIC/rules || return
	flush nic1.5
	knob accept +hairpin
	vlan_rule nic1.5 10.0.5.2 1 10.0.6.2 2 nic1.5 02:00:00:00:05:02 && is rules 1 || return
	flush nic1.5
	vlan_rule nic1.5.6 10.0.5.2 1 10.0.6.2 2 nic1.5 02:00:00:00:05:02 && is rules 0 || return
	flush nic1.5.6
	knob profile none
}

vlan_down() {
	there nic1.5 5 && knob counters 0 && ip link set nic1.5 down || return
	ip netns exec "$CLIENT" python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 4000))
s.sendto(b'x', ('10.0.5.2', 5000))"
	busywait 2000 at_least nic0.exception_egress 1 && is nic_packets 0 || return
	flush
	# a rule that comes when the device is down
	there nic1.5 5 && ip link set nic1.5 up && ip link set nic1.5.6 up && vlan_echo 5 2 &&
		is nic0.nic_packets 2 || return
	flush
}

other_device() {
	local got=/sys/class/net/other1/statistics/rx_packets
	ip link add other0 type veth peer name other1 && ip link set other0 addrgenmode none up &&
		ip link set other1 addrgenmode none up || return
	knob accept +wed && knob counters 0 && rule nic0 other0 4000 || return
	grep " out=dev$(cat /sys/class/net/other0/ifindex) " $NIC/rules || return
	send_udp 4000 3
	busywait 2000 is nic_packets 3 && [ "$(cat $got)" = 3 ] || return
	ip link set other0 down
	send_udp 4000 1
	busywait 2000 is nic0.exception_egress 1 && is nic_packets 3 || return
	flush
	ip link delete other0 && knob accept default
}

vlan_word() {
	knob accept -redirect_vlan_dev
	refused "not a port of this NIC" rule nic0 nic1.5 4000 || return
	knob accept default
	rule nic0 nic1.5 4000 && ip link set nic1.5.6 down || return
	flush
	ip link set nic1.5.6 up
}

vlan_bind_faults() {
	tc qdisc del dev nic1.5 clsact
	is nic1.bound_indr 1 && knob counters 0 && knob faults "bind 95 100 nic1" || return
	tc qdisc add dev nic1.5 clsact
	is nic1.bound_indr 1 && is bind_failed 1 && knob faults none || return
	tc qdisc del dev nic1.5 clsact
	is unbind_failed 1 && knob accept -indirect || return
	tc qdisc add dev nic1.5 clsact
	is nic1.bound_indr 1 && is bind_failed 2 && knob accept default || return
	tc qdisc del dev nic1.5 clsact
	tc qdisc add dev nic1.5 clsact
	is nic1.bound_indr 2 && is bind_ok 1
}

# tc withdraws its rules in the cleanup callback
vlan_unregister() {
	back nic1.5 5 && back nic1.5.6 6 && is rules 2 && knob indirect 0 || return
	is nic1.bound_indr 0 && is rules 0 && [ "$(cat $NIC/indirect)" = 0 ] || return
	tc qdisc del dev nic1.5 clsact && tc qdisc add dev nic1.5 clsact && is nic1.bound_indr 0 ||
		return
	knob indirect 0 && knob indirect 1 && knob indirect 1 && is nic1.bound_indr 0 || return
	for dev in nic1.5 nic1.5.6; do
		tc qdisc del dev $dev clsact && tc qdisc add dev $dev clsact || return
	done
	is nic1.bound_indr 2
}

# Those that are bound when the NIC registers: one of each block is replayed
vlan_replay() {
	knob accept +replay && knob indirect 0 && is nic1.bound_indr 0 && knob indirect 1 &&
		is nic1.bound_indr 2 && knob accept default || return
	for dev in nic1.5 nic1.5.6; do
		tc qdisc del dev $dev clsact && tc qdisc add dev $dev clsact || return
	done
	is nic1.bound_indr 2
}

vlan_flowtable() {
	tc qdisc del dev nic1.5 clsact
	knob counters 0
	# the C module's rules are of ports, whatever devices there are, and do not say that they
	# match a tag: one way only
	nft -f - <<-END || return
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
	is nic0.bound_ft 1 && is nic1.bound_ft 1 && is nic1.bound_indr 2 || return
	vlan_echo 5 3 && busywait 5000 at_least rules 1 || return
	cat $NIC/rules
	grep -q "via=ft in=nic0 .* out=nic1 actions=.*vlan_push:5,redirect" $NIC/rules || return
	vlan_echo 5 3 && at_least nic0.nic_packets 3 || return
	# the flow does not enter there, and stays
	knob indirect 0
	is nic1.bound_indr 0 && is nic1.bound_ft 1 && is rules 1 && knob indirect 1 || return
	vlan_echo 5 3 && at_least nic0.nic_packets 6 || return
	nft delete table inet nicself
	# it unbinds before it withdraws
	busywait 5000 is nic1.bound_ft 0 && is nic0.bound_ft 0 && knob evict all || return
	tc qdisc add dev nic1.5 clsact
	tc qdisc del dev nic1.5.6 clsact
	tc qdisc add dev nic1.5.6 clsact
	is nic1.bound_indr 2
}

vlan_gone() {
	knob counters 0
	there nic1.5 5 && there nic1.5.6 6 && back nic1.5.6 6 && is rules 3 || return
	ip link del nic1.5.6
	is rules 1 && is vanished 1 && is nic1.bound_indr 1 && grep -q vlan_push:5, $NIC/rules || return
	back nic1.5 5 || return
	ip link del nic1.5
	is rules 0 && is vanished 2 && is nic1.bound_indr 0 || return
	flush
	ip link set nic3 up && ip link add link nic3 name nic3.9 type vlan id 9 &&
		ip link set nic3.9 up && tc qdisc add dev nic3.9 clsact && rule nic0 nic3.9 4000 &&
		is nic3.bound_indr 1 || return
	knob vanish nic3
	is rules 0 && is nic3.bound_indr 0 && flush && knob appear nic3
}

# The core must not clean up what its binder has given up; the NIC frees it when it unloads.
vlan_leak() {
	ip link set nic3 up && ip link add link nic3 name nic3.9 type vlan id 9 &&
		tc qdisc add dev nic3.9 clsact && knob counters 0 &&
		knob faults "unbind 5 100 nic3" || return
	tc qdisc del dev nic3.9 clsact
	knob faults none
	is unbind_failed 1 && is nic3.bound_indr 1 && knob indirect 0 && knob indirect 1 &&
		is nic3.bound_indr 1 && ip link del nic3.9
}

unload_under_traffic() {
	ip netns exec "$CLIENT" python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 4000))
while True:
    try:
        s.sendto(b'x', ('10.0.1.2', 5000))
    except OSError:
        pass" &
	local flood=$!
	flush
	rule nic0 nic1 4000 && rule nic1 nic0 4000 && knob counters 0 || return
	ip link add link nic1 name nic1.5 type vlan id 5 && ip link set nic1.5 up &&
		tc qdisc add dev nic1.5 clsact && back nic1.5 5 && is nic1.bound_indr 1 || return
	busywait 5000 at_least nic_packets 1000 || return
	rmmod emunic || return
	kill $flood
	wait $flood 2>/dev/null
	[ ! -e "$NIC" ] && ! ip link show nic0 2>/dev/null
}

[ "$(id -u)" = 0 ] || skip_all "needs root"
mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug || skip_all "no debugfs"
for mod in sch_ingress cls_flower act_mirred act_pedit act_csum act_vlan 8021q; do
	modprobe -q $mod || skip_all "no $mod"
done
for ns in "$CLIENT" "$SERVER" "$OTHER"; do
	ip netns add "$ns" || skip_all "no network namespaces"
	ip -n "$ns" link set lo up
done

fails "ports=1 is refused" insmod "$NIC_KO" ports=1
fails "ports=65 is refused" insmod "$NIC_KO" ports=65
t "loads with 4 ports" load || exit 1
t "seed is printed" sh -c 'dmesg | grep -q "emunic: 4 ports, seed=[0-9]"'
t "ethtool knows the driver" sh -c 'ethtool -i nic0 | grep -q "^driver: emunic"'
t "hw-tc-offload is on" sh -c 'ethtool -k nic0 | grep -q "^hw-tc-offload: on"'
t "no segmentation or checksum offload" sh -c \
	'! ethtool -k nic0 | grep -E "^(tcp-seg.*|tx-checksumming|rx-checksumming): on"'
t "mtu 9000 is taken" sh -c 'ip link set nic3 mtu 9000 && ! ip link set nic3 mtu 9001 2>/dev/null'
t "carrier follows the other end" carrier
t "clsact binds the block" is nic0.bound_block 1

# what reaches the CPU must not come back out
sysctl -qw net.ipv4.ip_forward=0
PYTHONPATH=$HERE python3 "$HERE/nic/frames.py" "$CLIENT" "$SERVER" >"$TMP/frames" 2>&1
status=$?
while read -r line; do
	case $line in
	"ok "*) ok "frame: ${line#ok }" ;;
	"not ok "*)
		: >"$TMP/out"
		not_ok "frame: ${line#not ok }"
		;;
	*) echo "# $line" ;;
	esac
done <"$TMP/frames"
sysctl -qw net.ipv4.ip_forward=1
t "every frame as expected" [ $status = 0 ]

flush
t "a TCP transfer passes in the NIC" tcp_transfer
flush
flush nic1
t "statistics are deltas" stats_are_deltas
t "counters of rules start anew" restart_counters
PREF=2 t "the same match twice is refused" refused "match already" rule nic0 nic1 4000
t "and counted" is replace_dup_match 1
t "eviction" evict
t "silent answers for lost rules" silent_zero
t "capacity" capacity
flush
t "beyond the capacity, rules wait" overcommit
for column in mlx5-tc:0 mlx5-ft:0 tc-rtnl:0 mtk_ppe:1 airoha_ppe:2 bnxt:3; do
	t "profile ${column%:*}" profile "${column%:*}" "${column#*:}"
done
t "profiles have a capacity" profile_capacity
flush
t "fault with a port" fault_always
t "fault of DESTROY leaves the rule, which another one meets" fault_destroy
flush
knob counters 0
t "fault with a probability" fault_half
flush
t "latency" latency
flush
t "commands one after the other" serial
t "ports of another NIC" apart
flush
t "faults and words for BIND" bind_fault
t "UNBIND flushes nothing" leak_on_unbind
t "redirect to another device is refused" refused "not a port of this NIC" rule nic0 lo 4000
t "but not by hardware that hands frames to others" other_device
t "an unknown key is refused" refused "not supported" tc filter add dev nic0 ingress protocol ip \
	flower skip_sw ip_proto udp ip_tos 4 src_ip 10.0.0.2 dst_ip 10.0.1.2 src_port 1 dst_port 2 \
	action mirred egress redirect dev nic1
t "a wide match is refused" refused "mask not exact" tc filter add dev nic0 ingress protocol ip \
	flower skip_sw ip_proto udp src_ip 10.0.0.0/24 dst_ip 10.0.1.2 src_port 1 dst_port 2 \
	action mirred egress redirect dev nic1
t "a drop is refused" refused "redirect must be" tc filter add dev nic0 ingress protocol ip \
	flower skip_sw ip_proto udp src_ip 10.0.0.2 dst_ip 10.0.1.2 src_port 1 dst_port 2 action drop
t "802.1ad push is refused" refused "vlan push" tc filter add dev nic0 ingress protocol ip \
	flower skip_sw ip_proto udp src_ip 10.0.0.2 dst_ip 10.0.1.2 src_port 1 dst_port 2 \
	action vlan push id 5 protocol 802.1ad pipe action mirred egress redirect dev nic1
t "a TTL action is refused" refused "add of header" tc filter add dev nic0 ingress protocol ip \
	flower skip_sw ip_proto udp src_ip 10.0.0.2 dst_ip 10.0.1.2 src_port 1 dst_port 2 \
	action pedit ex munge ip ttl add 255 pipe action mirred egress redirect dev nic1
ethtool -K nic0 hw-tc-offload off
fails "hw-tc-offload off is honoured" rule nic0 nic1 4000
ethtool -K nic0 hw-tc-offload on
for bad in "accept +nonsense" "accept ft" "faults replace 28" "faults replace 28 101" \
	"faults forget 28 10" "faults replace 28 10 nic9" "evict some" "counters 1" "reset 0" \
	"vanish eth0" "appear nic0" "profile mlx4" "indirect 2" "wifi eth0"; do
	# shellcheck disable=SC2086
	fails "bad write: $bad" eval "knob ${bad%% *} '${bad#* }'"
done
flush
flush nic1
t "VLAN devices over ports" vlan_topology
t "are bound indirectly" vlan_bind
t "a VLAN device's rules" vlan_ingress
t "packets pass from and to a VLAN device" vlan_passes nic1.5 5 5 vlan_pop,
t "and one over another" vlan_passes nic1.5.6 6 5.6 vlan_pop,vlan_pop,
t "tags as mlx5 counts them" vlan_profile
t "a VLAN device that is down" vlan_down
t "the word for VLAN devices" vlan_word
t "faults and words for their BIND" vlan_bind_faults
t "the NIC unregisters" vlan_unregister
t "and takes what is replayed" vlan_replay
t "a flowtable with a VLAN device" vlan_flowtable
t "VLAN devices go" vlan_gone
t "an UNBIND of a VLAN device that fails" vlan_leak
t "a port vanishes" vanish
t "and comes back" appear
t "a port moves and is renamed" move_and_rename
t "$RULES rules" scale
t "counters start from zero" reset_counters
t "unloads under traffic with rules and bound blocks" unload_under_traffic
t "what was still bound is freed" sh -c 'dmesg | grep -q "emunic: a block of a VLAN device"'
t "loads again" insmod "$NIC_KO" indirect=0
t "without VLAN devices" [ "$(cat $NIC/indirect)" = 0 ]

echo "1..$count"
echo "# $((count - failed)) passed, $failed failed"
[ $failed = 0 ]

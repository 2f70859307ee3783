# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What the isolation tests share: what goes on elsewhere must take as long beside trouble as it took
# before. A test says
#
#   two_nics                      a NIC that will be in trouble (nic0, nic1), and one that will not (nic2, nic3)
#   stranger_begins               a namespace of others
#   trouble() { … }               makes it, so that each call of the NIC's driver takes $latency_us
#   lasts() { … }                 whether it has lasted
#   relieve() { … }               ends it
#   control                       how long everything takes without
#   as_before "beside a slow NIC" trouble lasts
#
# Each call of the driver takes ten times as long as anything of the control did, and nothing may take
# half of that: who has to wait for as much as one call is found out, however fast the machine is.
source "$(dirname "${BASH_SOURCE[0]}")/../truth/lib.sh"

two_nics() {
	topology ports=4
	nic apart nic2
	nic apart nic3
	ip -batch - <<-END
		link set nic2 netns $router
		link set nic3 netns $router
		link set wire2 netns $client
		link set wire3 netns $server
	END
	_address "$router" nic2 192.168.3.1/24 fd00:3::1/64
	_address "$router" nic3 10.0.4.1/24 fd00:4::1/64
	_address "$client" wire2 192.168.3.2/24 fd00:3::2/64
	_address "$server" wire3 10.0.4.2/24 fd00:4::2/64
	on "$client" ip route add 10.0.4.0/24 via 192.168.3.1
	on "$server" ip route add 192.168.3.0/24 via 10.0.4.1
	on "$server" sysctl -qw net.ipv4.conf.wire3.arp_notify=1
	# A flow that waits for a driver is idle, however long a call takes.
	on "$router" sysctl -qw net.ipv4.conf.nic3.arp_notify=1 \
		net.netfilter.nf_flowtable_udp_timeout=600 net.netfilter.nf_conntrack_udp_timeout=600 \
		net.netfilter.nf_conntrack_udp_timeout_stream=600
	busywait $LIMIT on "$client" ping -q -c 1 -W 1 10.0.4.2 >/dev/null
}

# two_routers: the second NIC is in a namespace of its own, $other.
two_routers() {
	two_nics
	other=
	add_ns other
	on "$router" ip link set nic2 netns "$other"
	on "$router" ip link set nic3 netns "$other"
	_address "$other" nic2 192.168.3.1/24 fd00:3::1/64
	_address "$other" nic3 10.0.4.1/24 fd00:4::1/64
	on "$other" sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.nic3.arp_notify=1 \
		net.netfilter.nf_flowtable_udp_timeout=$((30 * SLOWNESS))
	busywait $LIMIT on "$client" ping -q -c 1 -W 1 10.0.4.2 >/dev/null
}

# follow_begins: a flow through the second NIC.
follow_begins() {
	mkfifo "$_output.follow"
	exec {_follow_ask}> >(
		exec "$_here/truth/follow.py" --client "$client" --server "$server" --to 10.0.4.2 --wire wire3 \
			--pace $PACE --watch $((300 * SLOWNESS)) --limit $((LIMIT * SLOWNESS)) >"$_output.follow"
	)
	at_exit kill $!
	exec {_follow_answer}<"$_output.follow"
}

# open_flows N: through the first NIC, which those of before leave first.
open_flows() {
	local i
	for ((i = 0; i < _flows_open; i++)); do flow_close "of_first_nic$i"; done
	_flows_open=$1
	on "$router" conntrack -D -d 10.0.2.2 >/dev/null 2>&1 || true
	busywait $LIMIT rules_are_in_first 0 >/dev/null
	for ((i = 0; i < _flows_open; i++)); do flow_open "of_first_nic$i" udp4; done
}
_flows_open=0
rules_are_in_first() {
	echo "rules: $(nic_counter nic0.rules) of nic0, $(nic_counter nic1.rules) of nic1"
	[ "$(nic_counter nic0.rules) $(nic_counter nic1.rules)" = "$1 $1" ]
}

stranger_begins() {
	stranger=''
	add_ns stranger
	echo "add table ip t; add flowtable ip t f { hook ingress priority 0; }; delete table ip t" >"$_output.nft"
	on "$stranger" nft -f "$_output.nft"
}

# What goes on elsewhere. Each sets $took, in microseconds, to how long it has taken.
declare -A say=(
	[down]="a dummy comes and goes down, in the initial namespace"
	[del]="a dummy comes and is deleted, in another namespace"
	[nft]="nft -f with a flowtable in another namespace, while a dummy goes down"
	[neighbour]="a neighbour's new MAC behind another NIC is followed, with new rules"
)
went_on=(down del nft neighbour)

# _time COMMAND…: with $limit, in microseconds, the trouble ends if that is over, lest all of it be waited for.
limit=
_time() {
	local watchdog=
	if [ -n "$limit" ]; then
		(
			read -rt "$((limit / 1000000)).$(printf %06d $((limit % 1000000)))" -u "$_never" || relieve
		) &
		watchdog=$!
	fi
	took=${EPOCHREALTIME/./}
	"$@"
	took=$((${EPOCHREALTIME/./} - took))
	if [ -n "$watchdog" ]; then
		kill $watchdog 2>/dev/null || true
		! wait $watchdog 2>/dev/null || troubled=
	fi
}
DUMMY=$'link add d0 type dummy\nlink set d0 up\nlink set d0 down\nlink del d0'
go_down() { _time ip -batch - <<<"$DUMMY"; }
go_del() { _time on "$stranger" ip -batch - <<<"${DUMMY/$'link set d0 down\n'/}"; }
# nf_flow_table_init() takes a lock that the other one's nf_flow_table_cleanup() holds.
go_nft() {
	local down
	ip -batch - <<<"$DUMMY" &
	down=$!
	_time on "$stranger" nft -f "$_output.nft"
	wait $down
}
go_neighbour() {
	local json error
	echo >&"$_follow_ask"
	read -r json <&"$_follow_answer" || json='{"error": "follow.py has died"}'
	echo "# $json"
	{ read -r error && read -r took && read -r last_old; } < <(jq -r --argjson limit $((LIMIT * SLOWNESS)) \
		'.error // "", ((.back // $limit) * 1000 | floor), (.last_old // $limit | floor)' <<<"$json")
}

# changes NAME: how long it takes to follow a neighbour's changes, and when the last frame goes to the old
# address; the longest of five, in microseconds and milliseconds.
declare -A back=() oldest=()
changes() {
	local turn
	back[$1]=0 oldest[$1]=0
	for turn in 1 2 3 4 5; do
		go_neighbour
		[ "$took" -le "${back[$1]}" ] || back[$1]=$took
		[ "$last_old" -le "${oldest[$1]}" ] || oldest[$1]=$last_old
	done
}

# as_without TEXT NAME CONTROL: changes have been followed as soon as without.
as_without() {
	local grace=$((3 * oldest[$3] > GRACE ? 3 * oldest[$3] : GRACE))
	check "$1: a neighbour's new MAC is followed as soon as without" \
		[ "${back[$2]}" -le $((3 * back[$3] + 50000 * SLOWNESS)) ]
	echo "# new rules after at most $((back[$2] / 1000)) ms, without $((back[$3] / 1000)) ms"
	check "$1: no frame to the neighbour's old MAC after $grace ms" [ "${oldest[$2]}" -le $grace ]
}

# most_tries SECONDS: how often at most the driver may be asked for a flow that it refuses: once, and after
# 1, 3, 7, 15 … s, for each refusal doubles the time to the next try.
most_tries() {
	local most=1
	while [ $(((1 << most) - 1)) -le "$1" ]; do most=$((most + 1)); done
	echo $most
}

# control: how long each takes; the longest of five times.
declare -A calm=()
control() {
	local what turn longest=0 old=0
	for what in "${went_on[@]}"; do
		calm[$what]=0
		for turn in 1 2 3 4 5; do
			"go_$what"
			[ "$took" -le "${calm[$what]}" ] || calm[$what]=$took
			[ "$what" != neighbour ] || [ "$last_old" -le "$old" ] || old=$last_old
		done
		echo "# without: ${say[$what]}: at most $((calm[$what] / 1000)) ms"
		[ "${calm[$what]}" -le "$longest" ] || longest=${calm[$what]}
	done
	latency_us=$((10 * longest > 100000 ? 10 * longest : 100000))
	# As in the truth tests; an idle machine may be too slow for it, too.
	grace=$((3 * old > GRACE ? 3 * old : GRACE))
	echo "# so each call of the driver takes $((latency_us / 1000)) ms"
}

# as_before TEXT TROUBLE LASTS: and so they do in this trouble, three times each.
as_before() {
	local what turn all old
	troubled='' limit=$((latency_us / 2))
	at_exit relieve
	for what in "${went_on[@]}"; do
		all='' old=0 last_old=0
		for turn in 1 2 3; do
			[ -n "$troubled" ] || "$2"
			troubled=1
			"go_$what"
			all+=" $((took / 1000))"
			[ "$last_old" -le "$old" ] || old=$last_old
			[ "$took" -le "$limit" ] || break
		done
		[ "$took" -le "$limit" ] && turn=ok || turn=not_ok
		$turn "$1: ${say[$what]}: within $((limit / 1000)) ms"
		echo "# it took$all ms, and without $((calm[$what] / 1000)) ms"
		[ "$what" != neighbour ] ||
			check "$1: no frame to the neighbour's old MAC after $grace ms" [ "$old" -le "$grace" ]
	done
	limit=
	[ -n "$troubled" ] || "$2"
	check "$1: the trouble lasted" "$3"
	relieve
}

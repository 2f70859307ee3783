#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml stock
# timeout: 120
# exclusive: times are measured
#
# Thousands of flowtables with `flags offload` that no device has joined, of an unprivileged user in
# namespaces of his own: they cost others no more than the same flowtables without the flag do.
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

tables=3000 turns=3
[ "$SLOWNESS" = 1 ] || tables=1000

# _ruleset NUMBER FLAGS: half of them name a device that is not there.
_ruleset() {
	local i
	echo "table inet t {"
	for ((i = 0; i < $1; i++)); do
		((i % 2)) && devices="devices = { nope$i };" || devices=
		echo "flowtable f$i { hook ingress priority 0; $devices $2 }"
	done
	echo "}"
}

# in_microseconds COMMAND…: sets $took.
in_microseconds() {
	took=${EPOCHREALTIME/./}
	"$@"
	took=$((${EPOCHREALTIME/./} - took))
}

# What cannot be given back would come and go by itself.
slab() { sed -n 's/^SUnreclaim: *\([0-9]*\) kB/\1/p' /proc/meminfo; }

# What others do.
say=(
	[0]="its namespace and one of others are cleaned up"
	[1]="routes come and go"
	[2]="a neighbour's MAC changes"
	[3]="devices come, go up and down, and are deleted"
	[4]="nft -f in another namespace"
	[5]="a route comes in its own namespace"
)
events() {
	local i
	for ((i = 0; i < 100; i++)); do
		case $1 in
		1) printf 'route add 192.0.2.%s/32 dev dum0\nroute del 192.0.2.%s/32 dev dum0\n' $i $i ;;
		2) printf 'neigh replace 192.0.2.1 lladdr 02:00:00:00:77:%02x nud permanent dev dum0\n' $i ;;
		3) [ $i -ge 3 ] || printf 'link add dum1 type dummy\nlink set dum1 up\nlink set dum1 down\nlink del dum1\n' ;;
		esac
	done
}
flowtable="add table ip t; add flowtable ip t f { hook ingress priority 0; flags offload; }; delete table ip t"

# The user; he waits at a pipe.
tenant='
	nft -f "$2" && ip link set lo up && echo >&4
	while read -r command <&3; do
		$command
		echo >&4
	done'
# begins RULESET, and goes: tells whether all is there.
begins() {
	rm -f "$_output".[ab]
	mkfifo "$_output.a" "$_output.b"
	exec {ask}<>"$_output.a" {answer}<>"$_output.b"
	setpriv --reuid 65534 --regid 65534 --clear-groups unshare -Urn \
		bash -c "exec 3<&0 4>&1; $tenant" tenant "" "$1" <&"$ask" >&"$answer" 2>"$_output.error" &
	tenant_pid=$!
	read -rt $((LIMIT * SLOWNESS / 1000)) -u "$answer" || {
		cat "$_output.error"
		return 1
	}
}
is_gone() { [ ! -e /sys/class/net/v0 ]; }
goes() {
	other=
	add_ns other
	ip link add v0 type veth peer w0 netns "$other"
	kill -KILL "$tenant_pid"
	wait "$tenant_pid" 2>/dev/null || true
	exec {ask}>&- {answer}>&-
	ip netns del "$other"
	# It is in vain to be any quicker than that.
	PAUSE=0.002 busywait $((12 * LIMIT)) is_gone
}

# _run NAME RULESET: adds how long each takes to $NAME_0 and so on.
run() {
	local name=$1 what before i
	before=$(slab)
	begins "$2" || return
	samples[$name.slab]+=" $(($(slab) - before))"
	for ((i = 0; i < 5; i++)); do
		for what in 1 2 3; do
			events $what >"$_output.batch"
			in_microseconds ip -batch "$_output.batch"
			samples[$name.$what]+=" $took"
		done
		in_microseconds on "$stranger" nft -f "$_output.nft"
		samples[$name.4]+=" $took"
		in_microseconds eval 'echo "ip route replace 10.9.$i.0/24 dev lo" >&"$ask"; read -ru "$answer"'
		samples[$name.5]+=" $took"
	done
	in_microseconds goes
	samples[$name.0]+=" $took"
}
declare -A samples=()
least() { xargs -n 1 <<<"${samples[$1]}" | sort -n | head -n 1; }

load_module
ip link add dum0 type dummy
at_exit ip link del dum0
ip addr add 192.0.2.254/24 dev dum0
ip link set dum0 up
stranger=
add_ns stranger
echo "$flowtable" >"$_output.nft"
_ruleset 50 "" >"$_output.few"
_ruleset $tables "" >"$_output.plain"
_ruleset $tables "flags offload;" >"$_output.offload"
chmod 644 "$_output".*

# What there is only once is made.
run few "$_output.few"
for ((turn = 0; turn < turns; turn++)); do
	run plain "$_output.plain"
	run offload "$_output.offload"
done

for what in "${!say[@]}"; do
	plain=$(least "plain.$what") offload=$(least "offload.$what")
	# Others disturb it, too; what each flowtable adds is a hundred times that.
	check "beside $tables flowtables of a user without devices: ${say[$what]}, as without flags offload" \
		[ "$offload" -le $((3 * plain + 50000 * SLOWNESS)) ]
	echo "# $((offload / 1000)) ms, without flags offload $((plain / 1000)) ms"
done
plain=$(least plain.slab) offload=$(least offload.slab)
check "$tables flowtables without devices take no more slab memory than without flags offload" \
	[ "$offload" -le $((plain + plain / 4 + 200)) ]
echo "# $offload kB, without flags offload $plain kB"

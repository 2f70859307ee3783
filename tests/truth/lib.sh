# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What the truth tests share: a router with two ways to a server, events that change what the
# host would do, and what is promised of them. A test defines
#
#   events      what happens, in calls of `event`; it runs with this module, where the promise of
#               Documentation/truth.md must be kept, and with the C module, which is only looked at
#
# and calls `both`. The connections are real, and the frames are looked at on the cables
# (probe.py).
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# One for all events: to start it takes an emulated machine two seconds.
start_probe() {
	coproc PROBE { exec "$(dirname "${BASH_SOURCE[0]}")/probe.py"; }
	at_exit kill "$PROBE_PID"
}
# What the promise says, for a machine on which connections without a flowtable stand still for no longer
# than $CALM when something else happens. Where it is longer, the promise is that much longer.
GRACE=$((50 * SLOWNESS)) STALL=$((200 * SLOWNESS)) CALM=$((40 * SLOWNESS))
# Milliseconds between a connection's messages: no more than the machine has time for.
PACE=5
has_time || PACE=50
only=${TRUTH:-*}
results=()

# The server has two cables, and addresses of its own behind them, so that there is more than
# one way.
world() {
	topology ports=4
	ip link set nic2 netns "$router"
	ip link set wire2 netns "$server"
	_address "$router" nic2 10.0.3.1/24 fd00:3::1/64
	_address "$server" wire2 10.0.3.2/24 fd00:3::2/64
	on "$server" ip addr add 10.9.9.9/32 dev lo
	on "$server" ip addr add fd00:9::9/128 dev lo
	on "$server" sysctl -qw net.ipv4.conf.wire1.arp_notify=1 net.ipv6.conf.wire1.ndisc_notify=1 \
		net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.rp_filter=0
	on "$router" sysctl -qw net.ipv4.conf.nic1.arp_notify=1 net.ipv6.conf.nic1.ndisc_notify=1
	on "$router" ip route add 10.9.9.9 via 10.0.2.2
	on "$router" ip route add fd00:9::9 via fd00:2::2
	# Connections are tracked before there is a flowtable, too.
	load_ruleset <<<"table inet plain { chain forward { type filter hook forward priority 0; ct state new; }; }"
}

# The words of commands, for event.
r4() { echo "ip -n $router $*"; }
r6() { echo "ip -n $router -6 $*"; }
s4() { echo "ip -n $server $*"; }
s6() { echo "ip -n $server -6 $*"; }
back_by_wire2() {
	s4 route replace default via 10.0.3.1
	s6 route replace default via fd00:3::1
}

# What is done to the router before there is a flowtable.
control() {
	printf '%s\n' "$(r4 route add blackhole 192.0.2.0/24)" "$(r6 route add blackhole 2001:db8::/32)" \
		"$(r4 route del blackhole 192.0.2.0/24)" "$(r6 route del blackhole 2001:db8::/32)"
}

# event TEXT [PROBE-OPTION…] -- COMMAND…: with the module that is loaded. What is promised beside
# "no packet over the old way" is in $promise: stall, gone, back; or kept: the rules stay; or others: those
# stay that --rule does not mean. The log says $log_says.
promise="stall gone back" gone_limit='' log_says=''
# As flowtable_ruleset has them. Without flags, --software belongs to it.
devices="nic0, nic1, nic2" flags=offload of=''
event() {
	local text=$1 options=() json
	shift
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	# shellcheck disable=SC2053
	[[ $text == $only ]] || return 0
	flowtable_ruleset devices="$devices" flags="$flags" of="$of" >"$_output.ruleset"
	mark_log
	port=$((port + 10))
	printf '%s\0' --client "$client" --router "$router" --server "$server" --to 10.9.9.9 fd00:9::9 \
		--port $port --wires "$client:wire0,$server:wire1,$server:wire2" --pace $PACE \
		--ruleset "$_output.ruleset" --control "$(control)" --calm $CALM --grace "$GRACE" \
		--watch $((300 * SLOWNESS)) --limit "$limit" "${options[@]}" "$@" '' >&"${PROBE[1]}"
	read -r json <&"${PROBE[0]}" || json='{"error": "probe.py has died"}'
	results+=("{\"event\": \"$text\", \"module\": \"$module\", ${json#\{}")
	on "$router" nft delete table inet fw
	on "$router" conntrack -F 2>/dev/null
	if [ "$module" = nft_offload ]; then
		promised "$text" "$json"
	fi
}
port=7000

slowness=1
promised() {
	local text=$1 json=$2 error late dead stall gone back slow='' what=rules
	: "${gone_limit:=$GRACE}"
	echo "# $text: $json"
	{
		read -r error && read -r late && read -r dead && read -r stall && read -r gone &&
			read -r back && read -r slowness
	} < <(jq -r --argjson stall "$STALL" --argjson gone "$gone_limit" '.error // "",
		.late, (.dead // [] | join(" ")), .stall_ms < $stall * .slowness,
		(.gone_ms != null and .gone_ms < $gone * .slowness), .back_ms != null, .slowness' <<<"$json")
	if [ -n "$error" ]; then
		not_ok "$text: $error"
		return
	fi
	[ -n "$flags" ] || what=entries
	[ "$slowness" = 1.0 ] || slow=", $slowness times that on this slow machine"
	is "$late" 0 "$text: no packet over the old way after $GRACE ms$slow"
	is "$dead" "" "$text: connections go on"
	[[ $promise != *stall* ]] || is "$stall" true "$text: connections stand still for less than $STALL ms$slow"
	[[ $promise != *gone* ]] || is "$gone" true "$text: the old $what are gone within $gone_limit ms$slow"
	[[ $promise != *kept* ]] || is "$(jq .gone_ms <<<"$json")" null "$text: the rules stay"
	[[ $promise != *others* ]] || is "$(jq .others_lost <<<"$json")" 0 "$text: the rules of other flows stay"
	[ -z "$log_says" ] || check "$text: the log says \"$log_says\"" has_told "$log_says"
	[[ $promise != *back* ]] || is "$back" true "$text: connections get back into hardware"
}

has_told() { told "$1" | grep .; }

way_back() {
	on "$server" ip route replace default via 10.0.2.1
	on "$server" ip -6 route replace default via fd00:2::1
	on "$router" ip route replace 10.9.9.9 via 10.0.2.2
	on "$router" ip -6 route replace fd00:9::9 via fd00:2::2
}

# both [PARAMETER=VALUE…]: of this module.
both() {
	module=nft_offload limit=$((10000 * SLOWNESS))
	start_probe
	load_module "$@"
	world
	events
	for counter in replace_eexist replace_dup_match destroy_enoent destroy_failed; do
		is "$(nic_counter $counter)" 0 "the driver never saw $counter"
	done

	# Its figures are of interest where time is real.
	has_time || {
		table
		return
	}
	# The module must be gone before the other one is there.
	start_over
	module=c limit=$((2000 * SLOWNESS))
	start_probe
	load_c_module
	world
	events
	[ -z "${router:-}" ] || on "$router" nft flush ruleset
	table
}

# What came out, beside each other, and as one line each for those who collect them.
table() {
	printf '# json: %s\n' "${results[@]}"
	echo "# event                             | packets over the old way after $GRACE ms | longest stall"
	echo "#                                   |     nft_offload |        C module | nft_offload | C module"
	jq -rs 'group_by(.event)[] | (map({(.module): .}) | add) as $m | [.[0].event,
		($m.nft_offload.late // "-"), ($m.c.late // "-"),
		($m.nft_offload.stall_ms // "-"), ($m.c.stall_ms // "-")] | @tsv' <<<"${results[*]}" |
		while IFS=$'\t' read -r text ours theirs stall their_stall; do
			printf '# %-33s | %15s | %15s | %8s ms | %8s ms\n' "$text" "$ours" "$theirs" "$stall" "$their_stall"
		done
}

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 500
# exclusive: times are measured
#
# Connections end, or conntrack forgets them, or the NIC forgets its rules.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# conntrack_each ARGUMENT…: the words of a command, for event.
conntrack_each() {
	echo "for f in ipv4 ipv6; do ip netns exec '$router' conntrack $* -f \$f >/dev/null 2>&1; done"
}

events() {
	promise="stall gone back" gone_limit=$((2000 * SLOWNESS))
	event "conntrack -F" --grace "$gone_limit" -- "ip netns exec '$router' conntrack -F 2>/dev/null"
	event "conntrack -D of each connection" --grace "$gone_limit" -- \
		"$(conntrack_each -D -p tcp)" "$(conntrack_each -D -p udp)"
	event "conntrack -D of a mark" --grace "$gone_limit" -- \
		"$(conntrack_each -U -m 5)" "$(conntrack_each -D -m 5)"
	event "conntrack -D of a zone" --grace "$gone_limit" -- "$(conntrack_each -D -w 0)"
	promise="stall back"
	event "the NIC resets" --lossy -- "echo 1 >$NIC/reset"
	event "the NIC loses a few rules" --lossy -- "echo 3 >$NIC/evict"

	[ "$module" != c ] || return 0
	limit=$(jq -n "$gone_limit * $slowness | round")
	ended=$(ends_and_reuse) && status=ok || status=not_ok
	echo "# ${ended//$'\n'/$'\n'# }"
	$status "conntrack sees FIN, the rules are withdrawn after FIN and RST within $limit ms, and the ports can be used again"
}

# Where conntrack has lost a connection, its packets are invalid.
ends_and_reuse() {
	on "$router" sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0 \
		net.netfilter.nf_conntrack_tcp_timeout_close=1 net.netfilter.nf_conntrack_events=1
	flowtable_ruleset devices="$devices" | load_ruleset
	on "$router" nft add rule inet fw forward ct state invalid drop
	"$(dirname "${BASH_SOURCE[0]}")/reuse.py" "$client" "$router" "$server" "$limit" || return
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
}

both

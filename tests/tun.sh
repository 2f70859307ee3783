#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
#
# A flow comes in by a device without an Ethernet header: FIN and RST are told from other packets by what the
# network header says, and conntrack sees them.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module incapable=1 report_ms=0
topology
modprobe tun 2>/dev/null || true
[ -e /dev/net/tun ] || { mkdir -p /dev/net && mknod /dev/net/tun c 10 200; }
far=
add_ns far
exec {cable}< <(exec "$_here/tun.py" "$far:tun1" "$router:tun0")
at_exit kill $!
read -ru "$cable" line
on "$router" ip -batch - <<-END
	addr add 10.20.0.1/24 dev tun0
	addr add fd00:20::1/64 dev tun0 nodad
	link set tun0 up
END
on "$far" ip -batch - <<-END
	addr add 10.20.0.2/24 dev tun1
	addr add fd00:20::2/64 dev tun1 nodad
	link set tun1 up
	route add default via 10.20.0.1
	route add default via fd00:20::1
END
client=$far
ways_work
flowtable_ruleset devices="nic1, tun0" | load_ruleset

entry() { on "$router" conntrack -L -f "$family" -p tcp --dport "$1" 2>/dev/null; }
in_flowtable() { entry "$1" | grep -F "[OFFLOAD]"; }
has_state() { entry "$1" | grep -E "$2"; }

port=8000
for proto in tcp4 tcp6; do
	family=ipv4
	[ $proto = tcp4 ] || family=ipv6
	for last in "client fin" "server fin" "client rst" "server rst"; do
		port=$((port + 1))
		flow_open $proto $proto $port
		check "$proto: an entry of the flowtable has packets of a tun device" \
			flow_send_until $proto $LIMIT in_flowtable $port
		case $last in
		*fin) states="FIN_WAIT|CLOSE_WAIT|LAST_ACK" ;;
		# It may be anybody's: see tests/truth/resets.sh.
		*) states="ESTABLISHED" ;;
		esac
		# shellcheck disable=SC2086
		flow_end $proto $last
		check "$proto: conntrack is $states after a ${last##* } of the ${last%% *}" busywait 2000 has_state $port "$states"
		check "$proto: after a ${last##* } of the ${last%% *} there is no entry" fails in_flowtable $port
		flow_close $proto >/dev/null || true
		on "$router" conntrack -F 2>/dev/null
	done
done

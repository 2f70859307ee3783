#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# also: what the host would do is found with the kernel's own functions
# timeout: 500
# exclusive: times are measured
#
# Settings that decide whether the host forwards packets change under connections, and change back.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

modprobe xfrm_user

# setting NAME=VALUE…: of the router; the words of a command, for event.
setting() { echo "ip netns exec '$router' sysctl -qw $*"; }
set_router() { on "$router" sysctl -qw "$@"; }
v4=(--flows "tcp4,udp4") v6=(--flows "tcp6,udp6")
# What nothing tells of is compared once a second.
second=$((2000 * SLOWNESS))

# settings [OPTION…]: for probe.py.
settings() {
	local requests=(--old wire=wire1) replies=(--old wire=wire0)
	event "$place, ip_forward is switched off" "$@" "${v4[@]}" "${requests[@]}" "${replies[@]}" \
		--undo "$(setting net.ipv4.ip_forward=1)" -- "$(setting net.ipv4.ip_forward=0)"
	event "$place, IPv4 forwarding of the client's port is switched off" "$@" "${v4[@]}" "${requests[@]}" \
		--undo "$(setting net.ipv4.conf.nic0.forwarding=1)" -- "$(setting net.ipv4.conf.nic0.forwarding=0)"
	event "$place, IPv4 forwarding of the server's port is switched off" "$@" "${v4[@]}" "${replies[@]}" \
		--undo "$(setting net.ipv4.conf.nic1.forwarding=1)" -- "$(setting net.ipv4.conf.nic1.forwarding=0)"
	event "$place, IPv6 forwarding is switched off" "$@" "${v6[@]}" "${requests[@]}" "${replies[@]}" \
		--undo "$(setting net.ipv6.conf.all.forwarding=1)" -- "$(setting net.ipv6.conf.all.forwarding=0)"
}

events() {
	local place="in hardware"

	promise="gone back" log_says="the host does not forward it"
	settings

	if [ -e /proc/sys/net/ipv6/conf/all/force_forwarding ]; then
		# In this order: without forwarding, it is 0 everywhere at first.
		set_router net.ipv6.conf.all.forwarding=0
		set_router net.ipv6.conf.nic0.force_forwarding=1 net.ipv6.conf.nic1.force_forwarding=1
		event "$place, IPv6 forwarding of the client's port is forced no longer" "${v6[@]}" --old wire=wire1 \
			--undo "$(setting net.ipv6.conf.nic0.force_forwarding=1)" -- \
			"$(setting net.ipv6.conf.nic0.force_forwarding=0)"
		set_router net.ipv6.conf.all.forwarding=1
	fi

	# Only answers, which have a mark, find the client.
	load_ruleset <<<'table inet marks {
		chain before {
			type filter hook prerouting priority mangle
			iifname "nic1" meta mark set 9
		}
	}'
	on "$router" ip route add 192.168.1.0/24 dev nic0 table 100
	on "$router" ip rule add fwmark 9 lookup 100
	on "$router" ip route add 192.168.1.2 via 10.0.3.2
	of="ct direction reply" event "$place, rp_filter becomes strict, and the way back is another one" "${v4[@]}" \
		--old wire=wire1 --undo "$(setting net.ipv4.conf.nic0.rp_filter=0)" -- \
		"$(setting net.ipv4.conf.nic0.rp_filter=1)"
	on "$router" ip route del 192.168.1.2
	on "$router" ip rule del fwmark 9 lookup 100
	on "$router" ip route flush table 100
	on "$router" nft delete table inet marks

	local from to
	for from in 192.168.1.0/24 fd00:1::/64; do
		to=10.9.9.9
		[ $from != fd00:1::/64 ] || to=fd00:9::9
		on "$router" ip xfrm policy add src $from dst $to dir fwd action block
	done
	set_router net.ipv4.conf.nic0.disable_policy=1 net.ipv6.conf.nic0.disable_policy=1
	log_says="IPsec applies" GRACE=$second gone_limit=$second event "$place, policies that block are enabled" --old wire=wire1 \
		--watch $((second + 500)) \
		--undo "$(setting net.ipv4.conf.nic0.disable_policy=1 net.ipv6.conf.nic0.disable_policy=1)" -- \
		"$(setting net.ipv4.conf.nic0.disable_policy=0 net.ipv6.conf.nic0.disable_policy=0)"
	on "$router" ip xfrm policy flush
	set_router net.ipv4.conf.nic0.disable_policy=0 net.ipv6.conf.nic0.disable_policy=0

	place="in software"
	flags='' promise="gone" log_says='' GRACE=$second gone_limit=$second \
		settings --software --no-return --watch $((second + 500))
}

both report_ms=0

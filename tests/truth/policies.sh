#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# also: what the host would do is found with the kernel's own functions
# timeout: 500
# exclusive: times are measured
#
# IPsec policies come and go under connections: none of their packets may leave in the clear past one.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

modprobe -a xfrm_user esp4 esp6

# policies add|del SOURCE4 SOURCE6 DEST4 DEST6 WORDS…: one of each family, in a command for event.
policies() {
	local do=$1 template=''
	[ "$1" = del ] || [[ $* == *block* ]] || template="tmpl proto esp mode transport"
	printf '%s\n' "$(r4 xfrm policy "$do" src "$2" dst "$4" "${@:6}" "$template")" \
		"$(r4 xfrm policy "$do" src "$3" dst "$5" "${@:6}" "$template")"
}
requests=(192.168.1.0/24 fd00:1::/64 10.9.9.9 fd00:9::9)
replies=(10.9.9.9 fd00:9::9 192.168.1.0/24 fd00:1::/64)
# Nothing tells of policies in a table without flags: they are compared once a second.
second=$((2000 * SLOWNESS))
in_software() {
	event "in software, policy for requests, without a key" --software --no-return --watch $((second + 500)) \
		--old wire=wire1 --undo "$(policies del "${requests[@]}" dir out)" -- \
		"$(policies add "${requests[@]}" dir out)"
	event "in software, policy that blocks what is forwarded" --software --no-return --watch $((second + 500)) \
		--old wire=wire0 --undo "$(policies del "${replies[@]}" dir fwd)" -- \
		"$(policies add "${replies[@]}" dir fwd action block)"
}

events() {
	promise="gone back" log_says="IPsec applies"
	event "policy for requests, without a key" --old wire=wire1 --undo "$(policies del "${requests[@]}" dir out)" -- \
		"$(policies add "${requests[@]}" dir out)"
	event "policy for replies, without a key" --old wire=wire0 --undo "$(policies del "${replies[@]}" dir out)" -- \
		"$(policies add "${replies[@]}" dir out)"
	event "policy that blocks what is forwarded" --old wire=wire1 \
		--undo "$(policies del "${requests[@]}" dir fwd)" -- \
		"$(policies add "${requests[@]}" dir fwd action block)"
	event "forwarding is blocked by default" --old wire=wire0 --old wire=wire1 \
		--undo "$(r4 xfrm policy setdefault fwd accept)" -- "$(r4 xfrm policy setdefault fwd block)"

	promise="gone back others"
	event "policy for UDP" --rule proto=udp --old proto=udp \
		--undo "$(policies del "${requests[@]}" proto udp dir out)" -- \
		"$(policies add "${requests[@]}" proto udp dir out)"

	promise="stall others" log_says=
	event "policies for others" --rule none -- "$(policies add 192.168.7.0/24 fd00:7::/64 10.9.9.9 fd00:9::9 dir out)" \
		"$(policies del 192.168.7.0/24 fd00:7::/64 10.9.9.9 fd00:9::9 dir out)" \
		"$(policies add "${requests[@]}" proto sctp dir fwd action block)"
	event "policies for others go" --rule none -- "$(policies del "${requests[@]}" proto sctp dir fwd)"

	# Policies are asked for what leaves, once more when it has got its address.
	load_ruleset <<<'table inet nat {
		chain after {
			type nat hook postrouting priority srcnat
			oifname "nic1" masquerade
		}
	}'
	promise="gone back" log_says="IPsec applies"
	event "policy for masqueraded requests" --old wire=wire1 \
		--undo "$(policies del 10.0.2.1 fd00:2::1 10.9.9.9 fd00:9::9 dir out)" -- \
		"$(policies add 10.0.2.1 fd00:2::1 10.9.9.9 fd00:9::9 dir out)"
	on "$router" nft delete table inet nat

	flags='' promise="gone" log_says='' GRACE=$second gone_limit=$second in_software
}

both report_ms=0

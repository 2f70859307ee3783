# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: GPL-2.0
#
# A flow to each of many hosts, by hosts.py.

# hosts_begin BASE COUNT [STRIDE [PORT]]: each has answered twice, so that its flow has an entry. They end with the
# test, or when $hosts is closed. hosts_answer sets $answered: how many do at the first try.
hosts_begin() {
	local ready=
	rm -f "$_output.hosts"
	mkfifo "$_output.hosts"
	exec {hosts}> >(exec "$_here/isolation/hosts.py" "$client" "$server" "$@" >"$_output.hosts")
	at_exit kill $! 2>/dev/null
	exec {_hosts_answer}<"$_output.hosts"
	read -ru "$_hosts_answer" ready
	[ "$ready" = ready ]
}
hosts_answer() {
	echo >&"$hosts"
	read -ru "$_hosts_answer" answered
}
hosts_end() { exec {hosts}>&- {_hosts_answer}<&-; }

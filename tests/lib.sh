# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What the kselftest scripts share. A test sources it, says `check "what is true" COMMAND…`
# once or more, and ends; the way out (status, TAP plan, cleaning) is the EXIT trap's.
#
#   source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
#   load_module
#   topology
#   flowtable_ruleset | load_ruleset
#   flow_open web tcp4
#   flow_send web 1000000
#   check "both directions are in the NIC" wait_rules 2
#
# Nothing here waits for a time to pass, only for a condition, up to a limit.

NIC=/sys/kernel/debug/emunic
_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH=$_here

# The machine's name, if it is one of scripts/vm.
: "${MACHINE:=}"

# Limits are written for a machine at native speed; an emulated one gets more, and one of which
# kselftest's users say that it is slow.
case ${KSFT_MACHINE_SLOW:-}$MACHINE in
yes* | debug | kasan) SLOWNESS=5 ;;
*stock) SLOWNESS=3 ;;
*) SLOWNESS=1 ;;
esac
LIMIT=10000

# has_time: this machine has it for what is not needed to be sure, or is but arithmetic.
has_time() { [ "$SLOWNESS" -lt 5 ]; }

# _find_module NAME: as scripts/kselftest-install has left it, or as modprobe finds it.
_find_module() {
	local file
	file=$_here/modules/$(uname -r)/$1
	[ -e "$file" ] || file=$(modinfo -n "$(basename "$1" .ko)" 2>/dev/null) || file=
	echo "$file"
}
: "${NFT_OFFLOAD_KO=$(_find_module nft_offload.ko)}" "${NIC_KO=$(_find_module nic/emunic.ko)}"
# Where tests find other modules.
# shellcheck disable=SC2034
MODULES=${NIC_KO%/nic/emunic.ko}

# --- saying how it went: KTAP, and the exit status of kselftest

echo "KTAP version 1"
tests_done=0 tests_failed=0

ok() {
	tests_done=$((tests_done + 1))
	echo "ok $tests_done - $*"
}

not_ok() {
	tests_done=$((tests_done + 1)) tests_failed=$((tests_failed + 1))
	echo "not ok $tests_done - $*"
}

# check TEXT COMMAND…: ok if COMMAND succeeds; shows what it printed if not. COMMAND runs
# in this shell, so it may be a function that remembers something.
check() {
	local text=$1
	shift
	if "$@" >"$_output" 2>&1; then
		ok "$text"
	else
		not_ok "$text"
		echo "# $*"
		sed 's/^/# /' "$_output"
	fi
}
_output=$(mktemp)

# is ACTUAL EXPECTED TEXT
is() {
	if [ "$1" = "$2" ]; then
		ok "$3"
	else
		not_ok "$3"
		printf '# found:    %s\n# expected: %s\n' "${1//$'\n'/$'\n'#           }" \
			"${2//$'\n'/$'\n'#           }"
	fi
}

# skip REASON: this test cannot run here.
skip() {
	echo "1..0 # SKIP $*"
	exit 4
}

# need FILE: without it this test cannot run. Machines of scripts/vm have all that tests need.
need() {
	[ ! -e "$1" ] || return 0
	[ -n "$MACHINE" ] || skip "${1:-a module} is not there (NFT_OFFLOAD_KO=FILE and NIC_KO=FILE name the modules)"
	echo "$1 is not there"
	exit 1
}

# fails COMMAND…: COMMAND fails; its message stays visible to check.
fails() { ! "$@"; }

# relay TEXT PROGRAM…: each line "ok …" or "not ok …" that it prints is a check, and so is that it runs to its end;
# other lines are comments. All that it has printed is in $_output.relay.
relay() {
	local text=$1 line
	shift
	while read -r line; do
		case $line in
		"ok "*) ok "${line#ok }" ;;
		"not ok "*) not_ok "${line#not ok }" ;;
		*) echo "# ${line#"# "}" ;;
		esac
	done < <("$@" 2>&1 | tee "$_output.relay" && echo "ok $text: runs to its end" || echo "not ok $text: runs to its end")
}

_finish() {
	local status=$?
	trap - EXIT ERR
	set +eu
	if [ "$status" != 0 ] && [ "$status" != 4 ]; then
		not_ok "runs to its end (status $status${_wrong:+ of $_wrong})"
		[ ! -d $NIC ] || { echo "# NIC:" && sed 's/^/# /; 50q' $NIC/rules; }
	fi
	_clean
	[ "$status" = 4 ] && [ "$tests_failed" = 0 ] && exit 4
	[ "$tests_done" -gt 0 ] || not_ok "checks something"
	rm -f "$_output"*
	echo "1..$tests_done"
	# Not a bare exit: that would end with the status from before the trap.
	[ "$tests_failed" = 0 ] && exit 0
	exit 1
}
trap _finish EXIT
# What ends a test is said.
_wrong=
_note_wrong() { _wrong="${1//$'\n'/ }, $2"; }
trap '_note_wrong "$BASH_COMMAND" "${BASH_SOURCE[0]##*/}:$LINENO"' ERR
set -eEuo pipefail

# --- waiting

# busywait LIMIT_MS COMMAND…: until COMMAND succeeds; it is tried every $PAUSE seconds (0.02). What it
# printed last is printed. (To start a process is what takes an emulated machine most time, so none is
# started here in vain.)
busywait() {
	local limit=$(($1 * SLOWNESS * 1000)) start=${EPOCHREALTIME/./}
	local _depth=$((${_depth:-0} + 1))
	local last=$_output.$BASHPID.$_depth
	shift
	until "$@" >"$last" 2>&1; do
		if [ $((${EPOCHREALTIME/./} - start)) -gt "$limit" ]; then
			echo "$(<"$last")"
			echo "not within $((limit / 1000)) ms: $*"
			return 1
		fi
		# Between two looks, so that the machine gets on with it.
		read -rt "${PAUSE:-0.02}" -u "$_never" || true
	done
	[ ! -s "$last" ] || echo "$(<"$last")"
}
exec {_never}<> <(:) # nothing ever comes out of it

# is_later TIME: than that, in microseconds since 1970. For what nothing else can be seen of.
is_later() { [ "${EPOCHREALTIME/./}" -gt "$1" ]; }

# --- modules

_loaded=()

_insmod() {
	local file=$1 name deps
	shift
	need "$file"
	name=${file##*/} name=${name%.ko}
	# To find out takes an emulated machine a second.
	if [ -e "/run/$name.depends" ]; then
		deps=$(<"/run/$name.depends")
	else
		deps=$(modinfo -F depends "$file")
		echo "$deps" >"/run/$name.depends"
	fi
	# shellcheck disable=SC2086
	[ -z "$deps" ] || modprobe -a ${deps//,/ }
	insmod "$file" "$@"
	_loaded=("$name" "${_loaded[@]}")
}

# load_module [PARAMETER=VALUE…]: the module under test.
load_module() { _insmod "$NFT_OFFLOAD_KO" "$@"; }

# load_c_module: the one that it takes the place of. They are not loaded at the same time.
load_c_module() {
	modprobe nf_flow_table_inet
	_loaded=(nf_flow_table_inet "${_loaded[@]}")
}

# load_nic [PARAMETER=VALUE…]: the emulated NIC.
load_nic() { _insmod "$NIC_KO" "$@"; }

# unload_module NAME: as soon as nobody uses it.
unload_module() { busywait $LIMIT _unload "$1"; }

_unload() { [ ! -d "/sys/module/$1" ] || rmmod "$1"; }

# --- memory

# memory_is_short PERCENT [workers]: of the allocations on behalf of modules (all that are loaded
# now) fail, or of those only that the kernel's workers make. 0 ends it.
memory_is_short() {
	local failslab=/sys/kernel/debug/failslab size addr from='' to='' comm
	while read -r _ size _ _ _ addr _; do
		[ -n "$from" ] && [ $((addr)) -ge $((from)) ] || from=$addr
		[ -n "$to" ] && [ $((addr + size)) -le $((to)) ] || to=$((addr + size))
	done </proc/modules
	echo "$from" >$failslab/require-start
	printf '0x%x\n' "$to" >$failslab/require-end
	echo 0 >$failslab/verbose
	echo N >$failslab/ignore-gfp-wait
	echo 1000000000 >$failslab/times
	echo N >$failslab/task-filter
	if [ "${2:-}" = workers ]; then
		echo Y >$failslab/task-filter
		for comm in /proc/[0-9]*/comm; do
			[[ $(<"$comm") != kworker* ]] || echo 1 >"${comm%comm}make-it-fail"
		done
	fi
	echo "$1" >$failslab/probability
}

# How many have failed since then.
memory_failures() { echo $((1000000000 - $(</sys/kernel/debug/failslab/times))); }

# --- the kernel log, which is not cleared: a splat would be lost

# mark_log: `told` sees what comes from now on, and not only since the test has begun.
mark_log() {
	_mark="mark $((_marks += 1)) of $$"
	echo "$_mark" >/dev/kmsg
}
_marks=0
mark_log

# kernel_log [WORDS]: its lines since the mark, or those with these words.
kernel_log() { busybox dmesg | busybox sed -n "/$_mark/,\$ { /${1:-}/p; }"; }

# told [WORDS]: what the module has said since the mark, or the lines with these words of it.
told() { kernel_log "nft_offload: .*${1:-}"; }

# last_told [WORDS]: the last line of it.
last_told() {
	local lines
	lines=$(told "$@")
	echo "${lines##*$'\n'}"
}

# --- namespaces; the name "" is the initial one

_namespaces=()

# on NAMESPACE COMMAND…: a program. Its /sys is that of the initial namespace.
on() {
	local ns=$1
	shift
	case ${ns:+$1} in
	'') "$@" ;;
	ip) ip -n "$ns" "${@:2}" ;;
	*)
		# busybox's needs no libraries, and so starts in a third of the time. But it takes
		# a program's name for one of its own.
		hash "$1" && busybox nsenter --net="/run/netns/$ns" "${BASH_CMDS[$1]-$1}" "${@:2}"
		;;
	esac
}

# mac_of NAMESPACE DEVICE
mac_of() {
	local mac
	read -r _ _ mac _ < <(on "$1" ip -br link show "$2")
	echo "$mac"
}

# add_ns VARIABLE…: makes namespaces; each variable gets the name of its own.
add_ns() {
	local variable commands=
	for variable; do
		printf -v "$variable" %s "$variable-$$-${#_namespaces[@]}"
		_namespaces+=("${!variable}")
		commands+="netns add ${!variable}"$'\n'
	done
	ip -batch - <<<"$commands"
	for variable; do on "${!variable}" ip link set lo up; done
}

# topology [--init] [NIC-PARAMETER=VALUE…]: loads the NIC if it is not there, and makes
#
#   client                     router                      server
#   wire0 192.168.1.2   nic0 192.168.1.1   nic1 10.0.2.1   wire1 10.0.2.2
#         fd00:1::2          fd00:1::1          fd00:2::1        fd00:2::2
#
# in namespaces named by $client, $router and $server. With --init the router is the
# initial namespace, and $router is empty.
topology() {
	local init=
	if [ "${1:-}" = --init ]; then
		init=1
		shift
	fi
	[ -d $NIC ] || load_nic "$@"
	client='' server='' router=''
	if [ -z "$init" ]; then
		add_ns client server router
	else
		add_ns client server
	fi
	ip -batch - <<-END
		link set wire0 netns $client
		link set wire1 netns $server
		${router:+link set nic0 netns $router}
		${router:+link set nic1 netns $router}
	END
	# Idle flows leave after 30 s, in which a slow machine does not get far.
	on "$router" sysctl -qew net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
		net.netfilter.nf_flowtable_tcp_timeout=$((30 * SLOWNESS)) \
		net.netfilter.nf_flowtable_udp_timeout=$((30 * SLOWNESS)) \
		net.netfilter.nf_conntrack_udp_timeout=$((30 * SLOWNESS)) \
		net.netfilter.nf_conntrack_udp_timeout_stream=$((120 * SLOWNESS))
	_address "$client" wire0 192.168.1.2/24 fd00:1::2/64 192.168.1.1 fd00:1::1
	_address "$router" nic0 192.168.1.1/24 fd00:1::1/64
	_address "$router" nic1 10.0.2.1/24 fd00:2::1/64
	_address "$server" wire1 10.0.2.2/24 fd00:2::2/64 10.0.2.1 fd00:2::1
	# Namespaces take after the initial one.
	[ -z "$init" ] || at_exit sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0
	ways_work
}

# _address NAMESPACE DEVICE IPV4 IPV6 [GATEWAY4 GATEWAY6]
_address() {
	on "$1" ip -batch - <<-END
		addr add $3 dev $2
		addr add $4 dev $2 nodad
		link set $2 up
		${5:+route add default via $5}
		${6:+route add default via $6}
	END
}

# ways_work: until packets come from the client to the server and back.
ways_work() {
	busywait $LIMIT on "$client" ping -q -c 1 -W 1 10.0.2.2 >/dev/null
	busywait $LIMIT on "$client" ping -q -c 1 -W 1 fd00:2::2 >/dev/null
}

# --- the NIC

# nic_counter NAME: of the whole NIC, or of a port: nic0.nic_packets
nic_counter() {
	local lines line
	mapfile -t lines <$NIC/counters
	for line in "${lines[@]}"; do
		[ "${line% *}" != "$1" ] || {
			echo "${line#* }"
			return
		}
	done
	return 1
}

# counters_are NAME NUMBER…: each of them. counter_reaches NAME NUMBER: so much or more.
counters_are() {
	local wrong=0
	for (( ; $#; )); do
		[ "$(nic_counter "$1")" = "$2" ] || {
			echo "$1 is $(nic_counter "$1"), not $2"
			wrong=1
		}
		shift 2
	done
	return $wrong
}
counter_reaches() { [ "$(nic_counter "$1")" -ge "$2" ]; }

nic_rules() { echo "$(<$NIC/rules)"; }
rules_are() {
	local rules
	mapfile -t rules <$NIC/rules
	case ${2:-} in
	-ge) [ ${#rules[@]} -ge "$1" ] ;;
	*) [ ${#rules[@]} -eq "$1" ] ;;
	esac && return
	printf '%s\n' "${rules[@]}"
	return 1
}

# has_rules N: the same for very many, of which none is printed.
has_rules() {
	echo "$(nic_counter rules) rules"
	[ "$(nic_counter rules)" = "$1" ]
}

# wait_rules N [-ge]: until the NIC holds N rules, or at least N.
wait_rules() { busywait $LIMIT rules_are "$@"; }

# nic KNOB VALUE: nic capacity 10
nic() { echo "$2" >"$NIC/$1"; }

# moves_in_hardware BYTES COMMAND…: which moves these out and back.
moves_in_hardware() {
	local nic cpu bytes=$1
	shift
	nic=$(nic_counter nic_bytes) cpu=$(nic_counter cpu_bytes)
	"$@"
	nic=$(($(nic_counter nic_bytes) - nic)) cpu=$(($(nic_counter cpu_bytes) - cpu))
	echo "$nic bytes in the NIC, $cpu by the CPU"
	# Out and back, and headers on top; next to nothing else is on the wires.
	[ "$nic" -gt $((2 * bytes)) ] && [ "$cpu" -lt 2000 ]
}

# in_hardware FLOW BYTES
in_hardware() { moves_in_hardware "$2" flow_send "$1" "$2"; }

# --- the ruleset

# flowtable_ruleset [family=inet] [flags=offload] [counter=counter] [devices="nic0, nic1"]
#                   [of="ct direction reply"] [masquerade=1]: prints what a user would write.
flowtable_ruleset() {
	local family=inet flags=offload counter=counter devices="nic0, nic1" of='' masquerade='' "$@"
	echo "table $family fw {
		flowtable ft {
			hook ingress priority 0
			devices = { $devices }
			${flags:+flags $flags}
			$counter
		}
		chain forward {
			type filter hook forward priority 0; policy accept;
			ct state established meta l4proto { tcp, udp } $of flow add @ft
		}
	}"
	[ -z "$masquerade" ] || echo "table $family nat {
		chain postrouting {
			type nat hook postrouting priority 100; policy accept;
			oifname \"nic1\" masquerade
		}
	}"
}

# count_forwarded: a ruleset with a counter of the UDP packets that the host forwards.
count_forwarded() {
	cat <<-END
		table inet count {
			counter seen { }
			chain forward {
				type filter hook forward priority -10; policy accept;
				meta l4proto udp counter name seen
			}
		}
	END
}

# load_ruleset: the ruleset on standard input, into the router. Another one some seconds after the flowtable's has the
# flows made anew, for which the host forwards them for a second or two: what is counted goes into the same one.
load_ruleset() { on "$router" nft -f -; }

# --- flows: connections that stay open, and carry what the test sends, and its echo (flows.py)

declare -A _flow=()
_flows=0 _flows_pid='' _flows_ask='' _flows_answer=''

# _ask COMMAND FLOW [ARGUMENT…]: of flows.py
_ask() {
	local answer
	[ -n "${_flow[$2]:-}" ] || {
		echo "no flow is called '$2'"
		return 1
	}
	echo "$1 ${_flow[$2]} ${*:3}" >&"$_flows_ask"
	read -r answer <&"$_flows_answer" || answer="flows.py has died"
	[ "$answer" != ok ] || return 0
	echo "$answer"
	return 1
}

# flow_open NAME tcp4|tcp6|udp4|udp6 [PORT [LISTEN-ADDRESS LISTEN-PORT]]: from the client to an
# echo server, which listens elsewhere if the destination is translated. With $flow_to, to that address of it.
flow_open() {
	_flows=$((_flows + 1))
	local name=$1 proto=$2 port=${3:-$((5000 + _flows))} to=10.0.2.2
	[[ $proto != *6 ]] || to=fd00:2::2
	to=${flow_to:-$to}
	if [ -z "$_flows_pid" ]; then
		coproc FLOWS { exec "$_here/flows.py" "$client" "$server"; }
		_flows_pid=$!
		# Those of a coproc are of no use in a subshell.
		exec {_flows_ask}>&"${FLOWS[1]}" {_flows_answer}<&"${FLOWS[0]}"
	fi
	_flow[$name]=$_flows
	_ask open "$name" "$proto" "$to" "$port" "${4:-$to}" "${5:-$port}"
	flow_send "$name" 100
}

# flow_send NAME BYTES: sends, and waits until the echo of all of it is back.
flow_send() { _ask send "$1" "$2" $((LIMIT * 3 * SLOWNESS / 1000)); }

# flow_flood NAME: from now on something is on its way all the time; over UDP.
flow_flood() { _ask flood "$1"; }

# flow_send_until NAME LIMIT_MS COMMAND…: sends a little, again and again, until COMMAND succeeds.
flow_send_until() {
	local name=$1 limit=$(($2 * SLOWNESS * 1000)) start=${EPOCHREALTIME/./}
	shift 2
	until flow_send "$name" 100 >/dev/null && "$@" >/dev/null; do
		[ $((${EPOCHREALTIME/./} - start)) -le "$limit" ] || { "$@"; return; }
	done
}

# flow_end NAME client|server fin|rst: TCP says so at one end.
flow_end() { _ask end "$@"; }

# flow_close NAME: TCP says FIN.
flow_close() {
	_ask close "$1"
	unset "_flow[$1]"
}

# --- cleaning: namespaces, then modules, in the order opposite to making

# at_exit COMMAND…: runs before everything else is cleaned.
_at_exit=()
at_exit() { _at_exit=("$(printf '%q ' "$@")" "${_at_exit[@]}"); }

# start_over: as if nothing had been loaded or made yet.
start_over() {
	_clean
	_at_exit=() _namespaces=() _loaded=()
}

_clean() {
	local command process ns module
	for command in "${_at_exit[@]}"; do eval "$command"; done
	if [ -n "$_flows_pid" ]; then
		exec {_flows_ask}>&- {_flows_answer}<&-
		kill "$_flows_pid" 2>/dev/null
		wait "$_flows_pid" 2>/dev/null || true
		_flows_pid='' _flow=()
	fi
	[ ${#_namespaces[@]} = 0 ] || for process in /proc/[0-9]*; do
		for ns in "${_namespaces[@]}"; do
			[ ! "$process/ns/net" -ef "/run/netns/$ns" ] || kill -KILL "${process#/proc/}" 2>/dev/null
		done
	done
	[ ${#_loaded[@]} = 0 ] || [ -n "${router-unset}" ] || nft flush ruleset
	for ns in "${_namespaces[@]}"; do
		[ ! -e "/run/netns/$ns" ] || echo "netns delete $ns"
	done | ip -batch -
	# A namespace goes in the background, and holds the modules until it is gone.
	for module in "${_loaded[@]}"; do
		unload_module "$module" || not_ok "$module can be unloaded"
	done
	wait 2>/dev/null
}

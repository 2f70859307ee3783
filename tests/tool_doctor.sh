#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 200
# in-tree: the program is built by this checkout
# tool: what it says
#
# What nft-offload says without asking the module: doctor, and why for connections without an entry. Everything that it
# is to find is done to the router as a user would do it.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tests/tool_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"

# finds LEVEL CHECK WORDS: doctor has such a finding. finds_not CHECK: it has none that is not good.
finds() { (tool doctor --json || true) | jq -e --arg l "$1" --arg c "$2" --arg w "$3" '.findings[] | select(.level == $l and .check == $c and ((.what + ": " + .why + ". " + .remedy) | contains($w)))'; }
finds_not() { [ -z "$( (tool doctor --json || true) | jq --arg c "$1" '.findings[] | select(.check == $c and .level != "ok")')" ]; }

topology
modprobe -a bridge bonding 8021q nf_conntrack_ftp

check "without a module: status ends with 4" ends 4 status
check "without a module: its message says what to do" says "install the package nft-offload-dkms" status
check "without a module: doctor ends with 3" ends 3 doctor
check "without a module: doctor says so" finds bad module "nft_offload is not installed for this kernel"
check "without a ruleset: doctor says what is missing" finds bad flowtable "Add a flowtable with 'flags offload'"
check "a wrong command line ends with 2" ends 2 flows --state nowhere
check "an unknown connection ends with 6" ends 6 why 203.0.113.1:1
check "a reason is explained without a module" says "no room for more rules" reasons no-room
check "nothing is coloured that is not a terminal's" fails eval "tool reasons --all | grep -q $'\e'"

# What it prints fits into the terminal's buffer.
on_terminal() {
	TERM=xterm timeout $((LIMIT * SLOWNESS / 1000)) python3 -c 'if True:
		import os, pty, subprocess, sys
		ours, theirs = pty.openpty()
		subprocess.run(sys.argv[1:], stdout=theirs, check=True)
		print(ascii(os.read(ours, 1 << 16)))
	' "$@" $TOOL reasons no-room | grep -F '\x1b'
}
check "on a terminal it is coloured" on_terminal env
check "with NO_COLOR it is not" fails on_terminal env NO_COLOR=1
check "who reads no more than a line is no error" eval '(tool reasons --all; echo "status $?" >&2) 2>"$_output.pipe" | head -n 1 && grep -q "status 0" "$_output.pipe"'

load_c_module
flowtable_ruleset | load_ruleset
flow_open c tcp4 5999
check "with the C module: status ends with 4, and names it" eval 'ends 4 status && says "nf_flow_table_inet has its place" status'
check "with the C module: doctor says whose place it has" finds bad module "nf_flow_table_inet is loaded"
check "with the C module: why has what conntrack says of a connection in hardware" \
	flow_send_until c $LIMIT says "conntrack has it as [HW_OFFLOAD]" why 192.168.1.2 10.0.2.2:5999
check "with the C module: doctor counts it" finds ok connections "1 in a flowtable, 1 of these in hardware"
flow_close c
on "$router" nft flush ruleset
on "$router" conntrack -F 2>/dev/null
unload_module nf_flow_table_inet

load_module incapable=1
on "$router" sysctl -qw net.netfilter.nf_conntrack_acct=1
flowtable_ruleset | load_ruleset
healthy() {
	local bad
	bad=$( (tool doctor --json || true) | jq -r '.findings[] | select(.level == "bad") | .what')
	echo "$bad"
	[ -z "$bad" ]
}
check "a machine that is right: doctor finds nothing bad" healthy

# turn TEXT…: a ruleset with these arguments.
turn() {
	on "$router" nft flush ruleset
	flowtable_ruleset "$@" | load_ruleset
}

# --- what is in the way

on "$router" ethtool -K nic0 hw-tc-offload off
check "hw-tc-offload is off: doctor has the command for it" finds bad hw-tc-offload "ethtool -K nic0 hw-tc-offload on"
on "$router" ethtool -K nic0 hw-tc-offload on
check "hw-tc-offload is on again" finds_not hw-tc-offload

on "$router" sysctl -qw net.netfilter.nf_conntrack_acct=0
check "counter without nf_conntrack_acct" finds warning counter "sysctl -w net.netfilter.nf_conntrack_acct=1"
on "$router" sysctl -qw net.netfilter.nf_conntrack_acct=1
check "with nf_conntrack_acct" finds_not counter

on "$router" sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0
check "nothing is forwarded" finds bad forwarding "sysctl -w net.ipv4.ip_forward=1"
on "$router" sysctl -qw net.ipv4.ip_forward=1
check "IPv6 is not forwarded" finds note forwarding "IPv6 is not forwarded"
on "$router" sysctl -qw net.ipv6.conf.all.forwarding=1

on "$router" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=2
check "a timeout that is too short" finds warning timeout "net.netfilter.nf_flowtable_udp_timeout is 2"
on "$router" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=30

on "$router" sysctl -qw net.ipv4.conf.nic0.rp_filter=1
check "rp_filter is strict" finds note rp_filter "strict at nic0"
on "$router" sysctl -qw net.ipv4.conf.nic0.rp_filter=0

on "$router" tc qdisc add dev nic1 root tbf rate 100mbit burst 100k latency 50ms
check "a shaper on the way out" finds warning qdisc "nic1 has the qdisc tbf: hardware sends past it"
on "$router" tc qdisc del dev nic1 root
on "$router" tc qdisc add dev nic1 clsact
check "filters at the ingress" finds note ingress "nic1 has a qdisc at its ingress"
on "$router" tc qdisc del dev nic1 clsact
check "no shaper" eval 'finds_not qdisc && finds_not ingress'

turn flags=
check "no 'flags offload'" finds bad flags "Add 'flags offload' to it"
turn devices="nic0, nic1, nic9"
check "a device that is not there" finds note missing "nic9, which is not there"

on "$router" ip -batch - <<-END
	link add br0 type bridge
	link add lan1 type dummy
	link add lan2 type dummy
	link set lan1 master br0
	link set lan2 master br0
	link add link nic1 name nic1.7 type vlan id 7
	link add bond0 type bond
	link add slave0 type dummy
	link set slave0 master bond0
END
turn devices="nic0, br0"
check "a bridge in the flowtable: its ports belong there" finds bad member "Put its ports there instead: lan1, lan2"
turn devices="nic0, nic1.7"
check "a VLAN device in the flowtable: the one below it belongs there" finds bad member "Put nic1 there instead"
turn devices="nic0, bond0"
check "a bond in the flowtable" finds bad member "bond0 is a bond, or belongs to one"
turn devices="nic0, slave0"
check "a bond's port in the flowtable" finds bad member "slave0 is a bond, or belongs to one"
turn devices="nic0, lan1"
check "another port of the same bridge" finds warning missing "Add lan2 to its devices"
check "a device that cannot: doctor says that its driver takes no rules" finds bad hw-tc-offload "lan1 cannot hw-tc-offload"

# ruleset_of RULE…: a chain of these before the rule with 'flow add'.
ruleset_of() {
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
	{
		flowtable_ruleset | sed '/flow add/d; /chain forward/,$d'
		echo 'ct helper ftp { type "ftp" protocol tcp; }
			chain other { accept; }
			chain prerouting {
				type filter hook prerouting priority 0;'
		[ "${1%%:*}" != pre ] || echo "${1#pre:}"
		echo '}
			chain forward {
				type filter hook forward priority 0; policy accept;'
		[ "${1%%:*}" = pre ] || printf '%s\n' "$@"
		echo 'ct state established meta l4proto { tcp, udp } flow add @ft
			}
		}'
	} | load_ruleset
}
ruleset_of "ct state established,related counter accept"
check "an accept before 'flow add'" finds bad order "Put the rule with 'flow add' first"
ruleset_of "pre:tcp dport 21 ct helper set ftp"
check "a helper" finds note helper "gives connections the helper ftp"
check "no accept before 'flow add'" finds_not order

# --- why a connection has no entry

# why_of TEXT WORDS [NAME PROTOCOL PORT]: of a new connection.
port=6000
why_of() {
	port=$((port + 1))
	flow_open "w$port" "${3:-tcp4}" $port
	check "$1" says "$2" why "${5:-192.168.1.2}" :$port
	check "$1: as JSON" eval "tool why :$port --json | jq -e '.connections[0].points[0].what'"
	flow_close "w$port"
}
ruleset_of "ct state established,related counter accept"
why_of "an accept comes first: why names the rule" \
	"get to no 'flow add': the rule 'ct state established,related counter packets"
ruleset_of "ip daddr 10.0.2.0/24 tcp dport 6000-7000 jump other" "tcp sport 6000-7000 goto other"
why_of "a chain that is jumped to accepts" "the rule 'accept' in chain inet fw other accepts them before"
ruleset_of "ct mark 5 return" "iifname nic0 tcp dport != { 1-5999, 8000 } return" "oifname nic0 tcp sport vmap { 6000-7000 : return }"
why_of "a set and its opposite: a rule that returns" "meet no rule with 'flow add'"
ruleset_of "limit rate 1000/second burst 1000 packets accept"
why_of "what cannot be known is said" "depends on limit"

turn devices="nic0"
why_of "the way out is in no flowtable" "Add nic1 to the devices of flowtable ft"
on "$router" nft flush ruleset
on "$router" nft 'table inet other { chain forward { type filter hook forward priority 0; ct state invalid drop; }; }'
why_of "no flowtable" "The ruleset has no flowtable"
turn of="meta mark 77"
why_of "the rule asks for something else" "depends on meta mark"
turn of="ip daddr 203.0.113.9"
why_of "the rule is not about this connection" "meet no rule with 'flow add'"

ruleset_of "pre:tcp dport 6000-7000 ct helper set ftp"
why_of "the connection has a helper" "It has the helper ftp, which reads its packets"

turn
conntrack_line() { on "$router" conntrack -L -p tcp --dport $port 2>/dev/null | grep dport=$port; }
check "a connection that is over: a pasted line of conntrack" eval 'says "TCP connections that are ESTABLISHED only" why "$(conntrack_line)"'
on "$client" ping -q -c 1 10.0.2.2 >/dev/null
check "ICMP" says "takes TCP, UDP and GRE, and not icmp" why icmp 192.168.1.2
on "$client" nc -u -w 1 10.0.2.2 6501 <<<"x" || true
check "UDP without an answer" eval 'says "It has no answer yet" why udp :6501'
on "$client" nc -w 1 192.168.1.1 6502 </dev/null || true
on "$client" ping -q -c 1 192.168.1.1 >/dev/null
check "the router itself is an end" says "One end is this host itself" why icmp 192.168.1.1

# --- a report

check "report has all sections" eval 'says "==== doctor" report && says "==== nft list ruleset" report'
check "report --mask shows no address of the network" fails eval 'tool report --mask | grep -E "192\.168\.1\.|10\.0\.2\.|fd00:"'
check "report into a file, as JSON" eval 'tool report --json -o /tmp/report && jq -e .versions /tmp/report'

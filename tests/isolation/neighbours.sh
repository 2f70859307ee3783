#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 300
# exclusive: 5,000 neighbours take their time where others run
#
# The host's neighbour table is small and everybody's. When it forgets neighbours to make room, their flows
# stay in the NIC; and however many flows there are, others can resolve theirs.
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
source "$(dirname "${BASH_SOURCE[0]}")/hosts.sh"

arp() {
	local names values i
	{ read -ra names && read -ra values; } <"/proc/net/stat/${2:-arp}_cache"
	for i in "${!names[@]}"; do
		[ "${names[i]}" != "$1" ] || echo $((16#${values[i]}))
	done
}
# runs TABLE: of forced garbage collection, on all CPUs.
runs() {
	local names line sum=0 i
	{
		read -ra names
		while read -ra line; do
			for i in "${!names[@]}"; do
				[ "${names[i]}" != forced_gc_runs ] || sum=$((sum + 16#${line[i]}))
			done
		done
	} <"/proc/net/stat/$1_cache"
	echo $sum
}
has_collected() { [ "$(runs "$1")" -ge "$2" ]; }

thresholds() {
	local family
	for family in ipv4 ipv6; do
		sysctl -qw net.$family.neigh.default.gc_thresh1="$1" net.$family.neigh.default.gc_thresh2="$2" \
			net.$family.neigh.default.gc_thresh3="$3"
	done
}

# in_nic BASE COUNT: hosts have a flow each, all in the NIC. forget ends that.
in_nic() { hosts_begin "$@" && busywait $((3 * LIMIT)) has_rules $((2 * $2)); }
forget() {
	hosts_end
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
	on "$router" ip neigh flush nud all
	on "$router" ip -6 neigh flush nud all
}

scan_begins() {
	"$_here/isolation/hosts.py" scan "$client" "$@" &
	scan_pid=$!
	at_exit kill $scan_pid 2>/dev/null
}
scan_ends() {
	kill $scan_pid
	wait $scan_pid 2>/dev/null || true
}

# Another two, who have nothing to do with the router. Sets $resolved, of 20 tries.
others() {
	local i to=${1:-10.1.1.2}
	resolved=0
	for ((i = 0; i < 20; i++)); do
		on "$one" ip neigh flush dev v1 nud all
		! on "$one" ping -q -c 1 -W 1 "$to" >/dev/null 2>&1 || resolved=$((resolved + 1))
	done
}

# stay TEXT COUNT: few have left since the counters were set to zero.
stay() {
	check "$1: the flows stay in the NIC" [ "$(nic_counter destroy_ok)" -le $(($2 / 20)) ]
	echo "# of $((2 * $2)) rules $(nic_counter destroy_ok) were removed, $(nic_counter rules) are there"
	check "$1: all of them are there in the end" busywait $((2 * LIMIT)) has_rules $((2 * $2))
}

load_module report_ms=0
topology
one="" two=""
add_ns one two
ip link add v1 netns "$one" type veth peer name v2 netns "$two"
_address "$one" v1 10.1.1.1/24 fd00:11::1/64
_address "$two" v2 10.1.1.2/24 fd00:11::2/64
on "$router" ip -batch - <<-END
	addr add 10.8.0.1/16 dev nic1
	addr add fd00:8::1/64 dev nic1 nodad
END
# The upper half of the network is there.
on "$server" ip route add local 10.8.128.0/17 dev lo
for ((i = 0; i < 100; i++)); do
	printf 'addr add fd00:8::1:%x/128 dev wire1 nodad\n' $i
done | on "$server" ip -batch -
on "$router" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=86400 \
	net.netfilter.nf_conntrack_udp_timeout_stream=86400
thresholds 128 512 1024

# --- a LAN of 600 hosts

flowtable_ruleset | load_ruleset
check "600 hosts: their flows are in the NIC, with the usual thresholds" in_nic 10.8.128.1 600
nic counters 0
before=$(runs arp)
# Each new neighbour makes room if there are more than gc_thresh2.
scan_begins 10.8.1.0 2000 40
check "600 hosts: garbage collection forgets neighbours" busywait $((4 * LIMIT)) has_collected arp $((before + 3))
others
is "$resolved" 20 "600 hosts: others resolve their neighbours meanwhile"
scan_ends
stay "600 hosts" 600
hosts_answer
is "$answered" 600 "600 hosts: each answers at the first try"
forget

# --- a scan of a /64

scan_begins fd00:8::ffff:0 1000000 40
busywait $((4 * LIMIT)) eval '[ "$(arp entries ndisc)" -ge 512 ]'
others fd00:11::2
scan_ends
control=$resolved
on "$router" ip -6 neigh flush nud all
flowtable_ruleset | load_ruleset
check "a scan of a /64: 100 flows are in the NIC" in_nic fd00:8::1:0 100
nic counters 0
before=$(runs ndisc)
scan_begins fd00:8::ffff:0 1000000 40
check "a scan of a /64: garbage collection forgets neighbours" busywait $((6 * LIMIT)) has_collected ndisc $((before + 2))
others fd00:11::2
check "a scan of a /64: others resolve their neighbours as without flows" [ "$resolved" -ge $((control - 1)) ]
echo "# $resolved of 20, without flows $control"
scan_ends
stay "a scan of a /64" 100
forget

# --- 5,000 neighbours in use

thresholds 8192 16384 32768
flowtable_ruleset | load_ruleset
check "5,000 neighbours: their flows are in the NIC" in_nic 10.8.128.1 5000
nic counters 0
for _ in 1 2; do
	hosts_answer
	is "$answered" 5000 "5,000 neighbours: each answers at the first try"
done
is "$(nic_counter destroy_ok)" 0 "5,000 neighbours: none leaves the NIC"
# Now there are too many: half of them are forgotten at once.
before=$(runs arp)
thresholds 128 2500 32768
busywait $((2 * LIMIT)) eval 'on "$router" ping -q -c 1 -W 1 10.8.255.$((RANDOM % 250 + 1)) >/dev/null; has_collected arp $((before + 1))'
check "5,000 neighbours: half of them are forgotten" has_collected arp $((before + 1))
# What was asked for has answered, or not.
busywait $LIMIT is_later $((${EPOCHREALTIME/./} + 2000000))
stay "5,000 neighbours, half of them forgotten" 5000
others
is "$resolved" 20 "5,000 neighbours: others resolve theirs"
for counter in replace_eexist replace_dup_match destroy_enoent destroy_failed; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

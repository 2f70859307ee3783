#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 200
#
# 256 devices in one flowtable, all but one over VLANs: each rule comes to the device by which its packets come
# in, and costs no more calls than with one.
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
source "$(dirname "${BASH_SOURCE[0]}")/hosts.sh"

devices=255

# The dialect is not asked for.
load_module report_ms=0 ttl=2
topology
# Of a VLAN device nftables makes entries only if the port is in the flowtable too, and then the rules are the
# port's. So they are those of a macvlan over it.
for ((k = 0; k < devices; k++)); do
	cat <<-END
		link add link nic1 name nic1.$k type vlan id $((k + 2))
		link set nic1.$k up
		link add link nic1.$k name up$k type macvlan mode passthru
		addr add 10.100.$k.1/24 dev up$k
		link set up$k up
	END
done | on "$router" ip -batch -
for ((k = 0; k < devices; k++)); do
	cat <<-END
		link add link wire1 name wire1.$k type vlan id $((k + 2))
		addr add 10.100.$k.2/24 dev wire1.$k
		link set wire1.$k up
		rule add from 10.100.$k.2 lookup $((1000 + k))
		route add default via 10.100.$k.1 dev wire1.$k table $((1000 + k))
	END
done | on "$server" ip -batch -

# Each direction is where it belongs: its rule has the VLAN of the server's address.
wrong() {
	local line k
	while read -r line; do
		[[ $line =~ (src|dst)=10\.100\.([0-9]+)\.2 ]] || { echo "$line" && continue; }
		k=${BASH_REMATCH[2]}
		case $line in
		*"in=nic1 vlan=$((k + 2)) "*"src=10.100.$k.2 "*"out=nic0 "*) ;;
		*"in=nic0 "*"dst=10.100.$k.2 "*) ;;
		*) echo "$line" ;;
		esac
	done <<<"$(<$NIC/rules)"
}

list=nic0
for ((k = 0; k < devices - 1; k++)); do list+=", up$k"; done
flowtable_ruleset devices="$list" >"$_output.ruleset"
check "a flowtable with $devices devices, as many as nftables takes at a time, is loaded" \
	on "$router" nft -f "$_output.ruleset"
check "the flowtable gets one device more" on "$router" nft "add flowtable inet fw ft { devices = { up$((devices - 1)) }; flags offload; }"
is "$(nic_counter nic1.bound_indr)" $devices "the driver is bound for each device"
nic counters 0
check "a flow by each of $devices devices has begun" hosts_begin 10.100.0.2 $devices 256
check "the rules of a flow by each device are in the NIC" busywait $LIMIT has_rules $((2 * devices))
is "$(wrong)" "" "each rule is in its device"
is "$(nic_counter replace_ok) $(nic_counter replace_failed)" "$((2 * devices)) 0" "the driver was called once for each rule"
on "$router" ip link del up7
has_no_7() { fails grep -F 10.100.7.2 $NIC/rules; }
check "when a device goes, its rules do" busywait $LIMIT has_no_7
check "when a device goes, the rules of others stay" has_rules $((2 * devices - 2))
on "$router" nft flush ruleset
check "nft flush ruleset leaves no rule" rules_are 0
is "$(nic_counter nic1.bound_indr)" 0 "nft flush ruleset leaves nothing bound"
for counter in replace_eexist replace_dup_match destroy_enoent destroy_failed; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

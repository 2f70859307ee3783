#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
#
# A rule that the driver fails to remove goes on forwarding. The log says so, and its removal
# is tried again every second, and when the device leaves.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module
topology

failures=0
failed() { [ $(($(nic_counter destroy_failed) - failures)) -ge "$1" ]; }
# rules_of PORT N: the NIC holds N rules of the connection to PORT.
rules_of() { is_count "$2" grep -E "(sport|dport)=$1 " $NIC/rules; }
is_count() { [ "$("${@:2}" | grep -c .)" = "$1" ]; }

# make_orphans NAME PORT [ERRNO]: a connection whose two rules cannot be removed when it ends.
make_orphans() {
	flow_open "$1" tcp4 "$2"
	check "$1: is in the NIC" busywait $LIMIT rules_of "$2" 2
	failures=$(nic_counter destroy_failed)
	nic faults "destroy -${3:-5} 100"
	on "$router" conntrack -D -p tcp --dport "$2" >/dev/null 2>&1
	check "$1: the driver fails to remove its rules" busywait $LIMIT failed 2
	check "$1: the log says so" \
		grep -qE 'nic[01]: the driver did not remove a rule: -(EIO|5|EINVAL|22)\b.*goes on forwarding.*tried again' <(last_told)
	check "$1: the rules are still in the NIC" rules_of "$2" 2
}

flowtable_ruleset | load_ruleset
make_orphans first 5001
check "first: the rules still forward" in_hardware first 5000
check "first: the removal is tried again" busywait $LIMIT failed 4
check "first: the rules are still there when that has failed too" rules_of 5001 2

flow_open second tcp6 5002
check "another flow gets into the NIC" busywait $LIMIT rules_of 5002 2
nic faults none
check "first: when the driver can, the rules go by themselves" busywait $LIMIT rules_of 5001 0
check "first: the rules of another flow stay when these go" rules_of 5002 2
for flow in first second; do flow_close $flow; done

# mlx5 says EINVAL of a rule that it does not know; this rule is known.
make_orphans fourth 5004 22
nic faults none
on "$router" nft flush ruleset
check "fourth: nft flush ruleset leaves no rule" rules_are 0
is "$(nic_counter destroy_enoent)" 0 "no rule was removed twice"
flow_close fourth

# Fragments, which NICs hand to the host, go on when conntrack forgets their connection: there is a new flow of the
# same packets.
flowtable_ruleset | load_ruleset
flow_open sixth udp4 5006
check "sixth: is in the NIC" busywait $LIMIT rules_of 5006 2
on "$client" ip link set wire0 mtu 1000
on "$server" ip link set wire1 mtu 1000
mapfile -t old < <(cut -d ' ' -f 1 $NIC/rules)
nic faults "destroy -5 100"
on "$router" conntrack -F 2>/dev/null
packets_lead_to() { flow_send sixth 1400 >/dev/null && "$@"; }
old_are_gone() { ! grep -wF "$(printf '%s\n' "${old[@]}")" $NIC/rules; }
waits() { grep -q "udp .*:5006 .*stays in software.*earlier rule of it could not be removed yet" <(told); }
check "sixth: a new flow waits for the rules that the driver did not remove" busywait $LIMIT packets_lead_to waits
is "$(nic_counter replace_dup_kept)" 0 "sixth: the new flow's rules meet none"
nic faults none
check "sixth: when the driver can, the old flow's rules go by themselves" busywait $LIMIT old_are_gone
on "$client" ip link set wire0 mtu 1500
on "$server" ip link set wire1 mtu 1500
check "sixth: when the old rules are gone, the new flow gets into the NIC" busywait $LIMIT packets_lead_to rules_of 5006 2
is "$(nic_counter replace_dup_match)" 0 "the driver never saw replace_dup_match"
flow_close sixth
on "$router" nft flush ruleset

# A driver that fails to the end is beyond help.
flowtable_ruleset | load_ruleset
make_orphans fifth 5005
on "$router" nft flush ruleset
check "a driver that fails to the end: nft returns, and the rules stay" rules_are 2
for nic in nic0 nic1; do
	check "a driver that fails to the end: the log says that a rule of $nic stays" \
		grep -q "$nic: rules that the driver did not remove stay and go on forwarding: 1\\." <(told | tail -n 2)
	is "$(nic_counter $nic.bound_ft)" 0 "a driver that fails to the end: $nic is not bound"
done
nic faults none
nic reset 1

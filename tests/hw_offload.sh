#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 200
# exclusive: times are measured
#
# conntrack says [HW_OFFLOAD] of a connection exactly while the NIC has its rules, also if that takes its
# time.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

call=$((400 * SLOWNESS))
load_module report_ms=0
topology
flowtable_ruleset >"$_output.ruleset"
load_ruleset <"$_output.ruleset"
nic latency_us $((1000 * call))

relay "connections get in and out" "$_here/hw_offload.py" "$client" "$router" "$server" $call "$_output.ruleset"

nic latency_us 0
on "$router" nft flush ruleset
for counter in replace_eexist replace_dup_match destroy_enoent destroy_failed; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

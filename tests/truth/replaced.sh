#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
# timeout: 200
# smp: rulesets replace themselves under traffic
#
# A connection goes from one flowtable to another, again and again, at random: no driver ever has two rules
# for the same packets.
#
#   scripts/vm --machine uml -- env REPLACED_SEED=N /src/tests/truth/replaced.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

seconds=15 seed=${REPLACED_SEED:-$RANDOM}
has_time || seconds=60
load_module report_ms=0
topology
flowtable_ruleset >"$_output.ruleset"
echo "# REPLACED_SEED=$seed"
at_exit nic latency_us 0

relay "rulesets replace themselves" "$_here/truth/replaced.py" --client "$client" --server "$server" --router "$router" \
	--ruleset "$_output.ruleset" --seconds $seconds --seed "$seed" --pace $PACE --limit $((LIMIT * SLOWNESS))

on "$router" nft flush ruleset
is "$(nic_rules)" "" "no rule is left"
for counter in replace_eexist replace_dup_match destroy_enoent destroy_failed; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

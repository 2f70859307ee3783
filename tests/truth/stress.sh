#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
# smp: all events at once, at random
# timeout: 500
# exclusive: frames are looked at in time
#
# Everything that the other truth tests do one by one, at random and at once (stress.py), for a
# short while. Longer, on a machine with all checks:
#
#   make stress MACHINE=debug STRESS_SECONDS=3600 [STRESS_SEED=N]
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need /sys/kernel/debug/failslab

seconds=${STRESS_SECONDS:-40} seed=${STRESS_SEED:-$RANDOM}
load_module
world
ruleset=$(mktemp)
at_exit rm -f "$ruleset" "$ruleset.out"
at_exit memory_is_short 0
flowtable_ruleset devices="$devices" >"$ruleset"
load_ruleset <"$ruleset"
memory_is_short 0 # stress.py says when it is

echo "# $seconds s, STRESS_SEED=$seed"
stress() {
	"$(dirname "${BASH_SOURCE[0]}")/stress.py" --client "$client" --server "$server" \
		--router "$router" --ruleset "$ruleset" --seconds "$seconds" --seed "$seed" \
		--slowness "$SLOWNESS" --control "$(control)" --calm "$CALM" --faults | tee "$ruleset.out" >&3
	return "${PIPESTATUS[0]}"
}
exec 3>&1
check "connections survive everything, and no frame goes astray" stress
echo "# $(memory_failures) allocations failed"
memory_is_short 0
is "$(nic_rules)" "" "no rule is left"
is "$(nic_counter replace_eexist)" 0 "the driver never saw replace_eexist"
# A rule whose removal the driver refuses may be met by its successor, which the driver then refuses.
echo "# the driver saw replace_dup_kept $(nic_counter replace_dup_kept) times"
if grep -q ' fault nic fails anywhere$' "$ruleset.out"; then
	echo "# the driver saw replace_dup_match $(nic_counter replace_dup_match) times, with failures it does not know of"
else
	is "$(nic_counter replace_dup_match)" 0 "the driver never saw replace_dup_match"
fi
# What is gone nobody can know who is refused removals and statistics.
if grep -qE ' (nic refuses|fault nic fails anywhere)$' "$ruleset.out"; then
	echo "# the driver saw destroy_enoent $(nic_counter destroy_enoent) times"
else
	is "$(nic_counter destroy_enoent)" 0 "the driver never saw destroy_enoent"
fi

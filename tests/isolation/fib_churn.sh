#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 120
# exclusive: times are measured
#
# Very many routes, some of which change all the time, so that register_fib_notifier() never succeeds: a
# ruleset is loaded no later than without `flags offload`, and routes are followed all the same. On a machine
# with one CPU it would succeed, as nothing changes while it lists routes, so the NIC has it fail.
source "$(dirname "${BASH_SOURCE[0]}")/../truth/lib.sh"

routes=100000 turns=7

# Some of them are always being replaced.
churn_begins() {
	local line
	exec {churn}< <(exec "$_here/isolation/routes.py" "$router" churn 1000 nic1:10.0.2.2 nic2:10.0.3.2)
	churn_pid=$!
	at_exit churn_ends
	read -ru "$churn" line
}
churn_ends() { kill "$churn_pid" 2>/dev/null || true; }

declare -A samples=()
# loads NAME [SAMPLES]: how long a ruleset takes, which takes the place of the one before.
loads() {
	local took=${EPOCHREALTIME/./}
	on "$router" nft -f "$_output.$1"
	samples[${2:-$1}]+=" $((${EPOCHREALTIME/./} - took))"
}
sorted() { xargs -n 1 <<<"${samples[$1]}" | sort -n; }
median() { sorted "$1" | sed -n "$((turns / 2 + 1))p"; }

module=nft_offload limit=$((10000 * SLOWNESS))
load_module
world
"$_here/isolation/routes.py" "$router" fill $routes nic1:10.0.2.2
for kind in offload ""; do
	{ echo "flush ruleset" && flowtable_ruleset devices="$devices" flags="$kind"; } >"$_output.${kind:-plain}"
done

nic fib_churn nic0
churn_begins
for ((turn = 0; turn < turns; turn++)); do
	loads plain
	loads offload
done
# For the first one with flags, the namespace gets its monitor. The changes of routes hold the same lock, now
# and then for long; not each time.
for turn in 1 2 3; do
	on "$router" nft flush ruleset
	unload_module nft_offload
	load_module
	loads offload first
done
plain=$(median plain) offload=$(median offload)
check "nft -f with flags offload is as quick as without, beside $routes routes that change" \
	[ "$offload" -le $((3 * plain + 20000)) ]
echo "# median $((offload / 1000)) ms, without $((plain / 1000)) ms (${samples[offload]} |${samples[plain]} us)"
check "so is the first one, with which the routes begin to be watched" \
	[ "$(sorted first | sed -n 1p)" -le $((3 * plain + 40000)) ]
echo "# ${samples[first]} us"

# asks_again: register_fib_notifier() asks whether routes have changed, as it has not succeeded.
asks_again() { [ "$(<$NIC/fib_churn)" -gt "$asked" ]; }
on "$router" nft flush ruleset
load_ruleset <<<"table inet plain { chain forward { type filter hook forward priority 0; ct state new; }; }"
start_probe
promise="stall kept"
event "none of its routes changes, but others do" --limit 1000 -- true
promise="stall gone back"
event "a route changes while others do" --old wire=wire1 -- "$(back_by_wire2)" \
	"$(r4 route replace 10.9.9.9 via 10.0.3.2)" "$(r6 route replace fd00:9::9 via fd00:3::2)"
way_back
check "other routes have changed all the time" kill -0 "$churn_pid"
event "a rule comes while routes change" --old wire=wire1 -- "$(back_by_wire2)" \
	"$(r4 route replace 10.9.9.9 via 10.0.3.2 table 100)" "$(r4 rule add to 10.9.9.9 lookup 100)" \
	"$(r6 route replace fd00:9::9 via fd00:3::2 table 100)" "$(r6 rule add to fd00:9::9 lookup 100)"
churn_ends
asked=$(<$NIC/fib_churn)
check "register_fib_notifier() has never succeeded, and is tried again" busywait $LIMIT asks_again
for counter in replace_eexist replace_dup_match destroy_enoent destroy_failed; do
	is "$(nic_counter $counter)" 0 "the driver never saw $counter"
done

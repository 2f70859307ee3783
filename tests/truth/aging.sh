#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
# timeout: 900
# idle: it waits for five minutes of uptime
#
# A flow that is alive in software only, or in one direction only, for longer than its timeout
# does not expire; neither in the first five minutes after boot, nor when jiffies have more
# than 32 bits.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Several times as long as C's garbage collector takes to come around.
timeout=5
aging() { "$(dirname "${BASH_SOURCE[0]}")/aging.py" "$client" "$server" $timeout; }
uptime() { cut -d. -f1 /proc/uptime; }
old_enough() { [ "$(uptime)" -gt 302 ]; }

prepare() {
	world
	on "$router" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=$timeout
	nic faults "replace -28 100 nic1"
	flowtable_ruleset | load_ruleset
}

load_module partial=1
prepare
check "at $(uptime) s of uptime" [ "$(uptime)" -lt 250 ]
check "before five minutes of uptime, flows in use live" aging
check "five minutes pass" busywait 400000 old_enough
check "after five minutes of uptime, flows in use live" aging
on "$router" nft flush ruleset
start_over

# Its behaviour is of interest where time is real.
[ "$MACHINE" != debug ] || exit 0
load_c_module
prepare
echo "# the C module, after five minutes:"
aging | sed 's/^/#   /' || true
on "$router" nft flush ruleset

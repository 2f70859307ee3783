#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
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
# Without starting a process, for five minutes.
younger_than() {
	local up
	read -r up _ </proc/uptime
	[ "${up%.*}" -lt "$1" ]
}

prepare() {
	world
	on "$router" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=$timeout
	nic faults "replace -28 100 nic1"
	flowtable_ruleset | load_ruleset
}

load_module partial=1
prepare
check "there is time enough until five minutes of uptime" younger_than 250
check "before five minutes of uptime, flows in use live" aging
PAUSE=1 check "five minutes pass" busywait 400000 fails younger_than 302
check "after five minutes of uptime, flows in use live" aging
on "$router" nft flush ruleset
start_over

# Its behaviour is of interest where time is real.
has_time || exit 0
load_c_module
prepare
echo "# the C module, after five minutes:"
aging | sed 's/^/#   /' || true
on "$router" nft flush ruleset

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
# timeout: 150
# smp: entries are freed on one CPU while they are looked at on another one
#
# Routes change all the time, so that entries of a table without `flags offload` are looked at again and again, and
# these are freed, all at once, in the middle of that.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$_here/bench/lib.sh"

need "$MODULES/bench/flowbench.ko"
load_module
bench_begins 1000 flags=

RANDOM=${SEED:=$((RANDOM % 1000))}
echo "# SEED=$SEED"
flap() { while ip route add blackhole 192.0.2.0/24 && ip route del blackhole 192.0.2.0/24; do :; done; }
flap &
at_exit kill $!
for round in {1..12}; do
	bench flows
	bench offer
	# The first look is garbage collection's, within a second.
	busybox usleep $(((1000 + RANDOM % 1500) * 1000))
	bench start
	nft flush ruleset
	flowtable_ruleset devices="bench0, bench1" flags= | nft -f -
done
ok "nothing has broken in $round rounds"

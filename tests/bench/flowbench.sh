#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan
# timeout: 300
#
# The benchmark inside the kernel: each of its measurements is made with a few flows, for both modules.
# What comes out says nothing here; how it goes does: rules for all flows, and none left.
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# of MODULE WHAT: the lines of it, of those that have been printed.
of() { grep -c "\"what\": \"$2\", \"module\": \"$1\"" "$_output.json"; }

need "$MODULES/bench/flowbench.ko"
check "all that is measured can be" \
	"$(dirname "${BASH_SOURCE[0]}")/core.py" count --flowbench "$MODULES/bench/flowbench.ko" \
	--nft-offload "$NFT_OFFLOAD_KO" --modules c,nft_offload --flows 500 --json "$_output.json"
sed 's/^/# /' "$_output.json"
for module in c nft_offload; do
	for what in memory offer teardown latency idle keep flush; do
		is "$(of $module $what)" 1 "$module: there is a result: $what"
	done
	is "$(of $module packets)" 4 "$module: there are results: packets"
done
is "$(of nft_offload evict)" 1 "nft_offload: there is a result: evict"
check "the C module leaves rules behind when the ruleset is flushed" \
	grep -q '"flush", "module": "c".*"rules_left": 1000' "$_output.json"
check "nft_offload leaves none" grep -q '"flush", "module": "nft_offload".*"rules_left": 0' "$_output.json"

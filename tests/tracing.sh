#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: stock
# timeout: 240
#
# What bpftrace and perf can attach to, as Documentation/packaging.md says.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module
topology
flowtable_ruleset | load_ruleset
check "the module has BTF" [ -s /sys/kernel/btf/nft_offload ]

# A driver is given a rule: FLOW_CLS_REPLACE is 0.
said=$(mktemp)
at_exit rm -f "$said"
bpftrace -e 'fexit:nft_offload:shim_block_call
	{ printf("command %d: %d%s\n", args.cls->command, retval, kstack(4)); }' >"$said" 2>&1 &
at_exit kill $!
check "bpftrace attaches to a function in C" busywait $((3 * LIMIT)) grep -q Attaching "$said"

# What perf probe makes.
probes=/sys/kernel/tracing/kprobe_events events=/sys/kernel/tracing/events/nft_test/enable
probe() { echo "p:nft_test/$1 nft_offload:$2" >>$probes; }
at_exit eval "echo 0 >$events; echo -:nft_test/given >>$probes"
check "a probe attaches to a function in C" probe given shim_block_call
echo 1 >$events
translate=$(awk '$3 ~ /^_R.*_11nft_offload7offload9translate9translate$/ { print $3 }' /proc/kallsyms)
check "functions in Rust have names" [ -n "$translate" ]
check "the kernel takes no probe at a function in Rust" fails probe translated "$translate"

flow_open web tcp4
check "a flow is offloaded" wait_rules 2
check "bpftrace has seen a rule, by its type" busywait $LIMIT grep "^command 0: 0" "$said"
check "bpftrace has seen the caller, by names in Rust" busywait $LIMIT grep "_R.*_11nft_offload7offload" "$said"
check "the probe has seen the rule" busywait $LIMIT grep "given: (shim_block_call" /sys/kernel/tracing/trace

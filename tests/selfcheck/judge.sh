#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: host
#
# scripts/judge-log, on what kernels have printed.
source "$TOP/tests/lib.sh"

log=$(mktemp)
at_exit rm -f "$log"
judge() { "$TOP/scripts/judge-log" "$log"; }

while IFS= read -r line; do
	printf '[    1.0] before\n%s\n[    2.0] after\n' "$line" >"$log"
	check "a splat: $line" fails judge
done <<'END'
[    4.9] WARNING: plant.c:42 at plant_init+0x5a/0x1000 [plant], CPU#0: insmod/73
[    4.9][  T73] BUG: KASAN: slab-use-after-free in plant_init+0x1/0x2 [plant]
[    4.9] Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1]
[    4.9] UBSAN: array-index-out-of-bounds in a.c:1:2
[    4.9] WARNING: possible circular locking dependency detected
[    4.9] INFO: trying to register non-static key: a lock
[    4.9] BUG: sleeping function called from invalid context at a.c:1
[    4.9] BUG: scheduling while atomic: a/1/0x00000002
[    4.9] WARNING: suspicious RCU usage
[    4.9] WARNING: inconsistent lock state
[    4.9] rcu: INFO: rcu_preempt self-detected stall on CPU
[    4.9] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:
[    4.9] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [a:1]
[    4.9] watchdog: Watchdog detected hard LOCKUP on cpu 0
[    4.9] INFO: task insmod:73 blocked for more than 120 seconds.
[    4.9] refcount_t: underflow; use-after-free.
[    4.9] unregister_netdevice: waiting for nic0 to become free. Usage count = 2
[    4.9] ref_tracker: eth%d@00000000 has 1/1 users at
[    4.9] kmemleak: Kernel memory leak detector disabled
unreferenced object 0xffff888003c5f000 (size 104):
[    4.9] ODEBUG: free active (active state 0) object: 00000000 object type: work_struct
[    4.9] list_add corruption. next->prev should be prev
[    4.9] module nft_offload: Unknown rela relocation: 9
[    4.9] nft_offload: Unknown symbol flow_block_cb_alloc (err -2)
[    4.9] Kernel panic - not syncing: planted
[    4.9] rust_kernel: panicked at a.rs:1:2:
[    4.9] Call Trace:
[    4.9]     not ok 2 nat
not ok 1 translate
END

while IFS= read -r line; do
	echo "$line" >"$log"
	check "no splat: $line" judge
done <<'END'
[    4.9] plant: loading out-of-tree module taints kernel.
[    4.9] plant: module verification failed: signature and/or required key missing - tainting kernel
[    0.0] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible
[    4.9] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)
[    0.000000] kmemleak: Kernel memory leak detector disabled
[    0.0] rcu: 	RCU CPU stall warnings timeout set to 60 (rcu_cpu_stall_timeout).
[    4.9] clocksource: timekeeping watchdog on CPU1: Marking clocksource 'tsc' as unstable
[    4.9] workqueue: nf_flow_work hogged CPU for >10000us 4 times, consider switching to WQ_UNBOUND
[    4.9]     ok 2 nat
END

printf '[ 1.0] %s\n' "FAULT_INJECTION: forcing a failure." "name failslab" "Call Trace:" >"$log"
check "a failure that was ordered is no splat" judge
echo '[ 1.0] BUG: KASAN: slab-out-of-bounds in a' >>"$log"
check "a splat that follows from a failure that was ordered is one" fails judge

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * flowbench - what a flowtable type costs, measured inside the kernel
 *
 * The module makes the flows of connections itself, with nft_flow_route(),
 * flow_offload_alloc() and flow_offload_add(), as nft_flow_offload_eval() makes
 * them for a packet, and offers them to the flowtable that nft has made for the
 * devices bench0 and bench1. These are the module's too: a NIC whose driver does
 * as little as a driver can, with a table of constant time and no allocations. So
 * what is measured is the flowtable and its type, and neither packets, programs
 * nor a driver. When a rule is in, or gone, the NIC knows; no queue is asked
 * whether it is empty.
 *
 * Flow I is client I % clients, whose ports go on from 1024, to one of 1,000
 * servers at port 443. The clients are 10.128.0.1 and so on, the servers
 * 10.64.0.1 and so on; both are behind gateways which the user has to give routes
 * and neighbours, so that each look-up finds what it finds on a router.
 *
 * Parameters: flows=N: as many at most (20000); clients=N (1000).
 *
 * /sys/kernel/debug/flowbench/do takes a command and answers, when it is read, with
 * NAME=VALUE lines of what it took:
 *
 * connections udp|tcp N	makes the connections of N flows; 0: frees them
 * flows		makes a flow of each, and offers none
 * offer		offers them at full speed, until all rules are in, if the
 *			flowtable has `flags offload`
 * offer RATE		so many a second: p50_ns, p90_ns, p99_ns and max_ns from
 *			flow_offload_add() to the second rule
 * queue		offers them at full speed, and does not wait for rules
 * teardown		tears all flows down, until all are freed
 * start [RULES]	starts to measure what happens to the flows from outside:
 * until		until the NIC has so many rules,
 * until_empty		until the flowtable has no entry, or
 * stop			until now
 * keep ROUNDS LIFETIME	all flows expire in LIFETIME seconds from now on, which
 *			has to be what sysctl says; what that takes while the
 *			table is looked through ROUNDS times, a second or so each.
 *			The NIC says that each flow is in use.
 * idle ROUNDS LIFETIME	the same for flows that are not in use in the NIC
 * packets N		N packets of the first 64 flows, in software: their rules stay
 * latency US busy|sleep|serial  of each call that has an effect: burns time, sleeps, or
 *			sleeps with a mutex held, as mtk_eth_soc and airoha do
 * clear		the NIC forgets all rules
 * profile NS		a sample each NS nanoseconds of work from now on; 0: no more.
 *			The file samples then has 24 words for each: what ran, what
 *			had called it, and so on, and 0 after the last.
 *
 * What a command took: ns; busy_ns, which all CPUs together were not idle, in all
 * contexts (under icount: instructions); driver_ns and driver_calls of it, of the
 * driver's own.
 */
#ifndef FLOWBENCH_H
#define FLOWBENCH_H

#include <linux/netdevice.h>
#include <linux/types.h>

#define BENCH_CLIENTS_NET	0x0a800001	/* 10.128.0.1 */
#define BENCH_CLIENTS_MASK	0xff800000
#define BENCH_SERVERS_NET	0x0a400001	/* 10.64.0.1 */
#define BENCH_SERVERS		1000
#define BENCH_PORT		1024
#define BENCH_SERVER_PORT	443

extern unsigned int bench_flows, bench_clients;	/* parameters */

/* flowbench_clock.c */
struct bench_clock {
	u64 ns;
	u64 busy_ns;
	u64 driver_ns;
	u64 driver_calls;
};

int bench_clock_init(void);
void bench_clock_exit(void);
void bench_clock_read(struct bench_clock *clock);

/* flowbench_nic.c */
enum bench_latency {
	BENCH_BUSY,
	BENCH_SLEEP,
	BENCH_SERIAL,
};

struct bench_nic {
	struct net_device *dev[2];
	atomic_t rules;
	atomic_t errors;	/* cookies and matches that were known, or unknown */
	u32 latency_us;
	enum bench_latency latency;
	bool in_use;		/* what STATS says of all rules */
	bool keep_sent;
	struct sk_buff_head sent;	/* by the CPU that has set it */
};

extern struct bench_nic bench_nic;

int bench_nic_init(void);
void bench_nic_exit(void);
void bench_nic_clear(void);
void bench_nic_driver(u64 *ns, u64 *calls);
void bench_nic_expect(int rules);
int bench_nic_wait(struct bench_clock *when);
u64 bench_nic_installed(unsigned int flow);

/* flowbench_flows.c */
extern unsigned int bench_num_cts;
struct nf_flowtable *bench_flowtable(void);
int bench_flows_init(void);
void bench_flows_exit(void);
int bench_connections(u8 l4proto, unsigned int number);
int bench_flows_make(void);
int bench_offer(unsigned int rate, bool *rules);
void bench_latencies(void);
u64 bench_latency(unsigned int permille);
void bench_flows_forget(void);
int bench_teardown(void);
int bench_until_empty(void);
int bench_keep(unsigned int rounds, unsigned int lifetime, bool in_use,
	       struct bench_clock *begin, struct bench_clock *end);
struct nf_conn *bench_connection(unsigned int flow);

/* flowbench_profile.c */
#define BENCH_DEPTH	24

int bench_profile(unsigned int ns);
const void *bench_profile_samples(size_t *size);
void bench_profile_exit(void);

/* flowbench_packets.c */
int bench_packets(unsigned int number, u64 *ns);

#endif

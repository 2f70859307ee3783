// SPDX-License-Identifier: GPL-2.0
/*
 * flowbench: connections and their flows. Commands come one at a time, and the
 * ruleset is not changed meanwhile.
 */
#include <linux/delay.h>
#include <linux/ip.h>
#include <linux/sched/clock.h>
#include <linux/sort.h>
#include <linux/vmalloc.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/netfilter/nf_conntrack_core.h>
#include <net/netfilter/nf_conntrack_zones.h>
#include <net/netfilter/nf_flow_table.h>
#include <net/netfilter/nf_tables.h>
#include <net/route.h>

#include "flowbench.h"

static struct nf_conn **bench_cts;
unsigned int bench_num_cts;
static struct flow_offload **bench_flow;
static u64 *bench_offered;	/* when */

/* What there is of bench_flow[]; entries of others may be gone at any time. */
static enum { BENCH_NONE, BENCH_MADE, BENCH_OFFERED } bench_state;

/* The flowtable's hook of bench0 says which one it is. */
struct nf_flowtable *bench_flowtable(void)
{
	const struct nf_hook_entries *entries;
	struct nf_flowtable *found = NULL;
	struct nf_hook_ops **ops;
	unsigned int i;

	rcu_read_lock();
	entries = rcu_dereference(bench_nic.dev[0]->nf_hooks_ingress);
	ops = entries ? nf_hook_entries_get_hook_ops(entries) : NULL;
	for (i = 0; ops && i < entries->num_hook_entries; i++)
		if (ops[i]->hook_ops_type == NF_HOOK_OP_NFT_FT)
			found = ops[i]->priv;
	rcu_read_unlock();
	return found;
}

struct nf_conn *bench_connection(unsigned int flow)
{
	return flow < bench_num_cts ? bench_cts[flow] : NULL;
}

static struct nf_conn *bench_connection_make(u8 l4proto, unsigned int flow)
{
	unsigned int client = flow % bench_clients, port = flow / bench_clients;
	struct nf_conntrack_tuple there = {
		.src.l3num = NFPROTO_IPV4,
		.src.u3.ip = htonl(BENCH_CLIENTS_NET + client),
		.src.u.all = htons(BENCH_PORT + port),
		.dst.u3.ip = htonl(BENCH_SERVERS_NET + (port + client) % BENCH_SERVERS),
		.dst.u.all = htons(BENCH_SERVER_PORT),
		.dst.protonum = l4proto,
		.dst.dir = IP_CT_DIR_ORIGINAL,
	};
	struct nf_conntrack_tuple back;
	struct nf_conn *ct;
	int err;

	if (!nf_ct_invert_tuple(&back, &there))
		return ERR_PTR(-EINVAL);
	ct = nf_conntrack_alloc(&init_net, &nf_ct_zone_dflt, &there, &back,
				GFP_KERNEL);
	if (IS_ERR(ct))
		return ct;
	ct->status |= IPS_CONFIRMED | IPS_SEEN_REPLY | IPS_ASSURED;
	__nf_ct_set_timeout(ct, NF_CT_DAY);
	if (l4proto == IPPROTO_TCP)
		ct->proto.tcp.state = TCP_CONNTRACK_ESTABLISHED;

	err = nf_conntrack_hash_check_insert(ct);
	if (err) {
		nf_conntrack_free(ct);
		return ERR_PTR(err);
	}
	return ct;
}

int bench_connections(u8 l4proto, unsigned int number)
{
	struct nf_conn *ct;

	if (number > bench_flows || bench_state != BENCH_NONE)
		return -EINVAL;
	while (bench_num_cts) {
		ct = bench_cts[--bench_num_cts];
		nf_ct_delete(ct, 0, 0);
		nf_ct_put(ct);
		cond_resched();
	}
	while (bench_num_cts < number) {
		ct = bench_connection_make(l4proto, bench_num_cts);
		if (IS_ERR(ct))
			return PTR_ERR(ct);
		bench_cts[bench_num_cts++] = ct;
		cond_resched();
	}
	return 0;
}

/* As for a packet from the client, that comes by bench0 and leaves by bench1. */
static struct flow_offload *bench_flow_make(struct nft_flowtable *ft,
					    struct sk_buff *skb,
					    struct nf_conn *ct)
{
	const struct nf_hook_state state = {
		.hook = NF_INET_FORWARD,
		.pf = NFPROTO_IPV4,
		.in = bench_nic.dev[0],
		.out = bench_nic.dev[1],
		.net = &init_net,
	};
	const struct nft_pktinfo pkt = {
		.skb = skb,
		.state = &state,
		.ethertype = htons(ETH_P_IP),
	};
	struct flowi4 fl4 = {
		.daddr = ct->tuplehash[IP_CT_DIR_REPLY].tuple.src.u3.ip,
	};
	struct nf_flow_route route = {};
	struct flow_offload *flow;
	struct rtable *rt;
	int err;

	rt = ip_route_output_key(&init_net, &fl4);
	if (IS_ERR(rt))
		return ERR_CAST(rt);
	skb_dst_set(skb, &rt->dst);
	err = nft_flow_route(&pkt, ct, &route, IP_CT_DIR_ORIGINAL, ft);
	skb_dst_drop(skb);
	if (err)
		return ERR_PTR(err);

	flow = flow_offload_alloc(ct);
	if (!flow) {
		dst_release(route.tuple[0].dst);
		dst_release(route.tuple[1].dst);
		return ERR_PTR(-ENOMEM);
	}
	flow_offload_route_init(flow, &route);
	__set_bit(NF_FLOW_HW_BIDIRECTIONAL, &flow->flags);
	set_bit(IPS_OFFLOAD_BIT, &ct->status);
	return flow;
}

static void bench_flows_free(unsigned int from, unsigned int to)
{
	unsigned int i;

	for (i = from; i < to; i++) {
		clear_bit(IPS_OFFLOAD_BIT, &bench_cts[i]->status);
		flow_offload_free(bench_flow[i]);
	}
	bench_state = BENCH_NONE;
}

int bench_flows_make(void)
{
	struct nf_flowtable *table = bench_flowtable();
	struct nft_flowtable *ft = container_of(table, struct nft_flowtable, data);
	struct flow_offload *flow;
	struct sk_buff *skb;
	unsigned int i;

	if (!table || !bench_num_cts || bench_state == BENCH_MADE)
		return -EINVAL;
	skb = alloc_skb(sizeof(struct iphdr), GFP_KERNEL);
	if (!skb)
		return -ENOMEM;
	skb_reset_network_header(skb);
	skb_put_zero(skb, sizeof(struct iphdr));

	for (i = 0; i < bench_num_cts; i++) {
		rcu_read_lock_bh();
		flow = bench_flow_make(ft, skb, bench_cts[i]);
		rcu_read_unlock_bh();
		if (IS_ERR(flow)) {
			bench_flows_free(0, i);
			kfree_skb(skb);
			return PTR_ERR(flow);
		}
		bench_flow[i] = flow;
		cond_resched();
	}
	kfree_skb(skb);
	bench_state = BENCH_MADE;
	return 0;
}

/* When it is time for the flow after so many, and not before. */
static void bench_pace(ktime_t begin, unsigned int offered, unsigned int rate)
{
	ktime_t next = ktime_add_ns(begin, div_u64((u64)offered * NSEC_PER_SEC, rate));

	if (ktime_before(ktime_get(), next)) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		schedule_hrtimeout(&next, HRTIMER_MODE_ABS);
	}
}

/* So many a second, or, with 0, as many as there is time for. Says if there will be rules. */
int bench_offer(unsigned int rate, bool *rules)
{
	struct nf_flowtable *table = bench_flowtable();
	ktime_t begin = ktime_get();
	unsigned int i;
	int err = 0;

	if (!table || bench_state != BENCH_MADE)
		return -EINVAL;
	for (i = 0; i < bench_num_cts; i++) {
		if (rate)
			bench_pace(begin, i, rate);
		bench_offered[i] = local_clock();
		local_bh_disable();
		err = flow_offload_add(table, bench_flow[i]);
		local_bh_enable();
		if (err) {
			bench_flows_free(i, bench_num_cts);
			return err;
		}
		cond_resched();
	}
	bench_state = BENCH_OFFERED;
	*rules = nf_flowtable_hw_offload(table);
	return 0;
}

static int bench_compare(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

/* Of the last offer: when each flow was offered becomes how long its rules took, in order. */
void bench_latencies(void)
{
	unsigned int i;

	/* The clocks of two CPUs may differ a little. */
	for (i = 0; i < bench_num_cts; i++)
		bench_offered[i] = max(bench_nic_installed(i), bench_offered[i]) -
				   bench_offered[i];
	sort(bench_offered, bench_num_cts, sizeof(*bench_offered), bench_compare,
	     NULL);
}

/* The latency that so many per mille of the flows have at most, after that. */
u64 bench_latency(unsigned int permille)
{
	return bench_offered[div_u64((u64)permille * (bench_num_cts - 1), 1000)];
}

/* What happens to offered flows from now on, is not the module's doing. */
void bench_flows_forget(void)
{
	if (bench_state == BENCH_OFFERED)
		bench_state = BENCH_NONE;
}

int bench_teardown(void)
{
	unsigned int i;

	if (bench_state != BENCH_OFFERED)
		return -EINVAL;
	bench_state = BENCH_NONE;
	for (i = 0; i < bench_num_cts; i++) {
		flow_offload_teardown(bench_flow[i]);
		cond_resched();
	}
	return bench_until_empty();
}

int bench_until_empty(void)
{
	struct nf_flowtable *table = bench_flowtable();
	unsigned long limit = jiffies + 60 * HZ;
	int left, last = INT_MAX;

	if (!table)
		return -EINVAL;
	bench_state = BENCH_NONE;
	while ((left = atomic_read(&table->rhashtable.nelems))) {
		if (left < last) {
			last = left;
			limit = jiffies + 60 * HZ;
		} else if (time_after(jiffies, limit)) {
			return -ETIMEDOUT;
		}
		msleep(50);
	}
	return 0;
}

/* @from to @to ticks before the end of @lifetime. */
static void bench_expire(unsigned int lifetime, unsigned int from, unsigned int to)
{
	unsigned int i;

	for (i = 0; i < bench_num_cts; i++) {
		WRITE_ONCE(bench_flow[i]->timeout,
			   (u32)jiffies + lifetime - from - i % (to - from));
		cond_resched();
	}
}

/*
 * Half a second after the table has been looked through, when that is done and what
 * came of it. Between two such moments is a whole number of rounds.
 */
static void bench_between_rounds(struct nf_flowtable *table)
{
	long left, before = 0;

	while (1) {
		left = delayed_work_pending(&table->gc_work) ?
		       (long)(READ_ONCE(table->gc_work.timer.expires) - jiffies) : 0;
		if (left > 0 && left <= HZ / 2 && before > HZ / 2)
			return;
		before = left;
		fsleep(10000);
	}
}

/*
 * Flows in use are polled when they are in their second tenth; idle ones are, and
 * each second. They must not expire meanwhile.
 */
int bench_keep(unsigned int rounds, unsigned int lifetime, bool in_use,
	       struct bench_clock *begin, struct bench_clock *end)
{
	struct nf_flowtable *table = bench_flowtable();
	unsigned int tenth = lifetime * HZ / 10;
	int entries;

	if (!table || bench_state != BENCH_OFFERED || !tenth ||
	    (!in_use && 2 * rounds > lifetime * 8 / 10))
		return -EINVAL;
	entries = atomic_read(&table->rhashtable.nelems);
	WRITE_ONCE(bench_nic.in_use, in_use);
	if (in_use)
		bench_expire(lifetime * HZ, 0, tenth);
	else
		bench_expire(lifetime * HZ, tenth + 1, 2 * tenth);
	bench_between_rounds(table);
	bench_clock_read(begin);
	while (rounds--)
		bench_between_rounds(table);
	bench_clock_read(end);
	WRITE_ONCE(bench_nic.in_use, false);
	if (atomic_read(&table->rhashtable.nelems) != entries) {
		bench_state = BENCH_NONE;
		return -ESTALE;
	}
	bench_expire(NF_CT_DAY, 0, 1);
	return 0;
}

/* No flow may be offered any more. */
void bench_flows_exit(void)
{
	if (bench_state == BENCH_MADE)
		bench_flows_free(0, bench_num_cts);
	bench_state = BENCH_NONE;
	bench_connections(0, 0);
	vfree(bench_offered);
	vfree(bench_flow);
	vfree(bench_cts);
}

int bench_flows_init(void)
{
	bench_cts = vmalloc_array(bench_flows, sizeof(*bench_cts));
	bench_flow = vmalloc_array(bench_flows, sizeof(*bench_flow));
	bench_offered = vmalloc_array(bench_flows, sizeof(*bench_offered));
	if (bench_cts && bench_flow && bench_offered)
		return 0;
	bench_flows_exit();
	return -ENOMEM;
}

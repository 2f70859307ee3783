// SPDX-License-Identifier: GPL-2.0
/*
 * flowbench: a NIC of two ports. Each flow has a place for each of its two rules,
 * which the match tells, and cookies are found by a hash table of fixed size.
 */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/etherdevice.h>
#include <linux/hash.h>
#include <linux/mm.h>
#include <linux/rtnetlink.h>
#include <linux/sched/clock.h>
#include <net/pkt_cls.h>

#include "flowbench.h"

struct bench_rule {
	struct hlist_node node;
	unsigned long cookie;	/* 0: there is none */
	u64 installed;		/* when */
};

struct bench_bucket {
	spinlock_t lock;	/* of rules */
	struct hlist_head rules;
};

struct bench_calls {
	u64 ns;
	u64 calls;
};

struct bench_nic bench_nic;
static struct bench_rule *bench_rules;
static struct bench_bucket *bench_buckets;
static unsigned int bench_bits;
static DEFINE_PER_CPU(struct bench_calls, bench_calls);
static LIST_HEAD(bench_cb_list);
static DEFINE_MUTEX(bench_serial);

static int bench_expected = -1;
static struct bench_clock bench_reached;
static DECLARE_COMPLETION(bench_done);

static struct bench_bucket *bench_bucket(unsigned long cookie)
{
	return &bench_buckets[hash_long(cookie, bench_bits)];
}

static struct bench_rule *bench_find(struct bench_bucket *bucket,
				     unsigned long cookie)
{
	struct bench_rule *rule;

	hlist_for_each_entry(rule, &bucket->rules, node)
		if (rule->cookie == cookie)
			return rule;
	return NULL;
}

/* Under the lock of its bucket. */
static void bench_remove(struct bench_rule *rule)
{
	hlist_del(&rule->node);
	/* The place is free after the node is: pairs with bench_replace()'s cmpxchg(). */
	smp_store_release(&rule->cookie, 0);
}

/* The place of the flow and direction that @rule matches. */
static struct bench_rule *bench_place(const struct flow_rule *rule)
{
	struct flow_match_ipv4_addrs addrs;
	struct flow_match_ports ports;
	u32 src, dst, client, port, flow;
	bool reply;

	if (!flow_rule_match_key(rule, FLOW_DISSECTOR_KEY_IPV4_ADDRS) ||
	    !flow_rule_match_key(rule, FLOW_DISSECTOR_KEY_PORTS))
		return NULL;
	flow_rule_match_ipv4_addrs(rule, &addrs);
	flow_rule_match_ports(rule, &ports);
	src = ntohl(addrs.key->src);
	dst = ntohl(addrs.key->dst);
	reply = (src & BENCH_CLIENTS_MASK) != (BENCH_CLIENTS_NET & BENCH_CLIENTS_MASK);
	client = (reply ? dst : src) - BENCH_CLIENTS_NET;
	port = ntohs(reply ? ports.key->dst : ports.key->src) - BENCH_PORT;
	flow = port * bench_clients + client;
	return flow < bench_flows ? &bench_rules[2 * flow + reply] : NULL;
}

/* As the drivers of routers' switches: it decrements the TTL by itself. */
static int bench_check(const struct flow_action *action)
{
	const struct flow_action_entry *entry;
	int i, redirects = 0;

	flow_action_for_each(i, entry, action) {
		if (entry->id == FLOW_ACTION_ADD)
			return -EOPNOTSUPP;
		if (entry->id == FLOW_ACTION_REDIRECT)
			redirects += entry->dev == bench_nic.dev[0] ||
				     entry->dev == bench_nic.dev[1];
	}
	return redirects == 1 ? 0 : -EOPNOTSUPP;
}

static void bench_changed(int rules)
{
	if (rules != READ_ONCE(bench_expected))
		return;
	bench_clock_read(&bench_reached);
	WRITE_ONCE(bench_expected, -1);
	complete(&bench_done);
}

/* How long the hardware takes. */
static void bench_wait(void)
{
	u32 us = READ_ONCE(bench_nic.latency_us);

	if (!us)
		return;
	switch (READ_ONCE(bench_nic.latency)) {
	case BENCH_BUSY:
		udelay(us);
		break;
	case BENCH_SLEEP:
		usleep_range(us, us + 1);
		break;
	case BENCH_SERIAL:
		mutex_lock(&bench_serial);
		usleep_range(us, us + 1);
		mutex_unlock(&bench_serial);
		break;
	}
}

static int bench_replace(const struct flow_cls_offload *f,
			 const struct net_device *dev)
{
	struct bench_bucket *bucket = bench_bucket(f->cookie);
	struct flow_match_meta meta;
	struct bench_rule *rule;
	int err;

	/* nf_flow_offload_tuple() asks all ports; only one takes a rule. */
	if (!flow_rule_match_key(f->rule, FLOW_DISSECTOR_KEY_META))
		return -EOPNOTSUPP;
	flow_rule_match_meta(f->rule, &meta);
	if (meta.key->ingress_ifindex != dev->ifindex)
		return -EOPNOTSUPP;
	err = bench_check(&f->rule->action);
	if (err)
		return err;
	rule = bench_place(f->rule);
	if (!rule)
		return -EOPNOTSUPP;
	bench_wait();

	spin_lock(&bucket->lock);
	if (bench_find(bucket, f->cookie) ||
	    cmpxchg(&rule->cookie, 0, f->cookie)) {
		err = -EEXIST;
	} else {
		rule->installed = local_clock();
		hlist_add_head(&rule->node, &bucket->rules);
	}
	spin_unlock(&bucket->lock);
	if (err)
		atomic_inc(&bench_nic.errors);
	else
		bench_changed(atomic_inc_return(&bench_nic.rules));
	return err;
}

static bool bench_knows(unsigned long cookie)
{
	struct bench_bucket *bucket = bench_bucket(cookie);
	bool known;

	spin_lock(&bucket->lock);
	known = bench_find(bucket, cookie);
	spin_unlock(&bucket->lock);
	return known;
}

/* The ports share the table, as in mtk_eth_soc: the second that is asked has no such rule. */
static int bench_destroy(const struct flow_cls_offload *f)
{
	struct bench_bucket *bucket = bench_bucket(f->cookie);
	struct bench_rule *rule;

	if (!bench_knows(f->cookie))
		return -ENOENT;
	bench_wait();
	spin_lock(&bucket->lock);
	rule = bench_find(bucket, f->cookie);
	if (rule)
		bench_remove(rule);
	spin_unlock(&bucket->lock);
	if (!rule)
		return -ENOENT;
	bench_changed(atomic_dec_return(&bench_nic.rules));
	return 0;
}

static int bench_stats(struct flow_cls_offload *f)
{
	if (!bench_knows(f->cookie))
		return -ENOENT;
	bench_wait();
	if (READ_ONCE(bench_nic.in_use))
		flow_stats_update(&f->stats, 1000, 10, 0, jiffies,
				  FLOW_ACTION_HW_STATS_DELAYED);
	return 0;
}

static int bench_cb(enum tc_setup_type type, void *type_data, void *cb_priv)
{
	struct flow_cls_offload *f = type_data;
	bool may_sleep = READ_ONCE(bench_nic.latency_us);
	u64 begin;
	int err;

	if (type != TC_SETUP_CLSFLOWER)
		return -EOPNOTSUPP;
	/* The time of others, who take the CPU, is not the driver's. */
	if (!may_sleep)
		preempt_disable();
	begin = local_clock();
	switch (f->command) {
	case FLOW_CLS_REPLACE:
		err = bench_replace(f, cb_priv);
		break;
	case FLOW_CLS_DESTROY:
		err = bench_destroy(f);
		break;
	case FLOW_CLS_STATS:
		err = bench_stats(f);
		break;
	default:
		err = -EOPNOTSUPP;
		break;
	}
	this_cpu_add(bench_calls.ns, local_clock() - begin);
	this_cpu_inc(bench_calls.calls);
	if (!may_sleep)
		preempt_enable();
	return err;
}

void bench_nic_driver(u64 *ns, u64 *calls)
{
	int cpu;

	*ns = 0;
	*calls = 0;
	for_each_possible_cpu(cpu) {
		*ns += per_cpu(bench_calls.ns, cpu);
		*calls += per_cpu(bench_calls.calls, cpu);
	}
}

/* bench_nic_wait() waits for that number; who starts what leads to it comes after. */
void bench_nic_expect(int rules)
{
	reinit_completion(&bench_done);
	WRITE_ONCE(bench_expected, rules);
	if (atomic_read(&bench_nic.rules) == rules)
		bench_changed(rules);
}

int bench_nic_wait(struct bench_clock *when)
{
	long left;

	/* No progress for a minute is none at all. */
	do {
		int rules = atomic_read(&bench_nic.rules);

		left = wait_for_completion_interruptible_timeout(&bench_done,
								 60 * HZ);
		if (!left && rules == atomic_read(&bench_nic.rules)) {
			WRITE_ONCE(bench_expected, -1);
			return -ETIMEDOUT;
		}
	} while (!left);
	if (left < 0)
		return left;
	*when = bench_reached;
	return 0;
}

/* When the later of the flow's rules was installed. */
u64 bench_nic_installed(unsigned int flow)
{
	return max(bench_rules[2 * flow].installed,
		   bench_rules[2 * flow + 1].installed);
}

void bench_nic_clear(void)
{
	struct bench_bucket *bucket;
	struct bench_rule *rule;
	struct hlist_node *next;
	unsigned int i;

	for (i = 0; i < 1U << bench_bits; i++) {
		bucket = &bench_buckets[i];
		spin_lock(&bucket->lock);
		hlist_for_each_entry_safe(rule, next, &bucket->rules, node) {
			bench_remove(rule);
			atomic_dec(&bench_nic.rules);
		}
		spin_unlock(&bucket->lock);
		cond_resched();
	}
}

/* --- the netdevs */

static int bench_setup_tc(struct net_device *dev, enum tc_setup_type type,
			  void *type_data)
{
	struct flow_block_offload *bo = type_data;

	if (type != TC_SETUP_FT)
		return -EOPNOTSUPP;
	bo->unlocked_driver_cb = true;
	return flow_block_cb_setup_simple(bo, &bench_cb_list, bench_cb, dev, dev,
					  true);
}

/* What is sent is kept for who measures, who frees it. */
static netdev_tx_t bench_xmit(struct sk_buff *skb, struct net_device *dev)
{
	/* Not what the host sends by itself meanwhile, on another CPU: MLD, ARP. */
	if (bench_nic.keep_sent && skb->protocol == htons(ETH_P_IP))
		__skb_queue_tail(&bench_nic.sent, skb);
	else
		dev_kfree_skb(skb);
	return NETDEV_TX_OK;
}

static const struct net_device_ops bench_ops = {
	.ndo_start_xmit = bench_xmit,
	.ndo_setup_tc = bench_setup_tc,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
};

static void bench_setup(struct net_device *dev)
{
	ether_setup(dev);
	dev->netdev_ops = &bench_ops;
	dev->priv_flags |= IFF_NO_QUEUE;
	dev->lltx = true;
	dev->features |= NETIF_F_HW_TC;
	dev->hw_features |= NETIF_F_HW_TC;
}

static struct net_device *bench_dev_register(unsigned int index)
{
	u8 mac[ETH_ALEN] = { 0x02, 'b', 'e', 'n', 0, index };
	struct net_device *dev;
	char name[IFNAMSIZ];
	int err;

	snprintf(name, sizeof(name), "bench%u", index);
	dev = alloc_netdev(0, name, NET_NAME_PREDICTABLE, bench_setup);
	if (!dev)
		return ERR_PTR(-ENOMEM);
	eth_hw_addr_set(dev, mac);
	err = register_netdev(dev);
	if (err) {
		free_netdev(dev);
		return ERR_PTR(err);
	}
	return dev;
}

static void bench_dev_unregister(struct net_device *dev)
{
	unregister_netdev(dev);
	free_netdev(dev);
}

int bench_nic_init(void)
{
	unsigned int i;
	int err = -ENOMEM;

	skb_queue_head_init(&bench_nic.sent);
	bench_bits = ilog2(roundup_pow_of_two(2 * bench_flows));
	bench_rules = kvzalloc_objs(*bench_rules, 2 * bench_flows);
	bench_buckets = kvzalloc_objs(*bench_buckets, 1U << bench_bits);
	if (!bench_rules || !bench_buckets)
		goto err_free;
	for (i = 0; i < 1U << bench_bits; i++)
		spin_lock_init(&bench_buckets[i].lock);

	for (i = 0; i < ARRAY_SIZE(bench_nic.dev); i++) {
		bench_nic.dev[i] = bench_dev_register(i);
		if (IS_ERR(bench_nic.dev[i])) {
			err = PTR_ERR(bench_nic.dev[i]);
			goto err_dev;
		}
	}
	return 0;

err_dev:
	while (i--)
		bench_dev_unregister(bench_nic.dev[i]);
err_free:
	kvfree(bench_buckets);
	kvfree(bench_rules);
	return err;
}

void bench_nic_exit(void)
{
	bench_dev_unregister(bench_nic.dev[1]);
	bench_dev_unregister(bench_nic.dev[0]);
	kvfree(bench_buckets);
	kvfree(bench_rules);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Loading this module runs the comparison, in the network namespace of who loads it;
 * tests/oracle.sh makes devices and routes there first. See oracle.h.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/inet.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/nsproxy.h>
#include <linux/random.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <net/ip6_fib.h>
#include <net/ip6_route.h>
#include <net/ip_tunnels.h>
#include <net/lwtunnel.h>
#include <net/neighbour.h>
#include <net/route.h>

#include "oracle.h"

static uint seed;
module_param(seed, uint, 0444);
MODULE_PARM_DESC(seed, "of the random numbers; 0: a random one");

static uint flows;
module_param(flows, uint, 0444);
MODULE_PARM_DESC(flows, "how many to compare; 0: six of each combination");

static char *hops[ORACLE_HOPS];
static int num_hops;
module_param_array(hops, charp, &num_hops, 0444);
MODULE_PARM_DESC(hops, "addresses that flows are sent to, of both families");

static struct oracle_world world;
static struct oracle_case current_case;
static struct oracle_count count;

static int find_devices(void)
{
	struct net_device *dev;

	rcu_read_lock();
	for_each_netdev_rcu(world.net, dev) {
		if (dev->flags & IFF_LOOPBACK)
			continue;
		if (world.num_devices == ORACLE_DEVICES)
			break;
		world.ifindex[world.num_devices++] = dev->ifindex;
	}
	rcu_read_unlock();

	return world.num_devices ? 0 : -ENODEV;
}

static struct dst_entry *route_to(const struct oracle_hop *hop)
{
	struct flowi6 fl6 = { .daddr = hop->addr.in6 };
	struct dst_entry *dst;
	struct rtable *rt;

	if (hop->family == AF_INET) {
		rt = ip_route_output(world.net, hop->addr.ip, 0, 0, 0, RT_SCOPE_UNIVERSE);
		return IS_ERR(rt) ? ERR_CAST(rt) : &rt->dst;
	}

	dst = ip6_route_output(world.net, NULL, &fl6);
	if (dst->error) {
		int err = dst->error;

		dst_release(dst);
		return ERR_PTR(err);
	}
	return dst;
}

/*
 * A copy of a route, without a lightweight tunnel or with one of our own. Nobody counts
 * references to it: the translation looks at it, asks it for a neighbour, and forgets it.
 */
static struct dst_entry *copy_route(const struct oracle_hop *hop, bool tunnel)
{
	struct lwtunnel_state *state = NULL;
	struct dst_entry *dst;

	if (hop->family == AF_INET)
		dst = kmemdup(dst_rtable(hop->dst), sizeof(struct rtable), GFP_KERNEL);
	else
		dst = kmemdup(dst_rt6_info(hop->dst), sizeof(struct rt6_info), GFP_KERNEL);
	BUILD_BUG_ON(offsetof(struct rtable, dst) || offsetof(struct rt6_info, dst));
	if (!dst)
		return NULL;

	if (tunnel) {
		state = kzalloc(sizeof(*state) + sizeof(struct ip_tunnel_info) +
				ORACLE_TUNNEL_OPTIONS, GFP_KERNEL);
		if (!state) {
			kfree(dst);
			return NULL;
		}
	}
	dst->lwtstate = state;
	return dst;
}

static bool is_resolved(const struct oracle_hop *hop)
{
	struct neighbour *n = dst_neigh_lookup(hop->dst, &hop->addr);
	bool resolved;

	if (!n)
		return false;

	resolved = READ_ONCE(n->nud_state) & NUD_VALID;
	neigh_release(n);
	return resolved;
}

static int find_hops(void)
{
	unsigned int resolved[2] = {};
	int i;

	for (i = 0; i < num_hops; i++) {
		struct oracle_hop *hop = &world.hops[i];
		struct dst_entry *dst;

		if (in4_pton(hops[i], -1, (u8 *)&hop->addr.ip, -1, NULL)) {
			hop->family = AF_INET;
		} else if (in6_pton(hops[i], -1, hop->addr.in6.s6_addr, -1, NULL)) {
			hop->family = AF_INET6;
		} else {
			pr_err("%s is not an address\n", hops[i]);
			return -EINVAL;
		}

		dst = route_to(hop);
		if (IS_ERR(dst)) {
			pr_err("there is no route to %s\n", hops[i]);
			return PTR_ERR(dst);
		}
		hop->dst = dst;
		world.num_hops++;

		hop->plain = copy_route(hop, false);
		hop->tunnel[0] = copy_route(hop, true);
		hop->tunnel[1] = copy_route(hop, true);
		if (!hop->plain || !hop->tunnel[0] || !hop->tunnel[1])
			return -ENOMEM;
		hop->resolved = is_resolved(hop);
		if (hop->resolved)
			resolved[hop->family == AF_INET6]++;
	}

	if (!resolved[0] || !resolved[1]) {
		pr_err("no next hop is resolved\n");
		return -ENETUNREACH;
	}
	return 0;
}

static void forget_hops(void)
{
	unsigned int i, j;

	for (i = 0; i < world.num_hops; i++) {
		struct oracle_hop *hop = &world.hops[i];

		for (j = 0; j < ARRAY_SIZE(hop->tunnel); j++) {
			if (!hop->tunnel[j])
				continue;
			kfree(hop->tunnel[j]->lwtstate);
			kfree(hop->tunnel[j]);
		}
		kfree(hop->plain);
		dst_release(hop->dst);
	}
}

static int compare(struct rnd_state *rnd)
{
	unsigned int combinations = oracle_combinations();
	unsigned int first = prandom_u32_state(rnd) % combinations;
	unsigned int i, combination;
	int dir, err;

	/* Each combination comes twice in a row, the second time odd. */
	for (i = 0; i < flows; i++) {
		combination = (first + i / 2) % combinations;
		oracle_make(&current_case, &world, rnd, combination, i % 2);
		for (dir = 0; dir < FLOW_OFFLOAD_DIR_MAX; dir++) {
			err = oracle_judge(&current_case, &world, dir, &count);
			if (err) {
				pr_err("flow %u with seed=%u flows=%u\n", i, seed, flows);
				return err;
			}
		}
		if (signal_pending(current))
			return -EINTR;
		cond_resched();
	}

	return 0;
}

static void summary(s64 ms)
{
	unsigned int kind;

	pr_info("%u flows compared in both directions, seed %u, %lld ms\n", flows, seed, ms);
	pr_info("%llu rules equal\n", count.equal);
	pr_info("%llu rules equal but for tags of 802.1ad put right\n", count.repaired);
	pr_info("%llu rules right in the dialect of tc\n", count.tc);
	pr_info("%llu refused in the dialect of tc alone\n", count.tc_refused);
	pr_info("%llu through lightweight tunnels\n", count.tunnels);
	pr_info("%llu matches right\n", count.matches);
	pr_info("%llu refused by both\n", count.refused);
	for (kind = 0; kind < ORACLE_KINDS; kind++)
		if (count.differ[kind])
			pr_info("%llu differ on purpose: %s\n", count.differ[kind],
				oracle_kind_text[kind]);
}

static int __init oracle_init(void)
{
	struct rnd_state rnd;
	ktime_t start;
	int err;

	while (!seed)
		seed = get_random_u32();
	if (!flows)
		flows = 6 * oracle_combinations();
	pr_info("seed %u, %u flows, %u combinations\n", seed, flows, oracle_combinations());
	prandom_seed_state(&rnd, seed);

	/* The caller is in it until we return, and nobody uses it afterwards. */
	world.net = current->nsproxy->net_ns;
	err = find_devices();
	if (!err)
		err = find_hops();
	start = ktime_get();
	if (!err)
		err = compare(&rnd);
	forget_hops();
	if (!err)
		summary(ktime_ms_delta(ktime_get(), start));
	return err;
}

static void __exit oracle_exit(void)
{
}

module_init(oracle_init);
module_exit(oracle_exit);
MODULE_DESCRIPTION("Comparison of the translation with nf_flow_rule_route_ipv4() and _ipv6()");
MODULE_LICENSE("GPL");

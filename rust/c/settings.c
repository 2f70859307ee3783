// SPDX-License-Identifier: GPL-2.0
/*
 * The settings of a namespace that decide whether the host forwards packets:
 * those that RTM_NEWNETCONF tells of, the default actions of IPsec policies, and
 * some that nothing tells of. The policies themselves tell by struct xfrm_mgr.
 */
#include <linux/inetdevice.h>
#include <linux/jhash.h>
#include <linux/rtnetlink.h>
#include <linux/timekeeping.h>
#include <linux/xfrm.h>
#include <net/addrconf.h>
#include <net/ip6_fib.h>
#include <net/ip_fib.h>
#include <net/sock.h>

#include "../bindings/helpers.h"

/* It is enough to know that messages have come. */
static void messages_ready(struct sock *sk)
{
	skb_queue_purge(&sk->sk_receive_queue);
	shim_settings_changed(sock_net(sk));
}

static int listen_to(struct net *net, int protocol, u32 groups, struct socket **sock)
{
	struct sockaddr_nl addr = {
		.nl_family = AF_NETLINK,
		.nl_groups = groups,
	};
	int err;

	if (*sock)
		return 0;
	err = sock_create_kern(net, PF_NETLINK, SOCK_RAW, protocol, sock);
	if (err)
		return err;

	(*sock)->sk->sk_data_ready = messages_ready;
	err = kernel_bind(*sock, (void *)&addr, sizeof(addr));
	if (err) {
		sock_release(*sock);
		*sock = NULL;
	}
	return err;
}

static u32 settings_sum(const struct net *net)
{
	const struct net_device *dev;
	u32 sum = 0;

	scoped_guard(rcu) {
		for_each_netdev_rcu(net, dev) {
			const struct in_device *in = __in_dev_get_rcu(dev);
			const struct inet6_dev *in6 = __in6_dev_get(dev);

			if (in)
				sum = jhash2((const u32 *)in->cnf.data,
					     IPV4_DEVCONF_MAX, sum);
			if (in6)
				sum = jhash_3words(READ_ONCE(in6->cnf.force_forwarding),
						   READ_ONCE(in6->cnf.disable_policy),
						   READ_ONCE(in6->cnf.mtu6), sum);
		}
	}
	sum = jhash2((const u32 *)net->ipv4.devconf_all->data, IPV4_DEVCONF_MAX, sum);
#if IS_ENABLED(CONFIG_IPV6)
	sum = jhash_2words(READ_ONCE(net->ipv6.devconf_all->forwarding),
			   READ_ONCE(net->ipv6.devconf_all->disable_policy), sum);
#endif
#ifdef CONFIG_XFRM
	sum = jhash(net->xfrm.policy_default, sizeof(net->xfrm.policy_default), sum);
#endif
	return sum;
}

/* An entry is known by the lower half of a generation, which may be so far behind. */
#define OUTDATED_MAX 0xe000

/* The generation of the ruleset, which each transaction changes. Does not sleep. */
u32 shim_net_newest_ruleset(const struct net *net)
{
#if IS_ENABLED(CONFIG_NF_TABLES)
	return READ_ONCE(net->nft.base_seq);
#else
	return 0;
#endif
}

/*
 * An entry says nothing of the generation that its packet went by, and the first who
 * sees it, garbage collection or the hardware side, may come a second later. That of
 * two seconds ago is what it went by at least.
 */
static void settle(struct shim_settings *settings)
{
	u16 ruleset = READ_ONCE(settings->ruleset);

	WRITE_ONCE(settings->settled, settings->newer);
	settings->newer = settings->newest;
	settings->newest = shim_net_newest_ruleset(settings->net);
	/* So that it never seems to come after this one. */
	if ((u16)(settings->settled - ruleset) > OUTDATED_MAX / 2)
		WRITE_ONCE(settings->ruleset,
			   settings->settled - OUTDATED_MAX / 2);
}

/*
 * From here on the host's decisions are kept, which a change is to end. With
 * commit_mutex held, before the namespace gets its handler. Does not sleep.
 */
void shim_settings_begin(struct shim_settings *settings)
{
	u32 ruleset = shim_net_newest_ruleset(settings->net);

	settings->newest = ruleset;
	settings->newer = ruleset;
	WRITE_ONCE(settings->settled, ruleset);
	WRITE_ONCE(settings->ruleset, ruleset);
	WRITE_ONCE(settings->sum, settings_sum(settings->net));
}

/* Sleeps; -ENOMEM. To be called again now and then: xfrm_user may come later. */
int shim_settings_watch(struct shim_settings *settings)
{
	struct net *net = settings->net;
	int err;

	guard(mutex)(&settings->lock);
	settings->is_watched = true;
	err = listen_to(net, NETLINK_ROUTE,
			1 << (RTNLGRP_IPV4_NETCONF - 1) |
			1 << (RTNLGRP_IPV6_NETCONF - 1), &settings->socks[0]);
#ifdef CONFIG_XFRM
	/* Else the module would be loaded, which the end of a namespace may wait for. */
	if (!err && rcu_access_pointer(net->xfrm.nlsk))
		err = listen_to(net, NETLINK_XFRM, 1 << (XFRMNLGRP_POLICY - 1),
				&settings->socks[1]);
#endif
	return err;
}

/* To close a netlink socket takes the lock of a chain in which nftables waits. */
static void close_socks(struct work_struct *work)
{
	struct shim_settings *settings =
		container_of(work, struct shim_settings, close);
	struct socket *socks[ARRAY_SIZE(settings->socks)] = {};
	int i;

	scoped_guard(mutex, &settings->lock) {
		if (!settings->is_watched)
			for (i = 0; i < ARRAY_SIZE(socks); i++)
				swap(socks[i], settings->socks[i]);
	}
	for (i = 0; i < ARRAY_SIZE(socks); i++)
		if (socks[i])
			sock_release(socks[i]);
}

/* Sleeps. Does not wait until nothing is told any more. */
void shim_settings_unwatch(struct shim_settings *settings)
{
	guard(mutex)(&settings->lock);
	if (!settings->is_watched)
		return;
	settings->is_watched = false;
	schedule_work(&settings->close);
}

static void compare(struct shim_settings *settings)
{
	u32 sum = settings_sum(settings->net);

	if (xchg(&settings->sum, sum) != sum)
		shim_settings_changed(settings->net);
}

static void compare_soon(struct work_struct *work)
{
	struct shim_settings *settings =
		container_of(work, struct shim_settings, soon.work);
	u64 start = ktime_get_ns();

	compare(settings);
	/* With very many devices it takes long; once a second it is done anyway. */
	WRITE_ONCE(settings->pause,
		   min(msecs_to_jiffies(10) +
		       nsecs_to_jiffies((ktime_get_ns() - start) << 8),
		       (unsigned long)HZ));
}

/*
 * The host was asked what it would do. Settings that are others for a moment only,
 * some 10 ms or more, are not missed if they are compared in that. Does not sleep.
 */
void shim_settings_used(struct shim_settings *settings)
{
	if (!delayed_work_pending(&settings->soon))
		queue_delayed_work(system_dfl_wq, &settings->soon,
				   READ_ONCE(settings->pause));
}

void shim_settings_init(struct shim_settings *settings, struct net *net)
{
	INIT_DELAYED_WORK(&settings->soon, compare_soon);
	settings->pause = msecs_to_jiffies(10);
	settings->net = net;
	settings->ruleset_since = (u32)ktime_get_seconds() - U32_MAX / 2;
	mutex_init(&settings->lock);
	INIT_WORK(&settings->close, close_socks);
}

/* The namespace ends, and is not watched any more. Sleeps. */
void shim_settings_exit(struct shim_settings *settings)
{
	disable_delayed_work_sync(&settings->soon);
	flush_work(&settings->close);
}

/* To be called once a second. Does not sleep. */
void shim_settings_compare(struct shim_settings *settings)
{
	settle(settings);
	compare(settings);
}

/* How many entries are made anew in a second: the host makes them with a packet each. */
#define RULESET_PACE 4000

/* In seconds: for so long at least, entries of the ruleset before are all that is made anew. */
static u32 ruleset_pause;

/* 0: never. */
void shim_settings_set_ruleset_pause(u32 seconds)
{
	ruleset_pause = seconds;
}

/* That by which the packet went at least that made an entry which is seen now. */
u32 shim_settings_ruleset(const struct shim_settings *settings)
{
	return READ_ONCE(settings->settled);
}

/*
 * Whether an entry that was made under this ruleset is to be made anew, since there is
 * another one; to be called once a second for each. Sets of which some daemon changes
 * elements all the time are the ruleset's too: so not more often than after a pause,
 * and so many at a time. Does not sleep.
 */
bool shim_settings_outdate(struct shim_settings *settings, u16 ruleset)
{
	u32 now = ktime_get_seconds(), since = READ_ONCE(settings->ruleset_since);
	u32 second = READ_ONCE(settings->ruleset_second);
	u16 settled = READ_ONCE(settings->settled);
	u16 behind = settled - ruleset;

	/* That of a new table may be ahead. */
	if (!behind || behind > OUTDATED_MAX || !READ_ONCE(ruleset_pause))
		return false;

	if (behind <= (u16)(settled - READ_ONCE(settings->ruleset))) {
		if (now - since < ruleset_pause)
			return false;
		if (cmpxchg(&settings->ruleset_since, since, now) == since)
			WRITE_ONCE(settings->ruleset, settled);
	}
	if (now != second &&
	    cmpxchg(&settings->ruleset_second, second, now) == second)
		atomic_set(&settings->ruleset_count, 0);
	return atomic_inc_return(&settings->ruleset_count) <= RULESET_PACE;
}

/* Whether it may depend on a packet's mark where it goes. */
bool shim_net_has_policies(const struct net *net)
{
#ifdef CONFIG_XFRM
	int dir;

	for (dir = 0; dir < XFRM_POLICY_MAX; dir++)
		if (READ_ONCE(net->xfrm.policy_count[dir]))
			return true;
#endif
	return fib4_has_custom_rules(net) || fib6_has_custom_rules(net);
}

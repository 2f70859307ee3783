// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's notifiers. Each turns its argument into a struct shim_event.
 * All but those of devices and IPv4 addresses may be called in atomic context.
 */
#include <linux/etherdevice.h>
#include <linux/if_arp.h>
#include <linux/inetdevice.h>
#include <linux/mutex.h>
#include <linux/ratelimit.h>
#include <linux/rtnetlink.h>
#include <net/addrconf.h>
#include <net/fib_notifier.h>
#include <net/ip6_fib.h>
#include <net/ip_fib.h>
#include <net/neighbour.h>
#include <net/netevent.h>
#include <net/netns/generic.h>
#include <net/nexthop.h>
#include <net/switchdev.h>

#include "../bindings/helpers.h"

/* The state of a namespace. */
struct shim_net {
	struct net *net;
	struct notifier_block nexthop;
	struct notifier_block fib;
	/* Receives the events of this namespace; NULL if there is no bound flowtable. */
	void __rcu *handler;
	/* Serialises registering and unregistering fib. */
	struct mutex watch_lock;
	/* fib is registered. */
	bool watched;
	/* There is or was a device of an IP tunnel; never cleared. */
	bool ip_tunnels;
	struct ratelimit_state log[SHIM_LOG_KINDS];
};

static unsigned int shim_net_id;
/* There is one struct shim_notifiers at most. */
static struct shim_notifiers *notifiers_registered;

/* There is or was a device of an IP tunnel in any namespace; never cleared. */
bool shim_ip_tunnels __read_mostly;

/* NULL while the namespace is being set up, when devices may be there already. */
static struct shim_net *shim_net(const struct net *net)
{
	return net_generic(net, shim_net_id);
}

static bool is_watched(const struct net *net)
{
	const struct shim_net *of = shim_net(net);

	return of && rcu_access_pointer(of->handler);
}

static void send_event(const struct net *net, const struct shim_event *event)
{
	const struct shim_net *of = shim_net(net);
	void *handler;

	guard(rcu)();
	handler = of ? rcu_dereference(of->handler) : NULL;
	if (handler)
		notifiers_registered->fn(handler, event);
}

/* The handler of @net's events, or NULL. Under rcu_read_lock(). */
void *shim_net_handler(const struct net *net)
{
	const struct shim_net *of = shim_net(net);

	return of ? rcu_dereference(of->handler) : NULL;
}

/* Returns false if @net has a handler already. */
bool shim_net_set_handler(struct net *net, void *handler)
{
	struct shim_net *of = shim_net(net);

	return of && !cmpxchg((void **)&of->handler, NULL, handler);
}

/* Removes the handler and returns it when no call of it is under way any more. Sleeps. */
void *shim_net_take_handler(struct net *net)
{
	void *handler = xchg((void **)&shim_net(net)->handler, NULL);

	synchronize_rcu();
	return handler;
}

/* The FIB notifier says nothing of changes of next-hop objects. */
static int nexthop_event(struct notifier_block *nb, unsigned long what,
			 void *ptr)
{
	struct shim_net *from = container_of(nb, struct shim_net, nexthop);
	struct shim_event event = { .kind = SHIM_EVENT_ROUTES };

	if (what == NEXTHOP_EVENT_DEL || what == NEXTHOP_EVENT_REPLACE ||
	    what == NEXTHOP_EVENT_BUCKET_REPLACE)
		send_event(from->net, &event);
	return NOTIFY_DONE;
}

static int fib_event(struct notifier_block *nb, unsigned long what, void *ptr)
{
	struct shim_net *from = container_of(nb, struct shim_net, fib);
	const struct fib_notifier_info *info = ptr;
	struct shim_event event = { .kind = SHIM_EVENT_ROUTES };

	/* The routes that were there before are of no interest. */
	if (!READ_ONCE(from->watched))
		return NOTIFY_DONE;
	if (info->family != AF_INET && info->family != AF_INET6)
		return NOTIFY_DONE;

	switch (what) {
	case FIB_EVENT_ENTRY_REPLACE:
	case FIB_EVENT_ENTRY_APPEND:
	case FIB_EVENT_ENTRY_ADD:
	case FIB_EVENT_ENTRY_DEL:
		event.kind = SHIM_EVENT_ROUTE;
		event.family = info->family;
		if (info->family == AF_INET) {
			const struct fib_entry_notifier_info *entry = ptr;
			__be32 dst = htonl(entry->dst);

			event.prefix_len = entry->dst_len;
			memcpy(event.addr, &dst, sizeof(dst));
		} else {
			const struct fib6_entry_notifier_info *entry = ptr;

			event.prefix_len = entry->rt->fib6_dst.plen;
			memcpy(event.addr, &entry->rt->fib6_dst.addr,
			       sizeof(event.addr));
		}
		break;
	case FIB_EVENT_RULE_ADD:
	case FIB_EVENT_RULE_DEL:
	case FIB_EVENT_NH_ADD:
	case FIB_EVENT_NH_DEL:
		break;
	default:
		return NOTIFY_DONE;
	}

	send_event(from->net, &event);
	return NOTIFY_DONE;
}

/*
 * Registers @net's FIB notifier. Sleeps, for as long as it takes to list all
 * routes, several times if they change meanwhile; -EBUSY if they change too
 * often.
 */
int shim_net_watch_routes(struct net *net)
{
	struct shim_net *of = shim_net(net);
	int err;

	guard(mutex)(&of->watch_lock);
	if (of->watched || !rcu_access_pointer(of->handler))
		return 0;

	err = register_fib_notifier(net, &of->fib, NULL, NULL);
	if (!err)
		WRITE_ONCE(of->watched, true);
	return err;
}

/* Sleeps. No call is under way when it returns. */
void shim_net_unwatch_routes(struct net *net)
{
	struct shim_net *of = shim_net(net);

	guard(mutex)(&of->watch_lock);
	if (!of->watched)
		return;

	unregister_fib_notifier(net, &of->fib);
	WRITE_ONCE(of->watched, false);
}

/*
 * A number that differs after a change of routes or rules. A change of IPv6 that
 * is undone between two calls is missed.
 */
u64 shim_net_route_generation(struct net *net)
{
	u64 generation = (u32)rt_genid_ipv4(net);

	generation += (u64)READ_ONCE(net->nexthop.seq) << 48;
#if IS_ENABLED(CONFIG_IPV6)
	generation += (u64)(u32)atomic_read(&net->ipv6.fib6_sernum) << 32;
	generation += (u64)READ_ONCE(net->ipv6.rt6_stats->fib_discarded_routes) << 40;
#endif
	return generation;
}

static int __net_init shim_net_init(struct net *net)
{
	struct shim_net *from = shim_net(net);
	int i;

	for (i = 0; i < SHIM_LOG_KINDS; i++) {
		ratelimit_default_init(&from->log[i]);
		/* Nothing about messages that are left out. */
		ratelimit_set_flags(&from->log[i], RATELIMIT_MSG_ON_RELEASE);
	}
	from->net = net;
	mutex_init(&from->watch_lock);
	from->nexthop.notifier_call = nexthop_event;
	from->fib.notifier_call = fib_event;
	return register_nexthop_notifier(net, &from->nexthop, NULL);
}

static void __net_exit shim_net_exit(struct net *net)
{
	struct shim_net *from = shim_net(net);

	unregister_nexthop_notifier(net, &from->nexthop);
	if (rcu_access_pointer(from->handler)) {
		void *handler = shim_net_take_handler(net);

		if (handler)
			notifiers_registered->net_exit(handler);
	}
	shim_net_unwatch_routes(net);
}

static struct pernet_operations shim_net_ops = {
	.init = shim_net_init,
	.exit = shim_net_exit,
	.id = &shim_net_id,
	.size = sizeof(struct shim_net),
};

static int neighbour_event(struct notifier_block *nb, unsigned long what,
			   void *ptr)
{
	const struct neighbour *n = ptr;
	struct shim_event event = { .kind = SHIM_EVENT_NEIGHBOUR };

	if (what != NETEVENT_NEIGH_UPDATE ||
	    n->tbl->key_len > sizeof(event.addr) || !is_watched(dev_net(n->dev)))
		return NOTIFY_DONE;

	event.ifindex = READ_ONCE(n->dev->ifindex);
	event.family = n->tbl->family;
	memcpy(event.addr, n->primary_key, n->tbl->key_len);
	send_event(dev_net(n->dev), &event);
	return NOTIFY_DONE;
}

/*
 * Which task is in nftables' notifier of devices: one notifier before and one
 * after that of nftables know. Not for locking: where a notifier refuses the
 * change, the last one is not called, and the mark stays until
 * shim_notifier_refused().
 */
static struct task_struct *rtnl_owner;
static unsigned int rtnl_nested;

bool shim_is_in_notifier(void)
{
	return READ_ONCE(rtnl_owner) == current;
}

/* This task, which is in nftables' notifier, is about to refuse the change. */
void shim_notifier_refused(void)
{
	if (!shim_is_in_notifier())
		return;
	WRITE_ONCE(rtnl_owner, NULL);
	rtnl_nested = 0;
}

static bool has_flowtables_change(unsigned long what)
{
	return what == NETDEV_REGISTER || what == NETDEV_UNREGISTER ||
	       what == NETDEV_CHANGENAME;
}

static int device_first_event(struct notifier_block *nb, unsigned long what,
			      void *ptr)
{
	if (!has_flowtables_change(what))
		return NOTIFY_DONE;

	/* One event may cause another one, but only that of the same task. */
	if (rtnl_owner == current)
		rtnl_nested++;
	else
		rtnl_nested = 0;
	WRITE_ONCE(rtnl_owner, current);
	return NOTIFY_DONE;
}

static int device_last_event(struct notifier_block *nb, unsigned long what,
			     void *ptr)
{
	struct shim_notifiers *to =
		container_of(nb, struct shim_notifiers, device_last);

	if (!has_flowtables_change(what))
		return NOTIFY_DONE;

	if (what == NETDEV_UNREGISTER)
		to->gone(to->data, netdev_notifier_info_to_dev(ptr));
	if (rtnl_nested)
		rtnl_nested--;
	else
		WRITE_ONCE(rtnl_owner, NULL);
	return NOTIFY_DONE;
}

bool shim_net_has_ip_tunnels(const struct net *net)
{
	const struct shim_net *of = shim_net(net);

	return of && READ_ONCE(of->ip_tunnels);
}

/* Returns whether a message about @dev may be logged now. Can be called anywhere. */
bool shim_dev_may_log(const struct net_device *dev, enum shim_log kind)
{
	struct shim_net *of;

	guard(rcu)();
	of = shim_net(dev_net_rcu(dev));
	return !of || __ratelimit(&of->log[kind]);
}

static int device_event(struct notifier_block *nb, unsigned long what,
			void *ptr)
{
	const struct net_device *dev = netdev_notifier_info_to_dev(ptr);
	struct shim_net *of = shim_net(dev_net(dev));
	struct shim_event event = {
		.kind = SHIM_EVENT_DEVICE,
		.ifindex = dev->ifindex,
	};

	/* nf_flow_table makes entries with a zero h_dest for routes to these. */
	if (of && (dev->type == ARPHRD_TUNNEL || dev->type == ARPHRD_TUNNEL6)) {
		WRITE_ONCE(of->ip_tunnels, true);
		WRITE_ONCE(shim_ip_tunnels, true);
	}
	if (!is_watched(dev_net(dev)))
		return NOTIFY_DONE;

	switch (what) {
	case NETDEV_CHANGEMTU:
	case NETDEV_CHANGENAME: /* rules may ask for it */
		event.kind = SHIM_EVENT_ROUTES;
		break;
	case NETDEV_UP:
	case NETDEV_DOWN:
	case NETDEV_CHANGE:
	case NETDEV_CHANGEADDR:
	case NETDEV_CHANGEUPPER:
	case NETDEV_UNREGISTER:
		break;
	default:
		return NOTIFY_DONE;
	}

	send_event(dev_net(dev), &event);
	return NOTIFY_DONE;
}

/* A bridge has learned an address, or forgotten it. */
static int fdb_event(struct notifier_block *nb, unsigned long what, void *ptr)
{
	const struct switchdev_notifier_fdb_info *info = ptr;
	struct shim_event event = { .kind = SHIM_EVENT_FDB };

	if (what != SWITCHDEV_FDB_ADD_TO_DEVICE &&
	    what != SWITCHDEV_FDB_DEL_TO_DEVICE)
		return NOTIFY_DONE;
	if (!is_watched(dev_net(info->info.dev)))
		return NOTIFY_DONE;

	memcpy(event.mac, info->addr, ETH_ALEN);
	send_event(dev_net(info->info.dev), &event);
	return NOTIFY_DONE;
}

/* nf_nat kills the connections that are masqueraded to an address that is deleted. */
static int addr4_event(struct notifier_block *nb, unsigned long what, void *ptr)
{
	const struct in_ifaddr *ifa = ptr;
	struct shim_event event = {
		.kind = SHIM_EVENT_ADDRESS,
		.family = AF_INET,
	};

	if (what != NETDEV_DOWN)
		return NOTIFY_DONE;
	memcpy(event.addr, &ifa->ifa_local, sizeof(ifa->ifa_local));
	send_event(dev_net(ifa->ifa_dev->dev), &event);
	return NOTIFY_DONE;
}

static int addr6_event(struct notifier_block *nb, unsigned long what, void *ptr)
{
	const struct inet6_ifaddr *ifa = ptr;
	struct shim_event event = {
		.kind = SHIM_EVENT_ADDRESS,
		.family = AF_INET6,
	};

	if (what != NETDEV_DOWN)
		return NOTIFY_DONE;
	memcpy(event.addr, &ifa->addr, sizeof(ifa->addr));
	send_event(dev_net(ifa->idev->dev), &event);
	return NOTIFY_DONE;
}

/*
 * Sleeps, takes RTNL. Calls @fn and @gone for devices that are there already.
 * -EBUSY if such notifiers are registered already.
 */
int shim_notifiers_register(struct shim_notifiers *notifiers, shim_event_fn *fn,
			    shim_net_exit_fn *net_exit, shim_device_fn *gone,
			    shim_device_fn *leaves, void *data)
{
	int err;

	if (cmpxchg(&notifiers_registered, NULL, notifiers))
		return -EBUSY;

	shim_block_on_leave(leaves, data);
	memset(notifiers, 0, sizeof(*notifiers));
	notifiers->fn = fn;
	notifiers->net_exit = net_exit;
	notifiers->gone = gone;
	notifiers->data = data;
	notifiers->neighbour.notifier_call = neighbour_event;
	notifiers->device.notifier_call = device_event;
	notifiers->device_first.notifier_call = device_first_event;
	notifiers->device_first.priority = INT_MAX;
	notifiers->device_last.notifier_call = device_last_event;
	notifiers->device_last.priority = INT_MIN;
	notifiers->fdb.notifier_call = fdb_event;
	notifiers->addr4.notifier_call = addr4_event;
	notifiers->addr6.notifier_call = addr6_event;

	/* First, as all others look at the state of a namespace. */
	err = register_pernet_subsys(&shim_net_ops);
	if (err)
		goto err_pernet;
	err = register_netdevice_notifier(&notifiers->device_last);
	if (err)
		goto err_last;
	err = register_netdevice_notifier(&notifiers->device_first);
	if (err)
		goto err_first;
	err = register_netdevice_notifier(&notifiers->device);
	if (err)
		goto err_device;

	register_netevent_notifier(&notifiers->neighbour);
	/* Never called without NET_SWITCHDEV. */
	register_switchdev_notifier(&notifiers->fdb);
	register_inetaddr_notifier(&notifiers->addr4);
#if IS_ENABLED(CONFIG_IPV6)
	register_inet6addr_notifier(&notifiers->addr6);
#endif
	/* Registering calls one notifier after the other for all devices. */
	rtnl_lock();
	WRITE_ONCE(rtnl_owner, NULL);
	rtnl_nested = 0;
	rtnl_unlock();
	return 0;

err_device:
	unregister_netdevice_notifier(&notifiers->device_first);
err_first:
	unregister_netdevice_notifier(&notifiers->device_last);
err_last:
	unregister_pernet_subsys(&shim_net_ops);
err_pernet:
	WRITE_ONCE(notifiers_registered, NULL);
	return err;
}

/* Sleeps, takes RTNL. No call is under way when it returns. */
void shim_notifiers_unregister(struct shim_notifiers *notifiers)
{
#if IS_ENABLED(CONFIG_IPV6)
	unregister_inet6addr_notifier(&notifiers->addr6);
#endif
	unregister_inetaddr_notifier(&notifiers->addr4);
	unregister_switchdev_notifier(&notifiers->fdb);
	unregister_netevent_notifier(&notifiers->neighbour);
	unregister_netdevice_notifier(&notifiers->device);
	unregister_netdevice_notifier(&notifiers->device_first);
	unregister_netdevice_notifier(&notifiers->device_last);
	unregister_pernet_subsys(&shim_net_ops);
	shim_block_wait();
	WRITE_ONCE(notifiers_registered, NULL);
}

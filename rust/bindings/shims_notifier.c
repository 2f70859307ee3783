// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's notifiers, of which each makes a plain event of what it is told.
 * All but those of devices and IPv4 addresses may be called in atomic context.
 */
#include <linux/etherdevice.h>
#include <linux/if_arp.h>
#include <linux/inetdevice.h>
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

#include "shims.h"

/* What is kept for each namespace. */
struct shim_net {
	struct net *net;
	struct notifier_block nexthop;
	/* Flowtables with "flags offload" in it. */
	atomic_t tables;
};

static unsigned int shim_net_id;
static struct shim_notifiers *nexthop_listener;

/* Events of other namespaces, of which there may be many, are not queued. */
static bool has_tables(const struct net *net)
{
	const struct shim_net *of = net_generic(net, shim_net_id);

	/* A namespace may have devices before it is told of to all subsystems. */
	return of && atomic_read(&of->tables);
}

/* Next-hop objects change without the FIB's saying so. */
static int nexthop_event(struct notifier_block *nb, unsigned long what,
			 void *ptr)
{
	struct shim_net *from = container_of(nb, struct shim_net, nexthop);
	struct shim_event event = {
		.kind = SHIM_EVENT_ROUTES,
		.net = from->net,
	};

	if (!atomic_read(&from->tables))
		return NOTIFY_DONE;
	if (what == NEXTHOP_EVENT_DEL || what == NEXTHOP_EVENT_REPLACE ||
	    what == NEXTHOP_EVENT_BUCKET_REPLACE)
		nexthop_listener->fn(nexthop_listener->data, &event);
	return NOTIFY_DONE;
}

static int __net_init shim_net_init(struct net *net)
{
	struct shim_net *from = net_generic(net, shim_net_id);

	from->net = net;
	from->nexthop.notifier_call = nexthop_event;
	return register_nexthop_notifier(net, &from->nexthop, NULL);
}

static void __net_exit shim_net_exit(struct net *net)
{
	struct shim_net *from = net_generic(net, shim_net_id);

	unregister_nexthop_notifier(net, &from->nexthop);
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
	struct shim_notifiers *to =
		container_of(nb, struct shim_notifiers, neighbour);
	const struct neighbour *n = ptr;
	struct shim_event event = { .kind = SHIM_EVENT_NEIGHBOUR };

	if (what != NETEVENT_NEIGH_UPDATE ||
	    n->tbl->key_len > sizeof(event.addr) || !has_tables(dev_net(n->dev)))
		return NOTIFY_DONE;

	event.net = dev_net(n->dev);
	event.ifindex = READ_ONCE(n->dev->ifindex);
	event.family = n->tbl->family;
	memcpy(event.addr, n->primary_key, n->tbl->key_len);
	to->fn(to->data, &event);
	return NOTIFY_DONE;
}

/*
 * nftables has devices join and leave flowtables from its own notifier, with
 * RTNL held, and from requests of users, without; and it does not say which.
 * One notifier before and one after that of nftables know, but for one thing:
 * where a notifier refuses the change, the last one is not called, and the mark
 * stays. It is not believed as long as RTNL can be had.
 */
static struct task_struct *rtnl_owner;
static unsigned int rtnl_nested;

/* Written with RTNL held. */
static void rtnl_has_no_owner(void)
{
	WRITE_ONCE(rtnl_owner, NULL);
	rtnl_nested = 0;
}

bool shim_rtnl_is_mine(void)
{
	return READ_ONCE(rtnl_owner) == current;
}

void shim_rtnl_lock(void)
{
	rtnl_lock();
}

/* Without waiting. If this task has RTNL already, it has not to be @taken. */
bool shim_rtnl_trylock(bool *taken)
{
	*taken = rtnl_trylock();
	if (!*taken)
		return shim_rtnl_is_mine();

	rtnl_has_no_owner();
	return true;
}

void shim_rtnl_unlock(void)
{
	rtnl_unlock();
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

/*
 * Whether there has been, in any namespace, a device whose way out flowtables
 * follow through a tunnel. Never cleared: devices may be unregistered in the
 * eyes of a notifier more often than they are registered.
 */
static bool ip_tunnels;

bool shim_has_ip_tunnels(void)
{
	return READ_ONCE(ip_tunnels);
}

static int device_event(struct notifier_block *nb, unsigned long what,
			void *ptr)
{
	struct shim_notifiers *to =
		container_of(nb, struct shim_notifiers, device);
	const struct net_device *dev = netdev_notifier_info_to_dev(ptr);
	struct shim_event event = {
		.kind = SHIM_EVENT_DEVICE,
		.net = dev_net(dev),
		.ifindex = dev->ifindex,
	};

	if (dev->type == ARPHRD_TUNNEL || dev->type == ARPHRD_TUNNEL6)
		WRITE_ONCE(ip_tunnels, true);
	if (!has_tables(dev_net(dev)))
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

	to->fn(to->data, &event);
	return NOTIFY_DONE;
}

/* Bridges tell where they have learned an address, or that they have forgotten it. */
static int fdb_event(struct notifier_block *nb, unsigned long what, void *ptr)
{
	struct shim_notifiers *to = container_of(nb, struct shim_notifiers, fdb);
	const struct switchdev_notifier_fdb_info *info = ptr;
	struct shim_event event = { .kind = SHIM_EVENT_FDB };

	if (what != SWITCHDEV_FDB_ADD_TO_DEVICE &&
	    what != SWITCHDEV_FDB_DEL_TO_DEVICE)
		return NOTIFY_DONE;
	if (!has_tables(dev_net(info->info.dev)))
		return NOTIFY_DONE;

	event.net = dev_net(info->info.dev);
	memcpy(event.mac, info->addr, ETH_ALEN);
	to->fn(to->data, &event);
	return NOTIFY_DONE;
}

/* Which of the host's addresses a connection was translated to is known to no route. */
static int addr4_event(struct notifier_block *nb, unsigned long what, void *ptr)
{
	struct shim_notifiers *to =
		container_of(nb, struct shim_notifiers, addr4);
	const struct in_ifaddr *ifa = ptr;
	struct shim_event event = {
		.kind = SHIM_EVENT_ROUTES,
		.net = dev_net(ifa->ifa_dev->dev),
	};

	if (!has_tables(event.net))
		return NOTIFY_DONE;
	to->fn(to->data, &event);
	return NOTIFY_DONE;
}

static int addr6_event(struct notifier_block *nb, unsigned long what, void *ptr)
{
	struct shim_notifiers *to =
		container_of(nb, struct shim_notifiers, addr6);
	const struct inet6_ifaddr *ifa = ptr;
	struct shim_event event = {
		.kind = SHIM_EVENT_ROUTES,
		.net = dev_net(ifa->idev->dev),
	};

	if (!has_tables(event.net))
		return NOTIFY_DONE;
	to->fn(to->data, &event);
	return NOTIFY_DONE;
}

/*
 * Sleeps, takes RTNL. The devices that are there already are told of before it
 * returns.
 */
int shim_notifiers_register(struct shim_notifiers *notifiers, shim_event_fn *fn,
			    shim_device_fn *gone, shim_device_fn *leaves,
			    void *data)
{
	int err;

	shim_block_on_leave(leaves, data);
	memset(notifiers, 0, sizeof(*notifiers));
	notifiers->fn = fn;
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

	nexthop_listener = notifiers;
	/* First, as all others look at what is kept for a namespace. */
	err = register_pernet_subsys(&shim_net_ops);
	if (err)
		return err;
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
	/* Without NET_SWITCHDEV, bridges do not tell. */
	register_switchdev_notifier(&notifiers->fdb);
	register_inetaddr_notifier(&notifiers->addr4);
#if IS_ENABLED(CONFIG_IPV6)
	register_inet6addr_notifier(&notifiers->addr6);
#endif
	/* Each notifier was told of the devices that are there, but not one after the other. */
	rtnl_lock();
	rtnl_has_no_owner();
	rtnl_unlock();
	return 0;

err_device:
	unregister_netdevice_notifier(&notifiers->device_first);
err_first:
	unregister_netdevice_notifier(&notifiers->device_last);
err_last:
	unregister_pernet_subsys(&shim_net_ops);
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
}

static int fib_event(struct notifier_block *nb, unsigned long what, void *ptr)
{
	struct shim_fib_notifier *to =
		container_of(nb, struct shim_fib_notifier, nb);
	const struct fib_notifier_info *info = ptr;
	struct shim_event event = { .kind = SHIM_EVENT_ROUTES, .net = to->net };

	/* The routes that were there before are of no interest. */
	if (!READ_ONCE(to->armed))
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

	to->fn(to->data, &event);
	return NOTIFY_DONE;
}

/*
 * For one table of @net, whose other events are told as long as there is one.
 * Sleeps; -EAGAIN, with which nftables tries again, if routes change so quickly
 * that they could not be listed.
 */
int shim_fib_notifier_register(struct shim_fib_notifier *fib, struct net *net,
			       shim_event_fn *fn, void *data)
{
	struct shim_net *of = net_generic(net, shim_net_id);
	int err;

	memset(fib, 0, sizeof(*fib));
	fib->net = net;
	fib->fn = fn;
	fib->data = data;
	fib->nb.notifier_call = fib_event;
	err = register_fib_notifier(fib->net, &fib->nb, NULL, NULL);
	if (!err) {
		WRITE_ONCE(fib->armed, true);
		atomic_inc(&of->tables);
	}
	return err == -EBUSY ? -EAGAIN : err;
}

/* Sleeps. No call is under way when it returns. */
void shim_fib_notifier_unregister(struct shim_fib_notifier *fib)
{
	struct shim_net *of = net_generic(fib->net, shim_net_id);

	atomic_dec(&of->tables);
	unregister_fib_notifier(fib->net, &fib->nb);
}

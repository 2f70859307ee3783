// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's notifiers. Each turns its argument into a struct shim_event.
 * All but those of devices and IPv4 addresses may be called in atomic context.
 */
#include <linux/etherdevice.h>
#include <linux/if_arp.h>
#include <linux/if_bridge.h>
#include <linux/inetdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/ratelimit.h>
#include <linux/rtnetlink.h>
#include <linux/siphash.h>
#include <linux/xarray.h>
#include <net/addrconf.h>
#include <net/fib_notifier.h>
#include <net/ip6_fib.h>
#include <net/ip_fib.h>
#include <net/neighbour.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/netevent.h>
#include <net/netns/generic.h>
#include <net/nexthop.h>
#include <net/switchdev.h>
#include <net/xfrm.h>

#include "members.h"

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
	struct shim_settings settings;
	struct shim_seen __rcu *seen;
	/* By index: ports of bridges that do not forward. */
	struct xarray blocked;
	/* Those that were there before the notifier are among them. */
	bool knows_blocked;
	/* There is or was a device of an IP tunnel; never cleared. */
	bool ip_tunnels;
	/* There is or was a resilient group of next hops; never cleared. */
	bool resilient;
	struct shim_forwarded forwarded;
	/* Another one after each change of a device. */
	atomic_t devices;
	/* Frames that macvlan devices are known to get, a number for each. */
	u64 receivers[8];
	/* The handler that it had when it began to end. */
	void *last_handler;
	struct ratelimit_state log[SHIM_LOG_KINDS];
};

static unsigned int shim_net_id;
/* There is one struct shim_notifiers at most. */
static struct shim_notifiers *notifiers_registered;
/* The module goes: namespaces that end may be left behind. */
static bool unregistering;

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

void shim_net_send_event(const struct net *net, const struct shim_event *event)
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

/* Returns false if @net has a handler already. Sleeps. */
bool shim_net_set_handler(struct net *net, void *handler)
{
	struct shim_net *of = shim_net(net);

	return of && !cmpxchg((void **)&of->handler, NULL, handler);
}

/* Has SHIM_EVENT_FORWARDED sent. With commit_mutex held. Sleeps. */
void shim_net_watch_forwarded(struct net *net)
{
	shim_forwarded_start(&shim_net(net)->forwarded, net);
}

/* Calls of it may be under way until synchronize_rcu(). */
static void *drop_handler(struct shim_net *of)
{
	shim_forwarded_stop(&of->forwarded, of->net);
	return xchg((void **)&of->handler, NULL);
}

/*
 * Removes the handler and returns it when no call of it is under way any more.
 * Sleeps.
 */
void *shim_net_take_handler(struct net *net)
{
	void *handler = drop_handler(shim_net(net));

	synchronize_rcu();
	return handler;
}

/* The FIB notifier says nothing of changes of next-hop objects. */
static int nexthop_event(struct notifier_block *nb, unsigned long what,
			 void *ptr)
{
	struct shim_net *from = container_of(nb, struct shim_net, nexthop);
	struct shim_event event = { .kind = SHIM_EVENT_ROUTES };
	const struct nh_notifier_info *info = ptr;

	if (what == NEXTHOP_EVENT_REPLACE &&
	    info->type == NH_NOTIFIER_INFO_TYPE_RES_TABLE)
		WRITE_ONCE(from->resilient, true);
	if (what == NEXTHOP_EVENT_DEL || what == NEXTHOP_EVENT_REPLACE ||
	    what == NEXTHOP_EVENT_BUCKET_REPLACE)
		shim_net_send_event(from->net, &event);
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

	shim_net_send_event(from->net, &event);
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

/* Settings have changed that decide what the host does with packets. */
void shim_settings_changed(struct net *net)
{
	static const struct shim_event event = { .kind = SHIM_EVENT_SETTINGS };

	shim_net_send_event(net, &event);
}

static void unsee(struct shim_net *of)
{
	struct shim_seen *seen = rcu_replace_pointer(of->seen, NULL,
						     lockdep_is_held(&of->watch_lock));

	if (seen)
		shim_seen_stop(of->net, seen);
}

static void unwatch(struct shim_net *of, bool chain_ends)
{
	guard(mutex)(&of->watch_lock);
	shim_settings_unwatch(&of->settings);
	unsee(of);
	of->knows_blocked = false;
	xa_destroy(&of->blocked);
	if (of->watched && !chain_ends)
		unregister_fib_notifier(of->net, &of->fib);
	WRITE_ONCE(of->watched, false);
}

/* Sleeps. No call is under way when it returns. */
void shim_net_unwatch(struct net *net)
{
	unwatch(shim_net(net), false);
}

/*
 * Has packets and settings seen, in a namespace that has no handler yet: in the user's
 * own call, to whom the memory is charged. With commit_mutex held. Sleeps; -ENOMEM.
 */
int shim_net_see(struct net *net)
{
	struct shim_net *of = shim_net(net);
	struct shim_seen *seen;

	if (!of)
		return 0;
	shim_settings_begin(&of->settings);
	if (rcu_access_pointer(of->seen))
		return 0;
	seen = shim_seen_start(net);
	if (!seen)
		return -ENOMEM;
	rcu_assign_pointer(of->seen, seen);
	return 0;
}

/*
 * Has SHIM_EVENT_SETTINGS sent when settings change that decide what the host does
 * with packets. Sleeps; -ENOMEM.
 */
int shim_net_watch_settings(struct net *net)
{
	struct shim_net *of = shim_net(net);

	guard(mutex)(&of->watch_lock);
	if (!rcu_access_pointer(of->handler))
		return 0;
	return shim_settings_watch(&of->settings);
}

static void set_blocked(struct shim_net *of, const struct net_device *dev, u8 state)
{
	/* Without memory, the port is taken for one that forwards. */
	if (state == BR_STATE_FORWARDING)
		xa_erase(&of->blocked, dev->ifindex);
	else
		xa_store(&of->blocked, dev->ifindex, xa_mk_value(state), GFP_KERNEL);
}

/* Whether the bridge of which @dev is a port passes nothing on there, as far as is known. */
bool shim_net_is_blocked(const struct net_device *dev)
{
	struct shim_net *of = shim_net(dev_net(dev));

	return of && xa_load(&of->blocked, READ_ONCE(dev->ifindex));
}

/* To be called again until it has had RTNL: some say their state only when it changes. */
static void find_blocked(struct shim_net *of)
{
#if IS_ENABLED(CONFIG_BRIDGE)
	u8 (*get)(const struct net_device *dev);
	struct net_device *dev;

	if (of->knows_blocked || !rtnl_trylock())
		return;
	of->knows_blocked = true;
	get = symbol_get(br_port_get_stp_state);
	if (get) {
		for_each_netdev(of->net, dev)
			if (netif_is_bridge_port(dev))
				set_blocked(of, dev, get(dev));
		symbol_put(br_port_get_stp_state);
	}
	rtnl_unlock();
#endif
}

/*
 * Has SHIM_EVENT_SETTINGS sent if settings of which no message tells are others than
 * they were last, and SHIM_EVENT_SECOND in any case. To be called once a second. Sleeps.
 */
void shim_net_compare_settings(struct net *net)
{
	static const struct shim_event second = { .kind = SHIM_EVENT_SECOND };

	find_blocked(shim_net(net));
	shim_settings_compare(&shim_net(net)->settings);
	shim_net_send_event(net, &second);
}

void shim_net_settings_used(struct net *net)
{
	struct shim_net *of = shim_net(net);

	if (of)
		shim_settings_used(&of->settings);
}

u32 shim_net_ruleset(const struct net *net)
{
	struct shim_net *of = shim_net(net);

	return of ? shim_settings_ruleset(&of->settings) : 0;
}

bool shim_net_outdates(struct net *net, u16 ruleset)
{
	struct shim_net *of = shim_net(net);

	return of && shim_settings_outdate(&of->settings, ruleset);
}

/* With what the last packet of @ct in @dir was routed. False if that is not known. */
bool shim_net_seen_packet(const struct nf_conn *ct, u32 dir, struct shim_marks *marks)
{
	const struct shim_net *of = shim_net(nf_ct_net(ct));
	struct shim_seen *seen;

	guard(rcu)();
	seen = of ? rcu_dereference(of->seen) : NULL;
	return seen && shim_seen_packet(seen, ct, dir, marks);
}

/* See shim_seen_begin(). */
void shim_net_seen_begin(const struct nf_conn *ct)
{
	const struct shim_net *of = shim_net(nf_ct_net(ct));
	struct shim_seen *seen;

	guard(rcu)();
	seen = of ? rcu_dereference(of->seen) : NULL;
	if (seen)
		shim_seen_begin(seen, ct);
}

/* See shim_seen_passed(). */
int shim_net_seen_passed(const struct nf_conn *ct, u32 dir)
{
	const struct shim_net *of = shim_net(nf_ct_net(ct));
	struct shim_seen *seen;

	guard(rcu)();
	seen = of ? rcu_dereference(of->seen) : NULL;
	return seen ? shim_seen_passed(seen, ct, dir) : -ENOENT;
}

/* What is known of packets of @ct is out of date. */
void shim_net_forget_packets(const struct nf_conn *ct)
{
	const struct shim_net *of = shim_net(nf_ct_net(ct));
	struct shim_seen *seen;

	guard(rcu)();
	seen = of ? rcu_dereference(of->seen) : NULL;
	if (seen)
		shim_seen_forget(seen, ct);
}

/* To which address the last frame of @ct in @dir was. False if that is not known. */
bool shim_net_seen_frame(const struct nf_conn *ct, u32 dir, u8 addr[ETH_ALEN])
{
	const struct shim_net *of = shim_net(nf_ct_net(ct));
	struct shim_seen *seen;

	guard(rcu)();
	seen = of ? rcu_dereference(of->seen) : NULL;
	return seen && shim_seen_frame(seen, ct, dir, addr);
}

/* A frame of @ct in @dir to this address has taken the fast path. */
void shim_net_set_seen_frame(const struct nf_conn *ct, u32 dir,
			     const u8 addr[ETH_ALEN])
{
	const struct shim_net *of = shim_net(nf_ct_net(ct));
	struct shim_seen *seen;

	guard(rcu)();
	seen = of ? rcu_dereference(of->seen) : NULL;
	if (seen)
		shim_seen_set_frame(seen, ct, dir, addr);
}

/* IPsec policies have come, changed or gone. */
static int policy_event(struct xfrm_policy *xp, int dir, const struct km_event *c)
{
	shim_settings_changed(xp ? xp_net(xp) : c->net);
	return 0;
}

/* These two are called without being asked for. */
static int no_acquire(struct xfrm_state *x, struct xfrm_tmpl *tmpl,
		      struct xfrm_policy *xp)
{
	return -EOPNOTSUPP;
}

static struct xfrm_policy *no_policy(struct sock *sk, int opt, u8 *data, int len,
				     int *dir)
{
	return NULL;
}

static struct xfrm_mgr policy_mgr = {
	.acquire = no_acquire,
	.compile_policy = no_policy,
	.notify_policy = policy_event,
};

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
	shim_settings_init(&from->settings, net);
	xa_init(&from->blocked);
	mutex_init(&from->watch_lock);
	from->nexthop.notifier_call = nexthop_event;
	from->fib.notifier_call = fib_event;
	return register_nexthop_notifier(net, &from->nexthop, NULL);
}

/* A grace period is over before shim_net_exit(): one for all that end at a time. */
static void __net_exit shim_net_pre_exit(struct net *net)
{
	struct shim_net *from = shim_net(net);

	from->last_handler = drop_handler(from);
}

static void __net_exit shim_net_exit(struct net *net)
{
	struct shim_net *from = shim_net(net);

	unregister_nexthop_notifier(net, &from->nexthop);
	if (from->last_handler)
		notifiers_registered->net_exit(from->last_handler);
	/* A table may have got a device meanwhile. */
	if (rcu_access_pointer(from->handler))
		notifiers_registered->net_exit(shim_net_take_handler(net));
	/* The chain ends with the namespace, before any memory of it is freed. */
	unwatch(from, !check_net(net) && !READ_ONCE(unregistering));
	shim_settings_exit(&from->settings);
}

static struct pernet_operations shim_net_ops = {
	.init = shim_net_init,
	.pre_exit = shim_net_pre_exit,
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

	if (READ_ONCE(n->nud_state) & NUD_FAILED)
		event.kind = SHIM_EVENT_NEIGHBOUR_FAILED;
	event.ifindex = READ_ONCE(n->dev->ifindex);
	event.family = n->tbl->family;
	memcpy(event.addr, n->primary_key, n->tbl->key_len);
	shim_net_send_event(dev_net(n->dev), &event);
	return NOTIFY_DONE;
}

/* After that of nftables. */
static int device_last_event(struct notifier_block *nb, unsigned long what,
			     void *ptr)
{
	struct shim_notifiers *to =
		container_of(nb, struct shim_notifiers, device_last);

	if (what == NETDEV_UNREGISTER)
		to->gone(to->data, netdev_notifier_info_to_dev(ptr));
	return NOTIFY_DONE;
}

bool shim_net_has_ip_tunnels(const struct net *net)
{
	const struct shim_net *of = shim_net(net);

	return of && READ_ONCE(of->ip_tunnels);
}

bool shim_net_has_resilient(const struct net *net)
{
	const struct shim_net *of = shim_net(net);

	return of && READ_ONCE(of->resilient);
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
	if (of)
		atomic_inc(&of->devices);
	if (!is_watched(dev_net(dev)))
		return NOTIFY_DONE;

	if (what == NETDEV_UNREGISTER)
		xa_erase(&of->blocked, dev->ifindex);
	switch (what) {
	case NETDEV_CHANGEMTU:
	case NETDEV_CHANGENAME: /* rules may ask for it */
		event.kind = SHIM_EVENT_ROUTES;
		break;
	case NETDEV_FEAT_CHANGE:
		if (!(dev->hw_features & NETIF_F_HW_TC))
			return NOTIFY_DONE;
		event.kind = SHIM_EVENT_FEATURES;
		break;
	case NETDEV_GOING_DOWN:
		event.kind = SHIM_EVENT_STOP;
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

	shim_net_send_event(dev_net(dev), &event);
	return NOTIFY_DONE;
}

/*
 * Where a number is kept if frames to @addr in this VLAN are for a macvlan device on
 * the device @ifindex, and which: another one after each change of a device. NULL if
 * it cannot be kept.
 */
u64 *shim_net_receiver(const struct net *net, u32 ifindex, u16 id,
		       const u8 addr[ETH_ALEN], u64 *number)
{
	struct shim_net *of = shim_net(net);
	static siphash_key_t key;

	if (!of)
		return NULL;
	net_get_random_once(&key, sizeof(key));
	*number = siphash_2u64((u64)atomic_read(&of->devices) << 32 | ifindex,
			       (u64)id << 48 | ether_addr_to_u64(addr), &key) | 1;
	return &of->receivers[*number >> 61];
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
	shim_net_send_event(dev_net(info->info.dev), &event);
	return NOTIFY_DONE;
}

/*
 * A bridge changes what a port passes: its STP state, VLANs and flags. Some of it
 * can be seen only after this.
 */
static int bridge_event(struct notifier_block *nb, unsigned long what, void *ptr)
{
	const struct net_device *dev = switchdev_notifier_info_to_dev(ptr);
	const struct switchdev_notifier_port_attr_info *info = ptr;
	struct shim_net *of = shim_net(dev_net(dev));
	struct shim_event event = {
		.kind = SHIM_EVENT_DEVICE,
		.ifindex = READ_ONCE(dev->ifindex),
	};

	if (what != SWITCHDEV_PORT_ATTR_SET && what != SWITCHDEV_PORT_OBJ_ADD &&
	    what != SWITCHDEV_PORT_OBJ_DEL)
		return NOTIFY_DONE;
	if (!is_watched(dev_net(dev)))
		return NOTIFY_DONE;

	if (what == SWITCHDEV_PORT_ATTR_SET &&
	    info->attr->id == SWITCHDEV_ATTR_ID_PORT_STP_STATE)
		set_blocked(of, dev, info->attr->u.stp_state);
	shim_net_send_event(dev_net(dev), &event);
	return NOTIFY_DONE;
}

/* A module comes or goes. */
static int module_event(struct notifier_block *nb, unsigned long what, void *ptr)
{
#if IS_ENABLED(CONFIG_BRIDGE)
	const struct module *module = ptr;

	if (what == MODULE_STATE_GOING && !strcmp(module->name, "bridge"))
		shim_path_forget_bridge();
#endif
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
	shim_net_send_event(dev_net(ifa->ifa_dev->dev), &event);
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
	shim_net_send_event(dev_net(ifa->idev->dev), &event);
	return NOTIFY_DONE;
}

/* A netlink socket is closed. */
static int socket_event(struct notifier_block *nb, unsigned long what, void *ptr)
{
	const struct netlink_notify *notify = ptr;
	struct shim_event event = {
		.kind = SHIM_EVENT_SOCKET_CLOSED,
		.ifindex = notify->portid,
	};

	if (what == NETLINK_URELEASE && notify->protocol == NETLINK_GENERIC &&
	    is_watched(notify->net))
		shim_net_send_event(notify->net, &event);
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
	notifiers->device_last.notifier_call = device_last_event;
	notifiers->device_last.priority = INT_MIN;
	notifiers->fdb.notifier_call = fdb_event;
	notifiers->bridge.notifier_call = bridge_event;
	notifiers->module.notifier_call = module_event;
	notifiers->addr4.notifier_call = addr4_event;
	notifiers->addr6.notifier_call = addr6_event;
	notifiers->socket.notifier_call = socket_event;

	/* First, as all others look at the state of a namespace. */
	err = register_pernet_subsys(&shim_net_ops);
	if (err)
		goto err_pernet;
	err = register_module_notifier(&notifiers->module);
	if (err)
		goto err_module;
	err = register_netdevice_notifier(&notifiers->device_last);
	if (err)
		goto err_last;
	err = register_netdevice_notifier(&notifiers->device);
	if (err)
		goto err_device;

	register_netevent_notifier(&notifiers->neighbour);
#ifdef CONFIG_XFRM
	xfrm_register_km(&policy_mgr);
#endif
	/* Never called without NET_SWITCHDEV. */
	register_switchdev_notifier(&notifiers->fdb);
	register_switchdev_blocking_notifier(&notifiers->bridge);
	register_inetaddr_notifier(&notifiers->addr4);
#if IS_ENABLED(CONFIG_IPV6)
	register_inet6addr_notifier(&notifiers->addr6);
#endif
	netlink_register_notifier(&notifiers->socket);
	return 0;

err_device:
	unregister_netdevice_notifier(&notifiers->device_last);
err_last:
	unregister_module_notifier(&notifiers->module);
err_module:
	unregister_pernet_subsys(&shim_net_ops);
err_pernet:
	WRITE_ONCE(notifiers_registered, NULL);
	return err;
}

/* Sleeps, takes RTNL. No call is under way when it returns. */
void shim_notifiers_unregister(struct shim_notifiers *notifiers)
{
	netlink_unregister_notifier(&notifiers->socket);
#if IS_ENABLED(CONFIG_IPV6)
	unregister_inet6addr_notifier(&notifiers->addr6);
#endif
	unregister_inetaddr_notifier(&notifiers->addr4);
	unregister_switchdev_blocking_notifier(&notifiers->bridge);
	unregister_switchdev_notifier(&notifiers->fdb);
#ifdef CONFIG_XFRM
	xfrm_unregister_km(&policy_mgr);
#endif
	unregister_netevent_notifier(&notifiers->neighbour);
	unregister_netdevice_notifier(&notifiers->device);
	unregister_netdevice_notifier(&notifiers->device_last);
	unregister_module_notifier(&notifiers->module);
	WRITE_ONCE(unregistering, true);
	unregister_pernet_subsys(&shim_net_ops);
	/* Packets may still be in the hooks of c/seen.c, and policies in policy_mgr. */
	synchronize_rcu();
	shim_block_wait();
	WRITE_ONCE(notifiers_registered, NULL);
}

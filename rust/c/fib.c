// SPDX-License-Identifier: GPL-2.0
/* Where packets go: routes, neighbours, and the devices below a device. */
#include <linux/etherdevice.h>
#include <linux/if_vlan.h>
#include <linux/inetdevice.h>
#include <net/arp.h>
#include <net/ip6_route.h>
#include <net/ip_fib.h>
#include <net/l3mdev.h>
#include <net/ndisc.h>
#include <net/nexthop.h>

#include "../bindings/compat.h"
#include "../bindings/helpers.h"

/* Where the next hops of a route are put. */
struct hops {
	struct shim_hop *hops;
	unsigned int count;
	unsigned int max;
	u32 mtu;
};

static void add_hop(struct hops *hops, const struct fib_nh_common *nhc, u32 mtu)
{
	const struct net_device *dev;
	struct shim_hop *hop;

	/* A group of next hops may have become smaller since they were counted. */
	dev = nhc ? nhc->nhc_dev : NULL;
	if (!dev || nhc->nhc_lwtstate || nhc->nhc_flags & RTNH_F_DEAD ||
	    hops->count == hops->max)
		return;

	hop = &hops->hops[hops->count++];
	memset(hop, 0, sizeof(*hop));
	hop->ifindex = READ_ONCE(dev->ifindex);
	hop->mtu = mtu ?: READ_ONCE(dev->mtu);
	hop->family = nhc->nhc_gw_family;
	if (nhc->nhc_gw_family == AF_INET)
		memcpy(hop->gateway, &nhc->nhc_gw.ipv4, sizeof(nhc->nhc_gw.ipv4));
	else if (nhc->nhc_gw_family == AF_INET6)
		memcpy(hop->gateway, &nhc->nhc_gw.ipv6, sizeof(nhc->nhc_gw.ipv6));
}

static int route_hops4(struct net *net, const struct shim_route_query *query,
		       struct hops *hops)
{
	struct flowi4 fl4 = {
		.flowi4_iif = query->iif ?: LOOPBACK_IFINDEX,
		.flowi4_mark = query->mark,
		.flowi4_proto = query->l4proto,
		.flowi4_scope = RT_SCOPE_UNIVERSE,
		.fl4_sport = query->sport,
		.fl4_dport = query->dport,
	};
	struct fib_result res = {};
	int err, i;

	memcpy(&fl4.saddr, query->src, sizeof(fl4.saddr));
	memcpy(&fl4.daddr, query->dst, sizeof(fl4.daddr));
	err = fib_lookup(net, &fl4, &res, FIB_LOOKUP_NOREF);
	if (err)
		return err;
	if (res.type != RTN_UNICAST)
		return -ENETUNREACH;

	for (i = 0; i < fib_info_num_path(res.fi); i++)
		add_hop(hops, fib_info_nhc(res.fi, i), res.fi->fib_mtu);
	return 0;
}

#if IS_ENABLED(CONFIG_IPV6)
static int add_hop6(struct fib6_nh *nh, void *hops)
{
	add_hop(hops, &nh->nh_common, ((struct hops *)hops)->mtu);
	return 0;
}

static int route_hops6(struct net *net, const struct shim_route_query *query,
		       struct hops *hops)
{
	/* Unlike IPv4, it is routed as a packet of the VRF (ip6_rcv_finish()). */
	int vrf = l3mdev_master_ifindex_by_index(net, query->iif);
	struct flowi6 fl6 = {
		.flowi6_iif = vrf ?: query->iif ?: LOOPBACK_IFINDEX,
		.flowi6_mark = query->mark,
		.flowi6_proto = query->l4proto,
		.fl6_sport = query->sport,
		.fl6_dport = query->dport,
	};
	const struct fib6_info *from, *sibling;
	struct dst_entry *dst;
	int err;

	memcpy(&fl6.saddr, query->src, sizeof(fl6.saddr));
	memcpy(&fl6.daddr, query->dst, sizeof(fl6.daddr));
	/* Never forwarded. */
	if (rt6_need_strict(&fl6.daddr) || rt6_need_strict(&fl6.saddr))
		return -ENETUNREACH;

	dst = ip6_route_input_lookup(net, NULL, &fl6, NULL,
				     RT6_LOOKUP_F_HAS_SADDR);
	err = dst->error;
	from = rcu_dereference(dst_rt6_info(dst)->from);
	if (!err && (!from || from->fib6_type != RTN_UNICAST))
		err = -ENETUNREACH;
	if (err)
		goto out;

	hops->mtu = from->fib6_pmtu;
	if (from->nh) {
		nexthop_for_each_fib6_nh(from->nh, add_hop6, hops);
		goto out;
	}
	add_hop6((struct fib6_nh *)from->fib6_nh, hops);
	if (!READ_ONCE(from->fib6_nsiblings))
		goto out;
	list_for_each_entry_rcu(sibling, &from->fib6_siblings, fib6_siblings) {
		/* It has left the ring, which would have no end then. */
		if (!READ_ONCE(from->fib6_nsiblings))
			break;
		add_hop6((struct fib6_nh *)sibling->fib6_nh, hops);
	}
out:
	dst_release(dst);
	return err;
}
#endif

/*
 * The next hops among which the kernel chooses for forwarded packets. Returns
 * how many there are, at most @max of them.
 */
int shim_route_hops(struct net *net, const struct shim_route_query *query,
		    struct shim_hop *hops, unsigned int max)
{
	struct hops to = { .hops = hops, .max = max };
	int err = -EAFNOSUPPORT;

	guard(rcu)();
	if (query->family == AF_INET)
		err = route_hops4(net, query, &to);
#if IS_ENABLED(CONFIG_IPV6)
	else if (query->family == AF_INET6)
		err = route_hops6(net, query, &to);
#endif
	return err ?: to.count;
}

static struct neighbour *neighbour(struct net_device *dev, u8 family,
				   const u8 *addr)
{
	struct in6_addr key; /* with the alignment that tables expect */

#if IS_ENABLED(CONFIG_IPV6)
	if (family == AF_INET6) {
		memcpy(&key, addr, sizeof(key));
		return neigh_lookup(&nd_tbl, &key, dev);
	}
#endif
	memcpy(&key, addr, sizeof(key.s6_addr32[0]));
	return neigh_lookup(&arp_tbl, &key, dev);
}

static enum shim_neighbour_state neighbour_state(struct net_device *dev,
						 u8 family, const u8 *addr,
						 u8 mac[ETH_ALEN])
{
	struct neighbour *n = neighbour(dev, family, addr);
	bool valid;

	if (!n)
		return SHIM_NEIGHBOUR_UNKNOWN;

	read_lock_bh(&n->lock);
	valid = n->nud_state & NUD_VALID;
	memcpy(mac, n->ha, ETH_ALEN);
	read_unlock_bh(&n->lock);
	neigh_release(n);
	return valid ? SHIM_NEIGHBOUR_VALID : SHIM_NEIGHBOUR_INVALID;
}

/* What the neighbour table has. */
enum shim_neighbour_state shim_neighbour(struct net *net, u32 ifindex,
					 u8 family, const u8 *addr)
{
	struct net_device *dev;
	u8 mac[ETH_ALEN];

	guard(rcu)();
	dev = dev_get_by_index_rcu(net, ifindex);
	return dev ? neighbour_state(dev, family, addr, mac) :
		     SHIM_NEIGHBOUR_UNKNOWN;
}

/* As if a packet was to be sent to a neighbour that the table does not have. */
bool shim_neighbour_resolve(struct net *net, u32 ifindex, u8 family,
			    const u8 *addr)
{
	struct neigh_table *table = &arp_tbl;
	struct net_device *dev;
	struct neighbour *n;
	struct in6_addr key; /* with the alignment that tables expect */

#if IS_ENABLED(CONFIG_IPV6)
	if (family == AF_INET6)
		table = &nd_tbl;
#endif
	guard(rcu)();
	dev = dev_get_by_index_rcu(net, ifindex);
	if (!dev)
		return false;
	memcpy(&key, addr, table->key_len);
	n = __neigh_lookup(table, &key, dev, 1);
	if (!n)
		return false;

	neigh_event_send(n, NULL);
	neigh_release(n);
	return true;
}

/* As if a packet was sent to the neighbour: if it has not been heard of for long, it is asked. */
void shim_neighbour_use(struct net *net, u32 ifindex, u8 family, const u8 *addr)
{
	struct net_device *dev;
	struct neighbour *n;

	guard(rcu)();
	dev = dev_get_by_index_rcu(net, ifindex);
	n = dev ? neighbour(dev, family, addr) : NULL;
	if (n) {
		neigh_event_send(n, NULL);
		neigh_release(n);
	}
}

static bool is_ethernet(const struct net_device *dev)
{
	return !(dev->flags & IFF_LOOPBACK) && dev->type == ARPHRD_ETHER &&
	       dev->addr_len == ETH_ALEN && is_valid_ether_addr(dev->dev_addr);
}

/*
 * The device that gets what comes in by the device @ifindex with this tag; 0 if
 * there is none.
 */
u32 shim_dev_of_tag(struct net *net, u32 ifindex, u16 proto, u16 id)
{
	struct net_device *dev;

	if (!eth_type_vlan(htons(proto)))
		return 0;

	guard(rcu)();
	dev = dev_get_by_index_rcu(net, ifindex);
	if (dev)
		dev = __vlan_find_dev_deep_rcu(dev, htons(proto), id);
	return dev ? READ_ONCE(dev->ifindex) : 0;
}

/* The device as whose packets those of the device @ifindex reach IP. */
u32 shim_dev_of_ip(struct net *net, u32 ifindex)
{
	struct net_device *dev, *master;

	guard(rcu)();
	dev = dev_get_by_index_rcu(net, ifindex);
	while (dev && !netif_is_l3_slave(dev)) {
		master = netdev_master_upper_dev_get_rcu(dev);
		if (!master)
			break;
		dev = master;
	}
	return dev ? READ_ONCE(dev->ifindex) : 0;
}

static enum shim_bridge_tag bridge_tag(const struct net_device_path *path)
{
	switch (path->bridge.vlan_mode) {
	case DEV_PATH_BR_VLAN_TAG:
		return SHIM_BRIDGE_TAG;
	case DEV_PATH_BR_VLAN_UNTAG:
		return SHIM_BRIDGE_UNTAG;
	case DEV_PATH_BR_VLAN_UNTAG_HW:
		return SHIM_BRIDGE_UNTAG_HW;
	default:
		return SHIM_BRIDGE_KEEP;
	}
}

/*
 * The devices that a frame to the neighbour @addr, whose address is put into
 * @mac (zero, if the device is not Ethernet's), with a packet of @ether_type
 * passes from the device @ifindex on, itself included. Returns how many there
 * are; -EHOSTUNREACH if the neighbour has no address, -ENETDOWN if one of them
 * is not up.
 */
int shim_forward_path(struct net *net, u32 ifindex, u8 family, const u8 *addr,
		      u16 ether_type, u8 mac[ETH_ALEN],
		      struct shim_path_step *steps, unsigned int max)
{
	struct net_device_path_stack stack;
	struct net_device_path_ctx ctx = {};
	struct net_device *dev;
	int i, err = 0;

	guard(rcu)();
	dev = dev_get_by_index_rcu(net, ifindex);
	if (!dev)
		return -ENODEV;

	memset(mac, 0, ETH_ALEN);
	if (is_ethernet(dev) && neighbour_state(dev, family, addr, mac) !=
				SHIM_NEIGHBOUR_VALID)
		return -EHOSTUNREACH;

	ctx.dev = dev;
	memcpy(ctx.daddr, mac, ETH_ALEN);
	compat_path_ask(&ctx, htons(ether_type));
	if (dev_fill_forward_path(&ctx, &stack) < 0)
		return -ENETUNREACH;

	for (i = 0; i < stack.num_paths && !err; i++) {
		const struct net_device_path *path = &stack.path[i];
		struct shim_path_step *step = &steps[i];

		if (i == max) {
			err = -E2BIG;
			break;
		}
		if (!netif_running(path->dev) || !netif_carrier_ok(path->dev))
			err = -ENETDOWN;

		memset(step, 0, sizeof(*step));
		/* As nft_dev_path_info() does. */
		step->type = compat_path_is_wifi(path) ? DEV_PATH_ETHERNET : path->type;
		step->ifindex = READ_ONCE(path->dev->ifindex);
		memcpy(step->source, path->dev->dev_addr, ETH_ALEN);
		switch (path->type) {
		case DEV_PATH_VLAN:
		case DEV_PATH_PPPOE:
			step->id = path->encap.id;
			step->proto = ntohs(path->encap.proto);
			memcpy(step->dest, path->encap.h_dest, ETH_ALEN);
			break;
		case DEV_PATH_BRIDGE:
			step->bridge_tag = bridge_tag(path);
			step->id = path->bridge.vlan_id;
			step->proto = ntohs(path->bridge.vlan_proto);
			break;
		default:
			break;
		}
	}
	dev_fill_forward_path_release(&stack);

	return err ?: stack.num_paths;
}

// SPDX-License-Identifier: GPL-2.0
/* Neighbours, and the devices below a device. */
#include <linux/etherdevice.h>
#include <linux/if_bridge.h>
#include <linux/if_vlan.h>
#include <net/arp.h>
#include <net/ndisc.h>

#include "../bindings/compat.h"
#include "../bindings/helpers.h"

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
 * The device that gets what comes in by the device @ifindex with this tag: a VLAN
 * device, or a bridge that knows the tag itself; 0 if there is none.
 */
u32 shim_dev_of_tag(struct net *net, u32 ifindex, u16 proto, u16 id)
{
	struct net_device *dev, *to;

	if (!eth_type_vlan(htons(proto)))
		return 0;

	guard(rcu)();
	dev = dev_get_by_index_rcu(net, ifindex);
	if (!dev)
		return 0;
	to = __vlan_find_dev_deep_rcu(dev, htons(proto), id);
	if (!to && netif_is_bridge_port(dev))
		to = netdev_master_upper_dev_get_rcu(dev);
	return to ? READ_ONCE(to->ifindex) : 0;
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

#if IS_ENABLED(CONFIG_VLAN_8021Q)
/*
 * The PCP that a VLAN device gives to all packets. Of those that are forwarded,
 * skb->priority is 0 to 15, unless a rule sets another one, to which the map has
 * to refer then. Returns false if the PCP is not the same for all.
 */
static bool vlan_pcp(struct net_device *dev, u8 *pcp)
{
	u16 qos = vlan_dev_get_egress_qos_mask(dev, 0);
	const struct vlan_priority_tci_mapping *mp;
	u32 i;

	*pcp = qos >> VLAN_PRIO_SHIFT;
	for (i = 0; i < ARRAY_SIZE(vlan_dev_priv(dev)->egress_priority_map); i++) {
		if (vlan_dev_get_egress_qos_mask(dev, i) != qos)
			return false;

		mp = rcu_dereference(vlan_dev_priv(dev)->egress_priority_map[i]);
		for (; mp; mp = rcu_dereference(mp->next))
			if (READ_ONCE(mp->vlan_qos) != qos)
				return false;
	}
	return true;
}
#endif

static void add_pcp(struct shim_path_step *step, struct net_device *dev)
{
#if IS_ENABLED(CONFIG_VLAN_8021Q)
	if (is_vlan_dev(dev))
		step->pcp_varies = !vlan_pcp(dev, &step->pcp);
#endif
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

#if IS_ENABLED(CONFIG_BRIDGE)
/*
 * br_vlan_get_pvid_rcu() of the module bridge, without the need of it. What is found
 * is valid as long as there is a port of a bridge.
 */
static typeof(br_vlan_get_pvid_rcu) *get_pvid;

/* The module bridge goes. */
void shim_path_forget_bridge(void)
{
	WRITE_ONCE(get_pvid, NULL);
}

static bool bridge_port_pvid(const struct net_device *dev, u16 *pvid)
{
	typeof(br_vlan_get_pvid_rcu) *get = READ_ONCE(get_pvid);

	if (!get) {
		get = symbol_get(br_vlan_get_pvid_rcu);
		if (!get)
			return false;
		/* While the module cannot go. */
		WRITE_ONCE(get_pvid, get);
		symbol_put(br_vlan_get_pvid_rcu);
	}
	return !get(dev, pvid);
}
#endif

/*
 * Whether what comes in by the port below the bridge @path[0] gets into the VLAN from
 * which frames leave there: if they leave untagged, that has to be the port's PVID.
 * @tagged: they have a tag of the bridge's protocol already.
 */
static bool bridge_takes_back(const struct net_device_path *path, bool tagged)
{
#if IS_ENABLED(CONFIG_BRIDGE)
	u16 pvid;

	if (!path->bridge.vlan_id || /* it does not filter */
	    path->bridge.vlan_mode == DEV_PATH_BR_VLAN_TAG ||
	    (path->bridge.vlan_mode == DEV_PATH_BR_VLAN_KEEP && tagged))
		return true;
	return bridge_port_pvid(path[1].dev, &pvid) && pvid == path->bridge.vlan_id;
#else
	return true;
#endif
}

/*
 * The devices that a frame to the neighbour @addr, whose address is put into
 * @mac (zero, if the device is not Ethernet's), with a packet of @ether_type
 * passes from the device @ifindex on, itself included. Returns how many there
 * are; -EHOSTUNREACH if the neighbour has no address, -ENETDOWN if one of them
 * is not up, or a bridge does not take back what comes from there.
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
		bool tagged;

		if (i == max) {
			err = -E2BIG;
			break;
		}
		if (!netif_running(path->dev) || !netif_carrier_ok(path->dev) ||
		    (netif_is_bridge_port(path->dev) &&
		     shim_net_is_blocked(path->dev)))
			err = -ENETDOWN;

		memset(step, 0, sizeof(*step));
		/* As nft_dev_path_info() does. */
		step->type = compat_path_is_wifi(path) ? DEV_PATH_ETHERNET : path->type;
		step->ifindex = READ_ONCE(path->dev->ifindex);
		step->mtu = READ_ONCE(path->dev->mtu);
		memcpy(step->source, path->dev->dev_addr, ETH_ALEN);
		switch (path->type) {
		case DEV_PATH_VLAN:
			add_pcp(step, (struct net_device *)path->dev);
			fallthrough;
		case DEV_PATH_PPPOE:
			step->id = path->encap.id;
			step->proto = ntohs(path->encap.proto);
			memcpy(step->dest, path->encap.h_dest, ETH_ALEN);
			break;
		case DEV_PATH_BRIDGE:
			step->bridge_tag = bridge_tag(path);
			step->id = path->bridge.vlan_id;
			step->proto = ntohs(path->bridge.vlan_proto);
			tagged = i && path[-1].type == DEV_PATH_VLAN &&
				 path[-1].encap.proto == path->bridge.vlan_proto;
			if (i + 1 < stack.num_paths && !bridge_takes_back(path, tagged))
				err = -ENETDOWN;
			break;
		default:
			break;
		}
	}
	dev_fill_forward_path_release(&stack);

	return err ?: stack.num_paths;
}

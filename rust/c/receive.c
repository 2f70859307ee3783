// SPDX-License-Identifier: GPL-2.0
/* To which MAC addresses the host receives frames. */
#include <linux/etherdevice.h>
#include <linux/if_macvlan.h>
#include <linux/if_vlan.h>
#include <net/dst.h>
#include <net/netfilter/nf_conntrack.h>

#include "../bindings/helpers.h"

#if IS_ENABLED(CONFIG_MACVLAN)
/* What is_macvlan() looks for. */
struct macvlan_query {
	const struct net *net;
	const u8 *addr;
	u16 id;
};

/* Whether untagged frames of the device (@id 0), or those of this VLAN, are for @dev. */
static bool takes_tag(const struct net_device *dev, u16 id)
{
	if (!is_vlan_dev(dev))
		return !id || netif_is_bridge_master(dev);
	return id == vlan_dev_vlan_id(dev) ||
	       (!id && netif_is_bridge_master(vlan_dev_real_dev(dev)));
}

static int is_macvlan(struct net_device *dev, struct netdev_nested_priv *priv)
{
	const struct macvlan_query *query = priv->data;

	/* Not of a virtual machine (macvtap). */
	return netif_is_macvlan(dev) && netif_running(dev) &&
	       !rcu_access_pointer(dev->rx_handler) &&
	       ether_addr_equal_unaligned(dev->dev_addr, query->addr) &&
	       net_eq(dev_net(dev), query->net) &&
	       takes_tag(macvlan_dev_real_dev(dev), query->id);
}
#endif

/*
 * Whether a macvlan device on top of the device @ifindex gets its frames to @addr:
 * those with a tag of the VLAN @id, or with none, if that is 0.
 */
bool shim_dev_has_macvlan(struct net *net, u32 ifindex, u16 id,
			  const u8 addr[ETH_ALEN])
{
#if IS_ENABLED(CONFIG_MACVLAN)
	struct macvlan_query query = { .net = net, .addr = addr, .id = id };
	struct netdev_nested_priv priv = { .data = &query };
	struct net_device *dev;
	u64 number = 0, *known;
	bool found;

	known = shim_net_receiver(net, ifindex, id, addr, &number);
	if (known && READ_ONCE(*known) == number)
		return true;

	guard(rcu)();
	dev = dev_get_by_index_rcu(net, ifindex);
	found = dev && netdev_walk_all_upper_dev_rcu(dev, is_macvlan, &priv);
	if (found && known)
		WRITE_ONCE(*known, number);
	return found;
#else
	return false;
#endif
}

/* The VLAN of the innermost tag with which packets come in; 0 without one. */
static u16 tuple_vlan(const struct flow_offload_tuple *tuple)
{
	int i = tuple->encap_num;

	while (i-- > 0)
		if (eth_type_vlan(tuple->encap[i].proto) &&
		    !(tuple->in_vlan_ingress & BIT(i)))
			return tuple->encap[i].id;
	return 0;
}

/*
 * Whether a frame in @dir with this destination is to the device at which the
 * host has its IP: the one to which the packets of the other direction are
 * routed, whose address is their source; or a macvlan device on it, as VRRP uses.
 */
bool shim_flow_is_to_router(const struct flow_offload *flow,
			    enum flow_offload_tuple_dir dir,
			    const u8 addr[ETH_ALEN])
{
	const struct flow_offload_tuple *other = &flow->tuplehash[!dir].tuple;
	const struct flow_offload_tuple *tuple = &flow->tuplehash[dir].tuple;
	const struct net_device *dev;

	switch (other->xmit_type) {
	case FLOW_OFFLOAD_XMIT_DIRECT:
		if (ether_addr_equal_unaligned(other->out.h_source, addr))
			return true;
		break;
	case FLOW_OFFLOAD_XMIT_NEIGH:
	case FLOW_OFFLOAD_XMIT_XFRM:
		dev = other->dst_cache->dev;
		if (dev->addr_len == ETH_ALEN &&
		    ether_addr_equal_unaligned(dev->dev_addr, addr))
			return true;
		break;
	}

	if (!shim_dev_has_macvlan(nf_ct_net(flow->ct), tuple->iifidx,
				  tuple_vlan(tuple), addr))
		return false;
	shim_net_set_seen_frame(flow->ct, dir, addr);
	return true;
}

// SPDX-License-Identifier: GPL-2.0
#include <linux/etherdevice.h>
#include <linux/if_arp.h>
#include <linux/if_vlan.h>
#include <linux/skbuff.h>

#include "helpers.h"

u32 shim_skb_ifindex(const struct sk_buff *skb)
{
	return READ_ONCE(skb->dev->ifindex);
}

bool shim_skb_other_dest(const struct sk_buff *skb, u8 addr[ETH_ALEN])
{
	if (skb->pkt_type != PACKET_OTHERHOST || skb->dev->type != ARPHRD_ETHER)
		return false;

	ether_addr_copy(addr, eth_hdr(skb)->h_dest);
	return true;
}

bool shim_skb_vlan_tag(const struct sk_buff *skb, __be16 *proto, u16 *tci)
{
	*proto = skb->vlan_proto;
	return !__vlan_hwaccel_get_tag(skb, tci);
}

/* The first @len bytes of the packet's data, or NULL if there are fewer. */
const u8 *shim_skb_pull(struct sk_buff *skb, unsigned int len)
{
	return pskb_may_pull(skb, len) ? skb->data : NULL;
}

// SPDX-License-Identifier: GPL-2.0
/* ppe_judge: the ports' netdevs, and what hardware reads of a frame. */
#include <linux/etherdevice.h>
#include <linux/if_pppox.h>
#include <linux/if_vlan.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/ppp_defs.h>
#include <linux/rtnetlink.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <net/ip.h>

#include "judge.h"

static const struct judge_driver *judge_driver;

/* Written under RTNL, before the first and after the last frame. */
static struct judge_port {
	struct net_device *nic;
	struct net_device *wire;
} judge_ports[JUDGE_PORTS];

struct judge_wire {
	struct net_device *nic;
};

static struct judge_port *judge_port_of(const struct net_device *nic)
{
	struct judge_port *port = judge_ports;

	while (port->nic != nic)
		port++;
	return port;
}

/* Puts the tuple of a TCP segment without SYN, FIN and RST, or of a datagram. */
static bool judge_dissect_l4(const struct sk_buff *skb, int off,
			     struct judge_tuple *tuple)
{
	struct tcphdr _tcp;
	struct udphdr _udp;
	const struct tcphdr *tcp;
	const struct udphdr *udp;

	switch (tuple->l4proto) {
	case IPPROTO_TCP:
		tcp = skb_header_pointer(skb, off, sizeof(_tcp), &_tcp);
		if (!tcp || tcp->syn || tcp->fin || tcp->rst)
			return false;
		tuple->sport = tcp->source;
		tuple->dport = tcp->dest;
		return true;
	case IPPROTO_UDP:
		udp = skb_header_pointer(skb, off, sizeof(_udp), &_udp);
		if (!udp)
			return false;
		tuple->sport = udp->source;
		tuple->dport = udp->dest;
		return true;
	default:
		return false;
	}
}

static bool judge_dissect_l3(const struct sk_buff *skb, int off, __be16 proto,
			     struct judge_tuple *tuple)
{
	const struct ipv6hdr *ip6h;
	const struct iphdr *iph;
	struct ipv6hdr _ip6h;
	struct iphdr _iph;

	switch (proto) {
	case htons(ETH_P_IP):
		iph = skb_header_pointer(skb, off, sizeof(_iph), &_iph);
		if (!iph || iph->ihl != 5 || ip_is_fragment(iph))
			return false;
		tuple->src.s6_addr32[0] = iph->saddr;
		tuple->dst.s6_addr32[0] = iph->daddr;
		tuple->l4proto = iph->protocol;
		return judge_dissect_l4(skb, off + sizeof(_iph), tuple);
	case htons(ETH_P_IPV6):
		ip6h = skb_header_pointer(skb, off, sizeof(_ip6h), &_ip6h);
		if (!ip6h)
			return false;
		tuple->src = ip6h->saddr;
		tuple->dst = ip6h->daddr;
		tuple->l4proto = ip6h->nexthdr;
		tuple->is_v6 = true;
		return judge_dissect_l4(skb, off + sizeof(_ip6h), tuple);
	default:
		return false;
	}
}

/* The Ethernet header has been pulled. */
static bool judge_dissect(const struct sk_buff *skb, struct judge_tuple *tuple)
{
	__be16 proto = eth_hdr(skb)->h_proto, _ppp;
	const struct vlan_hdr *vh;
	struct vlan_hdr _vh;
	const __be16 *ppp;
	int off = 0;

	while (eth_type_vlan(proto)) {
		vh = skb_header_pointer(skb, off, sizeof(_vh), &_vh);
		if (!vh)
			return false;
		proto = vh->h_vlan_encapsulated_proto;
		off += sizeof(_vh);
	}
	if (proto == htons(ETH_P_PPP_SES)) {
		off += sizeof(struct pppoe_hdr);
		ppp = skb_header_pointer(skb, off, sizeof(_ppp), &_ppp);
		if (!ppp)
			return false;
		proto = *ppp == htons(PPP_IP) ? htons(ETH_P_IP) :
			*ppp == htons(PPP_IPV6) ? htons(ETH_P_IPV6) : 0;
		off += sizeof(_ppp);
	}
	return judge_dissect_l3(skb, off, proto, tuple);
}

/* The frame appears at to as if it came off a cable. Consumes it. */
static void judge_deliver(struct sk_buff *skb, struct net_device *from,
			  struct net_device *to, bool is_port)
{
	struct judge_tuple tuple = {};

	if (!netif_running(to) || !pskb_may_pull(skb, ETH_HLEN)) {
		dev_core_stats_tx_dropped_inc(from);
		kfree_skb(skb);
		return;
	}
	dev_sw_netstats_tx_add(from, 1, skb->len);
	dev_sw_netstats_rx_add(to, skb->len);
	skb_orphan(skb);
	skb_scrub_packet(skb, true);
	skb_clear_hash(skb);
	skb->priority = 0;
	skb->ip_summed = CHECKSUM_NONE;
	skb->protocol = eth_type_trans(skb, to);
	if (is_port && judge_dissect(skb, &tuple))
		judge_driver->receive(to, skb, &tuple);
	netif_rx(skb);
}

static netdev_tx_t judge_nic_xmit(struct sk_buff *skb, struct net_device *dev)
{
	judge_deliver(skb, dev, judge_port_of(dev)->wire, false);
	return NETDEV_TX_OK;
}

static netdev_tx_t judge_wire_xmit(struct sk_buff *skb, struct net_device *dev)
{
	struct judge_wire *wire = netdev_priv(dev);

	judge_deliver(skb, dev, wire->nic, true);
	return NETDEV_TX_OK;
}

static int judge_setup_tc(struct net_device *dev, enum tc_setup_type type,
			  void *type_data)
{
	return judge_driver->setup_tc(dev, type, type_data);
}

static const struct net_device_ops judge_nic_ops = {
	.ndo_start_xmit = judge_nic_xmit,
	.ndo_setup_tc = judge_setup_tc,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
};

static const struct net_device_ops judge_wire_ops = {
	.ndo_start_xmit = judge_wire_xmit,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
};

static void judge_setup(struct net_device *dev)
{
	ether_setup(dev);
	dev->priv_flags &= ~IFF_TX_SKB_SHARING;
	dev->priv_flags |= IFF_LIVE_ADDR_CHANGE | IFF_NO_QUEUE;
	dev->lltx = true;
	dev->needs_free_netdev = true;
	dev->pcpu_stat_type = NETDEV_PCPU_STAT_TSTATS;
	/* room for a PPPoE header around full frames */
	dev->max_mtu = ETH_DATA_LEN + PPPOE_SES_HLEN;
}

static struct net_device *judge_netdev(const char *kind, unsigned int index,
				       size_t priv_size)
{
	/* locally administered, and no two bytes alike: a swap must show */
	u8 mac[ETH_ALEN] = { 0x02, 0xe1, 0xd2, 0xc3, kind[0], 0xa0 + index };
	struct net_device *dev;
	char name[IFNAMSIZ];

	snprintf(name, sizeof(name), "%s%u", kind, index);
	dev = alloc_netdev(priv_size, name, NET_NAME_PREDICTABLE, judge_setup);
	if (dev)
		eth_hw_addr_set(dev, mac);
	return dev;
}

static int judge_port_add(struct judge_port *port, unsigned int index)
{
	struct judge_wire *wire;
	int err;

	port->nic = judge_netdev("nic", index, judge_driver->priv_size);
	port->wire = judge_netdev("wire", index, sizeof(*wire));
	if (!port->nic || !port->wire) {
		err = -ENOMEM;
		goto err_free;
	}
	wire = netdev_priv(port->wire);
	wire->nic = port->nic;
	port->wire->netdev_ops = &judge_wire_ops;
	port->nic->netdev_ops = &judge_nic_ops;
	port->nic->hw_features |= NETIF_F_HW_TC;
	port->nic->features |= NETIF_F_HW_TC;
	judge_driver->add_port(port->nic, index);

	err = register_netdevice(port->nic);
	if (err)
		goto err_free;
	err = register_netdevice(port->wire);
	if (err) {
		unregister_netdevice(port->nic);
		port->nic = NULL;
		goto err_free;
	}
	return 0;

err_free:
	if (port->nic)
		free_netdev(port->nic);
	if (port->wire)
		free_netdev(port->wire);
	port->nic = NULL;
	port->wire = NULL;
	return err;
}

void judge_ports_exit(void)
{
	LIST_HEAD(kill);
	unsigned int i;

	rtnl_lock();
	for (i = 0; i < JUDGE_PORTS; i++) {
		if (!judge_ports[i].nic)
			continue;
		unregister_netdevice_queue(judge_ports[i].nic, &kill);
		unregister_netdevice_queue(judge_ports[i].wire, &kill);
	}
	unregister_netdevice_many(&kill);
	rtnl_unlock();
}

int judge_ports_init(const struct judge_driver *driver)
{
	unsigned int i;
	int err = 0;

	judge_driver = driver;
	rtnl_lock();
	for (i = 0; i < JUDGE_PORTS && !err; i++)
		err = judge_port_add(&judge_ports[i], i);
	rtnl_unlock();
	if (err)
		judge_ports_exit();
	return err;
}

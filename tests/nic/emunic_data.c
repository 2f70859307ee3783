// SPDX-License-Identifier: GPL-2.0
/*
 * emunic: the data plane. Frames are rewritten so that they leave byte for byte
 * as nf_flow_table_ip.c would send them, checksum corner cases included.
 */
#include <linux/etherdevice.h>
#include <linux/if_pppox.h>
#include <linux/if_vlan.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/ppp_defs.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <net/checksum.h>
#include <net/gre.h>
#include <net/ip.h>

#include "emunic.h"

/* Results of emunic_dissect() and emunic_execute() beside enum emunic_stat. */
#define EMUNIC_HIT	-1
#define EMUNIC_MISS	-2

struct emunic_frame {
	unsigned int l2len;
	unsigned int l4off;
	unsigned int hdrlen;		/* all that is read or written */
	u16 tci[EMUNIC_MAX_TAGS];	/* with priority, for tags kept */
	u8 ttl;
	bool tcp_exc;
};

struct emunic_pppoe {
	struct pppoe_hdr hdr;
	__be16 proto;
} __packed;

static_assert(sizeof(struct emunic_pppoe) == PPPOE_SES_HLEN);

static void emunic_count(struct emunic_port *port, enum emunic_stat packets,
			 unsigned int len)
{
	struct emunic_pcpu *pcpu = this_cpu_ptr(port->pcpu);

	u64_stats_update_begin(&pcpu->sync);
	u64_stats_inc(&pcpu->stat[packets]);
	if (len)
		u64_stats_add(&pcpu->stat[packets + 1], len);
	u64_stats_update_end(&pcpu->sync);
}

/*
 * The frame appears at dev as if it came off a cable. Consumes it. To tests,
 * its priority says whether a rule has sent it there (SO_RCVPRIORITY).
 */
static void emunic_deliver(struct net_device *dev, struct sk_buff *skb,
			   bool by_rule)
{
	dev_sw_netstats_rx_add(dev, skb->len);
	skb_orphan(skb);
	skb_scrub_packet(skb, true);
	skb_clear_hash(skb);
	skb->priority = by_rule;
	skb->ip_summed = CHECKSUM_NONE;
	skb->encapsulation = 0;
	skb->protocol = eth_type_trans(skb, dev);
	netif_rx(skb);
}

/* The frame leaves by a device of others. Consumes it. */
static void emunic_hand_over(struct net_device *dev, struct sk_buff *skb)
{
	skb_orphan(skb);
	skb_scrub_packet(skb, true);
	skb_clear_hash(skb);
	skb->priority = 0;
	skb->ip_summed = CHECKSUM_NONE;
	skb->encapsulation = 0;
	skb->dev = dev;
	skb_reset_mac_header(skb);
	skb_set_network_header(skb, ETH_HLEN);
	skb->protocol = eth_hdr(skb)->h_proto;
	dev_queue_xmit(skb);
}

static int emunic_dissect_l4(struct sk_buff *skb, unsigned int l3end,
			     struct emunic_key *key, struct emunic_frame *f)
{
	const struct gre_base_hdr *gre;
	const struct tcphdr *tcp;
	const struct udphdr *udp;

	switch (key->l4proto) {
	case IPPROTO_TCP:
		f->hdrlen = f->l4off + sizeof(*tcp);
		break;
	case IPPROTO_UDP:
		f->hdrlen = f->l4off + sizeof(*udp);
		break;
	default:
		f->hdrlen = f->l4off + sizeof(*gre);
		break;
	}
	if (f->hdrlen > l3end || !pskb_may_pull(skb, f->hdrlen))
		return EMUNIC_EXC_OTHER;

	switch (key->l4proto) {
	case IPPROTO_TCP:
		tcp = (void *)(skb->data + f->l4off);
		key->sport = tcp->source;
		key->dport = tcp->dest;
		f->tcp_exc = tcp->fin || tcp->syn || tcp->rst;
		if (tcp->doff < 5 || f->l4off + tcp->doff * 4 > l3end)
			return EMUNIC_EXC_OTHER;
		break;
	case IPPROTO_UDP:
		udp = (void *)(skb->data + f->l4off);
		key->sport = udp->source;
		key->dport = udp->dest;
		break;
	default:
		gre = (void *)(skb->data + f->l4off);
		if ((gre->flags & GRE_VERSION) != GRE_VERSION_0)
			return EMUNIC_MISS;
		break;
	}
	return EMUNIC_HIT;
}

static bool emunic_l4proto_known(u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP ||
	       proto == IPPROTO_GRE;
}

static int emunic_dissect_v4(struct sk_buff *skb, struct emunic_key *key,
			     struct emunic_frame *f)
{
	const struct iphdr *iph;
	unsigned int l3end;

	f->l4off = f->l2len + sizeof(*iph);
	if (!pskb_may_pull(skb, f->l4off))
		return EMUNIC_EXC_OTHER;
	iph = (void *)(skb->data + f->l2len);
	if (iph->version != 4 || iph->ihl < 5)
		return EMUNIC_EXC_OTHER;
	if (!emunic_l4proto_known(iph->protocol))
		return EMUNIC_MISS;
	if (iph->ihl > 5)
		return EMUNIC_EXC_OPTIONS;
	if (ip_is_fragment(iph))
		return EMUNIC_EXC_FRAGMENT;
	l3end = f->l2len + ntohs(iph->tot_len);
	if (l3end > skb->len || ip_fast_csum(iph, iph->ihl))
		return EMUNIC_EXC_OTHER;

	key->src.s6_addr32[0] = iph->saddr;
	key->dst.s6_addr32[0] = iph->daddr;
	key->l4proto = iph->protocol;
	f->ttl = iph->ttl;
	return emunic_dissect_l4(skb, l3end, key, f);
}

static int emunic_dissect_v6(struct sk_buff *skb, struct emunic_key *key,
			     struct emunic_frame *f)
{
	const struct ipv6hdr *ip6h;
	unsigned int l3end;

	f->l4off = f->l2len + sizeof(*ip6h);
	if (!pskb_may_pull(skb, f->l4off))
		return EMUNIC_EXC_OTHER;
	ip6h = (void *)(skb->data + f->l2len);
	if (ip6h->version != 6)
		return EMUNIC_EXC_OTHER;
	switch (ip6h->nexthdr) {
	case NEXTHDR_FRAGMENT:
		return EMUNIC_EXC_FRAGMENT;
	case NEXTHDR_HOP:
	case NEXTHDR_ROUTING:
	case NEXTHDR_DEST:
	case NEXTHDR_AUTH:
		return EMUNIC_EXC_OPTIONS;
	default:
		break;
	}
	if (!emunic_l4proto_known(ip6h->nexthdr))
		return EMUNIC_MISS;
	l3end = f->l4off + ntohs(ip6h->payload_len);
	if (l3end > skb->len)
		return EMUNIC_EXC_OTHER;

	key->src = ip6h->saddr;
	key->dst = ip6h->daddr;
	key->l4proto = ip6h->nexthdr;
	f->ttl = ip6h->hop_limit;
	return emunic_dissect_l4(skb, l3end, key, f);
}

static int emunic_dissect_pppoe(struct sk_buff *skb, struct emunic_key *key,
				struct emunic_frame *f)
{
	const struct emunic_pppoe *ph;

	if (!pskb_may_pull(skb, f->l2len + sizeof(*ph)))
		return EMUNIC_EXC_OTHER;
	ph = (void *)(skb->data + f->l2len);
	if (ph->hdr.ver != 1 || ph->hdr.type != 1 || ph->hdr.code)
		return EMUNIC_MISS;
	switch (ph->proto) {
	case htons(PPP_IP):
		key->n_proto = htons(ETH_P_IP);
		break;
	case htons(PPP_IPV6):
		key->n_proto = htons(ETH_P_IPV6);
		break;
	default:
		return EMUNIC_MISS;
	}
	/* a NIC that decapsulates by itself does not tell sessions apart */
	if (!emunic_accepts(EMUNIC_PPPOE_DECAP)) {
		key->pppoe = 1;
		key->pppoe_sid = ntohs(ph->hdr.sid);
	}
	f->l2len += sizeof(*ph);
	return EMUNIC_HIT;
}

static int emunic_dissect(struct emunic_port *port, struct sk_buff *skb,
			  struct emunic_key *key, struct emunic_frame *f)
{
	const struct ethhdr *eth = (void *)skb->data;
	const struct vlan_hdr *vh;
	int res;

	if (is_multicast_ether_addr(eth->h_dest))
		return EMUNIC_MISS;
	memcpy(key->dmac, eth->h_dest, ETH_ALEN);
	key->port = port->index;
	key->n_proto = eth->h_proto;
	f->l2len = ETH_HLEN;

	while (eth_type_vlan(key->n_proto)) {
		if (key->num_tags == EMUNIC_MAX_TAGS)
			return EMUNIC_MISS;
		if (!pskb_may_pull(skb, f->l2len + VLAN_HLEN))
			return EMUNIC_EXC_OTHER;
		vh = (void *)(skb->data + f->l2len);
		f->tci[key->num_tags] = ntohs(vh->h_vlan_TCI);
		key->tag[key->num_tags].tci = ntohs(vh->h_vlan_TCI) &
					      VLAN_VID_MASK;
		key->tag[key->num_tags].tpid = key->n_proto;
		key->num_tags++;
		key->n_proto = vh->h_vlan_encapsulated_proto;
		f->l2len += VLAN_HLEN;
	}
	if (key->n_proto == htons(ETH_P_PPP_SES)) {
		res = emunic_dissect_pppoe(skb, key, f);
		if (res != EMUNIC_HIT)
			return res;
	}
	if (key->n_proto == htons(ETH_P_IP))
		return emunic_dissect_v4(skb, key, f);
	if (key->n_proto == htons(ETH_P_IPV6))
		return emunic_dissect_v6(skb, key, f);
	return EMUNIC_MISS;
}

/* The L4 checksum to keep true, NULL if there is none. */
static __sum16 *emunic_l4_check(void *l4, const struct emunic_key *key)
{
	struct tcphdr *tcp = l4;
	struct udphdr *udp = l4;

	if (key->l4proto == IPPROTO_TCP)
		return &tcp->check;
	if (key->l4proto == IPPROTO_UDP && udp->check)
		return &udp->check;
	return NULL;
}

static void emunic_set_port(__be16 *port, __be16 val, __sum16 *check)
{
	if (check)
		csum_replace2(check, *port, val);
	*port = val;
}

static void emunic_set_word(__be32 *word, __be32 val, __sum16 *check)
{
	if (check)
		csum_replace4(check, *word, val);
	*word = val;
}

static void emunic_set_addr6(struct in6_addr *addr, const struct in6_addr *val,
			     u8 words, __sum16 *check)
{
	int i;

	for (i = 0; i < 4; i++)
		if (words & BIT(i))
			emunic_set_word(&addr->s6_addr32[i], val->s6_addr32[i],
					check);
}

static void emunic_rewrite_v4(struct iphdr *iph, const struct emunic_prog *prog,
			      __sum16 *l4_check)
{
	__be16 *ttl_word = (__be16 *)&iph->ttl;
	__be16 old;

	if (prog->src_words) {
		csum_replace4(&iph->check, iph->saddr, prog->src.s6_addr32[0]);
		emunic_set_word(&iph->saddr, prog->src.s6_addr32[0], l4_check);
	}
	if (prog->dst_words) {
		csum_replace4(&iph->check, iph->daddr, prog->dst.s6_addr32[0]);
		emunic_set_word(&iph->daddr, prog->dst.s6_addr32[0], l4_check);
	}
	switch (prog->ttl_mode) {
	case EMUNIC_TTL_AUTO:
	case EMUNIC_TTL_DEC:
		ip_decrease_ttl(iph);
		break;
	case EMUNIC_TTL_SET:
		old = *ttl_word;
		iph->ttl = prog->ttl;
		csum_replace2(&iph->check, old, *ttl_word);
		break;
	default:
		break;
	}
}

static void emunic_rewrite_v6(struct ipv6hdr *ip6h,
			      const struct emunic_prog *prog, __sum16 *l4_check)
{
	emunic_set_addr6(&ip6h->saddr, &prog->src, prog->src_words, l4_check);
	emunic_set_addr6(&ip6h->daddr, &prog->dst, prog->dst_words, l4_check);
	switch (prog->ttl_mode) {
	case EMUNIC_TTL_AUTO:
	case EMUNIC_TTL_DEC:
		ip6h->hop_limit--;
		break;
	case EMUNIC_TTL_SET:
		ip6h->hop_limit = prog->ttl;
		break;
	default:
		break;
	}
}

static void emunic_rewrite(struct sk_buff *skb, const struct emunic_key *key,
			   const struct emunic_frame *f,
			   const struct emunic_prog *prog)
{
	void *l4 = skb->data + f->l4off;
	__sum16 *check = emunic_l4_check(l4, key);
	__be16 *l4_ports = l4;

	if (prog->set_sport)
		emunic_set_port(&l4_ports[0], prog->sport, check);
	if (prog->set_dport)
		emunic_set_port(&l4_ports[1], prog->dport, check);
	if (key->n_proto == htons(ETH_P_IP))
		emunic_rewrite_v4((void *)(skb->data + f->l2len), prog, check);
	else
		emunic_rewrite_v6((void *)(skb->data + f->l2len), prog, check);
	if (check && key->l4proto == IPPROTO_UDP && !*check)
		*check = CSUM_MANGLED_0;
}

/* Ethernet, tags and PPPoE written anew in the room that delta made. */
static void emunic_rewrite_l2(struct sk_buff *skb, const struct emunic_key *key,
			      const struct emunic_frame *f,
			      const struct emunic_prog *prog, int delta)
{
	u8 mac[2 * ETH_ALEN];
	struct emunic_pppoe *ph;
	struct vlan_hdr *vh;
	__be16 *proto;
	int i;

	memcpy(mac, skb->data, sizeof(mac));
	if (prog->set_dmac)
		memcpy(mac, prog->eth, ETH_ALEN);
	if (prog->set_smac)
		memcpy(mac + ETH_ALEN, prog->eth + ETH_ALEN, ETH_ALEN);

	if (delta > 0)
		__skb_push(skb, delta);
	else
		__skb_pull(skb, -delta);
	memcpy(skb->data, mac, sizeof(mac));
	proto = (__be16 *)(skb->data + sizeof(mac));

	for (i = 0; i < prog->num_tags; i++) {
		*proto = prog->tag[i].tpid;
		vh = (void *)(proto + 1);
		vh->h_vlan_TCI = htons(prog->tag[i].tci);
		proto = &vh->h_vlan_encapsulated_proto;
	}
	for (i = prog->num_pops; i < key->num_tags; i++) {
		u16 tci = f->tci[i];

		if (i == prog->num_pops && prog->rewrite)
			tci = (tci & ~VLAN_VID_MASK) | prog->rewrite_vid;
		*proto = key->tag[i].tpid;
		vh = (void *)(proto + 1);
		vh->h_vlan_TCI = htons(tci);
		proto = &vh->h_vlan_encapsulated_proto;
	}
	if (!prog->pppoe) {
		*proto = key->n_proto;
		return;
	}
	*proto = htons(ETH_P_PPP_SES);
	ph = (void *)(proto + 1);
	ph->hdr.ver = 1;
	ph->hdr.type = 1;
	ph->hdr.code = 0;
	ph->hdr.sid = htons(prog->pppoe_sid);
	/* counts an ingress frame's padding, as nf_flow_pppoe_push() does */
	ph->hdr.length = htons(skb_tail_pointer(skb) + skb->data_len -
			       (u8 *)&ph->proto);
	ph->proto = key->n_proto == htons(ETH_P_IP) ? htons(PPP_IP) :
						      htons(PPP_IPV6);
}

static int emunic_execute(struct emunic_port *port, struct emunic_rule *rule,
			  const struct emunic_key *key,
			  const struct emunic_frame *f, struct sk_buff *skb)
{
	const struct emunic_prog *prog = &rule->prog;
	struct net_device *nic, *wire;
	unsigned long now = jiffies;
	unsigned int len = skb->len;
	unsigned int l2len;
	int delta;

	if (prog->out_dev) {
		nic = dev_get_by_index_rcu(&init_net, prog->out_dev);
		wire = nic;
	} else {
		nic = rcu_dereference(emunic.port[prog->out].nic);
		wire = rcu_dereference(emunic.port[prog->out].wire);
	}
	if (f->tcp_exc)
		return EMUNIC_EXC_TCP_FLAGS;
	if (f->ttl <= 1)
		return EMUNIC_EXC_TTL;
	if (!nic || !wire || !netif_running(nic) || !netif_running(wire) ||
	    READ_ONCE(prog->out_down))
		return EMUNIC_EXC_EGRESS;

	l2len = ETH_HLEN + (prog->pppoe ? PPPOE_SES_HLEN : 0) + VLAN_HLEN *
		(prog->num_tags + key->num_tags - prog->num_pops);
	if (len - f->l2len + (prog->pppoe ? PPPOE_SES_HLEN : 0) >
	    READ_ONCE(nic->mtu))
		return EMUNIC_EXC_MTU;

	delta = (int)l2len - (int)f->l2len;
	if (skb_ensure_writable(skb, f->hdrlen) ||
	    (delta > 0 && skb_cow_head(skb, delta)))
		return EMUNIC_EXC_OTHER;

	emunic_rewrite(skb, key, f, prog);
	emunic_rewrite_l2(skb, key, f, prog, delta);

	atomic64_inc(&rule->packets);
	atomic64_add(len, &rule->bytes);
	WRITE_ONCE(rule->last_used, now);
	emunic_count(port, EMUNIC_NIC_PACKETS, len);
	if (prog->out_dev)
		emunic_hand_over(nic, skb);
	else
		emunic_deliver(wire, skb, true);
	return EMUNIC_HIT;
}

/* EMUNIC_HIT if the hardware has taken the frame. */
static int emunic_forward(struct emunic_port *port, struct sk_buff *skb)
{
	struct emunic_frame f = {};
	struct emunic_key key = {};
	struct emunic_rule *rule;
	int res;

	res = emunic_dissect(port, skb, &key, &f);
	if (res != EMUNIC_HIT)
		return res;
	rule = rhashtable_lookup(&emunic.by_match, &key, emunic_match_params);
	if (!rule) {
		eth_zero_addr(key.dmac);
		rule = rhashtable_lookup(&emunic.by_match, &key,
					 emunic_match_params);
	}
	if (!rule || READ_ONCE(rule->waiting))
		return EMUNIC_MISS;
	return emunic_execute(port, rule, &key, &f, skb);
}

static netdev_tx_t emunic_drop(struct net_device *dev, struct sk_buff *skb)
{
	dev_core_stats_tx_dropped_inc(dev);
	kfree_skb(skb);
	return NETDEV_TX_OK;
}

netdev_tx_t emunic_wire_xmit(struct sk_buff *skb, struct net_device *dev)
{
	struct emunic_end *end = netdev_priv(dev);
	struct emunic_port *port = end->port;
	unsigned int len = skb->len;
	struct net_device *nic;
	int res;

	rcu_read_lock();
	nic = rcu_dereference(port->nic);
	if (!nic || !netif_running(nic) || !pskb_may_pull(skb, ETH_HLEN)) {
		emunic_drop(dev, skb);
		goto out;
	}
	dev_sw_netstats_tx_add(dev, 1, len);

	res = emunic_forward(port, skb);
	if (res == EMUNIC_HIT)
		goto out;
	if (res >= 0)
		emunic_count(port, res, 0);
	emunic_count(port, EMUNIC_CPU_PACKETS, len);
	emunic_deliver(nic, skb, false);
out:
	rcu_read_unlock();
	return NETDEV_TX_OK;
}

netdev_tx_t emunic_nic_xmit(struct sk_buff *skb, struct net_device *dev)
{
	struct emunic_end *end = netdev_priv(dev);
	struct emunic_port *port = end->port;
	unsigned int len = skb->len;
	struct net_device *wire;

	rcu_read_lock();
	wire = rcu_dereference(port->wire);
	if (!wire || !netif_running(wire) || !pskb_may_pull(skb, ETH_HLEN)) {
		emunic_drop(dev, skb);
		goto out;
	}
	dev_sw_netstats_tx_add(dev, 1, len);
	emunic_count(port, EMUNIC_HOST_TX_PACKETS, len);
	emunic_deliver(wire, skb, false);
out:
	rcu_read_unlock();
	return NETDEV_TX_OK;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * flowbench: packets that come by bench0 and leave by bench1. To make and to free
 * them is not measured.
 */
#include <linux/etherdevice.h>
#include <linux/ip.h>
#include <linux/sched/clock.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <net/ip.h>
#include <net/netfilter/nf_conntrack.h>

#include "flowbench.h"

#define BENCH_BURST	64
#define BENCH_PAYLOAD	64

static struct sk_buff *bench_packet(const struct nf_conn *ct)
{
	const struct nf_conntrack_tuple *tuple = &ct->tuplehash[IP_CT_DIR_ORIGINAL].tuple;
	bool is_tcp = tuple->dst.protonum == IPPROTO_TCP;
	unsigned int l4_len = is_tcp ? sizeof(struct tcphdr) : sizeof(struct udphdr);
	struct ethhdr *eth;
	struct sk_buff *skb;
	struct udphdr *udp;
	struct tcphdr *tcp;
	struct iphdr *ip;

	skb = netdev_alloc_skb(bench_nic.dev[0],
			       ETH_HLEN + sizeof(*ip) + l4_len + BENCH_PAYLOAD);
	if (!skb)
		return NULL;
	eth = skb_put_zero(skb, sizeof(*eth));
	ether_addr_copy(eth->h_dest, bench_nic.dev[0]->dev_addr);
	eth_random_addr(eth->h_source);
	eth->h_proto = htons(ETH_P_IP);

	ip = skb_put_zero(skb, sizeof(*ip));
	ip->version = 4;
	ip->ihl = sizeof(*ip) / 4;
	ip->tot_len = htons(sizeof(*ip) + l4_len + BENCH_PAYLOAD);
	ip->frag_off = htons(IP_DF);
	ip->ttl = 64;
	ip->protocol = tuple->dst.protonum;
	ip->saddr = tuple->src.u3.ip;
	ip->daddr = tuple->dst.u3.ip;
	ip_send_check(ip);

	if (is_tcp) {
		tcp = skb_put_zero(skb, sizeof(*tcp));
		tcp->source = tuple->src.u.tcp.port;
		tcp->dest = tuple->dst.u.tcp.port;
		tcp->doff = sizeof(*tcp) / 4;
		tcp->ack = 1;
	} else {
		udp = skb_put_zero(skb, sizeof(*udp));
		udp->source = tuple->src.u.udp.port;
		udp->dest = tuple->dst.u.udp.port;
		udp->len = htons(sizeof(*udp) + BENCH_PAYLOAD);
	}
	skb_put_zero(skb, BENCH_PAYLOAD);
	skb->ip_summed = CHECKSUM_UNNECESSARY;
	skb->protocol = eth_type_trans(skb, bench_nic.dev[0]);
	return skb;
}

/* Returns how long the host had them, or an error. */
static s64 bench_burst(void)
{
	struct sk_buff *skb[BENCH_BURST];
	unsigned int i, n;
	s64 ns;

	for (n = 0; n < BENCH_BURST; n++) {
		struct nf_conn *ct = bench_connection(n);

		skb[n] = ct ? bench_packet(ct) : NULL;
		if (!skb[n])
			break;
	}
	if (n < BENCH_BURST) {
		while (n--)
			kfree_skb(skb[n]);
		return -EINVAL;
	}

	local_bh_disable();
	bench_nic.keep_sent = true;
	ns = local_clock();
	for (i = 0; i < BENCH_BURST; i++)
		netif_receive_skb(skb[i]);
	ns = local_clock() - ns;
	bench_nic.keep_sent = false;
	local_bh_enable();

	n = skb_queue_len(&bench_nic.sent);
	__skb_queue_purge(&bench_nic.sent);
	return n == BENCH_BURST ? ns : -EIO;
}

int bench_packets(unsigned int number, u64 *ns)
{
	unsigned int i;
	s64 took;

	*ns = 0;
	for (i = 0; i < number; i += BENCH_BURST) {
		took = bench_burst();
		if (took < 0)
			return took;
		*ns += took;
		cond_resched();
	}
	return 0;
}

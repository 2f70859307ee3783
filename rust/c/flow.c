// SPDX-License-Identifier: GPL-2.0
/* What an entry of a flowtable says, beyond its members. */
#include <linux/net.h>
#include <linux/siphash.h>
#include <net/dst.h>
#include <net/ip_tunnels.h>
#include <net/lwtunnel.h>
#include <net/neighbour.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/netfilter/nf_conntrack_acct.h>
#include <net/netfilter/nf_conntrack_l4proto.h>
#include <net/netfilter/nf_conntrack_zones.h>

#include "../bindings/helpers.h"

/* What conntrack knows of windows is out of date: it is to learn them anew. */
void shim_ct_forget_windows(struct nf_conn *ct)
{
	int dir;

	guard(spinlock_bh)(&ct->lock);
	for (dir = 0; dir < IP_CT_DIR_MAX; dir++) {
		ct->proto.tcp.seen[dir].td_maxwin = 0;
		ct->proto.tcp.seen[dir].flags &= ~IP_CT_TCP_FLAG_MAXACK_SET;
	}
}

/* flow_offload_get_timeout(), which is not exported. */
unsigned long shim_flow_timeout(const struct flow_offload *flow)
{
	struct net *net = nf_ct_net(flow->ct);

	switch (nf_ct_protonum(flow->ct)) {
	case IPPROTO_TCP:
		return nf_tcp_pernet(net)->offload_timeout;
	case IPPROTO_UDP:
		return nf_udp_pernet(net)->offload_timeout;
	default:
		return NF_FLOW_TIMEOUT;
	}
}

/* Only these two ways of transmission keep a route in the tuple. */
static const struct dst_entry *tuple_dst(const struct flow_offload_tuple *tuple)
{
	return tuple->xmit_type == FLOW_OFFLOAD_XMIT_NEIGH ||
	       tuple->xmit_type == FLOW_OFFLOAD_XMIT_XFRM ?
	       tuple->dst_cache : NULL;
}

/* The lightweight tunnel of the route in @dir, if there is one. */
bool shim_flow_lwtunnel(const struct flow_offload *flow,
			enum flow_offload_tuple_dir dir,
			struct shim_lwtunnel *to)
{
	const struct dst_entry *dst = tuple_dst(&flow->tuplehash[dir].tuple);
	const struct ip_tunnel_info *info;

	if (!dst || !dst->lwtstate)
		return false;

	*to = (struct shim_lwtunnel) { .type = dst->lwtstate->type };
	/* As skb_tunnel_info() does: nothing else has such information. */
	if (to->type != LWTUNNEL_ENCAP_IP && to->type != LWTUNNEL_ENCAP_IP6)
		return true;

	info = lwt_tun_info(dst->lwtstate);
	if (!(info->mode & IP_TUNNEL_INFO_TX))
		return true;

	to->transmits = true;
	to->is_ipv6 = ip_tunnel_info_af(info) == AF_INET6;
	to->options_len = info->options_len;
	to->tos = info->key.tos;
	to->ttl = info->key.ttl;
	to->id = be64_to_cpu(info->key.tun_id);
	bitmap_to_arr64(&to->flags, info->key.tun_flags, __IP_TUNNEL_FLAG_NUM);
	if (to->is_ipv6) {
		to->src = info->key.u.ipv6.src;
		to->dst = info->key.u.ipv6.dst;
	} else {
		to->src.s6_addr32[0] = info->key.u.ipv4.src;
		to->dst.s6_addr32[0] = info->key.u.ipv4.dst;
	}
	return true;
}

/* What drivers are given, to be freed with kfree(), or NULL. */
struct ip_tunnel_info *shim_tunnel_info_alloc(const struct shim_lwtunnel *from)
{
	struct ip_tunnel_info *info = kzalloc_obj(*info);

	BUILD_BUG_ON(__IP_TUNNEL_FLAG_NUM > 64);
	if (!info)
		return NULL;

	info->mode = IP_TUNNEL_INFO_TX;
	info->key.tos = from->tos;
	info->key.ttl = from->ttl;
	info->key.tun_id = cpu_to_be64(from->id);
	bitmap_from_arr64(info->key.tun_flags, &from->flags, __IP_TUNNEL_FLAG_NUM);
	if (from->is_ipv6) {
		info->mode |= IP_TUNNEL_INFO_IPV6;
		info->key.u.ipv6.src = from->src;
		info->key.u.ipv6.dst = from->dst;
	} else {
		info->key.u.ipv4.src = from->src.s6_addr32[0];
		info->key.u.ipv4.dst = from->dst.s6_addr32[0];
	}
	return info;
}

/* The MAC address that the neighbour table has for the receiver in @dir. */
bool shim_flow_neighbour(const struct flow_offload *flow,
			 enum flow_offload_tuple_dir dir, u8 addr[ETH_ALEN])
{
	const struct dst_entry *dst = tuple_dst(&flow->tuplehash[dir].tuple);
	struct neighbour *n;
	bool valid;

	if (!dst)
		return false;

	n = dst_neigh_lookup(dst, &flow->tuplehash[!dir].tuple.src_v4);
	if (!n)
		return false;

	read_lock_bh(&n->lock);
	valid = n->nud_state & NUD_VALID;
	memcpy(addr, n->ha, ETH_ALEN);
	read_unlock_bh(&n->lock);
	neigh_release(n);

	return valid;
}

/*
 * Two tuples have the same number if, and nearly only if, they are of the same
 * packets of a zone.
 */
u64 shim_flow_hash(const struct flow_offload *flow,
		   enum flow_offload_tuple_dir dir)
{
	const struct flow_offload_tuple *tuple = &flow->tuplehash[dir].tuple;
	static siphash_key_t key;
	struct {
		struct in6_addr src;
		struct in6_addr dst;
		__be16 src_port;
		__be16 dst_port;
		u16 zone;
		u8 l3proto;
		u8 l4proto;
	} __aligned(SIPHASH_ALIGNMENT) packets = {
		.src = tuple->src_v6,
		.dst = tuple->dst_v6,
		.src_port = tuple->src_port,
		.dst_port = tuple->dst_port,
		.zone = nf_ct_zone(flow->ct)->id,
		.l3proto = tuple->l3proto,
		.l4proto = tuple->l4proto,
	};

	net_get_random_once(&key, sizeof(key));
	return siphash(&packets, sizeof(packets), &key);
}

/* C: nf_ct_acct_add(), which takes 32 bits of bytes. */
void shim_ct_account(struct nf_conn *ct, u32 dir, u64 packets, u64 bytes)
{
	struct nf_conn_acct *acct = nf_conn_acct_find(ct);

	if (!acct)
		return;
	atomic64_add(packets, &acct->counter[dir].packets);
	atomic64_add(bytes, &acct->counter[dir].bytes);
}

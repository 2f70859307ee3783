// SPDX-License-Identifier: GPL-2.0
/* What an entry of a flowtable says, beyond its members. */
#include <linux/etherdevice.h>
#include <linux/if_arp.h>
#include <linux/net.h>
#include <linux/random.h>
#include <linux/siphash.h>
#include <net/addrconf.h>
#include <net/dst.h>
#include <net/ip_tunnels.h>
#include <net/lwtunnel.h>
#include <net/neighbour.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/netfilter/nf_conntrack_core.h>
#include <net/netfilter/nf_conntrack_acct.h>
#include <net/netfilter/nf_conntrack_ecache.h>
#include <net/netfilter/nf_conntrack_l4proto.h>
#include <net/netfilter/nf_conntrack_timeout.h>
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

/* As before flow_offload_ct_tcp(), where that can be told. */
void shim_ct_end_liberal(struct nf_conn *ct)
{
	struct ip_ct_tcp_state *seen = ct->proto.tcp.seen;

	if (nf_ct_protonum(ct) != IPPROTO_TCP)
		return;

	guard(spinlock_bh)(&ct->lock);
	/* nf_conntrack_tcp_packet() is liberal with what it picks up. */
	if (!(seen[0].flags & seen[1].flags & IP_CT_TCP_FLAG_WINDOW_SCALE))
		return;
	seen[0].flags &= ~IP_CT_TCP_FLAG_BE_LIBERAL;
	seen[1].flags &= ~IP_CT_TCP_FLAG_BE_LIBERAL;
}

/* What conntrack's last_index is while a RST is on its way there: no packet's. */
#define RESET_AHEAD 0xff

/*
 * The next packet in @dir is a RST with this number, and conntrack has not seen
 * the packets by which it could tell if that is right. It is to doubt it, as it
 * does if the receiver has acknowledged what is before: then the connection
 * stays what it is, and is only remembered for less long. How much before is
 * nobody's to guess, who might send two of them at the same time.
 */
static void doubt_reset(struct nf_conn *ct, int dir, u32 seq)
{
	struct ip_ct_tcp *tcp = &ct->proto.tcp;
	struct ip_ct_tcp_state *receiver = &tcp->seen[!dir];

	guard(spinlock_bh)(&ct->lock);
	receiver->td_maxack = seq - 1 - (get_random_u32() >> 2);
	receiver->flags |= IP_CT_TCP_FLAG_MAXACK_SET;
	tcp->last_index = RESET_AHEAD;
}

/*
 * A RST passes the fast path by. If the flow @leaves the table, that is torn
 * down as for any other reason.
 */
void shim_flow_reset(struct flow_offload *flow, enum flow_offload_tuple_dir dir,
		     u32 seq, bool leaves)
{
	if (leaves) {
		/* Not so late that gc looks at it for that no more. */
		WRITE_ONCE(flow->timeout, nf_flowtable_time_stamp +
					  max(shim_flow_timeout(flow), 3UL * HZ));
		set_bit(SHIM_FLOW_RESET, &flow->flags);
		flow_offload_teardown(flow);
	}
	doubt_reset(flow->ct, dir, seq);
}

/*
 * A RST may come to conntrack that no entry is found for, for it has IP options
 * or is in fragments. Conntrack accepts it if it has not seen an ACK since it
 * last forgot about windows, so it is told of one, and not of which.
 */
void shim_flow_await_reset(const struct flow_offload *flow)
{
	struct nf_conn *ct = flow->ct;
	struct ip_ct_tcp_state *seen = ct->proto.tcp.seen;
	int dir;

	if (nf_ct_protonum(ct) != IPPROTO_TCP ||
	    READ_ONCE(seen[0].flags) & READ_ONCE(seen[1].flags) &
	    IP_CT_TCP_FLAG_MAXACK_SET)
		return;

	guard(spinlock_bh)(&ct->lock);
	for (dir = 0; dir < IP_CT_DIR_MAX; dir++) {
		if (seen[dir].flags & IP_CT_TCP_FLAG_MAXACK_SET)
			continue;
		seen[dir].td_maxack = get_random_u32();
		seen[dir].flags |= IP_CT_TCP_FLAG_MAXACK_SET;
	}
}

/*
 * Conntrack is to forget what it was told for the sake of a RST, and the number
 * of this, once it has seen it: what it would take for windows are none.
 */
void shim_flow_after_reset(struct flow_offload *flow)
{
	struct nf_conn *ct = flow->ct;

	if (READ_ONCE(ct->proto.tcp.last_index) == RESET_AHEAD)
		return;

	clear_bit(SHIM_FLOW_RESET, &flow->flags);
	shim_ct_forget_windows(ct);
	/* There is another entry already, which gc may have seen before. */
	if (test_bit(IPS_OFFLOAD_BIT, &ct->status))
		shim_flow_await_reset(flow);
}

/*
 * In case that shim_flow_mark() came in between when flow_offload_teardown() on
 * another CPU had cleared the bit, and not yet torn the entry down.
 */
void shim_flow_unmark(struct flow_offload *flow)
{
	clear_bit(SHIM_FLOW_MARKED, &flow->flags);
	/* A newer entry of the connection gets it back. */
	clear_bit(IPS_OFFLOAD_BIT, &flow->ct->status);
}

/*
 * When the core finds that the route of a torn down entry is gone, it tears that
 * down once more, and takes IPS_OFFLOAD from a connection that has another entry
 * by then.
 */
void shim_flow_mark(struct flow_offload *flow)
{
	if (!test_bit(IPS_OFFLOAD_BIT, &flow->ct->status)) {
		set_bit(SHIM_FLOW_MARKED, &flow->flags);
		set_bit(IPS_OFFLOAD_BIT, &flow->ct->status);
		/* flow_offload_teardown() clears the one bit before it sets the other. */
		smp_mb__after_atomic();
		if (test_bit(NF_FLOW_TEARDOWN, &flow->flags))
			shim_flow_unmark(flow);
	} else if (test_bit(SHIM_FLOW_MARKED, &flow->flags)) {
		clear_bit(SHIM_FLOW_MARKED, &flow->flags);
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

/*
 * nf_flow_offload_fill_dir() does not know of the limit of an IPv6 route, which
 * ip6_finish_output() does: the fast path is to leave longer packets to the host.
 */
void shim_flow_limit_mtu(struct flow_offload *flow)
{
	int dir;

	for (dir = 0; dir < FLOW_OFFLOAD_DIR_MAX; dir++) {
		struct flow_offload_tuple *tuple = &flow->tuplehash[dir].tuple;
		const struct dst_entry *dst = tuple_dst(tuple);
		u32 mtu = dst && tuple->l3proto == AF_INET6 ? dst_mtu(dst) : U16_MAX;

		if (mtu < READ_ONCE(tuple->mtu))
			WRITE_ONCE(tuple->mtu, mtu);
	}
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
 * Whether the fast path has an address to send packets in @dir to; it sends
 * without looking. A neighbour to which it has sent of late is used, as one to
 * which the host sends: it is probed when it gets stale, and not forgotten.
 */
bool shim_flow_can_send(const struct flow_offload *flow,
			enum flow_offload_tuple_dir dir)
{
	const struct flow_offload_tuple *tuple = &flow->tuplehash[dir].tuple;
	const struct flow_offload_tuple *other = &flow->tuplehash[!dir].tuple;
	s32 left = nf_flow_timeout_delta(READ_ONCE(flow->timeout));
	struct neighbour *n;
	bool valid;

	if (tuple->xmit_type != FLOW_OFFLOAD_XMIT_NEIGH)
		return true;

	n = dst_neigh_lookup(tuple->dst_cache, other->tun_num ?
			     &other->tun.src_v6 : &other->src_v6);
	if (!n)
		return false;

	if (left + 2 * HZ >= (s32)shim_flow_timeout(flow))
		neigh_event_send(n, NULL);
	valid = READ_ONCE(n->nud_state) & NUD_VALID;
	neigh_release(n);

	return valid;
}

static bool is_multicast(u8 l3proto, const struct in6_addr *addr)
{
	return l3proto == NFPROTO_IPV4 ?
	       ipv4_is_multicast(addr->s6_addr32[0]) :
	       ipv6_addr_is_multicast(addr);
}

/* Whether packets may have several receivers, before or after a translation. */
bool shim_flow_is_multicast(const struct flow_offload *flow)
{
	const struct flow_offload_tuple *original = &flow->tuplehash[0].tuple;
	const struct flow_offload_tuple *reply = &flow->tuplehash[1].tuple;

	return is_multicast(original->l3proto, &original->dst_v6) ||
	       is_multicast(reply->l3proto, &reply->src_v6);
}

/*
 * Whether the fast path would send packets of @dir past an IP tunnel to which they
 * are routed, or into one of another kind. It goes by the entry's own protocol
 * (nf_flow_tunnel_v4_push()), and so does the core when it looks for the way of
 * the tunnel (nft_flow_tunnel_update_route()), but tunnels of IPv6 may be for IPv4
 * (DS-Lite).
 */
bool shim_flow_mistakes_tunnel(const struct flow_offload *flow,
			       enum flow_offload_tuple_dir dir)
{
#ifdef HAVE_PATH_ETHER_TYPE
	return false;
#else
	const struct flow_offload_tuple *tuple = &flow->tuplehash[dir].tuple;
	const struct flow_offload_tuple *other = &flow->tuplehash[!dir].tuple;
	const struct net_device *dev;

	if (other->tun_num)
		return other->tun.l3_proto != (other->l3proto == AF_INET ?
					       IPPROTO_IPIP : IPPROTO_IPV6);
	if (tuple->xmit_type != FLOW_OFFLOAD_XMIT_NEIGH)
		return false;
	dev = tuple->dst_cache->dev;
	return (dev->type == ARPHRD_TUNNEL || dev->type == ARPHRD_TUNNEL6) &&
	       tuple->ifidx != dev->ifindex;
#endif
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

/* Whether it is still the connection with which the entry was made. */
static bool is_conn_of(const struct nf_conn *ct,
		       const struct flow_offload_tuple *tuple)
{
	const struct nf_conntrack_tuple *conn =
		&ct->tuplehash[IP_CT_DIR_ORIGINAL].tuple;

	if (conn->src.l3num != tuple->l3proto ||
	    conn->dst.protonum != tuple->l4proto)
		return false;
	if (tuple->l3proto == AF_INET)
		return conn->src.u3.ip == tuple->src_v4.s_addr &&
		       conn->dst.u3.ip == tuple->dst_v4.s_addr &&
		       (tuple->l4proto == IPPROTO_GRE ||
			(conn->src.u.all == tuple->src_port &&
			 conn->dst.u.all == tuple->dst_port));

	return ipv6_addr_equal(&conn->src.u3.in6, &tuple->src_v6) &&
	       ipv6_addr_equal(&conn->dst.u3.in6, &tuple->dst_v6) &&
	       (tuple->l4proto == IPPROTO_GRE ||
		(conn->src.u.all == tuple->src_port &&
		 conn->dst.u.all == tuple->dst_port));
}

/*
 * A reference to the connection of an entry that only RCU keeps, or NULL if
 * flow_offload_free() has put the entry's own: then the connection may be gone,
 * or another one by now.
 */
struct nf_conn *shim_flow_get_ct(const struct flow_offload *flow)
{
	struct nf_conn *ct = flow->ct;

	if (!refcount_inc_not_zero(&ct->ct_general.use))
		return NULL;
	/* As nf_ct_find does: what it says was written before the reference. */
	smp_acquire__after_ctrl_dep();
	if (is_conn_of(ct, &flow->tuplehash[FLOW_OFFLOAD_DIR_ORIGINAL].tuple))
		return ct;
	nf_ct_put(ct);
	return NULL;
}

/* The packets of a direction as they come in. */
void shim_ct_tuple(const struct nf_conn *ct, u32 dir, struct shim_ct_tuple *to)
{
	const struct nf_conntrack_tuple *tuple = &ct->tuplehash[dir].tuple;

	memset(to, 0, sizeof(*to));
	to->family = tuple->src.l3num;
	to->l4proto = tuple->dst.protonum;
	memcpy(to->src, &tuple->src.u3, sizeof(to->src));
	memcpy(to->dst, &tuple->dst.u3, sizeof(to->dst));
	if (to->l4proto != IPPROTO_GRE) {
		to->sport = ntohs(tuple->src.u.all);
		to->dport = ntohs(tuple->dst.u.all);
	}
}

/* Returns a reference to the connection with this tuple in either direction, or NULL. */
struct nf_conn *shim_ct_find(struct net *net, u16 zone,
			     const struct shim_ct_tuple *from)
{
	struct nf_conntrack_tuple tuple = {
		.src.l3num = from->family,
		.dst.protonum = from->l4proto,
	};
	struct nf_conntrack_tuple_hash *found;
	struct nf_conntrack_zone in;

	memcpy(&tuple.src.u3, from->src, sizeof(from->src));
	memcpy(&tuple.dst.u3, from->dst, sizeof(from->dst));
	tuple.src.u.all = htons(from->sport);
	tuple.dst.u.all = htons(from->dport);
	nf_ct_zone_init(&in, zone, NF_CT_DEFAULT_ZONE_DIR, 0);
	found = nf_conntrack_find_get(net, &in, &tuple);
	return found ? nf_ct_tuplehash_to_ctrack(found) : NULL;
}

/* What conntrack has counted of a direction, if it counts. */
bool shim_ct_counters(const struct nf_conn *ct, u32 dir, u64 *packets,
		      u64 *bytes)
{
	const struct nf_conn_acct *acct = nf_conn_acct_find(ct);

	if (!acct)
		return false;
	*packets = atomic64_read(&acct->counter[dir].packets);
	*bytes = atomic64_read(&acct->counter[dir].bytes);
	return true;
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

/* The timeouts by state of the connection's protocol, if it is one of flowtables. */
static const unsigned int *ct_timeouts(const struct nf_conn *ct)
{
	const unsigned int *timeouts = nf_ct_timeout_lookup(ct);
	struct net *net = nf_ct_net(ct);

	if (timeouts)
		return timeouts;

	switch (nf_ct_protonum(ct)) {
	case IPPROTO_TCP:
		return nf_tcp_pernet(net)->timeouts;
	case IPPROTO_UDP:
		return nf_udp_pernet(net)->timeouts;
#ifdef CONFIG_NF_CT_PROTO_GRE
	case IPPROTO_GRE:
		return nf_gre_pernet(net)->timeouts;
#endif
	}
	return NULL;
}

/*
 * What conntrack does not do for a connection with IPS_NAT_CLASH. When its last
 * packet came is known by its timeout: of the two that it may have set, the
 * longer one means the earlier packet.
 */
void shim_ct_assure_left(struct nf_conn *ct)
{
	unsigned long status = READ_ONCE(ct->status);
	const unsigned int *timeouts;
	u32 last;

	if (!(status & IPS_SEEN_REPLY) || status & IPS_ASSURED)
		return;
	switch (nf_ct_protonum(ct)) {
	case IPPROTO_UDP:
		rcu_read_lock();
		timeouts = ct_timeouts(ct);
		last = READ_ONCE(ct->timeout) -
		       max(READ_ONCE(timeouts[UDP_CT_UNREPLIED]),
			   READ_ONCE(timeouts[UDP_CT_REPLIED]));
		rcu_read_unlock();
		if ((s32)(last - (u32)ct->proto.udp.stream_ts) <= 0)
			return;
		break;
	case IPPROTO_GRE:
		break;
	default:
		return;
	}
	if (!test_and_set_bit(IPS_ASSURED_BIT, &ct->status))
		nf_conntrack_event_cache(IPCT_ASSURED, ct);
}

/* Packets of both directions have come for so long that conntrack knows a stream. */
static bool ct_is_stream(const struct nf_conn *ct, u32 last)
{
	if (!test_bit(IPS_SEEN_REPLY_BIT, &ct->status))
		return false;
	return nf_ct_protonum(ct) != IPPROTO_UDP ||
	       (s32)(last - (u32)ct->proto.udp.stream_ts) > 0;
}

/* How conntrack calls the state of a TCP connection in its table of timeouts. */
static enum tcp_conntrack ct_tcp_timeout(const struct nf_conn *ct, u32 last)
{
	u32 since = READ_ONCE(ct->timeout) - NF_CT_DAY - last;
	const struct ip_ct_tcp *tcp = &ct->proto.tcp;

	/*
	 * Conntrack has not seen the packets since then, unless there were none:
	 * flow_offload_add() has set both timeouts.
	 */
	if (since >= HZ / 2)
		return TCP_CONNTRACK_ESTABLISHED;
	if (tcp->retrans >= nf_tcp_pernet(nf_ct_net(ct))->tcp_max_retrans)
		return TCP_CONNTRACK_RETRANS;
	if ((tcp->seen[0].flags | tcp->seen[1].flags) &
	    IP_CT_TCP_FLAG_DATA_UNACKNOWLEDGED)
		return TCP_CONNTRACK_UNACK;
	return TCP_CONNTRACK_ESTABLISHED;
}

/*
 * For how long conntrack would keep the connection after its last packet, which
 * came at @last, had it seen that one; 0 if that depends on more.
 */
u32 shim_ct_lifetime(const struct nf_conn *ct, u32 last)
{
	const unsigned int *timeouts;

	guard(rcu)();
	timeouts = ct_timeouts(ct);
	if (!timeouts || test_bit(IPS_FIXED_TIMEOUT_BIT, &ct->status))
		return 0;

	switch (nf_ct_protonum(ct)) {
	case IPPROTO_TCP:
		if (READ_ONCE(ct->proto.tcp.state) != TCP_CONNTRACK_ESTABLISHED)
			return 0;
		return min(READ_ONCE(timeouts[TCP_CONNTRACK_ESTABLISHED]),
			   READ_ONCE(timeouts[ct_tcp_timeout(ct, last)]));
	case IPPROTO_UDP:
		return READ_ONCE(timeouts[ct_is_stream(ct, last) ?
					  UDP_CT_REPLIED : UDP_CT_UNREPLIED]);
#ifdef CONFIG_NF_CT_PROTO_GRE
	case IPPROTO_GRE:
		return READ_ONCE(timeouts[ct_is_stream(ct, last) ?
					  GRE_CT_REPLIED : GRE_CT_UNREPLIED]);
#endif
	}
	return 0;
}

/* When the connection ends if it has no more packets. */
u32 shim_ct_end(const struct nf_conn *ct)
{
	return READ_ONCE(ct->timeout);
}

/* As nf_flow_table_extend_ct_timeout() does: a packet that conntrack sees decides. */
void shim_ct_set_end(struct nf_conn *ct, u32 from, u32 to)
{
	cmpxchg(&ct->timeout, from, to);
}

/* As conntrack would if it saw the packet that came at @last. */
void shim_ct_assure(struct nf_conn *ct, u32 last)
{
	if (test_bit(IPS_ASSURED_BIT, &ct->status) ||
	    test_bit(IPS_NAT_CLASH_BIT, &ct->status) || !ct_is_stream(ct, last))
		return;
	if (!test_and_set_bit(IPS_ASSURED_BIT, &ct->status))
		nf_conntrack_event(IPCT_ASSURED, ct);
}

/*
 * Packets of GRE that conntrack sees set a timeout which the connection has of
 * its own. As long as it has an entry, this is a day, or what it was before:
 * of GRE, nf_flow_table_extend_ct_timeout() would make a short one shorter.
 */
void shim_ct_hold_gre(struct nf_conn *ct, bool hold)
{
#ifdef CONFIG_NF_CT_PROTO_GRE
	const unsigned int *timeouts;

	guard(rcu)();
	timeouts = ct_timeouts(ct);
	if (!timeouts || nf_ct_protonum(ct) != IPPROTO_GRE)
		return;
	WRITE_ONCE(ct->proto.gre.timeout,
		   hold ? NF_CT_DAY : READ_ONCE(timeouts[GRE_CT_UNREPLIED]));
	WRITE_ONCE(ct->proto.gre.stream_timeout,
		   hold ? NF_CT_DAY : READ_ONCE(timeouts[GRE_CT_REPLIED]));
#endif
}

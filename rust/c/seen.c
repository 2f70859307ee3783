// SPDX-License-Identifier: GPL-2.0
/*
 * With what the packets of a connection were last routed, and to which MAC
 * address their frames were: a packet's mark and DSCP are kept nowhere, but routes
 * and policies may ask for them, and a host may have more addresses than that by
 * which it sends. So a hook notes them for each packet that the host forwards, and
 * the packet that makes a flowtable entry is one of them. Few are kept, for the
 * short time until the entry is offered: a connection may take another one's place.
 * Another hook notes which packets the ruleset lets pass.
 */
#include <linux/etherdevice.h>
#include <linux/hash.h>
#include <linux/if_arp.h>
#include <linux/log2.h>
#include <linux/netfilter.h>
#include <linux/rcupdate.h>
#include <net/dsfield.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/netfilter/nf_conntrack.h>

#include "../bindings/helpers.h"

#define TAG_BITS 22

/*
 * Tag of the connection, whether one came since shim_seen_begin(), and the ruleset has
 * let one pass, 1, whether the packet had a hash, 6 bits of DSCP, 32 of mark; 0 if
 * there is nothing.
 */
#define PACKET_TAG(tag) ((u64)(tag) << 42)
#define PACKET_CAME BIT_ULL(41)
#define PACKET_PASSED BIT_ULL(40)
#define PACKET_KNOWN BIT_ULL(39)
#define PACKET_HASHED BIT_ULL(38)

/* Another tag of the connection and the address; 0 if there is nothing. */
#define FRAME_TAG(tag) ((u64)(tag) << 48)

struct seen_connection {
	u64 packet[IP_CT_DIR_MAX];
	u64 frame[IP_CT_DIR_MAX];
};

struct shim_seen {
	struct rcu_head rcu;
	struct nf_hook_ops ops[4];
	unsigned int bits;
	struct seen_connection connections[];
};

static struct seen_connection *seen_connection(struct shim_seen *seen,
					       const struct nf_conn *ct,
					       u64 *packet, u64 *frame)
{
	u64 hash = (u64)(unsigned long)ct * GOLDEN_RATIO_64;

	*packet = PACKET_TAG(hash >> (64 - TAG_BITS)) | PACKET_KNOWN;
	/* The middle of a product is as good, and 0 only by chance. */
	*frame = FRAME_TAG(hash >> 8 | 1);
	hash <<= TAG_BITS;
	return &seen->connections[hash >> (64 - seen->bits)];
}

static void note(u64 *to, u64 what)
{
	if (READ_ONCE(*to) != what)
		WRITE_ONCE(*to, what);
}

/* That of the frame in which the packet has come; NULL if it has not come in one. */
static const u8 *frame_dest(const struct sk_buff *skb, const struct net_device *in)
{
	/* Devices without Ethernet may be ports of one that has it, such as a VRF. */
	return in && in->type == ARPHRD_ETHER && skb_mac_header_was_set(skb) &&
	       skb_mac_header_len(skb) >= ETH_HLEN ? eth_hdr(skb)->h_dest : NULL;
}

/* What a bridge forwards (br_netfilter) is to others. */
static bool is_bridged(const struct sk_buff *skb)
{
	return skb_dst(skb) && skb_dst(skb)->flags & DST_FAKE_RTABLE;
}

static unsigned int see_packet(void *priv, struct sk_buff *skb,
			       const struct nf_hook_state *state)
{
	enum ip_conntrack_info ctinfo;
	const struct nf_conn *ct = nf_ct_get(skb, &ctinfo);
	const u8 *dest = frame_dest(skb, state->in);
	struct seen_connection *connection;
	int dir = CTINFO2DIR(ctinfo);
	u64 packet, frame;
	u8 dsfield;

	if (!ct || is_bridged(skb))
		return NF_ACCEPT;

	connection = seen_connection(priv, ct, &packet, &frame);
	dsfield = state->pf == NFPROTO_IPV4 ? ipv4_get_dsfield(ip_hdr(skb)) :
					      ipv6_get_dsfield(ipv6_hdr(skb));
	packet |= (u64)(dsfield >> 2) << 32 | skb->mark;
	packet |= PACKET_CAME;
	if (skb->l4_hash)
		packet |= PACKET_HASHED;
	if ((READ_ONCE(connection->packet[dir]) ^ packet) & ~PACKET_PASSED)
		WRITE_ONCE(connection->packet[dir], packet);
	note(&connection->frame[dir], dest ? frame | ether_addr_to_u64(dest) : 0);
	/* Another connection may have been at this address. */
	if (!nf_ct_is_confirmed(ct)) {
		note(&connection->packet[!dir], 0);
		note(&connection->frame[!dir], 0);
	}
	return NF_ACCEPT;
}

static bool is_of(u64 packet, u64 tag)
{
	return !(((packet ^ tag) & ~(PACKET_CAME | PACKET_PASSED)) >> 39);
}

static unsigned int let_pass(void *priv, struct sk_buff *skb,
			     const struct nf_hook_state *state)
{
	enum ip_conntrack_info ctinfo;
	const struct nf_conn *ct = nf_ct_get(skb, &ctinfo);
	u64 *at, packet, tag, frame;

	/* Only of what is left to the host it is asked: see rust/offload/left.rs. */
	if (!ct || !test_bit(IPS_NAT_CLASH_BIT, &ct->status) || is_bridged(skb))
		return NF_ACCEPT;
	at = &seen_connection(priv, ct, &tag, &frame)->packet[CTINFO2DIR(ctinfo)];
	packet = READ_ONCE(*at);
	/* Or that of another connection has come meanwhile. */
	if (is_of(packet, tag) && !(packet & PACKET_PASSED))
		cmpxchg64(at, packet, packet | PACKET_PASSED);
	return NF_ACCEPT;
}

/* Sleeps. NULL if there is no memory, or the hooks cannot be registered. */
struct shim_seen *shim_seen_start(struct net *net)
{
	static const u8 families[] = { NFPROTO_IPV4, NFPROTO_IPV6 };
	/* An eighth of what conntrack's table is made for: 256 KiB to 4 MiB. */
	unsigned int bits = net_eq(net, &init_net) ?
			    clamp(ilog2(nf_conntrack_htable_size) - 3, 13, 17) : 13;
	struct shim_seen *seen;
	int i;

	seen = kvzalloc(struct_size(seen, connections, 1 << bits), GFP_KERNEL_ACCOUNT);
	if (!seen)
		return NULL;

	seen->bits = bits;

	for (i = 0; i < ARRAY_SIZE(seen->ops); i++) {
		seen->ops[i] = (struct nf_hook_ops) {
			.hook = i % 2 ? let_pass : see_packet,
			.priv = seen,
			.pf = families[i / 2],
			/* As routed, before a chain changes it; after all chains. */
			.hooknum = i % 2 ? NF_INET_POST_ROUTING : NF_INET_FORWARD,
			.priority = i % 2 ? INT_MAX - 1 : INT_MIN,
		};
	}
	if (nf_register_net_hooks(net, seen->ops, ARRAY_SIZE(seen->ops))) {
		kvfree(seen);
		return NULL;
	}
	return seen;
}

/* Sleeps. Packets may still be under way. */
void shim_seen_stop(struct net *net, struct shim_seen *seen)
{
	nf_unregister_net_hooks(net, seen->ops, ARRAY_SIZE(seen->ops));
	kvfree_rcu(seen, rcu);
}

/* With what the last packet of @ct in @dir was routed. False if that is not known. */
bool shim_seen_packet(struct shim_seen *seen, const struct nf_conn *ct, u32 dir,
		      struct shim_marks *marks)
{
	u64 tag, frame, packet;

	packet = READ_ONCE(seen_connection(seen, ct, &tag, &frame)->packet[dir]);
	if (!is_of(packet, tag))
		return false;
	marks->mark = packet;
	marks->dscp = packet >> 32 & 0x3f;
	marks->hashed = packet & PACKET_HASHED;
	return true;
}

/* What shim_seen_passed() says is of packets that come from now on. */
void shim_seen_begin(struct shim_seen *seen, const struct nf_conn *ct)
{
	struct seen_connection *connection;
	u64 tag, frame, packet;
	int dir;

	connection = seen_connection(seen, ct, &tag, &frame);
	for (dir = 0; dir < IP_CT_DIR_MAX; dir++) {
		packet = READ_ONCE(connection->packet[dir]);
		if (is_of(packet, tag))
			cmpxchg64(&connection->packet[dir], packet,
				  packet & ~(PACKET_CAME | PACKET_PASSED));
	}
}

/*
 * Whether chains at NF_INET_FORWARD and later have let packets of @ct in @dir pass
 * since shim_seen_begin(). Negative if there was none, or it is not known.
 */
int shim_seen_passed(struct shim_seen *seen, const struct nf_conn *ct, u32 dir)
{
	u64 tag, frame, packet;

	packet = READ_ONCE(seen_connection(seen, ct, &tag, &frame)->packet[dir]);
	return is_of(packet, tag) && packet & PACKET_CAME ?
	       !!(packet & PACKET_PASSED) : -ENOENT;
}

/* Packets of @ct are routed otherwise from now on. */
void shim_seen_forget(struct shim_seen *seen, const struct nf_conn *ct)
{
	struct seen_connection *connection;
	u64 packet, frame;
	int dir;

	connection = seen_connection(seen, ct, &packet, &frame);
	for (dir = 0; dir < IP_CT_DIR_MAX; dir++)
		note(&connection->packet[dir], 0);
}

/* To which address the last frame of @ct in @dir was. False if that is not known. */
bool shim_seen_frame(struct shim_seen *seen, const struct nf_conn *ct, u32 dir,
		     u8 addr[ETH_ALEN])
{
	u64 packet, tag, frame;

	frame = READ_ONCE(seen_connection(seen, ct, &packet, &tag)->frame[dir]);
	if ((frame ^ tag) >> 48)
		return false;
	u64_to_ether_addr(frame & GENMASK_ULL(47, 0), addr);
	return true;
}

/* A frame of @ct in @dir to this address has taken the fast path. */
void shim_seen_set_frame(struct shim_seen *seen, const struct nf_conn *ct, u32 dir,
			 const u8 addr[ETH_ALEN])
{
	struct seen_connection *connection;
	u64 packet, frame;

	connection = seen_connection(seen, ct, &packet, &frame);
	note(&connection->frame[dir], frame | ether_addr_to_u64(addr));
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Random flows.
 *
 * What decides about the shape of a rule is not left to chance: it is a number in
 * a mixed radix, so that counting meets every combination. The rest is random.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/if_ether.h>
#include <linux/if_vlan.h>
#include <linux/in.h>
#include <linux/printk.h>
#include <net/ip_tunnels.h>
#include <net/lwtunnel.h>

#include "oracle.h"

static const u8 families[] = { AF_INET, AF_INET6 };
static const u8 protocols[] = { IPPROTO_TCP, IPPROTO_UDP, IPPROTO_GRE };
static const u8 odd_protocols[] = {
	IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_IPIP, IPPROTO_ESP, IPPROTO_SCTP,
	IPPROTO_UDPLITE, IPPROTO_RAW,
};

static const u16 tags[] = { ETH_P_8021Q, ETH_P_8021AD, ETH_P_PPP_SES };
static const u8 xmits[] = { FLOW_OFFLOAD_XMIT_DIRECT, FLOW_OFFLOAD_XMIT_NEIGH };
static const u8 odd_xmits[] = {
	FLOW_OFFLOAD_XMIT_XFRM, FLOW_OFFLOAD_XMIT_TC, FLOW_OFFLOAD_XMIT_UNSPEC,
};

/* No header, or one or two, each of the kinds above, left to the switch or not. */
#define ONE		(2 * ARRAY_SIZE(tags))
#define ENCAPS		(1 + ONE + ONE * ONE)
#define NATS		4

/* Takes the lowest digit off @number. */
static unsigned int digit(unsigned int *number, unsigned int radix)
{
	unsigned int value = *number % radix;

	*number /= radix;
	return value;
}

unsigned int oracle_combinations(void)
{
	return ARRAY_SIZE(families) * ARRAY_SIZE(protocols) * NATS *
	       ENCAPS * ENCAPS * ARRAY_SIZE(xmits) * ARRAY_SIZE(xmits);
}

static u32 below(struct rnd_state *rnd, u32 limit)
{
	return prandom_u32_state(rnd) % limit;
}

static void one_encap(struct flow_offload_tuple *tuple, unsigned int i,
		      unsigned int which, struct rnd_state *rnd)
{
	u16 proto = tags[which / 2];

	tuple->encap[i].proto = htons(proto);
	tuple->encap[i].id = prandom_u32_state(rnd);
	if (proto != ETH_P_PPP_SES)
		tuple->encap[i].id &= VLAN_VID_MASK;
	if (which % 2)
		tuple->in_vlan_ingress |= BIT(i);
}

static void make_encaps(struct flow_offload_tuple *tuple, unsigned int which,
			struct rnd_state *rnd)
{
	if (which == 0) {
		tuple->encap_num = 0;
	} else if (which <= ONE) {
		tuple->encap_num = 1;
		one_encap(tuple, 0, which - 1, rnd);
	} else {
		which -= 1 + ONE;
		tuple->encap_num = 2;
		one_encap(tuple, 0, which / ONE, rnd);
		one_encap(tuple, 1, which % ONE, rnd);
	}
}

/* A device that is there, or with @odd sometimes one that is not. */
static u32 pick_device(const struct oracle_world *world, struct rnd_state *rnd,
		       bool odd)
{
	static const u32 missing[] = { 0, 0x7ffffffe, 0x80000001, U32_MAX };

	if (odd && below(rnd, 16) == 0)
		return missing[below(rnd, ARRAY_SIZE(missing))];

	return world->ifindex[below(rnd, world->num_devices)];
}

/* A resolved one, or with @odd any. */
static const struct oracle_hop *
pick_hop(const struct oracle_world *world, struct rnd_state *rnd, u8 family,
	 bool odd)
{
	const struct oracle_hop *hop;

	/* oracle_main.c has made sure that there is one. */
	do {
		hop = &world->hops[below(rnd, world->num_hops)];
	} while (hop->family != family || !(odd || hop->resolved));

	return hop;
}

/* Makes of @state something that a route may say, or with @wrong, one that no rule can. */
static void make_tunnel(struct lwtunnel_state *state, struct rnd_state *rnd, bool wrong)
{
	static const u16 types[] = { LWTUNNEL_ENCAP_IP, LWTUNNEL_ENCAP_IP6 };
	struct ip_tunnel_info *info = lwt_tun_info(state);
	unsigned int which = below(rnd, ARRAY_SIZE(types));
	unsigned int len;

	memset(info, 0, sizeof(*info) + ORACLE_TUNNEL_OPTIONS);
	state->type = types[which];
	info->mode = IP_TUNNEL_INFO_TX;
	if (state->type == LWTUNNEL_ENCAP_IP6)
		info->mode |= IP_TUNNEL_INFO_IPV6;

	len = which ? sizeof(struct in6_addr) : sizeof(struct in_addr);
	if (below(rnd, 4))
		prandom_bytes_state(rnd, which ? (void *)&info->key.u.ipv6.src :
						 (void *)&info->key.u.ipv4.src, len);
	if (below(rnd, 16))
		prandom_bytes_state(rnd, which ? (void *)&info->key.u.ipv6.dst :
						 (void *)&info->key.u.ipv4.dst, len);
	prandom_bytes_state(rnd, &info->key.tun_id, sizeof(info->key.tun_id));
	info->key.tos = prandom_u32_state(rnd);
	info->key.ttl = prandom_u32_state(rnd);
	info->key.tun_flags[0] = (u16)prandom_u32_state(rnd);
	ip_tunnel_clear_options_present(info->key.tun_flags);

	if (!wrong)
		return;
	switch (below(rnd, 3)) {
	case 0:
		/* C does not look at the type. */
		do {
			state->type = 1 + below(rnd, LWTUNNEL_ENCAP_MAX);
		} while (state->type == LWTUNNEL_ENCAP_IP ||
			 state->type == LWTUNNEL_ENCAP_IP6);
		info->mode = prandom_u32_state(rnd);
		break;
	case 1:
		info->mode &= ~IP_TUNNEL_INFO_TX;
		break;
	case 2:
		info->options_len = 4 * (1 + below(rnd, ORACLE_TUNNEL_OPTIONS / 4));
		__set_bit(IP_TUNNEL_GENEVE_OPT_BIT, info->key.tun_flags);
		break;
	}
}

/* How packets of direction @dir leave. */
static void make_way_out(struct oracle_case *c, const struct oracle_world *world,
			 enum flow_offload_tuple_dir dir, u8 xmit,
			 struct rnd_state *rnd, bool odd)
{
	struct flow_offload_tuple *this = &c->flow.tuplehash[dir].tuple;
	struct flow_offload_tuple *other = &c->flow.tuplehash[!dir].tuple;
	const struct oracle_hop *hop;

	this->xmit_type = xmit;
	switch (xmit) {
	case FLOW_OFFLOAD_XMIT_DIRECT:
		this->out.ifidx = pick_device(world, rnd, odd);
		prandom_bytes_state(rnd, this->out.h_source, ETH_ALEN);
		prandom_bytes_state(rnd, this->out.h_dest, ETH_ALEN);
		/* Next to an IP tunnel there is a route as well, which means nothing here. */
		if (odd && below(rnd, 4) == 0) {
			hop = pick_hop(world, rnd, this->l3proto, odd);
			c->hop[dir] = hop;
			this->dst_cache = hop->tunnel[dir];
		}
		break;
	case FLOW_OFFLOAD_XMIT_NEIGH:
	case FLOW_OFFLOAD_XMIT_XFRM:
		hop = pick_hop(world, rnd, this->l3proto, odd);
		c->hop[dir] = hop;
		this->dst_cache = hop->dst;
		if (below(rnd, 4) == 0) {
			this->dst_cache = hop->tunnel[dir];
			make_tunnel(this->dst_cache->lwtstate, rnd, odd && below(rnd, 2));
		}
		this->ifidx = pick_device(world, rnd, odd);
		/* The route leads to where the packets of the other direction are from. */
		if (this->l3proto == AF_INET)
			other->src_v4 = hop->addr.in;
		else
			other->src_v6 = hop->addr.in6;
		break;
	case FLOW_OFFLOAD_XMIT_TC:
		this->tc.iifidx = pick_device(world, rnd, odd);
		break;
	}
}

/*
 * The @combination'th shape, with random values in it. With @odd, things are as they
 * should not be: devices are missing, next hops unresolved, tunnels or IPsec in the way,
 * and the protocol may be one that nftables refuses.
 */
void oracle_make(struct oracle_case *c, const struct oracle_world *world,
		 struct rnd_state *rnd, unsigned int combination, bool odd)
{
	struct flow_offload_tuple *tuple[FLOW_OFFLOAD_DIR_MAX];
	unsigned int xmit[FLOW_OFFLOAD_DIR_MAX], encap[FLOW_OFFLOAD_DIR_MAX];
	unsigned int nat, flags;
	u8 family, l4proto;
	size_t len;
	int dir;

	memset(c, 0, sizeof(*c));
	family = families[digit(&combination, ARRAY_SIZE(families))];
	l4proto = protocols[digit(&combination, ARRAY_SIZE(protocols))];
	if (odd && below(rnd, 8) == 0)
		l4proto = odd_protocols[below(rnd, ARRAY_SIZE(odd_protocols))];
	nat = digit(&combination, NATS);
	for (dir = 0; dir < FLOW_OFFLOAD_DIR_MAX; dir++) {
		xmit[dir] = xmits[digit(&combination, ARRAY_SIZE(xmits))];
		if (odd && below(rnd, 8) == 0)
			xmit[dir] = odd_xmits[below(rnd, ARRAY_SIZE(odd_xmits))];
		encap[dir] = digit(&combination, ENCAPS);
	}

	len = family == AF_INET ? sizeof(struct in_addr) : sizeof(struct in6_addr);
	for (dir = 0; dir < FLOW_OFFLOAD_DIR_MAX; dir++) {
		tuple[dir] = &c->flow.tuplehash[dir].tuple;
		tuple[dir]->dir = dir;
		tuple[dir]->l3proto = family;
		tuple[dir]->l4proto = l4proto;
		prandom_bytes_state(rnd, &tuple[dir]->src_v6, len);
		prandom_bytes_state(rnd, &tuple[dir]->dst_v6, len);
		if (oracle_has_ports(l4proto)) {
			tuple[dir]->src_port = (__force __be16)prandom_u32_state(rnd);
			tuple[dir]->dst_port = (__force __be16)prandom_u32_state(rnd);
		}
		tuple[dir]->iifidx = pick_device(world, rnd, odd);
		tuple[dir]->mtu = prandom_u32_state(rnd);
		tuple[dir]->dst_cookie = prandom_u32_state(rnd);
		tuple[dir]->needs_gso_segment = below(rnd, 2);
		make_encaps(tuple[dir], encap[dir], rnd);
		if (odd && below(rnd, 16) == 0) {
			tuple[dir]->tun_num = 1;
			prandom_bytes_state(rnd, &tuple[dir]->tun, sizeof(tuple[dir]->tun));
		}
	}
	/* Where ports alone are translated, or nothing at all, the addresses are the same. */
	if (below(rnd, 2)) {
		tuple[1]->src_v6 = tuple[0]->dst_v6;
		tuple[1]->dst_v6 = tuple[0]->src_v6;
		if (below(rnd, 2)) {
			tuple[1]->src_port = tuple[0]->dst_port;
			tuple[1]->dst_port = tuple[0]->src_port;
		}
	}
	for (dir = 0; dir < FLOW_OFFLOAD_DIR_MAX; dir++)
		make_way_out(c, world, dir, xmit[dir], rnd, odd);

	/* The others mean nothing to the translation, whatever they are. */
	flags = prandom_u32_state(rnd) & GENMASK(NF_FLOW_HW_ESTABLISHED, NF_FLOW_CLOSING);
	if (nat & 1)
		flags |= BIT(NF_FLOW_SNAT);
	if (nat & 2)
		flags |= BIT(NF_FLOW_DNAT);
	c->flow.flags = flags;
	c->flow.type = NF_FLOW_OFFLOAD_ROUTE;
	c->flow.timeout = prandom_u32_state(rnd);
}

static const char *xmit_text(const struct flow_offload_tuple *tuple)
{
	switch (tuple->xmit_type) {
	case FLOW_OFFLOAD_XMIT_DIRECT:
		return "direct";
	case FLOW_OFFLOAD_XMIT_NEIGH:
		return "neigh";
	case FLOW_OFFLOAD_XMIT_XFRM:
		return "xfrm";
	case FLOW_OFFLOAD_XMIT_TC:
		return "tc";
	default:
		return "unspec";
	}
}

void oracle_print(const struct oracle_case *c)
{
	const struct flow_offload_tuple *tuple;
	int dir, i;

	pr_err("flow: flags %#lx%s%s\n", c->flow.flags,
	       test_bit(NF_FLOW_SNAT, &c->flow.flags) ? " snat" : "",
	       test_bit(NF_FLOW_DNAT, &c->flow.flags) ? " dnat" : "");
	for (dir = 0; dir < FLOW_OFFLOAD_DIR_MAX; dir++) {
		tuple = &c->flow.tuplehash[dir].tuple;
		if (tuple->l3proto == AF_INET)
			pr_err("%s: %pI4:%u -> %pI4:%u protocol %u\n",
			       dir ? "reply" : "original",
			       &tuple->src_v4, ntohs(tuple->src_port),
			       &tuple->dst_v4, ntohs(tuple->dst_port), tuple->l4proto);
		else
			pr_err("%s: [%pI6c]:%u -> [%pI6c]:%u protocol %u\n",
			       dir ? "reply" : "original",
			       &tuple->src_v6, ntohs(tuple->src_port),
			       &tuple->dst_v6, ntohs(tuple->dst_port), tuple->l4proto);
		pr_err("  in by %d, out %s, %u tunnels\n", tuple->iifidx,
		       xmit_text(tuple), tuple->tun_num);
		if (tuple->xmit_type == FLOW_OFFLOAD_XMIT_DIRECT)
			pr_err("  by %u, %pM -> %pM\n", tuple->out.ifidx,
			       tuple->out.h_source, tuple->out.h_dest);
		if (c->hop[dir])
			pr_err("  next hop %sresolved, lightweight tunnel of type %u\n",
			       c->hop[dir]->resolved ? "" : "not ",
			       tuple->dst_cache->lwtstate ?
			       tuple->dst_cache->lwtstate->type : LWTUNNEL_ENCAP_NONE);
		for (i = 0; i < tuple->encap_num; i++)
			pr_err("  header %d: %#06x id %#x%s\n", i,
			       ntohs(tuple->encap[i].proto), tuple->encap[i].id,
			       tuple->in_vlan_ingress & BIT(i) ? ", by the switch" : "");
	}
}

// SPDX-License-Identifier: GPL-2.0
/*
 * The comparison.
 *
 * Both make a rule: the action lists have to be the same, byte by byte, but for tags of
 * 802.1ad (repair()), and the match of the Rust rule what the flow says. In the dialect
 * of tc, the list has to be the same with exactly the changes that as_tc() makes.
 *
 * The Rust code alone refuses: the reason has to be the one for which it does so on
 * purpose (oracle_kind()), and C's list exactly what is wrong with it: that of a
 * similar flow for which there is a rule (neutral()), with the known damage (damage()).
 *
 * C alone refuses, or anything else: the comparison has failed.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/if_ether.h>
#include <linux/if_vlan.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/ppp_defs.h>
#include <linux/printk.h>
#include <linux/slab.h>
#include <linux/tc_act/tc_csum.h>
#include <net/dst.h>
#include <net/ip_tunnels.h>
#include <net/lwtunnel.h>

#include "oracle.h"

#define C_ACTIONS	24	/* NF_FLOW_RULE_ACTION_MAX */

struct oracle_list {
	unsigned int			num;
	struct flow_action_entry	entries[ORACLE_ACTIONS];
};

/* Init functions run one at a time. */
static struct oracle_list from_c, from_rust, expected;
static struct oracle_case similar;

/* What the Rust code says, see oracle_rust.rs. */
static const char * const reasons[ORACLE_KINDS] = {
	[ORACLE_TUNNEL]		= "tunnel",
	[ORACLE_LIGHTWEIGHT]	= "lightweight tunnel",
	[ORACLE_OPTIONS]	= "tunnel options",
	[ORACLE_IPSEC]		= "IPsec",
	[ORACLE_PATH]		= "path",
	[ORACLE_UNRESOLVED]	= "unresolved",
	[ORACLE_PROTOCOL]	= "protocol",
	[ORACLE_AD_INGRESS]	= "802.1ad",
	[ORACLE_IN_PPPOE]	= "within PPPoE",
	[ORACLE_EXCHANGE]	= "exchange",
	[ORACLE_GRE_NAT]	= "translation",
	[ORACLE_NO_DEVICE]	= "no device",
};

const char * const oracle_kind_text[ORACLE_KINDS] = {
	[ORACLE_RULE]		= "rule",
	[ORACLE_TUNNEL]		= "IP tunnel",
	[ORACLE_LIGHTWEIGHT]	= "lightweight tunnel but of IP",
	[ORACLE_OPTIONS]	= "lightweight tunnel with options",
	[ORACLE_IPSEC]		= "IPsec",
	[ORACLE_PATH]		= "no Ethernet",
	[ORACLE_UNRESOLVED]	= "next hop not resolved",
	[ORACLE_PROTOCOL]	= "other protocol",
	[ORACLE_AD_INGRESS]	= "802.1ad at ingress",
	[ORACLE_IN_PPPOE]	= "header within PPPoE at ingress",
	[ORACLE_EXCHANGE]	= "tags in the place of others",
	[ORACLE_GRE_NAT]	= "GRE with NAT",
	[ORACLE_NO_DEVICE]	= "device missing",
};

static const struct flow_offload_tuple *
tuple_of(const struct oracle_case *c, enum flow_offload_tuple_dir dir)
{
	return &c->flow.tuplehash[dir].tuple;
}

static bool has_nat(const struct oracle_case *c)
{
	return c->flow.flags & (BIT(NF_FLOW_SNAT) | BIT(NF_FLOW_DNAT));
}

/* Is header @i there, of this type, and not the switch's business? */
static bool carries(const struct flow_offload_tuple *tuple, int i, u16 proto)
{
	return i < tuple->encap_num && !(tuple->in_vlan_ingress & BIT(i)) &&
	       tuple->encap[i].proto == htons(proto);
}

static bool carries_tag(const struct flow_offload_tuple *tuple, int i)
{
	return carries(tuple, i, ETH_P_8021Q) || carries(tuple, i, ETH_P_8021AD);
}

/*
 * Are there tags both to take off and to put on? Drivers that read rules as tc means
 * them do that for one of each, of the same kind.
 */
static bool exchanges_badly(const struct flow_offload_tuple *this,
			    const struct flow_offload_tuple *other)
{
	unsigned int off = 0, on = 0;
	__be16 kind[2] = {};

	for (int i = 0; i < NF_FLOW_TABLE_ENCAP_MAX; i++) {
		if (carries_tag(this, i)) {
			kind[0] = this->encap[i].proto;
			off++;
		}
		if (carries_tag(other, i)) {
			kind[1] = other->encap[i].proto;
			on++;
		}
	}
	return off && on && (off + on > 2 || kind[0] != kind[1]);
}

static struct lwtunnel_state *lwtunnel(const struct flow_offload_tuple *tuple)
{
	switch (tuple->xmit_type) {
	case FLOW_OFFLOAD_XMIT_NEIGH:
	case FLOW_OFFLOAD_XMIT_XFRM:
		return tuple->dst_cache->lwtstate;
	default:
		return NULL;
	}
}

/* What makes a rule impossible about the lightweight tunnel of @tuple, if there is one. */
static enum oracle_kind lwtunnel_kind(const struct flow_offload_tuple *tuple)
{
	struct lwtunnel_state *state = lwtunnel(tuple);

	if (!state)
		return ORACLE_RULE;
	if (state->type != LWTUNNEL_ENCAP_IP && state->type != LWTUNNEL_ENCAP_IP6)
		return ORACLE_LIGHTWEIGHT;
	if (!(lwt_tun_info(state)->mode & IP_TUNNEL_INFO_TX))
		return ORACLE_LIGHTWEIGHT;
	return lwt_tun_info(state)->options_len ? ORACLE_OPTIONS : ORACLE_RULE;
}

/* C looks at every way but DIRECT, and at the type of no lightweight tunnel. */
static struct ip_tunnel_info *c_transmits(const struct flow_offload_tuple *tuple)
{
	struct lwtunnel_state *state = lwtunnel(tuple);
	struct ip_tunnel_info *info = state ? lwt_tun_info(state) : NULL;

	return info && (info->mode & IP_TUNNEL_INFO_TX) ? info : NULL;
}

/* A tunnel of which a rule can tell, or NULL. */
static const struct ip_tunnel_info *ip_tunnel(const struct flow_offload_tuple *tuple)
{
	return lwtunnel_kind(tuple) == ORACLE_RULE ? c_transmits(tuple) : NULL;
}

static enum oracle_kind oracle_kind(const struct oracle_case *c,
				    const struct oracle_world *world,
				    enum flow_offload_tuple_dir dir, bool tc)
{
	const struct flow_offload_tuple *this = tuple_of(c, dir);
	const struct flow_offload_tuple *other = tuple_of(c, !dir);
	bool pppoe = false;
	int i;

	if (this->tun_num || other->tun_num)
		return ORACLE_TUNNEL;
	if (lwtunnel_kind(this) != ORACLE_RULE)
		return lwtunnel_kind(this);
	if (lwtunnel_kind(other) != ORACLE_RULE)
		return lwtunnel_kind(other);

	switch (this->xmit_type) {
	case FLOW_OFFLOAD_XMIT_DIRECT:
		break;
	case FLOW_OFFLOAD_XMIT_NEIGH:
		if (!c->hop[dir]->resolved || !oracle_has_device(world, other->iifidx))
			return ORACLE_UNRESOLVED;
		break;
	case FLOW_OFFLOAD_XMIT_XFRM:
		return ORACLE_IPSEC;
	default:
		return ORACLE_PATH;
	}
	if (ip_tunnel(other) && other->xmit_type == FLOW_OFFLOAD_XMIT_XFRM)
		return ORACLE_IPSEC;

	if (!oracle_has_ports(this->l4proto) && this->l4proto != IPPROTO_GRE)
		return ORACLE_PROTOCOL;

	for (i = 0; i < NF_FLOW_TABLE_ENCAP_MAX; i++) {
		if (carries_tag(this, i) && pppoe)
			return ORACLE_IN_PPPOE;
		if (carries(this, i, ETH_P_8021AD) && !tc)
			return ORACLE_AD_INGRESS;
		if (carries(this, i, ETH_P_PPP_SES)) {
			if (pppoe)
				return ORACLE_IN_PPPOE;
			pppoe = true;
		}
	}
	if (tc && exchanges_badly(this, other))
		return ORACLE_EXCHANGE;

	if (this->l4proto == IPPROTO_GRE && has_nat(c))
		return ORACLE_GRE_NAT;
	if (this->xmit_type == FLOW_OFFLOAD_XMIT_DIRECT &&
	    !oracle_has_device(world, this->out.ifidx))
		return ORACLE_NO_DEVICE;

	return ORACLE_RULE;
}

/* Does C refuse? It looks at nothing but the way out. */
static bool c_refuses(const struct oracle_case *c, const struct oracle_world *world,
		      enum flow_offload_tuple_dir dir)
{
	const struct flow_offload_tuple *this = tuple_of(c, dir);

	switch (this->xmit_type) {
	case FLOW_OFFLOAD_XMIT_DIRECT:
		return !oracle_has_device(world, this->out.ifidx);
	case FLOW_OFFLOAD_XMIT_NEIGH:
		return !c->hop[dir]->resolved ||
		       !oracle_has_device(world, tuple_of(c, !dir)->iifidx);
	default:
		return true;
	}
}

/* Has neutral() to take away the lightweight tunnel of @tuple? */
static bool takes_tunnel(const struct flow_offload_tuple *tuple)
{
	return lwtunnel_kind(tuple) != ORACLE_RULE ||
	       tuple->xmit_type == FLOW_OFFLOAD_XMIT_XFRM;
}

/* A flow like @c for which there is a rule. */
static void neutral(struct oracle_case *to, const struct oracle_case *c,
		    enum flow_offload_tuple_dir dir)
{
	struct flow_offload_tuple *tuple;
	int d, i;

	*to = *c;
	for (d = 0; d < FLOW_OFFLOAD_DIR_MAX; d++) {
		tuple = &to->flow.tuplehash[d].tuple;
		tuple->tun_num = 0;
		if (c->hop[d] && takes_tunnel(tuple))
			tuple->dst_cache = c->hop[d]->plain;
		if (!oracle_has_ports(tuple->l4proto))
			tuple->l4proto = IPPROTO_TCP;
		for (i = 0; i < NF_FLOW_TABLE_ENCAP_MAX; i++)
			if (carries(tuple, i, ETH_P_8021AD))
				tuple->encap[i].proto = htons(ETH_P_8021Q);
	}

	tuple = &to->flow.tuplehash[dir].tuple;
	if (carries(tuple, 0, ETH_P_PPP_SES) && carries(tuple, 1, ETH_P_8021Q))
		swap(tuple->encap[0], tuple->encap[1]);
	if (carries(tuple, 0, ETH_P_PPP_SES) && carries(tuple, 1, ETH_P_PPP_SES))
		tuple->encap_num = 1;
}

static void insert(struct oracle_list *list, unsigned int at, enum flow_action_id id)
{
	struct flow_action_entry *entry = &list->entries[at];

	memmove(entry + 1, entry, (list->num - at) * sizeof(*entry));
	memset(entry, 0, sizeof(*entry));
	entry->id = id;
	entry->hw_stats = FLOW_ACTION_HW_STATS_DONT_CARE;
	list->num++;
}

static void remove(struct oracle_list *list, unsigned int at)
{
	struct flow_action_entry *entry = &list->entries[at];

	list->num--;
	memmove(entry, entry + 1, (list->num - at) * sizeof(*entry));
}

static unsigned int find(const struct oracle_list *list, enum flow_action_id id)
{
	unsigned int i;

	for (i = 0; i < list->num; i++)
		if (list->entries[i].id == id)
			break;
	return i;
}

/* Makes of the list for neutral(@c) what C makes of @c. */
static void damage(struct oracle_list *list, const struct oracle_case *c,
		   enum flow_offload_tuple_dir dir)
{
	const struct flow_offload_tuple *this = tuple_of(c, dir);
	const struct flow_offload_tuple *other = tuple_of(c, !dir);
	struct flow_action_entry *entry;
	unsigned int i, at;

	/* The ports of what has none are rewritten, in a header of no type. */
	if (!oracle_has_ports(this->l4proto)) {
		for (i = 0; i < list->num; i++) {
			entry = &list->entries[i];
			if (entry->id == FLOW_ACTION_MANGLE &&
			    entry->mangle.htype == FLOW_ACT_MANGLE_HDR_TYPE_TCP)
				entry->mangle.htype = FLOW_ACT_MANGLE_UNSPEC;
			if (entry->id == FLOW_ACTION_CSUM)
				entry->csum_flags &= ~TCA_CSUM_UPDATE_FLAG_TCP;
		}
	}

	/* 802.1ad is put on by an action without a type, which is ACCEPT. */
	for (i = 0, at = 0; i < NF_FLOW_TABLE_ENCAP_MAX; i++) {
		if (carries(other, i, ETH_P_8021AD)) {
			at = find(list, FLOW_ACTION_VLAN_PUSH);
			/* Of two tags, the first may be one of 802.1Q. */
			if (i == 1 && carries(other, 0, ETH_P_8021Q))
				at++;
			remove(list, at);
			insert(list, at, FLOW_ACTION_ACCEPT);
		}
	}
	/* It is not taken off. */
	for (i = 0; i < NF_FLOW_TABLE_ENCAP_MAX; i++)
		if (carries(this, i, ETH_P_8021AD))
			remove(list, find(list, FLOW_ACTION_VLAN_POP));

	if (takes_tunnel(this) && c_transmits(this)) {
		at = list->entries[0].id == FLOW_ACTION_TUNNEL_DECAP;
		insert(list, at, FLOW_ACTION_TUNNEL_ENCAP);
		list->entries[at].tunnel = c_transmits(this);
	}
	if (takes_tunnel(other) && c_transmits(other))
		insert(list, 0, FLOW_ACTION_TUNNEL_DECAP);
}

static bool is_tag_push(const struct flow_action_entry *entry)
{
	return entry->id == FLOW_ACTION_VLAN_PUSH || entry->id == FLOW_ACTION_ACCEPT;
}

/*
 * What C leaves out of its list with tags of 802.1ad: it takes none off, and puts one on
 * by an action without a type.
 */
static bool repair(struct oracle_list *list, const struct oracle_case *c,
		   enum flow_offload_tuple_dir dir)
{
	const struct flow_offload_tuple *this = tuple_of(c, dir);
	const struct flow_offload_tuple *other = tuple_of(c, !dir);
	unsigned int at, i, tags = 0;
	bool repaired = false;

	/* After the addresses of the frame, which are the first four rewrites. */
	at = find(list, FLOW_ACTION_MANGLE) + 4;
	for (i = 0; i < NF_FLOW_TABLE_ENCAP_MAX; i++) {
		if (carries(this, i, ETH_P_8021AD)) {
			insert(list, at, FLOW_ACTION_VLAN_POP);
			repaired = true;
		}
	}

	for (at = 0; at < list->num; at++) {
		struct flow_action_entry *entry = &list->entries[at];

		if (!is_tag_push(entry))
			continue;
		for (i = 0; i < NF_FLOW_TABLE_ENCAP_MAX; i++)
			if (carries_tag(other, i) && i >= tags)
				break;
		tags = i + 1;
		if (entry->id == FLOW_ACTION_ACCEPT && i < NF_FLOW_TABLE_ENCAP_MAX) {
			entry->id = FLOW_ACTION_VLAN_PUSH;
			entry->vlan.vid = other->encap[i].id;
			entry->vlan.proto = htons(ETH_P_8021AD);
			repaired = true;
		}
	}
	return repaired;
}

static bool is_push(const struct flow_action_entry *entry)
{
	return entry->id == FLOW_ACTION_VLAN_PUSH || entry->id == FLOW_ACTION_PPPOE_PUSH;
}

/*
 * The dialect of tc: each header is pushed outside of the one before, and the rule
 * decrements the TTL, which changes the checksum of IPv4.
 */
static void as_tc(struct oracle_list *list, const struct oracle_case *c)
{
	bool ipv4 = tuple_of(c, 0)->l3proto == AF_INET;
	unsigned int at = find(list, FLOW_ACTION_REDIRECT);
	u8 add[4] = {}, keep[4] = { 0xff, 0xff, 0xff, 0xff };
	struct flow_action_entry *entry;
	unsigned int offset, i;

	for (i = 1; i < list->num; i++)
		if (is_push(&list->entries[i - 1]) && is_push(&list->entries[i]))
			break;
	if (i < list->num)
		swap(list->entries[i - 1], list->entries[i]);

	if (ipv4) {
		if (!has_nat(c)) {
			insert(list, at, FLOW_ACTION_CSUM);
			list->entries[at].csum_flags = TCA_CSUM_UPDATE_FLAG_IPV4HDR;
		}
		at = find(list, FLOW_ACTION_CSUM);
	}

	offset = ipv4 ? offsetof(struct iphdr, ttl) : offsetof(struct ipv6hdr, hop_limit);
	add[offset % 4] = 0xff;
	keep[offset % 4] = 0;

	insert(list, at, FLOW_ACTION_ADD);
	entry = &list->entries[at];
	entry->mangle.htype = ipv4 ? FLOW_ACT_MANGLE_HDR_TYPE_IP4 :
				     FLOW_ACT_MANGLE_HDR_TYPE_IP6;
	entry->mangle.offset = round_down(offset, 4);
	memcpy(&entry->mangle.mask, keep, sizeof(keep));
	memcpy(&entry->mangle.val, add, sizeof(add));
}

static int translate_c(const struct oracle_case *c, const struct oracle_world *world,
		       enum flow_offload_tuple_dir dir, struct oracle_list *list)
{
	struct flow_offload *flow = (struct flow_offload *)&c->flow;
	static u8 room[struct_size_t(struct flow_rule, action.entries, C_ACTIONS)] __aligned(8);
	struct nf_flow_rule rule = { .rule = (struct flow_rule *)room };
	struct flow_action_entry *entries = rule.rule->action.entries;
	unsigned int i;
	int err;

	/* As flow_rule_alloc() does, and nf_flow_offload_rule_alloc() after it. */
	memset(room, 0, sizeof(room));
	for (i = 0; i < C_ACTIONS; i++)
		entries[i].hw_stats = FLOW_ACTION_HW_STATS_DONT_CARE;

	if (tuple_of(c, dir)->l3proto == AF_INET)
		err = nf_flow_rule_route_ipv4(world->net, flow, dir, &rule);
	else
		err = nf_flow_rule_route_ipv6(world->net, flow, dir, &rule);

	list->num = rule.rule->action.num_entries;
	for (i = 0; i < list->num; i++) {
		list->entries[i] = entries[i];
		/* The devices that we compare do not go away, our namespace is in use. */
		if (list->entries[i].id == FLOW_ACTION_REDIRECT)
			dev_put(list->entries[i].dev);
	}
	return err;
}

/* What the Rust code made. */
struct seen {
	const struct oracle_case	*c;
	enum flow_offload_tuple_dir	dir;
	const char			*bad_match;
};

static bool same(const void *key, const void *key_is, const void *mask,
		 const void *mask_is, size_t size)
{
	return !memcmp(key, key_is, size) && !memcmp(mask, mask_is, size);
}

static const char *check_vlan(const struct flow_match_vlan *match, u16 id,
			      __be16 proto)
{
	const struct flow_dissector_key_vlan key = {
		.vlan_id = id,
		.vlan_tpid = proto,
	};
	const struct flow_dissector_key_vlan mask = {
		.vlan_id = VLAN_VID_MASK,
		.vlan_tpid = htons(0xffff),
	};

	return same(match->key, &key, match->mask, &mask, sizeof(key)) ? NULL : "VLAN";
}

/* The outer header of what comes in, if packets the other way leave through @info. */
static const char *check_outer(const struct flow_rule *rule,
			       const struct ip_tunnel_info *info)
{
	struct flow_dissector_key_control control_key = {}, control_mask = {
		.addr_type = 0xffff,
	};
	struct flow_dissector_key_keyid id_key = {
		.keyid = cpu_to_be32(be64_to_cpu(info->key.tun_id)),
	}, id_mask = {
		.keyid = htonl(0xffffffff),
	};
	struct flow_match_enc_keyid id;
	struct flow_match_control control;

	if (info->mode & IP_TUNNEL_INFO_IPV6) {
		struct flow_dissector_key_ipv6_addrs key = {
			.src = info->key.u.ipv6.dst,
			.dst = info->key.u.ipv6.src,
		}, mask = {};
		struct flow_match_ipv6_addrs match;

		if (!ipv6_addr_any(&key.src))
			memset(&mask.src, 0xff, sizeof(mask.src));
		if (!ipv6_addr_any(&key.dst))
			memset(&mask.dst, 0xff, sizeof(mask.dst));
		flow_rule_match_enc_ipv6_addrs(rule, &match);
		if (!same(match.key, &key, match.mask, &mask, sizeof(key)))
			return "ENC_IPV6_ADDRS";
		control_key.addr_type = FLOW_DISSECTOR_KEY_IPV6_ADDRS;
	} else {
		struct flow_dissector_key_ipv4_addrs key = {
			.src = info->key.u.ipv4.dst,
			.dst = info->key.u.ipv4.src,
		}, mask = {
			.src = key.src ? htonl(0xffffffff) : 0,
			.dst = key.dst ? htonl(0xffffffff) : 0,
		};
		struct flow_match_ipv4_addrs match;

		flow_rule_match_enc_ipv4_addrs(rule, &match);
		if (!same(match.key, &key, match.mask, &mask, sizeof(key)))
			return "ENC_IPV4_ADDRS";
		control_key.addr_type = FLOW_DISSECTOR_KEY_IPV4_ADDRS;
	}

	flow_rule_match_enc_control(rule, &control);
	if (!same(control.key, &control_key, control.mask, &control_mask,
		  sizeof(control_key)))
		return "ENC_CONTROL";
	flow_rule_match_enc_keyid(rule, &id);
	if (!same(id.key, &id_key, id.mask, &id_mask, sizeof(id_key)))
		return "ENC_KEYID";
	return NULL;
}

/* Which key of @rule is not what the flow says, if any. */
static const char *check_match(const struct flow_rule *rule,
			       const struct oracle_case *c,
			       enum flow_offload_tuple_dir dir)
{
	const struct flow_offload_tuple *tuple = tuple_of(c, dir);
	bool ipv4 = tuple->l3proto == AF_INET;
	u64 used = BIT_ULL(FLOW_DISSECTOR_KEY_META) |
		   BIT_ULL(FLOW_DISSECTOR_KEY_CONTROL) |
		   BIT_ULL(FLOW_DISSECTOR_KEY_BASIC);
	const struct ip_tunnel_info *outer = ip_tunnel(tuple_of(c, !dir));
	unsigned int num_vlans = 0;
	const char *bad = NULL;
	int i;

	if (outer)
		used |= BIT_ULL(FLOW_DISSECTOR_KEY_ENC_CONTROL) |
			BIT_ULL(FLOW_DISSECTOR_KEY_ENC_KEYID) |
			BIT_ULL(outer->mode & IP_TUNNEL_INFO_IPV6 ?
				FLOW_DISSECTOR_KEY_ENC_IPV6_ADDRS :
				FLOW_DISSECTOR_KEY_ENC_IPV4_ADDRS);
	used |= BIT_ULL(ipv4 ? FLOW_DISSECTOR_KEY_IPV4_ADDRS :
			       FLOW_DISSECTOR_KEY_IPV6_ADDRS);
	for (i = 0; i < NF_FLOW_TABLE_ENCAP_MAX; i++) {
		if (carries_tag(tuple, i))
			used |= BIT_ULL(num_vlans++ ? FLOW_DISSECTOR_KEY_CVLAN :
						      FLOW_DISSECTOR_KEY_VLAN);
		if (carries(tuple, i, ETH_P_PPP_SES))
			used |= BIT_ULL(FLOW_DISSECTOR_KEY_PPPOE);
	}
	if (oracle_has_ports(tuple->l4proto))
		used |= BIT_ULL(FLOW_DISSECTOR_KEY_PORTS);
	if (tuple->l4proto == IPPROTO_TCP)
		used |= BIT_ULL(FLOW_DISSECTOR_KEY_TCP);
	if (rule->match.dissector->used_keys != used)
		return "used_keys";

	{
		struct flow_dissector_key_meta key = { .ingress_ifindex = tuple->iifidx };
		struct flow_dissector_key_meta mask = { .ingress_ifindex = 0xffffffff };
		struct flow_match_meta match;

		flow_rule_match_meta(rule, &match);
		if (!same(match.key, &key, match.mask, &mask, sizeof(key)))
			return "META";
	}
	{
		struct flow_dissector_key_control key = {
			.addr_type = ipv4 ? FLOW_DISSECTOR_KEY_IPV4_ADDRS :
					    FLOW_DISSECTOR_KEY_IPV6_ADDRS,
		};
		struct flow_dissector_key_control mask = { .addr_type = 0xffff };
		struct flow_match_control match;

		flow_rule_match_control(rule, &match);
		if (!same(match.key, &key, match.mask, &mask, sizeof(key)))
			return "CONTROL";
	}
	{
		struct flow_dissector_key_basic key = {
			.n_proto = ipv4 ? htons(ETH_P_IP) : htons(ETH_P_IPV6),
			.ip_proto = tuple->l4proto,
		};
		struct flow_dissector_key_basic mask = {
			.n_proto = htons(0xffff),
			.ip_proto = 0xff,
		};
		struct flow_match_basic match;

		flow_rule_match_basic(rule, &match);
		if (!same(match.key, &key, match.mask, &mask, sizeof(key)))
			return "BASIC";
	}
	if (ipv4) {
		struct flow_dissector_key_ipv4_addrs key = {
			.src = tuple->src_v4.s_addr,
			.dst = tuple->dst_v4.s_addr,
		};
		struct flow_dissector_key_ipv4_addrs mask = {
			.src = htonl(0xffffffff),
			.dst = htonl(0xffffffff),
		};
		struct flow_match_ipv4_addrs match;

		flow_rule_match_ipv4_addrs(rule, &match);
		if (!same(match.key, &key, match.mask, &mask, sizeof(key)))
			return "IPV4_ADDRS";
	} else {
		struct flow_dissector_key_ipv6_addrs key = {
			.src = tuple->src_v6,
			.dst = tuple->dst_v6,
		};
		struct flow_dissector_key_ipv6_addrs mask;
		struct flow_match_ipv6_addrs match;

		memset(&mask, 0xff, sizeof(mask));
		flow_rule_match_ipv6_addrs(rule, &match);
		if (!same(match.key, &key, match.mask, &mask, sizeof(key)))
			return "IPV6_ADDRS";
	}
	for (i = 0, num_vlans = 0; i < NF_FLOW_TABLE_ENCAP_MAX && !bad; i++) {
		if (carries_tag(tuple, i)) {
			struct flow_match_vlan match;

			if (num_vlans++)
				flow_rule_match_cvlan(rule, &match);
			else
				flow_rule_match_vlan(rule, &match);
			bad = check_vlan(&match, tuple->encap[i].id,
					 tuple->encap[i].proto);
		}
		if (carries(tuple, i, ETH_P_PPP_SES)) {
			struct flow_dissector_key_pppoe key = {
				.session_id = htons(tuple->encap[i].id),
				.ppp_proto = ipv4 ? htons(PPP_IP) : htons(PPP_IPV6),
				.type = htons(ETH_P_PPP_SES),
			};
			struct flow_dissector_key_pppoe mask;
			struct flow_match_pppoe match;

			memset(&mask, 0xff, sizeof(mask));
			flow_rule_match_pppoe(rule, &match);
			if (!same(match.key, &key, match.mask, &mask, sizeof(key)))
				bad = "PPPOE";
		}
	}
	if (oracle_has_ports(tuple->l4proto)) {
		struct flow_dissector_key_ports key = {
			.src = tuple->src_port,
			.dst = tuple->dst_port,
		};
		struct flow_dissector_key_ports mask = {
			.src = htons(0xffff),
			.dst = htons(0xffff),
		};
		struct flow_match_ports match;

		flow_rule_match_ports(rule, &match);
		if (!same(match.key, &key, match.mask, &mask, sizeof(key)))
			return "PORTS";
	}
	if (tuple->l4proto == IPPROTO_TCP) {
		struct flow_dissector_key_tcp key = {};
		struct flow_dissector_key_tcp mask = {
			.flags = htons((be32_to_cpu(TCP_FLAG_FIN) |
					be32_to_cpu(TCP_FLAG_RST)) >> 16),
		};
		struct flow_match_tcp match;

		flow_rule_match_tcp(rule, &match);
		if (!same(match.key, &key, match.mask, &mask, sizeof(key)))
			return "TCP";
	}

	return bad ?: outer ? check_outer(rule, outer) : NULL;
}

/*
 * C has drivers look into the route. The Rust code gives them a copy, which has to be
 * the same; then its address is replaced by that of the original.
 */
static const char *check_tunnel(struct flow_action_entry *entry,
				const struct flow_offload_tuple *tuple)
{
	const struct ip_tunnel_info *copy = entry->tunnel, *info = ip_tunnel(tuple);

	if (!info || !copy ||
	    memcmp(&copy->key, &info->key, sizeof(info->key)) ||
	    memcmp(&copy->encap, &info->encap, sizeof(info->encap)) ||
	    copy->mode != info->mode || copy->options_len != info->options_len)
		return "tunnel, which is not one,";

	entry->tunnel = (struct ip_tunnel_info *)info;
	return NULL;
}

static void see(const struct flow_rule *rule, void *data)
{
	struct seen *seen = data;

	from_rust.num = min(rule->action.num_entries, ORACLE_ACTIONS);
	memcpy(from_rust.entries, rule->action.entries,
	       from_rust.num * sizeof(from_rust.entries[0]));
	seen->bad_match = check_match(rule, seen->c, seen->dir);
	for (unsigned int i = 0; i < from_rust.num && !seen->bad_match; i++)
		if (from_rust.entries[i].id == FLOW_ACTION_TUNNEL_ENCAP)
			seen->bad_match = check_tunnel(&from_rust.entries[i],
						       tuple_of(seen->c, seen->dir));
}

/* Returns what is wrong with the match of the rule; the actions are in from_rust. */
static const char *translate_rust(const struct oracle_case *c,
				  const struct oracle_world *world,
				  enum flow_offload_tuple_dir dir, bool tc,
				  const char **reason)
{
	struct seen seen = { .c = c, .dir = dir };

	from_rust.num = 0;
	*reason = oracle_translate(world->net, (unsigned long)tuple_of(c, dir),
				   tc, see, &seen);
	return seen.bad_match;
}

static void print_entry(unsigned int i, const struct flow_action_entry *entry)
{
	static const char * const headers[] = {
		"no header", "Ethernet", "IPv4", "IPv6", "TCP", "UDP",
	};

	switch (entry->id) {
	case FLOW_ACTION_MANGLE:
	case FLOW_ACTION_ADD:
		pr_err("  %2u: %s in %s at %u, mask %08x, value %08x\n", i,
		       entry->id == FLOW_ACTION_ADD ? "add" : "mangle",
		       entry->mangle.htype < ARRAY_SIZE(headers) ?
		       headers[entry->mangle.htype] : "?",
		       entry->mangle.offset, entry->mangle.mask, entry->mangle.val);
		break;
	case FLOW_ACTION_VLAN_POP:
		pr_err("  %2u: vlan pop\n", i);
		break;
	case FLOW_ACTION_VLAN_PUSH:
		pr_err("  %2u: vlan push %#06x id %#x\n", i, ntohs(entry->vlan.proto),
		       entry->vlan.vid);
		break;
	case FLOW_ACTION_PPPOE_PUSH:
		pr_err("  %2u: pppoe push %#x\n", i, entry->pppoe.sid);
		break;
	case FLOW_ACTION_CSUM:
		pr_err("  %2u: csum %#x\n", i, entry->csum_flags);
		break;
	case FLOW_ACTION_REDIRECT:
		pr_err("  %2u: redirect to %s\n", i, netdev_name(entry->dev));
		break;
	case FLOW_ACTION_TUNNEL_ENCAP:
		pr_err("  %2u: tunnel encap\n", i);
		break;
	case FLOW_ACTION_TUNNEL_DECAP:
		pr_err("  %2u: tunnel decap\n", i);
		break;
	case FLOW_ACTION_ACCEPT:
		pr_err("  %2u: accept\n", i);
		break;
	default:
		pr_err("  %2u: action %d\n", i, entry->id);
		break;
	}
}

static void print_list(const char *text, const struct oracle_list *list)
{
	pr_err("%s: %u actions\n", text, list->num);
	for (unsigned int i = 0; i < list->num; i++)
		print_entry(i, &list->entries[i]);
}

/* Prints both lists if they differ, and the first byte that does. */
static bool same_lists(const struct oracle_list *a, const char *a_text,
		       const struct oracle_list *b, const char *b_text)
{
	size_t size = sizeof(a->entries[0]);

	if (a->num == b->num && !memcmp(a->entries, b->entries, a->num * size))
		return true;

	print_list(a_text, a);
	print_list(b_text, b);
	for (unsigned int i = 0; i < min(a->num, b->num); i++) {
		const u8 *x = (const u8 *)&a->entries[i];
		const u8 *y = (const u8 *)&b->entries[i];

		for (unsigned int j = 0; j < size; j++) {
			if (x[j] == y[j])
				continue;
			pr_err("first difference: entry %u, byte %u of %zu: %02x and %02x\n",
			       i, j, size, x[j], y[j]);
			return false;
		}
	}
	pr_err("first difference: the number of entries\n");
	return false;
}

static int failed(const struct oracle_case *c, enum flow_offload_tuple_dir dir)
{
	pr_err("DIFFERENCE in the %s direction of this flow\n",
	       dir == FLOW_OFFLOAD_DIR_ORIGINAL ? "original" : "reply");
	oracle_print(c);
	return -EINVAL;
}

/* Is what the Rust code says, @reason, what it should say? */
static bool same_reason(enum oracle_kind kind, const char *reason)
{
	if (reason == reasons[kind] ||
	    (reason && reasons[kind] && !strcmp(reason, reasons[kind])))
		return true;

	pr_err("Rust says \"%s\" where \"%s\" is expected\n",
	       reason ?: "here is a rule", reasons[kind] ?: "here is a rule");
	return false;
}

static bool is_tunneled(const struct oracle_list *list)
{
	return find(list, FLOW_ACTION_TUNNEL_ENCAP) < list->num ||
	       find(list, FLOW_ACTION_TUNNEL_DECAP) < list->num;
}

/* There is a rule, which from_rust has. */
static int judge_rule(const struct oracle_case *c, enum flow_offload_tuple_dir dir,
		      struct oracle_count *count)
{
	bool repaired;

	expected = from_c;
	repaired = repair(&expected, c, dir);
	if (!same_lists(&expected, repaired ? "C, repaired" : "C", &from_rust, "Rust"))
		return failed(c, dir);
	count->matches++;
	count->tunnels += is_tunneled(&from_rust);
	if (repaired)
		count->repaired++;
	else
		count->equal++;
	return 0;
}

/* The same in the dialect of tc, where C makes a rule. */
static int judge_tc(const struct oracle_case *c, const struct oracle_world *world,
		    enum flow_offload_tuple_dir dir, bool alone,
		    struct oracle_count *count)
{
	enum oracle_kind kind = oracle_kind(c, world, dir, true);
	const char *reason, *bad;

	bad = translate_rust(c, world, dir, true, &reason);
	if (bad || !same_reason(kind, reason)) {
		pr_err("in the dialect of tc%s%s\n", bad ? " the match is wrong: " : "",
		       bad ?: "");
		return failed(c, dir);
	}
	if (kind != ORACLE_RULE) {
		count->tc_refused += alone;
		return 0;
	}

	expected = from_c;
	repair(&expected, c, dir);
	as_tc(&expected, c);
	if (!same_lists(&expected, "expected in the dialect of tc",
			&from_rust, "Rust"))
		return failed(c, dir);
	count->tc++;
	count->matches++;
	count->tunnels += is_tunneled(&from_rust);
	return 0;
}

static int judge_difference(const struct oracle_case *c,
			    const struct oracle_world *world,
			    enum flow_offload_tuple_dir dir,
			    enum oracle_kind kind, struct oracle_count *count)
{
	const char *reason, *bad;

	neutral(&similar, c, dir);
	bad = translate_rust(&similar, world, dir, false, &reason);
	if (reason || bad) {
		pr_err("%s: a similar flow is refused: %s\n", oracle_kind_text[kind],
		       reason ?: bad);
		oracle_print(&similar);
		return failed(c, dir);
	}
	expected = from_rust;
	damage(&expected, c, dir);
	if (!same_lists(&from_c, "C", &expected, oracle_kind_text[kind]))
		return failed(c, dir);
	count->differ[kind]++;
	count->matches++;
	return 0;
}

/* Compares one direction of a flow. -EINVAL if something is not as it should be. */
int oracle_judge(const struct oracle_case *c, const struct oracle_world *world,
		 enum flow_offload_tuple_dir dir, struct oracle_count *count)
{
	enum oracle_kind kind = oracle_kind(c, world, dir, false);
	const char *reason, *bad;
	bool refused;
	int err;

	refused = translate_c(c, world, dir, &from_c) < 0;
	if (refused != c_refuses(c, world, dir)) {
		pr_err("C %s this, against expectation\n", refused ? "refuses" : "takes");
		print_list("C", &from_c);
		return failed(c, dir);
	}

	bad = translate_rust(c, world, dir, false, &reason);
	if (bad) {
		pr_err("the key %s of the match is wrong\n", bad);
		return failed(c, dir);
	}
	if (!same_reason(kind, reason)) {
		if (!refused)
			print_list("C", &from_c);
		if (!reason)
			print_list("Rust", &from_rust);
		return failed(c, dir);
	}

	if (refused) {
		if (kind == ORACLE_RULE) {
			pr_err("Rust makes a rule that C refuses\n");
			return failed(c, dir);
		}
		count->refused++;
		return 0;
	}

	if (kind == ORACLE_RULE)
		err = judge_rule(c, dir, count);
	else
		err = judge_difference(c, world, dir, kind, count);
	return err ?: judge_tc(c, world, dir, kind == ORACLE_RULE, count);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * What is to come out of a translation: whether there is a rule, and what the two
 * make differently on purpose.
 */
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tc_act/tc_csum.h>
#include <net/dst.h>
#include <net/ip_tunnels.h>
#include <net/lwtunnel.h>

#include "oracle_judge.h"

static bool has_nat(const struct oracle_case *c)
{
	return c->flow.flags & (BIT(NF_FLOW_SNAT) | BIT(NF_FLOW_DNAT));
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
		if (oracle_carries_tag(this, i)) {
			kind[0] = this->encap[i].proto;
			off++;
		}
		if (oracle_carries_tag(other, i)) {
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
const struct ip_tunnel_info *oracle_tunnel(const struct flow_offload_tuple *tuple)
{
	return lwtunnel_kind(tuple) == ORACLE_RULE ? c_transmits(tuple) : NULL;
}

enum oracle_kind oracle_kind(const struct oracle_case *c,
			     const struct oracle_world *world,
			     enum flow_offload_tuple_dir dir, bool tc)
{
	const struct flow_offload_tuple *this = oracle_tuple(c, dir);
	const struct flow_offload_tuple *other = oracle_tuple(c, !dir);
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
	if (oracle_tunnel(other) && other->xmit_type == FLOW_OFFLOAD_XMIT_XFRM)
		return ORACLE_IPSEC;

	if (!oracle_has_ports(this->l4proto) && this->l4proto != IPPROTO_GRE)
		return ORACLE_PROTOCOL;

	for (i = 0; i < NF_FLOW_TABLE_ENCAP_MAX; i++) {
		if (oracle_carries_tag(this, i) && pppoe)
			return ORACLE_IN_PPPOE;
		if (oracle_carries(this, i, ETH_P_8021AD) && !tc)
			return ORACLE_AD_INGRESS;
		if (oracle_carries(this, i, ETH_P_PPP_SES)) {
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
bool oracle_c_refuses(const struct oracle_case *c, const struct oracle_world *world,
		      enum flow_offload_tuple_dir dir)
{
	const struct flow_offload_tuple *this = oracle_tuple(c, dir);

	switch (this->xmit_type) {
	case FLOW_OFFLOAD_XMIT_DIRECT:
		return !oracle_has_device(world, this->out.ifidx);
	case FLOW_OFFLOAD_XMIT_NEIGH:
		return !c->hop[dir]->resolved ||
		       !oracle_has_device(world, oracle_tuple(c, !dir)->iifidx);
	default:
		return true;
	}
}

/* Has oracle_neutral() to take away the lightweight tunnel of @tuple? */
static bool takes_tunnel(const struct flow_offload_tuple *tuple)
{
	return lwtunnel_kind(tuple) != ORACLE_RULE ||
	       tuple->xmit_type == FLOW_OFFLOAD_XMIT_XFRM;
}

/* A flow like @c for which there is a rule. */
void oracle_neutral(struct oracle_case *to, const struct oracle_case *c,
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
			if (oracle_carries(tuple, i, ETH_P_8021AD))
				tuple->encap[i].proto = htons(ETH_P_8021Q);
	}

	tuple = &to->flow.tuplehash[dir].tuple;
	if (oracle_carries(tuple, 0, ETH_P_PPP_SES) && oracle_carries(tuple, 1, ETH_P_8021Q))
		swap(tuple->encap[0], tuple->encap[1]);
	if (oracle_carries(tuple, 0, ETH_P_PPP_SES) && oracle_carries(tuple, 1, ETH_P_PPP_SES))
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

unsigned int oracle_find(const struct oracle_list *list, enum flow_action_id id)
{
	unsigned int i;

	for (i = 0; i < list->num; i++)
		if (list->entries[i].id == id)
			break;
	return i;
}

/* Makes of the list for oracle_neutral(@c) what C makes of @c. */
void oracle_damage(struct oracle_list *list, const struct oracle_case *c,
		   enum flow_offload_tuple_dir dir)
{
	const struct flow_offload_tuple *this = oracle_tuple(c, dir);
	const struct flow_offload_tuple *other = oracle_tuple(c, !dir);
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
		if (oracle_carries(other, i, ETH_P_8021AD)) {
			at = oracle_find(list, FLOW_ACTION_VLAN_PUSH);
			/* Of two tags, the first may be one of 802.1Q. */
			if (i == 1 && oracle_carries(other, 0, ETH_P_8021Q))
				at++;
			remove(list, at);
			insert(list, at, FLOW_ACTION_ACCEPT);
		}
	}
	/* It is not taken off. */
	for (i = 0; i < NF_FLOW_TABLE_ENCAP_MAX; i++)
		if (oracle_carries(this, i, ETH_P_8021AD))
			remove(list, oracle_find(list, FLOW_ACTION_VLAN_POP));

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
bool oracle_repair(struct oracle_list *list, const struct oracle_case *c,
		   enum flow_offload_tuple_dir dir)
{
	const struct flow_offload_tuple *this = oracle_tuple(c, dir);
	const struct flow_offload_tuple *other = oracle_tuple(c, !dir);
	unsigned int at, i, tags = 0;
	bool repaired = false;

	/* After the addresses of the frame, which are the first four rewrites. */
	at = oracle_find(list, FLOW_ACTION_MANGLE) + 4;
	for (i = 0; i < NF_FLOW_TABLE_ENCAP_MAX; i++) {
		if (oracle_carries(this, i, ETH_P_8021AD)) {
			insert(list, at, FLOW_ACTION_VLAN_POP);
			repaired = true;
		}
	}

	for (at = 0; at < list->num; at++) {
		struct flow_action_entry *entry = &list->entries[at];

		if (!is_tag_push(entry))
			continue;
		for (i = 0; i < NF_FLOW_TABLE_ENCAP_MAX; i++)
			if (oracle_carries_tag(other, i) && i >= tags)
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
void oracle_as_tc(struct oracle_list *list, const struct oracle_case *c)
{
	bool ipv4 = oracle_tuple(c, 0)->l3proto == AF_INET;
	unsigned int at = oracle_find(list, FLOW_ACTION_REDIRECT);
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
		at = oracle_find(list, FLOW_ACTION_CSUM);
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

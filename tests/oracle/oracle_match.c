// SPDX-License-Identifier: GPL-2.0
/* Whether the match of a rule is what the flow says. */
#include <linux/etherdevice.h>
#include <linux/if_vlan.h>
#include <linux/ppp_defs.h>
#include <linux/tcp.h>
#include <net/ip_tunnels.h>

#include "oracle_judge.h"

/* All that is ever matched: keys, or their masks. */
struct keys {
	struct flow_dissector_key_meta		meta;
	struct flow_dissector_key_eth_addrs	eth;
	struct flow_dissector_key_control	control;
	struct flow_dissector_key_basic		basic;
	struct flow_dissector_key_ipv4_addrs	ipv4;
	struct flow_dissector_key_ipv6_addrs	ipv6;
	struct flow_dissector_key_vlan		vlan;
	struct flow_dissector_key_vlan		cvlan;
	struct flow_dissector_key_pppoe		pppoe;
	struct flow_dissector_key_ports		ports;
	struct flow_dissector_key_tcp		tcp;
	struct flow_dissector_key_control	enc_control;
	struct flow_dissector_key_keyid		enc_keyid;
	struct flow_dissector_key_ipv4_addrs	enc_ipv4;
	struct flow_dissector_key_ipv6_addrs	enc_ipv6;
};

static const struct {
	enum flow_dissector_key_id	id;
	const char			*name;
	size_t				offset;
	size_t				size;
} all_keys[] = {
	{ FLOW_DISSECTOR_KEY_META, "META", offsetof(struct keys, meta),
	  sizeof_field(struct keys, meta) },
	{ FLOW_DISSECTOR_KEY_ETH_ADDRS, "ETH_ADDRS", offsetof(struct keys, eth),
	  sizeof_field(struct keys, eth) },
	{ FLOW_DISSECTOR_KEY_CONTROL, "CONTROL", offsetof(struct keys, control),
	  sizeof_field(struct keys, control) },
	{ FLOW_DISSECTOR_KEY_BASIC, "BASIC", offsetof(struct keys, basic),
	  sizeof_field(struct keys, basic) },
	{ FLOW_DISSECTOR_KEY_IPV4_ADDRS, "IPV4_ADDRS", offsetof(struct keys, ipv4),
	  sizeof_field(struct keys, ipv4) },
	{ FLOW_DISSECTOR_KEY_IPV6_ADDRS, "IPV6_ADDRS", offsetof(struct keys, ipv6),
	  sizeof_field(struct keys, ipv6) },
	{ FLOW_DISSECTOR_KEY_VLAN, "VLAN", offsetof(struct keys, vlan),
	  sizeof_field(struct keys, vlan) },
	{ FLOW_DISSECTOR_KEY_CVLAN, "CVLAN", offsetof(struct keys, cvlan),
	  sizeof_field(struct keys, cvlan) },
	{ FLOW_DISSECTOR_KEY_PPPOE, "PPPOE", offsetof(struct keys, pppoe),
	  sizeof_field(struct keys, pppoe) },
	{ FLOW_DISSECTOR_KEY_PORTS, "PORTS", offsetof(struct keys, ports),
	  sizeof_field(struct keys, ports) },
	{ FLOW_DISSECTOR_KEY_TCP, "TCP", offsetof(struct keys, tcp),
	  sizeof_field(struct keys, tcp) },
	{ FLOW_DISSECTOR_KEY_ENC_CONTROL, "ENC_CONTROL", offsetof(struct keys, enc_control),
	  sizeof_field(struct keys, enc_control) },
	{ FLOW_DISSECTOR_KEY_ENC_KEYID, "ENC_KEYID", offsetof(struct keys, enc_keyid),
	  sizeof_field(struct keys, enc_keyid) },
	{ FLOW_DISSECTOR_KEY_ENC_IPV4_ADDRS, "ENC_IPV4_ADDRS", offsetof(struct keys, enc_ipv4),
	  sizeof_field(struct keys, enc_ipv4) },
	{ FLOW_DISSECTOR_KEY_ENC_IPV6_ADDRS, "ENC_IPV6_ADDRS", offsetof(struct keys, enc_ipv6),
	  sizeof_field(struct keys, enc_ipv6) },
};

/* What a match is to be. */
struct expectation {
	u64		used_keys;
	struct keys	key;
	struct keys	mask;
};

static void use(struct expectation *to, enum flow_dissector_key_id id)
{
	to->used_keys |= BIT_ULL(id);
}

/*
 * The address from which packets of the other direction leave is the one that frames
 * come to: in the dialect of tc, and where no tunnel is taken off.
 */
static void expect_dest(struct expectation *to, const struct oracle_case *c,
			const struct oracle_world *world,
			enum flow_offload_tuple_dir dir)
{
	const struct flow_offload_tuple *other = oracle_tuple(c, !dir);
	struct net_device *dev;

	if (oracle_tunnel(other))
		return;
	guard(rcu)();
	if (other->xmit_type == FLOW_OFFLOAD_XMIT_DIRECT) {
		ether_addr_copy(to->key.eth.dst, other->out.h_source);
	} else if (other->xmit_type == FLOW_OFFLOAD_XMIT_NEIGH && c->hop[!dir]->resolved) {
		dev = dev_get_by_index_rcu(world->net, oracle_tuple(c, dir)->iifidx);
		if (!dev)
			return;
		ether_addr_copy(to->key.eth.dst, dev->dev_addr);
	} else {
		return;
	}
	use(to, FLOW_DISSECTOR_KEY_ETH_ADDRS);
	eth_broadcast_addr(to->mask.eth.dst);
}

static void expect_addresses(struct expectation *to,
			     const struct flow_offload_tuple *tuple)
{
	bool ipv4 = tuple->l3proto == AF_INET;

	if (ipv4) {
		use(to, FLOW_DISSECTOR_KEY_IPV4_ADDRS);
		to->key.ipv4.src = tuple->src_v4.s_addr;
		to->key.ipv4.dst = tuple->dst_v4.s_addr;
		memset(&to->mask.ipv4, 0xff, sizeof(to->mask.ipv4));
	} else {
		use(to, FLOW_DISSECTOR_KEY_IPV6_ADDRS);
		to->key.ipv6.src = tuple->src_v6;
		to->key.ipv6.dst = tuple->dst_v6;
		memset(&to->mask.ipv6, 0xff, sizeof(to->mask.ipv6));
	}
	use(to, FLOW_DISSECTOR_KEY_CONTROL);
	to->key.control.addr_type = ipv4 ? FLOW_DISSECTOR_KEY_IPV4_ADDRS :
					   FLOW_DISSECTOR_KEY_IPV6_ADDRS;
	to->mask.control.addr_type = 0xffff;
	use(to, FLOW_DISSECTOR_KEY_BASIC);
	to->key.basic.n_proto = ipv4 ? htons(ETH_P_IP) : htons(ETH_P_IPV6);
	to->mask.basic.n_proto = htons(0xffff);
	to->key.basic.ip_proto = tuple->l4proto;
	to->mask.basic.ip_proto = 0xff;
}

static void expect_encaps(struct expectation *to,
			  const struct flow_offload_tuple *tuple)
{
	struct flow_dissector_key_vlan *key = &to->key.vlan;
	struct flow_dissector_key_vlan *mask = &to->mask.vlan;
	unsigned int i;

	for (i = 0; i < NF_FLOW_TABLE_ENCAP_MAX; i++) {
		if (oracle_carries_tag(tuple, i)) {
			use(to, key == &to->key.vlan ? FLOW_DISSECTOR_KEY_VLAN :
						       FLOW_DISSECTOR_KEY_CVLAN);
			key->vlan_id = tuple->encap[i].id;
			key->vlan_tpid = tuple->encap[i].proto;
			mask->vlan_id = VLAN_VID_MASK;
			mask->vlan_tpid = htons(0xffff);
			key = &to->key.cvlan;
			mask = &to->mask.cvlan;
		}
		if (oracle_carries(tuple, i, ETH_P_PPP_SES)) {
			use(to, FLOW_DISSECTOR_KEY_PPPOE);
			to->key.pppoe.session_id = htons(tuple->encap[i].id);
			to->key.pppoe.ppp_proto = tuple->l3proto == AF_INET ?
						  htons(PPP_IP) : htons(PPP_IPV6);
			to->key.pppoe.type = htons(ETH_P_PPP_SES);
			memset(&to->mask.pppoe, 0xff, sizeof(to->mask.pppoe));
		}
	}
}

static void expect_l4(struct expectation *to, const struct flow_offload_tuple *tuple)
{
	if (oracle_has_ports(tuple->l4proto)) {
		use(to, FLOW_DISSECTOR_KEY_PORTS);
		to->key.ports.src = tuple->src_port;
		to->key.ports.dst = tuple->dst_port;
		to->mask.ports.src = htons(0xffff);
		to->mask.ports.dst = htons(0xffff);
	}
	if (tuple->l4proto == IPPROTO_TCP) {
		use(to, FLOW_DISSECTOR_KEY_TCP);
		to->mask.tcp.flags = htons((be32_to_cpu(TCP_FLAG_FIN) |
					    be32_to_cpu(TCP_FLAG_RST)) >> 16);
	}
}

/* The outer header of what comes in, if packets the other way leave through @info. */
static void expect_outer(struct expectation *to, const struct ip_tunnel_info *info)
{
	bool ipv6 = info->mode & IP_TUNNEL_INFO_IPV6;

	if (ipv6) {
		struct flow_dissector_key_ipv6_addrs *key = &to->key.enc_ipv6;
		struct flow_dissector_key_ipv6_addrs *mask = &to->mask.enc_ipv6;

		use(to, FLOW_DISSECTOR_KEY_ENC_IPV6_ADDRS);
		key->src = info->key.u.ipv6.dst;
		key->dst = info->key.u.ipv6.src;
		if (!ipv6_addr_any(&key->src))
			memset(&mask->src, 0xff, sizeof(mask->src));
		if (!ipv6_addr_any(&key->dst))
			memset(&mask->dst, 0xff, sizeof(mask->dst));
	} else {
		use(to, FLOW_DISSECTOR_KEY_ENC_IPV4_ADDRS);
		to->key.enc_ipv4.src = info->key.u.ipv4.dst;
		to->key.enc_ipv4.dst = info->key.u.ipv4.src;
		to->mask.enc_ipv4.src = to->key.enc_ipv4.src ? htonl(0xffffffff) : 0;
		to->mask.enc_ipv4.dst = to->key.enc_ipv4.dst ? htonl(0xffffffff) : 0;
	}
	use(to, FLOW_DISSECTOR_KEY_ENC_CONTROL);
	to->key.enc_control.addr_type = ipv6 ? FLOW_DISSECTOR_KEY_IPV6_ADDRS :
					       FLOW_DISSECTOR_KEY_IPV4_ADDRS;
	to->mask.enc_control.addr_type = 0xffff;
	use(to, FLOW_DISSECTOR_KEY_ENC_KEYID);
	to->key.enc_keyid.keyid = cpu_to_be32(be64_to_cpu(info->key.tun_id));
	to->mask.enc_keyid.keyid = htonl(0xffffffff);
}

/* Which key of @rule is not what the flow says, if any. */
const char *oracle_check_match(const struct flow_rule *rule,
			       const struct oracle_case *c,
			       const struct oracle_world *world,
			       enum flow_offload_tuple_dir dir, bool tc)
{
	const struct ip_tunnel_info *outer = oracle_tunnel(oracle_tuple(c, !dir));
	const struct flow_offload_tuple *tuple = oracle_tuple(c, dir);
	struct flow_dissector *dissector = rule->match.dissector;
	/* Init functions run one at a time. */
	static struct expectation expected;
	unsigned int i;

	memset(&expected, 0, sizeof(expected));
	use(&expected, FLOW_DISSECTOR_KEY_META);
	expected.key.meta.ingress_ifindex = tuple->iifidx;
	expected.mask.meta.ingress_ifindex = 0xffffffff;
	if (tc)
		expect_dest(&expected, c, world, dir);
	expect_addresses(&expected, tuple);
	expect_encaps(&expected, tuple);
	expect_l4(&expected, tuple);
	if (outer)
		expect_outer(&expected, outer);
	if (dissector->used_keys != expected.used_keys)
		return "used_keys";

	for (i = 0; i < ARRAY_SIZE(all_keys); i++) {
		enum flow_dissector_key_id id = all_keys[i].id;
		const void *key = (const u8 *)&expected.key + all_keys[i].offset;
		const void *mask = (const u8 *)&expected.mask + all_keys[i].offset;

		if (!dissector_uses_key(dissector, id))
			continue;
		if (memcmp(skb_flow_dissector_target(dissector, id, rule->match.key),
			   key, all_keys[i].size) ||
		    memcmp(skb_flow_dissector_target(dissector, id, rule->match.mask),
			   mask, all_keys[i].size))
			return all_keys[i].name;
	}
	return NULL;
}

/*
 * C has drivers look into the route. The Rust code gives them a copy, which has to be
 * the same; then its address is replaced by that of the original.
 */
const char *oracle_check_tunnel(struct flow_action_entry *entry,
				const struct flow_offload_tuple *tuple)
{
	const struct ip_tunnel_info *copy = entry->tunnel, *info = oracle_tunnel(tuple);

	if (!info || !copy ||
	    memcmp(&copy->key, &info->key, sizeof(info->key)) ||
	    memcmp(&copy->encap, &info->encap, sizeof(info->encap)) ||
	    copy->mode != info->mode || copy->options_len != info->options_len)
		return "tunnel, which is not one,";

	entry->tunnel = (struct ip_tunnel_info *)info;
	return NULL;
}

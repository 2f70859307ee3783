// SPDX-License-Identifier: GPL-2.0
/* emunic: compiles a flow_rule into a key and a program, or says why not. */
#include <linux/etherdevice.h>
#include <linux/if_vlan.h>
#include <linux/string.h>
#include <linux/tc_act/tc_csum.h>
#include <linux/tcp.h>
#include <net/pkt_cls.h>

#include "emunic.h"

#define EMUNIC_KEYS						\
	(BIT_ULL(FLOW_DISSECTOR_KEY_META) |			\
	 BIT_ULL(FLOW_DISSECTOR_KEY_CONTROL) |			\
	 BIT_ULL(FLOW_DISSECTOR_KEY_BASIC) |			\
	 BIT_ULL(FLOW_DISSECTOR_KEY_VLAN) |			\
	 BIT_ULL(FLOW_DISSECTOR_KEY_CVLAN) |			\
	 BIT_ULL(FLOW_DISSECTOR_KEY_IPV4_ADDRS) |		\
	 BIT_ULL(FLOW_DISSECTOR_KEY_IPV6_ADDRS) |		\
	 BIT_ULL(FLOW_DISSECTOR_KEY_PORTS) |			\
	 BIT_ULL(FLOW_DISSECTOR_KEY_TCP))

#define EMUNIC_MAX_PRIO	16	/* with prio_range; FT counts from 0 */

#define EMUNIC_TCP_EXC	(be32_to_cpu(TCP_FLAG_FIN | TCP_FLAG_SYN | \
				     TCP_FLAG_RST) >> 16)

static bool emunic_is_port_dev(struct emunic_port *port, int ifindex)
{
	struct net_device *nic;
	bool is;

	rcu_read_lock();
	nic = rcu_dereference(port->nic);
	is = nic && nic->ifindex == ifindex;
	rcu_read_unlock();
	return is;
}

static int emunic_match_ingress(struct emunic_port *port,
				const struct emunic_indr *indr,
				const struct flow_rule *rule,
				struct netlink_ext_ack *extack,
				struct emunic_key *key)
{
	struct flow_match_meta meta;
	unsigned int i;
	bool own;

	key->port = port->index;
	if (!flow_rule_match_key(rule, FLOW_DISSECTOR_KEY_META)) {
		if (!emunic_accepts(EMUNIC_NEED_META))
			return 0;
		NL_SET_ERR_MSG_MOD(extack, "ingress_ifindex is needed");
		return -EOPNOTSUPP;
	}
	flow_rule_match_meta(rule, &meta);
	if (meta.mask->ingress_iftype || meta.mask->l2_miss) {
		NL_SET_ERR_MSG_MOD(extack, "meta: only ingress_ifindex");
		return -EOPNOTSUPP;
	}
	if (!meta.mask->ingress_ifindex)
		return 0;
	if (meta.mask->ingress_ifindex != ~0) {
		NL_SET_ERR_MSG_MOD(extack, "ingress_ifindex: mask not exact");
		return -EOPNOTSUPP;
	}
	own = indr ? emunic_indr_is_dev(indr, meta.key->ingress_ifindex) :
		     emunic_is_port_dev(port, meta.key->ingress_ifindex);
	if (own)
		return 0;
	if (!indr && emunic_accepts(EMUNIC_ANY_PORT)) {
		for (i = 0; i < emunic.num_ports; i++) {
			if (!emunic_is_port_dev(&emunic.port[i],
						meta.key->ingress_ifindex))
				continue;
			key->port = i;
			return emunic.port[i].present ? 0 : -ENODEV;
		}
	}
	NL_SET_ERR_MSG_MOD(extack, "ingress_ifindex is not this device");
	return -EOPNOTSUPP;
}

static bool emunic_tpid_ok(__be16 tpid)
{
	return tpid == htons(ETH_P_8021Q) ||
	       (tpid == htons(ETH_P_8021AD) && emunic_accepts(EMUNIC_8021AD));
}

static bool emunic_match_tpid_ok(__be16 tpid)
{
	return emunic_tpid_ok(tpid) ||
	       (tpid == htons(ETH_P_8021AD) && emunic_accepts(EMUNIC_ANY_KEY));
}

static int emunic_match_tag(const struct flow_match_vlan *vlan,
			    struct netlink_ext_ack *extack,
			    struct emunic_key *key)
{
	struct emunic_tag *tag;

	if (key->num_tags == EMUNIC_MAX_TAGS) {
		NL_SET_ERR_MSG_MOD(extack, "vlan: more than two tags");
		return -EOPNOTSUPP;
	}
	tag = &key->tag[key->num_tags++];
	if (vlan->mask->vlan_id != VLAN_VID_MASK ||
	    vlan->mask->vlan_tpid != htons(0xffff) ||
	    vlan->mask->vlan_dei || vlan->mask->vlan_priority) {
		NL_SET_ERR_MSG_MOD(extack, "vlan: exactly id and tpid");
		return -EOPNOTSUPP;
	}
	if (!emunic_match_tpid_ok(vlan->key->vlan_tpid)) {
		NL_SET_ERR_MSG_FMT_MOD(extack, "vlan: tpid %#x not supported",
				       ntohs(vlan->key->vlan_tpid));
		return -EOPNOTSUPP;
	}
	tag->tpid = vlan->key->vlan_tpid;
	tag->tci = vlan->key->vlan_id;
	return 0;
}

/* Those of the VLAN device: frames have them still when they arrive here. */
static int emunic_match_dev_tags(const struct emunic_indr *indr,
				 struct netlink_ext_ack *extack,
				 struct emunic_key *key)
{
	const struct emunic_vlan *vlan = emunic_indr_vlan(indr);
	unsigned int i;

	for (i = 0; i < vlan->num_tags; i++) {
		if (!emunic_match_tpid_ok(vlan->tag[i].tpid)) {
			NL_SET_ERR_MSG_MOD(extack, "tpid of the device");
			return -EOPNOTSUPP;
		}
		key->tag[key->num_tags++] = vlan->tag[i];
	}
	return 0;
}

static int emunic_match_l2(const struct flow_rule *rule,
			   struct netlink_ext_ack *extack,
			   struct emunic_key *key)
{
	struct flow_match_eth_addrs eth;
	struct flow_match_pppoe pppoe;
	struct flow_match_vlan vlan;
	int err = 0;

	if (flow_rule_match_key(rule, FLOW_DISSECTOR_KEY_ETH_ADDRS) &&
	    emunic_accepts(EMUNIC_DMAC_MATCH)) {
		flow_rule_match_eth_addrs(rule, &eth);
		if (!is_broadcast_ether_addr(eth.mask->dst) ||
		    !is_zero_ether_addr(eth.mask->src) ||
		    !is_valid_ether_addr(eth.key->dst)) {
			NL_SET_ERR_MSG_MOD(extack, "eth: exactly the destination");
			return -EOPNOTSUPP;
		}
		ether_addr_copy(key->dmac, eth.key->dst);
	}
	if (flow_rule_match_key(rule, FLOW_DISSECTOR_KEY_VLAN)) {
		flow_rule_match_vlan(rule, &vlan);
		err = emunic_match_tag(&vlan, extack, key);
	}
	if (!err && flow_rule_match_key(rule, FLOW_DISSECTOR_KEY_CVLAN)) {
		if (!flow_rule_match_key(rule, FLOW_DISSECTOR_KEY_VLAN)) {
			NL_SET_ERR_MSG_MOD(extack, "cvlan without vlan");
			return -EOPNOTSUPP;
		}
		flow_rule_match_cvlan(rule, &vlan);
		err = emunic_match_tag(&vlan, extack, key);
	}
	if (!err && flow_rule_match_key(rule, FLOW_DISSECTOR_KEY_PPPOE)) {
		flow_rule_match_pppoe(rule, &pppoe);
		if (pppoe.mask->session_id != htons(0xffff)) {
			NL_SET_ERR_MSG_MOD(extack, "pppoe: mask not exact");
			return -EOPNOTSUPP;
		}
		key->pppoe = 1;
		key->pppoe_sid = ntohs(pppoe.key->session_id);
	}
	return err;
}

static int emunic_match_addrs(const struct flow_rule *rule, u16 addr_type,
			      struct netlink_ext_ack *extack,
			      struct emunic_key *key)
{
	struct flow_match_ipv4_addrs v4;
	struct flow_match_ipv6_addrs v6;

	if (key->n_proto == htons(ETH_P_IP) &&
	    addr_type == FLOW_DISSECTOR_KEY_IPV4_ADDRS &&
	    flow_rule_match_key(rule, FLOW_DISSECTOR_KEY_IPV4_ADDRS)) {
		flow_rule_match_ipv4_addrs(rule, &v4);
		if (v4.mask->src != htonl(~0) || v4.mask->dst != htonl(~0))
			goto not_exact;
		key->src.s6_addr32[0] = v4.key->src;
		key->dst.s6_addr32[0] = v4.key->dst;
		return 0;
	}
	if (key->n_proto == htons(ETH_P_IPV6) &&
	    addr_type == FLOW_DISSECTOR_KEY_IPV6_ADDRS &&
	    flow_rule_match_key(rule, FLOW_DISSECTOR_KEY_IPV6_ADDRS)) {
		flow_rule_match_ipv6_addrs(rule, &v6);
		if (memchr_inv(&v6.mask->src, 0xff, sizeof(v6.mask->src)) ||
		    memchr_inv(&v6.mask->dst, 0xff, sizeof(v6.mask->dst)))
			goto not_exact;
		key->src = v6.key->src;
		key->dst = v6.key->dst;
		return 0;
	}
	NL_SET_ERR_MSG_MOD(extack, "IPv4 or IPv6 with addresses is needed");
	return -EOPNOTSUPP;

not_exact:
	NL_SET_ERR_MSG_MOD(extack, "addresses: mask not exact");
	return -EOPNOTSUPP;
}

static int emunic_match_l4(const struct flow_rule *rule,
			   struct netlink_ext_ack *extack,
			   struct emunic_key *key)
{
	bool has_ports = flow_rule_match_key(rule, FLOW_DISSECTOR_KEY_PORTS);
	bool has_tcp = flow_rule_match_key(rule, FLOW_DISSECTOR_KEY_TCP);
	struct flow_match_ports ports;
	struct flow_match_tcp tcp;

	if (has_ports && emunic_accepts(EMUNIC_L4_ONLY) &&
	    key->l4proto != IPPROTO_TCP && key->l4proto != IPPROTO_UDP) {
		NL_SET_ERR_MSG_MOD(extack, "ports are for TCP and UDP only");
		return -EINVAL;
	}

	switch (key->l4proto) {
	case IPPROTO_GRE:
		if (has_ports || has_tcp || !emunic_accepts(EMUNIC_GRE)) {
			NL_SET_ERR_MSG_MOD(extack, "GRE not supported");
			return -EOPNOTSUPP;
		}
		return 0;
	case IPPROTO_TCP:
	case IPPROTO_UDP:
		break;
	default:
		NL_SET_ERR_MSG_FMT_MOD(extack, "protocol %u not supported",
				       key->l4proto);
		return -EOPNOTSUPP;
	}

	if (!has_ports) {
		NL_SET_ERR_MSG_MOD(extack, "ports are needed");
		return -EOPNOTSUPP;
	}
	flow_rule_match_ports(rule, &ports);
	if (ports.mask->src != htons(0xffff) ||
	    ports.mask->dst != htons(0xffff)) {
		NL_SET_ERR_MSG_MOD(extack, "ports: mask not exact");
		return -EOPNOTSUPP;
	}
	key->sport = ports.key->src;
	key->dport = ports.key->dst;

	if (!has_tcp)
		return 0;
	flow_rule_match_tcp(rule, &tcp);
	/* FIN, SYN and RST go to the CPU anyway: may be matched as unset */
	if (key->l4proto != IPPROTO_TCP ||
	    tcp.key->flags & tcp.mask->flags ||
	    ntohs(tcp.mask->flags) & ~EMUNIC_TCP_EXC) {
		NL_SET_ERR_MSG_MOD(extack, "tcp flags not supported");
		return -EOPNOTSUPP;
	}
	return 0;
}

static int emunic_parse_match(struct emunic_port *port,
			      const struct emunic_indr *indr,
			      const struct flow_rule *rule,
			      struct netlink_ext_ack *extack,
			      struct emunic_key *key)
{
	u64 keys = EMUNIC_KEYS;
	struct flow_match_control control;
	struct flow_match_basic basic;
	u64 unknown;
	int err;

	if (emunic_accepts(EMUNIC_PPPOE_MATCH))
		keys |= BIT_ULL(FLOW_DISSECTOR_KEY_PPPOE);
	if (emunic_accepts(EMUNIC_DMAC_MATCH))
		keys |= BIT_ULL(FLOW_DISSECTOR_KEY_ETH_ADDRS);
	unknown = rule->match.dissector->used_keys & ~keys;
	if (unknown && !emunic_accepts(EMUNIC_ANY_KEY)) {
		NL_SET_ERR_MSG_FMT_MOD(extack, "match keys %#llx not supported",
				       unknown);
		return -EOPNOTSUPP;
	}
	if (!flow_rule_match_key(rule, FLOW_DISSECTOR_KEY_CONTROL) ||
	    !flow_rule_match_key(rule, FLOW_DISSECTOR_KEY_BASIC)) {
		NL_SET_ERR_MSG_MOD(extack, "control and basic are needed");
		return -EOPNOTSUPP;
	}
	if (flow_rule_match_has_control_flags(rule, extack))
		return -EOPNOTSUPP;
	flow_rule_match_control(rule, &control);
	flow_rule_match_basic(rule, &basic);
	if (basic.mask->n_proto != htons(0xffff) ||
	    basic.mask->ip_proto != 0xff) {
		NL_SET_ERR_MSG_MOD(extack, "basic: mask not exact");
		return -EOPNOTSUPP;
	}
	key->n_proto = basic.key->n_proto;
	key->l4proto = basic.key->ip_proto;

	err = emunic_match_ingress(port, indr, rule, extack, key);
	if (!err && indr)
		err = emunic_match_dev_tags(indr, extack, key);
	if (err)
		return err;
	err = emunic_match_l2(rule, extack, key);
	if (err)
		return err;
	err = emunic_match_addrs(rule, control.key->addr_type, extack, key);
	if (err)
		return err;
	return emunic_match_l4(rule, extack, key);
}

/* Bytes of a word that a mangle rewrites; its mask names the bits kept. */
static u32 emunic_written(const struct flow_action_entry *act)
{
	return ~act->mangle.mask;
}

static int emunic_mangle_eth(const struct flow_action_entry *act,
			     struct emunic_prog *prog, u16 *eth_bytes)
{
	u32 written = emunic_written(act);
	const u8 *val = (const u8 *)&act->mangle.val;
	const u8 *wr = (const u8 *)&written;
	u32 off = act->mangle.offset;
	int i;

	if (off % 4 || off + 4 > sizeof(prog->eth))
		return -EOPNOTSUPP;
	for (i = 0; i < 4; i++) {
		if (!wr[i])
			continue;
		if (wr[i] != 0xff || *eth_bytes & BIT(off + i))
			return -EOPNOTSUPP;
		prog->eth[off + i] = val[i];
		*eth_bytes |= BIT(off + i);
	}
	return 0;
}

/* Word of an address: all of it, once. */
static int emunic_mangle_addr(const struct flow_action_entry *act,
			      struct in6_addr *addr, u8 *words, int word)
{
	if (act->mangle.mask || *words & BIT(word))
		return -EOPNOTSUPP;
	addr->s6_addr32[word] = (__force __be32)act->mangle.val;
	*words |= BIT(word);
	return 0;
}

/*
 * TTL and hop limit: one byte of the word at 8 (IPv4) or 4 (IPv6). Only where
 * the hardware decrements as told rather than by itself.
 */
static int emunic_mangle_ttl(const struct flow_action_entry *act,
			     struct emunic_prog *prog, int byte)
{
	u32 written = emunic_written(act);
	const u8 *val = (const u8 *)&act->mangle.val;
	u8 wr[4] = {};

	wr[byte] = 0xff;
	if (!emunic_accepts(EMUNIC_TTL_ADD) || memcmp(wr, &written, 4) ||
	    prog->ttl_mode != EMUNIC_TTL_KEEP)
		return -EOPNOTSUPP;
	if (act->id == FLOW_ACTION_ADD) {
		if (val[byte] != 0xff)
			return -EOPNOTSUPP;
		prog->ttl_mode = EMUNIC_TTL_DEC;
	} else {
		prog->ttl_mode = EMUNIC_TTL_SET;
		prog->ttl = val[byte];
	}
	return 0;
}

static int emunic_mangle_ports(const struct flow_action_entry *act,
			       struct emunic_prog *prog)
{
	u32 written = emunic_written(act);
	u16 wr[2];
	__be16 val[2];

	memcpy(wr, &written, sizeof(wr));
	memcpy(val, &act->mangle.val, sizeof(val));
	if (act->mangle.offset ||
	    (wr[0] && (wr[0] != 0xffff || prog->set_sport)) ||
	    (wr[1] && (wr[1] != 0xffff || prog->set_dport)))
		return -EOPNOTSUPP;
	if (wr[0]) {
		prog->set_sport = true;
		prog->sport = val[0];
	}
	if (wr[1]) {
		prog->set_dport = true;
		prog->dport = val[1];
	}
	return 0;
}

static int emunic_mangle_ip(const struct flow_action_entry *act,
			    const struct emunic_key *key,
			    struct emunic_prog *prog)
{
	bool v6 = act->mangle.htype == FLOW_ACT_MANGLE_HDR_TYPE_IP6;
	u32 off = act->mangle.offset;

	if (key->n_proto != (v6 ? htons(ETH_P_IPV6) : htons(ETH_P_IP)))
		return -EOPNOTSUPP;
	if (off == (v6 ? 4 : 8))
		return emunic_mangle_ttl(act, prog, v6 ? 3 : 0);
	if (emunic_accepts(EMUNIC_L4_ONLY) && key->l4proto != IPPROTO_TCP &&
	    key->l4proto != IPPROTO_UDP)
		return -EOPNOTSUPP;
	if (act->id != FLOW_ACTION_MANGLE)
		return -EOPNOTSUPP;
	if (!v6 && off == 12)
		return emunic_mangle_addr(act, &prog->src, &prog->src_words, 0);
	if (!v6 && off == 16)
		return emunic_mangle_addr(act, &prog->dst, &prog->dst_words, 0);
	if (!v6 || off % 4 || off < 8 || off >= 40 ||
	    !emunic_accepts(EMUNIC_V6_MANGLE))
		return -EOPNOTSUPP;
	if (off < 24)
		return emunic_mangle_addr(act, &prog->src, &prog->src_words,
					  (off - 8) / 4);
	return emunic_mangle_addr(act, &prog->dst, &prog->dst_words,
				  (off - 24) / 4);
}

static int emunic_act_mangle(const struct flow_action_entry *act,
			     const struct emunic_key *key,
			     struct netlink_ext_ack *extack,
			     struct emunic_prog *prog, u16 *eth_bytes)
{
	bool mangle = act->id == FLOW_ACTION_MANGLE;
	int err = -EOPNOTSUPP;

	switch (act->mangle.htype) {
	case FLOW_ACT_MANGLE_HDR_TYPE_ETH:
		if (mangle)
			err = emunic_mangle_eth(act, prog, eth_bytes);
		break;
	case FLOW_ACT_MANGLE_HDR_TYPE_IP4:
	case FLOW_ACT_MANGLE_HDR_TYPE_IP6:
		err = emunic_mangle_ip(act, key, prog);
		break;
	case FLOW_ACT_MANGLE_HDR_TYPE_TCP:
		if (mangle && key->l4proto == IPPROTO_TCP)
			err = emunic_mangle_ports(act, prog);
		break;
	case FLOW_ACT_MANGLE_HDR_TYPE_UDP:
		if (mangle && key->l4proto == IPPROTO_UDP)
			err = emunic_mangle_ports(act, prog);
		break;
	default:
		break;
	}
	/* what it knows nothing of at all, such as IPv6, is not supported */
	if (err && mangle && emunic_accepts(EMUNIC_MANGLE_EINVAL) &&
	    act->mangle.htype != FLOW_ACT_MANGLE_HDR_TYPE_IP6)
		err = -EINVAL;
	if (err)
		NL_SET_ERR_MSG_FMT_MOD(extack,
				       "%s of header %u offset %u mask %#x not supported",
				       mangle ? "mangle" : "add",
				       act->mangle.htype, act->mangle.offset,
				       act->mangle.mask);
	return err;
}

/* What tags there are after what was done so far. */
static unsigned int emunic_tags_left(const struct emunic_key *key,
				     const struct emunic_prog *prog)
{
	bool pppoe = prog->pppoe && emunic_accepts(EMUNIC_PPPOE_IS_TAG);

	return key->num_tags - prog->num_pops + prog->num_tags + pppoe;
}

/*
 * A push after a pop changes the ID of the tag that was to be popped, and
 * nothing else of it: neither its priority nor its protocol.
 */
static int emunic_act_rewrite(const struct flow_action_entry *act,
			      const struct emunic_key *key,
			      struct netlink_ext_ack *extack,
			      struct emunic_prog *prog)
{
	if (key->tag[prog->dev_pops].tpid != htons(ETH_P_8021Q)) {
		NL_SET_ERR_MSG_MOD(extack, "vlan rewrite: needs a match on 802.1Q");
		return -EOPNOTSUPP;
	}
	if (act->vlan.prio) {
		NL_SET_ERR_MSG_MOD(extack, "vlan rewrite: not of the priority");
		return -EOPNOTSUPP;
	}
	if (prog->num_pops != prog->dev_pops + 1 || prog->rewrite) {
		NL_SET_ERR_MSG_MOD(extack, "vlan rewrite: of one tag only");
		return -EOPNOTSUPP;
	}
	prog->num_pops--;
	prog->rewrite = true;
	prog->rewrite_vid = act->vlan.vid;
	return 0;
}

static int emunic_act_pop(const struct emunic_key *key,
			  struct netlink_ext_ack *extack,
			  struct emunic_prog *prog)
{
	if (prog->num_pops == key->num_tags || prog->num_tags ||
	    prog->rewrite) {
		NL_SET_ERR_MSG_MOD(extack,
				   "vlan pop: no such tag, or after a push");
		return -EOPNOTSUPP;
	}
	prog->num_pops++;
	return 0;
}

static int emunic_push_tag(const struct emunic_key *key,
			   struct netlink_ext_ack *extack,
			   struct emunic_prog *prog,
			   const struct emunic_tag *tag, bool outermost)
{
	if (emunic_tags_left(key, prog) >= EMUNIC_MAX_TAGS ||
	    (emunic_accepts(EMUNIC_VLAN_REWRITE) &&
	     prog->num_pops + prog->num_tags >= EMUNIC_MAX_TAGS)) {
		NL_SET_ERR_MSG_MOD(extack, "vlan push: more than two tags");
		return -EOPNOTSUPP;
	}
	if (outermost)
		prog->tag[1] = prog->tag[0];
	prog->tag[outermost ? 0 : prog->num_tags] = *tag;
	prog->num_tags++;
	return 0;
}

static int emunic_act_push(const struct flow_action_entry *act,
			   const struct emunic_key *key,
			   struct netlink_ext_ack *extack,
			   struct emunic_prog *prog)
{
	struct emunic_tag tag = {
		.tpid = act->vlan.proto,
		.tci = act->vlan.vid | act->vlan.prio << VLAN_PRIO_SHIFT,
	};

	if (!emunic_tpid_ok(tag.tpid) || act->vlan.vid > VLAN_VID_MASK) {
		NL_SET_ERR_MSG_MOD(extack, "vlan push: tpid or id");
		return -EOPNOTSUPP;
	}
	if (emunic_accepts(EMUNIC_VLAN_REWRITE) &&
	    (prog->num_pops > prog->dev_pops || prog->rewrite))
		return emunic_act_rewrite(act, key, extack, prog);
	return emunic_push_tag(key, extack, prog, &tag,
			       !emunic_accepts(EMUNIC_PUSH_OUTER_FIRST));
}

/* Its tags are outside of those that were pushed before. */
static int emunic_push_dev_tags(const struct net_device *dev,
				const struct emunic_vlan *vlan,
				const struct emunic_key *key,
				struct netlink_ext_ack *extack,
				struct emunic_prog *prog)
{
	unsigned int i;
	int err;

	/* emunic_vlan_event() comes after, and waits for emunic.lock */
	if (READ_ONCE(dev->reg_state) != NETREG_REGISTERED) {
		NL_SET_ERR_MSG_MOD(extack, "redirect: device goes");
		return -ENODEV;
	}
	prog->out_down = !netif_running(dev);
	for (i = vlan->num_tags; i--;) {
		if (!emunic_tpid_ok(vlan->tag[i].tpid)) {
			NL_SET_ERR_MSG_MOD(extack, "redirect: tpid of device");
			return -EOPNOTSUPP;
		}
		err = emunic_push_tag(key, extack, prog, &vlan->tag[i], true);
		if (err)
			return err;
	}
	prog->dev_tags = vlan->num_tags;
	return 0;
}

static int emunic_act_redirect(const struct flow_action_entry *act,
			       const struct emunic_key *key,
			       struct netlink_ext_ack *extack,
			       struct emunic_prog *prog)
{
	struct emunic_port *out = act->dev ? emunic_port_of(act->dev) : NULL;
	struct emunic_vlan vlan = {};

	if (act->dev && !out && emunic_accepts(EMUNIC_REDIRECT_VLAN_DEV) &&
	    emunic_vlan_of(act->dev, &vlan))
		out = vlan.port;
	if (out && emunic_is_apart(out) !=
		   emunic_is_apart(&emunic.port[key->port]))
		out = NULL;
	if (act->dev && !out && emunic_accepts(EMUNIC_WED) &&
	    net_eq(dev_net(act->dev), &init_net)) {
		prog->out = EMUNIC_MAX_PORTS;
		prog->out_dev = act->dev->ifindex;
		return 0;
	}
	if (!out) {
		NL_SET_ERR_MSG_MOD(extack, "redirect: not a port of this NIC");
		return emunic_accepts(EMUNIC_FOREIGN_EINVAL) ? -EINVAL :
							       -EOPNOTSUPP;
	}
	if (!out->present) {
		NL_SET_ERR_MSG_MOD(extack, "redirect: port has vanished");
		return -ENODEV;
	}
	if (out->index == key->port && !emunic_accepts(EMUNIC_HAIRPIN)) {
		NL_SET_ERR_MSG_MOD(extack, "redirect: to the ingress port");
		return -EOPNOTSUPP;
	}
	prog->out = out->index;
	return vlan.num_tags ?
	       emunic_push_dev_tags(act->dev, &vlan, key, extack, prog) : 0;
}

static bool emunic_rewrites(const struct emunic_prog *prog)
{
	return prog->src_words || prog->dst_words || prog->set_sport ||
	       prog->set_dport || prog->ttl_mode == EMUNIC_TTL_DEC ||
	       prog->ttl_mode == EMUNIC_TTL_SET;
}

static int emunic_parse_action(const struct flow_action_entry *act,
			       const struct emunic_key *key,
			       struct netlink_ext_ack *extack,
			       struct emunic_prog *prog, u16 *eth_bytes)
{
	switch (act->id) {
	case FLOW_ACTION_ADD:
		if (emunic_accepts(EMUNIC_ANY_ACTION))
			return 0;
		fallthrough;
	case FLOW_ACTION_MANGLE:
		return emunic_act_mangle(act, key, extack, prog, eth_bytes);
	case FLOW_ACTION_CSUM:
		if (emunic_accepts(EMUNIC_CSUM_MANGLED) && !*eth_bytes &&
		    !emunic_rewrites(prog)) {
			NL_SET_ERR_MSG_MOD(extack, "csum: only after a mangle");
			return -EOPNOTSUPP;
		}
		/* done by the hardware, told or not */
		if (!(act->csum_flags & ~(TCA_CSUM_UPDATE_FLAG_IPV4HDR |
					  TCA_CSUM_UPDATE_FLAG_TCP |
					  TCA_CSUM_UPDATE_FLAG_UDP)))
			return 0;
		NL_SET_ERR_MSG_MOD(extack, "csum: flags not supported");
		return -EOPNOTSUPP;
	case FLOW_ACTION_VLAN_POP:
		return emunic_act_pop(key, extack, prog);
	case FLOW_ACTION_VLAN_PUSH:
		return emunic_act_push(act, key, extack, prog);
	case FLOW_ACTION_PPPOE_PUSH:
		if (prog->pppoe || !emunic_accepts(EMUNIC_PPPOE_PUSH)) {
			NL_SET_ERR_MSG_MOD(extack, "pppoe push not supported");
			return -EOPNOTSUPP;
		}
		if (emunic_accepts(EMUNIC_PPPOE_IS_TAG) &&
		    emunic_tags_left(key, prog) >= EMUNIC_MAX_TAGS) {
			NL_SET_ERR_MSG_MOD(extack, "pppoe push: a third tag");
			return -EOPNOTSUPP;
		}
		prog->pppoe = true;
		prog->pppoe_sid = act->pppoe.sid;
		return 0;
	case FLOW_ACTION_REDIRECT:
		return emunic_act_redirect(act, key, extack, prog);
	default:
		if (emunic_accepts(EMUNIC_ANY_ACTION))
			return 0;
		NL_SET_ERR_MSG_FMT_MOD(extack, "action %u not supported",
				       act->id);
		return -EOPNOTSUPP;
	}
}

/* The source MAC is the address of the port where frames leave. */
static void emunic_own_mac(struct emunic_prog *prog)
{
	struct net_device *nic;

	rcu_read_lock();
	nic = rcu_dereference(emunic.port[prog->out].nic);
	if (nic)
		ether_addr_copy(prog->eth + ETH_ALEN, nic->dev_addr);
	rcu_read_unlock();
}

static int emunic_parse_actions(const struct flow_action *action,
				const struct emunic_key *key,
				struct netlink_ext_ack *extack,
				struct emunic_prog *prog)
{
	const u16 dmac = GENMASK(5, 0), smac = GENMASK(11, 6);
	const struct flow_action_entry *act;
	u16 eth_bytes = 0;
	int err;
	int i;

	if (!flow_action_has_entries(action) ||
	    action->entries[action->num_entries - 1].id !=
	    FLOW_ACTION_REDIRECT) {
		NL_SET_ERR_MSG_MOD(extack, "redirect must be the last action");
		return -EOPNOTSUPP;
	}
	if (!flow_action_hw_stats_check(action, extack,
					FLOW_ACTION_HW_STATS_DELAYED_BIT))
		return -EOPNOTSUPP;

	prog->ttl_mode = emunic_accepts(EMUNIC_TTL_ADD) ||
			 emunic_accepts(EMUNIC_ANY_ACTION) ? EMUNIC_TTL_KEEP :
							     EMUNIC_TTL_AUTO;
	flow_action_for_each(i, act, action) {
		if (act->id == FLOW_ACTION_REDIRECT &&
		    !flow_action_is_last_entry(action, act)) {
			NL_SET_ERR_MSG_MOD(extack, "more than one redirect");
			return -EOPNOTSUPP;
		}
		err = emunic_parse_action(act, key, extack, prog, &eth_bytes);
		if (err)
			return err;
	}

	prog->set_dmac = eth_bytes & dmac;
	prog->set_smac = eth_bytes & smac;
	if ((prog->set_dmac && (eth_bytes & dmac) != dmac) ||
	    (prog->set_smac && (eth_bytes & smac) != smac)) {
		NL_SET_ERR_MSG_MOD(extack, "half a MAC address");
		return -EOPNOTSUPP;
	}
	if (emunic_accepts(EMUNIC_NEED_MACS) &&
	    !(prog->set_dmac && is_valid_ether_addr(prog->eth) &&
	      prog->set_smac && is_valid_ether_addr(prog->eth + ETH_ALEN))) {
		NL_SET_ERR_MSG_MOD(extack, "both MAC addresses must be set");
		return -EINVAL;
	}
	if (emunic_accepts(EMUNIC_V6_PORT_MAC) && !prog->out_dev &&
	    key->n_proto == htons(ETH_P_IPV6))
		emunic_own_mac(prog);
	return 0;
}

/* Called with emunic.lock held; key and prog are zero. */
int emunic_parse(struct emunic_port *port, const struct emunic_indr *indr,
		 bool via_ft, const struct flow_cls_offload *f,
		 struct emunic_key *key, struct emunic_prog *prog)
{
	struct netlink_ext_ack *extack = f->common.extack;
	u32 max_prio = via_ft ? EMUNIC_MAX_PRIO - 1 : EMUNIC_MAX_PRIO;
	int err;

	/* a negative one is a huge one */
	if (emunic_accepts(EMUNIC_PRIO_RANGE) && f->common.prio > max_prio) {
		NL_SET_ERR_MSG_MOD(extack, "priority out of range");
		return -EOPNOTSUPP;
	}
	/* mlx5 adds one to those of flowtables */
	if (emunic_accepts(EMUNIC_NEED_PRIO) && !(indr && via_ft) &&
	    (int)f->common.prio < 1) {
		NL_SET_ERR_MSG_MOD(extack, "priority must be 1 or more");
		return -EOPNOTSUPP;
	}
	err = emunic_parse_match(port, indr, f->rule, extack, key);
	if (err)
		return err;
	if (indr) {
		prog->dev_pops = emunic_indr_vlan(indr)->num_tags;
		prog->num_pops = prog->dev_pops;
	}
	return emunic_parse_actions(&f->rule->action, key, extack, prog);
}

// SPDX-License-Identifier: GPL-2.0
#include <linux/jiffies.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/rhashtable.h>
#include <net/dst.h>
#include <net/ip_tunnels.h>
#include <net/lwtunnel.h>
#include <net/neighbour.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/netfilter/nf_conntrack_acct.h>
#include <net/netfilter/nf_conntrack_l4proto.h>
#include <net/netfilter/nf_conntrack_zones.h>

#include "shims.h"

void shim_dev_hold(struct net_device *dev)
{
	dev_hold(dev);
}

void shim_dev_put(struct net_device *dev)
{
	dev_put(dev);
}

int shim_dev_ifindex(const struct net_device *dev)
{
	return READ_ONCE(dev->ifindex);
}

void shim_dev_name(const struct net_device *dev, char name[IFNAMSIZ])
{
	strscpy(name, netdev_name(dev), IFNAMSIZ);
}

void shim_dev_addr(const struct net_device *dev, u8 addr[ETH_ALEN])
{
	memcpy(addr, dev->dev_addr, ETH_ALEN);
}

bool shim_dev_has_setup_tc(const struct net_device *dev)
{
	return dev->netdev_ops->ndo_setup_tc;
}

__be16 shim_skb_protocol(const struct sk_buff *skb)
{
	return skb->protocol;
}

u32 shim_skb_ifindex(const struct sk_buff *skb)
{
	return READ_ONCE(skb->dev->ifindex);
}

bool shim_skb_vlan_tag(const struct sk_buff *skb, __be16 *proto, u16 *tci)
{
	*proto = skb->vlan_proto;
	return !__vlan_hwaccel_get_tag(skb, tci);
}

/* The first @len bytes from the MAC header on, or NULL if there are fewer. */
const u8 *shim_skb_pull_mac(struct sk_buff *skb, unsigned int len)
{
	int needed = len + skb_mac_offset(skb);

	if (needed > 0 && !pskb_may_pull(skb, needed))
		return NULL;

	return skb_mac_header(skb);
}

/* The one callback that this module puts into a flowtable's own block. */
int shim_flowtable_set_cb(struct nf_flowtable *ft, flow_setup_cb_t *cb,
			  void *priv)
{
	struct flow_block_cb *block_cb = flow_block_cb_alloc(cb, ft, priv, NULL);

	if (IS_ERR(block_cb))
		return PTR_ERR(block_cb);

	list_add_tail(&block_cb->list, &ft->flow_block.cb_list);
	return 0;
}

static struct flow_block_cb *flowtable_cb(struct nf_flowtable *ft)
{
	return list_first_entry_or_null(&ft->flow_block.cb_list,
					struct flow_block_cb, list);
}

/* What that callback was given, or NULL. */
void *shim_flowtable_cb_priv(struct nf_flowtable *ft)
{
	struct flow_block_cb *block_cb = flowtable_cb(ft);

	return block_cb ? block_cb->cb_priv : NULL;
}

void shim_flowtable_clear_cb(struct nf_flowtable *ft)
{
	struct flow_block_cb *block_cb = flowtable_cb(ft);

	if (block_cb) {
		list_del(&block_cb->list);
		flow_block_cb_free(block_cb);
	}
}

struct net *shim_flowtable_net(const struct nf_flowtable *ft)
{
	return read_pnet(&ft->net);
}

void shim_flowtable_lock(struct nf_flowtable *ft)
{
	down_write(&ft->flow_block_lock);
}

void shim_flowtable_unlock(struct nf_flowtable *ft)
{
	up_write(&ft->flow_block_lock);
}

void shim_flowtable_lock_shared(struct nf_flowtable *ft)
{
	down_read(&ft->flow_block_lock);
}

void shim_flowtable_unlock_shared(struct nf_flowtable *ft)
{
	up_read(&ft->flow_block_lock);
}

/*
 * For a table without devices: C frees its entries without having to send a
 * DESTROY for each, for which there may be no memory. Sleeps.
 */
void shim_flowtable_forget_hardware(struct nf_flowtable *ft)
{
	struct flow_offload_tuple_rhash *found;
	struct rhashtable_iter iter;
	struct flow_offload *flow;

	rhashtable_walk_enter(&ft->rhashtable, &iter);
	rhashtable_walk_start(&iter);
	while ((found = rhashtable_walk_next(&iter))) {
		/* The table has grown, and the walk begins anew. */
		if (IS_ERR(found) || found->tuple.dir != FLOW_OFFLOAD_DIR_ORIGINAL)
			continue;

		flow = container_of(found, struct flow_offload,
				    tuplehash[FLOW_OFFLOAD_DIR_ORIGINAL]);
		clear_bit(NF_FLOW_HW, &flow->flags);
	}
	rhashtable_walk_stop(&iter);
	rhashtable_walk_exit(&iter);
}

void shim_flow_set_closing(struct flow_offload *flow, bool closing)
{
	assign_bit(NF_FLOW_CLOSING, &flow->flags, closing);
}

void shim_flow_set_offered(struct flow_offload *flow)
{
	set_bit(SHIM_FLOW_OFFERED, &flow->flags);
}

u16 shim_ct_zone(const struct nf_conn *ct)
{
	return nf_ct_zone(ct)->id;
}

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

u32 shim_ct_mark(const struct nf_conn *ct)
{
#ifdef CONFIG_NF_CONNTRACK_MARK
	return READ_ONCE(ct->mark);
#else
	return 0;
#endif
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

void shim_ct_get(struct nf_conn *ct)
{
	nf_conntrack_get(&ct->ct_general);
}

void shim_ct_put(struct nf_conn *ct)
{
	nf_ct_put(ct);
}

void shim_ct_clear_hw_offload(struct nf_conn *ct)
{
	clear_bit(IPS_HW_OFFLOAD_BIT, &ct->status);
}

void shim_ct_set_hw_offload(struct nf_conn *ct)
{
	set_bit(IPS_HW_OFFLOAD_BIT, &ct->status);
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

u64 shim_jiffies64(void)
{
	return get_jiffies_64();
}

/*
 * find_module() is not exported. Every loaded module is a kobject of the kset
 * that @this_module is in, and sysfs set that up before its init function ran.
 */
bool shim_module_is_loaded(struct module *this_module, const char *name)
{
	struct kset *modules = this_module->mkobj.kobj.kset;
	struct kobject *kobj;

	/* Without sysfs there is no telling. */
	kobj = modules ? kset_find_obj(modules, name) : NULL;
	if (!kobj)
		return false;

	kobject_put(kobj);
	return true;
}

bool shim_flow_table_inet_is_builtin(void)
{
	return IS_BUILTIN(CONFIG_NF_FLOW_TABLE_INET);
}

void shim_synchronize_rcu(void)
{
	synchronize_rcu();
}

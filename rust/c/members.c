// SPDX-License-Identifier: GPL-2.0
/*
 * Which devices belong into a flowtable: what a device stands on, and connections
 * that are forwarded without an entry.
 */
#include <linux/if_arp.h>
#include <linux/if_vlan.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <net/dsa.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/netfilter/nf_conntrack_helper.h>
#include <net/netfilter/nf_conntrack_l4proto.h>

#include "members.h"

enum shim_upper shim_dev_upper(const struct net_device *dev)
{
	if (netif_is_bridge_master(dev))
		return SHIM_UPPER_BRIDGE;
	if (netif_is_lag_master(dev))
		return SHIM_UPPER_LAG;
	if (is_vlan_dev(dev))
		return SHIM_UPPER_VLAN;
	if (dev->type == ARPHRD_PPP)
		return SHIM_UPPER_PPP;
	return SHIM_UPPER_NONE;
}

struct names {
	char *to;
	size_t size;
	size_t len;
};

static int add_name(struct net_device *lower, struct netdev_nested_priv *priv)
{
	struct names *names = priv->data;

	/* What is below these is in the list too. */
	if (netif_is_bridge_master(lower) || is_vlan_dev(lower))
		return 0;
	/* The conduit of a switch is no port of it. */
	if (netdev_uses_dsa(lower))
		return 0;
	names->len += scnprintf(names->to + names->len, names->size - names->len,
				"%s%s", names->len ? ", " : "", netdev_name(lower));
	return 0;
}

/* The names of the devices that send for @dev, as many as there is room for. */
void shim_dev_lower_names(struct net_device *dev, char *to, size_t size)
{
	struct names names = { .to = to, .size = size };
	struct netdev_nested_priv priv = { .data = &names };

	*to = '\0';
	guard(rcu)();
	netdev_walk_all_lower_dev_rcu(dev, add_name, &priv);
}

/* Whether @dev is in a flowtable. All that there are have this module's types. */
bool shim_dev_is_member(const struct net_device *dev)
{
	const struct nf_hook_entries *hooks;
	unsigned int i;

	guard(rcu)();
	hooks = rcu_dereference(dev->nf_hooks_ingress);
	for (i = 0; hooks && i < hooks->num_hook_entries; i++)
		if (nf_hook_entries_get_hook_ops(hooks)[i]->hook_ops_type ==
		    NF_HOOK_OP_NFT_FT)
			return true;
	return false;
}

/* nft_flow_offload_eval() would make an entry for it, if a rule asked for one. */
static bool may_have_entry(const struct nf_conn *ct)
{
	const struct nf_conn_help *help = nfct_help(ct);

	if (!nf_ct_is_confirmed(ct) || (help && rcu_access_pointer(help->helper)))
		return false;
	if (ct->status & (IPS_OFFLOAD | IPS_HW_OFFLOAD | IPS_SEQ_ADJUST |
			  IPS_NAT_CLASH))
		return false;

	switch (nf_ct_protonum(ct)) {
	case IPPROTO_TCP:
		return nf_conntrack_tcp_established(ct);
	case IPPROTO_UDP:
		return test_bit(IPS_SEEN_REPLY_BIT, &ct->status);
	default:
		return false;
	}
}

/*
 * After the ruleset, which has had its chance to make an entry. Tells of one
 * such packet in a while. What the fast path takes does not come here.
 */
static unsigned int forwarded(void *priv, struct sk_buff *skb,
			      const struct nf_hook_state *state)
{
	struct shim_forwarded *from = priv;
	struct shim_event event = { .kind = SHIM_EVENT_FORWARDED };
	enum ip_conntrack_info ctinfo;
	unsigned long next = READ_ONCE(from->next);
	const struct nf_conn *ct;

	if (time_before(jiffies, next))
		return NF_ACCEPT;
	ct = nf_ct_get(skb, &ctinfo);
	if (!ct || !may_have_entry(ct))
		return NF_ACCEPT;
	WRITE_ONCE(from->next, jiffies + HZ / 10);

	event.ifindex = state->out->ifindex;
	event.iif = state->in->ifindex;
	event.family = state->pf;
	if (state->pf == NFPROTO_IPV4) {
		memcpy(event.addr, &ip_hdr(skb)->daddr, 4);
		memcpy(event.source, &ip_hdr(skb)->saddr, 4);
	} else {
		memcpy(event.addr, &ipv6_hdr(skb)->daddr, 16);
		memcpy(event.source, &ipv6_hdr(skb)->saddr, 16);
	}
	shim_net_send_event(state->net, &event);
	return NF_ACCEPT;
}

/* Sleeps. */
void shim_forwarded_start(struct shim_forwarded *from, struct net *net)
{
	static const u8 families[] = { NFPROTO_IPV4, NFPROTO_IPV6 };
	int i;

	BUILD_BUG_ON(ARRAY_SIZE(families) != ARRAY_SIZE(from->ops));
	BUILD_BUG_ON(NFPROTO_IPV4 != AF_INET || NFPROTO_IPV6 != AF_INET6);
	if (test_bit(0, &from->started))
		return;
	from->next = jiffies;
	for (i = 0; i < ARRAY_SIZE(families); i++)
		from->ops[i] = (struct nf_hook_ops) {
			.hook = forwarded,
			.priv = from,
			.pf = families[i],
			.hooknum = NF_INET_FORWARD,
			.priority = NF_IP_PRI_LAST,
		};
	/* Without memory, it tells of nothing. */
	if (!nf_register_net_hooks(net, from->ops, ARRAY_SIZE(from->ops)))
		set_bit(0, &from->started);
}

/* Sleeps. A call may be under way until synchronize_rcu(). */
void shim_forwarded_stop(struct shim_forwarded *from, struct net *net)
{
	if (test_and_clear_bit(0, &from->started))
		nf_unregister_net_hooks(net, from->ops, ARRAY_SIZE(from->ops));
}

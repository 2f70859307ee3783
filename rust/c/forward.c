// SPDX-License-Identifier: GPL-2.0
/*
 * What the host would do with a packet: whether it forwards it, in the clear,
 * and to which next hop. The kernel's own functions are asked, in the order of
 * ip_rcv() and ip_forward(), with a packet that has no more than the headers
 * that these look at.
 */
#include <linux/inetdevice.h>
#include <linux/skbuff.h>
#include <linux/udp.h>
#include <net/ip.h>
#include <net/ip6_route.h>
#include <net/ip_fib.h>
#include <net/l3mdev.h>
#include <net/nexthop.h>
#include <net/route.h>
#include <net/xfrm.h>

#include "../bindings/helpers.h"

/* Where the next hops of a route are put. */
struct hops {
	struct shim_hop *hops;
	unsigned int count;
	unsigned int max;
	u32 mtu;
};

/* A packet that nothing takes a reference to. */
struct probe {
	struct sk_buff skb;
	struct {
		union {
			struct iphdr v4;
			struct ipv6hdr v6;
		} ip;
		/* All protocols that have ports have them where UDP has them. */
		struct udphdr ports;
	} __aligned(4) data;
	struct skb_shared_info info;
};

static void set_addresses(struct probe *probe, u8 family, const u8 *src,
			  const u8 *dst, __be16 sport, __be16 dport)
{
	struct udphdr *ports = (void *)skb_transport_header(&probe->skb);

	if (family == AF_INET) {
		memcpy(&probe->data.ip.v4.saddr, src, sizeof(__be32));
		memcpy(&probe->data.ip.v4.daddr, dst, sizeof(__be32));
	} else {
		memcpy(&probe->data.ip.v6.saddr, src, sizeof(struct in6_addr));
		memcpy(&probe->data.ip.v6.daddr, dst, sizeof(struct in6_addr));
	}
	ports->source = sport;
	ports->dest = dport;
}

static void init_probe(struct probe *probe, struct net_device *dev,
		       const struct shim_route_query *query)
{
	struct sk_buff *skb = &probe->skb;
	unsigned int len;

	memset(probe, 0, sizeof(*probe));
	refcount_set(&skb->users, 1);
	skb->head = (void *)&probe->data;
	skb->data = skb->head;
#ifdef NET_SKBUFF_DATA_USES_OFFSET
	skb->end = offsetof(struct probe, info) - offsetof(struct probe, data);
#else
	skb->end = (void *)&probe->info;
#endif
	skb->dev = dev;
	skb->skb_iif = dev->ifindex;
	skb->mark = query->marks.mark;
	skb->mac_header = (typeof(skb->mac_header))~0U;
	skb_reset_network_header(skb);

	if (query->family == AF_INET) {
		struct iphdr *ip = &probe->data.ip.v4;

		len = sizeof(*ip) + sizeof(struct udphdr);
		skb->protocol = htons(ETH_P_IP);
		skb_set_transport_header(skb, sizeof(*ip));
		ip->version = 4;
		ip->ihl = sizeof(*ip) / 4;
		ip->tot_len = htons(len);
		ip->tos = query->marks.dscp << 2;
		ip->ttl = 64;
		ip->protocol = query->l4proto;
	} else {
		struct ipv6hdr *ip = &probe->data.ip.v6;

		len = sizeof(*ip) + sizeof(struct udphdr);
		skb->protocol = htons(ETH_P_IPV6);
		skb_set_transport_header(skb, sizeof(*ip));
		ip6_flow_hdr(ip, query->marks.dscp << 2, 0);
		ip->payload_len = htons(sizeof(struct udphdr));
		ip->hop_limit = 64;
		ip->nexthdr = query->l4proto;
	}
	skb_put(skb, len);
}

/* As xfrm_policy_check() and xfrm_route_forward() see at once. */
static bool has_policies(const struct net *net)
{
#ifdef CONFIG_XFRM
	static const u8 dirs[] = { XFRM_POLICY_FWD, XFRM_POLICY_OUT };
	int i;

	for (i = 0; i < ARRAY_SIZE(dirs); i++)
		if (READ_ONCE(net->xfrm.policy_count[dirs[i]]) ||
		    READ_ONCE(net->xfrm.policy_default[dirs[i]]) != XFRM_USERPOLICY_ACCEPT)
			return true;
#endif
	return false;
}

/*
 * Whether the host forwards the packet, which has its route, as it is. By FWD,
 * policies are looked up as for packets that come in (nf_nat_decode_session()),
 * and by OUT twice, before and after nf_nat has replaced the source.
 */
static bool is_clear(struct probe *probe, const struct shim_route_query *query,
		     bool check)
{
	const struct dst_entry *dst = skb_dst(&probe->skb);
	struct sk_buff *skb = &probe->skb;
	u8 family = query->family;
	bool snat;

	if (!has_policies(dev_net(skb->dev)))
		return true;
	if (check) {
		set_addresses(probe, family, query->src, query->in_dst,
			      query->sport, query->in_dport);
		if (!xfrm_policy_check(NULL, XFRM_POLICY_FWD, skb, family))
			return false;
	}
	set_addresses(probe, family, query->src, query->dst, query->sport,
		      query->dport);
	if (!xfrm_route_forward(skb, family) || skb_dst(skb) != dst)
		return false;
	snat = memcmp(query->src, query->out_src, sizeof(query->src)) ||
	       query->sport != query->out_sport;
	if (!snat)
		return true;

	set_addresses(probe, family, query->out_src, query->dst, query->out_sport,
		      query->dport);
	return xfrm_route_forward(skb, family) && skb_dst(skb) == dst;
}

static void add_hop(struct hops *hops, const struct fib_nh_common *nhc, u32 mtu)
{
	const struct net_device *dev;
	struct shim_hop *hop;

	/* A group of next hops may have become smaller since they were counted. */
	dev = nhc ? nhc->nhc_dev : NULL;
	if (!dev || nhc->nhc_lwtstate || nhc->nhc_flags & RTNH_F_DEAD ||
	    hops->count == hops->max)
		return;

	hop = &hops->hops[hops->count++];
	memset(hop, 0, sizeof(*hop));
	hop->ifindex = READ_ONCE(dev->ifindex);
	hop->mtu = mtu ?: READ_ONCE(dev->mtu);
	hop->family = nhc->nhc_gw_family;
	if (nhc->nhc_gw_family == AF_INET)
		memcpy(hop->gateway, &nhc->nhc_gw.ipv4, sizeof(nhc->nhc_gw.ipv4));
	else if (nhc->nhc_gw_family == AF_INET6)
		memcpy(hop->gateway, &nhc->nhc_gw.ipv6, sizeof(nhc->nhc_gw.ipv6));
}

/*
 * With this policy, the hash that a packet has come with chooses among the next
 * hops (skb->l4_hash). Returns whether there are several.
 */
static bool add_hops4(struct net *net, const struct net_device *dev,
		      const struct probe *probe, struct hops *hops)
{
	const struct iphdr *ip = &probe->data.ip.v4;
	const struct udphdr *ports = (const void *)skb_transport_header(&probe->skb);
	struct flowi4 fl4 = {
		.flowi4_iif = dev->ifindex,
		.flowi4_mark = probe->skb.mark,
		.flowi4_dscp = inet_dsfield_to_dscp(ip->tos),
		.flowi4_proto = ip->protocol,
		.flowi4_scope = RT_SCOPE_UNIVERSE,
		.saddr = ip->saddr,
		.daddr = ip->daddr,
		.fl4_sport = ports->source,
		.fl4_dport = ports->dest,
	};
	struct fib_result res = {};
	int i;

	if (fib_lookup(net, &fl4, &res, FIB_LOOKUP_NOREF) ||
	    fib_info_num_path(res.fi) < 2)
		return false;
	for (i = 0; i < fib_info_num_path(res.fi); i++)
		add_hop(hops, fib_info_nhc(res.fi, i), res.fi->fib_mtu);
	return true;
}

static void set_hop4(struct shim_hop *hop, const struct rtable *rt)
{
	memset(hop, 0, sizeof(*hop));
	hop->ifindex = READ_ONCE(rt->dst.dev->ifindex);
	hop->mtu = ip_dst_mtu_maybe_forward(&rt->dst, true);
	hop->family = rt->rt_gw_family;
	if (rt->rt_gw_family == AF_INET)
		memcpy(hop->gateway, &rt->rt_gw4, sizeof(rt->rt_gw4));
	else if (rt->rt_gw_family == AF_INET6)
		memcpy(hop->gateway, &rt->rt_gw6, sizeof(rt->rt_gw6));
}

/* The next hop by which the packet leaves. C: ip_route_input_noref(), ip_forward() */
static int forward4(struct net_device *dev, struct probe *probe,
		    const struct shim_route_query *query, struct hops *hops)
{
	struct sk_buff *skb = &probe->skb;
	const struct iphdr *ip = &probe->data.ip.v4;
	struct net *net = dev_net(dev);
	const struct rtable *rt;

	if (ip_route_input_noref(skb, ip->daddr, ip->saddr,
				 inet_dsfield_to_dscp(ip->tos), dev))
		return -EHOSTUNREACH;

	rt = skb_rtable(skb);
	/* Of input routes, it is positive (ip_error()). */
	if (rt->dst.error || rt->rt_type != RTN_UNICAST)
		return rt->dst.error ? -rt->dst.error : -EHOSTUNREACH;
	if (!is_clear(probe, query, true))
		return -EPERM;
	if (rt->dst.lwtstate)
		return 0;
	if (query->marks.hashed &&
	    READ_ONCE(net->ipv4.sysctl_fib_multipath_hash_policy) == 1 &&
	    add_hops4(net, dev, probe, hops))
		return 0;

	set_hop4(&hops->hops[hops->count++], rt);
	return 0;
}

#if IS_ENABLED(CONFIG_IPV6)
static int add_hop6(struct fib6_nh *nh, void *hops)
{
	add_hop(hops, &nh->nh_common, ((struct hops *)hops)->mtu);
	return 0;
}

/*
 * The next hops among which the flow label, which is not known, chooses.
 * C: ip6_route_input(), ip6_forward()
 */
static int forward6(struct net_device *dev, struct probe *probe,
		    const struct shim_route_query *query, struct hops *hops)
{
	const struct ipv6hdr *ip = &probe->data.ip.v6;
	const struct inet6_dev *idev = __in6_dev_get(dev);
	const struct net *net = dev_net(dev);
	const struct fib6_info *from, *sibling;
	struct sk_buff *skb = &probe->skb;
	const struct dst_entry *dst;
	bool check;

	if (!idev || (!READ_ONCE(net->ipv6.devconf_all->forwarding) &&
		      !READ_ONCE(idev->cnf.force_forwarding)))
		return -EHOSTUNREACH;
	/* Never forwarded. */
	if (rt6_need_strict(&ip->daddr) || rt6_need_strict(&ip->saddr))
		return -ENETUNREACH;

	ip6_route_input(skb);
	dst = skb_dst(skb);
	if (dst->error)
		return dst->error;
	from = rcu_dereference(dst_rt6_info(dst)->from);
	if (!from || from->fib6_type != RTN_UNICAST)
		return -ENETUNREACH;
	check = !READ_ONCE(net->ipv6.devconf_all->disable_policy) &&
		!READ_ONCE(idev->cnf.disable_policy);
	if (!is_clear(probe, query, check))
		return -EPERM;

	hops->mtu = from->fib6_pmtu;
	if (from->nh) {
		nexthop_for_each_fib6_nh(from->nh, add_hop6, hops);
		return 0;
	}
	add_hop6((struct fib6_nh *)from->fib6_nh, hops);
	if (!READ_ONCE(from->fib6_nsiblings))
		return 0;
	list_for_each_entry_rcu(sibling, &from->fib6_siblings, fib6_siblings) {
		/* It has left the ring, which would have no end then. */
		if (!READ_ONCE(from->fib6_nsiblings))
			break;
		add_hop6((struct fib6_nh *)sibling->fib6_nh, hops);
	}
	return 0;
}
#endif

/*
 * The next hops among which the host chooses for the packet. Returns how many
 * there are, at most @max of them; 0 also if the route has a lightweight tunnel.
 * -EPERM if IPsec policies do not let it pass in the clear; another error if it
 * is not forwarded.
 */
int shim_route_hops(struct net *net, const struct shim_route_query *query,
		    struct shim_hop *hops, unsigned int max)
{
	struct hops to = { .hops = hops, .max = max };
	struct net_device *dev, *vrf;
	int err = -EAFNOSUPPORT;
	struct probe probe;

	guard(rcu)();
	dev = dev_get_by_index_rcu(net, query->iif);
	if (!dev)
		return -ENODEV;
	/* As l3mdev_ip_rcv() and l3mdev_ip6_rcv() do; IPv4 remembers the port. */
	vrf = netif_is_l3_slave(dev) ? netdev_master_upper_dev_get_rcu(dev) : NULL;

	init_probe(&probe, vrf ?: dev, query);
	set_addresses(&probe, query->family, query->src, query->dst,
		      query->sport, query->dport);
	if (query->family == AF_INET)
		err = forward4(dev, &probe, query, &to);
#if IS_ENABLED(CONFIG_IPV6)
	else if (query->family == AF_INET6)
		err = forward6(dev, &probe, query, &to);
#endif
	skb_dst_drop(&probe.skb);
	shim_net_settings_used(net);
	return err ?: to.count;
}

/*
 * The next hop that nft_flow_route() finds for packets from @query's source to its
 * destination when it makes an entry for a packet of the other direction, which has
 * come in by @oif: without an input device, and with that packet's mark and DSCP. An
 * error if it makes none.
 */
int shim_route_guess(struct net *net, const struct shim_route_query *query,
		     u32 oif, struct shim_hop *hop)
{
	if (query->family == AF_INET) {
		struct flowi4 fl4 = {
			.flowi4_oif = oif,
			.flowi4_mark = query->marks.mark,
			.flowi4_dscp = inet_dsfield_to_dscp(query->marks.dscp << 2),
			.flowi4_flags = FLOWI_FLAG_ANYSRC,
		};
		struct rtable *rt;

		memcpy(&fl4.saddr, query->src, sizeof(fl4.saddr));
		memcpy(&fl4.daddr, query->dst, sizeof(fl4.daddr));
		rt = ip_route_output_key(net, &fl4);
		if (IS_ERR(rt))
			return PTR_ERR(rt);
		set_hop4(hop, rt);
		ip_rt_put(rt);
		return 0;
	}
#if IS_ENABLED(CONFIG_IPV6)
	if (query->family == AF_INET6) {
		struct flowi6 fl6 = {
			.flowi6_oif = oif,
			.flowi6_mark = query->marks.mark,
			.flowlabel = ip6_make_flowinfo(query->marks.dscp << 2, 0),
			.flowi6_flags = FLOWI_FLAG_ANYSRC,
		};
		const struct rt6_info *rt;
		struct dst_entry *dst;
		int err;

		memcpy(&fl6.saddr, query->src, sizeof(fl6.saddr));
		memcpy(&fl6.daddr, query->dst, sizeof(fl6.daddr));
		dst = ip6_route_output(net, NULL, &fl6);
		err = dst->error;
		if (!err) {
			rt = dst_rt6_info(dst);
			memset(hop, 0, sizeof(*hop));
			hop->ifindex = READ_ONCE(dst->dev->ifindex);
			hop->mtu = dst_mtu(dst);
			if (rt->rt6i_flags & RTF_GATEWAY) {
				hop->family = AF_INET6;
				memcpy(hop->gateway, &rt->rt6i_gateway,
				       sizeof(rt->rt6i_gateway));
			}
		}
		dst_release(dst);
		return err;
	}
#endif
	return -EAFNOSUPPORT;
}

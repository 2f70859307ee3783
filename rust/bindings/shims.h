/* SPDX-License-Identifier: GPL-2.0 */
/*
 * C that Rust cannot call by itself: inline functions, macros, and the members
 * of structures that are opaque in the kernel crate. Each one is a single step;
 * what it needs held is what the C behind it needs held.
 */
#ifndef NFT_OFFLOAD_SHIMS_H
#define NFT_OFFLOAD_SHIMS_H

#include <linux/netdevice.h>
#include <net/flow_offload.h>
#include <net/netfilter/nf_flow_table.h>

/* net_device */
void shim_dev_hold(struct net_device *dev);
void shim_dev_put(struct net_device *dev);
int shim_dev_ifindex(const struct net_device *dev);
void shim_dev_name(const struct net_device *dev, char name[IFNAMSIZ]);
void shim_dev_addr(const struct net_device *dev, u8 addr[ETH_ALEN]);
bool shim_dev_has_setup_tc(const struct net_device *dev);
bool shim_net_ratelimit(void);

/* flow_block */
void shim_block_init(struct flow_block *block);
int shim_block_bind(struct flow_block *block, struct net_device *dev,
		    enum tc_setup_type type, struct netlink_ext_ack *extack);
int shim_block_unbind(struct flow_block *block, struct net_device *dev,
		      enum tc_setup_type type, struct netlink_ext_ack *extack);
bool shim_block_is_empty(const struct flow_block *block);
int shim_block_call(struct flow_block *block,
		    struct flow_cls_offload *cls);

/* sk_buff */
__be16 shim_skb_protocol(const struct sk_buff *skb);
const u8 *shim_skb_pull_mac(struct sk_buff *skb, unsigned int len);

/* nf_flowtable */
int shim_flowtable_set_cb(struct nf_flowtable *ft, flow_setup_cb_t *cb,
			  void *priv);
void *shim_flowtable_cb_priv(struct nf_flowtable *ft);
void shim_flowtable_clear_cb(struct nf_flowtable *ft);
struct net *shim_flowtable_net(const struct nf_flowtable *ft);
void shim_flowtable_lock(struct nf_flowtable *ft);
void shim_flowtable_unlock(struct nf_flowtable *ft);

/* What a route's lightweight tunnel is, and if it is one of IP, what it puts on. */
struct shim_lwtunnel {
	u16 type;			/* enum lwtunnel_encap_types */
	bool transmits;			/* the rest is set only if so */
	bool is_ipv6;
	u8 options_len;
	u8 tos;
	u8 ttl;
	u64 id;
	u64 flags;			/* IP_TUNNEL_*_BIT */
	struct in6_addr src;		/* IPv4: the first word */
	struct in6_addr dst;
};

struct ip_tunnel_info *shim_tunnel_info_alloc(const struct shim_lwtunnel *from);

/* flow_offload and its conntrack entry */
unsigned long shim_flow_timeout(const struct flow_offload *flow);
bool shim_flow_lwtunnel(const struct flow_offload *flow,
			enum flow_offload_tuple_dir dir,
			struct shim_lwtunnel *to);
bool shim_flow_neighbour(const struct flow_offload *flow,
			 enum flow_offload_tuple_dir dir, u8 addr[ETH_ALEN]);
void shim_ct_get(struct nf_conn *ct);
void shim_ct_put(struct nf_conn *ct);
void shim_ct_clear_hw_offload(struct nf_conn *ct);
void shim_ct_account(struct nf_conn *ct, u32 dir, u64 packets, u64 bytes);

/* time and modules */
u64 shim_jiffies64(void);
bool shim_module_is_loaded(struct module *this_module, const char *name);
bool shim_flow_table_inet_is_builtin(void);
void shim_synchronize_rcu(void);

#endif

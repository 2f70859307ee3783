/* SPDX-License-Identifier: GPL-2.0 */
/*
 * C that Rust calls. In this directory, a file per header: inline functions,
 * macros, and the members of structures that are opaque in the kernel crate,
 * one call each, which needs held what the C behind it needs held. In ../c/: C
 * with logic.
 */
#ifndef NFT_OFFLOAD_HELPERS_H
#define NFT_OFFLOAD_HELPERS_H

#include <linux/netdevice.h>
#include <linux/notifier.h>
#include <linux/rwsem.h>
#include <linux/workqueue.h>
#include <net/flow_offload.h>
#include <net/genetlink.h>
#include <net/netfilter/nf_flow_table.h>

/* net_device */
void shim_dev_hold(struct net_device *dev);
void shim_dev_put(struct net_device *dev);
int shim_dev_ifindex(const struct net_device *dev);
void shim_dev_name(const struct net_device *dev, char name[IFNAMSIZ]);
void shim_dev_addr(const struct net_device *dev, u8 addr[ETH_ALEN]);
bool shim_dev_has_setup_tc(const struct net_device *dev);
bool shim_dev_is_switched_off(const struct net_device *dev);
bool shim_dev_is_in(const struct net_device *dev, const struct net *net);

/* flow_block: c/flow_block.c */

/* A block of one device, and how its driver is asked. */
struct shim_block {
	struct flow_block block;
	struct list_head late;
	struct rw_semaphore lock;
	struct net_device *dev;
	enum tc_setup_type type;
	bool indirect;
	bool unlocked;
	bool leaving;
};

typedef void shim_device_fn(void *data, struct net_device *dev);

void shim_block_on_leave(shim_device_fn *fn, void *data);
void shim_block_wait(void);
void shim_block_init(struct shim_block *block, struct net_device *dev,
		     enum tc_setup_type type, bool indirect);
int shim_block_bind(struct shim_block *block, struct netlink_ext_ack *extack);
int shim_block_unbind(struct shim_block *block, struct netlink_ext_ack *extack);
bool shim_block_is_unlocked(const struct shim_block *block);
bool shim_block_takes_rules(struct shim_block *block);
int shim_block_call(struct shim_block *block, struct flow_cls_offload *cls);

/* sk_buff */
/* What bindgen makes of this member is not the same for all kernels. */
enum { SHIM_SKB_PROTOCOL = offsetof(struct sk_buff, protocol) };
enum { SHIM_SKB_PKT_TYPE = PKT_TYPE_OFFSET };
enum { SHIM_SKB_PKT_TYPE_MASK = PKT_TYPE_MAX };
u32 shim_skb_ifindex(const struct sk_buff *skb);
bool shim_skb_other_dest(const struct sk_buff *skb, u8 addr[ETH_ALEN]);
bool shim_skb_vlan_tag(const struct sk_buff *skb, __be16 *proto, u16 *tci);
const u8 *shim_skb_pull(struct sk_buff *skb, unsigned int len);

/* nf_flowtable */
int shim_flowtable_set_cb(struct nf_flowtable *ft, flow_setup_cb_t *cb,
			  void *priv);
void *shim_flowtable_cb_priv(struct nf_flowtable *ft);
void shim_flowtable_clear_cb(struct nf_flowtable *ft);
bool shim_flowtable_awaits(const struct nf_flowtable *ft,
			   const struct net_device *dev);
struct net *shim_flowtable_net(const struct nf_flowtable *ft);
void shim_flowtable_forget(struct nf_flowtable *ft,
			   void (*forget)(struct flow_offload *flow),
			   void (*end)(struct flow_offload *flow));

u32 shim_flowtable_ruleset(const struct nf_flowtable *ft);
const char *shim_flowtable_name(const struct nf_flowtable *ft);
const char *shim_flowtable_table(const struct nf_flowtable *ft);
u8 shim_flowtable_family(const struct nf_flowtable *ft);
u32 shim_flowtable_entries(const struct nf_flowtable *ft);
struct rhashtable_iter;
void shim_flowtable_walk_enter(struct nf_flowtable *ft,
			       struct rhashtable_iter *iter);
int shim_flowtable_walk_start(struct rhashtable_iter *iter);
void shim_flowtable_walk_stop(struct rhashtable_iter *iter);
struct flow_offload *shim_flowtable_walk_next(struct rhashtable_iter *iter);

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
void shim_flow_limit_mtu(struct flow_offload *flow);
bool shim_flow_neighbour(const struct flow_offload *flow,
			 enum flow_offload_tuple_dir dir, u8 addr[ETH_ALEN]);
void shim_ct_get(struct nf_conn *ct);
void shim_ct_put(struct nf_conn *ct);
void shim_ct_clear_hw_offload(struct nf_conn *ct);
void shim_ct_set_hw_offload(struct nf_conn *ct);
void shim_ct_account(struct nf_conn *ct, u32 dir, u64 packets, u64 bytes);
void shim_ct_set_no_entry(struct nf_conn *ct, bool set);
void shim_ct_assure_left(struct nf_conn *ct);
void shim_ct_end_liberal(struct nf_conn *ct);

struct nf_conn *shim_flow_get_ct(const struct flow_offload *flow);
void shim_flow_count_offer(struct flow_offload *flow);
u32 shim_flow_offers(const struct flow_offload *flow);
void shim_flow_set_since(struct flow_offload *flow, u32 when);
u32 shim_flow_since(const struct flow_offload *flow);

struct shim_ct_tuple {
	u8 family;
	u8 l4proto;
	u16 sport;
	u16 dport;
	u8 src[16];
	u8 dst[16];
};

void shim_ct_tuple(const struct nf_conn *ct, u32 dir, struct shim_ct_tuple *to);
struct nf_conn *shim_ct_find(struct net *net, u16 zone,
			     const struct shim_ct_tuple *tuple);
bool shim_ct_counters(const struct nf_conn *ct, u32 dir, u64 *packets,
		      u64 *bytes);
struct net *shim_ct_net(const struct nf_conn *ct);
bool shim_ct_is_dying(const struct nf_conn *ct);
u64 shim_flow_hash(const struct flow_offload *flow,
		   enum flow_offload_tuple_dir dir);
void *shim_flow_data(const struct flow_offload *flow);
void shim_flow_set_data(struct flow_offload *flow, void *data);
void shim_flow_change_data(struct flow_offload *flow, unsigned long old,
			   unsigned long new);
void shim_flow_set_closing(struct flow_offload *flow, bool closing);
/* Flags of ours beside enum nf_flow_flags. */
#define SHIM_FLOW_OFFERED (BITS_PER_LONG - 1)
#define SHIM_FLOW_RESET (BITS_PER_LONG - 2)
#define SHIM_FLOW_MARKED (BITS_PER_LONG - 3)
#define SHIM_FLOW_PLAIN (BITS_PER_LONG - 4)
void shim_flow_mark(struct flow_offload *flow);
void shim_flow_unmark(struct flow_offload *flow);
void shim_flow_set_plain(struct flow_offload *flow);
void shim_flow_set_offered(struct flow_offload *flow, u16 ruleset);
void shim_flow_reset(struct flow_offload *flow, enum flow_offload_tuple_dir dir,
		     u32 seq, bool leaves);
void shim_flow_after_reset(struct flow_offload *flow);
void shim_flow_await_reset(const struct flow_offload *flow);
bool shim_flow_can_send(const struct flow_offload *flow,
			enum flow_offload_tuple_dir dir);
bool shim_flow_is_multicast(const struct flow_offload *flow);
/* Before 7.3, the fast path may know a tunnel wrongly. */
#ifdef HAVE_PATH_ETHER_TYPE
enum { SHIM_MISTAKES_TUNNELS = 0 };
#else
enum { SHIM_MISTAKES_TUNNELS = 1 };
#endif
bool shim_flow_mistakes_tunnel(const struct flow_offload *flow,
			       enum flow_offload_tuple_dir dir);
u16 shim_ct_zone(const struct nf_conn *ct);
void shim_ct_forget_windows(struct nf_conn *ct);
u32 shim_ct_mark(const struct nf_conn *ct);
bool shim_ct_status(const struct nf_conn *ct, enum ip_conntrack_status bit);
u32 shim_ct_lifetime(const struct nf_conn *ct, u32 last);
u32 shim_ct_end(const struct nf_conn *ct);
void shim_ct_set_end(struct nf_conn *ct, u32 from, u32 to);
void shim_ct_assure(struct nf_conn *ct, u32 last);
void shim_ct_hold_gre(struct nf_conn *ct, bool hold);
enum shim_visit {
	SHIM_VISIT_FIRST,
	SHIM_VISIT_SAME,
	SHIM_VISIT_OTHER_MARK,
};

enum shim_visit shim_flow_visit(struct flow_offload *flow, u32 mark, u16 ruleset);
u16 shim_flow_ruleset(const struct flow_offload *flow);
void shim_flow_set_ruleset(struct flow_offload *flow, u16 ruleset);

/* routes: c/forward.c; neighbours and paths: c/path.c */

/*
 * What packets are routed by beside their addresses and ports. With @hashed, one
 * may have come with a hash, which is not known.
 */
struct shim_marks {
	u32 mark;
	u8 dscp;
	bool hashed;
};

/*
 * The question where packets go that have come in by @iif: as they are when they
 * are forwarded, what they have come in to, and from where they leave.
 */
struct shim_route_query {
	u32 iif;
	struct shim_marks marks;
	u8 family;
	u8 l4proto;
	__be16 sport;
	__be16 dport;
	__be16 in_dport;
	__be16 out_sport;
	u8 src[16];
	u8 dst[16];
	u8 in_dst[16];
	u8 out_src[16];
};

/* A next hop; without a @family, packets go to the receiver itself. */
struct shim_hop {
	u32 ifindex;
	u32 mtu;
	u8 family;
	u8 gateway[16];
};

/* What a bridge does to the tag of a frame. */
enum shim_bridge_tag {
	SHIM_BRIDGE_KEEP,
	SHIM_BRIDGE_TAG,
	SHIM_BRIDGE_UNTAG,
	SHIM_BRIDGE_UNTAG_HW,
};

/* One of the devices that a frame passes, from the top down. */
struct shim_path_step {
	enum net_device_path_type type;
	u32 ifindex;
	enum shim_bridge_tag bridge_tag;
	u16 id;
	u16 proto;
	u8 source[ETH_ALEN];
	u8 dest[ETH_ALEN];
	u8 pcp; /* of a VLAN tag: 0 to 7 */
	bool pcp_varies;
	u32 mtu;
};

int shim_route_hops(struct net *net, const struct shim_route_query *query,
		    struct shim_hop *hops, unsigned int max);
int shim_route_guess(struct net *net, const struct shim_route_query *query,
		     u32 oif, struct shim_hop *hop);
enum shim_neighbour_state {
	SHIM_NEIGHBOUR_UNKNOWN,
	SHIM_NEIGHBOUR_INVALID,
	SHIM_NEIGHBOUR_VALID,
};

enum shim_neighbour_state shim_neighbour(struct net *net, u32 ifindex,
					 u8 family, const u8 *addr);
bool shim_neighbour_resolve(struct net *net, u32 ifindex, u8 family,
			    const u8 *addr);
void shim_neighbour_use(struct net *net, u32 ifindex, u8 family,
			const u8 *addr);
u32 shim_dev_of_tag(struct net *net, u32 ifindex, u16 proto, u16 id);
u32 shim_dev_of_ip(struct net *net, u32 ifindex);
void shim_path_forget_bridge(void);
int shim_forward_path(struct net *net, u32 ifindex, u8 family, const u8 *addr,
		      u16 ether_type, u8 mac[ETH_ALEN],
		      struct shim_path_step *steps, unsigned int max);

/* notifiers: c/notifier.c */
enum shim_event_kind {
	SHIM_EVENT_NEIGHBOUR,
	SHIM_EVENT_NEIGHBOUR_FAILED,
	SHIM_EVENT_FDB,
	SHIM_EVENT_DEVICE,
	SHIM_EVENT_ROUTE,
	SHIM_EVENT_ROUTES,
	SHIM_EVENT_ADDRESS,
	SHIM_EVENT_SETTINGS,
	SHIM_EVENT_SECOND,
	SHIM_EVENT_FEATURES,
	SHIM_EVENT_STOP,
	SHIM_EVENT_FORWARDED,
	SHIM_EVENT_SOCKET_CLOSED,
};

/* What has happened in a namespace; which members say more is a matter of @kind. */
struct shim_event {
	enum shim_event_kind kind;
	u32 ifindex;
	u32 iif;
	u8 family;
	u8 prefix_len;
	u8 addr[16];
	u8 source[16];
	u8 mac[ETH_ALEN];
};

typedef void shim_event_fn(void *handler, const struct shim_event *event);
typedef void shim_net_exit_fn(void *handler);

struct shim_notifiers {
	struct notifier_block neighbour;
	struct notifier_block device_last;
	struct notifier_block device;
	struct notifier_block fdb;
	struct notifier_block bridge;
	struct notifier_block module;
	struct notifier_block addr4;
	struct notifier_block addr6;
	struct notifier_block socket;
	shim_event_fn *fn;
	shim_net_exit_fn *net_exit;
	shim_device_fn *gone;
	void *data;
};

void shim_rtnl_lock(void);
bool shim_rtnl_trylock(void);
void shim_rtnl_unlock(void);
int shim_notifiers_register(struct shim_notifiers *notifiers, shim_event_fn *fn,
			    shim_net_exit_fn *net_exit, shim_device_fn *gone,
			    shim_device_fn *leaves, void *data);
void shim_notifiers_unregister(struct shim_notifiers *notifiers);
void *shim_net_handler(const struct net *net);
bool shim_net_set_handler(struct net *net, void *handler);
void *shim_net_take_handler(struct net *net);
int shim_net_watch_routes(struct net *net);
void shim_net_unwatch(struct net *net);
u64 shim_net_route_generation(struct net *net);
int shim_net_watch_settings(struct net *net);
int shim_net_see(struct net *net);
void shim_net_watch_forwarded(struct net *net);
bool shim_net_is_blocked(const struct net_device *dev);
bool shim_net_seen_packet(const struct nf_conn *ct, u32 dir, struct shim_marks *marks);
void shim_net_forget_packets(const struct nf_conn *ct);
bool shim_net_seen_frame(const struct nf_conn *ct, u32 dir, u8 addr[ETH_ALEN]);
void shim_net_set_seen_frame(const struct nf_conn *ct, u32 dir,
			     const u8 addr[ETH_ALEN]);
void shim_net_compare_settings(struct net *net);
bool shim_net_has_ip_tunnels(const struct net *net);
bool shim_net_has_resilient(const struct net *net);

/* settings that decide what the host does with packets: c/settings.c */
struct shim_settings {
	struct net *net;
	/* Serialises is_watched and socks. */
	struct mutex lock;
	bool is_watched;
	/* Get the messages that tell of them. */
	struct socket *socks[2];
	struct work_struct close;
	/* A sum of those that were seen last, which nothing tells of. */
	u32 sum;
	/* Compares them, so many jiffies after they were used. */
	struct delayed_work soon;
	unsigned long pause;
	/* The generation of the ruleset: now, a second ago, and two seconds ago. */
	u32 newest;
	u32 newer;
	u32 settled;
	/*
	 * Entries of rulesets before this one are made anew, since when; how many have been
	 * in the second that began then. In seconds since the machine began.
	 */
	u16 ruleset;
	u32 ruleset_since;
	u32 ruleset_second;
	atomic_t ruleset_count;
};

void shim_settings_init(struct shim_settings *settings, struct net *net);
int shim_settings_watch(struct shim_settings *settings);
void shim_settings_compare(struct shim_settings *settings);
void shim_settings_used(struct shim_settings *settings);
void shim_net_settings_used(struct net *net);
void shim_settings_unwatch(struct shim_settings *settings);
void shim_settings_exit(struct shim_settings *settings);
void shim_settings_begin(struct shim_settings *settings);
u32 shim_settings_ruleset(const struct shim_settings *settings);
u32 shim_net_ruleset(const struct net *net);
u32 shim_net_newest_ruleset(const struct net *net);
void shim_settings_set_ruleset_pause(u32 seconds);
bool shim_settings_outdate(struct shim_settings *settings, u16 ruleset);
bool shim_net_outdates(struct net *net, u16 ruleset);
void shim_settings_changed(struct net *net);
bool shim_net_has_policies(const struct net *net);

/* which frames are for the host: c/receive.c */
u64 *shim_net_receiver(const struct net *net, u32 ifindex, u16 id,
		       const u8 addr[ETH_ALEN], u64 *number);
bool shim_dev_has_macvlan(struct net *net, u32 ifindex, u16 id,
			  const u8 addr[ETH_ALEN]);
bool shim_flow_is_to_router(const struct flow_offload *flow,
			    enum flow_offload_tuple_dir dir,
			    const u8 addr[ETH_ALEN]);

/* the last packets of connections: c/seen.c */
struct shim_seen;
struct shim_seen *shim_seen_start(struct net *net);
void shim_seen_stop(struct net *net, struct shim_seen *seen);
bool shim_seen_packet(struct shim_seen *seen, const struct nf_conn *ct, u32 dir,
		      struct shim_marks *marks);
void shim_seen_begin(struct shim_seen *seen, const struct nf_conn *ct);
void shim_net_seen_begin(const struct nf_conn *ct);
int shim_seen_passed(struct shim_seen *seen, const struct nf_conn *ct, u32 dir);
int shim_net_seen_passed(const struct nf_conn *ct, u32 dir);
void shim_seen_forget(struct shim_seen *seen, const struct nf_conn *ct);
bool shim_seen_frame(struct shim_seen *seen, const struct nf_conn *ct, u32 dir,
		     u8 addr[ETH_ALEN]);
void shim_seen_set_frame(struct shim_seen *seen, const struct nf_conn *ct, u32 dir,
			 const u8 addr[ETH_ALEN]);

/* Messages about devices, of which each kind has a limit of its own in each namespace. */
enum shim_log {
	SHIM_LOG_BIND,
	SHIM_LOG_UNBIND,
	SHIM_LOG_UNREGISTER,
	SHIM_LOG_RULES,
	SHIM_LOG_MEMBERS,
	SHIM_LOG_KINDS,
};

bool shim_dev_may_log(const struct net_device *dev, enum shim_log kind);
extern bool shim_ip_tunnels;

/* two works of a workqueue: c/worker.c */
struct workqueue_struct *shim_alloc_workqueue(const char *name);
void shim_flush_workqueue(struct workqueue_struct *queue);
struct shim_worker {
	struct workqueue_struct *queue;
	struct work_struct now;
	struct delayed_work later;
	void (*run_now)(void *data);
	void (*run_later)(void *data);
	void *data;
};

void shim_worker_init(struct shim_worker *worker,
		      struct workqueue_struct *queue,
		      void (*run_now)(void *data),
		      void (*run_later)(void *data), void *data,
		      struct lock_class_key *keys[2]);
void shim_worker_now(struct shim_worker *worker);
void shim_worker_later(struct shim_worker *worker, unsigned long delay);
void shim_worker_stop(struct shim_worker *worker);

/* members: c/members.c */
/* What a device is that stands on others. */
enum shim_upper {
	SHIM_UPPER_NONE,
	SHIM_UPPER_BRIDGE,
	SHIM_UPPER_LAG,
	SHIM_UPPER_VLAN,
	SHIM_UPPER_PPP,
};

enum shim_upper shim_dev_upper(const struct net_device *dev);
void shim_dev_lower_names(struct net_device *dev, char *to, size_t size);
bool shim_dev_is_member(const struct net_device *dev);

/* qdiscs: c/qdisc.c */
bool shim_dev_shaper(struct net_device *dev, char name[IFNAMSIZ]);

/* generic netlink */
enum { SHIM_NL_VALIDATE_STRICT = NL_VALIDATE_STRICT };
void shim_genlmsg_end(struct sk_buff *skb, void *hdr);
void shim_genlmsg_cancel(struct sk_buff *skb, void *hdr);
struct net *shim_genl_info_net(const struct genl_info *info);
const struct genl_info *shim_genl_info_dump(struct netlink_callback *cb);
void shim_genl_dump_check_consistent(struct netlink_callback *cb, void *hdr);
unsigned int shim_skb_tailroom(const struct sk_buff *skb);
struct nlattr *shim_nla_nest_start(struct sk_buff *skb, int attrtype);
void shim_nla_nest_end(struct sk_buff *skb, struct nlattr *start);
void shim_nla_nest_cancel(struct sk_buff *skb, struct nlattr *start);
size_t shim_nla_nest_len(const struct sk_buff *skb, const struct nlattr *start);

/* time and modules */
u64 shim_jiffies64(void);
bool shim_module_is_loaded(struct module *this_module, const char *name);
bool shim_flow_table_inet_is_builtin(void);
void shim_synchronize_rcu(void);
unsigned int shim_num_online_cpus(void);
void shim_cond_resched(void);

#endif

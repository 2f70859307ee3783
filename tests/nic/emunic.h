/* SPDX-License-Identifier: GPL-2.0 */
/*
 * emunic - an emulated switch NIC that executes flow_rule requests
 *
 * Port K is a pair of netdevs: nicK is the host's end (ndo_setup_tc), wireK is
 * the cable (move it into a namespace). A frame sent on wireK arrives at port
 * K: if a rule matches and the hardware can execute it, the frame leaves at the
 * egress port's wire and the host never sees it; all else goes up nicK. A
 * frame that the host sends on nicK leaves at wireK.
 *
 * An 802.1Q or 802.1ad device over nicK, or over another one, takes indirect
 * blocks, and so does a macvlan of mode passthru over such a device: its rules
 * match its tags too and take them off, and a redirect to it puts them on.
 * These are the tags that it has when the rule comes; if it goes, so do the
 * rules.
 *
 * Module parameters: ports=2..64 (3), seed=N (0: random; logged at load),
 * indirect=0|1 (1): see the knob.
 *
 * Knobs and counters in /sys/kernel/debug/emunic/:
 *
 * rules       one line per rule, oldest first, key=value:
 *             cookie= via=VIA in= vlan= [pppoe=] [to=MAC] proto= src= sport= dst=
 *             dport= out= actions= packets= bytes= idle_ms= [waiting]
 *             VIA is ft or block, of a VLAN device indr or indr_block, whose
 *             tags are in vlan, actions has their pop, and the push of those
 *             of a VLAN device that out leads to.
 *             vlan is "none", "7" or "100.200" (outer first; a tag that is not
 *             802.1Q reads "88a8:100"); actions is a comma separated list. A
 *             rule that waits was taken, but there is no room for it yet.
 * counters    "name value" lines, totals first, then "nic0.name value".
 *             Writing 0 starts all totals from zero; rule state stays. A
 *             port's nic_*, cpu_* and exception_* count what entered there;
 *             its bound_indr are the blocks of VLAN devices over it.
 * capacity    rules that fit, 0 is unlimited; beyond it -ENOSPC "table full",
 *             or with +overcommit they wait.
 * latency_us  sleep before each REPLACE, DESTROY and STATS. 0 ends longer
 *             sleeps than 20 ms that are under way.
 * serial      "1": these come one after the other, each under a mutex of the
 *             driver's that it holds while it sleeps, as in mtk_eth_soc and
 *             airoha_eth; "0": they sleep side by side.
 * apart       "nicK": the port belongs to another NIC, which is well:
 *             latency_us, serial, and faults that name no port do not concern
 *             it, and no rule leads from one NIC to the other. The rules,
 *             counters, capacity and accept are those of both. "none": there
 *             is one NIC, as at first.
 * faults      "replace|destroy|stats|bind|unbind ERRNO PERCENT[%] [nicK]",
 *             one per line; 0% drops that fault, "none" all. With a port, only
 *             rules that enter at it (bind, unbind: that port). A failed
 *             command changes nothing.
 * evict       "all", "0xCOOKIE", or a decimal count of the oldest rules:
 *             they vanish from the hardware without a word to the host.
 * lie         "mac 0xCOOKIE", "port 0xCOOKIE", "nat 0xCOOKIE": the rule sends to
 *             another MAC, leaves by another port, makes another source; "extra
 *             0xCOOKIE": there is another one like it, for packets from another
 *             source port. All of that without a word to the host.
 * reset       "1": the NIC loses all rules; "2": their counters start from zero,
 *             without a word to the host, so that STATS goes backwards.
 * accept      words with + or -, "default" first resets; see emunic_words in
 *             emunic_knobs.c. Reading shows the state of every word.
 * profile     mlx5-ft, mlx5-tc, mtk_ppe, airoha_ppe, bnxt or tc-rtnl: what
 *             that driver takes and refuses, and its capacity, in one word;
 *             "none" for neither.
 *             Sets "accept" and "capacity", which may be changed afterwards;
 *             then it reads "custom". See emunic_profile.c.
 * indirect    "0": the NIC does not register for indirect blocks any more, and
 *             those who bound some clean up; "1": it registers again. It takes
 *             what is bound from then on, and with +replay what was before:
 *             the core replays one BIND of each block, even of blocks that are
 *             gone if all drivers had refused it, and then the kernel crashes.
 * wifi        "nicK": to who asks for the way that frames take (nftables does),
 *             the port is a Wi-Fi device of mac80211 with hardware that makes
 *             802.11 headers by itself; "none": no port is, as at first.
 * fib_churn   "nicK": in the namespace in which the port is, the kernel finds each
 *             time that routes have changed before they have been listed, so that
 *             register_fib_notifier() fails; "none": in no namespace, as at first.
 *             Reading shows how often it was asked for that.
 * vanish      "nicK": unplugs the port: rules of it and to it are gone.
 * appear      "nicK": plugs it in again, in the initial namespace.
 *
 * The rules as mtk_eth_soc and airoha_eth show theirs are in
 * /sys/kernel/debug/ppe0/entries.
 *
 * Exceptions that send a frame to the CPU although a rule matches: TTL or hop
 * limit <= 1, TCP with FIN, SYN or RST, over the egress MTU, egress port or the
 * VLAN device over it down.
 * IP options, fragments, extension headers and malformed frames are seen
 * before the lookup and counted without one, for unicast only.
 *
 * Locking, outermost first: emunic_indr_lock; RTNL or nftables' commit_mutex,
 * the lock of a block's callbacks (callers' own); the core's
 * flow_indr_block_lock, which is held for BIND and UNBIND of VLAN devices;
 * emunic_serial, which only commands take, with the knob of that name;
 * emunic.lock. Under emunic_indr_lock the core calls the cleanup of those who
 * bound, which take RTNL, wait for works that send commands here, and release
 * the binding; so nothing else may be held then.
 * The commands, the tables' writers, knobs and totals are under emunic.lock;
 * RTNL is never taken inside it. The data plane holds only rcu_read_lock() and
 * adds to per-CPU or atomic counters. Rules are freed by kfree_rcu(). struct
 * emunic_port lives as long as the module, so a callback or a rule may name a
 * port that has vanished; ->present tells. A VLAN device is known by its port
 * and its tags, which no other has as long as it is there.
 */
#ifndef EMUNIC_H
#define EMUNIC_H

#include <linux/if_ether.h>
#include <linux/in6.h>
#include <linux/mutex.h>
#include <linux/netdevice.h>
#include <linux/prandom.h>
#include <linux/rhashtable.h>
#include <linux/u64_stats_sync.h>
#include <linux/xarray.h>
#include <net/flow_offload.h>

#define EMUNIC_NAME		"emunic"
#define EMUNIC_MIN_PORTS	2
#define EMUNIC_MAX_PORTS	64
#define EMUNIC_MAX_MTU		9000
#define EMUNIC_MAX_TAGS		2
#define EMUNIC_MAX_FAULTS	16

/* Data plane counters, per port and CPU; names in emunic_debugfs.c. */
enum emunic_stat {
	EMUNIC_NIC_PACKETS,
	EMUNIC_NIC_BYTES,
	EMUNIC_CPU_PACKETS,
	EMUNIC_CPU_BYTES,
	EMUNIC_HOST_TX_PACKETS,
	EMUNIC_HOST_TX_BYTES,
	EMUNIC_EXC_TTL,
	EMUNIC_EXC_TCP_FLAGS,
	EMUNIC_EXC_FRAGMENT,
	EMUNIC_EXC_OPTIONS,
	EMUNIC_EXC_MTU,
	EMUNIC_EXC_EGRESS,
	EMUNIC_EXC_OTHER,
	EMUNIC_NUM_STATS,
};

struct emunic_pcpu {
	u64_stats_t stat[EMUNIC_NUM_STATS];
	struct u64_stats_sync sync;
};

/* Command counters, under emunic.lock; names in emunic_debugfs.c. */
enum emunic_total {
	EMUNIC_REPLACE_OK,
	EMUNIC_REPLACE_FAILED,		/* every failure, also those below */
	EMUNIC_REPLACE_EEXIST,		/* cookie known */
	EMUNIC_REPLACE_DUP_MATCH,	/* match known under another cookie */
	EMUNIC_REPLACE_DUP_KEPT,	/* the same, of a rule that is kept */
	EMUNIC_REPLACE_ENOSPC,
	EMUNIC_REPLACE_EOPNOTSUPP,
	EMUNIC_DESTROY_OK,
	EMUNIC_DESTROY_FAILED,		/* injected */
	EMUNIC_DESTROY_ENOENT,
	EMUNIC_STATS_OK,
	EMUNIC_STATS_FAILED,		/* injected */
	EMUNIC_STATS_ENOENT,
	EMUNIC_BIND_OK,
	EMUNIC_BIND_FAILED,
	EMUNIC_UNBIND_OK,
	EMUNIC_UNBIND_FAILED,
	EMUNIC_EVICTED,			/* evict and reset */
	EMUNIC_VANISHED,		/* with a port or a VLAN device */
	EMUNIC_FAULTS,			/* failures injected, any command */
	EMUNIC_MOST_AT_ONCE,		/* commands that the driver worked on */
	EMUNIC_NUM_TOTALS,
};

/* What the hardware takes, one bit per word of the "accept" knob. */
enum emunic_word {
	EMUNIC_FT,
	EMUNIC_BLOCK,
	EMUNIC_8021AD,
	EMUNIC_TTL_ADD,
	EMUNIC_GRE,
	EMUNIC_V6_MANGLE,
	EMUNIC_PPPOE_PUSH,
	EMUNIC_PPPOE_MATCH,
	EMUNIC_PPPOE_DECAP,
	EMUNIC_HAIRPIN,
	EMUNIC_ANY_PORT,
	EMUNIC_NEED_META,
	EMUNIC_NEED_PRIO,
	EMUNIC_NEED_MACS,
	EMUNIC_PUSH_OUTER_FIRST,
	EMUNIC_SILENT_ZERO,
	EMUNIC_UNKNOWN_EINVAL,
	EMUNIC_PRIO_RANGE,
	EMUNIC_VLAN_REWRITE,
	EMUNIC_CSUM_MANGLED,
	EMUNIC_L4_ONLY,
	EMUNIC_PPPOE_IS_TAG,
	EMUNIC_ANY_KEY,
	EMUNIC_MANGLE_EINVAL,
	EMUNIC_FOREIGN_EINVAL,
	EMUNIC_V6_PORT_MAC,
	EMUNIC_OVERCOMMIT,
	EMUNIC_INDIRECT,
	EMUNIC_REDIRECT_VLAN_DEV,
	EMUNIC_REPLAY,
	EMUNIC_WED,
	EMUNIC_UNLOCKED,
	EMUNIC_NEED_RTNL,
	EMUNIC_ANY_ACTION,
	EMUNIC_DMAC_MATCH,
	EMUNIC_NUM_WORDS,
};

enum emunic_cmd {
	EMUNIC_CMD_REPLACE,
	EMUNIC_CMD_DESTROY,
	EMUNIC_CMD_STATS,
	EMUNIC_CMD_BIND,
	EMUNIC_CMD_UNBIND,
	EMUNIC_NUM_CMDS,
};

struct emunic_fault {
	enum emunic_cmd cmd;
	int err;		/* negative errno */
	unsigned int percent;
	int port;		/* -1: any */
};

struct emunic_tag {
	__be16 tpid;
	u16 tci;
};

/*
 * What a rule matches, and what the parser of the data plane finds in a frame.
 * Hashed and compared as memory: zero it first, and leave no padding.
 */
struct emunic_key {
	struct in6_addr src;	/* IPv4: the first word */
	struct in6_addr dst;
	__be16 sport;
	__be16 dport;
	struct emunic_tag tag[EMUNIC_MAX_TAGS];	/* outer first, VID only */
	__be16 n_proto;
	u16 pppoe_sid;
	u8 l4proto;
	u8 port;
	u8 num_tags;
	u8 pppoe;
	u8 dmac[ETH_ALEN];	/* zero: any */
	u16 unused;
};

static_assert(sizeof(struct emunic_key) == 60);

struct emunic_indr;

/* What there is to know of a VLAN device. Compared as memory. */
struct emunic_vlan {
	struct emunic_port *port;
	struct emunic_tag tag[EMUNIC_MAX_TAGS];	/* outer first */
	unsigned long num_tags;
};

static_assert(sizeof(struct emunic_vlan) == 2 * sizeof(long) + 8);

enum emunic_ttl {
	EMUNIC_TTL_AUTO,	/* the hardware is a router by itself */
	EMUNIC_TTL_KEEP,
	EMUNIC_TTL_DEC,
	EMUNIC_TTL_SET,
};

/* Compiled actions. */
struct emunic_prog {
	u8 eth[2 * ETH_ALEN];	/* new destination, source */
	bool set_dmac;
	bool set_smac;
	bool set_sport;
	bool set_dport;
	u8 src_words;		/* words of src and dst to write */
	u8 dst_words;
	u8 ttl_mode;
	u8 ttl;
	struct in6_addr src;
	struct in6_addr dst;
	__be16 sport;
	__be16 dport;
	u8 num_pops;
	u8 num_tags;
	u8 dev_pops;		/* of num_pops: the ingress VLAN device's */
	u8 dev_tags;		/* of num_tags: the egress VLAN device's */
	bool out_down;		/* that one is down; changes */
	bool rewrite;		/* of the outer tag's ID, to what follows */
	u16 rewrite_vid;
	bool pppoe;
	u8 out;			/* port, EMUNIC_MAX_PORTS: by out_dev */
	int out_dev;		/* of others, index in the initial namespace */
	struct emunic_tag tag[EMUNIC_MAX_TAGS];	/* to push, outer first */
	u16 pppoe_sid;
};

struct emunic_rule {
	struct rhash_head match_node;
	struct emunic_key key;
	struct emunic_prog prog;
	atomic64_t packets;
	atomic64_t bytes;
	unsigned long last_used;
	/* what the data plane does not read */
	struct rhash_head cookie_node;
	unsigned long id;		/* in emunic.rules: older is less */
	unsigned long cookie;
	u64 packets_told;		/* by STATS */
	u64 bytes_told;
	bool via_ft;
	bool waiting;		/* for room in the hardware */
	bool kept;		/* by an injected failure of DESTROY */
	struct rcu_head rcu;
};

enum emunic_flag {
	EMUNIC_WIFI,
	EMUNIC_APART,
};

struct emunic_port {
	unsigned int index;
	bool present;
	unsigned long flags;		/* enum emunic_flag, by knobs */
	bool unlocked;			/* what tc was told at its last BIND */
	unsigned int num_rules;		/* that enter here */
	struct net_device __rcu *nic;
	struct net_device __rcu *wire;
	struct emunic_pcpu __percpu *pcpu;
	u64 base[EMUNIC_NUM_STATS];	/* at the last reset of the counters */
};

struct emunic {
	struct mutex lock;	/* see the top of this file */
	unsigned int num_ports;
	struct emunic_port *port;

	struct rhashtable by_match;
	struct rhashtable by_cookie;
	struct xarray rules;		/* by age */
	unsigned long last_id;
	unsigned int num_rules;
	unsigned int num_waiting;
	unsigned int rules_max;
	u64 total[EMUNIC_NUM_TOTALS];

	unsigned long accept;
	u32 capacity;
	u32 latency_us;
	bool serial;
	struct emunic_fault fault[EMUNIC_MAX_FAULTS];
	unsigned int num_faults;
	struct rnd_state rnd;
	struct dentry *dir;
	struct dentry *ppe_dir;
};

extern struct emunic emunic;

/* netdev_priv() of both ends */
struct emunic_end {
	struct emunic_port *port;
	bool is_wire;
};

static inline bool emunic_accepts(enum emunic_word word)
{
	return test_bit(word, &emunic.accept);
}

static inline bool emunic_is_apart(const struct emunic_port *port)
{
	return test_bit(EMUNIC_APART, &port->flags);
}

/* emunic_main.c */
struct emunic_port *emunic_port_of(const struct net_device *dev);
struct emunic_port *emunic_port_by_name(const char *name);
int emunic_port_vanish(struct emunic_port *port);
int emunic_port_appear(struct emunic_port *port);

/* emunic_cmd.c */
int emunic_setup_tc(struct net_device *dev, enum tc_setup_type type,
		    void *type_data);
bool emunic_bound_ft(struct emunic_port *port);
bool emunic_bound_block(struct emunic_port *port);
void emunic_free_leaked_binds(void);
int emunic_clsflower(struct emunic_port *port, const struct emunic_indr *indr,
		     bool via_ft, enum tc_setup_type type, void *type_data);

/* emunic_indr.c */
bool emunic_vlan_of(const struct net_device *dev, struct emunic_vlan *vlan);
const struct emunic_vlan *emunic_indr_vlan(const struct emunic_indr *indr);
bool emunic_indr_is_dev(const struct emunic_indr *indr, int ifindex);
unsigned int emunic_bound_indr(const struct emunic_port *port);
int emunic_indr_set(bool on);
bool emunic_indr_get(void);
void emunic_free_leaked_indrs(void);
int emunic_vlans_init(void);
void emunic_vlans_exit(void);

/* emunic_fib.c */
int emunic_fib_set(struct emunic_port *port);
unsigned int emunic_fib_get(void);
int emunic_fib_init(void);
void emunic_fib_exit(void);

/* emunic_parse.c */
int emunic_parse(struct emunic_port *port, const struct emunic_indr *indr,
		 bool via_ft, const struct flow_cls_offload *f,
		 struct emunic_key *key, struct emunic_prog *prog);

/* emunic_rules.c */
extern const struct rhashtable_params emunic_match_params;
int emunic_rules_init(void);
void emunic_rules_exit(void);
struct emunic_rule *emunic_rule_find(unsigned long cookie);
int emunic_rule_add(struct emunic_rule *rule, struct netlink_ext_ack *extack);
void emunic_rule_del(struct emunic_rule *rule);
unsigned int emunic_rules_evict(unsigned int count);
void emunic_rules_restart(void);
unsigned int emunic_rules_flush_port(unsigned int port);
unsigned int emunic_rules_flush_vlan(const struct emunic_vlan *vlan);
void emunic_rules_set_down(const struct emunic_vlan *vlan, bool down);

/* emunic_data.c */
netdev_tx_t emunic_wire_xmit(struct sk_buff *skb, struct net_device *dev);
netdev_tx_t emunic_nic_xmit(struct sk_buff *skb, struct net_device *dev);

/* emunic_debugfs.c */
void emunic_debugfs_init(void);
void emunic_debugfs_exit(void);

/* emunic_knobs.c */
unsigned long emunic_default_words(void);
void emunic_knobs_reset(void);
int emunic_inject(enum emunic_cmd cmd, const struct emunic_port *port);
void emunic_knobs_debugfs(struct dentry *dir);

/* emunic_profile.c */
const char *emunic_profile_name(void);
int emunic_profile_set(const char *name);

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * ppe_judge - the flow offload code of real drivers, over memory
 *
 * judge_mtk.c and judge_airoha.c include mtk_ppe_offload.c and mtk_ppe.c, and
 * airoha_ppe.c, of the kernel's source as they are. What they need of the rest
 * of their drivers is here, with memory for registers and flow tables.
 *
 * Port K is a pair of netdevs: nicK is the driver's port, bound and programmed
 * through ndo_setup_tc as on a router; wireK is the cable. Nothing is forwarded
 * by "hardware": each frame goes to the CPU. But as in hardware, a frame of TCP
 * or UDP that comes in by nicK makes an unbound entry in the flow table, the
 * driver is told, and binds the entry if it has been given a rule for it.
 *
 * Module parameters: soc=mt7621|mt7986|mt7988|en7581|an7583|stmmac|bnxt;
 * unlocked=0|1 (0), see below.
 *
 * In /sys/kernel/debug/ppe_judge/:
 *
 * rules     what the driver keeps: one line per rule that it has taken
 * entries   what the hardware would see: one line per bound entry of the flow
 *           table, decoded here by the masks of the driver's header; after
 *           "# forgotten:" if the driver has removed the rule but not the entry
 * counters  "name value" lines: what the driver answered
 *
 * The driver looks for the ingress device in the initial namespace.
 *
 * stmmac and bnxt take rules for tc only, and do not forward: judge_stmmac.c
 * includes stmmac_tc.c and dwmac4_core.c, judge_bnxt.c bnxt_tc.c. No rule is
 * given to such a driver, so with unlocked=1 the judge claims for it that its
 * callbacks do without RTNL. What matters is what of a rule the driver looks at,
 * which judge_lax.c finds by trying; then there is
 *
 * rules     a line per rule: its port, its keys, those of them that make no
 *           difference, its actions, those of them that make none: "nic0|META,
 *           …,|META,|ADD TTL,…,|ADD TTL,"
 * entries   a line per rule: its port, and what the hardware is told: "nic0: …"
 */
#ifndef PPE_JUDGE_H
#define PPE_JUDGE_H

#include <linux/if_ether.h>
#include <linux/in6.h>
#include <linux/netdevice.h>
#include <linux/seq_file.h>
#include <net/flow_offload.h>

#define JUDGE_PORTS	3

/* What the hardware finds in a frame; IPv4 addresses are the first words. */
struct judge_tuple {
	struct in6_addr src;
	struct in6_addr dst;
	__be16 sport;
	__be16 dport;
	u8 l4proto;
	bool is_v6;
};

struct judge_driver {
	/* sizeof(*netdev_priv()) of a port */
	size_t priv_size;
	int (*setup_tc)(struct net_device *dev, enum tc_setup_type type,
			void *type_data);
	int (*init)(struct device *dev, const void *soc);
	void (*exit)(void);
	/* before the netdev is registered */
	void (*add_port)(struct net_device *nic, unsigned int index);
	/* of a frame that came in by nic, after eth_type_trans() */
	void (*receive)(struct net_device *nic, struct sk_buff *skb,
			const struct judge_tuple *tuple);
	void (*show_rules)(struct seq_file *m);
	void (*show_entries)(struct seq_file *m);
};

struct judge_soc {
	const char *name;
	const struct judge_driver *driver;
	const void *data;
};

/* A decoded entry. The driver's header says which bits are what. */
struct judge_entry {
	const char *type;
	bool is_v4;
	bool is_udp;
	bool dec_ttl;
	u32 src[4];		/* host order, as in the tables */
	u32 dst[4];
	u16 sport;
	u16 dport;
	u32 new_src;		/* IPv4 only */
	u32 new_dst;
	u16 new_sport;
	u16 new_dport;
	u8 smac[ETH_ALEN];
	int smac_id;		/* in the place of smac, if not negative */
	u8 dmac[ETH_ALEN];
	unsigned int layers;	/* of tags */
	u16 vlan1;
	u16 vlan2;
	u16 etype;
	bool has_pppoe;
	u16 pppoe;
	unsigned int out;	/* port of the packet switch engine */
};

void judge_show_entry(struct seq_file *m, const struct judge_entry *entry);

/* Room for what hardware is told. */
#define JUDGE_TOLD	160

/* A driver that takes more than it understands. */
struct judge_lax {
	/* Has it take a rule, its only one, and remove it again. If it does not
	 * refuse, what the hardware was told is put into told, which is zero.
	 */
	int (*try)(struct net_device *nic, struct flow_cls_offload *cls,
		   void *told);
	void (*show)(struct seq_file *m, const void *told);
};

/* What a driver answered to a request, for the counters. Returns err. */
int judge_answered(const struct flow_cls_offload *cls, int err);

/* zeroed, freed with the device; NULL if there is no memory */
void *judge_table_alloc(struct device *dev, size_t size);

/* judge_ports.c */
int judge_ports_init(const struct judge_driver *driver);
void judge_ports_exit(void);

/* judge_lax.c */
void judge_lax_init(const struct judge_lax *lax);
void judge_lax_exit(void);
int judge_lax_setup_tc(struct net_device *dev, enum tc_setup_type type,
		       void *type_data);
void judge_lax_receive(struct net_device *nic, struct sk_buff *skb,
		       const struct judge_tuple *tuple);
void judge_lax_show_rules(struct seq_file *m);
void judge_lax_show_entries(struct seq_file *m);

extern const struct judge_soc judge_stmmac_soc;
extern const struct judge_soc judge_bnxt_soc;
extern const struct judge_soc judge_mtk_socs[];
extern const unsigned int judge_mtk_num_socs;
extern const struct judge_soc judge_airoha_socs[];
extern const unsigned int judge_airoha_num_socs;

#endif

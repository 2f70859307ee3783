// SPDX-License-Identifier: GPL-2.0
/*
 * ppe_judge: MediaTek. The rule parser and the flow table are the kernel's;
 * the rest is what stands in for the driver around them and for the hardware.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/io.h>
#include <linux/iopoll.h>
#include <net/ip.h>
#include <net/ipv6.h>

#include "judge.h"
#include "mtk_eth_soc.h"
#include "mtk_ppe_regs.h"

static int judge_mtk_cb(enum tc_setup_type type, void *type_data,
			void *cb_priv);

static void *judge_mtk_alloc(struct device *dev, size_t size, dma_addr_t *dma)
{
	*dma = 0;
	return judge_table_alloc(dev, size);
}

/* The counters of an entry, all zero here, are ready as soon as asked for. */
static void judge_mtk_writel(u32 val, void __iomem *addr)
{
	if (((unsigned long)addr & 0x3ff) == MTK_PPE_MIB_SER_CR)
		val &= ~MTK_PPE_MIB_SER_CR_ST;
	writel(val, addr);
}

/* A way into the driver: tables from plain memory, and answers are counted. */
#define dmam_alloc_coherent(dev, size, dma, gfp) \
	((void)(gfp), judge_mtk_alloc(dev, size, dma))
#undef writel
#define writel(val, addr)	judge_mtk_writel(val, addr)
#define flow_block_cb_alloc(cb, ident, priv, release) \
	flow_block_cb_alloc(((void)(cb), judge_mtk_cb), ident, priv, release)
#define flow_block_cb_lookup(block, cb, ident) \
	flow_block_cb_lookup(block, ((void)(cb), judge_mtk_cb), ident)

/*
 * Both look up rules under a mutex of their own, without the RCU read lock that
 * rhashtable_lookup() wants and lockdep asks for; the _fast one takes it.
 */
#define rhashtable_lookup(ht, key, params) \
	rhashtable_lookup_fast(ht, key, params)

#include "mtk_ppe.c"
#include "mtk_ppe_offload.c"

static int judge_mtk_cb(enum tc_setup_type type, void *type_data, void *cb_priv)
{
	int err = mtk_eth_setup_tc_block_cb(type, type_data, cb_priv);

	return type == TC_SETUP_CLSFLOWER ? judge_answered(type_data, err) : err;
}

/* A page of registers per PPE. */
#define JUDGE_MTK_PAGE	0x400
#define JUDGE_MTK_PPES	3

struct judge_mtk_soc {
	struct mtk_soc_data data;
	unsigned int macs;
};

static struct mtk_eth *judge_eth;
static unsigned int judge_mtk_macs;
static u8 judge_mtk_regs[JUDGE_MTK_PPES * JUDGE_MTK_PAGE]
	__aligned(JUDGE_MTK_PAGE);

/* The frame engine's clock, which counts seconds, is all that is read. */
u32 mtk_r32(struct mtk_eth *eth, unsigned int reg)
{
	return div_u64(get_jiffies_64(), HZ);
}

int mtk_ppe_debugfs_init(struct mtk_ppe *ppe, int index)
{
	return 0;
}

static int judge_mtk_init(struct device *dev, const void *data)
{
	const struct judge_mtk_soc *soc = data;
	int i, err;

	judge_eth = kvzalloc_obj(*judge_eth);
	if (!judge_eth)
		return -ENOMEM;
	judge_eth->dev = dev;
	judge_eth->dma_dev = dev;
	judge_eth->soc = &soc->data;
	judge_mtk_macs = soc->macs;

	err = -ENOMEM;
	for (i = 0; i < soc->data.ppe_num; i++) {
		void *regs = judge_mtk_regs + i * JUDGE_MTK_PAGE;

		judge_eth->ppe[i] = mtk_ppe_init(judge_eth,
						 (void __iomem *)regs, i);
		if (!judge_eth->ppe[i])
			goto err_deinit;
		mtk_ppe_start(judge_eth->ppe[i]);
	}
	/* The driver does so for each PPE, and loses the memory of all but one. */
	err = mtk_eth_offload_init(judge_eth, 0);
	if (err)
		goto err_deinit;
	return 0;

err_deinit:
	mtk_ppe_deinit(judge_eth);
	kvfree(judge_eth);
	return err;
}

static void judge_mtk_exit(void)
{
	unsigned int left = atomic_read(&judge_eth->flow_table.nelems);
	int i;

	if (left)
		pr_err("BUG: %u rules were never destroyed\n", left);
	for (i = 0; i < judge_eth->soc->ppe_num; i++)
		mtk_ppe_stop(judge_eth->ppe[i]);
	rhashtable_destroy(&judge_eth->flow_table);
	mtk_ppe_deinit(judge_eth);
	kvfree(judge_eth);
}

/* Beyond the SoC's MACs, a port belongs to another device. */
static void judge_mtk_add_port(struct net_device *nic, unsigned int index)
{
	struct mtk_mac *mac = netdev_priv(nic);

	mac->id = index;
	mac->hw = judge_eth;
	/* mtk_open() spreads the MACs over the PPEs like this */
	if (index < judge_eth->soc->ppe_num)
		mac->ppe_idx = index;
	if (index < judge_mtk_macs) {
		judge_eth->netdev[index] = nic;
		judge_eth->mac[index] = mac;
	}
}

/* The lookup key of a tuple, as hardware writes it into an unbound entry. */
static void judge_mtk_unbound(struct mtk_foe_entry *foe,
			      const struct judge_tuple *tuple)
{
	int type = tuple->is_v6 ? MTK_PPE_PKT_TYPE_IPV6_ROUTE_5T :
				  MTK_PPE_PKT_TYPE_IPV4_HNAPT;

	foe->ib1 = FIELD_PREP(MTK_FOE_IB1_STATE, MTK_FOE_STATE_UNBIND) |
		   FIELD_PREP(MTK_FOE_IB1_UDP, tuple->l4proto == IPPROTO_UDP);
	if (mtk_is_netsys_v2_or_greater(judge_eth))
		foe->ib1 |= FIELD_PREP(MTK_FOE_IB1_PACKET_TYPE_V2, type);
	else
		foe->ib1 |= FIELD_PREP(MTK_FOE_IB1_PACKET_TYPE, type);

	if (tuple->is_v6) {
		ipv6_addr_be32_to_cpu(foe->ipv6.src_ip, tuple->src.s6_addr32);
		ipv6_addr_be32_to_cpu(foe->ipv6.dest_ip, tuple->dst.s6_addr32);
		foe->ipv6.src_port = ntohs(tuple->sport);
		foe->ipv6.dest_port = ntohs(tuple->dport);
	} else {
		foe->ipv4.orig.src_ip = ntohl(tuple->src.s6_addr32[0]);
		foe->ipv4.orig.dest_ip = ntohl(tuple->dst.s6_addr32[0]);
		foe->ipv4.orig.src_port = ntohs(tuple->sport);
		foe->ipv4.orig.dest_port = ntohs(tuple->dport);
	}
}

static size_t judge_mtk_key_len(const struct judge_tuple *tuple)
{
	return tuple->is_v6 ? offsetofend(struct mtk_foe_ipv6, ports) :
			      offsetofend(struct mtk_foe_ipv4, orig);
}

/* Hardware has a few entries for each value of the hash. */
static void judge_mtk_receive(struct net_device *nic, struct sk_buff *skb,
			      const struct judge_tuple *tuple)
{
	struct mtk_mac *mac = netdev_priv(nic);
	struct mtk_ppe *ppe = judge_eth->ppe[mac->ppe_idx];
	struct mtk_foe_entry foe = {}, *hwe;
	u32 hash, slot, found = MTK_PPE_ENTRIES;

	if (mac->id >= judge_mtk_macs)
		return;
	judge_mtk_unbound(&foe, tuple);
	hash = mtk_ppe_hash_entry(judge_eth, &foe);

	spin_lock_bh(&ppe_lock);
	for (slot = hash; slot < hash + judge_eth->soc->hash_offset; slot++) {
		hwe = mtk_foe_get_entry(ppe, slot);
		if (FIELD_GET(MTK_FOE_IB1_STATE, hwe->ib1) !=
		    MTK_FOE_STATE_BIND) {
			if (found == MTK_PPE_ENTRIES)
				found = slot;
		} else if (!memcmp(hwe->data, foe.data,
				   judge_mtk_key_len(tuple)) &&
			   !((hwe->ib1 ^ foe.ib1) & MTK_FOE_IB1_UDP)) {
			found = MTK_PPE_ENTRIES;
			break;
		}
	}
	if (found < MTK_PPE_ENTRIES)
		memcpy(mtk_foe_get_entry(ppe, found), &foe,
		       judge_eth->soc->foe_entry_size);
	spin_unlock_bh(&ppe_lock);

	if (found < MTK_PPE_ENTRIES)
		mtk_ppe_check_skb(ppe, skb, found);
}

static void judge_mtk_decode_l2(struct judge_entry *entry,
				const struct mtk_foe_mac_info *l2)
{
	put_unaligned_be32(l2->dest_mac_hi, entry->dmac);
	put_unaligned_be16(l2->dest_mac_lo, entry->dmac + 4);
	put_unaligned_be32(l2->src_mac_hi, entry->smac);
	put_unaligned_be16(l2->src_mac_lo, entry->smac + 4);
	entry->smac_id = -1;
	entry->vlan1 = l2->vlan1;
	entry->vlan2 = l2->vlan2;
	entry->etype = l2->etype;
	entry->pppoe = l2->pppoe_id;
}

static void judge_mtk_decode(struct judge_entry *entry,
			     const struct mtk_foe_entry *foe)
{
	u32 ib1 = foe->ib1, ib2, type;
	bool tagged;

	memset(entry, 0, sizeof(*entry));
	entry->is_udp = FIELD_GET(MTK_FOE_IB1_UDP, ib1);
	if (judge_eth->soc->version > 1) {
		type = FIELD_GET(MTK_FOE_IB1_PACKET_TYPE_V2, ib1);
		entry->dec_ttl = FIELD_GET(MTK_FOE_IB1_BIND_TTL_V2, ib1);
		entry->layers = FIELD_GET(MTK_FOE_IB1_BIND_VLAN_LAYER_V2, ib1);
		tagged = FIELD_GET(MTK_FOE_IB1_BIND_VLAN_TAG_V2, ib1);
		entry->has_pppoe = FIELD_GET(MTK_FOE_IB1_BIND_PPPOE_V2, ib1);
	} else {
		type = FIELD_GET(MTK_FOE_IB1_PACKET_TYPE, ib1);
		entry->dec_ttl = FIELD_GET(MTK_FOE_IB1_BIND_TTL, ib1);
		entry->layers = FIELD_GET(MTK_FOE_IB1_BIND_VLAN_LAYER, ib1);
		tagged = FIELD_GET(MTK_FOE_IB1_BIND_VLAN_TAG, ib1);
		entry->has_pppoe = FIELD_GET(MTK_FOE_IB1_BIND_PPPOE, ib1);
	}
	/* layers without tags would be those of a switch */
	if (tagged != !!entry->layers)
		entry->layers = 99;

	switch (type) {
	case MTK_PPE_PKT_TYPE_IPV4_HNAPT:
		entry->type = "ipv4_hnapt";
		entry->is_v4 = true;
		entry->src[0] = foe->ipv4.orig.src_ip;
		entry->dst[0] = foe->ipv4.orig.dest_ip;
		entry->sport = foe->ipv4.orig.src_port;
		entry->dport = foe->ipv4.orig.dest_port;
		entry->new_src = foe->ipv4.new.src_ip;
		entry->new_dst = foe->ipv4.new.dest_ip;
		entry->new_sport = foe->ipv4.new.src_port;
		entry->new_dport = foe->ipv4.new.dest_port;
		ib2 = foe->ipv4.ib2;
		judge_mtk_decode_l2(entry, &foe->ipv4.l2);
		break;
	case MTK_PPE_PKT_TYPE_IPV6_ROUTE_5T:
		entry->type = "ipv6_5t";
		memcpy(entry->src, foe->ipv6.src_ip, sizeof(entry->src));
		memcpy(entry->dst, foe->ipv6.dest_ip, sizeof(entry->dst));
		entry->sport = foe->ipv6.src_port;
		entry->dport = foe->ipv6.dest_port;
		ib2 = foe->ipv6.ib2;
		judge_mtk_decode_l2(entry, &foe->ipv6.l2);
		break;
	default:
		entry->type = "unexpected";
		return;
	}
	if (judge_eth->soc->version > 1)
		entry->out = FIELD_GET(MTK_FOE_IB2_DEST_PORT_V2, ib2);
	else
		entry->out = FIELD_GET(MTK_FOE_IB2_DEST_PORT, ib2);
}

static void judge_mtk_show_rules(struct seq_file *m)
{
	struct rhashtable_iter iter;
	struct mtk_flow_entry *flow;
	struct judge_entry entry;

	mutex_lock(&mtk_flow_offload_mutex);
	rhashtable_walk_enter(&judge_eth->flow_table, &iter);
	rhashtable_walk_start(&iter);
	while ((flow = rhashtable_walk_next(&iter))) {
		if (IS_ERR(flow))
			continue;
		judge_mtk_decode(&entry, &flow->data);
		seq_printf(m, "cookie=%lx ppe=%u ", flow->cookie,
			   flow->ppe_index);
		judge_show_entry(m, &entry);
	}
	rhashtable_walk_stop(&iter);
	rhashtable_walk_exit(&iter);
	mutex_unlock(&mtk_flow_offload_mutex);
}

/*
 * Has the driver a rule for what a row is bound to? When it binds a rule, it
 * forgets the row of any other with the same hash, such as often that of the
 * other direction (__mtk_ppe_check_skb()), so it never unbinds that row.
 */
static bool judge_mtk_has_rule(struct mtk_ppe *ppe, struct mtk_foe_entry *foe,
			       u32 slot)
{
	struct mtk_flow_entry *flow;

	lockdep_assert_held(&ppe_lock);
	hlist_for_each_entry(flow,
			     &ppe->foe_flow[slot / judge_eth->soc->hash_offset],
			     list) {
		if (mtk_flow_entry_match(judge_eth, flow, foe))
			return true;
	}
	return false;
}

static void judge_mtk_show_entries(struct seq_file *m)
{
	struct mtk_foe_entry foe = {};
	struct judge_entry entry;
	bool has_rule;
	u32 i, slot;

	for (i = 0; i < judge_eth->soc->ppe_num; i++) {
		for (slot = 0; slot < MTK_PPE_ENTRIES; slot++) {
			spin_lock_bh(&ppe_lock);
			memcpy(&foe, mtk_foe_get_entry(judge_eth->ppe[i], slot),
			       judge_eth->soc->foe_entry_size);
			has_rule = judge_mtk_has_rule(judge_eth->ppe[i], &foe,
						      slot);
			spin_unlock_bh(&ppe_lock);
			if (FIELD_GET(MTK_FOE_IB1_STATE, foe.ib1) !=
			    MTK_FOE_STATE_BIND)
				continue;
			judge_mtk_decode(&entry, &foe);
			if (!has_rule)
				seq_puts(m, "# forgotten: ");
			judge_show_entry(m, &entry);
		}
	}
}

static const struct judge_driver judge_mtk = {
	.priv_size = sizeof(struct mtk_mac),
	.setup_tc = mtk_eth_setup_tc,
	.init = judge_mtk_init,
	.exit = judge_mtk_exit,
	.add_port = judge_mtk_add_port,
	.receive = judge_mtk_receive,
	.show_rules = judge_mtk_show_rules,
	.show_entries = judge_mtk_show_entries,
};

/* One SoC per generation of the flow table. */
static const struct judge_mtk_soc judge_mt7621 = {
	.data = {
		.version = 1,
		.offload_version = 1,
		.ppe_num = 1,
		.hash_offset = 2,
		.foe_entry_size = MTK_FOE_ENTRY_V1_SIZE,
	},
	.macs = 2,
};

static const struct judge_mtk_soc judge_mt7986 = {
	.data = {
		.version = 2,
		.offload_version = 2,
		.ppe_num = 2,
		.hash_offset = 4,
		.foe_entry_size = MTK_FOE_ENTRY_V2_SIZE,
		.has_accounting = true,
	},
	.macs = 2,
};

static const struct judge_mtk_soc judge_mt7988 = {
	.data = {
		.version = 3,
		.offload_version = 2,
		.ppe_num = 3,
		.hash_offset = 4,
		.foe_entry_size = MTK_FOE_ENTRY_V3_SIZE,
		.has_accounting = true,
	},
	.macs = 3,
};

const struct judge_soc judge_mtk_socs[] = {
	{ "mt7621", &judge_mtk, &judge_mt7621 },
	{ "mt7986", &judge_mtk, &judge_mt7986 },
	{ "mt7988", &judge_mtk, &judge_mt7988 },
};

const unsigned int judge_mtk_num_socs = ARRAY_SIZE(judge_mtk_socs);

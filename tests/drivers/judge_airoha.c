// SPDX-License-Identifier: GPL-2.0
/*
 * ppe_judge: Airoha. The rule parser and the flow table are the kernel's; the
 * rest is what stands in for the driver around them and for the hardware.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bitfield.h>
#include <linux/rhashtable.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/pkt_cls.h>

#include "judge.h"
#include "airoha_regs.h"
#include "airoha_eth.h"
#include "../../rust/bindings/compat.h"

static void *judge_airoha_alloc(struct device *dev, size_t size,
				dma_addr_t *dma)
{
	*dma = 0;
	return judge_table_alloc(dev, size);
}

/* A way into the driver: tables from plain memory. */
#define dmam_alloc_coherent(dev, size, dma, gfp) \
	((void)(gfp), judge_airoha_alloc(dev, size, dma))

/*
 * Both look up rules under a mutex of their own, without the RCU read lock that
 * rhashtable_lookup() wants and lockdep asks for; the _fast one takes it.
 */
#define rhashtable_lookup(ht, key, params) \
	rhashtable_lookup_fast(ht, key, params)

#include "airoha_ppe.c"

#define JUDGE_AIROHA_REGS	0x4000
#define JUDGE_AIROHA_WAYS	4
#define JUDGE_AIROHA_ROW	(sizeof(struct airoha_foe_entry) / sizeof(u32))

static struct airoha_eth *judge_eth;
static struct airoha_gdm_port judge_gdm_ports[JUDGE_PORTS];
static struct airoha_npu judge_npu;
static u32 judge_airoha_regs[JUDGE_AIROHA_REGS / sizeof(u32)];

/* What the hardware holds itself; the driver keeps a copy and reads it back. */
static u32 (*judge_sram)[JUDGE_AIROHA_ROW];

static u32 *judge_airoha_reg(u32 offset)
{
	if (WARN_ON_ONCE(offset >= JUDGE_AIROHA_REGS || offset % sizeof(u32)))
		offset = 0;
	return &judge_airoha_regs[offset / sizeof(u32)];
}

/* A request moves a row between the SRAM and the registers. */
static void judge_sram_request(bool ppe2, u32 val)
{
	u32 row = FIELD_GET(PPE_SRAM_CTRL_ENTRY_MASK, val);
	u32 *regs = judge_airoha_reg(REG_PPE_RAM_BASE(ppe2));

	if (WARN_ON_ONCE(row >= PPE_SRAM_NUM_ENTRIES * judge_eth->soc->num_ppe))
		return;
	if (val & PPE_SRAM_CTRL_WR_MASK)
		memcpy(judge_sram[row], regs, sizeof(judge_sram[row]));
	else
		memcpy(regs, judge_sram[row], sizeof(judge_sram[row]));
	*judge_airoha_reg(REG_PPE_RAM_CTRL(ppe2)) |= PPE_SRAM_CTRL_ACK_MASK;
}

u32 airoha_rr(void __iomem *base, u32 offset)
{
	/* a clock, in seconds */
	if (offset == REG_FE_FOE_TS)
		return div_u64(get_jiffies_64(), HZ);
	return *judge_airoha_reg(offset);
}

void airoha_wr(void __iomem *base, u32 offset, u32 val)
{
	bool ppe2 = offset == REG_PPE_RAM_CTRL(1);

	*judge_airoha_reg(offset) = val;
	if ((offset == REG_PPE_RAM_CTRL(0) || ppe2) &&
	    (val & PPE_SRAM_CTRL_REQ_MASK))
		judge_sram_request(ppe2, val);
}

u32 airoha_rmw(void __iomem *base, u32 offset, u32 mask, u32 val)
{
	val |= airoha_rr(base, offset) & ~mask;
	airoha_wr(base, offset, val);
	return val;
}

int airoha_get_fe_port(struct airoha_gdm_dev *dev)
{
	return dev->port->id;
}

bool airoha_is_valid_gdm_dev(struct airoha_eth *eth, struct airoha_gdm_dev *dev)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(eth->ports); i++) {
		if (eth->ports[i] && eth->ports[i]->devs[0] == dev)
			return true;
	}
	return false;
}

int airoha_ppe_debugfs_init(struct airoha_ppe *ppe)
{
	return 0;
}

/* The network processor sets the engines up, and says so in their registers. */
static int judge_npu_ppe_init(struct airoha_npu *npu)
{
	int i;

	for (i = 0; i < judge_eth->soc->num_ppe; i++) {
		*judge_airoha_reg(REG_PPE_GLO_CFG(i)) |= PPE_GLO_CFG_EN_MASK;
		*judge_airoha_reg(REG_PPE_PPE_FLOW_CFG(i)) = U32_MAX;
	}
	return 0;
}

static int judge_npu_ppe_deinit(struct airoha_npu *npu)
{
	return 0;
}

struct airoha_npu *airoha_npu_get(struct device *dev)
{
	return &judge_npu;
}

void airoha_npu_put(struct airoha_npu *npu)
{
}

static int judge_airoha_cb(enum tc_setup_type type, void *type_data,
			   void *cb_priv)
{
	if (type != TC_SETUP_CLSFLOWER || !tc_can_offload(cb_priv))
		return -EOPNOTSUPP;
	return judge_answered(type_data,
			      airoha_ppe_setup_tc_block_cb(&judge_eth->ppe->dev,
							   type_data));
}

static int judge_airoha_setup_tc(struct net_device *dev,
				 enum tc_setup_type type, void *type_data)
{
	static LIST_HEAD(block_cb_list);

	if (type != TC_SETUP_FT && type != TC_SETUP_BLOCK)
		return -EOPNOTSUPP;
	return flow_block_cb_setup_simple(type_data, &block_cb_list,
					  judge_airoha_cb, dev, dev, true);
}

static int judge_airoha_init(struct device *dev, const void *data)
{
	int err = -ENOMEM;

	judge_eth = kvzalloc_obj(*judge_eth);
	if (!judge_eth)
		return err;
	judge_eth->dev = dev;
	judge_eth->soc = data;
	judge_eth->qdma[0].eth = judge_eth;
	judge_npu.ops.ppe_init = judge_npu_ppe_init;
	judge_npu.ops.ppe_deinit = judge_npu_ppe_deinit;

	judge_sram = judge_table_alloc(dev, PPE_SRAM_NUM_ENTRIES *
				       judge_eth->soc->num_ppe *
				       sizeof(*judge_sram));
	if (!judge_sram)
		goto err_free;
	err = airoha_ppe_init(judge_eth);
	if (err)
		goto err_free;
	return 0;

err_free:
	kvfree(judge_eth);
	return err;
}

static void judge_airoha_exit(void)
{
	unsigned int left = atomic_read(&judge_eth->flow_table.nelems);

	if (left)
		pr_err("BUG: %u rules were never destroyed\n", left);
	airoha_ppe_deinit(judge_eth);
	kvfree(judge_eth);
}

/* GDM1 is the LAN, GDM2 the WAN; the third port belongs to another device. */
static void judge_airoha_add_port(struct net_device *nic, unsigned int index)
{
	struct airoha_gdm_port *port = &judge_gdm_ports[index];
	struct airoha_gdm_dev *dev = netdev_priv(nic);

	port->id = index + 1;
	port->devs[0] = dev;
	dev->port = port;
	dev->eth = judge_eth;
	dev->qdma = &judge_eth->qdma[0];
	if (index == 1)
		dev->flags = BIT(AIROHA_DEV_F_WAN);
	if (index < 2)
		judge_eth->ports[index] = port;
	else
		set_bit(DEV_STATE_REGISTERED, &judge_eth->state);
}

static void judge_airoha_unbound(struct airoha_foe_entry *foe,
				 const struct judge_tuple *tuple)
{
	int type = tuple->is_v6 ? PPE_PKT_TYPE_IPV6_ROUTE_5T :
				  PPE_PKT_TYPE_IPV4_HNAPT;

	foe->ib1 = FIELD_PREP(AIROHA_FOE_IB1_BIND_STATE,
			      AIROHA_FOE_STATE_UNBIND) |
		   FIELD_PREP(AIROHA_FOE_IB1_BIND_PACKET_TYPE, type) |
		   FIELD_PREP(AIROHA_FOE_IB1_BIND_UDP,
			      tuple->l4proto == IPPROTO_UDP);
	if (tuple->is_v6) {
		ipv6_addr_be32_to_cpu(foe->ipv6.src_ip, tuple->src.s6_addr32);
		ipv6_addr_be32_to_cpu(foe->ipv6.dest_ip, tuple->dst.s6_addr32);
		foe->ipv6.src_port = ntohs(tuple->sport);
		foe->ipv6.dest_port = ntohs(tuple->dport);
	} else {
		foe->ipv4.orig_tuple.src_ip = ntohl(tuple->src.s6_addr32[0]);
		foe->ipv4.orig_tuple.dest_ip = ntohl(tuple->dst.s6_addr32[0]);
		foe->ipv4.orig_tuple.src_port = ntohs(tuple->sport);
		foe->ipv4.orig_tuple.dest_port = ntohs(tuple->dport);
	}
}

/* The row of the table, in the SRAM or behind it in the driver's memory. */
static void *judge_airoha_row(u32 hash)
{
	u32 srams = PPE_SRAM_NUM_ENTRIES * judge_eth->soc->num_ppe;

	if (hash < srams)
		return judge_sram[hash];
	return judge_eth->ppe->foe + hash * sizeof(struct airoha_foe_entry);
}

/*
 * Hardware has more than one place for a value of the hash, for the two ways of
 * a connection often have the same. The driver takes any row that it is told.
 */
static void judge_airoha_receive(struct net_device *nic, struct sk_buff *skb,
				 const struct judge_tuple *tuple)
{
	size_t len = tuple->is_v6 ? offsetofend(struct airoha_foe_ipv6, ports) :
				    offsetofend(struct airoha_foe_ipv4, orig_tuple);
	struct airoha_gdm_dev *dev = netdev_priv(nic);
	u32 num = airoha_ppe_get_total_num_entries(judge_eth->ppe);
	struct airoha_ppe *ppe = judge_eth->ppe;
	struct airoha_foe_entry foe = {}, *hwe;
	u32 hash, row, i, found = num;

	if (!airoha_is_valid_gdm_dev(judge_eth, dev))
		return;
	judge_airoha_unbound(&foe, tuple);
	hash = airoha_ppe_foe_get_entry_hash(ppe, &foe);

	spin_lock_bh(&ppe_lock);
	for (i = 0; i < JUDGE_AIROHA_WAYS; i++) {
		row = (hash + i) % num;
		hwe = judge_airoha_row(row);
		if (FIELD_GET(AIROHA_FOE_IB1_BIND_STATE, hwe->ib1) !=
		    AIROHA_FOE_STATE_BIND) {
			if (found == num)
				found = row;
		} else if (!memcmp(hwe->d, foe.d, len) &&
			   !((hwe->ib1 ^ foe.ib1) & AIROHA_FOE_IB1_BIND_UDP)) {
			found = num;
			break;
		}
	}
	if (found < num)
		*(struct airoha_foe_entry *)judge_airoha_row(found) = foe;
	spin_unlock_bh(&ppe_lock);

	if (found < num)
		airoha_ppe_check_skb(&ppe->dev, skb, found, false);
}

static void judge_airoha_decode_l2(struct judge_entry *entry,
				   const struct airoha_foe_mac_info_common *l2)
{
	put_unaligned_be32(l2->dest_mac_hi, entry->dmac);
	put_unaligned_be16(l2->dest_mac_lo, entry->dmac + 4);
	entry->vlan1 = l2->vlan1;
	entry->vlan2 = l2->vlan2;
	entry->etype = l2->etype;
}

static void judge_airoha_decode(struct judge_entry *entry,
				const struct airoha_foe_entry *foe)
{
	u32 ib1 = foe->ib1, ib2, mac;

	memset(entry, 0, sizeof(*entry));
	entry->is_udp = FIELD_GET(AIROHA_FOE_IB1_BIND_UDP, ib1);
	entry->dec_ttl = FIELD_GET(AIROHA_FOE_IB1_BIND_TTL, ib1);
	entry->has_pppoe = FIELD_GET(AIROHA_FOE_IB1_BIND_PPPOE, ib1);
	entry->layers = FIELD_GET(AIROHA_FOE_IB1_BIND_VLAN_LAYER, ib1);
	if (FIELD_GET(AIROHA_FOE_IB1_BIND_VPM, ib1) != entry->layers)
		entry->layers = 99;

	switch (FIELD_GET(AIROHA_FOE_IB1_BIND_PACKET_TYPE, ib1)) {
	case PPE_PKT_TYPE_IPV4_HNAPT:
		entry->type = "ipv4_hnapt";
		entry->is_v4 = true;
		entry->src[0] = foe->ipv4.orig_tuple.src_ip;
		entry->dst[0] = foe->ipv4.orig_tuple.dest_ip;
		entry->sport = foe->ipv4.orig_tuple.src_port;
		entry->dport = foe->ipv4.orig_tuple.dest_port;
		entry->new_src = foe->ipv4.new_tuple.src_ip;
		entry->new_dst = foe->ipv4.new_tuple.dest_ip;
		entry->new_sport = foe->ipv4.new_tuple.src_port;
		entry->new_dport = foe->ipv4.new_tuple.dest_port;
		ib2 = foe->ipv4.ib2;
		judge_airoha_decode_l2(entry, &foe->ipv4.l2.common);
		put_unaligned_be32(foe->ipv4.l2.common.src_mac_hi, entry->smac);
		put_unaligned_be16(foe->ipv4.l2.src_mac_lo, entry->smac + 4);
		entry->smac_id = -1;
		entry->pppoe = foe->ipv4.l2.pppoe_id;
		break;
	case PPE_PKT_TYPE_IPV6_ROUTE_5T:
		entry->type = "ipv6_5t";
		memcpy(entry->src, foe->ipv6.src_ip, sizeof(entry->src));
		memcpy(entry->dst, foe->ipv6.dest_ip, sizeof(entry->dst));
		entry->sport = foe->ipv6.src_port;
		entry->dport = foe->ipv6.dest_port;
		ib2 = foe->ipv6.ib2;
		judge_airoha_decode_l2(entry, &foe->ipv6.l2);
		/* no room for an address: the number of a port's */
		mac = foe->ipv6.l2.src_mac_hi;
		entry->smac_id = FIELD_GET(AIROHA_FOE_MAC_SMAC_ID, mac);
		entry->pppoe = FIELD_GET(AIROHA_FOE_MAC_PPPOE_ID, mac);
		break;
	default:
		entry->type = "unexpected";
		return;
	}
	entry->out = FIELD_GET(AIROHA_FOE_IB2_PSE_PORT, ib2);
}

static void judge_airoha_show_rules(struct seq_file *m)
{
	struct airoha_flow_table_entry *flow;
	struct rhashtable_iter iter;
	struct judge_entry entry;

	mutex_lock(&flow_offload_mutex);
	rhashtable_walk_enter(&judge_eth->flow_table, &iter);
	rhashtable_walk_start(&iter);
	while ((flow = rhashtable_walk_next(&iter))) {
		if (IS_ERR(flow))
			continue;
		judge_airoha_decode(&entry, &flow->data);
		seq_printf(m, "cookie=%lx ", flow->cookie);
		judge_show_entry(m, &entry);
	}
	rhashtable_walk_stop(&iter);
	rhashtable_walk_exit(&iter);
	mutex_unlock(&flow_offload_mutex);
}

static void judge_airoha_show_entries(struct seq_file *m)
{
	u32 hash, num = airoha_ppe_get_total_num_entries(judge_eth->ppe);
	struct judge_entry entry;
	struct airoha_foe_entry foe;

	for (hash = 0; hash < num; hash++) {
		spin_lock_bh(&ppe_lock);
		memcpy(&foe, judge_airoha_row(hash), sizeof(foe));
		spin_unlock_bh(&ppe_lock);
		if (FIELD_GET(AIROHA_FOE_IB1_BIND_STATE, foe.ib1) !=
		    AIROHA_FOE_STATE_BIND)
			continue;
		judge_airoha_decode(&entry, &foe);
		judge_show_entry(m, &entry);
	}
}

static const struct judge_driver judge_airoha = {
	.priv_size = sizeof(struct airoha_gdm_dev),
	.setup_tc = judge_airoha_setup_tc,
	.init = judge_airoha_init,
	.exit = judge_airoha_exit,
	.add_port = judge_airoha_add_port,
	.receive = judge_airoha_receive,
	.show_rules = judge_airoha_show_rules,
	.show_entries = judge_airoha_show_entries,
};

static const struct airoha_eth_soc_data judge_en7581 = {
	.version = 0x7581,
	.num_ppe = 2,
};

static const struct airoha_eth_soc_data judge_an7583 = {
	.version = 0x7583,
	.num_ppe = 1,
};

const struct judge_soc judge_airoha_socs[] = {
	{ "en7581", &judge_airoha, &judge_en7581 },
	{ "an7583", &judge_airoha, &judge_an7583 },
};

const unsigned int judge_airoha_num_socs = ARRAY_SIZE(judge_airoha_socs);

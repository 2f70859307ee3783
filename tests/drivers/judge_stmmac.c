// SPDX-License-Identifier: GPL-2.0
/*
 * ppe_judge: stmmac. The rule parser and what writes the filters' registers are
 * the kernel's; the registers are memory.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "judge.h"
#include "stmmac.h"
#include "dwmac5.h"
#include "stmmac_fpe.h"
#include "stmmac_pcs.h"
#include "stmmac_vlan.h"

/* The rest of the driver, which is not called. */
#define dwmac5_flex_pps_config			NULL
#define dwmac5_fpe_map_preemption_class		NULL
#define dwmac5_rxp_config			NULL
#define dwmac5_safety_feat_config		NULL
#define dwmac5_safety_feat_dump			NULL
#define dwmac5_safety_feat_irq_status		NULL
#define stmmac_dwmac4_set_mac			NULL
#define stmmac_set_mac				NULL
#define stmmac_dwmac4_set_mac_addr(regs, ...)	((void)(regs))
#define stmmac_get_mac_addr(regs, ...)		((void)(regs))
#define stmmac_integrated_pcs_irq(...)		((void)0)
#define stmmac_integrated_pcs_init(...)		0
#define stmmac_get_num_vlan(regs)		0

#include "dwmac4_core.c"
#include "stmmac_tc.c"

/* Up to 15 in hardware. A rule that is tried is the only one: the first. */
#define JUDGE_STMMAC_FILTERS	8

struct judge_stmmac_told {
	u32 packet_filter;
	u32 ctrl;
	u32 l4;
	u32 src;
	u32 dst;
};

static struct stmmac_priv *judge_priv;
static struct mac_device_info judge_mac;
static u32 judge_stmmac_regs[GMAC_L3L4_CTRL(JUDGE_STMMAC_FILTERS) / sizeof(u32)];

static u32 judge_stmmac_reg(u32 offset)
{
	return judge_stmmac_regs[offset / sizeof(u32)];
}

static int judge_stmmac_try(struct net_device *nic, struct flow_cls_offload *cls,
			    void *told)
{
	struct stmmac_priv *priv = judge_priv;
	int i, err;

	priv->dev = nic;
	memset(judge_stmmac_regs, 0, sizeof(judge_stmmac_regs));
	for (i = 0; i < priv->flow_entries_max; i++)
		priv->flow_entries[i] = (struct stmmac_flow_entry){ .idx = i };

	err = dwmac510_tc_ops.setup_cls(priv, cls);
	if (!err)
		*(struct judge_stmmac_told *)told = (struct judge_stmmac_told) {
			.packet_filter = judge_stmmac_reg(GMAC_PACKET_FILTER),
			.ctrl = judge_stmmac_reg(GMAC_L3L4_CTRL(0)),
			.l4 = judge_stmmac_reg(GMAC_L4_ADDR(0)),
			.src = judge_stmmac_reg(GMAC_L3_ADDR0(0)),
			.dst = judge_stmmac_reg(GMAC_L3_ADDR1(0)),
		};
	return err;
}

/* With IPFE, IP packets that pass no filter are dropped. */
static void judge_stmmac_show(struct seq_file *m, const void *data)
{
	const struct judge_stmmac_told *told = data;

	seq_puts(m, told->packet_filter & GMAC_PACKET_FILTER_IPFE ?
		 "drops all IP but" : "drops nothing;");
	seq_puts(m, told->ctrl & GMAC_L4PEN0 ? " UDP" : " TCP");
	if (told->ctrl & GMAC_L3SAM0)
		seq_printf(m, " %ssrc=%pI4h",
			   told->ctrl & GMAC_L3SAIM0 ? "not " : "", &told->src);
	if (told->ctrl & GMAC_L3DAM0)
		seq_printf(m, " %sdst=%pI4h",
			   told->ctrl & GMAC_L3DAIM0 ? "not " : "", &told->dst);
	if (told->ctrl & GMAC_L4SPM0)
		seq_printf(m, " %ssport=%lu",
			   told->ctrl & GMAC_L4SPIM0 ? "not " : "",
			   FIELD_GET(GMAC_L4SP0, told->l4));
	if (told->ctrl & GMAC_L4DPM0)
		seq_printf(m, " %sdport=%lu",
			   told->ctrl & GMAC_L4DPIM0 ? "not " : "",
			   FIELD_GET(GMAC_L4DP0, told->l4));
}

static const struct judge_lax judge_stmmac_lax = {
	.try = judge_stmmac_try,
	.show = judge_stmmac_show,
};

static int judge_stmmac_init(struct device *dev, const void *data)
{
	int err;

	BUILD_BUG_ON(sizeof(struct judge_stmmac_told) > JUDGE_TOLD);
	judge_priv = kvzalloc_obj(*judge_priv);
	if (!judge_priv)
		return -ENOMEM;
	judge_mac.mac = &dwmac510_ops;
	judge_mac.pcsr = (void __iomem *)judge_stmmac_regs;
	judge_priv->device = dev;
	judge_priv->hw = &judge_mac;
	judge_priv->dma_cap.l3l4fnum = JUDGE_STMMAC_FILTERS;
	err = dwmac510_tc_ops.init(judge_priv);
	if (err)
		kvfree(judge_priv);
	else
		judge_lax_init(&judge_stmmac_lax);
	return err;
}

static void judge_stmmac_exit(void)
{
	judge_lax_exit();
	kvfree(judge_priv);
}

static void judge_stmmac_add_port(struct net_device *nic, unsigned int index)
{
}

static const struct judge_driver judge_stmmac = {
	.setup_tc = judge_lax_setup_tc,
	.init = judge_stmmac_init,
	.exit = judge_stmmac_exit,
	.add_port = judge_stmmac_add_port,
	.receive = judge_lax_receive,
	.show_rules = judge_lax_show_rules,
	.show_entries = judge_lax_show_entries,
};

const struct judge_soc judge_stmmac_soc = { "stmmac", &judge_stmmac };

// SPDX-License-Identifier: GPL-2.0
/*
 * ppe_judge: bnxt. The rule parser and what makes the firmware's requests are
 * the kernel's; the firmware says yes, and remembers what it was told last.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/netdevice.h>
#include <net/flow_offload.h>

/* All ports are of one switch, and no indirect blocks are taken. */
#define netdev_port_same_parent_id(a, b)	((void)(a), (void)(b), true)
#define flow_indr_dev_register(cb, priv)	((void)(cb), (void)(priv), 0)
#define flow_indr_dev_unregister(cb, priv, release) \
	((void)(cb), (void)(priv), (void)(release))

#include "bnxt_tc.c"

#include "judge.h"

LIST_HEAD(bnxt_block_cb_list);

/* A request on its way to the firmware. */
struct judge_hwrm {
	union {
		struct hwrm_cfa_flow_alloc_output alloc;
		struct hwrm_cfa_flow_free_output free;
	} resp;
	size_t len;
	bool held;
	u8 req[] __aligned(sizeof(u64));
};

static struct hwrm_cfa_flow_alloc_input judge_bnxt_told;

int __hwrm_req_init(struct bnxt *bp, void **req, u16 req_type, u32 req_len)
{
	struct judge_hwrm *hwrm = kzalloc_flex(*hwrm, req, req_len);

	if (!hwrm)
		return -ENOMEM;
	hwrm->len = req_len;
	((struct input *)hwrm->req)->req_type = cpu_to_le16(req_type);
	*req = hwrm->req;
	return 0;
}

static struct judge_hwrm *judge_hwrm_of(void *req)
{
	return container_of(req, struct judge_hwrm, req);
}

void *hwrm_req_hold(struct bnxt *bp, void *req)
{
	judge_hwrm_of(req)->held = true;
	return &judge_hwrm_of(req)->resp;
}

void hwrm_req_drop(struct bnxt *bp, void *req)
{
	kfree(judge_hwrm_of(req));
}

int hwrm_req_send(struct bnxt *bp, void *req)
{
	if (((struct input *)req)->req_type == cpu_to_le16(HWRM_CFA_FLOW_ALLOC))
		memcpy(&judge_bnxt_told, req, sizeof(judge_bnxt_told));
	if (!judge_hwrm_of(req)->held)
		hwrm_req_drop(bp, req);
	return 0;
}

int hwrm_req_send_silent(struct bnxt *bp, void *req)
{
	return hwrm_req_send(bp, req);
}

static int judge_bnxt_try(struct net_device *nic, struct flow_cls_offload *cls,
			  void *told)
{
	struct flow_cls_offload destroy = {
		.command = FLOW_CLS_DESTROY,
		.cookie = cls->cookie,
	};
	struct bnxt *bp = netdev_priv(nic);
	int err = bnxt_init_tc(bp);

	if (err)
		return err;
	err = bnxt_tc_setup_flower(bp, bp->pf.fw_fid, cls);
	if (!err) {
		memcpy(told, &judge_bnxt_told, sizeof(judge_bnxt_told));
		bnxt_tc_setup_flower(bp, bp->pf.fw_fid, &destroy);
	}
	bnxt_shutdown_tc(bp);
	return err;
}

static void judge_bnxt_show(struct seq_file *m, const void *data)
{
	static const struct {
		u16 flag;
		const char *name;
	} flags[] = {
		{ CFA_FLOW_ALLOC_REQ_ACTION_FLAGS_FWD, "FWD" },
		{ CFA_FLOW_ALLOC_REQ_ACTION_FLAGS_DROP, "DROP" },
		{ CFA_FLOW_ALLOC_REQ_ACTION_FLAGS_L2_HEADER_REWRITE,
		  "L2_HEADER_REWRITE" },
		{ CFA_FLOW_ALLOC_REQ_ACTION_FLAGS_NAT_SRC, "NAT_SRC" },
		{ CFA_FLOW_ALLOC_REQ_ACTION_FLAGS_NAT_DEST, "NAT_DEST" },
		{ CFA_FLOW_ALLOC_REQ_ACTION_FLAGS_TTL_DECREMENT,
		  "TTL_DECREMENT" },
	};
	const struct hwrm_cfa_flow_alloc_input *told = data;
	u16 action = le16_to_cpu(told->action_flags);
	int i;

	seq_printf(m, "forwards %s",
		   told->ip_proto == IPPROTO_UDP ? "UDP" : "TCP");
	if (told->ethertype == htons(ETH_P_IP))
		seq_printf(m, " src=%pI4 dst=%pI4", told->ip_src, told->ip_dst);
	else
		seq_printf(m, " src=%pI6c dst=%pI6c", told->ip_src,
			   told->ip_dst);
	seq_printf(m, " sport=%u dport=%u, with", ntohs(told->l4_src_port),
		   ntohs(told->l4_dst_port));
	for (i = 0; i < ARRAY_SIZE(flags); i++)
		if (action & flags[i].flag)
			seq_printf(m, " %s", flags[i].name);
}

static const struct judge_lax judge_bnxt_lax = {
	.try = judge_bnxt_try,
	.show = judge_bnxt_show,
};

static int judge_bnxt_init(struct device *dev, const void *data)
{
	BUILD_BUG_ON(sizeof(judge_bnxt_told) > JUDGE_TOLD);
	judge_lax_init(&judge_bnxt_lax);
	return 0;
}

static void judge_bnxt_add_port(struct net_device *nic, unsigned int index)
{
	struct bnxt *bp = netdev_priv(nic);

	bp->dev = nic;
	bp->hwrm_spec_code = 0x10803;
	bp->pf.fw_fid = index + 1;
}

static const struct judge_driver judge_bnxt = {
	.priv_size = sizeof(struct bnxt),
	.setup_tc = judge_lax_setup_tc,
	.init = judge_bnxt_init,
	.exit = judge_lax_exit,
	.add_port = judge_bnxt_add_port,
	.receive = judge_lax_receive,
	.show_rules = judge_lax_show_rules,
	.show_entries = judge_lax_show_entries,
};

const struct judge_soc judge_bnxt_soc = { "bnxt", &judge_bnxt };

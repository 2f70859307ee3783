// SPDX-License-Identifier: GPL-2.0
/*
 * emunic: profiles: which words of "accept" make the NIC take and refuse what a
 * real driver does. Places are in drivers/net/ethernet/ of Linux 7.3; mlx5 is
 * mellanox/mlx5/core/, mtk is mediatek/mtk_ppe_offload.c, airoha is
 * airoha/airoha_ppe.c. What no profile has: firmware that is older than the
 * driver, and mtk's and airoha's threshold of 30 packets/s before they bind.
 */
#include <linux/string.h>

#include "emunic.h"

/*
 * The parser that TC_SETUP_FT and TC_SETUP_BLOCK share:
 *  8021AD          an S-VLAN match, en_tc.c:2812; any TPID is pushed,
 *                  en/tc/act/vlan.c:70
 *  TTL_ADD         ADD of TTL, en_tc.c:3251; nobody does it unasked
 *  GRE             any protocol without PORTS, en_tc.c:2943
 *  V6_MANGLE       en_tc.c:3255
 *  (PPPOE_*)       neither a key, en_tc.c:2725, nor an action,
 *                  en/tc/act/act.c:9
 *  (HAIRPIN)       not to itself, en/tc/act/mirred.c:139, 266
 *  (ANY_PORT)      META is the port's own, en_tc.c:2670
 *  (NEED_META)     may be missing, en_tc.c:2644
 *  L4_ONLY         -EINVAL for PORTS, en_tc.c:3065; IP headers, en_tc.c:3558
 *  CSUM_MANGLED    en/tc/act/csum.c:17
 *  VLAN_REWRITE    en/tc/act/vlan.c:154, vlan_mangle.c:31; depth of two,
 *                  vlan.c:42
 *  DMAC_MATCH      en_tc.c:2729, with a mask, :2896
 *  PRIO_RANGE      FDB_TC_MAX_PRIO of NICs without ignore_flow_level,
 *                  lib/fs_chains.c:132; en/rep/tc.c:230
 *  UNKNOWN_EINVAL  en_tc.c:4943, 610
 *  REDIRECT_VLAN_DEV  en/tc/act/mirred.c:244
 *  (REPLAY)        it does, and crashes as the NIC would
 *  UNLOCKED        en_main.c:4022, en/rep/tc.c:253
 */
#define EMUNIC_MLX5							\
	(BIT(EMUNIC_UNLOCKED) |						\
	 BIT(EMUNIC_BLOCK) | BIT(EMUNIC_8021AD) | BIT(EMUNIC_TTL_ADD) |	\
	 BIT(EMUNIC_GRE) | BIT(EMUNIC_V6_MANGLE) | BIT(EMUNIC_L4_ONLY) | \
	 BIT(EMUNIC_CSUM_MANGLED) | BIT(EMUNIC_VLAN_REWRITE) |		\
	 BIT(EMUNIC_PRIO_RANGE) | BIT(EMUNIC_UNKNOWN_EINVAL) |		\
	 BIT(EMUNIC_REDIRECT_VLAN_DEV) | BIT(EMUNIC_DMAC_MATCH))

/*
 * FT, BLOCK         mtk:671, airoha_eth.c: either, with one callback
 * NEED_META         mtk:310, airoha:1105
 * NEED_MACS         -EINVAL, mtk:407, airoha:1189
 * ANY_KEY           neither used_keys nor tags are looked at; the hardware
 *                   takes off what is there
 * (DMAC_MATCH)      not looked at with IP addresses, mtk:336, airoha:1129
 * (8021AD)          only 0x8100 is pushed, mtk:385, airoha:1168
 * (GRE)             PORTS are needed, mtk:425, airoha:1207
 * (TTL_ADD)         no FLOW_ACTION_ADD, mtk:402, airoha:1184; the hardware
 *                   does it, mtk_ppe.c:225, airoha:361
 * (V6_MANGLE)       mtk:469, airoha:1248
 * MANGLE_EINVAL     of ports and IPv4, mtk:149, 169, airoha:254, 272
 * PPPOE_*           push, mtk:394, airoha:1177; the hardware decapsulates, and
 *                   the key is not looked at
 * HAIRPIN           no check
 * PUSH_OUTER_FIRST  vlan1 is the outer tag, mtk:486, airoha:464
 * OVERCOMMIT        taking a rule only queues it, mtk:509, airoha:1269
 * (INDIRECT)        neither calls flow_indr_dev_register()
 * (UNLOCKED)        neither; nobody but tc asks
 */
#define EMUNIC_PPE							\
	(BIT(EMUNIC_FT) | BIT(EMUNIC_BLOCK) | BIT(EMUNIC_NEED_META) |	\
	 BIT(EMUNIC_NEED_MACS) | BIT(EMUNIC_ANY_KEY) |			\
	 BIT(EMUNIC_MANGLE_EINVAL) | BIT(EMUNIC_PPPOE_PUSH) |		\
	 BIT(EMUNIC_PPPOE_MATCH) | BIT(EMUNIC_HAIRPIN) |		\
	 BIT(EMUNIC_PUSH_OUTER_FIRST) | BIT(EMUNIC_OVERCOMMIT))

/*
 * broadcom/bnxt/bnxt_tc.c, which says yes to what it does not know:
 * BLOCK             only, and (UNLOCKED), bnxt.c:15851, bnxt_vfr.c:176
 * ANY_KEY           used_keys is only looked at for CONTROL and BASIC, :377;
 *                   any tag is taken for 0x8100, :422
 * ANY_ACTION        :340; neither ADD nor CSUM nor PPPOE_PUSH is done
 * (TTL_ADD)         and nobody does it unasked: no TTL_DECREMENT among the
 *                   flags of the request, :749
 * 8021AD            any TPID is pushed, :94
 * GRE               anything without PORTS, :1048
 * V6_MANGLE         :231
 * MANGLE_EINVAL     :223, :276
 * HAIRPIN           no check
 * FOREIGN_EINVAL    :361
 * UNKNOWN_EINVAL    :1622
 */
#define EMUNIC_BNXT							\
	(BIT(EMUNIC_BLOCK) | BIT(EMUNIC_ANY_KEY) |			\
	 BIT(EMUNIC_ANY_ACTION) | BIT(EMUNIC_8021AD) | BIT(EMUNIC_GRE) | \
	 BIT(EMUNIC_V6_MANGLE) | BIT(EMUNIC_MANGLE_EINVAL) |		\
	 BIT(EMUNIC_HAIRPIN) | BIT(EMUNIC_FOREIGN_EINVAL) |		\
	 BIT(EMUNIC_UNKNOWN_EINVAL))

static const struct {
	const char *name;
	unsigned long words;
	u32 capacity;
} emunic_profiles[] = {
	/* representors of VFs and SFs, en/rep/tc.c:247; FT_TBL_SZ,
	 * lib/fs_chains.c:19
	 */
	{ "mlx5-ft", EMUNIC_MLX5 | BIT(EMUNIC_FT), 64 * 1024 },
	/* PF and uplink, en_main.c:4004: no TC_SETUP_FT; priorities from 1.
	 * TC_SETUP_FT for VLAN devices over the uplink, en/rep/tc.c:459
	 */
	{ "mlx5-tc", EMUNIC_MLX5 | BIT(EMUNIC_NEED_PRIO) |
	  BIT(EMUNIC_INDIRECT), 0 },
	/* mtk:384, 395; MTK_PPE_ENTRIES, mtk_ppe.h:12 */
	{ "mtk_ppe", EMUNIC_PPE | BIT(EMUNIC_PPPOE_IS_TAG), 16 * 1024 },
	/* airoha:384, 458; airoha_eth.h:54, 56 */
	{ "airoha_ppe", EMUNIC_PPE | BIT(EMUNIC_FOREIGN_EINVAL) |
	  BIT(EMUNIC_V6_PORT_MAC), 24 * 1024 },
	{ "bnxt", EMUNIC_BNXT, 0 },
	/* no driver in particular: one that reads rules as mlx5 does, but relies
	 * on the RTNL that tc takes for it, net/sched/cls_api.c:1656
	 */
	{ "tc-rtnl", (EMUNIC_MLX5 & ~BIT(EMUNIC_UNLOCKED)) |
	  BIT(EMUNIC_NEED_PRIO) | BIT(EMUNIC_NEED_RTNL), 0 },
};

const char *emunic_profile_name(void)
{
	int i;

	lockdep_assert_held(&emunic.lock);
	for (i = 0; i < ARRAY_SIZE(emunic_profiles); i++)
		if (emunic.accept == emunic_profiles[i].words &&
		    emunic.capacity == emunic_profiles[i].capacity)
			return emunic_profiles[i].name;
	return emunic.accept == emunic_default_words() && !emunic.capacity ?
	       "none" : "custom";
}

int emunic_profile_set(const char *name)
{
	int i;

	lockdep_assert_held(&emunic.lock);
	if (!strcmp(name, "none")) {
		WRITE_ONCE(emunic.accept, emunic_default_words());
		emunic.capacity = 0;
		return 0;
	}
	for (i = 0; i < ARRAY_SIZE(emunic_profiles); i++) {
		if (strcmp(name, emunic_profiles[i].name))
			continue;
		WRITE_ONCE(emunic.accept, emunic_profiles[i].words);
		emunic.capacity = emunic_profiles[i].capacity;
		return 0;
	}
	return -EINVAL;
}

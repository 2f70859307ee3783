// SPDX-License-Identifier: GPL-2.0
/* ppe_judge: the module, its debugfs files and counters. See judge.h. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/debugfs.h>
#include <linux/device/faux.h>
#include <linux/module.h>
#include <linux/vmalloc.h>
#include <net/ipv6.h>

#include "judge.h"

static char *soc = "mt7986";
module_param(soc, charp, 0444);
MODULE_PARM_DESC(soc, "mt7621, mt7986, mt7988, en7581, an7583, stmmac or bnxt");

static const struct judge_driver *judge_driver;
static struct faux_device *judge_device;
static struct dentry *judge_dir;

enum judge_counter {
	JUDGE_REPLACE_OK,
	JUDGE_REPLACE_EOPNOTSUPP,
	JUDGE_REPLACE_EINVAL,
	JUDGE_REPLACE_EEXIST,
	JUDGE_REPLACE_FAILED,	/* in any way, those above too */
	JUDGE_DESTROY_OK,
	JUDGE_DESTROY_FAILED,
	JUDGE_STATS_OK,
	JUDGE_STATS_FAILED,
	JUDGE_OTHER,
	JUDGE_NUM_COUNTERS,
};

static const char * const judge_counter_names[] = {
	[JUDGE_REPLACE_OK] = "replace_ok",
	[JUDGE_REPLACE_EOPNOTSUPP] = "replace_eopnotsupp",
	[JUDGE_REPLACE_EINVAL] = "replace_einval",
	[JUDGE_REPLACE_EEXIST] = "replace_eexist",
	[JUDGE_REPLACE_FAILED] = "replace_failed",
	[JUDGE_DESTROY_OK] = "destroy_ok",
	[JUDGE_DESTROY_FAILED] = "destroy_failed",
	[JUDGE_STATS_OK] = "stats_ok",
	[JUDGE_STATS_FAILED] = "stats_failed",
	[JUDGE_OTHER] = "other",
};

static atomic_t judge_counters[JUDGE_NUM_COUNTERS];

static void judge_count(enum judge_counter counter)
{
	atomic_inc(&judge_counters[counter]);
}

int judge_answered(const struct flow_cls_offload *cls, int err)
{
	switch (cls->command) {
	case FLOW_CLS_REPLACE:
		judge_count(err ? JUDGE_REPLACE_FAILED : JUDGE_REPLACE_OK);
		if (err == -EOPNOTSUPP)
			judge_count(JUDGE_REPLACE_EOPNOTSUPP);
		else if (err == -EINVAL)
			judge_count(JUDGE_REPLACE_EINVAL);
		else if (err == -EEXIST)
			judge_count(JUDGE_REPLACE_EEXIST);
		break;
	case FLOW_CLS_DESTROY:
		judge_count(err ? JUDGE_DESTROY_FAILED : JUDGE_DESTROY_OK);
		break;
	case FLOW_CLS_STATS:
		judge_count(err ? JUDGE_STATS_FAILED : JUDGE_STATS_OK);
		break;
	default:
		judge_count(JUDGE_OTHER);
		break;
	}
	return err;
}

void judge_show_entry(struct seq_file *m, const struct judge_entry *entry)
{
	__be32 src[4], dst[4];

	seq_printf(m, "type=%s l4=%s ", entry->type,
		   entry->is_udp ? "udp" : "tcp");
	if (entry->is_v4) {
		seq_printf(m, "src=%pI4h dst=%pI4h sport=%u dport=%u ",
			   &entry->src[0], &entry->dst[0], entry->sport,
			   entry->dport);
		seq_printf(m, "nsrc=%pI4h ndst=%pI4h nsport=%u ndport=%u ",
			   &entry->new_src, &entry->new_dst, entry->new_sport,
			   entry->new_dport);
	} else {
		ipv6_addr_cpu_to_be32(src, entry->src);
		ipv6_addr_cpu_to_be32(dst, entry->dst);
		seq_printf(m, "src=%pI6c dst=%pI6c sport=%u dport=%u ", src,
			   dst, entry->sport, entry->dport);
	}
	if (entry->smac_id >= 0)
		seq_printf(m, "smac=#%d ", entry->smac_id);
	else
		seq_printf(m, "smac=%pM ", entry->smac);
	seq_printf(m, "dmac=%pM layers=%u vlan1=%u vlan2=%u etype=%04x ",
		   entry->dmac, entry->layers, entry->vlan1, entry->vlan2,
		   entry->etype);
	if (entry->has_pppoe)
		seq_printf(m, "pppoe=%u ", entry->pppoe);
	else
		seq_printf(m, "pppoe=%s ", entry->pppoe ? "stray" : "none");
	seq_printf(m, "out=%u ttl=%s\n", entry->out,
		   entry->dec_ttl ? "dec" : "keep");
}

static int rules_show(struct seq_file *m, void *unused)
{
	judge_driver->show_rules(m);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(rules);

static int entries_show(struct seq_file *m, void *unused)
{
	judge_driver->show_entries(m);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(entries);

static int counters_show(struct seq_file *m, void *unused)
{
	unsigned int i;

	for (i = 0; i < JUDGE_NUM_COUNTERS; i++)
		seq_printf(m, "%s %d\n", judge_counter_names[i],
			   atomic_read(&judge_counters[i]));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(counters);

static void judge_table_free(void *table)
{
	vfree(table);
}

void *judge_table_alloc(struct device *dev, size_t size)
{
	void *table = vzalloc(size);

	if (!table || devm_add_action_or_reset(dev, judge_table_free, table))
		return NULL;
	return table;
}

static const struct judge_soc *judge_soc_find(const struct judge_soc *socs,
					      unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		if (!strcmp(socs[i].name, soc))
			return &socs[i];
	}
	return NULL;
}

static int __init judge_init(void)
{
	const struct judge_soc *found;
	int err;

	found = judge_soc_find(judge_mtk_socs, judge_mtk_num_socs);
	if (!found)
		found = judge_soc_find(judge_airoha_socs,
				       judge_airoha_num_socs);
	if (!found)
		found = judge_soc_find(&judge_stmmac_soc, 1);
	if (!found)
		found = judge_soc_find(&judge_bnxt_soc, 1);
	if (!found) {
		pr_err("soc=%s is unknown\n", soc);
		return -EINVAL;
	}
	judge_driver = found->driver;

	judge_device = faux_device_create(KBUILD_MODNAME, NULL, NULL);
	if (!judge_device)
		return -ENODEV;
	err = judge_driver->init(&judge_device->dev, found->data);
	if (err)
		goto err_device;
	err = judge_ports_init(judge_driver);
	if (err)
		goto err_driver;

	judge_dir = debugfs_create_dir(KBUILD_MODNAME, NULL);
	debugfs_create_file("rules", 0400, judge_dir, NULL, &rules_fops);
	debugfs_create_file("entries", 0400, judge_dir, NULL, &entries_fops);
	debugfs_create_file("counters", 0400, judge_dir, NULL, &counters_fops);
	return 0;

err_driver:
	judge_driver->exit();
err_device:
	faux_device_destroy(judge_device);
	return err;
}

static void __exit judge_exit(void)
{
	debugfs_remove(judge_dir);
	judge_ports_exit();
	judge_driver->exit();
	faux_device_destroy(judge_device);
}

module_init(judge_init);
module_exit(judge_exit);

MODULE_DESCRIPTION("Flow offload code of real drivers, over memory");
MODULE_LICENSE("GPL");

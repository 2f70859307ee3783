// SPDX-License-Identifier: GPL-2.0
/* emunic: what debugfs shows: rules and counters. */
#include <linux/etherdevice.h>
#include <linux/debugfs.h>
#include <linux/if_vlan.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <net/ipv6.h>

#include "emunic.h"

static const char * const emunic_stat_names[EMUNIC_NUM_STATS] = {
	[EMUNIC_NIC_PACKETS] = "nic_packets",
	[EMUNIC_NIC_BYTES] = "nic_bytes",
	[EMUNIC_CPU_PACKETS] = "cpu_packets",
	[EMUNIC_CPU_BYTES] = "cpu_bytes",
	[EMUNIC_HOST_TX_PACKETS] = "host_tx_packets",
	[EMUNIC_HOST_TX_BYTES] = "host_tx_bytes",
	[EMUNIC_EXC_TTL] = "exception_ttl",
	[EMUNIC_EXC_TCP_FLAGS] = "exception_tcp_flags",
	[EMUNIC_EXC_FRAGMENT] = "exception_fragment",
	[EMUNIC_EXC_OPTIONS] = "exception_options",
	[EMUNIC_EXC_MTU] = "exception_mtu",
	[EMUNIC_EXC_EGRESS] = "exception_egress",
	[EMUNIC_EXC_OTHER] = "exception_other",
};

static const char * const emunic_total_names[EMUNIC_NUM_TOTALS] = {
	[EMUNIC_REPLACE_OK] = "replace_ok",
	[EMUNIC_REPLACE_FAILED] = "replace_failed",
	[EMUNIC_REPLACE_EEXIST] = "replace_eexist",
	[EMUNIC_REPLACE_DUP_MATCH] = "replace_dup_match",
	[EMUNIC_REPLACE_DUP_KEPT] = "replace_dup_kept",
	[EMUNIC_REPLACE_ENOSPC] = "replace_enospc",
	[EMUNIC_REPLACE_EOPNOTSUPP] = "replace_eopnotsupp",
	[EMUNIC_DESTROY_OK] = "destroy_ok",
	[EMUNIC_DESTROY_FAILED] = "destroy_failed",
	[EMUNIC_DESTROY_ENOENT] = "destroy_enoent",
	[EMUNIC_STATS_OK] = "stats_ok",
	[EMUNIC_STATS_FAILED] = "stats_failed",
	[EMUNIC_STATS_ENOENT] = "stats_enoent",
	[EMUNIC_BIND_OK] = "bind_ok",
	[EMUNIC_BIND_FAILED] = "bind_failed",
	[EMUNIC_UNBIND_OK] = "unbind_ok",
	[EMUNIC_UNBIND_FAILED] = "unbind_failed",
	[EMUNIC_EVICTED] = "evicted",
	[EMUNIC_VANISHED] = "vanished",
	[EMUNIC_FAULTS] = "faults",
	[EMUNIC_MOST_AT_ONCE] = "most_at_once",
};

static void emunic_show_tags(struct seq_file *m, const struct emunic_tag *tag,
			     unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		if (i)
			seq_putc(m, '.');
		if (tag[i].tpid != htons(ETH_P_8021Q))
			seq_printf(m, "%x:", ntohs(tag[i].tpid));
		seq_printf(m, "%u", tag[i].tci);
	}
}

static void emunic_show_addr(struct seq_file *m, const char *name,
			     const struct emunic_key *key,
			     const struct in6_addr *addr)
{
	if (key->n_proto == htons(ETH_P_IP))
		seq_printf(m, "%s%pI4", name, &addr->s6_addr32[0]);
	else
		seq_printf(m, "%s%pI6c", name, addr);
}

/* An address of which only some words are written shows in full after "word". */
static void emunic_show_rewrite(struct seq_file *m, const char *name,
				const struct emunic_key *key,
				const struct in6_addr *addr, u8 words)
{
	bool v4 = key->n_proto == htons(ETH_P_IP);

	if (!words)
		return;
	seq_printf(m, "%s:", name);
	if (!v4 && words != 0xf)
		seq_printf(m, "word%#x:", words);
	emunic_show_addr(m, "", key, addr);
	seq_putc(m, ',');
}

static void emunic_show_actions(struct seq_file *m,
				const struct emunic_rule *rule)
{
	const struct emunic_prog *prog = &rule->prog;
	unsigned int i;

	if (prog->set_smac)
		seq_printf(m, "smac:%pM,", prog->eth + ETH_ALEN);
	if (prog->set_dmac)
		seq_printf(m, "dmac:%pM,", prog->eth);
	for (i = 0; i < prog->num_pops; i++)
		seq_puts(m, "vlan_pop,");
	if (prog->rewrite)
		seq_printf(m, "vlan_id:%u,", prog->rewrite_vid);
	if (prog->pppoe)
		seq_printf(m, "pppoe_push:%u,", prog->pppoe_sid);
	if (prog->num_tags) {
		seq_puts(m, "vlan_push:");
		emunic_show_tags(m, prog->tag, prog->num_tags);
		seq_putc(m, ',');
	}
	emunic_show_rewrite(m, "src", &rule->key, &prog->src, prog->src_words);
	if (prog->set_sport)
		seq_printf(m, "sport:%u,", ntohs(prog->sport));
	emunic_show_rewrite(m, "dst", &rule->key, &prog->dst, prog->dst_words);
	if (prog->set_dport)
		seq_printf(m, "dport:%u,", ntohs(prog->dport));
	if (prog->ttl_mode == EMUNIC_TTL_DEC)
		seq_puts(m, "ttl_dec,");
	if (prog->ttl_mode == EMUNIC_TTL_SET)
		seq_printf(m, "ttl:%u,", prog->ttl);
	seq_puts(m, "redirect");
}

static int emunic_rules_show(struct seq_file *m, void *v)
{
	const struct emunic_rule *rule = v;
	const struct emunic_key *key = &rule->key;
	const char *via = rule->via_ft ? "ft" : "block";

	if (rule->prog.dev_pops)
		via = rule->via_ft ? "indr" : "indr_block";
	seq_printf(m, "cookie=%#lx via=%s in=nic%u vlan=", rule->cookie, via,
		   key->port);
	if (key->num_tags)
		emunic_show_tags(m, key->tag, key->num_tags);
	else
		seq_puts(m, "none");
	if (key->pppoe)
		seq_printf(m, " pppoe=%u", key->pppoe_sid);
	if (!is_zero_ether_addr(key->dmac))
		seq_printf(m, " to=%pM", key->dmac);
	seq_printf(m, " proto=%s", key->l4proto == IPPROTO_TCP ? "tcp" :
				   key->l4proto == IPPROTO_UDP ? "udp" : "gre");
	emunic_show_addr(m, " src=", key, &key->src);
	seq_printf(m, " sport=%u", ntohs(key->sport));
	emunic_show_addr(m, " dst=", key, &key->dst);
	seq_printf(m, " dport=%u out=%s%u actions=", ntohs(key->dport),
		   rule->prog.out_dev ? "dev" : "nic",
		   rule->prog.out_dev ?: rule->prog.out);
	emunic_show_actions(m, rule);
	seq_printf(m, " packets=%llu bytes=%llu idle_ms=%u%s\n",
		   atomic64_read(&rule->packets), atomic64_read(&rule->bytes),
		   jiffies_to_msecs(jiffies - READ_ONCE(rule->last_used)),
		   READ_ONCE(rule->waiting) ? " waiting" : "");
	return 0;
}

/* The position is an id, so nothing shows twice and what stays always shows. */
static void *emunic_rules_start(struct seq_file *m, loff_t *pos)
	__acquires(RCU)
{
	unsigned long id = *pos;
	void *rule;

	rcu_read_lock();
	rule = xa_find(&emunic.rules, &id, ULONG_MAX, XA_PRESENT);
	*pos = id;
	return rule;
}

static void *emunic_rules_next(struct seq_file *m, void *v, loff_t *pos)
{
	unsigned long id = *pos;
	void *rule;

	rule = xa_find_after(&emunic.rules, &id, ULONG_MAX, XA_PRESENT);
	*pos = rule ? id : *pos + 1;
	return rule;
}

static void emunic_rules_stop(struct seq_file *m, void *v)
	__releases(RCU)
{
	rcu_read_unlock();
}

/* Addresses as packets have them, or as they leave. */
static void emunic_show_ends(struct seq_file *m, const struct emunic_rule *rule,
			     bool new, bool ports)
{
	const struct emunic_key *key = &rule->key;
	const struct emunic_prog *prog = &rule->prog;
	struct in6_addr src = key->src, dst = key->dst;
	__be16 sport = key->sport, dport = key->dport;
	unsigned int i;

	for (i = 0; new && i < 4; i++) {
		if (prog->src_words & BIT(i))
			src.s6_addr32[i] = prog->src.s6_addr32[i];
		if (prog->dst_words & BIT(i))
			dst.s6_addr32[i] = prog->dst.s6_addr32[i];
	}
	if (new && prog->set_sport)
		sport = prog->sport;
	if (new && prog->set_dport)
		dport = prog->dport;

	seq_printf(m, key->n_proto == htons(ETH_P_IP) ? "%pI4" : "%pI6", &src);
	if (ports)
		seq_printf(m, ":%u", ntohs(sport));
	seq_printf(m, key->n_proto == htons(ETH_P_IP) ? "->%pI4" : "->%pI6",
		   &dst);
	if (ports)
		seq_printf(m, ":%u", ntohs(dport));
}

/*
 * The table as mtk_eth_soc and airoha_eth show theirs in debugfs, for those who
 * compare it with what should be there.
 */
static int emunic_entries_show(struct seq_file *m, void *v)
{
	const struct emunic_rule *rule = v;
	const struct emunic_prog *prog = &rule->prog;
	bool v4 = rule->key.n_proto == htons(ETH_P_IP);
	bool ports = rule->key.l4proto != IPPROTO_GRE;
	bool waiting = READ_ONCE(rule->waiting);
	u32 ib1;

	/* MTK_FOE_IB1_STATE, _PACKET_TYPE and _UDP */
	ib1 = (waiting ? 1 : 2) << 28 | (v4 ? !ports : 4 + ports) << 25;
	if (rule->key.l4proto == IPPROTO_UDP)
		ib1 |= BIT(30);

	seq_printf(m, "%05lx %s IPv%c %cT orig=", rule->id,
		   waiting ? "UNB" : "BND", v4 ? '4' : '6', ports ? '5' : '3');
	emunic_show_ends(m, rule, false, ports);
	if (v4) {
		seq_puts(m, " new=");
		emunic_show_ends(m, rule, true, ports);
	}
	seq_printf(m, " eth=%pM->%pM etype=%04x vlan=%u,%u ib1=%08x ib2=%08x packets=%llu bytes=%llu\n",
		   prog->eth + ETH_ALEN, prog->eth, ntohs(rule->key.n_proto),
		   prog->num_tags ? prog->tag[0].tci & VLAN_VID_MASK :
		   prog->rewrite ? prog->rewrite_vid : 0,
		   prog->num_tags > 1 ? prog->tag[1].tci & VLAN_VID_MASK : 0,
		   ib1, prog->out, atomic64_read(&rule->packets),
		   atomic64_read(&rule->bytes));
	return 0;
}

static const struct seq_operations emunic_entries_sops = {
	.start = emunic_rules_start,
	.next = emunic_rules_next,
	.stop = emunic_rules_stop,
	.show = emunic_entries_show,
};
DEFINE_SEQ_ATTRIBUTE(emunic_entries);

static const struct seq_operations emunic_rules_sops = {
	.start = emunic_rules_start,
	.next = emunic_rules_next,
	.stop = emunic_rules_stop,
	.show = emunic_rules_show,
};
DEFINE_SEQ_ATTRIBUTE(emunic_rules);

/* Since the module was loaded, without the base of the last reset. */
static void emunic_read_port(const struct emunic_port *port, u64 *stat)
{
	u64 val[EMUNIC_NUM_STATS];
	unsigned int start;
	int cpu, i;

	memset(stat, 0, sizeof(val));
	for_each_possible_cpu(cpu) {
		struct emunic_pcpu *pcpu = per_cpu_ptr(port->pcpu, cpu);

		do {
			start = u64_stats_fetch_begin(&pcpu->sync);
			for (i = 0; i < EMUNIC_NUM_STATS; i++)
				val[i] = u64_stats_read(&pcpu->stat[i]);
		} while (u64_stats_fetch_retry(&pcpu->sync, start));
		for (i = 0; i < EMUNIC_NUM_STATS; i++)
			stat[i] += val[i];
	}
}

static int emunic_counters_show(struct seq_file *m, void *v)
{
	u64 sum[EMUNIC_NUM_STATS] = {};
	u64 (*stat)[EMUNIC_NUM_STATS];
	struct emunic_port *port;
	unsigned int p;
	int i;

	stat = kmalloc_array(emunic.num_ports, sizeof(*stat), GFP_KERNEL);
	if (!stat)
		return -ENOMEM;

	mutex_lock(&emunic.lock);
	for (p = 0; p < emunic.num_ports; p++) {
		port = &emunic.port[p];
		emunic_read_port(port, stat[p]);
		for (i = 0; i < EMUNIC_NUM_STATS; i++) {
			stat[p][i] -= port->base[i];
			sum[i] += stat[p][i];
		}
	}
	seq_printf(m, "rules %u\nrules_max %u\n", emunic.num_rules,
		   emunic.rules_max);
	for (i = 0; i < EMUNIC_NUM_TOTALS; i++)
		seq_printf(m, "%s %llu\n", emunic_total_names[i],
			   emunic.total[i]);
	for (i = 0; i < EMUNIC_NUM_STATS; i++)
		seq_printf(m, "%s %llu\n", emunic_stat_names[i], sum[i]);
	for (p = 0; p < emunic.num_ports; p++) {
		port = &emunic.port[p];
		seq_printf(m, "nic%u.present %d\n", p, port->present);
		seq_printf(m, "nic%u.rules %u\n", p, port->num_rules);
		seq_printf(m, "nic%u.bound_ft %d\n", p, emunic_bound_ft(port));
		seq_printf(m, "nic%u.bound_block %d\n", p,
			   emunic_bound_block(port));
		seq_printf(m, "nic%u.bound_indr %u\n", p,
			   emunic_bound_indr(port));
		for (i = 0; i < EMUNIC_NUM_STATS; i++)
			seq_printf(m, "nic%u.%s %llu\n", p,
				   emunic_stat_names[i], stat[p][i]);
	}
	mutex_unlock(&emunic.lock);
	kfree(stat);
	return 0;
}

static ssize_t emunic_counters_write(struct file *file,
				     const char __user *ubuf, size_t len,
				     loff_t *ppos)
{
	unsigned int p;
	int err, val;

	err = kstrtoint_from_user(ubuf, len, 0, &val);
	if (err)
		return err;
	if (val)
		return -EINVAL;

	mutex_lock(&emunic.lock);
	for (p = 0; p < emunic.num_ports; p++)
		emunic_read_port(&emunic.port[p], emunic.port[p].base);
	memset(emunic.total, 0, sizeof(emunic.total));
	emunic.rules_max = emunic.num_rules;
	mutex_unlock(&emunic.lock);
	return len;
}
DEFINE_SHOW_STORE_ATTRIBUTE(emunic_counters);

void emunic_debugfs_init(void)
{
	emunic.dir = debugfs_create_dir(EMUNIC_NAME, NULL);
	debugfs_create_file("rules", 0400, emunic.dir, NULL,
			    &emunic_rules_fops);
	debugfs_create_file("counters", 0600, emunic.dir, NULL,
			    &emunic_counters_fops);
	emunic_knobs_debugfs(emunic.dir);
	emunic.ppe_dir = debugfs_create_dir("ppe0", NULL);
	debugfs_create_file("entries", 0444, emunic.ppe_dir, NULL,
			    &emunic_entries_fops);
}

void emunic_debugfs_exit(void)
{
	debugfs_remove_recursive(emunic.ppe_dir);
	debugfs_remove_recursive(emunic.dir);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * ppe_judge: drivers that take rules for tc only, and take more than they
 * understand. What a driver looks at is found by trying: of each rule that it
 * takes it is given all those too that lack one key or one kind of action. If
 * it tells the hardware the same then, that was nothing to it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/moduleparam.h>
#include <net/pkt_cls.h>

#include "judge.h"

static bool unlocked;
module_param(unlocked, bool, 0444);
MODULE_PARM_DESC(unlocked, "stmmac, bnxt: claim to do without RTNL, so that rules come");

#define JUDGE_NAMES	256

/* A rule that was taken. */
struct judge_rule {
	struct list_head list;
	unsigned long cookie;
	struct net_device *nic;
	char keys[JUDGE_NAMES];
	char no_keys[JUDGE_NAMES];	/* that make no difference */
	char actions[JUDGE_NAMES];
	char no_actions[JUDGE_NAMES];
	u8 told[JUDGE_TOLD];
};

static const struct judge_lax *judge_lax;
static LIST_HEAD(judge_rules);
static DEFINE_MUTEX(judge_mutex);

static const char * const judge_keys[FLOW_DISSECTOR_KEY_MAX] = {
	[FLOW_DISSECTOR_KEY_META] = "META",
	[FLOW_DISSECTOR_KEY_CONTROL] = "CONTROL",
	[FLOW_DISSECTOR_KEY_BASIC] = "BASIC",
	[FLOW_DISSECTOR_KEY_ETH_ADDRS] = "ETH_ADDRS",
	[FLOW_DISSECTOR_KEY_VLAN] = "VLAN",
	[FLOW_DISSECTOR_KEY_CVLAN] = "CVLAN",
	[FLOW_DISSECTOR_KEY_PPPOE] = "PPPOE",
	[FLOW_DISSECTOR_KEY_IPV4_ADDRS] = "IPV4_ADDRS",
	[FLOW_DISSECTOR_KEY_IPV6_ADDRS] = "IPV6_ADDRS",
	[FLOW_DISSECTOR_KEY_PORTS] = "PORTS",
	[FLOW_DISSECTOR_KEY_TCP] = "TCP",
};

/* The field that an action rewrites, if it does. */
static const char *judge_field(const struct flow_action_entry *act)
{
	u32 offset = act->mangle.offset;

	if (act->id != FLOW_ACTION_MANGLE && act->id != FLOW_ACTION_ADD)
		return "";
	switch (act->mangle.htype) {
	case FLOW_ACT_MANGLE_HDR_TYPE_ETH:
		return " MAC";
	case FLOW_ACT_MANGLE_HDR_TYPE_IP4:
		return offset == offsetof(struct iphdr, saddr) ? " source" :
		       offset == offsetof(struct iphdr, daddr) ? " destination" :
								 " TTL";
	case FLOW_ACT_MANGLE_HDR_TYPE_IP6:
		return offset >= offsetof(struct ipv6hdr, daddr) ? " destination" :
		       offset >= offsetof(struct ipv6hdr, saddr) ? " source" :
								   " TTL";
	default:
		/* the mask names what is kept */
		return ntohl(act->mangle.mask) >> 16 == 0xffff ?
		       " destination port" : " source port";
	}
}

static const char *judge_action(const struct flow_action_entry *act)
{
	switch (act->id) {
	case FLOW_ACTION_MANGLE:
		return "MANGLE";
	case FLOW_ACTION_ADD:
		return "ADD";
	case FLOW_ACTION_CSUM:
		return "CSUM";
	case FLOW_ACTION_VLAN_POP:
		return "VLAN_POP";
	case FLOW_ACTION_VLAN_PUSH:
		return "VLAN_PUSH";
	case FLOW_ACTION_PPPOE_PUSH:
		return "PPPOE_PUSH";
	case FLOW_ACTION_REDIRECT:
		return "REDIRECT";
	default:
		return "?";
	}
}

static bool judge_is_alike(const struct flow_action_entry *a,
			   const struct flow_action_entry *b)
{
	return a->id == b->id && !strcmp(judge_field(a), judge_field(b));
}

/* Adds a name to a list with commas, once. */
static void judge_add(char *names, const char *name, const char *more)
{
	char with[64];
	size_t len;

	snprintf(with, sizeof(with), "%s%s,", name, more);
	len = strlen(names);
	if (!strstr(names, with))
		strscpy(names + len, with, JUDGE_NAMES - len);
}

/* Whether the driver takes it and tells the hardware the same. */
static bool judge_is_same(struct net_device *nic,
			  const struct flow_cls_offload *cls,
			  struct flow_rule *rule, const void *told)
{
	struct flow_cls_offload trial = *cls;
	u8 now[JUDGE_TOLD] = {};

	trial.rule = rule;
	trial.common.extack = NULL;
	return !judge_lax->try(nic, &trial, now) && !memcmp(now, told, sizeof(now));
}

static void judge_try_keys(struct judge_rule *rule,
			   const struct flow_cls_offload *cls,
			   struct flow_rule *copy)
{
	struct flow_dissector *dissector = copy->match.dissector, without;
	unsigned int key;

	copy->match.dissector = &without;
	for (key = 0; key < FLOW_DISSECTOR_KEY_MAX; key++) {
		if (!dissector_uses_key(dissector, key))
			continue;
		judge_add(rule->keys, judge_keys[key] ?: "?", "");
		without = *dissector;
		without.used_keys &= ~BIT_ULL(key);
		if (judge_is_same(rule->nic, cls, copy, rule->told))
			judge_add(rule->no_keys, judge_keys[key] ?: "?", "");
	}
	copy->match.dissector = dissector;
}

/* Whether a rule without an action, or without all that are like it, is the same. */
static bool judge_does_without(const struct judge_rule *rule,
			       const struct flow_cls_offload *cls,
			       struct flow_rule *copy,
			       const struct flow_action_entry *what, bool alike)
{
	const struct flow_action_entry *act;
	unsigned int n = 0;
	int i;

	flow_action_for_each(i, act, &cls->rule->action)
		if (act != what && !(alike && judge_is_alike(act, what)))
			copy->action.entries[n++] = *act;
	copy->action.num_entries = n;
	return judge_is_same(rule->nic, cls, copy, rule->told);
}

static void judge_try_actions(struct judge_rule *rule,
			      const struct flow_cls_offload *cls,
			      struct flow_rule *copy)
{
	const struct flow_action_entry *act;
	int i;

	flow_action_for_each(i, act, &cls->rule->action) {
		judge_add(rule->actions, judge_action(act), judge_field(act));
		if (judge_does_without(rule, cls, copy, act, false) ||
		    judge_does_without(rule, cls, copy, act, true))
			judge_add(rule->no_actions, judge_action(act),
				  judge_field(act));
	}
}

static int judge_replace(struct net_device *nic, struct flow_cls_offload *cls)
{
	struct flow_rule *copy;
	struct judge_rule *rule;
	int err;

	rule = kzalloc_obj(*rule);
	copy = kmemdup(cls->rule, struct_size(cls->rule, action.entries,
					      cls->rule->action.num_entries),
		       GFP_KERNEL);
	err = rule && copy ? judge_lax->try(nic, cls, rule->told) : -ENOMEM;
	if (err) {
		kfree(rule);
	} else {
		rule->cookie = cls->cookie;
		rule->nic = nic;
		judge_try_keys(rule, cls, copy);
		judge_try_actions(rule, cls, copy);
		list_add_tail(&rule->list, &judge_rules);
	}
	kfree(copy);
	return err;
}

static int judge_destroy(const struct flow_cls_offload *cls)
{
	struct judge_rule *rule;

	list_for_each_entry(rule, &judge_rules, list) {
		if (rule->cookie == cls->cookie) {
			list_del(&rule->list);
			kfree(rule);
			return 0;
		}
	}
	return -ENOENT;
}

static int judge_lax_cb(enum tc_setup_type type, void *type_data, void *cb_priv)
{
	struct flow_cls_offload *cls = type_data;

	if (type != TC_SETUP_CLSFLOWER ||
	    !tc_cls_can_offload_and_chain0(cb_priv, type_data))
		return -EOPNOTSUPP;

	guard(mutex)(&judge_mutex);
	switch (cls->command) {
	case FLOW_CLS_REPLACE:
		return judge_answered(cls, judge_replace(cb_priv, cls));
	case FLOW_CLS_DESTROY:
		return judge_answered(cls, judge_destroy(cls));
	default:
		return -EOPNOTSUPP;
	}
}

/* stmmac_setup_tc() and bnxt_setup_tc() are no more than this. */
int judge_lax_setup_tc(struct net_device *dev, enum tc_setup_type type,
		       void *type_data)
{
	static LIST_HEAD(block_cb_list);
	struct flow_block_offload *bo = type_data;

	if (type != TC_SETUP_BLOCK)
		return -EOPNOTSUPP;
	bo->unlocked_driver_cb = unlocked;
	return flow_block_cb_setup_simple(bo, &block_cb_list, judge_lax_cb, dev,
					  dev, true);
}

void judge_lax_init(const struct judge_lax *lax)
{
	judge_lax = lax;
}

void judge_lax_exit(void)
{
	struct judge_rule *rule, *next;

	list_for_each_entry_safe(rule, next, &judge_rules, list) {
		pr_err("BUG: a rule was never destroyed\n");
		kfree(rule);
	}
}

void judge_lax_receive(struct net_device *nic, struct sk_buff *skb,
		       const struct judge_tuple *tuple)
{
}

void judge_lax_show_rules(struct seq_file *m)
{
	struct judge_rule *rule;

	guard(mutex)(&judge_mutex);
	list_for_each_entry(rule, &judge_rules, list)
		seq_printf(m, "%s|%s|%s|%s|%s\n", rule->nic->name, rule->keys,
			   rule->no_keys, rule->actions, rule->no_actions);
}

void judge_lax_show_entries(struct seq_file *m)
{
	struct judge_rule *rule;

	guard(mutex)(&judge_mutex);
	list_for_each_entry(rule, &judge_rules, list) {
		seq_printf(m, "%s: ", rule->nic->name);
		judge_lax->show(m, rule->told);
		seq_putc(m, '\n');
	}
}

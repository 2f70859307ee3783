// SPDX-License-Identifier: GPL-2.0
/*
 * The comparison.
 *
 * Both make a rule: the action lists have to be the same, byte by byte, but for tags of
 * 802.1ad (oracle_repair()), and the match of the Rust rule what the flow says
 * (oracle_check_match()). In the dialect of tc, the list has to be the same with exactly
 * the changes that oracle_as_tc() makes.
 *
 * The Rust code alone refuses: the reason has to be the one for which it does so on
 * purpose (oracle_kind()), and C's list exactly what is wrong with it: that of a
 * similar flow for which there is a rule (oracle_neutral()), with the known damage
 * (oracle_damage()).
 *
 * C alone refuses, or anything else: the comparison has failed.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/printk.h>
#include <linux/string.h>

#include "oracle_judge.h"

#define C_ACTIONS	24	/* NF_FLOW_RULE_ACTION_MAX */

/* Init functions run one at a time. */
static struct oracle_list from_c, from_rust, expected;
static struct oracle_case similar;

/* What the Rust code says, see oracle_rust.rs. */
static const char * const reasons[ORACLE_KINDS] = {
	[ORACLE_TUNNEL]		= "tunnel",
	[ORACLE_LIGHTWEIGHT]	= "lightweight tunnel",
	[ORACLE_OPTIONS]	= "tunnel options",
	[ORACLE_IPSEC]		= "IPsec",
	[ORACLE_PATH]		= "path",
	[ORACLE_UNRESOLVED]	= "unresolved",
	[ORACLE_PROTOCOL]	= "protocol",
	[ORACLE_AD_INGRESS]	= "802.1ad",
	[ORACLE_IN_PPPOE]	= "within PPPoE",
	[ORACLE_EXCHANGE]	= "exchange",
	[ORACLE_GRE_NAT]	= "translation",
	[ORACLE_NO_DEVICE]	= "no device",
};

const char * const oracle_kind_text[ORACLE_KINDS] = {
	[ORACLE_RULE]		= "rule",
	[ORACLE_TUNNEL]		= "IP tunnel",
	[ORACLE_LIGHTWEIGHT]	= "lightweight tunnel but of IP",
	[ORACLE_OPTIONS]	= "lightweight tunnel with options",
	[ORACLE_IPSEC]		= "IPsec",
	[ORACLE_PATH]		= "no Ethernet",
	[ORACLE_UNRESOLVED]	= "next hop not resolved",
	[ORACLE_PROTOCOL]	= "other protocol",
	[ORACLE_AD_INGRESS]	= "802.1ad at ingress",
	[ORACLE_IN_PPPOE]	= "header within PPPoE at ingress",
	[ORACLE_EXCHANGE]	= "tags in the place of others",
	[ORACLE_GRE_NAT]	= "GRE with NAT",
	[ORACLE_NO_DEVICE]	= "device missing",
};

static int translate_c(const struct oracle_case *c, const struct oracle_world *world,
		       enum flow_offload_tuple_dir dir, struct oracle_list *list)
{
	struct flow_offload *flow = (struct flow_offload *)&c->flow;
	static u8 room[struct_size_t(struct flow_rule, action.entries, C_ACTIONS)] __aligned(8);
	struct nf_flow_rule rule = { .rule = (struct flow_rule *)room };
	struct flow_action_entry *entries = rule.rule->action.entries;
	unsigned int i;
	int err;

	/* As flow_rule_alloc() does, and nf_flow_offload_rule_alloc() after it. */
	memset(room, 0, sizeof(room));
	for (i = 0; i < C_ACTIONS; i++)
		entries[i].hw_stats = FLOW_ACTION_HW_STATS_DONT_CARE;

	if (oracle_tuple(c, dir)->l3proto == AF_INET)
		err = nf_flow_rule_route_ipv4(world->net, flow, dir, &rule);
	else
		err = nf_flow_rule_route_ipv6(world->net, flow, dir, &rule);

	list->num = rule.rule->action.num_entries;
	for (i = 0; i < list->num; i++) {
		list->entries[i] = entries[i];
		/* The devices that we compare do not go away, our namespace is in use. */
		if (list->entries[i].id == FLOW_ACTION_REDIRECT)
			dev_put(list->entries[i].dev);
	}
	return err;
}

/* What the Rust code made. */
struct seen {
	const struct oracle_case	*c;
	const struct oracle_world	*world;
	enum flow_offload_tuple_dir	dir;
	bool				tc;
	const char			*bad_match;
};

static void see(const struct flow_rule *rule, void *data)
{
	struct seen *seen = data;

	from_rust.num = min(rule->action.num_entries, ORACLE_ACTIONS);
	memcpy(from_rust.entries, rule->action.entries,
	       from_rust.num * sizeof(from_rust.entries[0]));
	seen->bad_match = oracle_check_match(rule, seen->c, seen->world, seen->dir,
					     seen->tc);
	for (unsigned int i = 0; i < from_rust.num && !seen->bad_match; i++)
		if (from_rust.entries[i].id == FLOW_ACTION_TUNNEL_ENCAP)
			seen->bad_match = oracle_check_tunnel(&from_rust.entries[i],
							      oracle_tuple(seen->c, seen->dir));
}

/* Returns what is wrong with the match of the rule; the actions are in from_rust. */
static const char *translate_rust(const struct oracle_case *c,
				  const struct oracle_world *world,
				  enum flow_offload_tuple_dir dir, bool tc,
				  const char **reason)
{
	struct seen seen = { .c = c, .world = world, .dir = dir, .tc = tc };

	from_rust.num = 0;
	*reason = oracle_translate(world->net, (unsigned long)oracle_tuple(c, dir),
				   tc, see, &seen);
	return seen.bad_match;
}

static int failed(const struct oracle_case *c, enum flow_offload_tuple_dir dir)
{
	pr_err("DIFFERENCE in the %s direction of this flow\n",
	       dir == FLOW_OFFLOAD_DIR_ORIGINAL ? "original" : "reply");
	oracle_print(c);
	return -EINVAL;
}

/* Is what the Rust code says, @reason, what it should say? */
static bool same_reason(enum oracle_kind kind, const char *reason)
{
	if (reason == reasons[kind] ||
	    (reason && reasons[kind] && !strcmp(reason, reasons[kind])))
		return true;

	pr_err("Rust says \"%s\" where \"%s\" is expected\n",
	       reason ?: "here is a rule", reasons[kind] ?: "here is a rule");
	return false;
}

static bool is_tunneled(const struct oracle_list *list)
{
	return oracle_find(list, FLOW_ACTION_TUNNEL_ENCAP) < list->num ||
	       oracle_find(list, FLOW_ACTION_TUNNEL_DECAP) < list->num;
}

/* There is a rule, which from_rust has. */
static int judge_rule(const struct oracle_case *c, enum flow_offload_tuple_dir dir,
		      struct oracle_count *count)
{
	bool repaired;

	expected = from_c;
	repaired = oracle_repair(&expected, c, dir);
	if (!oracle_same_lists(&expected, repaired ? "C, repaired" : "C", &from_rust, "Rust"))
		return failed(c, dir);
	count->matches++;
	count->tunnels += is_tunneled(&from_rust);
	if (repaired)
		count->repaired++;
	else
		count->equal++;
	return 0;
}

/* The same in the dialect of tc, where C makes a rule. */
static int judge_tc(const struct oracle_case *c, const struct oracle_world *world,
		    enum flow_offload_tuple_dir dir, bool alone,
		    struct oracle_count *count)
{
	enum oracle_kind kind = oracle_kind(c, world, dir, true);
	const char *reason, *bad;

	bad = translate_rust(c, world, dir, true, &reason);
	if (bad || !same_reason(kind, reason)) {
		pr_err("in the dialect of tc%s%s\n", bad ? " the match is wrong: " : "",
		       bad ?: "");
		return failed(c, dir);
	}
	if (kind != ORACLE_RULE) {
		count->tc_refused += alone;
		return 0;
	}

	expected = from_c;
	oracle_repair(&expected, c, dir);
	oracle_as_tc(&expected, c);
	if (!oracle_same_lists(&expected, "expected in the dialect of tc",
			       &from_rust, "Rust"))
		return failed(c, dir);
	count->tc++;
	count->matches++;
	count->tunnels += is_tunneled(&from_rust);
	return 0;
}

static int judge_difference(const struct oracle_case *c,
			    const struct oracle_world *world,
			    enum flow_offload_tuple_dir dir,
			    enum oracle_kind kind, struct oracle_count *count)
{
	const char *reason, *bad;

	oracle_neutral(&similar, c, dir);
	bad = translate_rust(&similar, world, dir, false, &reason);
	if (reason || bad) {
		pr_err("%s: a similar flow is refused: %s\n", oracle_kind_text[kind],
		       reason ?: bad);
		oracle_print(&similar);
		return failed(c, dir);
	}
	expected = from_rust;
	oracle_damage(&expected, c, dir);
	if (!oracle_same_lists(&from_c, "C", &expected, oracle_kind_text[kind]))
		return failed(c, dir);
	count->differ[kind]++;
	count->matches++;
	return 0;
}

/* Compares one direction of a flow. -EINVAL if something is not as it should be. */
int oracle_judge(const struct oracle_case *c, const struct oracle_world *world,
		 enum flow_offload_tuple_dir dir, struct oracle_count *count)
{
	enum oracle_kind kind = oracle_kind(c, world, dir, false);
	const char *reason, *bad;
	bool refused;
	int err;

	refused = translate_c(c, world, dir, &from_c) < 0;
	if (refused != oracle_c_refuses(c, world, dir)) {
		pr_err("C %s this, against expectation\n", refused ? "refuses" : "takes");
		oracle_print_list("C", &from_c);
		return failed(c, dir);
	}

	bad = translate_rust(c, world, dir, false, &reason);
	if (bad) {
		pr_err("the key %s of the match is wrong\n", bad);
		return failed(c, dir);
	}
	if (!same_reason(kind, reason)) {
		if (!refused)
			oracle_print_list("C", &from_c);
		if (!reason)
			oracle_print_list("Rust", &from_rust);
		return failed(c, dir);
	}

	if (refused) {
		if (kind == ORACLE_RULE) {
			pr_err("Rust makes a rule that C refuses\n");
			return failed(c, dir);
		}
		count->refused++;
		return 0;
	}

	if (kind == ORACLE_RULE)
		err = judge_rule(c, dir, count);
	else
		err = judge_difference(c, world, dir, kind, count);
	return err ?: judge_tc(c, world, dir, kind == ORACLE_RULE, count);
}

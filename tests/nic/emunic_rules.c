// SPDX-License-Identifier: GPL-2.0
/*
 * emunic: the rule table. Writers hold emunic.lock; the data plane reads by_match
 * and debugfs the xarray by RCU alone.
 */
#include "emunic.h"

const struct rhashtable_params emunic_match_params = {
	.key_len = sizeof(struct emunic_key),
	.key_offset = offsetof(struct emunic_rule, key),
	.head_offset = offsetof(struct emunic_rule, match_node),
	.automatic_shrinking = true,
};

static const struct rhashtable_params emunic_cookie_params = {
	.key_len = sizeof_field(struct emunic_rule, cookie),
	.key_offset = offsetof(struct emunic_rule, cookie),
	.head_offset = offsetof(struct emunic_rule, cookie_node),
	.automatic_shrinking = true,
};

struct emunic_rule *emunic_rule_find(unsigned long cookie)
{
	return rhashtable_lookup_fast(&emunic.by_cookie, &cookie,
				      emunic_cookie_params);
}

int emunic_rule_add(struct emunic_rule *rule, struct netlink_ext_ack *extack)
{
	unsigned long id = emunic.last_id + 1;
	struct emunic_rule *other;
	int err;

	lockdep_assert_held(&emunic.lock);

	if (emunic_rule_find(rule->cookie)) {
		NL_SET_ERR_MSG_MOD(extack, "cookie already in the table");
		emunic.total[EMUNIC_REPLACE_EEXIST]++;
		return -EEXIST;
	}
	if (emunic.capacity &&
	    emunic.num_rules - emunic.num_waiting >= emunic.capacity) {
		if (!emunic_accepts(EMUNIC_OVERCOMMIT)) {
			NL_SET_ERR_MSG_MOD(extack, "table full");
			return -ENOSPC;
		}
		rule->waiting = true;
	}

	err = xa_reserve(&emunic.rules, id, GFP_KERNEL);
	if (err)
		return err;
	err = rhashtable_lookup_insert_fast(&emunic.by_cookie,
					    &rule->cookie_node,
					    emunic_cookie_params);
	if (err)
		goto err_release;
	/* last, because it is what makes the data plane see the rule */
	err = rhashtable_lookup_insert_fast(&emunic.by_match, &rule->match_node,
					    emunic_match_params);
	if (err)
		goto err_cookie;

	rule->id = id;
	emunic.last_id = id;
	xa_store(&emunic.rules, id, rule, GFP_KERNEL); /* has its room */
	emunic.num_rules++;
	emunic.num_waiting += rule->waiting;
	emunic.port[rule->key.port].num_rules++;
	emunic.rules_max = max(emunic.rules_max, emunic.num_rules);
	return 0;

err_cookie:
	rhashtable_remove_fast(&emunic.by_cookie, &rule->cookie_node,
			       emunic_cookie_params);
	if (err == -EEXIST) {
		NL_SET_ERR_MSG_MOD(extack, "match already in the table");
		other = rhashtable_lookup_fast(&emunic.by_match, &rule->key,
					       emunic_match_params);
		emunic.total[other->kept ? EMUNIC_REPLACE_DUP_KEPT :
					   EMUNIC_REPLACE_DUP_MATCH]++;
	}
err_release:
	xa_release(&emunic.rules, id);
	return err;
}

/* There is room for one rule: the oldest that waits. */
static void emunic_rules_fill(void)
{
	struct emunic_rule *rule;
	unsigned long id;

	if (!emunic.num_waiting)
		return;
	xa_for_each(&emunic.rules, id, rule) {
		if (!rule->waiting)
			continue;
		WRITE_ONCE(rule->waiting, false);
		emunic.num_waiting--;
		return;
	}
}

void emunic_rule_del(struct emunic_rule *rule)
{
	lockdep_assert_held(&emunic.lock);

	rhashtable_remove_fast(&emunic.by_match, &rule->match_node,
			       emunic_match_params);
	rhashtable_remove_fast(&emunic.by_cookie, &rule->cookie_node,
			       emunic_cookie_params);
	xa_erase(&emunic.rules, rule->id);
	emunic.num_rules--;
	emunic.port[rule->key.port].num_rules--;
	if (rule->waiting)
		emunic.num_waiting--;
	else
		emunic_rules_fill();
	kfree_rcu(rule, rcu);
}

/* The oldest go first. */
unsigned int emunic_rules_evict(unsigned int count)
{
	struct emunic_rule *rule;
	unsigned long id;
	unsigned int n = 0;

	xa_for_each(&emunic.rules, id, rule) {
		if (n >= count)
			break;
		emunic_rule_del(rule);
		n++;
		cond_resched();
	}
	return n;
}

/* The counters of all of them start from zero. */
void emunic_rules_restart(void)
{
	struct emunic_rule *rule;
	unsigned long id;

	xa_for_each(&emunic.rules, id, rule) {
		atomic64_set(&rule->packets, 0);
		atomic64_set(&rule->bytes, 0);
	}
}

/* Rules that enter at a port or leave by it. */
unsigned int emunic_rules_flush_port(unsigned int port)
{
	struct emunic_rule *rule;
	unsigned long id;
	unsigned int n = 0;

	xa_for_each(&emunic.rules, id, rule) {
		if (rule->key.port != port && rule->prog.out != port)
			continue;
		emunic_rule_del(rule);
		n++;
		cond_resched();
	}
	return n;
}

/* Its tags are the outermost of what is matched, or of what is pushed. */
static bool emunic_rule_enters(const struct emunic_rule *rule,
			       const struct emunic_vlan *vlan)
{
	return rule->prog.dev_pops == vlan->num_tags &&
	       rule->key.port == vlan->port->index &&
	       !memcmp(rule->key.tag, vlan->tag,
		       vlan->num_tags * sizeof(vlan->tag[0]));
}

static bool emunic_rule_leaves(const struct emunic_rule *rule,
			       const struct emunic_vlan *vlan)
{
	return rule->prog.dev_tags == vlan->num_tags &&
	       rule->prog.out == vlan->port->index &&
	       !memcmp(rule->prog.tag, vlan->tag,
		       vlan->num_tags * sizeof(vlan->tag[0]));
}

/* Rules of a VLAN device and to it. */
unsigned int emunic_rules_flush_vlan(const struct emunic_vlan *vlan)
{
	struct emunic_rule *rule;
	unsigned long id;
	unsigned int n = 0;

	xa_for_each(&emunic.rules, id, rule) {
		if (!emunic_rule_enters(rule, vlan) &&
		    !emunic_rule_leaves(rule, vlan))
			continue;
		emunic_rule_del(rule);
		n++;
		cond_resched();
	}
	return n;
}

void emunic_rules_set_down(const struct emunic_vlan *vlan, bool down)
{
	struct emunic_rule *rule;
	unsigned long id;

	xa_for_each(&emunic.rules, id, rule)
		if (emunic_rule_leaves(rule, vlan))
			WRITE_ONCE(rule->prog.out_down, down);
}

int emunic_rules_init(void)
{
	int err;

	err = rhashtable_init(&emunic.by_match, &emunic_match_params);
	if (err)
		return err;
	err = rhashtable_init(&emunic.by_cookie, &emunic_cookie_params);
	if (err)
		rhashtable_destroy(&emunic.by_match);
	return err;
}

/* Nobody reads the tables any more: no port, no knob, no bound block. */
void emunic_rules_exit(void)
{
	mutex_lock(&emunic.lock);
	emunic_rules_evict(UINT_MAX);
	mutex_unlock(&emunic.lock);
	synchronize_rcu();
	rhashtable_destroy(&emunic.by_match);
	rhashtable_destroy(&emunic.by_cookie);
	xa_destroy(&emunic.rules);
}

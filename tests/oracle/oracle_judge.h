/* SPDX-License-Identifier: GPL-2.0 */
/* What the parts of the comparison share. */
#ifndef ORACLE_JUDGE_H
#define ORACLE_JUDGE_H

#include <linux/if_ether.h>

#include "oracle.h"

struct ip_tunnel_info;

struct oracle_list {
	unsigned int			num;
	struct flow_action_entry	entries[ORACLE_ACTIONS];
};

static inline const struct flow_offload_tuple *
oracle_tuple(const struct oracle_case *c, enum flow_offload_tuple_dir dir)
{
	return &c->flow.tuplehash[dir].tuple;
}

/* Is header @i there, of this type, and not the switch's business? */
static inline bool oracle_carries(const struct flow_offload_tuple *tuple, int i,
				  u16 proto)
{
	return i < tuple->encap_num && !(tuple->in_vlan_ingress & BIT(i)) &&
	       tuple->encap[i].proto == htons(proto);
}

static inline bool oracle_carries_tag(const struct flow_offload_tuple *tuple, int i)
{
	return oracle_carries(tuple, i, ETH_P_8021Q) ||
	       oracle_carries(tuple, i, ETH_P_8021AD);
}

/* oracle_expect.c */
const struct ip_tunnel_info *oracle_tunnel(const struct flow_offload_tuple *tuple);
enum oracle_kind oracle_kind(const struct oracle_case *c,
			     const struct oracle_world *world,
			     enum flow_offload_tuple_dir dir, bool tc);
bool oracle_c_refuses(const struct oracle_case *c, const struct oracle_world *world,
		      enum flow_offload_tuple_dir dir);
void oracle_neutral(struct oracle_case *to, const struct oracle_case *c,
		    enum flow_offload_tuple_dir dir);
void oracle_damage(struct oracle_list *list, const struct oracle_case *c,
		   enum flow_offload_tuple_dir dir);
bool oracle_repair(struct oracle_list *list, const struct oracle_case *c,
		   enum flow_offload_tuple_dir dir);
void oracle_as_tc(struct oracle_list *list, const struct oracle_case *c);
unsigned int oracle_find(const struct oracle_list *list, enum flow_action_id id);

/* oracle_match.c */
const char *oracle_check_match(const struct flow_rule *rule,
			       const struct oracle_case *c,
			       const struct oracle_world *world,
			       enum flow_offload_tuple_dir dir, bool tc);
const char *oracle_check_tunnel(struct flow_action_entry *entry,
				const struct flow_offload_tuple *tuple);

/* oracle_print.c */
void oracle_print_list(const char *text, const struct oracle_list *list);
bool oracle_same_lists(const struct oracle_list *a, const char *a_text,
		       const struct oracle_list *b, const char *b_text);

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Does this module translate flows as the kernel's own functions do?
 *
 * oracle_main.c makes one flow after the other (oracle_flow.c), has it translated
 * by nf_flow_rule_route_ipv4() or _ipv6() and by the Rust code (oracle_rust.rs),
 * and judges what came out (oracle_judge.c and what it shares oracle_judge.h with).
 */
#ifndef ORACLE_H
#define ORACLE_H

#include <linux/netfilter.h>
#include <linux/prandom.h>
#include <net/flow_offload.h>
#include <net/netfilter/nf_flow_table.h>

#define ORACLE_DEVICES	8
#define ORACLE_HOPS	16
#define ORACLE_TUNNEL_OPTIONS	8	/* bytes, at most */
#define ORACLE_ACTIONS	32

/* A destination that a route leads to, and that route. */
struct oracle_hop {
	u8			family;
	bool			resolved;	/* its next hop has an address */
	union nf_inet_addr	addr;
	struct dst_entry	*dst;
	/* Copies: without a lightweight tunnel, and with one of our own for each direction. */
	struct dst_entry	*plain;
	struct dst_entry	*tunnel[FLOW_OFFLOAD_DIR_MAX];
};

/* The devices and routes of the network namespace that flows are made for. */
struct oracle_world {
	struct net		*net;
	int			ifindex[ORACLE_DEVICES];
	unsigned int		num_devices;
	struct oracle_hop	hops[ORACLE_HOPS];
	unsigned int		num_hops;
};

/* A flow, and where the routes in it are from. */
struct oracle_case {
	struct flow_offload	flow;
	const struct oracle_hop	*hop[FLOW_OFFLOAD_DIR_MAX];
};

/*
 * How a direction of a flow is to be dealt with in a dialect, in the order in which
 * the Rust code looks at things: the first that holds is the reason that it gives.
 */
enum oracle_kind {
	ORACLE_RULE,
	ORACLE_TUNNEL,
	ORACLE_LIGHTWEIGHT,
	ORACLE_OPTIONS,
	ORACLE_IPSEC,
	ORACLE_PATH,
	ORACLE_UNRESOLVED,
	ORACLE_PROTOCOL,
	ORACLE_AD_INGRESS,
	ORACLE_IN_PPPOE,
	ORACLE_EXCHANGE,
	ORACLE_GRE_NAT,
	ORACLE_NO_DEVICE,
	ORACLE_KINDS
};

struct oracle_count {
	u64			equal;			/* rules */
	u64			repaired;		/* C's, with tags of 802.1ad put right */
	u64			tc;			/* rules in the dialect of tc */
	u64			tc_refused;		/* in that dialect alone */
	u64			tunnels;		/* rules, in either dialect */
	u64			matches;
	u64			refused;		/* by both */
	u64			differ[ORACLE_KINDS];	/* C alone makes a rule */
};

extern const char * const oracle_kind_text[ORACLE_KINDS];

/* oracle_flow.c */
unsigned int oracle_combinations(void);
void oracle_make(struct oracle_case *c, const struct oracle_world *world,
		 struct rnd_state *rnd, unsigned int combination, bool odd);
void oracle_print(const struct oracle_case *c);

/* oracle_judge.c */
int oracle_judge(const struct oracle_case *c, const struct oracle_world *world,
		 enum flow_offload_tuple_dir dir, struct oracle_count *count);

/* oracle_rust.rs */
typedef void oracle_rule_fn(const struct flow_rule *rule, void *data);
const char *oracle_translate(struct net *net, unsigned long cookie,
			     bool tc, oracle_rule_fn *fn, void *data);

static inline bool oracle_has_device(const struct oracle_world *world, u32 ifindex)
{
	for (unsigned int i = 0; i < world->num_devices; i++)
		if (world->ifindex[i] == ifindex)
			return true;
	return false;
}

static inline bool oracle_has_ports(u8 l4proto)
{
	return l4proto == IPPROTO_TCP || l4proto == IPPROTO_UDP;
}

#endif

// SPDX-License-Identifier: GPL-2.0
#include <linux/hash.h>
#include <net/netfilter/nf_flow_table.h>

#include "helpers.h"

struct net *shim_flowtable_net(const struct nf_flowtable *ft)
{
	return read_pnet(&ft->net);
}

void shim_flow_set_closing(struct flow_offload *flow, bool closing)
{
	assign_bit(NF_FLOW_CLOSING, &flow->flags, closing);
}

void shim_flow_set_plain(struct flow_offload *flow)
{
	/* No stamp that is worth anything. */
	shim_flow_set_data(flow, (void *)ULONG_MAX);
	set_bit(SHIM_FLOW_PLAIN, &flow->flags);
}

void shim_flow_set_offered(struct flow_offload *flow, u16 ruleset)
{
	if (!test_and_set_bit(SHIM_FLOW_OFFERED, &flow->flags))
		shim_flow_visit(flow, 0, ruleset);
}

/*
 * What a module keeps with an entry: flow_offload_alloc() sets it to NULL, and
 * nothing else uses the place until flow_offload_free(), which does not come as
 * long as NF_FLOW_HW is set and NF_FLOW_HW_DEAD is not.
 */
void *shim_flow_data(const struct flow_offload *flow)
{
	/* Pairs with shim_flow_set_data(). */
	return (void *)smp_load_acquire(&flow->rcu_head.next);
}

void shim_flow_set_data(struct flow_offload *flow, void *data)
{
	/* Pairs with shim_flow_data(): the data are complete. */
	smp_store_release(&flow->rcu_head.next, (struct callback_head *)data);
}

/*
 * The same for what is odd, by others than garbage collection, which may have the
 * entry freed meanwhile: call_rcu() puts no odd number there.
 */
void shim_flow_change_data(struct flow_offload *flow, unsigned long old,
			   unsigned long new)
{
	cmpxchg((unsigned long *)&flow->rcu_head.next, old, new);
}

/*
 * Notes that garbage collection or the hardware side has seen an entry, in the other
 * half of the same place: the connection's mark, and the @ruleset of the first time.
 */
enum shim_visit shim_flow_visit(struct flow_offload *flow, u32 mark, u16 ruleset)
{
	unsigned long *at = (unsigned long *)&flow->rcu_head.func;
	unsigned long last = READ_ONCE(*at), now;

	if (last)
		ruleset = shim_flow_ruleset(flow);
	if (BITS_PER_LONG == 64)
		now = (u64)mark << 32 | (u64)ruleset << 1 | 1;
	else
		now = hash_32(mark, 15) << 17 | (u32)ruleset << 1 | 1;
	if (last == now)
		return SHIM_VISIT_SAME;
	WRITE_ONCE(*at, now);
	return last ? SHIM_VISIT_OTHER_MARK : SHIM_VISIT_FIRST;
}

/* The ruleset of the time when shim_flow_visit() was called first, for an entry that has been. */
u16 shim_flow_ruleset(const struct flow_offload *flow)
{
	return READ_ONCE(*(unsigned long *)&flow->rcu_head.func) >> 1;
}

/*
 * The same place of an entry for hardware, of which shim_flow_visit() uses 17 bits
 * then: above these how often it was offered, and in the other half of 64 bits
 * since when its reply direction has been what it is; 0 where there is no room.
 */
enum { OFFERS_SHIFT = 17 };

static u32 *flow_half(const struct flow_offload *flow, bool is_upper)
{
	u32 *halves = (u32 *)&flow->rcu_head.func;

#ifdef __BIG_ENDIAN
	return &halves[BITS_PER_LONG == 64 && !is_upper];
#else
	return &halves[is_upper];
#endif
}

/* After shim_flow_visit() was called first, and by the same task. */
void shim_flow_set_ruleset(struct flow_offload *flow, u16 ruleset)
{
	u32 *half = flow_half(flow, false);
	u32 noted = (u32)shim_flow_ruleset(flow) << 1;
	u32 now = READ_ONCE(*half);

	if (noted != (u32)ruleset << 1)
		WRITE_ONCE(*half, now ^ noted ^ (u32)ruleset << 1);
}

void shim_flow_count_offer(struct flow_offload *flow)
{
	u32 *half = flow_half(flow, false);
	u32 now = READ_ONCE(*half);

	if (now >> OFFERS_SHIFT != U32_MAX >> OFFERS_SHIFT)
		WRITE_ONCE(*half, now + (1 << OFFERS_SHIFT));
}

u32 shim_flow_offers(const struct flow_offload *flow)
{
	return READ_ONCE(*flow_half(flow, false)) >> OFFERS_SHIFT;
}

void shim_flow_set_since(struct flow_offload *flow, u32 when)
{
	if (BITS_PER_LONG == 64)
		WRITE_ONCE(*flow_half(flow, true), when);
}

u32 shim_flow_since(const struct flow_offload *flow)
{
	return BITS_PER_LONG == 64 ? READ_ONCE(*flow_half(flow, true)) : 0;
}

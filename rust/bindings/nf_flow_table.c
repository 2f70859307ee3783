// SPDX-License-Identifier: GPL-2.0
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

void shim_flow_set_offered(struct flow_offload *flow)
{
	set_bit(SHIM_FLOW_OFFERED, &flow->flags);
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

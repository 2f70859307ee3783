// SPDX-License-Identifier: GPL-2.0
/* The module's part in a flowtable: its callback, and the end of its entries. */
#include <linux/delay.h>
#include <linux/rhashtable.h>
#include <net/netfilter/nf_flow_table.h>

#include "../bindings/helpers.h"

/* The one callback that this module puts into a flowtable's own block. */
int shim_flowtable_set_cb(struct nf_flowtable *ft, flow_setup_cb_t *cb,
			  void *priv)
{
	struct flow_block_cb *block_cb = flow_block_cb_alloc(cb, ft, priv, NULL);

	if (IS_ERR(block_cb))
		return PTR_ERR(block_cb);

	guard(rwsem_write)(&ft->flow_block_lock);
	list_add_tail(&block_cb->list, &ft->flow_block.cb_list);
	return 0;
}

static struct flow_block_cb *flowtable_cb(struct nf_flowtable *ft)
{
	return list_first_entry_or_null(&ft->flow_block.cb_list,
					struct flow_block_cb, list);
}

/* What that callback was given, or NULL. */
void *shim_flowtable_cb_priv(struct nf_flowtable *ft)
{
	struct flow_block_cb *block_cb = flowtable_cb(ft);

	return block_cb ? block_cb->cb_priv : NULL;
}

void shim_flowtable_clear_cb(struct nf_flowtable *ft)
{
	struct flow_block_cb *block_cb = flowtable_cb(ft);

	if (block_cb) {
		list_del(&block_cb->list);
		flow_block_cb_free(block_cb);
	}
}

/*
 * For a table without devices. Clears NF_FLOW_HW of its entries, after @forget,
 * which may sleep, so that nf_flow_table_free() needs no memory for a
 * FLOW_CLS_DESTROY of each. Waits for works of the core that have an entry.
 */
void shim_flowtable_forget_hardware(struct nf_flowtable *ft,
				    void (*forget)(struct flow_offload *flow))
{
	struct flow_offload_tuple_rhash *found;
	struct rhashtable_iter iter;
	struct flow_offload *flow;

	/* As nf_flow_table_free() does next. Nothing else frees entries. */
	cancel_delayed_work_sync(&ft->gc_work);
	rhashtable_walk_enter(&ft->rhashtable, &iter);
	rhashtable_walk_start(&iter);
	while ((found = rhashtable_walk_next(&iter))) {
		/* The table has grown, and the walk begins anew. */
		if (IS_ERR(found) || found->tuple.dir != FLOW_OFFLOAD_DIR_ORIGINAL)
			continue;

		flow = container_of(found, struct flow_offload,
				    tuplehash[FLOW_OFFLOAD_DIR_ORIGINAL]);
		if (!test_bit(NF_FLOW_HW, &flow->flags))
			continue;
		rhashtable_walk_stop(&iter);
		/* flow_offload_work_handler() clears the bit without a wake-up. */
		while (test_and_set_bit(NF_FLOW_PENDING, &flow->flags))
			usleep_range(100, 1000);
		if (!test_bit(NF_FLOW_HW_DEAD, &flow->flags)) {
			forget(flow);
			clear_bit(NF_FLOW_HW, &flow->flags);
		}
		clear_bit_unlock(NF_FLOW_PENDING, &flow->flags);
		rhashtable_walk_start(&iter);
	}
	rhashtable_walk_stop(&iter);
	rhashtable_walk_exit(&iter);
}

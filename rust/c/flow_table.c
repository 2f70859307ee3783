// SPDX-License-Identifier: GPL-2.0
/* The module's part in a flowtable: its callback, and the end of its entries. */
#include <linux/delay.h>
#include <linux/rhashtable.h>
#include <linux/string.h>
#include <net/netfilter/nf_flow_table.h>
#include <net/netfilter/nf_tables.h>

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
 * Whether nftables binds @dev because it has come, or got its name, after the
 * ruleset: nft_flowtable_event() adds the nf_hook_ops of a device to its hook
 * when it is bound, while those of a ruleset that is being loaded have been in
 * their hook before. With commit_mutex held.
 */
bool shim_flowtable_awaits(const struct nf_flowtable *ft,
			   const struct net_device *dev)
{
	const struct nft_flowtable *nft_ft =
		container_of(ft, struct nft_flowtable, data);
	const struct nf_hook_ops *ops;
	const struct nft_hook *hook;
	bool is_known;

	list_for_each_entry(hook, &nft_ft->hook_list, list) {
		if (strncmp(hook->ifname, dev->name, hook->ifnamelen))
			continue;

		is_known = false;
		list_for_each_entry(ops, &hook->ops_list, list)
			is_known |= ops->dev == dev;
		if (!is_known)
			return true;
	}
	return false;
}

/*
 * For a table without devices. Clears NF_FLOW_HW of its entries, after @forget,
 * which may sleep, so that nf_flow_table_free() needs no memory for a
 * FLOW_CLS_DESTROY of each. Waits for works of the core that have an entry. Calls
 * @end, which may not, for entries without NF_FLOW_HW.
 */
void shim_flowtable_forget(struct nf_flowtable *ft,
			   void (*forget)(struct flow_offload *flow),
			   void (*end)(struct flow_offload *flow))
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
		if (!test_bit(NF_FLOW_HW, &flow->flags)) {
			end(flow);
			continue;
		}
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

/* By which ruleset an entry of the table was made at least. With commit_mutex held. */
u32 shim_flowtable_ruleset(const struct nf_flowtable *ft)
{
	const struct nft_flowtable *nft_ft =
		container_of(ft, struct nft_flowtable, data);
	struct net *net = read_pnet(&ft->net);

	/* It is one of the transaction that is under way, or was there before. */
	return shim_net_newest_ruleset(net) + !nft_is_active(net, nft_ft);
}

/* Names of a flowtable of nftables, which do not change. */
const char *shim_flowtable_name(const struct nf_flowtable *ft)
{
	return container_of(ft, struct nft_flowtable, data)->name;
}

const char *shim_flowtable_table(const struct nf_flowtable *ft)
{
	return container_of(ft, struct nft_flowtable, data)->table->name;
}

u8 shim_flowtable_family(const struct nf_flowtable *ft)
{
	return container_of(ft, struct nft_flowtable, data)->table->family;
}

u32 shim_flowtable_entries(const struct nf_flowtable *ft)
{
	return atomic_read(&ft->rhashtable.nelems) / FLOW_OFFLOAD_DIR_MAX;
}

/*
 * A walk that may be interrupted: between stop and start, the table may be
 * changed, but has to be left with exit before it is freed.
 */
void shim_flowtable_walk_enter(struct nf_flowtable *ft,
			       struct rhashtable_iter *iter)
{
	rhashtable_walk_enter(&ft->rhashtable, iter);
}

/* RCU is read-locked until stop. -EAGAIN: the walk begins anew. */
int shim_flowtable_walk_start(struct rhashtable_iter *iter)
	__acquires_shared(RCU)
{
	return rhashtable_walk_start_check(iter);
}

void shim_flowtable_walk_stop(struct rhashtable_iter *iter)
	__releases_shared(RCU)
{
	rhashtable_walk_stop(iter);
}

/*
 * The next entry, once for both of its tuples; NULL at the end. ERR_PTR(-EAGAIN):
 * the table has grown or shrunk, and the walk begins anew.
 */
struct flow_offload *shim_flowtable_walk_next(struct rhashtable_iter *iter)
{
	struct flow_offload_tuple_rhash *found;

	do {
		found = rhashtable_walk_next(iter);
		if (IS_ERR_OR_NULL(found))
			return ERR_CAST(found);
	} while (found->tuple.dir != FLOW_OFFLOAD_DIR_ORIGINAL);

	return container_of(found, struct flow_offload,
			    tuplehash[FLOW_OFFLOAD_DIR_ORIGINAL]);
}

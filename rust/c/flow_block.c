// SPDX-License-Identifier: GPL-2.0
/*
 * Blocks, in which drivers leave the callbacks that take rules.
 *
 * The driver of a device with ndo_setup_tc is asked by that. Any other device
 * is offered to all drivers that asked for such devices: an indirect block.
 * These drivers may unregister at any time, with or without RTNL, and then
 * flow_indr_dev_unregister() calls block_cleanup() for each callback, without a
 * lock. A callback is freed there, or when its driver has given it back at
 * FLOW_BLOCK_UNBIND, never twice.
 *
 * block_setup_lock is held while anything is bound, unbound or taken off by
 * block_cleanup(); the core's flow_indr_block_lock nests in it. The lock of a
 * block guards its list against the requests that are under way: it nests in
 * block_setup_lock and, for reading, around each request. It is held for writing
 * while two drivers of an indirect block give their callbacks back, so that
 * flow_indr_block_lock and what drivers take to be unbound nest in it.
 */
#include <linux/module.h>
#include <linux/netdevice.h>
#include <net/flow_offload.h>

#include "../bindings/helpers.h"

/*
 * Drivers keep static lists of what they are bound to and rely on their callers
 * to serialise changes of these. nf_tables does so within a namespace only.
 */
static DEFINE_MUTEX(block_setup_lock);

static shim_device_fn *on_leave;
static void *on_leave_data;
static bool some_left;

/* Has block_cleanup() call @fn when the driver behind an indirect block unregisters. */
void shim_block_on_leave(shim_device_fn *fn, void *data)
{
	on_leave = fn;
	on_leave_data = data;
}

/*
 * To be called before the module is unloaded, when no driver can unregister any
 * more: a call of block_cleanup() may be behind its module_put(). Sleeps.
 */
void shim_block_wait(void)
{
	if (READ_ONCE(some_left))
		synchronize_rcu_tasks();
}

void shim_block_init(struct shim_block *block, struct net_device *dev,
		     enum tc_setup_type type, bool indirect)
{
	*block = (struct shim_block) {
		.dev = dev,
		.type = type,
		.indirect = indirect,
	};
	flow_block_init(&block->block);
	INIT_LIST_HEAD(&block->late);
	init_rwsem(&block->lock);
}

/*
 * The driver of @block_cb unregisters. The block may be gone, if the driver had
 * refused to be unbound from it, or block_unbind() runs meanwhile: the callback
 * is cut off then. The module's reference is dropped in block_cleanup().
 */
static struct net_device *block_leave(struct flow_block_cb *block_cb)
{
	struct shim_block *block;

	guard(mutex)(&block_setup_lock);
	block = block_cb->indr.data;
	if (!block)
		return NULL;

	__module_get(THIS_MODULE);
	dev_hold(block->dev);
	guard(rwsem_write)(&block->lock);
	block->leaving = true;
	return block->dev;
}

static void block_drop(struct flow_block_cb *block_cb)
{
	struct shim_block *block;

	guard(mutex)(&block_setup_lock);
	block = block_cb->indr.data;
	if (block) {
		guard(rwsem_write)(&block->lock);
		list_del(&block_cb->list);
		block->leaving = false;
	}
	list_del(&block_cb->driver_list);
	flow_block_cb_free(block_cb);
}

/*
 * As nf_flow_table_indr_cleanup(). First no new rule gets in, then all rules are
 * withdrawn while the driver still works, then the callback is freed.
 */
static void block_cleanup(struct flow_block_cb *block_cb)
{
	struct net_device *dev = block_leave(block_cb);

	if (dev) {
		on_leave(on_leave_data, dev);
		dev_put(dev);
	}
	block_drop(block_cb);
	WRITE_ONCE(some_left, true);
	module_put(THIS_MODULE);
}

static int block_ask(struct shim_block *block, enum tc_setup_type type,
		     enum flow_block_command command,
		     struct flow_block_offload *bo,
		     struct netlink_ext_ack *extack)
{
	struct net_device *dev = block->dev;

	*bo = (struct flow_block_offload) {
		.command = command,
		.net = dev_net(dev),
		.block = &block->block,
		.binder_type = FLOW_BLOCK_BINDER_TYPE_CLSACT_INGRESS,
		.extack = extack,
		.cb_list_head = &block->block.cb_list,
	};
	INIT_LIST_HEAD(&bo->cb_list);
	if (!block->indirect)
		return dev->netdev_ops->ndo_setup_tc(dev, type, bo);

	bo->cb_list_head = &block->late;
	return flow_indr_dev_setup_offload(dev, NULL, type, block, bo,
					   block_cleanup);
}

static int block_release(struct shim_block *block, enum tc_setup_type type,
			 struct netlink_ext_ack *extack)
{
	struct flow_block_cb *block_cb, *next;
	struct flow_block_offload bo;
	int err = block_ask(block, type, FLOW_BLOCK_UNBIND, &bo, extack);

	list_for_each_entry_safe(block_cb, next, &bo.cb_list, list) {
		list_del(&block_cb->list);
		flow_block_cb_free(block_cb);
	}
	return err;
}

/*
 * A callback that its driver does not give back is cut off, so that nothing
 * points to @block any more. For an indirect block, block_cleanup() is still
 * called when the driver unregisters.
 */
static int block_unbind(struct shim_block *block,
			struct netlink_ext_ack *extack)
{
	int err = block_release(block, block->type, extack);
	struct flow_block_cb *block_cb, *next;

	list_for_each_entry_safe(block_cb, next, &block->block.cb_list, list) {
		list_del_init(&block_cb->list);
		if (!block->indirect)
			continue;
		block_cb->indr.data = NULL;
		if (!block->leaving)
			__module_get(THIS_MODULE);
	}
	return block->leaving ? 0 : err;
}

/*
 * The core remembers an indirect block, and adds the callbacks of drivers that
 * come later to ->late, with no lock that could be had here. So it is made to
 * forget the block at once: UNBIND, with a type that no driver knows, does just
 * that. (Without it, a bind in vain would leave a pointer to the block behind.)
 */
static int block_bind_indirect(struct shim_block *block,
			       struct flow_block_offload *bo, int err,
			       struct netlink_ext_ack *extack)
{
	struct list_head *list = &block->block.cb_list;

	block_release(block, TC_QUERY_CAPS, NULL);
	/* Until the end, so that no request reaches one of two callbacks. */
	guard(rwsem_write)(&block->lock);
	list_splice(&bo->cb_list, list);
	list_splice_init(&block->late, list);
	if (list_empty(list) || list_is_singular(list))
		return list_empty(list) ? err : 0;

	/* A rule would have to be in all of them or in none. */
	NL_SET_ERR_MSG(extack, "more than one driver would take its rules");
	block_unbind(block, NULL);
	return -EOPNOTSUPP;
}

/*
 * Asks for callbacks and puts them into @block, unless it has some. -EAGAIN if
 * the driver is about to leave.
 */
int shim_block_bind(struct shim_block *block, struct netlink_ext_ack *extack)
{
	struct flow_block_offload bo;
	int err;

	guard(mutex)(&block_setup_lock);
	if (!list_empty(&block->block.cb_list))
		return block->leaving ? -EAGAIN : 0;

	err = block_ask(block, block->type, FLOW_BLOCK_BIND, &bo, extack);
	block->unlocked = bo.unlocked_driver_cb;
	if (block->indirect)
		return block_bind_indirect(block, &bo, err, extack);

	if (err >= 0) {
		guard(rwsem_write)(&block->lock);
		list_splice(&bo.cb_list, &block->block.cb_list);
	}
	return err;
}

/* Has the driver take its callbacks out of @block, if there are any. */
int shim_block_unbind(struct shim_block *block, struct netlink_ext_ack *extack)
{
	guard(mutex)(&block_setup_lock);
	if (list_empty(&block->block.cb_list))
		return 0;

	return block_unbind(block, extack);
}

/* Whether the driver said when it was last asked that it takes requests without RTNL. */
bool shim_block_is_unlocked(const struct shim_block *block)
{
	return block->unlocked;
}

/* Whether there is a driver that does not leave. */
bool shim_block_takes_rules(struct shim_block *block)
{
	return !READ_ONCE(block->leaving) &&
	       !list_empty_careful(&block->block.cb_list);
}

/* Hands @cls to the driver behind @block. */
int shim_block_call(struct shim_block *block, struct flow_cls_offload *cls)
{
	struct flow_block_cb *block_cb;

	guard(rwsem_read)(&block->lock);
	block_cb = list_first_entry_or_null(&block->block.cb_list,
					    struct flow_block_cb, list);
	if (!block_cb || (block->leaving && cls->command == FLOW_CLS_REPLACE))
		return -EOPNOTSUPP;

	return block_cb->cb(TC_SETUP_CLSFLOWER, cls, block_cb->cb_priv);
}

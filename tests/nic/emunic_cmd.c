// SPDX-License-Identifier: GPL-2.0
/* emunic: what the host asks for: BIND, UNBIND, REPLACE, DESTROY, STATS. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/error-injection.h>
#include <linux/rtnetlink.h>
#include <linux/wait_bit.h>
#include <net/pkt_cls.h>

#include "emunic.h"

/* As in real drivers, one per binder; under emunic.lock. */
static LIST_HEAD(emunic_ft_cb_list);
static LIST_HEAD(emunic_block_cb_list);

/* With the knob "serial", of the commands. */
static DEFINE_MUTEX(emunic_serial);
/* Commands that have not answered yet, but for those that wait for emunic_serial. */
static atomic_t emunic_under_way;

static int emunic_replace_locked(struct emunic_port *port,
				 const struct emunic_indr *indr, bool via_ft,
				 struct flow_cls_offload *f)
{
	struct netlink_ext_ack *extack = f->common.extack;
	struct emunic_rule *rule;
	struct net_device *nic;
	int err;

	if (!port->present) {
		NL_SET_ERR_MSG_MOD(extack, "port has vanished");
		return -ENODEV;
	}
	rcu_read_lock();
	nic = rcu_dereference(port->nic);
	err = nic && tc_cls_can_offload_and_chain0(nic, &f->common) ?
	      0 : -EOPNOTSUPP;
	rcu_read_unlock();
	if (err)
		return err;

	err = emunic_inject(EMUNIC_CMD_REPLACE, port);
	if (err) {
		NL_SET_ERR_MSG_MOD(extack, "injected failure");
		return err;
	}

	rule = kzalloc_obj(*rule);
	if (!rule)
		return -ENOMEM;
	err = emunic_parse(port, indr, via_ft, f, &rule->key, &rule->prog);
	if (!err) {
		rule->cookie = f->cookie;
		rule->via_ft = via_ft;
		rule->last_used = jiffies;
		err = emunic_rule_add(rule, extack);
	}
	if (err)
		kfree_rcu(rule, rcu);
	return err;
}

static int emunic_replace(struct emunic_port *port,
			  const struct emunic_indr *indr, bool via_ft,
			  struct flow_cls_offload *f)
{
	int err = emunic_replace_locked(port, indr, via_ft, f);

	if (!err) {
		emunic.total[EMUNIC_REPLACE_OK]++;
		return 0;
	}
	emunic.total[EMUNIC_REPLACE_FAILED]++;
	if (err == -EOPNOTSUPP)
		emunic.total[EMUNIC_REPLACE_EOPNOTSUPP]++;
	else if (err == -ENOSPC)
		emunic.total[EMUNIC_REPLACE_ENOSPC]++;
	return err;
}

/* The port whose rules a fault would have to name to hit this cookie. */
static struct emunic_port *emunic_rule_port(struct emunic_rule *rule,
					    struct emunic_port *port)
{
	return rule ? &emunic.port[rule->key.port] : port;
}

static int emunic_unknown_cookie(void)
{
	if (emunic_accepts(EMUNIC_SILENT_ZERO))
		return 0;
	return emunic_accepts(EMUNIC_UNKNOWN_EINVAL) ? -EINVAL : -ENOENT;
}

static int emunic_destroy(struct emunic_port *port, struct flow_cls_offload *f)
{
	struct emunic_rule *rule = emunic_rule_find(f->cookie);
	int err;

	err = emunic_inject(EMUNIC_CMD_DESTROY, emunic_rule_port(rule, port));
	if (err) {
		emunic.total[EMUNIC_DESTROY_FAILED]++;
		if (rule)
			rule->kept = true;
		return err;
	}
	if (!rule) {
		emunic.total[EMUNIC_DESTROY_ENOENT]++;
		return emunic_unknown_cookie();
	}
	emunic_rule_del(rule);
	emunic.total[EMUNIC_DESTROY_OK]++;
	return 0;
}

/* Deltas since the last call, as mlx5 and mtk report them. */
static int emunic_stats(struct emunic_port *port, struct flow_cls_offload *f)
{
	struct emunic_rule *rule = emunic_rule_find(f->cookie);
	u64 packets, bytes;
	int err;

	err = emunic_inject(EMUNIC_CMD_STATS, emunic_rule_port(rule, port));
	if (err) {
		emunic.total[EMUNIC_STATS_FAILED]++;
		return err;
	}
	if (!rule) {
		emunic.total[EMUNIC_STATS_ENOENT]++;
		return emunic_unknown_cookie();
	}
	packets = atomic64_read(&rule->packets);
	bytes = atomic64_read(&rule->bytes);
	flow_stats_update(&f->stats, bytes - rule->bytes_told,
			  packets - rule->packets_told, 0,
			  READ_ONCE(rule->last_used),
			  FLOW_ACTION_HW_STATS_DELAYED);
	rule->packets_told = packets;
	rule->bytes_told = bytes;
	emunic.total[EMUNIC_STATS_OK]++;
	return 0;
}

/* As long as it takes, or until latency_us is written 0. */
static void emunic_sleep(u32 latency)
{
	u32 latency_ms = latency / USEC_PER_MSEC;

	if (latency_ms > 20)
		wait_var_event_timeout(&emunic.latency_us,
				       !READ_ONCE(emunic.latency_us),
				       msecs_to_jiffies(latency_ms) + 1);
	else
		fsleep(latency);
}

/*
 * indr is NULL for a block of the port itself. fail_function can make it fail
 * before it has done anything.
 */
noinline int emunic_clsflower(struct emunic_port *port,
			      const struct emunic_indr *indr, bool via_ft,
			      enum tc_setup_type type, void *type_data)
{
	struct flow_cls_offload *f = type_data;
	bool serial = READ_ONCE(emunic.serial) && !emunic_is_apart(port);
	u32 latency;
	int err;

	if (type != TC_SETUP_CLSFLOWER)
		return -EOPNOTSUPP;
	if (emunic_accepts(EMUNIC_NEED_RTNL))
		ASSERT_RTNL();

	/* outside the lock of the tables: the knobs stay usable */
	if (serial)
		mutex_lock(&emunic_serial);
	atomic_inc(&emunic_under_way);
	latency = emunic_is_apart(port) ? 0 : READ_ONCE(emunic.latency_us);
	if (latency)
		emunic_sleep(latency);

	mutex_lock(&emunic.lock);
	emunic.total[EMUNIC_MOST_AT_ONCE] =
		max_t(u64, emunic.total[EMUNIC_MOST_AT_ONCE],
		      atomic_read(&emunic_under_way));
	switch (f->command) {
	case FLOW_CLS_REPLACE:
		err = emunic_replace(port, indr, via_ft, f);
		break;
	case FLOW_CLS_DESTROY:
		err = emunic_destroy(port, f);
		break;
	case FLOW_CLS_STATS:
		err = emunic_stats(port, f);
		break;
	default:
		err = -EOPNOTSUPP;
		break;
	}
	mutex_unlock(&emunic.lock);
	atomic_dec(&emunic_under_way);
	if (serial)
		mutex_unlock(&emunic_serial);
	return err;
}
ALLOW_ERROR_INJECTION(emunic_clsflower, ERRNO);

static int emunic_ft_cb(enum tc_setup_type type, void *type_data, void *cb_priv)
{
	return emunic_clsflower(cb_priv, NULL, true, type, type_data);
}

static int emunic_block_cb(enum tc_setup_type type, void *type_data,
			   void *cb_priv)
{
	return emunic_clsflower(cb_priv, NULL, false, type, type_data);
}

bool emunic_bound_ft(struct emunic_port *port)
{
	return flow_block_cb_is_busy(emunic_ft_cb, port, &emunic_ft_cb_list);
}

bool emunic_bound_block(struct emunic_port *port)
{
	return flow_block_cb_is_busy(emunic_block_cb, port,
				     &emunic_block_cb_list);
}

/*
 * UNBIND leaves the rules where they are, as real hardware does: whoever
 * unbinds must have withdrawn them before.
 */
static int emunic_setup_block(struct emunic_port *port, bool ft,
			      struct flow_block_offload *bo)
{
	bool bind = bo->command == FLOW_BLOCK_BIND;
	int err;

	/* not counted: clsact asks for its egress side each time */
	if (bo->binder_type != FLOW_BLOCK_BINDER_TYPE_CLSACT_INGRESS)
		return -EOPNOTSUPP;

	mutex_lock(&emunic.lock);
	if (bind && !emunic_accepts(ft ? EMUNIC_FT : EMUNIC_BLOCK)) {
		NL_SET_ERR_MSG_MOD(bo->extack, "binder not supported");
		err = -EOPNOTSUPP;
		goto out;
	}
	if (bind && !port->present) {
		err = -ENODEV;
		goto out;
	}
	err = emunic_inject(bind ? EMUNIC_CMD_BIND : EMUNIC_CMD_UNBIND, port);
	if (err) {
		NL_SET_ERR_MSG_MOD(bo->extack, "injected failure");
		goto out;
	}

	/* tc counts on the same answer at UNBIND */
	if (bind)
		port->unlocked = emunic_accepts(EMUNIC_UNLOCKED);
	bo->unlocked_driver_cb = port->unlocked;
	if (ft)
		err = flow_block_cb_setup_simple(bo, &emunic_ft_cb_list,
						 emunic_ft_cb, port, port,
						 true);
	else
		err = flow_block_cb_setup_simple(bo, &emunic_block_cb_list,
						 emunic_block_cb, port, port,
						 true);
out:
	if (bind)
		emunic.total[err ? EMUNIC_BIND_FAILED : EMUNIC_BIND_OK]++;
	else
		emunic.total[err ? EMUNIC_UNBIND_FAILED : EMUNIC_UNBIND_OK]++;
	mutex_unlock(&emunic.lock);
	return err;
}

int emunic_setup_tc(struct net_device *dev, enum tc_setup_type type,
		    void *type_data)
{
	struct emunic_port *port = emunic_port_of(dev);

	switch (type) {
	case TC_SETUP_FT:
		return emunic_setup_block(port, true, type_data);
	case TC_SETUP_BLOCK:
		return emunic_setup_block(port, false, type_data);
	default:
		return -EOPNOTSUPP;
	}
}

/*
 * A callback whose UNBIND was made to fail has no other owner once its block
 * is gone; its ->list may point into freed memory, so it is not unlinked.
 */
void emunic_free_leaked_binds(void)
{
	struct flow_block_cb *block_cb, *next;

	list_splice_init(&emunic_ft_cb_list, &emunic_block_cb_list);
	list_for_each_entry_safe(block_cb, next, &emunic_block_cb_list,
				 driver_list) {
		pr_info("a block was still bound\n");
		kfree(block_cb);
	}
}

// SPDX-License-Identifier: GPL-2.0
/* Which qdiscs do more than to queue. */
#include <linux/netdevice.h>
#include <linux/string.h>
#include <net/pkt_sched.h>
#include <net/sch_generic.h>

#include "../bindings/helpers.h"

/*
 * These keep packets for as long as the device is busy, and drop some if that
 * takes too long: a NIC that sends by itself has queues of its own. All others
 * limit rates, delay, or have an order that an administrator wants.
 */
static const char * const queues[] = {
	"noqueue", "noop", "pfifo_fast", "pfifo", "bfifo", "pfifo_head_drop",
	"fq", "fq_codel", "fq_pie", "codel", "pie", "dualpi2", "sfq", "hhf",
	"red", "gred", "choke", "sfb",
	/* what they are made of is looked at */
	"mq", "multiq",
};

static bool is_queue(const struct Qdisc_ops *ops)
{
	return match_string(queues, ARRAY_SIZE(queues), ops->id) >= 0 ||
	       ops == default_qdisc_ops;
}

/*
 * Returns whether the qdisc of @dev does more than to queue, and its name. A
 * module of a qdisc is not freed before a grace period of RCU.
 */
bool shim_dev_shaper(struct net_device *dev, char name[IFNAMSIZ])
{
	const struct Qdisc_ops *known = NULL;
	const struct Qdisc *qdisc;
	unsigned int i;

	guard(rcu)();
	qdisc = rcu_dereference(dev->qdisc);
	for (i = 0; qdisc; i++) {
		/* Those of the queues are mostly of one kind. */
		if (qdisc->ops != known && !is_queue(qdisc->ops)) {
			strscpy(name, qdisc->ops->id, IFNAMSIZ);
			return true;
		}
		known = qdisc->ops;
		if (i == dev->num_tx_queues)
			break;
		qdisc = rcu_dereference(netdev_get_tx_queue(dev, i)->qdisc_sleeping);
	}
	return false;
}

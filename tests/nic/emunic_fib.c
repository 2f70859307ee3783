// SPDX-License-Identifier: GPL-2.0
/*
 * emunic: namespaces where register_fib_notifier() fails, as it does where routes
 * change each time before they have been listed. See the knob "fib_churn".
 */
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rtnetlink.h>
#include <net/fib_notifier.h>
#include <net/net_namespace.h>
#include <net/netns/generic.h>

#include "emunic.h"

static unsigned int emunic_fib_id;
static DEFINE_MUTEX(emunic_fib_lock);
/* How often a namespace with the knob was asked whether routes have changed. */
static atomic_t emunic_fib_asked = ATOMIC_INIT(0);

struct emunic_fib {
	struct fib_notifier_ops *ops;	/* under emunic_fib_lock */
};

static unsigned int emunic_fib_seq_read(const struct net *net)
{
	return atomic_inc_return(&emunic_fib_asked);
}

static int emunic_fib_dump(struct net *net, struct notifier_block *nb,
			   struct netlink_ext_ack *extack)
{
	return 0;
}

/* No family has this number. */
static const struct fib_notifier_ops emunic_fib_ops = {
	.family = AF_UNSPEC,
	.fib_seq_read = emunic_fib_seq_read,
	.fib_dump = emunic_fib_dump,
	.owner = THIS_MODULE,
};

static void emunic_fib_end(struct net *net)
{
	struct emunic_fib *fib = net_generic(net, emunic_fib_id);

	guard(mutex)(&emunic_fib_lock);
	if (fib->ops)
		fib_notifier_ops_unregister(fib->ops);
	fib->ops = NULL;
}

static int emunic_fib_begin(struct net *net)
{
	struct emunic_fib *fib = net_generic(net, emunic_fib_id);
	struct fib_notifier_ops *ops;

	guard(mutex)(&emunic_fib_lock);
	if (fib->ops)
		return 0;
	ops = fib_notifier_ops_register(&emunic_fib_ops, net);
	if (IS_ERR(ops))
		return PTR_ERR(ops);
	fib->ops = ops;
	return 0;
}

/* Of the namespace that the port is in, or with NULL of none any more. */
int emunic_fib_set(struct emunic_port *port)
{
	struct net_device *nic;
	struct net *net;
	int err;

	if (!port) {
		guard(rwsem_read)(&net_rwsem);
		for_each_net(net)
			emunic_fib_end(net);
		return 0;
	}

	rtnl_lock();
	nic = rtnl_dereference(port->nic);
	err = nic ? emunic_fib_begin(dev_net(nic)) : -ENODEV;
	rtnl_unlock();
	return err;
}

unsigned int emunic_fib_get(void)
{
	return atomic_read(&emunic_fib_asked);
}

static struct pernet_operations emunic_fib_net_ops = {
	.exit = emunic_fib_end,
	.id = &emunic_fib_id,
	.size = sizeof(struct emunic_fib),
};

int emunic_fib_init(void)
{
	return register_pernet_subsys(&emunic_fib_net_ops);
}

/* Ends it everywhere. */
void emunic_fib_exit(void)
{
	unregister_pernet_subsys(&emunic_fib_net_ops);
}

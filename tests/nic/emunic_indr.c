// SPDX-License-Identifier: GPL-2.0
/*
 * emunic: VLAN devices over the ports. They have no ndo_setup_tc, so blocks are
 * bound to them indirectly: the core asks all who registered.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/if_macvlan.h>
#include <linux/if_vlan.h>

#include "emunic.h"

struct emunic_indr {
	struct list_head list;		/* in emunic_indrs, while bound */
	struct emunic_vlan vlan;
	int ifindex;
	bool via_ft;
	struct flow_block_cb *block_cb;
	/*
	 * Of block_cb alone: who cleans up takes it off a list of the driver's
	 * without a lock of the driver's.
	 */
	struct list_head driver_list;
};

static LIST_HEAD(emunic_indrs);		/* under emunic.lock */

static DEFINE_MUTEX(emunic_indr_lock);	/* of emunic_indr_on */
static bool emunic_indr_on;

/*
 * False if dev is not a VLAN device over a port or a macvlan that has all of
 * one, or has too many tags. The device is alive, or its NETDEV_UNREGISTER is
 * being told.
 */
bool emunic_vlan_of(const struct net_device *dev, struct emunic_vlan *vlan)
{
	memset(vlan, 0, sizeof(*vlan));
	if (netif_is_macvlan(dev)) {
		const struct macvlan_dev *macvlan = netdev_priv(dev);

		if (macvlan->mode != MACVLAN_MODE_PASSTHRU)
			return false;
		dev = macvlan->lowerdev;
	}
	for (; is_vlan_dev(dev); dev = vlan_dev_priv(dev)->real_dev) {
		if (vlan->num_tags == EMUNIC_MAX_TAGS)
			return false;
		vlan->tag[1] = vlan->tag[0];
		vlan->tag[0].tpid = vlan_dev_vlan_proto(dev);
		vlan->tag[0].tci = vlan_dev_vlan_id(dev);
		vlan->num_tags++;
	}
	vlan->port = emunic_port_of(dev);
	return vlan->num_tags && vlan->port;
}

const struct emunic_vlan *emunic_indr_vlan(const struct emunic_indr *indr)
{
	return &indr->vlan;
}

bool emunic_indr_is_dev(const struct emunic_indr *indr, int ifindex)
{
	return indr->ifindex == ifindex;
}

unsigned int emunic_bound_indr(const struct emunic_port *port)
{
	struct emunic_indr *indr;
	unsigned int n = 0;

	lockdep_assert_held(&emunic.lock);
	list_for_each_entry(indr, &emunic_indrs, list)
		n += indr->vlan.port == port;
	return n;
}

static struct emunic_indr *emunic_indr_find(const struct emunic_vlan *vlan,
					    bool ft)
{
	struct emunic_indr *indr;

	list_for_each_entry(indr, &emunic_indrs, list)
		if (indr->via_ft == ft &&
		    !memcmp(&indr->vlan, vlan, sizeof(*vlan)))
			return indr;
	return NULL;
}

static int emunic_indr_cb(enum tc_setup_type type, void *type_data,
			  void *cb_priv)
{
	const struct emunic_indr *indr = cb_priv;

	return emunic_clsflower(indr->vlan.port, indr, indr->via_ft, type,
				type_data);
}

/* Nobody calls emunic_indr_cb() for it any more. */
static void emunic_indr_release(void *cb_priv)
{
	struct emunic_indr *indr = cb_priv;

	mutex_lock(&emunic.lock);
	list_del(&indr->list);
	mutex_unlock(&emunic.lock);
	kfree(indr);
}

static int emunic_indr_bind(const struct flow_block_indr *by,
			    const struct emunic_vlan *vlan, bool ft,
			    struct flow_block_offload *bo)
{
	struct flow_block_cb *block_cb;
	struct emunic_indr *indr;
	int err;

	if (!emunic_accepts(EMUNIC_INDIRECT)) {
		NL_SET_ERR_MSG_MOD(bo->extack, "VLAN devices not supported");
		return -EOPNOTSUPP;
	}
	if (!vlan->port->present)
		return -ENODEV;
	err = emunic_inject(EMUNIC_CMD_BIND, vlan->port);
	if (err) {
		NL_SET_ERR_MSG_MOD(bo->extack, "injected failure");
		return err;
	}
	if (emunic_indr_find(vlan, ft))
		return -EBUSY;

	indr = kzalloc_obj(*indr);
	if (!indr)
		return -ENOMEM;
	block_cb = flow_indr_block_cb_alloc(emunic_indr_cb, indr, indr,
					    emunic_indr_release, bo, by->dev,
					    by->sch, by->data, &emunic,
					    by->cleanup);
	if (IS_ERR(block_cb)) {
		kfree(indr);
		return PTR_ERR(block_cb);
	}
	indr->vlan = *vlan;
	indr->ifindex = by->dev->ifindex;
	indr->via_ft = ft;
	indr->block_cb = block_cb;
	list_add_tail(&indr->list, &emunic_indrs);
	INIT_LIST_HEAD(&indr->driver_list);
	list_add(&block_cb->driver_list, &indr->driver_list);
	flow_block_cb_add(block_cb, bo);
	return 0;
}

static int emunic_indr_unbind(const struct emunic_vlan *vlan, bool ft, bool tc,
			      struct flow_block_offload *bo)
{
	struct emunic_indr *indr = emunic_indr_find(vlan, ft);
	struct flow_block_cb *block_cb;
	int err;

	if (!indr)
		return -ENOENT;
	block_cb = flow_block_cb_lookup(bo->block, emunic_indr_cb, indr);
	if (!block_cb)
		return -ENOENT;
	err = emunic_inject(EMUNIC_CMD_UNBIND, vlan->port);
	if (err) {
		/* tc's block may go now, so the core must not clean it up */
		if (tc)
			list_del_init(&block_cb->indr.list);
		NL_SET_ERR_MSG_MOD(bo->extack, "injected failure");
		return err;
	}
	/* until it is released, a new one may be bound */
	list_del_init(&indr->list);
	flow_indr_block_cb_remove(block_cb, bo);
	list_del(&block_cb->driver_list);
	return 0;
}

static int emunic_indr_setup(struct net_device *dev,
			     typeof_member(struct flow_block_indr, sch) sch,
			     void *cb_priv, enum tc_setup_type type,
			     void *type_data, void *data,
			     void (*cleanup)(struct flow_block_cb *block_cb))
{
	const struct flow_block_indr by = {
		.dev = dev,
		.sch = sch,
		.data = data,
		.cleanup = cleanup,
	};
	struct flow_block_offload *bo = type_data;
	struct emunic_vlan vlan;
	bool bind, ft;
	int err;

	/* no device: actions that stand alone */
	if (!dev || (type != TC_SETUP_FT && type != TC_SETUP_BLOCK) ||
	    bo->binder_type != FLOW_BLOCK_BINDER_TYPE_CLSACT_INGRESS)
		return -EOPNOTSUPP;
	ft = type == TC_SETUP_FT;
	bind = bo->command == FLOW_BLOCK_BIND;
	/*
	 * A BIND from the past, which flow_indr_dev_register() replays: also one
	 * that all refused, whose block and device are gone since.
	 */
	if (bind && !bo->block && !emunic_accepts(EMUNIC_REPLAY))
		return -EOPNOTSUPP;
	if (!emunic_vlan_of(dev, &vlan))
		return -EOPNOTSUPP;

	mutex_lock(&emunic.lock);
	bo->unlocked_driver_cb = true;
	if (bind) {
		err = emunic_indr_bind(&by, &vlan, ft, bo);
		emunic.total[err ? EMUNIC_BIND_FAILED : EMUNIC_BIND_OK]++;
	} else {
		err = emunic_indr_unbind(&vlan, ft, sch, bo);
		emunic.total[err ? EMUNIC_UNBIND_FAILED : EMUNIC_UNBIND_OK]++;
	}
	mutex_unlock(&emunic.lock);
	return err;
}

/* Without, all that is bound is cleaned up by those who bound it. */
int emunic_indr_set(bool on)
{
	int err = 0;

	mutex_lock(&emunic_indr_lock);
	if (on && !emunic_indr_on)
		err = flow_indr_dev_register(emunic_indr_setup, &emunic);
	else if (!on && emunic_indr_on)
		flow_indr_dev_unregister(emunic_indr_setup, &emunic,
					 emunic_indr_release);
	if (!err)
		emunic_indr_on = on;
	mutex_unlock(&emunic_indr_lock);
	return err;
}

bool emunic_indr_get(void)
{
	return READ_ONCE(emunic_indr_on);
}

/* As emunic_free_leaked_binds(). */
void emunic_free_leaked_indrs(void)
{
	struct emunic_indr *indr, *next;

	list_for_each_entry_safe(indr, next, &emunic_indrs, list) {
		pr_info("a block of a VLAN device was still bound\n");
		kfree(indr->block_cb);
		kfree(indr);
	}
}

static int emunic_vlan_event(struct notifier_block *nb, unsigned long event,
			     void *ptr)
{
	struct net_device *dev = netdev_notifier_info_to_dev(ptr);
	struct emunic_vlan vlan;

	if ((event != NETDEV_UP && event != NETDEV_DOWN &&
	     event != NETDEV_UNREGISTER) || !emunic_vlan_of(dev, &vlan))
		return NOTIFY_DONE;

	mutex_lock(&emunic.lock);
	if (event == NETDEV_UNREGISTER)
		emunic.total[EMUNIC_VANISHED] += emunic_rules_flush_vlan(&vlan);
	else
		emunic_rules_set_down(&vlan, event == NETDEV_DOWN);
	mutex_unlock(&emunic.lock);
	return NOTIFY_DONE;
}

/* Last: those who withdraw their rules by themselves come first. */
static struct notifier_block emunic_vlan_nb = {
	.notifier_call = emunic_vlan_event,
	.priority = INT_MIN,
};

int emunic_vlans_init(void)
{
	return register_netdevice_notifier(&emunic_vlan_nb);
}

void emunic_vlans_exit(void)
{
	unregister_netdevice_notifier(&emunic_vlan_nb);
}

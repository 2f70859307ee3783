// SPDX-License-Identifier: GPL-2.0
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>

#include "helpers.h"

void shim_dev_hold(struct net_device *dev)
{
	dev_hold(dev);
}

void shim_dev_put(struct net_device *dev)
{
	dev_put(dev);
}

int shim_dev_ifindex(const struct net_device *dev)
{
	return READ_ONCE(dev->ifindex);
}

void shim_dev_name(const struct net_device *dev, char name[IFNAMSIZ])
{
	strscpy(name, netdev_name(dev), IFNAMSIZ);
}

void shim_dev_addr(const struct net_device *dev, u8 addr[ETH_ALEN])
{
	memcpy(addr, dev->dev_addr, ETH_ALEN);
}

bool shim_dev_has_setup_tc(const struct net_device *dev)
{
	return dev->netdev_ops->ndo_setup_tc;
}

/* Whether hw-tc-offload, which the driver has, is off. */
bool shim_dev_is_switched_off(const struct net_device *dev)
{
	return (dev->hw_features & ~dev->features) & NETIF_F_HW_TC;
}

void shim_rtnl_lock(void)
{
	rtnl_lock();
}

bool shim_rtnl_trylock(void)
{
	return rtnl_trylock();
}

void shim_rtnl_unlock(void)
{
	rtnl_unlock();
}

bool shim_dev_is_in(const struct net_device *dev, const struct net *net)
{
	return net_eq(dev_net(dev), net);
}

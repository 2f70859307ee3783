// SPDX-License-Identifier: GPL-2.0
/* emunic: ports, their netdevs, and the module. See emunic.h. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/etherdevice.h>
#include <linux/ethtool.h>
#include <linux/module.h>
#include <linux/random.h>
#include <linux/rtnetlink.h>

#include "../../rust/bindings/compat.h"
#include "emunic.h"

struct emunic emunic = {
	.lock = __MUTEX_INITIALIZER(emunic.lock),
	.rules = XARRAY_INIT(emunic.rules, 0),
};

static unsigned int ports = 3;
module_param(ports, uint, 0444);
MODULE_PARM_DESC(ports, "number of ports, 2 to 64 (default 3)");

static u64 seed;
module_param(seed, ullong, 0444);
MODULE_PARM_DESC(seed, "seed of the faults' random numbers, 0 for a random one");

static bool indirect = true;
module_param(indirect, bool, 0444);
MODULE_PARM_DESC(indirect, "take blocks of VLAN devices over the ports (default 1)");

static struct net_device *emunic_peer(const struct net_device *dev)
{
	struct emunic_end *end = netdev_priv(dev);

	return end->is_wire ? rtnl_dereference(end->port->nic) :
			      rtnl_dereference(end->port->wire);
}

static int emunic_open(struct net_device *dev)
{
	struct net_device *peer = emunic_peer(dev);

	if (!peer)
		return -ENOTCONN;
	if (peer->flags & IFF_UP) {
		netif_carrier_on(dev);
		netif_carrier_on(peer);
	}
	return 0;
}

static int emunic_stop(struct net_device *dev)
{
	struct net_device *peer = emunic_peer(dev);

	netif_carrier_off(dev);
	if (peer)
		netif_carrier_off(peer);
	return 0;
}

static void emunic_get_drvinfo(struct net_device *dev,
			       struct ethtool_drvinfo *info)
{
	strscpy(info->driver, EMUNIC_NAME, sizeof(info->driver));
}

static int emunic_get_link_ksettings(struct net_device *dev,
				     struct ethtool_link_ksettings *cmd)
{
	cmd->base.speed = SPEED_10000;
	cmd->base.duplex = DUPLEX_FULL;
	cmd->base.port = PORT_TP;
	cmd->base.autoneg = AUTONEG_DISABLE;
	return 0;
}

static const struct ethtool_ops emunic_ethtool_ops = {
	.get_drvinfo = emunic_get_drvinfo,
	.get_link = ethtool_op_get_link,
	.get_link_ksettings = emunic_get_link_ksettings,
};

/* The end of the way, as it is without this. */
static int emunic_fill_forward_path(struct net_device_path_ctx *ctx,
				    struct net_device_path *path)
{
	struct emunic_end *end = netdev_priv(ctx->dev);

	if (test_bit(EMUNIC_WIFI, &end->port->flags))
		return compat_path_fill_wifi(ctx, path);
	path->type = DEV_PATH_ETHERNET;
	path->dev = ctx->dev;
	ctx->dev = NULL;
	return 0;
}

static const struct net_device_ops emunic_nic_ops = {
	.ndo_open = emunic_open,
	.ndo_stop = emunic_stop,
	.ndo_start_xmit = emunic_nic_xmit,
	.ndo_setup_tc = emunic_setup_tc,
	.ndo_fill_forward_path = emunic_fill_forward_path,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
};

static const struct net_device_ops emunic_wire_ops = {
	.ndo_open = emunic_open,
	.ndo_stop = emunic_stop,
	.ndo_start_xmit = emunic_wire_xmit,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
};

struct emunic_port *emunic_port_of(const struct net_device *dev)
{
	struct emunic_end *end;

	if (dev->netdev_ops != &emunic_nic_ops)
		return NULL;
	end = netdev_priv(dev);
	return end->port;
}

/* By the port's own name: the netdev may have been renamed since. */
struct emunic_port *emunic_port_by_name(const char *name)
{
	unsigned int index;

	if (strncmp(name, "nic", 3) || kstrtouint(name + 3, 10, &index) ||
	    index >= emunic.num_ports)
		return NULL;
	return &emunic.port[index];
}

static void emunic_setup(struct net_device *dev)
{
	ether_setup(dev);
	/* the data plane rewrites what it is given */
	dev->priv_flags &= ~IFF_TX_SKB_SHARING;
	dev->priv_flags |= IFF_LIVE_ADDR_CHANGE | IFF_NO_QUEUE;
	dev->lltx = true;
	dev->needs_free_netdev = true;
	dev->pcpu_stat_type = NETDEV_PCPU_STAT_TSTATS;
	dev->max_mtu = EMUNIC_MAX_MTU;
	dev->ethtool_ops = &emunic_ethtool_ops;
}

static struct net_device *emunic_register_end(struct emunic_port *port,
					      bool is_wire)
{
	/* locally administered: 02 'n' 'i' 'c' or 02 'w' 'i' 'r' */
	u8 mac[ETH_ALEN] = { 0x02, 'n', 'i', 'c', 0, port->index };
	struct net_device *dev;
	struct emunic_end *end;
	char name[IFNAMSIZ];
	int err;

	snprintf(name, sizeof(name), "%s%u", is_wire ? "wire" : "nic",
		 port->index);
	dev = alloc_netdev(sizeof(*end), name, NET_NAME_PREDICTABLE,
			   emunic_setup);
	if (!dev)
		return ERR_PTR(-ENOMEM);

	end = netdev_priv(dev);
	end->port = port;
	end->is_wire = is_wire;
	if (is_wire) {
		memcpy(mac + 1, "wir", 3);
		dev->netdev_ops = &emunic_wire_ops;
	} else {
		dev->netdev_ops = &emunic_nic_ops;
		dev->hw_features |= NETIF_F_HW_TC;
		dev->features |= NETIF_F_HW_TC;
	}
	eth_hw_addr_set(dev, mac);
	netif_carrier_off(dev);

	err = register_netdevice(dev);
	if (err) {
		free_netdev(dev);
		return ERR_PTR(err);
	}
	return dev;
}

static void emunic_port_unplug(struct emunic_port *port, struct list_head *kill)
{
	struct net_device *nic = rtnl_dereference(port->nic);
	struct net_device *wire = rtnl_dereference(port->wire);

	if (!nic)
		return;
	RCU_INIT_POINTER(port->nic, NULL);
	RCU_INIT_POINTER(port->wire, NULL);
	netif_carrier_off(nic);
	netif_carrier_off(wire);
	unregister_netdevice_queue(nic, kill);
	unregister_netdevice_queue(wire, kill);
}

/*
 * As a driver's remove(): no command is taken any more, the netdev goes, whose
 * notifiers UNBIND, then the hardware's state.
 */
int emunic_port_vanish(struct emunic_port *port)
{
	LIST_HEAD(kill);
	int err = 0;

	rtnl_lock();
	mutex_lock(&emunic.lock);
	if (!port->present)
		err = -ENODEV;
	port->present = false;
	mutex_unlock(&emunic.lock);
	if (err)
		goto out;

	emunic_port_unplug(port, &kill);
	unregister_netdevice_many(&kill);

	mutex_lock(&emunic.lock);
	emunic.total[EMUNIC_VANISHED] += emunic_rules_flush_port(port->index);
	mutex_unlock(&emunic.lock);
out:
	rtnl_unlock();
	return err;
}

static void emunic_set_present(struct emunic_port *port, bool present)
{
	mutex_lock(&emunic.lock);
	port->present = present;
	mutex_unlock(&emunic.lock);
}

/* nicK last, and ready: a flowtable that waits for its name BINDs meanwhile. */
static int __emunic_port_appear(struct emunic_port *port)
{
	struct net_device *nic, *wire;

	ASSERT_RTNL();

	wire = emunic_register_end(port, true);
	if (IS_ERR(wire))
		return PTR_ERR(wire);
	emunic_set_present(port, true);
	nic = emunic_register_end(port, false);
	if (IS_ERR(nic)) {
		emunic_set_present(port, false);
		unregister_netdevice(wire);
		return PTR_ERR(nic);
	}

	rcu_assign_pointer(port->nic, nic);
	rcu_assign_pointer(port->wire, wire);
	return 0;
}

int emunic_port_appear(struct emunic_port *port)
{
	int err;

	rtnl_lock();
	err = rtnl_dereference(port->nic) ? -EEXIST :
					    __emunic_port_appear(port);
	rtnl_unlock();
	return err;
}

static void emunic_ports_exit(void)
{
	LIST_HEAD(kill);
	unsigned int i;

	rtnl_lock();
	for (i = 0; i < emunic.num_ports; i++)
		emunic_port_unplug(&emunic.port[i], &kill);
	unregister_netdevice_many(&kill);
	rtnl_unlock();
}

static void emunic_ports_free(void)
{
	unsigned int i;

	for (i = 0; i < emunic.num_ports; i++)
		free_percpu(emunic.port[i].pcpu);
	kfree(emunic.port);
}

static int emunic_ports_init(void)
{
	struct emunic_port *port;
	unsigned int i;
	int err = 0;
	int cpu;

	emunic.port = kzalloc_objs(*emunic.port, ports);
	if (!emunic.port)
		return -ENOMEM;

	for (i = 0; i < ports && !err; i++) {
		port = &emunic.port[i];
		port->index = i;
		port->pcpu = alloc_percpu(struct emunic_pcpu);
		if (!port->pcpu) {
			err = -ENOMEM;
			break;
		}
		for_each_possible_cpu(cpu)
			u64_stats_init(&per_cpu_ptr(port->pcpu, cpu)->sync);
		emunic.num_ports++;

		rtnl_lock();
		err = __emunic_port_appear(port);
		rtnl_unlock();
	}
	if (err) {
		emunic_ports_exit();
		emunic_ports_free();
	}
	return err;
}

static int __init emunic_init(void)
{
	int err;

	if (ports < EMUNIC_MIN_PORTS || ports > EMUNIC_MAX_PORTS) {
		pr_err("ports=%u is not between %d and %d\n", ports,
		       EMUNIC_MIN_PORTS, EMUNIC_MAX_PORTS);
		return -EINVAL;
	}
	if (!seed)
		seed = get_random_u32();
	prandom_seed_state(&emunic.rnd, seed);
	emunic_knobs_reset();

	err = emunic_rules_init();
	if (err)
		return err;
	err = emunic_vlans_init();
	if (err)
		goto err_rules;
	err = emunic_fib_init();
	if (err)
		goto err_vlans;
	err = emunic_ports_init();
	if (err)
		goto err_fib;
	err = emunic_indr_set(indirect);
	if (err)
		goto err_ports;
	emunic_debugfs_init();
	pr_info("%u ports, seed=%llu\n", ports, seed);
	return 0;

err_ports:
	emunic_ports_exit();
	emunic_ports_free();
err_fib:
	emunic_fib_exit();
err_vlans:
	emunic_vlans_exit();
err_rules:
	emunic_rules_exit();
	return err;
}

static void __exit emunic_exit(void)
{
	emunic_debugfs_exit();
	/* while the ports take commands: those who clean up send some */
	emunic_indr_set(false);
	emunic_ports_exit();
	emunic_fib_exit();
	emunic_vlans_exit();
	emunic_rules_exit();
	emunic_ports_free();
	emunic_free_leaked_binds();
	emunic_free_leaked_indrs();
}

module_init(emunic_init);
module_exit(emunic_exit);

MODULE_DESCRIPTION("Emulated switch NIC that executes flow_rule requests");
MODULE_LICENSE("GPL");

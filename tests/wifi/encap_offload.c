// SPDX-License-Identifier: GPL-2.0
/*
 * Loading this module makes the radio behind a device (dev=wlan0) one whose hardware
 * makes the 802.11 header, as far as mac80211 is concerned: of mac80211_hwsim none does,
 * and only devices of such radios answer dev_fill_forward_path(). Before the device is
 * up. What leaves with TKIP still goes through mac80211's own hands, so it works.
 */
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <net/cfg80211.h>
#include <net/mac80211.h>

static char *dev;
module_param(dev, charp, 0444);
MODULE_PARM_DESC(dev, "a device of mac80211 in the initial namespace");

static int __init encap_offload_init(void)
{
	struct net_device *netdev;
	int err = -ENODEV;

	rtnl_lock();
	netdev = dev ? __dev_get_by_name(&init_net, dev) : NULL;
	if (netdev && netdev->ieee80211_ptr && !netif_running(netdev)) {
		ieee80211_hw_set(wiphy_to_ieee80211_hw(netdev->ieee80211_ptr->wiphy),
				 SUPPORTS_TX_ENCAP_OFFLOAD);
		err = 0;
	}
	rtnl_unlock();
	return err;
}

/* The radio stays as it is. */
static void __exit encap_offload_exit(void)
{
}

module_init(encap_offload_init);
module_exit(encap_offload_exit);

MODULE_DESCRIPTION("Makes a radio of mac80211_hwsim one with encapsulation offload");
MODULE_LICENSE("GPL");

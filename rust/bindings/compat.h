/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What differs between the kernels that can be built for; Kbuild.compat finds out
 * what a kernel has. All of it can go with support for 7.2.
 */
#ifndef NFT_OFFLOAD_COMPAT_H
#define NFT_OFFLOAD_COMPAT_H

#include <linux/netdevice.h>

/*
 * Has dev_fill_forward_path() answer as it answers nft_dev_fill_forward_path() for
 * packets of @ether_type. Since 7.3 tunnels ask for that, and a Wi-Fi device is a
 * step of its own; without ->ieee80211, and before 7.3, mac80211 has its driver
 * answer, which most cannot, and nftables does not know the step of those that can.
 */
static inline void compat_path_ask(struct net_device_path_ctx *ctx, __be16 ether_type)
{
#ifdef HAVE_PATH_ETHER_TYPE
	ctx->ether_type = ether_type;
#endif
#ifdef HAVE_PATH_IEEE80211
	ctx->ieee80211 = true;
#endif
}

/* Whether @path is that step. */
static inline bool compat_path_is_wifi(const struct net_device_path *path)
{
#ifdef HAVE_PATH_IEEE80211
	return path->type == DEV_PATH_IEEE80211;
#else
	return false;
#endif
}

/* What a Wi-Fi device answers without a word from its driver. */
static inline int compat_path_fill_wifi(struct net_device_path_ctx *ctx,
					struct net_device_path *path)
{
#ifdef HAVE_PATH_IEEE80211
	if (ctx->ieee80211) {
		path->type = DEV_PATH_IEEE80211;
		path->dev = ctx->dev;
		ctx->dev = NULL;
		return 0;
	}
#endif
	return -EOPNOTSUPP;
}

/* Until 7.3 AIROHA_PRIV_F_WAN, which is BIT(0). */
#ifndef HAVE_AIROHA_DEV_F_WAN
#define AIROHA_DEV_F_WAN 0
#endif

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bindgen reads. The types that the kernel crate has already are taken
 * from there (see mod.rs), so that they are one and the same type.
 */
#include <linux/if_vlan.h>
#include <linux/netdevice.h>
#include <linux/tc_act/tc_csum.h>
#include <linux/rhashtable.h>
#include <net/flow_offload.h>
#include <net/genetlink.h>
#include <net/netfilter/nf_flow_table.h>
#include <net/netfilter/nf_tables.h>

#include "helpers.h"
#include "uapi/nft_offload.h"

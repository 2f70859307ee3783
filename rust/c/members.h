/* SPDX-License-Identifier: GPL-2.0 */
/* What notifier.c has members.c do for it. */
#ifndef NFT_OFFLOAD_MEMBERS_H
#define NFT_OFFLOAD_MEMBERS_H

#include <linux/netfilter.h>

#include "../bindings/helpers.h"

/* The hooks of a namespace that see what is forwarded without an entry. */
struct shim_forwarded {
	struct nf_hook_ops ops[2];
	unsigned long next;	/* when one is told of again, in jiffies */
	unsigned long started;
};

void shim_forwarded_start(struct shim_forwarded *from, struct net *net);
void shim_forwarded_stop(struct shim_forwarded *from, struct net *net);

void shim_net_send_event(const struct net *net, const struct shim_event *event);

#endif

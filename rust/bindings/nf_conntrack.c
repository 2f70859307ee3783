// SPDX-License-Identifier: GPL-2.0
#include <net/netfilter/nf_conntrack.h>
#include <net/netfilter/nf_conntrack_zones.h>

#include "helpers.h"

u16 shim_ct_zone(const struct nf_conn *ct)
{
	return nf_ct_zone(ct)->id;
}

u32 shim_ct_mark(const struct nf_conn *ct)
{
#ifdef CONFIG_NF_CONNTRACK_MARK
	return READ_ONCE(ct->mark);
#else
	return 0;
#endif
}

struct net *shim_ct_net(const struct nf_conn *ct)
{
	return nf_ct_net(ct);
}

bool shim_ct_is_dying(const struct nf_conn *ct)
{
	return nf_ct_is_dying(ct);
}

bool shim_ct_status(const struct nf_conn *ct, enum ip_conntrack_status bit)
{
	return test_bit(bit, &ct->status);
}

void shim_ct_get(struct nf_conn *ct)
{
	nf_conntrack_get(&ct->ct_general);
}

void shim_ct_put(struct nf_conn *ct)
{
	nf_ct_put(ct);
}

void shim_ct_clear_hw_offload(struct nf_conn *ct)
{
	clear_bit(IPS_HW_OFFLOAD_BIT, &ct->status);
}

void shim_ct_set_hw_offload(struct nf_conn *ct)
{
	set_bit(IPS_HW_OFFLOAD_BIT, &ct->status);
}

/* Not IPS_NAT_CLASH's own meaning: see rust/offload/left.rs. */
void shim_ct_set_no_entry(struct nf_conn *ct, bool set)
{
	assign_bit(IPS_NAT_CLASH_BIT, &ct->status, set);
}

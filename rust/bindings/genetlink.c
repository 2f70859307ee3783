// SPDX-License-Identifier: GPL-2.0
#include <net/genetlink.h>

#include "helpers.h"

void shim_genlmsg_end(struct sk_buff *skb, void *hdr)
{
	genlmsg_end(skb, hdr);
}

void shim_genlmsg_cancel(struct sk_buff *skb, void *hdr)
{
	genlmsg_cancel(skb, hdr);
}

struct net *shim_genl_info_net(const struct genl_info *info)
{
	return genl_info_net(info);
}

const struct genl_info *shim_genl_info_dump(struct netlink_callback *cb)
{
	return genl_info_dump(cb);
}

void shim_genl_dump_check_consistent(struct netlink_callback *cb, void *hdr)
{
	genl_dump_check_consistent(cb, hdr);
}

unsigned int shim_skb_tailroom(const struct sk_buff *skb)
{
	return skb_tailroom(skb);
}

struct nlattr *shim_nla_nest_start(struct sk_buff *skb, int attrtype)
{
	return nla_nest_start(skb, attrtype);
}

void shim_nla_nest_end(struct sk_buff *skb, struct nlattr *start)
{
	nla_nest_end(skb, start);
}

void shim_nla_nest_cancel(struct sk_buff *skb, struct nlattr *start)
{
	nla_nest_cancel(skb, start);
}

/* How long the nest would be by now. */
size_t shim_nla_nest_len(const struct sk_buff *skb, const struct nlattr *start)
{
	return skb_tail_pointer(skb) - (const unsigned char *)start;
}

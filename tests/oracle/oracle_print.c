// SPDX-License-Identifier: GPL-2.0
/* Lists of actions, as text. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/printk.h>

#include "oracle_judge.h"

static void print_entry(unsigned int i, const struct flow_action_entry *entry)
{
	static const char * const headers[] = {
		"no header", "Ethernet", "IPv4", "IPv6", "TCP", "UDP",
	};

	switch (entry->id) {
	case FLOW_ACTION_MANGLE:
	case FLOW_ACTION_ADD:
		pr_err("  %2u: %s in %s at %u, mask %08x, value %08x\n", i,
		       entry->id == FLOW_ACTION_ADD ? "add" : "mangle",
		       entry->mangle.htype < ARRAY_SIZE(headers) ?
		       headers[entry->mangle.htype] : "?",
		       entry->mangle.offset, entry->mangle.mask, entry->mangle.val);
		break;
	case FLOW_ACTION_VLAN_POP:
		pr_err("  %2u: vlan pop\n", i);
		break;
	case FLOW_ACTION_VLAN_PUSH:
		pr_err("  %2u: vlan push %#06x id %#x\n", i, ntohs(entry->vlan.proto),
		       entry->vlan.vid);
		break;
	case FLOW_ACTION_PPPOE_PUSH:
		pr_err("  %2u: pppoe push %#x\n", i, entry->pppoe.sid);
		break;
	case FLOW_ACTION_CSUM:
		pr_err("  %2u: csum %#x\n", i, entry->csum_flags);
		break;
	case FLOW_ACTION_REDIRECT:
		pr_err("  %2u: redirect to %s\n", i, netdev_name(entry->dev));
		break;
	case FLOW_ACTION_TUNNEL_ENCAP:
		pr_err("  %2u: tunnel encap\n", i);
		break;
	case FLOW_ACTION_TUNNEL_DECAP:
		pr_err("  %2u: tunnel decap\n", i);
		break;
	case FLOW_ACTION_ACCEPT:
		pr_err("  %2u: accept\n", i);
		break;
	default:
		pr_err("  %2u: action %d\n", i, entry->id);
		break;
	}
}

void oracle_print_list(const char *text, const struct oracle_list *list)
{
	pr_err("%s: %u actions\n", text, list->num);
	for (unsigned int i = 0; i < list->num; i++)
		print_entry(i, &list->entries[i]);
}

/* Prints both lists if they differ, and the first byte that does. */
bool oracle_same_lists(const struct oracle_list *a, const char *a_text,
		       const struct oracle_list *b, const char *b_text)
{
	size_t size = sizeof(a->entries[0]);

	if (a->num == b->num && !memcmp(a->entries, b->entries, a->num * size))
		return true;

	oracle_print_list(a_text, a);
	oracle_print_list(b_text, b);
	for (unsigned int i = 0; i < min(a->num, b->num); i++) {
		const u8 *x = (const u8 *)&a->entries[i];
		const u8 *y = (const u8 *)&b->entries[i];

		for (unsigned int j = 0; j < size; j++) {
			if (x[j] == y[j])
				continue;
			pr_err("first difference: entry %u, byte %u of %zu: %02x and %02x\n",
			       i, j, size, x[j], y[j]);
			return false;
		}
	}
	pr_err("first difference: the number of entries\n");
	return false;
}

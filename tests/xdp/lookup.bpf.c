// SPDX-License-Identifier: GPL-2.0
/* Looks each TCP and UDP packet up in the flowtable of its device, counts what came of it. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET		2
#define AF_INET6	10

/* Not in the UAPI. What a flow looks like inside is none of our business. */
struct flow_offload_tuple_rhash {
};

struct bpf_flowtable_opts {
	__s32 error;
};

struct flow_offload_tuple_rhash *
bpf_xdp_flow_lookup(struct xdp_md *ctx, struct bpf_fib_lookup *fib_tuple,
		    struct bpf_flowtable_opts *opts, __u32 opts_len) __ksym;

struct kind {
	__u32 ifindex;
	__u16 family;
	__u16 proto;
};

struct count {
	__u64 found;
	__u64 missed;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct kind);
	__type(value, struct count);
} lookups SEC(".maps");

static bool parse(struct xdp_md *ctx, struct bpf_fib_lookup *tuple)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct udphdr *ports;	/* TCP has them in the same place */

	if ((void *)(eth + 1) > end)
		return false;

	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end || ip->ihl != 5 ||
		    ip->frag_off & bpf_htons(0x3fff))
			return false;
		tuple->family = AF_INET;
		tuple->l4_protocol = ip->protocol;
		tuple->ipv4_src = ip->saddr;
		tuple->ipv4_dst = ip->daddr;
		ports = (void *)(ip + 1);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip6 = (void *)(eth + 1);

		if ((void *)(ip6 + 1) > end)
			return false;
		tuple->family = AF_INET6;
		tuple->l4_protocol = ip6->nexthdr;
		__builtin_memcpy(tuple->ipv6_src, &ip6->saddr, sizeof(ip6->saddr));
		__builtin_memcpy(tuple->ipv6_dst, &ip6->daddr, sizeof(ip6->daddr));
		ports = (void *)(ip6 + 1);
	} else {
		return false;
	}

	if (tuple->l4_protocol != IPPROTO_TCP && tuple->l4_protocol != IPPROTO_UDP)
		return false;
	if ((void *)(ports + 1) > end)
		return false;
	tuple->sport = ports->source;
	tuple->dport = ports->dest;
	return true;
}

SEC("xdp")
int lookup(struct xdp_md *ctx)
{
	struct bpf_fib_lookup tuple = { .ifindex = ctx->ingress_ifindex };
	struct bpf_flowtable_opts opts = {};
	struct count *count, none = {};
	struct kind kind;

	if (!parse(ctx, &tuple))
		return XDP_PASS;

	kind.ifindex = tuple.ifindex;
	kind.family = tuple.family;
	kind.proto = tuple.l4_protocol;
	bpf_map_update_elem(&lookups, &kind, &none, BPF_NOEXIST);
	count = bpf_map_lookup_elem(&lookups, &kind);
	if (!count)
		return XDP_PASS;

	if (bpf_xdp_flow_lookup(ctx, &tuple, &opts, sizeof(opts)))
		__sync_fetch_and_add(&count->found, 1);
	else
		__sync_fetch_and_add(&count->missed, 1);
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";

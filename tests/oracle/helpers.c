// SPDX-License-Identifier: GPL-2.0
/* The same files as in nft_offload.ko, built into this module as well. */
#include "../../rust/bindings/netdevice.c"
#include "../../rust/bindings/nf_conntrack.c"
#include "../../rust/bindings/nf_flow_table.c"
#include "../../rust/c/flow.c"

// SPDX-License-Identifier: GPL-2.0
/* The same file as in nft_offload.ko, built into this module as well. */
#include "../../rust/bindings/shims.c"

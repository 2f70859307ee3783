#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What `make demo` runs in the machine: demo.py, between a client, a router and a server on the wires of the emulated
# NIC.
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh" >/dev/null

# nft loads all but the first by itself, one by one, which takes an emulator seconds.
modprobe -a nf_flow_table nft_flow_offload nft_ct nft_chain_nat nft_masq
load_module
topology ports=2
on "$router" sysctl -qw net.netfilter.nf_conntrack_acct=1
exec "$_here/bench/demo.py" "$client" "$router" "$server"

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# user.sh MODULE: on a machine where the packages are installed, a user loads his ruleset, and does nothing else;
# nftables gets MODULE. life.sh boots the machine.
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
module=$1 other=nft_offload
[ "$module" != "$other" ] || other=nf_flow_table_inet

topology
check "nft takes the ruleset" eval 'flowtable_ruleset | load_ruleset'
_loaded=("$module" "${_loaded[@]}")
check "nft has loaded $module" [ -d "/sys/module/$module" ]
check "nft has not loaded $other" [ ! -d "/sys/module/$other" ]
if [ "$module" = nf_flow_table_inet ]; then
	check "the log says why it is not nft_offload" grep -q 'nft_offload could not be loaded.*nft-offload-dkms' <(busybox dmesg)
else
	check "$module has BTF" [ -s "/sys/kernel/btf/$module" ]
	flow_open web tcp4
	check "a connection has its rules in the NIC" wait_rules 2
	check "a connection is forwarded by the NIC" in_hardware web 300000
fi

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug stock
# also: whether it can be loaded at all
#
# Loading and unloading, and what stands in the way of it.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name=nft_offload
need "$NFT_OFFLOAD_KO"
at_exit eval "modprobe -qr nf_flow_table_inet; rmmod $name 2>/dev/null"

modprobe nf_flow_table
not_loaded() { [ ! -d /sys/module/$name ]; }
unused() { grep -q "^$1 [0-9]* 0 " /proc/modules; }

is "$(modinfo -F alias "$NFT_OFFLOAD_KO" | sort)" \
	"$(printf 'nf-flowtable-%s\n' 1 10 2)" "the module has the aliases by which nftables asks for it"
is "$(modinfo -F license "$NFT_OFFLOAD_KO")" GPL "the module's licence is GPL"

modprobe nf_flow_table_inet
# The module says EEXIST, which the kernel keeps for a module that is loaded twice.
check "the module is not loaded beside the C module" \
	grep -E "File exists|Device or resource busy" <(insmod "$NFT_OFFLOAD_KO" 2>&1)
check "beside the C module, the message says what to do" grep -q 'modprobe -r nf_flow_table_inet' <(last_told)
check "beside the C module, the module is not there" not_loaded
check "the C module still works" nft -f - <<<'table inet t { flowtable f { hook ingress priority 0; devices = { lo }; }; }'
nft flush ruleset
busywait $LIMIT unused nf_flow_table_inet
modprobe -r nf_flow_table_inet
modprobe nf_flow_table

refused() {
	local value=${1#*=}
	check "$1 is refused" fails insmod "$NFT_OFFLOAD_KO" "$1"
	check "$1 is refused: the log says so" grep -F -e "$1 is out of range" \
		-e "\`$value' invalid for parameter \`${1%%=*}'" <(last_told)
}
for value in incapable=2 ttl=3 report_ms=-1 partial={2,x}; do refused "$value"; done
# To load a module takes the debug machine seconds.
! has_time || for value in partial={255,256,-1,} report_ms=4294967296; do refused "$value"; done
check "an unknown parameter does no harm" insmod "$NFT_OFFLOAD_KO" nosuch=1
rmmod $name

for i in 1 2 3 4 5; do
	insmod "$NFT_OFFLOAD_KO" partial=$((i % 2))
	for family in inet ip ip6; do
		nft -f - <<<"table $family t { flowtable f { hook ingress priority 0; devices = { lo }; }; }"
	done
	check "unloading is refused as long as flowtables are there" \
		grep -q 'in use' <(rmmod $name 2>&1)
	nft flush ruleset
	busywait $LIMIT unused $name
	rmmod $name
done
ok "loaded, used by three families, and unloaded five times"

insmod "$NFT_OFFLOAD_KO"
check "a flowtable of another family is an error" \
	fails nft -f - <<<'table bridge t { flowtable f { hook ingress priority 0; devices = { lo }; }; }'
check "of a flowtable of another family nothing stays" unused $name
modprobe nf_flow_table_inet
nft -f - <<<'table inet t { flowtable f { hook ingress priority 0; devices = { lo }; }; }'
is "$(awk -v m=$name '$1 == m { print $3 }' /proc/modules)" 1 \
	"the C module loaded later does not take its place"
nft flush ruleset
busywait $LIMIT unused $name

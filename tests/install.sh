#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml stock
# in-tree: it is about this checkout
# timeout: 300
#
# What a user does: make, make install, and then nothing but nft.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
TOP=${TOP:-/src}
command -v gcc >/dev/null || skip "this machine has no compiler"

name=nft_offload
# The checkout, writable, with what was compiled for this kernel outside: on an emulated
# processor that takes minutes. Linking is done here.
upper=$(mktemp -d)
at_exit rm -rf "$upper"
mkdir "$upper/upper" "$upper/work"
mount -t overlay -o "lowerdir=$TOP,upperdir=$upper/upper,workdir=$upper/work" overlay "$TOP"
at_exit umount "$TOP"
ko=$TOP/build/$(uname -r)/nft_offload.ko
rm -f "$ko"

# Only the modules that nft asks for: depmod of all that a distribution has takes minutes too.
modules=/lib/modules/$(uname -r)
mkdir "$upper/modules"
cp --parents "$modules"/modules.{builtin,builtin.modinfo,order} "$upper/modules"
for module in nf_tables nf_flow_table_inet; do
	modprobe -D $module | awk '$1 == "insmod" { print $2 }'
done | sort -u | xargs cp --parents -t "$upper/modules"
mount --bind "$upper/modules/$modules" "$modules"
at_exit umount "$modules"

run_make() { make --no-print-directory -C "$TOP" "$@"; }
unused() { grep -q "^$1 [0-9]* 0 " /proc/modules; }
flowtable() { nft -f - <<<'table inet t { flowtable f { hook ingress priority 0; devices = { lo }; }; }'; }
built() { stat -c %.9Y "$ko"; }
installed() { find "$modules/updates" /etc/modprobe.d -name '*nft*offload*' 2>/dev/null | sort; }

check "make builds for the running kernel" run_make
is "$(modinfo -F vermagic "$ko" | cut -d' ' -f1)" "$(uname -r)" "the module is built for this kernel"

check "make install" run_make install
is "$(installed)" "/etc/modprobe.d/nft-offload.conf
$modules/updates/$name.ko" "the module and its modprobe.d file are there"

check "nft makes a flowtable" flowtable
check "nft has loaded this module for the flowtable" [ -d /sys/module/$name ]
check "nft has not loaded the C module" [ ! -d /sys/module/nf_flow_table_inet ]
check "modprobe -r is refused as long as the flowtable is there" fails modprobe -r $name
nft flush ruleset
busywait $LIMIT unused $name
check "modprobe -r unloads the module when the flowtable is gone" modprobe -r $name

check "modprobe takes parameters" modprobe $name partial=1
modprobe -r $name

# The next kernel, for which nobody has built it yet: the firewall comes up all the same.
mv "$modules/updates/$name.ko" "$upper"
depmod -a
check "on a kernel without the module, nft makes a flowtable" flowtable
check "on a kernel without the module, nft loads the C module" [ -d /sys/module/nf_flow_table_inet ]
check "on a kernel without the module, the log says that it is the C module" grep -q "$name could not be loaded, so nf_flow_table_inet is" <(dmesg)
nft flush ruleset
busywait $LIMIT unused nf_flow_table_inet
modprobe -r nf_flow_table_inet
mv "$upper/$name.ko" "$modules/updates"
depmod -a

before=$(built)
check "make install can be repeated" run_make install
is "$(built)" "$before" "make install, repeated, builds nothing that is there"
if [ "$MACHINE" = uml ]; then # as above
	touch "$TOP/rust/offload/mod.rs"
	check "make install after a change" run_make install
	check "make install after a change builds the module" [ "$(built)" != "$before" ]
	check "make install after a change installs what it has built" cmp "$ko" "$modules/updates/$name.ko"
fi
check "make uninstall" run_make uninstall
is "$(installed)" "" "make uninstall leaves nothing"
check "make uninstall can be repeated" run_make uninstall
check "after make uninstall, nft makes a flowtable" flowtable
check "after make uninstall, nft loads the C module" [ -d /sys/module/nf_flow_table_inet ]
check "after make uninstall, nft does not load this module" [ ! -d /sys/module/$name ]
nft flush ruleset
busywait $LIMIT unused nf_flow_table_inet
modprobe -r nf_flow_table_inet

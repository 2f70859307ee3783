#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: stock
# also: what users see first
# runs-on: host
# timeout: 900
#
# `make demo`, and the figures that others read.
source "$TOP/tests/lib.sh"

out=$OUT/demo
check "the demo says that all is well" env VM_BUILT=1 DEMO_OUT="$out" "$TOP/scripts/demo" --machine "$MACHINE"
sed 's/^/# /' "$_output"
figures() {
	"$TOP/scripts/enter" --share "$out" -- jq -e '
		([.offload, .software] | map(keys) | unique) ==
			[["cpu_bytes", "cpu_packets", "nic_bytes", "nic_packets", "seconds"]] and
		.software.nic_packets == 0 and
		.offload.nic_bytes >= 0.95 * (.offload.nic_bytes + .offload.cpu_bytes)' demo.json
}
check "demo.json has the figures of both runs, with at least 95% of the bytes in the NIC" figures

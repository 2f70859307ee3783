#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# manual: much the same as its sibling, in two minutes
# timeout: 900
#
# The rules of real flows, taken by mtk_ppe_offload.c and mtk_ppe.c.
third=15 soc=mt7988
source "$(dirname "${BASH_SOURCE[0]}")/cases.sh"

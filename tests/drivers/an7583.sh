#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# manual: much the same as its sibling, in two minutes
# timeout: 900
#
# The rules of real flows, taken by airoha_ppe.c.
foreign="-(EINVAL|22)" smac6=port soc=an7583
source "$(dirname "${BASH_SOURCE[0]}")/cases.sh"

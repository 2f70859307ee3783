#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: host
set -euo pipefail
"$TOP/scripts/enter" -- scripts/rust fmtcheck

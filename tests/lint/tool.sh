#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: host
# timeout: 900
#
# The operator's command line: rustfmt, clippy, and its unit tests.
set -euo pipefail
"$TOP/scripts/tool" lint
"$TOP/scripts/tool" test

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: host
# timeout: 300
set -euo pipefail
make -s --no-print-directory -C "$TOP" clippy

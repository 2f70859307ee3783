#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: host
#
# scripts/check.py: which tests it finds, where they run, and in what order.
exec python3 "$TOP/tests/selfcheck/runner.py" --verbose

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
# also: what the kernel gives differs
#
# The module's KUnit suites.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

results=/sys/kernel/debug/kunit
need $results
before=$(ls $results)
load_module

suites=$(comm -13 <(echo "$before") <(ls $results))
passed=0
for suite in $suites; do
	echo run >"$results/$suite/run"
	# Not the plan and the totals, nor the suite's own line, which is not indented.
	passed=$((passed + $(grep -cE '^ +ok [0-9]+ ' "$results/$suite/results" || true)))
	check "$suite has no test that fails" fails grep -E '^ *not ok ' "$results/$suite/results"
	cat "$results/$suite/results"
done
check "there are tests" [ "$passed" -gt 0 ]
echo "# $passed KUnit tests passed in $(wc -w <<<"$suites") suites"

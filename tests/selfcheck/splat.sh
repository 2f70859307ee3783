#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug
# side: host
# timeout: 1800
#
# The test runner notices what a test and a kernel can do wrong: runs it over the planted
# tests and compares what it says with what was planted.
set -euo pipefail

build=$TOP/build/selfcheck/$MACHINE
mkdir -p "$build"
cp -u "$TOP"/tests/selfcheck/planted/{Kbuild,plant.c} "$build"
"$TOP/scripts/build-for" --machine "$MACHINE" --share "$build" -- \
	sh -c '$KMAKE M=/share modules' >"$build/log" 2>&1 || {
	cat "$build/log"
	exit 1
}

case $MACHINE in
uml)
	expected='
		ok   pass
		FAIL fail
		skip skip .*nothing to see
		FAIL slow .*no end within 5 s
		FAIL leftover .*left something behind
		FAIL warn .*splat
		FAIL deadlock .*splat
		FAIL panic .*the machine died
		FAIL hang .*the machine hung'
	;;
*)
	# Those that only this machine finds. A pass before them shares their machine.
	expected='
		ok   pass
		ok   leak
		FAIL kmemleak .*leaks
		FAIL uaf .*splat'
	;;
esac
names=$(awk 'NF { print $2 }' <<<"$expected" | paste -sd '|')
failed=$(grep -c FAIL <<<"$expected") passed=$(grep -c ok <<<"$expected")

status=0
said=$(CHECK_TESTS=$TOP/tests/selfcheck/planted CHECK_OUT=$build/check \
	T="@($names)" M=$MACHINE "$TOP/scripts/check" 2>&1) || status=$?
echo "$said"

[ $status = 1 ] || { echo "it ended with $status, not with 1" && exit 1; }
while read -r result name remark; do
	[ -n "$result" ] || continue
	grep -qE "^$result +$MACHINE +$name +.*$remark" <<<"$said" || {
		echo "it did not say: $result $name $remark"
		exit 1
	}
done <<<"$expected"
tail -n 1 <<<"$said" | grep -qE "^$passed passed, $failed failed, [01] skipped$" || {
	echo "its closing line is wrong"
	exit 1
}

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan debug
# runs-on: host
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

# says RESULT NAME REMARK…, one per line on standard input: what the runner has to say when it
# runs the tests of these names. ("kmemleak-N" is a result of its own, at the end of a boot.)
says() {
	local expected names failed passed said status=0 result name remark
	expected=$(grep .)
	names=$(awk '{ print $2 }' <<<"$expected" | paste -sd '|')
	failed=$(grep -c FAIL <<<"$expected") || true
	passed=$(grep -c ok <<<"$expected") || true

	said=$(CHECK_TESTS=$TOP/tests/selfcheck/planted CHECK_OUT=$build/check \
		TEST="@($names)" MACHINE=$MACHINE "$TOP/scripts/check" 2>&1) || status=$?
	echo "$said"

	[ $status = 1 ] || { echo "it ended with $status, not with 1" && exit 1; }
	while read -r result name remark; do
		grep -qE "^$result +$MACHINE +$name +.*$remark" <<<"$said" || {
			echo "it did not say: $result $name $remark"
			exit 1
		}
	done <<<"$expected"
	tail -n 1 <<<"$said" | grep -qE "^$passed passed, $failed failed, [01] skipped$" || {
		echo "its closing line is wrong"
		exit 1
	}
	# Not only unheard: one that hangs does so for ever.
	no_machine_is_left
}

no_machine_is_left() {
	timeout 60 sh -c 'while pgrep -f "$1"; do sleep 0.1; done' sh "[s]hare $build/check" || {
		echo "these machines still run"
		exit 1
	}
}

# interrupted SIGNAL WORDS: the runner gets SIGNAL while a machine runs a test; WORDS are its last line.
interrupted() {
	local runner status=0
	rm -f "$build/check/$MACHINE/hang.out"
	CHECK_TESTS=$TOP/tests/selfcheck/planted CHECK_OUT=$build/check \
		TEST=hang MACHINE=$MACHINE "$TOP/scripts/check" >"$build/interrupted" 2>&1 &
	runner=$!
	timeout 300 sh -c 'until [ -e "$1" ]; do sleep 0.1; done' sh "$build/check/$MACHINE/hang.out"
	kill "-$1" $runner
	wait $runner || status=$?
	cat "$build/interrupted"
	[[ $status != 0 && $(tail -n 1 "$build/interrupted") == "$2" ]] || {
		echo "SIG$1: it ended with $status"
		exit 1
	}
	no_machine_is_left
	echo "SIG$1: no machine is left"
}

if [ "$MACHINE" = uml ]; then
	interrupted INT "error: interrupted"
	interrupted TERM "error: interrupted"
	interrupted KILL "tests: 1 (uml 1)"
	says <<-'END'
		ok   pass
		ok   leak
		FAIL kmemleak-[0-9]+ .*leaks
	END
	says <<-'END'
		ok   pass
		FAIL fail
		skip skip .*nothing to see
		FAIL slow .*no end within 5 s
		FAIL leftover .*left something behind
		FAIL warn .*splat
		FAIL deadlock .*splat
		FAIL panic .*the machine died
		FAIL hang .*the machine hung
	END
else
	# Those that uml does not find. A splat ends a boot before it is searched for leaks.
	[ "$MACHINE" != debug ] || says <<-'END'
		ok   pass
		ok   leak
		FAIL kmemleak-[0-9]+ .*leaks
	END
	says <<-'END'
		FAIL uaf .*splat
	END
fi

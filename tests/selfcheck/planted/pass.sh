#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml kasan debug
# smp: so that the machine with kmemleak takes them
# timeout: 5
#
# What the test of the test runner runs. Its links are its other names: each does what it
# is called.
set -euo pipefail
case $(basename "$0" .sh) in
pass) echo "all is well" ;;
fail)
	echo "this went wrong"
	exit 1
	;;
skip)
	echo "1..0 # SKIP nothing to see"
	exit 4
	;;
slow) read -r <> <(:) ;;
leftover) ip netns add leftover ;;
*)
	insmod "/src/build/selfcheck/$MACHINE/plant.ko" "what=$(basename "$0" .sh)"
	rmmod plant
	;;
esac

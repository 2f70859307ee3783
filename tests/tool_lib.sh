# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# The operator's command line on the router. Sourced after lib.sh, used after `topology`, which sets $router.
# shellcheck disable=SC2154

TOOL=/src/build/tool/nft-offload
need $TOOL

tool() { on "$router" $TOOL "$@"; }
# ends STATUS ARGUMENT…: it ends with that status.
ends() {
	local status=0
	tool "${@:2}" || status=$?
	echo "status $status"
	[ $status = "$1" ]
}
# holds EXPRESSION ARGUMENT…: that is true of its JSON.
holds() { (tool "${@:2}" --json || true) | jq -e "$1"; }
# says WORDS ARGUMENT…: it prints these, in whatever lines.
says() {
	local text
	text=$(tool "${@:2}" 2>&1 | tr -s ' \n' ' ') || true
	echo "$text"
	[[ $text == *"$1"* ]]
}

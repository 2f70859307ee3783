#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# runs-on: host
# timeout: 300
#
# What contributors call beside the tests.
source "$TOP/tests/lib.sh"
SLOWNESS=5 # beside other machines

run_make() { make --no-print-directory -C "$TOP" "$@"; }

# As somebody who types when there is a prompt. `router` and $NIC are that shell's.
mkfifo "$_output.in"
VM_BUILT=1 "$TOP/scripts/shell" "$MACHINE" <"$_output.in" >"$_output.shell" 2>&1 &
shell=$!
exec {type}>"$_output.in"
at_exit eval 'kill $shell 2>/dev/null'
check "make shell: there is a prompt" busywait $LIMIT grep -q "$MACHINE:/src# " "$_output.shell"
echo 'router nft list ruleset; cat $NIC/counters; exit' >&"$type"
check "make shell: exit ends it" busywait $LIMIT fails kill -0 $shell
for words in "flags offload" "masquerade" "rules_max"; do
	check "make shell: it shows \"$words\"" grep "$words" "$_output.shell"
done

check "make doc" run_make doc
check "make doc: the pages are there" grep -q "nft_offload" "$TOP/build/doc/nft_offload/index.html"
check "make rust-analyzer" run_make rust-analyzer
missing_paths() {
	local paths path
	paths=$(grep -oE '"(root_module|sysroot)": "[^"]*"' "$TOP/rust-project.json" | cut -d '"' -f 4)
	[ "$(wc -l <<<"$paths")" -gt 5 ] || echo "there are only: $paths"
	while read -r path; do [ -e "$path" ] || echo "$path"; done <<<"$paths"
}
is "$(missing_paths)" "" "make rust-analyzer: an editor on this machine finds all files"

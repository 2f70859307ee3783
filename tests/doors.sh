#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# side: host
# timeout: 300
#
# What contributors call beside the tests.
source "$TOP/tests/lib.sh"

run_make() { make --no-print-directory -C "$TOP" "$@"; }

# What a command prints is between marks that its own line, which is echoed, does not have.
shell() {
	printf '%s\n' 'echo "beg""in"; router nft list ruleset; rules; ls $NIC; echo "en""d"; exit' |
		VM_BUILT=1 "$TOP/scripts/shell" "$MACHINE" | tr -d '\r' | sed -n '/^begin$/,/^end$/p'
}
check "make shell: a machine in which flows are offloaded" eval 'shell >"$_output.shell"'
for words in "flags offload" "masquerade" "capacity"; do
	check "make shell: \"$words\" is there" grep "$words" "$_output.shell"
done

check "make doc" run_make doc
check "make doc: the pages are there" grep -q "nft_offload" "$TOP/build/doc/nft_offload/index.html"
check "make rust-analyzer" run_make rust-analyzer
missing_paths() {
	python3 - "$TOP/rust-project.json" <<-'END'
		import json, os, sys
		project = json.load(open(sys.argv[1], encoding="utf-8"))
		paths = {crate["root_module"] for crate in project["crates"]} | {project["sysroot"]}
		print(*(path for path in paths if not os.path.exists(path)), sep="\n")
	END
}
is "$(missing_paths)" "" "make rust-analyzer: an editor on this machine finds all files"

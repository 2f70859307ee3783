#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# runs-on: host
# timeout: 300
#
# The tests as the kernel's own runner has them.
source "$TOP/tests/lib.sh"
SLOWNESS=5 # beside other machines

dir=$OUT/kselftest
rm -rf "$dir"
install_to() { make --no-print-directory -C "$TOP" kselftest-install INSTALL_PATH="$1"; }
check "without a place to install to, a line says what to do" \
	grep "INSTALL_PATH=DIR" <(install_to "" 2>&1)
check "make kselftest-install" install_to "$dir"
check "the runner is that of the kernel's source" \
	"$TOP/scripts/build-for" --machine "$MACHINE" --share "$dir" -- sh -c '
		from=$(sed -n "s,^include \(/.*\)/Makefile,\1,p" "$KDIR/Makefile")/tools/testing/selftests
		diff -r "$from/kselftest" kselftest && diff "$from/run_kselftest.sh" run_kselftest.sh'
check "this machine's kernel is one that config asks for" \
	"$TOP/scripts/build-for" --machine "$MACHINE" --share "$dir" -- bash -c '
		! grep "^[^#]" nft_offload/config | sed "s/=.*/=[ym]/" | while read -r option; do
			grep -q "^$option" "$KDIR/.config" || echo "$option"
		done | grep .'

# plant NAME COMMANDS: a test of ours.
plant() {
	printf '#!/bin/bash\nsource ./lib.sh\n%s\n' "$2" >"$dir/nft_offload/$1"
	chmod +x "$dir/nft_offload/$1"
	echo "nft_offload:$1" >>"$dir/kselftest-list.txt"
}
plant fails.sh 'check "two and two are five" [ $((2 + 2)) = 5 ]'
plant slow.sh 'is "$SLOWNESS" 5 "it knows that the machine is slow"'
plant without.sh 'NIC_KO= && load_nic'

# What scripts/vm says is unset: the modules are those that were installed.
VM_BUILT=1 "$TOP/scripts/vm" --machine "$MACHINE" --share "$dir" --log "$OUT/kselftest.log" -- \
	env -u NFT_OFFLOAD_KO -u NIC_KO -u MACHINE -u KSRC sh -c '
		./run_kselftest.sh -t nft_offload:load.sh -t nft_offload:partial.sh
		echo "exit status: $?"
		KSFT_MACHINE_SLOW=yes ./run_kselftest.sh \
			-t nft_offload:fails.sh -t nft_offload:slow.sh -t nft_offload:without.sh
		echo "exit status: $?"
		./run_kselftest.sh -d -c nft_offload/truth' </dev/null >"$_output.run" 2>&1 || true
sed 's/^/# | /' "$_output.run"
says() { grep -xE "$1" "$_output.run"; }
check "the runner runs a test: load" says "ok 1 selftests: nft_offload: load.sh"
check "the runner runs another test: partial" says "ok 2 selftests: nft_offload: partial.sh"
check "what tests print is KTAP" [ "$(grep -cx "# KTAP version 1" "$_output.run")" = 5 ]
check "tests have this kernel's modules" grep -q "^# ok .*: the other direction is in the NIC" "$_output.run"
check "the runner succeeds if all tests do" says "exit status: 0"
check "a test that fails is not ok" says "not ok 1 selftests: nft_offload: fails.sh # exit=1"
check "a machine that is said to be slow gets more time" says "ok 2 selftests: nft_offload: slow.sh"
check "without a module there is no test" says "ok 3 selftests: nft_offload: without.sh # SKIP"
check "the runner fails if a test does" says "exit status: 1"
check "there are collections for directories" says "cd nft_offload/truth"

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: stock
# runs-on: host
# timeout: 900
#
# A KVM that cannot be used is found out, told in one line, and does not stop anybody. QEMU's part is
# played by a script, which fails as QEMU does and hands what is emulated to the real one.
source "$TOP/tests/lib.sh"
source "$TOP/scripts/lib.sh"
[ "$STOCK_ARCH" = amd64 ] || skip "another processor than the host's is always emulated"

share=$(mktemp -d)
at_exit rm -rf "$share"
mkdir -p "$CACHE/kernels/kvm"
touch "$share/start"
at_exit find "$CACHE/kernels/kvm" -type f -newer "$share/start" -delete

# Where KVM works, it is played by emulation.
cat >"$share/qemu" <<'END'
#!/bin/bash
case "$*" in
--version) exec qemu-system-x86_64 --version ;;
*"-accel kvm"*) ;;
*) exec qemu-system-x86_64 "$@" ;;
esac
echo "$*" >>/share/kvm-runs
args=() pidfile='' probe=1
while [ $# -gt 0 ]; do
	case "$1 ${2:-}" in
	"-accel kvm") args+=(-accel tcg) && shift ;;
	"-cpu host") args+=(-cpu max,la57=off) && shift ;;
	"-pidfile "*) pidfile=$2 probe='' && args+=("$1") ;;
	*) args+=("$1") ;;
	esac
	shift
done
internal_error() {
	[ -z "$pidfile" ] || echo $$ >"$pidfile"
	echo "KVM internal error. Suberror: 1" >&2
	echo "emulation failure" >&2
	exec sleep infinity # paused, as QEMU is
}
case $(</share/mode)$probe in
abort*)
	echo "qemu-system-x86_64: kvm_buf_set_msrs: Assertion failed." >&2
	kill -ABRT $$
	;;
paused*) internal_error ;;
later) internal_error ;;
begun)
	qemu-system-x86_64 "${args[@]}" &
	until [ -e "${pidfile%/*}/begun" ]; do sleep 0.1; done
	kill $!
	wait $! # which takes its pidfile away
	internal_error
	;;
*) exec qemu-system-x86_64 "${args[@]}" ;;
esac
END
chmod +x "$share/qemu"
export NFT_OFFLOAD_QEMU=/share/qemu

# accel MODE: what it is found to be if QEMU fails like that. Each mode is another QEMU.
accel() {
	echo "$1" >"$share/mode"
	touch "$share/qemu"
	rm -f "$share/kvm-runs"
	again
}
again() {
	"$TOP/scripts/enter" --share "$share" -- /src/scripts/vm-accel "$NFT_OFFLOAD_QEMU" q35 "$(image stock)" \
		>"$share/out" 2>"$share/err" && status=0 || status=$?
	out=$(<"$share/out")
}
runs() { wc -l <"$share/kvm-runs"; }
# vm COMMAND…: leaves out, err, status
vm() {
	VM_BUILT=1 "$TOP/scripts/vm" --machine "$MACHINE" --log "$share/log" --share "$share" --timeout 600 -- "$@" \
		>"$share/out" 2>"$share/err" && status=0 || status=$?
	out=$(<"$share/out")
}

for mode in abort paused; do
	accel $mode
	is "$out" tcg "KVM $mode: machines are emulated"
	is "$(wc -l <"$share/err")" 1 "KVM $mode: that is told in one line"
	check "KVM $mode: the line says why" grep -qE '^vm: .*(Assertion|internal error)' "$share/err"
	again
	is "$out/$(<"$share/err")/$(runs)" "tcg//1" "KVM $mode: that is remembered"
done

accel works
is "$out/$(<"$share/err")" "kvm/" "a KVM that boots the kernel is used"
again
is "$out/$(runs)" "kvm/1" "whether a KVM boots the kernel is found out once"

# The mode changes, QEMU does not: as after an update of the host's microcode, say.
echo later >"$share/mode"
vm echo "was here"
is "$status/$out" "0/was here" "internal error before the command: it runs, emulated"
check "internal error before the command: told in one line" \
	grep -qx 'vm: KVM failed (KVM internal error. Suberror: 1): once more, emulated' "$share/err"
again
is "$out" tcg "internal error before the command: that is remembered"

accel works
echo begun >"$share/mode"
vm sh -c 'read -r x <>/dev/ptmx'
is "$status" 125 "internal error during the command: the machine ends at once"
check "internal error during the command: told in one line" grep -q '^vm: CRASH: .*KVM internal error' "$share/err"

for accel in kvm tcg; do
	NFT_OFFLOAD_ACCEL=$accel again
	is "$out" $accel "NFT_OFFLOAD_ACCEL=$accel overrides"
done
NFT_OFFLOAD_ACCEL=xen again
is "$status" 2 "NFT_OFFLOAD_ACCEL=xen is refused"

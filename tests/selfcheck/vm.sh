#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml stock
# runs-on: host
# timeout: 900
#
# What scripts/vm promises. (debug is QEMU as stock is, and slow.)
source "$TOP/tests/lib.sh"

share=$(mktemp -d)
at_exit rm -rf "$share"
# vm ARGUMENTS…: leaves out, err, status
vm() {
	VM_BUILT=1 "$TOP/scripts/vm" --machine "$MACHINE" --log "$share/log" "$@" \
		>"$share/out" 2>"$share/err" && status=0 || status=$?
	out=$(<"$share/out") err=$(<"$share/err")
}

# The first machine after a boot of this host may have to say that KVM does not work.
[ "$MACHINE" = uml ] || vm -- true

vm --share "$share" -- sh -c '
	echo "$2"; echo to-stderr >&2; echo again >/dev/stderr
	grep -E "nf|emunic" /proc/modules
	id -u; pwd; hostname; ip -o link show lo | grep -o "LOOPBACK,UP"
	touch /etc/x /lib/modules/"$(uname -r)"/x; touch /src/x 2>/dev/null && echo "/src can be written"
	modprobe nf_flow_table_inet || exit 99
	echo kept >/share/kept
	seq 200000 | sha256sum >/share/sum
	seq 200000 >/share/seq
	[ "${NFT_OFFLOAD_KO##*/}" = nft_offload.ko ] && [ "${NIC_KO##*/}" = emunic.ko ] && exit 7
' sh "one  argument" '$HOME "quoted"'
is "$status" 7 "the exit status is passed on"
is "$out" "\$HOME \"quoted\"
0
/share
$MACHINE
LOOPBACK,UP" "standard output is what the command printed"
is "$err" "to-stderr
again" "standard error is what the command printed"
is "$(cat "$share/kept")" kept "what is written to /share stays"
is "$(sha256sum - <"$share/seq")" "$(cat "$share/sum")" "a large file in /share is whole"
check "the kernel log is in its file" grep -q "Linux version" "$share/log"
check "the kernel log has no splat" "$TOP/scripts/judge-log" "$share/log"

vm -- sh -c '[ ! -e /etc/x ] && [ ! -e /lib/modules/$(uname -r)/x ] && seq 100000'
is "$status" 0 "nothing else stays"
is "$(sha256sum - <"$share/out")" "$(seq 100000 | sha256sum -)" "a long output is whole"

# The limit counts the boot too, which takes as long as the host is busy.
limit=$((2 * SECONDS + 5))
vm --timeout "$limit" -- sh -c 'echo before; read -r x <>/dev/ptmx'
is "$status" 124 "the end of the time has its status"
is "$out" before "what came before the end of the time is there"
check "the end of the time is told" grep -q '^vm: TIMEOUT' "$share/err"

vm -- busybox poweroff -f
is "$status" 125 "a machine that ends before its command has its status"
check "that a machine has ended before its command is told" grep -q '^vm: CRASH' "$share/err"

# UML has no sysrq; the planted panic is for it too.
[ "$MACHINE" != uml ] || exit 0
vm -- sh -c 'echo c >/proc/sysrq-trigger'
is "$status" 125 "a panic has the status of a machine that ends"
check "a panic is told" grep -q '^vm: CRASH.*panic' "$share/err"
check "the kernel log has the panic" grep -q 'Kernel panic' "$share/log"

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: host
# timeout: 600
#
# What scripts/setup says when the archive cannot be reached, and what an interrupted
# download leaves. In namespaces of its own: no network, and no process outlives it.
[ "$$" = 1 ] || exec unshare --net --mount --pid --fork --kill-child --mount-proc -- "$0"
source "$TOP/tests/lib.sh"
source "$TOP/scripts/lib.sh"
SLOWNESS=5 # beside other machines

command -v mmdebstrap >/dev/null || skip "mmdebstrap is not installed"
root=$(root_dir)
dir=$(mktemp -d)
at_exit rmdir "$dir"
mount -t tmpfs -o size=16G tmpfs "$dir"
at_exit umount -R "$dir"
"$TOP/scripts/enter" -- ip link set lo up

mkdir "$dir/small"
mount -t tmpfs -o size=1G tmpfs "$dir/small"
check "a small disk: setup root fails" fails eval \
	'NFT_OFFLOAD_CACHE=$dir/small "$TOP/scripts/setup" root 2>"$dir/err"'
check "a small disk: setup root says how much it takes" grep -x 'error: .* needs [0-9]* GB of disk and there are 1: make room.*' "$dir/err"

# From here on all is in an empty cache.
export NFT_OFFLOAD_CACHE=$dir/cache
CACHE=$NFT_OFFLOAD_CACHE
mkdir -p "$CACHE"

# ends_in_one_line TEXT STEP [COMMAND…]: setup STEP, or the command that needs it, fails as it should
# without a network.
ends_in_one_line() {
	local command=("${@:3}")
	[ $# -gt 2 ] || command=("$TOP/scripts/setup" "$2")
	check "$1: ${command[*]##*/} fails" fails eval '"${command[@]}" 2>"$dir/err" </dev/null'
	is "$(wc -l <"$dir/err")" 1 "$1: it has one line to say"
	check "$1: which is what went wrong and what to do" \
		grep -q '^error: .*a download failed: .*: run the command again' "$dir/err"
	[ "$tests_failed" = 0 ] || sed 's/^/# /' "$dir/err"
	check "$1: $2 is not taken for complete" fails ready "$2"
}

lock_is_free() { flock --nonblock "$CACHE/locks/$1" true; }

archive=
at_exit eval 'kill $archive 2>/dev/null'

# An archive that begins to answer, and says no more: a line in "requests" for each.
stall() {
	rm -f "$dir/requests"
	# shellcheck disable=SC2016
	perl -MIO::Socket::INET -e '
		my $listen = IO::Socket::INET->new(LocalAddr => "127.0.0.1:3142", Listen => 9,
						   ReuseAddr => 1) or die;
		my @open;
		while (my $c = $listen->accept) {
			push @open, $c;
			$c->sysread(my $request, 4096);
			$c->syswrite("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" . "x" x 5000);
			open(my $f, ">>", $ARGV[0]);
			print $f "$request\n";
		}' "$dir/requests" &
	archive=$!
}
echo 'Acquire::http::Proxy "http://127.0.0.1:3142"; Acquire::https::Proxy "http://127.0.0.1:3142";' \
	>"$dir/apt.conf"

# interrupted SIGNAL STEP: setup STEP is killed while it downloads.
interrupted() {
	local pid
	stall
	APT_CONFIG=$dir/apt.conf "$TOP/scripts/setup" "$2" >"$dir/out" 2>&1 </dev/null &
	pid=$!
	check "SIG$1: setup $2 downloads" busywait $LIMIT [ -s "$dir/requests" ]
	kill "-$1" $pid || true
	wait $pid || true
	check "SIG$1: $2 is not taken for complete" fails ready "$2"
	check "SIG$1: the next run need not wait" busywait $LIMIT lock_is_free "$2"
	kill $archive
}

ends_in_one_line "no network" root
ends_in_one_line "no network" root env MACHINE= TEST=load CHECK_OUT="$dir/checked" "$TOP/scripts/check"
interrupted TERM root
interrupted KILL root
check "something half-made is there" [ -d "$CACHE/work/root" ]
ends_in_one_line "after it" root

# The real root, as if made in this cache: it has lists of packages, maybe of last year.
mkdir -p "$dir"/{upper,work} "$(root_dir)"
mount -t overlay -o "lowerdir=$root,upperdir=$dir/upper,workdir=$dir/work" root "$(root_dir)"
ends_in_one_line "no network" source
cp "$dir/apt.conf" "$(root_dir)/etc/apt/apt.conf.d/99stall"
interrupted TERM source
interrupted KILL source

# What a run leaves that ends between two downloads, or in a build.
version=1-1
echo $version >"$CACHE/kernels/version-$SUITE-$KERNEL_SERIES"
mkdir "$CACHE/kernels/source-$version"
check "a source without the packages is not taken for complete" fails ready source
mkdir "$CACHE/kernels/packages-$version"
check "a source with the packages is taken for complete" ready source

kernel=$CACHE$(kdir uml)
mkdir -p "$kernel/include/config" "$(root_dir)/usr/lib/modules"
echo 1-uml >"$kernel/include/config/kernel.release"
ln -s "$kernel" "$(root_dir)/usr/lib/modules/1-uml"
check "a kernel that was not built to its end is not taken for complete" fails ready uml
touch "$kernel/.complete"
check "a kernel that was built to its end is taken for complete" ready uml

# Each kernel has a lock of its own.
mkdir "$CACHE/kernels"/{source,packages}-2-2
lock "$(work_name stock)"
"$TOP/scripts/setup" stock >"$dir/out" 2>&1 </dev/null {LOCK_FD}>&- &
waiting=$!
check "two runs for the same kernel wait for each other" busywait $LIMIT \
	grep -qx "another run is working on kernel-$version-stock-.*; waiting for it" "$dir/out"
check "a run for another kernel fails, as there are no packages" fails eval \
	'KERNEL=2-2 timeout $((LIMIT * SLOWNESS / 1000)) "$TOP/scripts/setup" stock >"$dir/other" 2>&1'
check "a run for another kernel fails in its build" grep -x "error: build failed.*" "$dir/other"
check "a run for another kernel does not wait" fails grep "another run" "$dir/other"
exec {LOCK_FD}>&-
check "without the lock, the run for the same kernel fails too" fails wait $waiting
check "without the lock, the run for the same kernel fails in its build" grep -x "error: build failed.*" "$dir/out"

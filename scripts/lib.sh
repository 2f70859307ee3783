# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What the scripts share. Source it; it sets TOP, the checkout, and reads config.sh.

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/config.sh
source "$TOP/scripts/config.sh"

# The host's own processor has them all.
MACHINES="uml kasan debug stock"
[ "$STOCK_ARCH" = amd64 ] || MACHINES=stock

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }

# One line that says what to do, then the end.
die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

# header NAME FILE: what a test says of itself in its first lines; see scripts/check.
header() { sed -n "2,20s/^# $1: *//p" "$2"; }
# loaded_now MODULE…: what else there is to do if they are.
loaded_now() {
	local module
	for module; do
		[ ! -e "/sys/module/$module" ] ||
			say "$module is loaded now: delete the flowtables and 'modprobe -r $module', or reboot"
	done
}

# new_enough RELEASE: can the module be built for it?
new_enough() { [ "$(printf '%s\n' "$KERNEL_OLDEST" "$1" | sort -V | head -n 1)" = "$KERNEL_OLDEST" ]; }

# Ten digits that change when the input does.
digest() { sha256sum | cut -c1-10; }

# lock NAME: held until this shell ends. Two runs at once wait for each other.
lock() {
	mkdir -p "$CACHE/locks"
	exec {LOCK_FD}>"$CACHE/locks/$1"
	flock --nonblock "$LOCK_FD" && return
	say "another run is working on $1; waiting for it"
	flock "$LOCK_FD"
}

# --- Where things are. The key names the inputs, so that an unchanged input finds
# --- its result, and a changed one never meets an old result.

root_key() {
	# shellcheck disable=SC2086
	echo "root-1 $SUITE" $TOOLCHAIN_PACKAGES $GUEST_PACKAGES | digest
}

addon_key() {
	# shellcheck disable=SC2086
	{
		echo "addon-1 $1 $(root_key)" ${ADDON_PACKAGES[$1]} ${ADDON_ARGUMENTS[$1]:-}
		[ ! -e "$TOP/scripts/addon-$1" ] || cat "$TOP/scripts/addon-$1"
		[ -z "${ADDON_FILES[$1]:-}" ] || (cd "$TOP" && cat ${ADDON_FILES[$1]})
	} | digest
}

# addon_dir NAME: what that add-on has over the build root, as the caller sees it.
addon_dir() { echo "$CACHE/addon-$1-$(addon_key "$1")"; }

# A fresh Debian, as the caller sees it; in its /repo are the packages that nft-offload-dkms depends on.
fresh_dir() {
	# shellcheck disable=SC2086
	echo "$CACHE/fresh-$(echo "fresh-1 $SUITE" $FRESH_PACKAGES $MODULE_BUILD_PACKAGES | digest)"
}

# The build root, as the caller sees it.
root_dir() {
	if [ -e /etc/nft-offload-toolchain ]; then
		echo /
	else
		echo "$CACHE/root-$(root_key)"
	fi
}

# The package version of the kernel, as setup resolved it for this suite and series.
kernel_version() {
	if [ -n "$KERNEL_VERSION" ]; then
		echo "$KERNEL_VERSION"
	else
		cat "$CACHE/kernels/version-$SUITE-$KERNEL_SERIES" 2>/dev/null ||
			die "the kernel version is not known yet: run scripts/setup source"
	fi
}

# The kernel's source, inside the root.
kernel_source() { echo "/kernels/source-$(kernel_version)"; }

# The packages of the stock kernel, inside the root.
kernel_packages() {
	local arch=-$STOCK_ARCH
	echo "/kernels/packages-$(kernel_version)${arch#-amd64}"
}

# An archive for apt of all that a user may install of that kernel, inside the root.
kernel_archive() { echo "/kernels/archive-$(kernel_version)"; }

# known_machine NAME [ANOTHER…]: ends in one line if that is none of the machines, nor ANOTHER.
known_machine() {
	case $STOCK_ARCH in
	amd64 | arm64) ;;
	*) die "no machine has ARCH=$STOCK_ARCH; there are: amd64 arm64" ;;
	esac
	[[ " $MACHINES ${*:2} " == *" $1 "* ]] ||
		die "no machine is called '$1'$([ "$STOCK_ARCH" = amd64 ] || echo " with ARCH=$STOCK_ARCH"); there are: $MACHINES${2:+ ${*:2}}"
}

# What the configuration of MACHINE is made of, in order.
kernel_fragments() {
	local series=$TOP/scripts/kernel/$KERNEL_SERIES.config
	known_machine "$1"
	[ -e "$series" ] || series=
	case $1 in
	uml) echo "$TOP"/scripts/kernel/{common,uml}.config ${series:+"$series"} ;;
	kasan) echo "$TOP"/scripts/kernel/{common,uml,kasan}.config ${series:+"$series"} ;;
	debug) echo "$TOP"/scripts/kernel/{common,debug}.config ${series:+"$series"} ;;
	stock) ;;
	esac
}

# The scripts that make MACHINE's build directory.
kernel_recipe() {
	case $1 in
	stock)
		echo "$TOP"/scripts/kernel/{unpack,prepare}-stock
		[ "$STOCK_ARCH" = amd64 ] || echo "$TOP/scripts/kernel/unpack-$STOCK_ARCH"
		;;
	*) echo "$TOP"/scripts/kernel/{build,verify-config} ;;
	esac
}

# Variables that each make against MACHINE's kernel needs.
kernel_makevars() {
	case $1 in
	uml | kasan)
		# Modules are loaded far from the kernel's text and linked without a GOT:
		# without these two, "Unknown rela relocation: 9".
		echo "ARCH=um"
		echo "KRUSTFLAGS=-Crelocation-model=static -Ccode-model=large"
		[ "$1" = uml ] || echo "LLVM=-$LLVM_VERSION"
		;;
	debug) echo "LLVM=-$LLVM_VERSION" ;;
	stock)
		[ "$STOCK_ARCH" = amd64 ] || printf '%s\n' ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-
		;;
	esac
}

kernel_key() {
	local fragments recipe
	fragments=$(kernel_fragments "$1") || exit
	recipe=$(kernel_recipe "$1")
	# The compilers are part of the key: Rust metadata fits one rustc only.
	# shellcheck disable=SC2086
	{
		echo "kernel-1 $1 $(kernel_version)"
		kernel_makevars "$1"
		cat "$(root_dir)/etc/nft-offload-toolchain" $fragments $recipe
	} | digest
}

# kdir MACHINE: its kernel build directory, inside the root.
kdir() { echo "/kernels/kernel-$(kernel_version)-$1-$(kernel_key "$1")"; }

# host_path /kernels/…: the same, as the caller sees it (in the root, CACHE is /).
host_path() { echo "$CACHE$1"; }

# krelease MACHINE: what `uname -r` says on it.
krelease() { cat "$(host_path "$(kdir "$1")")/include/config/kernel.release"; }

# image MACHINE: what boots, inside the root.
image() {
	case $1 in
	uml | kasan) echo "$(kdir "$1")/linux" ;;
	debug) echo "$(kdir debug)/arch/x86/boot/bzImage" ;;
	stock)
		[ "$STOCK_ARCH" = amd64 ] || kdir stock | tr -d '\n'
		echo "/boot/vmlinuz-$(krelease stock)"
		;;
	esac
}

# ready WHAT: is that step of setup done, for the inputs as they are now?
ready() {
	case $1 in
	root) [ -d "$(root_dir)" ] ;;
	source)
		ready root && [ -d "$(host_path "$(kernel_source)")" ] &&
			[ -d "$(host_path "$(kernel_packages)")" ]
		;;
	fresh) [ -d "$(fresh_dir)" ] && [ -d "$(host_path "$(kernel_archive)")" ] ;;
	python3) command -v python3 >/dev/null ;;
	uml | kasan | debug)
		[ -e "$(host_path "$(kdir "$1")")/.complete" ] &&
			[ -L "$(root_dir)/usr/lib/modules/$(krelease "$1")" ]
		;;
	stock)
		[ -e "$(host_path "$(kdir stock)")/.complete" ] &&
			case $STOCK_ARCH in
			amd64) [ -e "$(root_dir)$(image stock)" ] ;;
			*) ready "$STOCK_ARCH" ;;
			esac
		;;
	*) [ -d "$(addon_dir "$1")" ] ;;
	esac 2>/dev/null
}

# work_name STEP: what its lock and its log are called. Kernels are made side by side, each in its own directory.
work_name() {
	local dir
	case $1 in
	uml | kasan | debug | stock)
		dir=$(kdir "$1")
		echo "${dir##*/}"
		;;
	*) echo "$1" ;;
	esac
}

# in_root ROOT SHARE COMMAND…: becomes COMMAND inside ROOT. All its mounts and processes
# live in namespaces of their own, so nothing is left behind, whatever ends it. The
# mount points are fixed: build paths do not depend on the host. With IN_ROOT_FOLLOWS set
# it also ends when the caller does. IN_ROOT_ADDON is a directory that lies over ROOT: what is
# written to ROOT then stays in IN_ROOT_CHANGES, if that is set, or goes with COMMAND.
in_root() {
	local root=$1 share=$2
	shift 2
	local keep=() name
	[ "$STOCK_ARCH" = amd64 ] || local NFT_OFFLOAD_ARCH=$STOCK_ARCH
	for name in TERM KERNEL http_proxy https_proxy no_proxy ${!NFT_OFFLOAD_@}; do
		[ -z "${!name+set}" ] || keep+=("$name=${!name}")
	done
	# Three shells: one makes the mounts; the second stays outside the process
	# namespace, where signals reach it, and takes everything inside with it when it
	# dies; the third is process 1 in there, which ^C must not pass by.
	# shellcheck disable=SC2016
	exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		HOME=/root LANG=C.UTF-8 KBUILD_BUILD_USER=nft-offload \
		KBUILD_BUILD_HOST=nft-offload "${keep[@]}" NFT_OFFLOAD_CACHE=/ \
		${IN_ROOT_FOLLOWS:+setpriv --pdeathsig KILL --} \
		unshare --mount -- bash -euc '
			root=$1 top=$2 cache=$3 share=$4 addon=$5 changes=$6
			shift 6
			if [ -n "$addon$changes" ]; then
				if [ -z "$changes" ]; then
					changes=$root/tmp
					mount -t tmpfs tmpfs "$changes"
				fi
				mkdir -p "$changes"/{upper,work}
				mount -t overlay -o "lowerdir=${addon:+$addon:}$root,upperdir=$changes/upper,workdir=$changes/work" \
					overlay "$root"
			fi
			mount --rbind /sys "$root/sys"
			mount --rbind /dev "$root/dev"
			mkdir -p /dev/shm "$cache/kernels"
			mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
			mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
			mount -t tmpfs -o mode=755 tmpfs "$root/run"
			mount --bind "$top" "$root/src"
			mount --bind "$cache/kernels" "$root/kernels"
			dir=/src
			if [ -n "$share" ]; then
				mount --bind "$share" "$root/share"
				dir=/share
			fi
			exec unshare --pid -- bash -c "
				setpriv --pdeathsig KILL -- bash -c \"\$0\" \"\$@\"
				exit \$?
			" "
				trap \"exit 130\" INT
				mount -t proc proc \"\$0/proc\" || exit
				chroot \"\$0\" env --chdir=\"\$1\" -- \"\${@:2}\"
				exit \$?
			" "$root" "$dir" "$@"
		' in_root "$root" "$TOP" "$CACHE" "$share" "${IN_ROOT_ADDON:-}" "${IN_ROOT_CHANGES:-}" "$@"
}

# in_build_root SHARE COMMAND…: the same in the build root that setup made, with the add-on for tests unless another
# one is set, or none, so that what is written to the root stays there.
in_build_root() {
	[ ! -e /etc/nft-offload-toolchain ] || die "this is the build root already"
	[ "$(id -u)" = 0 ] || die "only root can enter the build root; without root: make KDIR=DIR"
	ready root || die "there is no build root yet: run scripts/setup root"
	if [ "$STOCK_ARCH" != amd64 ]; then
		IN_ROOT_ADDON=$(addon_dir "$STOCK_ARCH")
	elif [ -z "${IN_ROOT_ADDON+set}" ] && ready ynl; then
		IN_ROOT_ADDON=$(addon_dir ynl)
	fi
	in_root "$(root_dir)" "$@"
}

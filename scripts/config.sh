# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: GPL-2.0
#
# The one place for what may differ from house to house. Each can be set in the
# environment instead.

# The Debian release of the build root; the kernel comes from its backports.
SUITE=${NFT_OFFLOAD_SUITE:-trixie}

# The series of Debian's archive that the module is tested with, the default first.
KERNEL_SUPPORTED="7.3 7.2"

# The oldest series that the module can be built for.
KERNEL_OLDEST=7.2

# The kernel: a series (KERNEL=7.2), of which the newest in the archive is taken when `scripts/setup`
# first looks, or an exact package version (KERNEL=7.2.12-1~bpo13+1), or "newest".
KERNEL=${KERNEL:-${KERNEL_SUPPORTED%% *}}
case $KERNEL in
*-*)
	KERNEL_VERSION=$KERNEL
	KERNEL_SERIES=$(cut -d. -f1,2 <<<"$KERNEL")
	;;
*) KERNEL_VERSION='' KERNEL_SERIES=$KERNEL ;;
esac

# The processor of the stock machine, as Debian calls it: ARCH=arm64 is another one than the host's, in
# QEMU. (Kbuild reads ARCH too: in the build root the name is ours alone.)
STOCK_ARCH=${NFT_OFFLOAD_ARCH:-${ARCH:-amd64}}
case $STOCK_ARCH in x86 | x86_64) STOCK_ARCH=amd64 ;; esac

# KASAN with Rust needs clang, for the kasan and debug machines. Empty: without.
LLVM_VERSION=${NFT_OFFLOAD_LLVM-19}

# Everything that is slow to make, shared by all checkouts of this user.
CACHE=${NFT_OFFLOAD_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/kmod-nft-offload}

# What a user's Debian builds the module with, beside the packages of its kernel.
MODULE_BUILD_PACKAGES="gcc make flex bison bc libelf-dev libssl-dev pahole kmod python3 xz-utils rustc rust-src
	bindgen"

TOOLCHAIN_PACKAGES="
	gcc make flex bison bc libelf-dev libssl-dev dwarves kmod cpio rsync xz-utils zstd
	rustc rust-src rustfmt rust-clippy bindgen
	${LLVM_VERSION:+clang-$LLVM_VERSION lld-$LLVM_VERSION llvm-$LLVM_VERSION libclang-$LLVM_VERSION-dev}
	shellcheck flake8 perl python3 git"

GUEST_PACKAGES="
	ca-certificates iproute2 nftables conntrack iptables ethtool tcpdump socat iperf3
	mount iputils-ping netcat-openbsd bpftool libbpf-dev bpftrace iw wpasupplicant python3-matplotlib jq procps psmisc util-linux
	strace gdb-minimal less qemu-system-x86 busybox-static"

# Add-ons: what lies over the build root for those who ask for it. `scripts/setup NAME` makes them, of
# packages and of what scripts/addon-NAME does with its arguments.
declare -A ADDON_PACKAGES=(
	[arm64]="gcc-aarch64-linux-gnu qemu-system-arm"
	# What `make deb` and its tests need.
	[packaging]="debhelper dpkg-dev lintian man-db"
	# What the kernel's netlink tools need.
	[ynl]="python3-yaml python3-jsonschema"
	# What tools/ is built with.
	[tool]="cargo"
)
declare -A ADDON_ARGUMENTS=(
	[arm64]="kmod python3 $GUEST_PACKAGES"
)
# Files of this checkout that an add-on is made from, too.
declare -A ADDON_FILES=(
	[tool]="tools/nft-offload/Cargo.lock"
)

# A fresh Debian, which the packages' test installs them in, has these beside what each has.
FRESH_PACKAGES="python3 busybox-static initramfs-tools apt-utils"

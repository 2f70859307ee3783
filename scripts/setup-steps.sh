# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# The steps of scripts/setup: each makes one thing under $CACHE. Root and source are made
# in a working directory and renamed when complete. A kernel knows its own path, so it is
# built in place, goes on where it was interrupted, and is marked when complete.

# What each step takes.
declare -A DISK_GB=([root]=4 [source]=2 [uml]=1 [kasan]=1 [debug]=1 [stock]=1 [fresh]=2)

# Objects that a build compiles, only to say how far it is.
declare -A EXPECTED=([uml]=1070 [kasan]=1090 [debug]=1400 [stock]=106)

# check_host STEP…: can they be made here?
check_host() {
	local step have need=0 hint="build on this machine with: make KDIR=DIR (see README.md)"
	[ ! -e /etc/nft-offload-toolchain ] ||
		die "scripts/setup runs on the host, not in the build root"
	[ "$(uname -m)" = x86_64 ] || die "the build root is for x86_64 hosts; $hint"
	[ -e /etc/debian_version ] || die "this is no Debian; $hint"
	[ "$(id -u)" = 0 ] || die "the build root needs root; $hint"
	unshare --mount --pid true 2>/dev/null ||
		die "this machine does not let root make namespaces (a container without privileges?); $hint"
	mkdir -p "$CACHE"
	for step; do
		ready "$step" || need=$((need + ${DISK_GB[$step]:-1}))
	done
	have=$(($(df --output=avail -k "$CACHE" | tail -n 1) >> 20))
	[ "$have" -ge $need ] ||
		die "$CACHE needs $need GB of disk and there are $have: make room, or set NFT_OFFLOAD_CACHE to a directory that has"
}

title() {
	case $1 in
	root) echo "build root, Debian $SUITE" ;;
	source) echo "kernel source $KERNEL_SERIES" ;;
	uml) echo "uml kernel $(kernel_version)" ;;
	kasan) echo "uml kernel $(kernel_version) with KASAN" ;;
	debug) echo "debug kernel $(kernel_version)" ;;
	stock) echo "stock kernel $(kernel_version)$([ "$STOCK_ARCH" = amd64 ] || echo ", $STOCK_ARCH")" ;;
	fresh) echo "fresh Debian $SUITE, packages of $(kernel_version)" ;;
	python3) echo "python3 on this host" ;;
	*) echo "add-on $1: ${ADDON_PACKAGES[$1]}" ;;
	esac
}

run_step() {
	local what=$1 start=$SECONDS name
	if ready "$what"; then
		say "$HEAD $(title "$what"): kept"
		return
	fi
	name=$(work_name "$what")
	lock "$name"
	if ready "$what"; then # made by the run that we waited for
		say "$HEAD $(title "$what"): kept"
	else
		say "$HEAD $(title "$what") …"
		mkdir -p "$CACHE/logs" "$CACHE/work" "$CACHE/kernels"
		LOG=$CACHE/logs/$name.log
		: >"$LOG"
		case $what in
		root) make_root ;;
		source) make_source ;;
		uml | kasan | debug) make_kernel "$what" ;;
		stock) make_stock ;;
		fresh) make_fresh ;;
		python3) need_on_host python3 ;;
		*) make_addon "$what" ;;
		esac
		say "$HEAD $(title "$what"): done in $((SECONDS - start)) s"
	fi
	exec {LOCK_FD}>&-
}

# scratch NAME: an empty working directory in the cache; an interrupted run leaves one.
scratch() {
	rm -rf --one-file-system "${CACHE:?}/work/$1"
	mkdir -p "$CACHE/work/$1"
	echo "$CACHE/work/$1"
}

# logged WHAT COMMAND…: COMMAND with its output in the log, and now and then a line about
# how far it is. Its end is our end, and ours is its.
logged() {
	local what=$1 pid tick=0 start=$SECONDS
	shift
	(
		# It inherits the lock: what is slow to die holds up the next run.
		export IN_ROOT_FOLLOWS=1
		"$@"
	) </dev/null >>"$LOG" 2>&1 &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.5
		tick=$((tick + 1))
		[ $((tick % 40)) -ne 0 ] || say "      $what: $((SECONDS - start)) s$(progress)"
	done
	wait "$pid" || failed "$what"
}

# failed WHAT: in one line if it was a download, else with the end of the log.
failed() {
	local why
	why=$(sed -n 's/^E: Failed to fetch //p' "$LOG" | tail -n 1)
	[ -z "$why" ] ||
		die "$1: a download failed: $why: run the command again when the archive can be reached (log: $LOG)"
	warn "$(tail -n 15 "$LOG")"
	die "$1 failed; the log is $LOG; run the command again to go on"
}

progress() {
	local n
	n=$(grep -cE '^  (CC|RUSTC|AS|HOSTCC)\b' "$LOG") || return 0
	echo ", $n of about ${EXPECTED[${LOG_OF:-uml}]:-?} files compiled"
}

# --- the build root

# apt settings of this host that concern how it reaches the archive.
host_apt_conf() {
	apt-config dump |
		grep -E '^Acquire::(https?::(Proxy|Timeout|Verify-[A-Za-z]*|CaInfo)|Force|Retries)' |
		grep -vi 'detect' || true
	echo 'Acquire::Retries "3";'
	# An archive that is a copy may be older than what changes each day is valid.
	case $SUITE in sid | experimental) echo 'Acquire::Check-Valid-Until "false";' ;; esac
}

# The archive that this host uses, if it is Debian's; empty otherwise.
host_mirror() {
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk '$3 == "main" && $1 ~ "^https?://" &&
			$2 ~ /^(bookworm|trixie|forky|sid|stable|testing|unstable|oldstable)$/ {
			print $1; exit }'
}

# need_on_host PACKAGE: and the program that is called as it is.
need_on_host() {
	! command -v "$1" >/dev/null || return 0
	say "      installing $1 on this host"
	{ apt-get update && apt-get install -y --no-install-recommends "$1"; } \
		>>"$LOG" 2>&1 || die "$1 cannot be installed: see $LOG, install it by hand"
}

# Becomes mmdebstrap. That would wait for its children before it dies; in a namespace of
# their own all go when the caller does.
bootstrap() {
	TMPDIR=$(scratch tmp) exec setpriv --pdeathsig KILL -- \
		unshare --pid --fork --kill-child --mount-proc -- mmdebstrap "$@"
}

# What the build root takes packages from.
suites() {
	case $SUITE in
	sid) echo sid ;;
	experimental) echo sid experimental ;;
	*) echo "$SUITE" "$SUITE-updates" "$SUITE-backports" ;;
	esac
}

# make_debian ROOT VARIANT PACKAGE…: a Debian, as large as mmdebstrap's VARIANT, with these packages, that reaches
# the archive as this host does.
make_debian() {
	local root=$1 variant=$2 mirror conf from
	shift 2
	need_on_host mmdebstrap
	conf=$CACHE/work/apt.conf
	host_apt_conf >"$conf"
	mirror=$(host_mirror)
	logged "bootstrap" bootstrap --variant="$variant" --include="ca-certificates $*" \
		--aptopt="$conf" --dpkgopt=force-unsafe-io "${SUITE/experimental/sid}" "$root" ${mirror:+"$mirror"}

	# mmdebstrap wrote the archive it used, ours or its own default.
	mirror=$(awk '$1 == "deb" { sub(/^deb (\[[^]]*\] )?/, ""); print $1; exit }' \
		"$root/etc/apt/sources.list")
	for from in $(suites); do printf 'deb %s %s main\n' "$mirror" "$from"; done >"$root/etc/apt/sources.list"
	cp "$conf" "$root/etc/apt/apt.conf.d/80host"
	echo 'APT::Install-Recommends "false";' >"$root/etc/apt/apt.conf.d/80lean"
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod +x "$root/usr/sbin/policy-rc.d"
	# What this host trusts beyond Debian's list, for an https mirror.
	if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
		cat /etc/ssl/certs/ca-certificates.crt >>"$root/etc/ssl/certs/ca-certificates.crt"
	fi
	mkdir -p "$root"/{src,kernels,share}
	host_resolv "$root"
}

make_root() {
	local root
	root=$(scratch root)
	make_debian "$root" apt
	# shellcheck disable=SC2016,SC2086
	logged "packages" in_root "$root" "" env DEBIAN_FRONTEND=noninteractive sh -euc '
		apt-get -q update --error-on=any
		apt-get -qy install "$@"
		apt-get clean
	' sh $TOOLCHAIN_PACKAGES $GUEST_PACKAGES
	logged "toolchain" in_root "$root" "" sh -euc '
		{ rustc -V; bindgen -V; gcc --version | head -n 1
		  '"${LLVM_VERSION:+clang-$LLVM_VERSION --version | head -n 1;}"' ld -v; } >/etc/nft-offload-toolchain.new
		mv /etc/nft-offload-toolchain.new /etc/nft-offload-toolchain'
	mv "$root" "$(root_dir)"
}

# The root may outlive a change of the host's network.
host_resolv() {
	[ ! -e /etc/resolv.conf ] || cp --dereference /etc/resolv.conf "$1/etc/resolv.conf"
}

# make_addon NAME: in a root whose changes go there, so that what apt needs for this only is in /tmp.
make_addon() {
	local work
	work=$(scratch "addon-$1")
	host_resolv "$(root_dir)"
	# shellcheck disable=SC2016,SC2086
	IN_ROOT_CHANGES=$work logged "packages" in_root "$(root_dir)" "" env DEBIAN_FRONTEND=noninteractive bash -euc '
		mkdir -p /tmp/apt/{lists,archives}/partial
		echo "Dir::State::lists \"/tmp/apt/lists\"; Dir::Cache \"/tmp/apt\";" >/tmp/apt/conf
		export APT_CONFIG=/tmp/apt/conf
		apt-get -q update --error-on=any
		apt-get -qy install $2
		[ ! -e "$1" ] || "$1" "${@:3}"
	' sh "/src/scripts/addon-$1" "${ADDON_PACKAGES[$1]}" ${ADDON_ARGUMENTS[$1]:-}
	mv "$work/upper" "$(addon_dir "$1")"
	rm -rf "$work"
}

# A fresh Debian, and all that its user may want to install: the packages that nft-offload-dkms depends on, in its
# /repo, and those of the kernel, with the metapackages by which users have them.
make_fresh() {
	local work dir
	dir=$(fresh_dir)
	if [ ! -d "$dir" ]; then
		work=$(scratch fresh)
		# shellcheck disable=SC2086
		make_debian "$work" important $FRESH_PACKAGES
		# shellcheck disable=SC2016,SC2086
		logged "packages" in_root "$work" "" env DEBIAN_FRONTEND=noninteractive sh -euc '
			apt-get -q update --error-on=any
			apt-get -qy --download-only install "$@"
			mkdir /repo
			mv /var/cache/apt/archives/*.deb /repo/
			cd /repo
			apt-ftparchive packages . >Packages
		' sh dkms openssl $MODULE_BUILD_PACKAGES
		mv "$work" "$dir"
	fi
	work=$(scratch archive)
	host_resolv "$dir"
	# shellcheck disable=SC2016
	IN_ROOT_CHANGES=$work/changes logged "packages" in_root "$dir" "$work" bash -euc '
		version=$2 release=$(<"$1/release") arch=$(dpkg --print-architecture)
		mkdir archive && cd archive
		cp "$1"/*.deb .
		apt-get -q update --error-on=any
		apt-get -q download "linux-source-$3=$version"
		for part in $(dpkg-deb -f linux-headers-*.deb Depends | tr , "\n" |
			sed -n "s/^ *\(linux-\(headers\|kbuild\)-[^ ]*\).*/\1/p"); do
			apt-get -q download "$part=$version"
		done
		while read -r name depends; do
			mkdir -p "../$name/DEBIAN"
			printf "%s\n" "Package: $name" "Version: $version" "Architecture: $arch" "Depends: $depends (= $version)" \
				"Maintainer: nobody <nobody@localhost>" "Description: newest of its kind" >"../$name/DEBIAN/control"
			dpkg-deb --build "../$name" .
		done <<-END
			linux-image-$arch linux-image-$release
			linux-headers-$arch linux-headers-$release
			linux-source linux-source-$3
		END
		# What else they depend on.
		ln -s /repo/*.deb /var/cache/apt/archives/
		apt-get -qy --download-only install ./*.deb "linux-base/$4-backports"
		find /var/cache/apt/archives -name "*.deb" -type f -exec mv -t . {} +
		apt-ftparchive packages . >Packages
	' sh "$(kernel_packages)" "$(kernel_version)" "$KERNEL_SERIES" "$SUITE"
	mv "$work/archive" "$(host_path "$(kernel_archive)")"
	rm -rf "$work"
}

# --- the kernel's source, and the packages of the stock kernel

# apt_conf WORK: WORK/apt.conf, with which apt sees the packages for STOCK_ARCH, in the root with WORK as
# /share.
apt_conf() {
	mkdir -p "$1"/apt/{lists,archives}/partial
	touch "$1"/apt{/status,.conf}
	[ "$STOCK_ARCH" = amd64 ] || cat >"$1/apt.conf" <<-END
		APT::Architecture "$STOCK_ARCH";
		APT::Architectures "$STOCK_ARCH";
		Dir::State "/share/apt";
		Dir::State::status "/share/apt/status";
		Dir::Cache "/share/apt";
	END
}

# resolve_kernel WORK [VERSION]: prints "source-version kernel-release series" of what the archive has, or of
# VERSION.
resolve_kernel() {
	# shellcheck disable=SC2016
	in_root "$(root_dir)" "$1" env APT_CONFIG=/share/apt.conf bash -euc '
		apt-get -q update --error-on=any >&2
		all=$(apt-cache search --names-only "^linux-source-[0-9.]*\$" | sed "s/ .*//; s/linux-source-//" | sort -rV)
		[ "$1" = newest ] || all=$1
		for series in $all; do
			for version in ${2:-$(apt-cache madison "linux-source-$series" | cut -d"|" -f2)}; do
				# 7.2.12-1~bpo13+1 is the image package linux-image-7.2.12+deb13-amd64, and 7.3~rc7-1~exp1
				# linux-image-7.3-amd64
				image=$(apt-cache search --names-only "^linux-image-(${version%%-*}[+][^-]*|${version%%~*})-$3\$" |
					cut -d" " -f1 | tail -n 1)
				[ -z "$image" ] || ! apt-cache show "$image=$version" >/dev/null || {
					echo "$version ${image#linux-image-} $series"
					exit
				}
			done
		done' sh "$KERNEL_SERIES" "${2:-}" "$STOCK_ARCH"
}

make_source() {
	local work resolved version release series dir
	host_resolv "$(root_dir)"
	work=$(scratch source)
	apt_conf "$work"
	# Another processor has the version that the host's has.
	version=$KERNEL_VERSION
	[ "$STOCK_ARCH" = amd64 ] || version=$(kernel_version 2>/dev/null) || true
	resolved=$(IN_ROOT_FOLLOWS=1 resolve_kernel "$work" "$version" 2>>"$LOG") || failed "source"
	[ -n "$resolved" ] || die "the archive has no linux-source-$KERNEL_SERIES${version:+ $version} with its image package for $STOCK_ARCH; name another: KERNEL=${KERNEL_SUPPORTED// / or KERNEL=}, or look for a newer one: scripts/setup --update"
	read -r version release series <<<"$resolved"
	dir=$CACHE/kernels/source-$version
	if [ ! -d "$dir" ]; then
		# shellcheck disable=SC2016
		logged "source" in_root "$(root_dir)" "$work" env APT_CONFIG=/share/apt.conf bash -euc '
			apt-get -q download "$1"
			mkdir source
			dpkg-deb --fsys-tarfile linux-source-*.deb |
				tar -xO --wildcards "./usr/src/linux-source-*.tar.xz" |
				xz -dcT0 | tar -x --strip-components=1 -C source
		' sh "linux-source-$series=$version"
		mv "$work/source" "$dir"
	fi

	# The stock kernel comes along, though only its own step needs it: it leaves the
	# archive together with the source. Its image package may be split into several.
	local KERNEL_VERSION=$version
	dir=$(host_path "$(kernel_packages)")
	if [ ! -d "$dir" ]; then
		# shellcheck disable=SC2016
		logged "packages" in_root "$(root_dir)" "$work" env APT_CONFIG=/share/apt.conf bash -euc '
			mkdir packages && cd packages
			echo "$2" >release
			apt-get -q download "linux-image-$2=$1" "linux-headers-$2=$1"
			for part in $(dpkg-deb -f linux-image-*.deb Depends | tr , "\n" |
				sed -n "s/^ *\(linux-[a-z]*-$2\) .*/\1/p"); do
				apt-get -q download "$part=$1"
			done
		' sh "$version" "$release"
		mv "$work/packages" "$dir"
	fi
	rm -rf "$work"
	echo "$version" >"$CACHE/work/version"
	mv "$CACHE/work/version" "$CACHE/kernels/version-$SUITE-$KERNEL_SERIES"
}

# --- the kernels

# in_kdir MACHINE COMMAND…: runs COMMAND in the root, in MACHINE's build directory, with KSRC, the
# source, and marks the directory complete when it has succeeded.
in_kdir() {
	local machine=$1 dir vars
	shift
	dir=$(kdir "$machine")
	mapfile -t vars < <(kernel_makevars "$machine")
	mkdir -p "$(host_path "$dir")"
	# GNUmakefile goes before Makefile, so the variables that this kernel needs are not
	# on each command line; KDIR alone is enough to build a module.
	{
		printf '%s\n' "${vars[@]}" | sed 's/^\([A-Z_]*\)=/export \1 := /'
		echo "include Makefile"
	} >"$(host_path "$dir")/GNUmakefile"
	# Where there is none yet, they come from the environment.
	IN_ROOT_ADDON='' LOG_OF=$machine logged "build" in_build_root "" \
		env --chdir="$dir" KSRC="$(kernel_source)" "${vars[@]}" "$@"
	touch "$(host_path "$dir")/.complete"
}

make_kernel() {
	local machine=$1 dir fragments
	fragments=$(kernel_fragments "$machine")
	dir=$(host_path "$(kdir "$machine")")
	mkdir -p "$dir"
	# With the key in its release, each kernel finds its own modules in the root.
	# shellcheck disable=SC2086
	{
		cat $fragments
		echo "CONFIG_LOCALVERSION=\"-$machine-${dir##*-}\""
	} >"$dir/fragment.config"
	in_kdir "$machine" /src/scripts/kernel/build fragment.config
}

# The packaged kernel itself goes into the root; what its headers package lacks is made
# from the source.
make_stock() {
	local recipe=unpack-stock
	[ "$STOCK_ARCH" = amd64 ] || recipe=unpack-$STOCK_ARCH
	in_kdir stock "/src/scripts/kernel/$recipe" "$(kernel_packages)"
}

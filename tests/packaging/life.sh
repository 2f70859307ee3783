#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: stock
# runs-on: host
# timeout: 3600
# manual: it takes twelve minutes of one CPU
#
# nft-offload-dkms on a fresh Debian, from its installation on the older of two kernels to its purge. apt, dpkg and
# DKMS run in a namespace without a network; the kernels run in machines with that very root.
source "$TOP/tests/lib.sh"
source "$TOP/scripts/lib.sh"
read -r new old _ <<<"$KERNEL_SUPPORTED"

# of SERIES COMMAND…: a function of scripts/lib.sh, for that kernel.
of() { KERNEL=$1 TOP=$TOP bash -c 'source "$TOP/scripts/lib.sh"; "$@"' sh "${@:2}"; }
for series in $old $new; do
	KERNEL=$series "$TOP/scripts/setup" fresh stock
	make -s --no-print-directory -C "$TOP" module-stock KERNEL="$series"
done
"$TOP/scripts/deb"
old_release=$(of "$old" krelease stock) new_release=$(of "$new" krelease stock)

dir=$(mktemp -d) root=$dir/root said=$dir/said
at_exit rm -rf "$dir"
mkdir -p "$dir"/{upper,work,root}
mount -t overlay -o "lowerdir=$(fresh_dir),upperdir=$dir/upper,workdir=$dir/work" fresh "$root"
at_exit umount "$root"
cp "$TOP"/build/nft-offload-dkms_*.deb "$root/root/"

# user COMMAND…: on that machine. Of /kernels it has the packages only, in /run.
user() {
	(in_root "$root" "" unshare --net --mount -- \
		env -u NFT_OFFLOAD_CACHE -u KERNEL DEBIAN_FRONTEND=noninteractive INITRD=No bash -euc '
			for archive in /kernels/archive-*; do
				mkdir -p "/run$archive"
				mount --bind "$archive" "/run$archive"
			done
			mount -t tmpfs none /kernels
			exec "$@"
		' user "$@")
}
apt() { user apt-get -qy -o DPkg::Use-Pty=false "$@"; }
archive() {
	printf 'deb [trusted=yes] file:%s ./\n' "$1" >>"$root/etc/apt/sources.list"
	apt update >/dev/null
}

# says TEXT PATTERN: the last check's command said a line like that.
says() {
	cp "$_output" "$said"
	check "$1" has_line "$2"
}
has_line() {
	local line
	while IFS= read -r line; do
		# shellcheck disable=SC2053
		[[ $line != $1 ]] || return 0
	done <"$said"
	cat "$said"
	return 1
}

# boot SERIES MODULE: the machine with that kernel; nftables gets MODULE.
boot() {
	check "kernel $1: a machine boots, and nft loads $2" env VM_BUILT=1 KERNEL="$1" "$TOP/scripts/vm" --machine stock \
		--root "$root" --log "$dir/log" -- /src/tests/packaging/user.sh "$2"
	sed 's/^/# /' "$_output"
	check "kernel $1: its log has no splat" "$TOP/scripts/judge-log" "$dir/log"
}

# is_whole RELEASE: the module is there, with what it has to have.
is_whole() {
	user bash -euxc '
		dkms status -m nft-offload -k "$1" | grep ": installed"
		[[ $(modinfo -k "$1" -F vermagic nft_offload) = "$1 "* ]]
		[ "$(openssl x509 -inform der -in /var/lib/dkms/mok.pub -noout -subject)" = \
			"subject=CN=$(modinfo -k "$1" -F signer nft_offload)" ]
		xz -dc "$(modinfo -k "$1" -n nft_offload)" >/tmp/ko
		readelf -SW /tmp/ko | grep " \.BTF "
	' sh "$1"
}
is_nowhere() { user bash -c '! modinfo -k "$1" nft_offload 2>/dev/null' sh "$1"; }
unbuild() { user dkms unbuild -m nft-offload -v "$version" -k "$1"; }

# strangers: all files that are of no package.
strangers() {
	user bash -euc 'comm -23 <(find / -xdev | sort) \
		<(sed -E "s,^/(lib|lib64|bin|sbin)/,/usr/\1/," /var/lib/dpkg/info/*.list | sort -u)'
}

: >"$root/etc/apt/sources.list"
archive /repo
archive "/run$(of "$old" kernel_archive)"
check "the machine has kernel $old, its headers and its source" \
	apt install linux-image-amd64 linux-headers-amd64 linux-source
# What the package depends on comes first, to see what it leaves itself.
mapfile -t depends < <(user sh -c 'apt-get -s install /root/*.deb' | sed -n 's/^Inst \([^ ]*\) .*/\1/p' |
	grep -vx nft-offload-dkms)
check "apt finds all that the package depends on" apt install "${depends[@]}"
strangers >"$dir/before"

check "apt install" user sh -c 'apt-get -qy -o DPkg::Use-Pty=false install /root/*.deb'
says "apt install says that the kernel has the module" "nft_offload: kernel $old_release has it"
check "the module is installed, signed by DKMS's own key, with BTF" is_whole "$old_release"
check "nothing of what built it is left" [ "$(du -sm "$root/var/lib/dkms" | cut -f1)" -lt 10 ]
check "systemd takes its units" user systemd-analyze verify --man=no nft-offload-dkms.service nft-offload-dkms.timer
version=$(user dpkg-query -W -f '${Version}' nft-offload-dkms)
boot "$old" nft_offload

# A kernel comes without its source.
apt purge linux-source >/dev/null
archive "/run$(of "$new" kernel_archive)"
source=linux-source-$new=$(of "$new" kernel_version)
check "apt upgrade to kernel $new, without its source" apt upgrade --with-new-pkgs
says "apt upgrade says what to do" "nft_offload: kernel $new_release has none, * apt install $source"
check "there is no module for a kernel without its source" is_nowhere "$new_release"
check "the module for the other kernel is still there" is_whole "$old_release"
boot "$new" nf_flow_table_inet
check "what the service runs installs the source and has the module built" user nft-offload-dkms --fetch "$new_release"
check "the module that the service has built is there" is_whole "$new_release"
boot "$new" nft_offload

unbuild "$old_release" >/dev/null
printf '#!/bin/sh\necho rustc 1.2.3\n' | install -m 755 /dev/stdin "$root/usr/local/bin/rustc"
check "a compiler that has not built the kernel is refused" fails user nft-offload-dkms
says "a compiler that has not built the kernel is refused by name" "nft_offload: kernel $old_release has none, * was built with 'rustc *, but rustc here is 'rustc 1.2.3'*"
check "no kernel's installation fails for a compiler that has not built it" user /etc/kernel/postinst.d/dkms "$old_release"
rm "$root/usr/local/bin/rustc"
# Here with /kernels, where it finds all prepared: a minute less.
check "what kernels call when they are installed" eval \
	'(in_root "$root" "" /etc/kernel/postinst.d/dkms "$old_release")'
check "what kernels call when they are installed has the module built" is_whole "$old_release"

check "a kernel can be removed" \
	apt purge "linux-image-$new_release" "linux-headers-$new_release" "linux-modules-$new_release"
check "a kernel that is removed leaves no module" [ ! -e "$root/lib/modules/$new_release/updates" ]
check "apt remove" apt remove nft-offload-dkms
check "apt remove takes the other module away" is_nowhere "$old_release"
check "apt remove takes the modprobe.d file away" [ ! -e "$root/usr/lib/modprobe.d/nft-offload.conf" ]
check "apt purge" apt purge nft-offload-dkms
# What apt, dpkg and DKMS keep for themselves.
strangers >"$dir/after"
is "$(comm -13 "$dir/before" "$dir/after" | grep -vE '^/(var/(lib/(apt|dpkg)|log|cache)/|var/lib/dkms/mok\.)')" \
	"" "apt purge leaves nothing"

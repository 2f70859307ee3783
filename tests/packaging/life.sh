#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: stock
# side: host
# timeout: 3600
#
# nft-offload-dkms on a fresh Debian, from its installation on the older of two kernels to its purge. apt, dpkg and
# DKMS run in a namespace without a network; the kernels run in machines with that very root.
source "$TOP/tests/lib.sh"
source "$TOP/scripts/lib.sh"
read -r new old _ <<<"$KERNEL_SUPPORTED"

# of SERIES COMMAND…: a function of scripts/lib.sh, of that kernel.
of() { KERNEL=$1 bash -c 'source "$TOP/scripts/lib.sh"; "$@"' sh "${@:2}"; }
export TOP
for series in $old $new; do
	KERNEL=$series "$TOP/scripts/setup" fresh stock
	make -s --no-print-directory -C "$TOP" module-stock KERNEL="$series"
done
"$TOP/scripts/deb"
old_release=$(of "$old" krelease stock) new_release=$(of "$new" krelease stock)
source=linux-source-$new=$(of "$new" kernel_version)

dir=$(mktemp -d)
at_exit rm -rf "$dir"
mkdir -p "$dir"/{upper,work,root}
mount -t overlay -o "lowerdir=$(fresh_dir),upperdir=$dir/upper,workdir=$dir/work" fresh "$dir/root"
at_exit umount "$dir/root"
root=$dir/root
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
heard() { cp "$_output" "$dir/said"; }
archive() {
	printf 'deb [trusted=yes] file:%s ./\n' "$1" >>"$root/etc/apt/sources.list"
	apt update >/dev/null
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
		modinfo -k "$1" -F signer nft_offload | grep DKMS
		xz -dc "$(modinfo -k "$1" -n nft_offload)" >/tmp/ko
		readelf -SW /tmp/ko | grep " \.BTF "
		[ "$(openssl x509 -inform der -in /var/lib/dkms/mok.pub -noout -subject)" = \
			"subject=CN=$(modinfo -k "$1" -F signer nft_offload)" ]
	' sh "$1"
}
is_nowhere() { user bash -c '! modinfo -k "$1" nft_offload 2>/dev/null' sh "$1"; }

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
mapfile -t depends < <(user sh -c 'apt-get -s install /root/*.deb' | sed -n 's/^Inst \([^ ]*\) .*/\1/p' | grep -vx nft-offload-dkms)
check "apt finds all that the package depends on" [ ${#depends[@]} -gt 10 ]
apt install "${depends[@]}" >/dev/null
strangers >"$dir/before"

check "apt install" user sh -c 'apt-get -qy -o DPkg::Use-Pty=false install /root/*.deb'
heard
check "it says that the kernel has the module" grep -x "nft_offload: kernel $old_release has it" "$dir/said"
check "which is installed, signed by DKMS's own key, with BTF" is_whole "$old_release"
check "nothing of what built it is left" [ "$(du -sm "$root/var/lib/dkms" | cut -f1)" -lt 10 ]
check "systemd takes its units" user systemd-analyze verify --man=no nft-offload-dkms.service nft-offload-dkms.timer
boot "$old" nft_offload

archive "/run$(of "$new" kernel_archive)"
check "apt upgrade to kernel $new" apt upgrade --with-new-pkgs
check "the module is there for it too" is_whole "$new_release"
check "and still for the other one" is_whole "$old_release"
boot "$new" nft_offload

check "a kernel that is removed" apt purge "linux-image-$old_release" "linux-headers-$old_release" "linux-modules-$old_release"
check "leaves no module" [ ! -e "$root/lib/modules/$old_release/updates" ]

# As if the source had not been there when the kernel came.
user dkms unbuild -m nft-offload -v "$(user dpkg-query -W -f '${Version}' nft-offload-dkms)" -k "$new_release" >/dev/null
printf '#!/bin/sh\necho rustc 1.2.3\n' | install -m 755 /dev/stdin "$root/usr/local/bin/rustc"
check "a compiler that has not built the kernel is refused" fails user nft-offload-dkms "$new_release"
heard
check "by name" grep "^nft_offload: kernel $new_release has none, .* was built with 'rustc .*, but rustc here is 'rustc 1.2.3'" "$dir/said"
check "and no kernel's installation fails for that" user /etc/kernel/postinst.d/dkms "$new_release"
rm "$root/usr/local/bin/rustc"
check "without the source package" apt purge linux-source "${source%=*}"
heard
check "apt says what to do" grep -x "nft_offload: kernel $new_release has none, .* apt install $source" "$dir/said"
check "and there is no module" is_nowhere "$new_release"
boot "$new" nf_flow_table_inet
check "what the service runs installs the source and has the module built" user nft-offload-dkms --fetch "$new_release"
check "it is there again" is_whole "$new_release"

check "apt remove" apt remove nft-offload-dkms
check "takes the module away" is_nowhere "$new_release"
check "and the modprobe.d file" [ ! -e "$root/usr/lib/modprobe.d/nft-offload.conf" ]
check "apt purge" apt purge nft-offload-dkms
# What apt, dpkg, DKMS and the kernels keep for themselves.
strangers >"$dir/after"
is "$(comm -13 "$dir/before" "$dir/after" | grep -vE "^/(var/(lib/(apt|dpkg)|log|cache)/|var/lib/dkms/mok\.|boot/|usr/lib/modules/$new_release)" )" \
	"" "leaves nothing"

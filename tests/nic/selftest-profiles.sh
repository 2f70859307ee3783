#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# timeout: 600
#
# The emulated NIC's profiles: what a driver takes, and with which error it refuses the rest.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

hosts

macs="action pedit ex munge eth src set 02:00:00:00:05:01 munge eth dst set 02:00:00:00:05:02 pipe"
# each: a name, verdicts of mlx5, mtk_ppe, airoha_ppe, bnxt (+ taken, I -EINVAL, S -EOPNOTSUPP, any
# other: not asked), protocol, match, actions before the way out; _ for none, @MACS for both MACs
profile_cases() {
	local udp='ip_proto udp src_port 1 dst_port 2' gre='ip_proto 2f'
	local v4='src_ip 10.0.0.2 dst_ip 10.0.1.2' v6='src_ip fd00::2 dst_ip fd01::2'
	local q='vlan_id 7 vlan_ethtype ip' in='indev nic0'
	cat <<-END
		plain|++++|ip|$in $udp $v4|$macs
		IPv6|++++|ipv6|$in $udp $v6|$macs
		no META|+SS+|ip|$udp $v4|$macs
		no MACs|+II+|ip|$in $udp $v4|
		a multicast MAC|.II.|ip|$in $udp $v4|${macs/05:02/05:02 munge eth src set 01:00:00:00:00:01}
		one MAC|+II.|ip|$in $udp $v4|${macs/munge eth dst set 02:00:00:00:05:02/}
		TTL|+SS+|ip|$in $udp $v4|${macs/pipe/munge ip ttl add 255 pipe}
		hop limit|+SS+|ipv6|$in $udp $v6|${macs/pipe/munge ip6 hoplimit add 255 pipe}
		DSCP|.III|ip|$in $udp $v4|${macs/pipe/munge ip tos set 4 pipe}
		the same bits twice|S...|ip|$in $udp $v4|${macs/pipe/munge ip src set 10.0.0.9 munge ip src set 10.0.0.8 pipe}
		IPv4 NAT|++++|ip|$in $udp $v4|${macs/pipe/munge ip src set 10.0.0.9 munge udp sport set 9 pipe}
		IPv6 NAT|+SS+|ipv6|$in $udp $v6|${macs/pipe/munge ip6 src set fd00::9 munge udp sport set 9 pipe}
		GRE|+SS+|ip|$in $gre $v4|$macs
		GRE with NAT|SSS+|ip|$in $gre $v4|${macs/pipe/munge ip src set 10.0.0.9 pipe}
		ICMP|.SS.|ip|$in ip_proto icmp $v4|$macs
		an unknown key|.+++|ip|$in $udp $v4 ip_tos 4|$macs
		a destination MAC|++++|ip|$in $udp $v4 dst_mac 02:00:00:00:00:09|$macs
		CSUM of what was not rewritten|S..+|ip|$in $udp $v4|action csum udp and ip4h pipe
		CSUM after a rewrite|++++|ip|$in $udp $v4|${macs/pipe/munge ip src set 10.0.0.9 pipe} action csum udp and ip4h pipe
		a tag|++++|ip|$in $udp $v4|$macs action vlan push id 7 pipe
		an 802.1ad tag|+SS+|ip|$in $udp $v4|$macs action vlan push id 7 protocol 802.1ad pipe
		two tags|+++.|ip|$in $udp $v4|$macs action vlan push id 7 pipe action vlan push id 8 pipe
		three tags|SSS.|ip|$in $udp $v4|$macs action vlan push id 7 pipe action vlan push id 8 pipe action vlan push id 9 pipe
		a tag taken off|++++|802.1Q|$in $q $udp $v4|$macs action vlan pop pipe
		an 802.1ad tag taken off|++++|802.1ad|$in $q $udp $v4|$macs action vlan pop pipe
		a tag changed|++++|802.1Q|$in $q $udp $v4|$macs action vlan pop pipe action vlan push id 8 pipe
		a tag changed, with priority|S+++|802.1Q|$in $q $udp $v4|$macs action vlan pop pipe action vlan push id 8 priority 3 pipe
		an 802.1ad tag changed|S+++|802.1ad|$in $q $udp $v4|$macs action vlan pop pipe action vlan push id 8 pipe
		a tag changed, another added|S++.|802.1Q|$in $q $udp $v4|$macs action vlan pop pipe action vlan push id 8 pipe action vlan push id 9 pipe
		priority 16|++++|pref 16 ip|$in $udp $v4|$macs
		priority 17|S+++|pref 17 ip|$in $udp $v4|$macs
		back where it came from|S+++|ip|$in $udp $v4|$macs|nic0
		another device|SSII|ip|$in $udp $v4|$macs|lo
	END
}

# verdict MATCH ACTIONS OUT: what the NIC makes of a rule.
verdict() {
	local said failed unsupported
	nic evict all
	nic counters 0
	# shellcheck disable=SC2046,SC2086
	said=$(tc filter add dev nic0 ingress protocol $1 $2 $(to "$3") 2>&1) || true
	if counters_are replace_ok 1 >/dev/null; then
		echo +
		flush
		return
	fi
	failed=$(nic_counter replace_failed) unsupported=$(nic_counter replace_eopnotsupp)
	case $failed$unsupported in
	10) echo I ;;
	11) echo S ;;
	*) echo "? $said" ;;
	esac
}

profile() { # NAME COLUMN
	local name verdicts proto match actions out got want failed=0 n=0
	while IFS='|' read -r name verdicts proto match actions out; do
		want=${verdicts:$2:1}
		[ "$want" != . ] || continue
		case $proto in
		pref*) ;;
		*) proto="$proto pref 1" ;;
		esac
		[ "${proto% ip}" = "$proto" ] || proto="ip ${proto% ip}"
		got=$(verdict "$proto flower skip_sw $match" "$actions" "${out:-nic1}")
		n=$((n + 1))
		[ "$got" = "$want" ] || {
			echo "$name: $got, not $want"
			failed=1
		}
	done < <(profile_cases)
	echo "$n cases"
	[ $n -ge 25 ] && [ $failed = 0 ]
}

for column in mlx5-tc:0 mlx5-ft:0 tc-rtnl:0 mtk_ppe:1 airoha_ppe:2 bnxt:3; do
	name=${column%:*}
	# The driver says in FLOW_BLOCK_BIND (unlocked_driver_cb) whether cls_flower has to hold RTNL.
	tc qdisc del dev nic0 clsact
	nic profile "$name"
	tc qdisc add dev nic0 clsact
	is "$(cat $NIC/profile)" "$name" "profile $name can be read"
	check "profile $name takes and refuses what that driver does" profile "$name" "${column#*:}"
done

for capacity in mlx5-ft:65536 mlx5-tc:0 mtk_ppe:16384 airoha_ppe:24576 bnxt:0 tc-rtnl:0 none:0; do
	name=${capacity%:*}
	nic profile "$name"
	is "$(cat $NIC/profile) $(cat $NIC/capacity)" "$name ${capacity#*:}" "profile $name has its capacity"
done
nic accept +8021ad
is "$(cat $NIC/profile)" custom "a profile that was changed is a custom one"
nic profile none
check "profile none takes a word back" grep -- -8021ad $NIC/accept

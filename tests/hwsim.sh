#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: stock
# timeout: 240
#
# Flows between clients of access points of mac80211_hwsim and the NIC, which hands frames to a Wi-Fi
# device as MediaTek's does (+wed). Wi-Fi devices here take no rules, so with partial=1 one direction
# is in the NIC:
#
#   wlan1 192.168.8.2 ~~~ wlan0 192.168.8.1  router  nic1 10.0.2.1 --- wire1 10.0.2.2 :server
#   wlan3 192.168.9.2 ~~~ wlan2 192.168.9.1
#
# The radio of wlan2 makes the 802.11 header by itself (tests/wifi/encap_offload.c): only devices
# of such radios are asked for the way that frames take.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module incapable=1 partial=1 report_ms=0
topology --init
nic accept +wed

# --- access points and stations

modprobe mac80211_hwsim radios=4
_loaded=(mac80211_hwsim "${_loaded[@]}")
_insmod "$MODULES/wifi/encap_offload.ko" dev=wlan2
station=
add_ns station
networks=$(mktemp -d)
at_exit rm -r "$networks"

# network SSID [LINE…]: with TKIP, whose frames mac80211 makes in any case.
network() {
	printf '%s\n' "p2p_disabled=1" "network={" "ssid=\"$1\"" "psk=\"passphrase\"" "key_mgmt=WPA-PSK" \
		"proto=WPA" "pairwise=TKIP" "group=TKIP" "frequency=2412" "${@:2}" "}"
}

# wifi NET AP STATION: the address of the access point's device is 192.168.NET.1.
wifi() {
	local net=$1 ap=$2 sta=$3
	iw phy "$(<"/sys/class/net/$sta/phy80211/name")" set netns name "$station"
	network "net$net" mode=2 >"$networks/$ap"
	network "net$net" >"$networks/$sta"
	wpa_supplicant -B -P "$networks/$ap.pid" -D nl80211 -i "$ap" -c "$networks/$ap" -f "$networks/$ap.log"
	busywait $LIMIT test -s "$networks/$ap.pid"  # is written by the daemon, after wpa_supplicant returned
	at_exit kill "$(<"$networks/$ap.pid")"
	on "$station" wpa_supplicant -B -D nl80211 -i "$sta" -c "$networks/$sta" -f "$networks/$sta.log"
	ip addr add "192.168.$net.1/24" dev "$ap"
	on "$station" ip addr add "192.168.$net.2/24" dev "$sta"
}

reaches() { on "$station" ping -q -c 1 -W 1 -I "192.168.$1.2" "192.168.$1.1"; }

wifi 8 wlan0 wlan1 >/dev/null
wifi 9 wlan2 wlan3 >/dev/null
check "stations reach their access points" busywait $((6 * LIMIT)) reaches 8
check "stations reach the access point of the radio which makes the header" busywait $((6 * LIMIT)) reaches 9
client=$station

# --- flows

# through NET: where the stations send what is for the server.
through() { on "$station" ip route replace default via "192.168.$1.1"; }
# Whether a flow has an entry.
is_offloaded() { conntrack -L -p tcp 2>/dev/null | grep -E '\[(HW_)?OFFLOAD\]'; }
only_rule_leads_to() { rules_are 1 && grep " in=nic1 .* out=dev$(<"/sys/class/net/$1/ifindex") " $NIC/rules; }
replies_in_hardware() {
	local before
	before=$(nic_counter nic1.nic_bytes)
	flow_send "$1" 200000
	[ $(($(nic_counter nic1.nic_bytes) - before)) -ge 200000 ]
}

logged() { grep "$1" <(told); }

flowtable_ruleset devices="wlan0, wlan2, nic1" | load_ruleset
check "a Wi-Fi device whose driver takes no rules does not keep the NIC from it" \
	logged "wlan0: cannot offload, so its flows stay in software"

# one_direction FLOW DEVICE
one_direction() {
	check "$1: packets to the station are the NIC's" busywait $LIMIT only_rule_leads_to "$2"
	check "$1: which hands them to the Wi-Fi device" replies_in_hardware "$1"
	check "$1: the log says why those from there are not" \
		logged "in one direction: original direction: $2 takes no rules for this flowtable"
}

through 8
flow_open plain tcp4
one_direction plain wlan0
ip link set wlan0 down
check "the access point is down: no rule leads there" wait_rules 0
flow_close plain

through 9
mark_log
flow_open encap tcp4
flow_send encap 1000
followed=0
! is_offloaded >/dev/null || followed=1
[ -z "${KSRC:-}" ] || is "$followed" "$(grep -c '^	DEV_PATH_IEEE80211' "$KSRC/include/linux/netdevice.h")" \
	"encap: nftables makes an entry for it if the kernel has the step"
if [ "$followed" = 0 ]; then
	check "encap: without an entry there is no rule" rules_are 0
	is "$(told)" "" "encap: nor anything to say"
	exit
fi
one_direction encap wlan2
flow_close encap
check "rules go" wait_rules 0

ip -batch - <<-END
	link add br0 type bridge
	link set br0 up
	addr flush dev wlan2
	addr add 192.168.9.1/24 dev br0
	link set wlan2 master br0
END
at_exit ip link delete br0
check "the station reaches the bridge" busywait $LIMIT reaches 9
mark_log
flow_open bridged tcp4
one_direction bridged wlan2

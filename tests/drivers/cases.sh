# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# The cases that a real driver's parser is given, the same for all: a test sets $soc and
# sources this. It may set $smac6 to "port" (IPv6 entries have no room for a source MAC),
# $third to the number by which the switch engine knows the third port, if that port is of
# the same SoC, or else $foreign to what the driver answers to a rule that leaves by it (an
# expression, for not every kernel has the names of errors).
#
# Each flow's two entries in the flow table that the driver wrote are compared, field by
# field, with what conntrack, the neighbours and the devices say.
#
# shellcheck source=tests/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

: "${soc:?}" "${smac6:=address}" "${third:=}" "${foreign:=-(EOPNOTSUPP|95)}"
NIC=/sys/kernel/debug/ppe_judge
here=$(dirname "${BASH_SOURCE[0]}")

load_module report_ms=0
_insmod "$MODULES/drivers/ppe_judge.ko" soc="$soc"
topology --init

# shellcheck source=tests/sides.sh
source "$here/../sides.sh"
out=(1 2 "$third")

# --- what an entry has to be

# leaving SIDE 4|6: the fields of a frame that leaves by that side.
leaving() {
	local n=$1 smac dmac layers=0 vlan1=0 vlan2=0 etype pppoe=none id=$((10 * $1 + 10))
	smac=$(mac_of '' "${base[n]}")
	dmac=$(mac_of "${wire_ns[n]}" "${host_base[n]}")
	if [ "$2" = 6 ]; then
		etype=86dd
		[ "$smac6" = address ] || smac="#$((plug[n] + 1))"
	else
		etype=0800
	fi
	case ${kind[n]} in
	vlan*) layers=1 vlan1=$id ;;
	qinq) layers=2 vlan1=$id vlan2=$((id + 1)) ;;
	esac
	case ${kind[n]} in
	*pppoe) etype=8864 pppoe=$((0x1234 + n)) ;;
	esac
	echo "smac=$smac dmac=$dmac layers=$layers vlan1=$vlan1 vlan2=$vlan2 etype=$etype" \
		"pppoe=$pppoe out=${out[plug[n]]} ttl=dec"
}

# expected tcp4|tcp6|udp4|udp6 PORT: the entries of the connection to that port.
expected() {
	local family=${1: -1} l4=${1%?} connection f
	connection=$(conntrack -L -f "ipv$family" -p "$l4" --orig-port-dst "$2" 2>/dev/null)
	# shellcheck disable=SC2207
	f=($(grep -oE '(src|dst|sport|dport)=[^ ]*' <<<"$connection" | cut -d= -f2))
	[ ${#f[@]} = 8 ] || {
		echo "not one connection: $connection"
		return
	}
	# f: original source, destination and their ports, then those of the reply
	if [ "$family" = 4 ]; then
		echo "type=ipv4_hnapt l4=$l4 src=${f[0]} dst=${f[1]} sport=${f[2]} dport=${f[3]}" \
			"nsrc=${f[5]} ndst=${f[4]} nsport=${f[7]} ndport=${f[6]}" \
			"$(leaving 1 4)"
		echo "type=ipv4_hnapt l4=$l4 src=${f[4]} dst=${f[5]} sport=${f[6]} dport=${f[7]}" \
			"nsrc=${f[1]} ndst=${f[0]} nsport=${f[3]} ndport=${f[2]}" \
			"$(leaving 0 4)"
	else
		echo "type=ipv6_5t l4=$l4 src=${f[0]} dst=${f[1]} sport=${f[2]} dport=${f[3]}" \
			"$(leaving 1 6)"
		echo "type=ipv6_5t l4=$l4 src=${f[4]} dst=${f[5]} sport=${f[6]} dport=${f[7]}" \
			"$(leaving 0 6)"
	fi | sort
}

# Without those that the driver has forgotten about, which is no fault of who gave the rule
# and took it back.
entries() { sort "$NIC/entries" | grep -v '^# forgotten' || true; }
bound() {
	[ "$(entries | wc -l)" = "$1" ] || {
		echo "bound:" && entries
		echo "rules:" && cat $NIC/rules
		return 1
	}
}

# --- a case: a ruleset, a flow, its entries

ruleset() {
	flowtable_ruleset devices="nic0, nic1, nic2" | load_ruleset
	case $1 in
	none) ;;
	masquerade)
		nft -f - <<-END
			table inet nat {
				chain postrouting {
					type nat hook postrouting priority 100
					meta l4proto { tcp, udp } ip saddr 192.168.1.2 masquerade
					meta l4proto { tcp, udp } ip6 saddr fd00:1::2 masquerade
				}
			}
		END
		;;
	esac
	case $1 in
	snat | both)
		nft -f - <<-END
			table inet nat {
				chain postrouting {
					type nat hook postrouting priority 100
					meta l4proto { tcp, udp } ip saddr 192.168.1.2 snat ip to 10.0.2.77:2000-3000
				}
			}
		END
		;;
	esac
	case $1 in
	dnat | both)
		nft -f - <<-END
			table inet nat {
				chain prerouting {
					type nat hook prerouting priority -100
					meta l4proto { tcp, udp } iifname != "nic1" ip daddr 10.0.2.2 th dport 5900-5999 dnat ip to 10.0.2.3:7000
				}
			}
		END
		;;
	esac
}

taken=0 flows=0
on "$server" ip addr add 10.0.2.3/24 dev wire1
ip addr add 10.0.2.77/32 dev lo
at_exit ip addr del 10.0.2.77/32 dev lo
ip link set wire2 netns "$server"

# written NAT tcp4|tcp6|udp4|udp6: the driver takes the flow, and writes what it should.
written() {
	local nat=$1 proto=$2 text port listen=()
	text="${kind[0]} to ${kind[1]}, NAT $nat, $proto"
	ruleset "$nat"
	flows=$((flows + 1)) port=$((6000 + flows))
	case $nat in
	# What ruleset translates this to.
	dnat | both) port=$((5900 + flows)) listen=(10.0.2.3 7000) ;;
	esac
	flow_open "$text" "$proto" "$port" "${listen[@]}"
	check "$text: two entries are bound" flow_send_until "$text" $LIMIT bound 2
	is "$(entries)" "$(expected "$proto" "$port")" "$text: every field is right"
	taken=$((taken + 2))
	close "$text"
}

# close TEXT: the flow ends while it is in the table.
close() {
	flow_send "$1" 100
	nft flush ruleset
	is "$(cat $NIC/rules)$(entries)" "" "$1: nothing is left in the driver and the table"
	flow_close "$1"
	conntrack -F 2>/dev/null
}

said() { last_told "stays in software"; }

says_more_than() { [ "$(said)" != "$1" ]; }

# software REMARK NAT PROTO WORDS: the flow works in software, and the log says why.
software() {
	local text="${kind[0]} to ${kind[1]}, NAT $2, $3$1" port before
	flows=$((flows + 1)) port=$((6000 + flows))
	ruleset "$2"
	before=$(said)
	flow_open "$text" "$3" "$port"
	check "$text: is refused" flow_send_until "$text" $LIMIT says_more_than "$before"
	check "$text: the log says \"$4\"" grep -E "original direction: $4( |\$)" <(said)
	check "$text: the connection goes on" flow_send "$text" 5000
	check "$text: no half of it is in the driver" bound 0
	close "$text"
}

for proto in tcp4 udp4; do
	for nat in none masquerade snat dnat both; do written $nat $proto; done
done
for proto in tcp6 udp6; do written none $proto; done

# The action for the TTL, which the hardware decrements unasked, is tried once per device, with the MAC
# address that frames are to and without.
ruleset none
before=$(nic_counter replace_failed)
for proto in tcp4 udp6; do flow_open $proto $proto; done
check "two flows: the driver takes four rules" wait_rules 4
is $(($(nic_counter replace_failed) - before)) 4 "after it has refused the TTL action once per device, with the MAC address and without"
for proto in tcp4 udp6; do close $proto; done

side 1 vlan
for proto in tcp4 udp6; do written none $proto; done
written masquerade udp4
side 0 vlan
written masquerade tcp4
written none tcp6
side 1 qinq
written none tcp4
written none udp6
side 0 qinq
side 1 plain
written masquerade tcp4
written none tcp6

side 0 plain
side 1 pppoe
for proto in tcp4 udp4; do written masquerade $proto; done
for proto in tcp6 udp6; do written none $proto; done
side 0 vlan
side 1 vlan-pppoe
written masquerade tcp4
written none udp6
side 0 plain

side 1 8021ad
software "" none tcp4 "the driver refused the rule: -(EOPNOTSUPP|95)"
side 0 8021ad
side 1 plain
software "" none tcp4 "the driver does not match ingress VLAN tags of type 0x88a8"
side 0 plain
software "" masquerade tcp6 "the driver refused the rule: -(EOPNOTSUPP|95)"
software "" masquerade udp6 "the driver refused the rule: -(EOPNOTSUPP|95)"

# To the third port, from the same SoC or another device.
ip addr flush dev nic1 scope global
on "$server" ip addr flush dev wire1 scope global
plug[1]=2
side 1 plain
if [ -n "$third" ]; then
	written masquerade tcp4
	written none udp6
else
	software " to another device" none tcp4 "the driver refused the rule: $foreign"
fi

is "$(nic_counter replace_failed)" "$(($(nic_counter replace_eopnotsupp) + $(nic_counter replace_einval)))" \
	"the driver has refused rules for what they say, and for nothing else"
for counter in replace_eexist destroy_failed stats_failed other; do
	is "$(nic_counter $counter)" 0 "the driver never answered $counter"
done
is "$(nic_counter replace_ok)" "$(nic_counter destroy_ok)" "each rule that was taken was removed once"
check "the driver was asked for statistics" [ "$(nic_counter stats_ok)" -gt 0 ]
echo "# $soc: $taken entries compared, $(nic_counter replace_ok) rules taken by the driver's parser"
echo "# $(grep -c '^# forgotten' $NIC/entries || true) entries left in the table by the driver itself"

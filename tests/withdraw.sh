#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml debug stock
# also: nothing stays in hardware
# smp: everything goes under traffic
# timeout: 300
#
# When nftables takes a flowtable or a device away, the NIC has no rule left by the time that
# the command returns.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_module
topology ports=3

# Four flows, eight rules, under a fresh ruleset.
four_flows() {
	local proto
	flowtable_ruleset "$@" | load_ruleset
	for proto in tcp4 tcp6 udp4 udp6; do flow_open $proto $proto; done
	check "eight rules are in the NIC" wait_rules 8
}

four_flows_end() {
	local proto
	for proto in tcp4 tcp6 udp4 udp6; do flow_close $proto; done
	on "$router" nft flush ruleset
	on "$router" conntrack -F 2>/dev/null
}

flows_go_on() {
	local proto
	for proto in tcp4 tcp6 udp4 udp6; do flow_send $proto 2000 || return; done
}

flows_come_back() {
	local end=$((SECONDS + 60 * SLOWNESS))
	until rules_are 8 >/dev/null || [ $SECONDS -gt $end ]; do flows_go_on >/dev/null; done
	rules_are 8
}

without_hw_offload() { fails grep HW_OFFLOAD <(on "$router" conntrack -L 2>/dev/null); }

for how in "flush ruleset" "delete table inet fw"; do
	four_flows
	# shellcheck disable=SC2086
	on "$router" nft $how
	check "nft $how: no rule is left" rules_are 0
	check "nft $how: connections go on in software" flows_go_on
	check "nft $how: no connection claims to be in hardware" without_hw_offload
	four_flows_end
done

four_flows
on "$router" nft -f - <<-END
	flush chain inet fw forward
	delete flowtable inet fw ft
END
check "nft delete flowtable: no rule is left" rules_are 0
check "nft delete flowtable: connections go on in software" flows_go_on
four_flows_end

# Each flow passes both devices, so no rule of it may stay, in whichever it comes in: not even if those of the
# device that leaves are gone long before.
four_flows
nic latency_us 20000
nic apart nic1
on "$router" nft 'delete flowtable inet fw ft { devices = { nic1 }; }'
check "nft delete flowtable device: no rule is left" rules_are 0
nic apart none
nic latency_us 0
check "nft delete flowtable device: connections go on in software" flows_go_on
check "nft delete flowtable device: no rule comes back" rules_are 0
on "$router" nft 'add flowtable inet fw ft { devices = { nic1 }; flags offload; }'
check "with the device back, connections are in hardware again" \
	flows_come_back
four_flows_end

# Nor if newer entries of the same connections wait for them to go.
four_flows
nic latency_us $((300000 * SLOWNESS))
nic apart nic1
on "$router" ip link set nic1 mtu 1400
check "newer entries are made" flows_go_on
check "rules of older ones are there" rules_are 1 -ge
on "$router" nft 'delete flowtable inet fw ft { devices = { nic1 }; }'
check "nft delete flowtable device, while newer entries wait: no rule is left" rules_are 0
nic apart none
nic latency_us 0
on "$router" ip link set nic1 mtu 1500
on "$router" nft 'add flowtable inet fw ft { devices = { nic1 }; flags offload; }'
four_flows_end

# The new hook of the device is bound before the old one is unbound.
four_flows
on "$router" nft -f - <<-END
	delete flowtable inet fw ft { devices = { nic1 }; }
	add flowtable inet fw ft { hook ingress priority 0; devices = { nic1 }; flags offload; counter; }
END
check "taking a device out and in again in one transaction: connections are in hardware" flows_come_back
fails on "$router" nft -f - 2>/dev/null <<-END
	delete flowtable inet fw ft { devices = { nic1 }; }
	add flowtable inet fw ft { hook ingress priority 0; devices = { nic1 }; flags offload; counter; }
	delete table inet no-such-table
END
check "taking a device out and in again in a transaction that is aborted: connections are in hardware" flows_come_back
four_flows_end
is "$(nic_counter nic1.bound_ft)" 0 "a device that was taken out and in again: the driver is not bound in the end"

four_flows devices="nic0, nic1"
on "$router" nft -f - <<-END
	flush ruleset
	$(flowtable_ruleset)
END
check "replacing the ruleset in one transaction leaves no stale rule" rules_are 0
check "replacing the ruleset in one transaction: connections get back into hardware" flows_come_back
four_flows_end

# Four flows are evicted, one after the other, from a NIC that takes its time: more for one rule than nft
# does by itself for what it is to do meanwhile.
four_flows
flow_open more_tcp tcp4
flow_open more_udp udp4
check "four more rules are in the NIC" wait_rules 12
ip link set nic2 netns "$router"
add_nic2='add flowtable inet fw ft { devices = { nic2 }; flags offload; }'
start=${EPOCHREALTIME/./}
on "$router" nft -c "$add_nic2"
nic latency_us $((300000 + ${EPOCHREALTIME/./} - start))
evicting() { fails rules_are 12; }
on "$router" ip neigh replace 10.0.2.2 lladdr 02:00:00:00:00:77 dev nic1
check "a neighbour changes its MAC: rules leave the NIC" busywait $LIMIT evicting
on "$router" nft "$add_nic2"
check "nft adds a device meanwhile, and does not wait for all of them" rules_are 5 -ge
nic latency_us 0
on "$router" ip neigh del 10.0.2.2 dev nic1
flow_close more_tcp
flow_close more_udp
on "$router" nft 'delete flowtable inet fw ft { devices = { nic2 }; }'
four_flows_end

four_flows
nic vanish nic1
check "a port that is unplugged: no rule is left" rules_are 0
nic appear nic1
four_flows_end

is "$(nic_counter destroy_enoent)" 0 "no rule was removed twice"
is "$(nic_counter replace_eexist)" 0 "no rule was installed twice"
is "$(nic_counter destroy_failed)" 0 "no removal failed"

start_over
load_module
topology
four_flows
mark_log
check "the driver can be unloaded under traffic" rmmod emunic
is "$(told)" "" "the driver is unloaded under traffic: the log says nothing"

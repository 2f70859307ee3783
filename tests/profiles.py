#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""profiles.py CLIENT_NS ROUTER_NS SERVER_NS PROFILES KIND0 KIND1 CASE…

Real connections through the router, of each CASE on each of the PROFILES (with commas) of the NIC.
A CASE is NAT-PROTOCOL, where a protocol is tcp4, udp6 …, or gre4 and gre6, for UDP by a tunnel of
that kind from host to host, or ipip, ip6ip6 and ipsec, for UDP by one that ends at the router.
Prints "KIND0|KIND1|NAT|PROTOCOL|PROFILE|" and "hardware", or why it is not there.
"""

import os
import re
import sys
import time

from connection import Connection, Namespace
from kmsg import Kmsg
from nic import knob
from wire import LIMIT, OTHER, VIRTUAL, expect, nic_packets, shell

DPORT, REAL_DPORT = 5000, 7000
CLIENT = {4: "192.168.1.2", 6: "fd00:1::2"}
SERVER = {4: "10.0.2.2", 6: "fd00:2::2"}
# By a tunnel from host to host, or from the router to the server.
INNER = {"gre4": "172.16.4.2", "gre6": "172.16.6.2", "ipip": "172.16.14.2", "ip6ip6": "fd00:16::2"}
HEADERS = {"1": "Ethernet", "2": "IPv4", "3": "IPv6", "4": "TCP", "5": "UDP"}


def exchange(connection):
    """Something there, and back."""
    connection.sock.send(b"there" * 20)
    if connection.tcp:
        connection.peer.send(connection.peer.recv(1000))
    else:
        connection.peer.sendto(*connection.peer.recvfrom(1000))
    connection.sock.recv(1000)


def ruleset(nat, l4, v):
    ip = "ip" if v == 4 else "ip6"
    match = f"meta l4proto {l4} meta nfproto ipv{v}"

    def address(of):
        return of if v == 4 else f"[{of}]"

    before = {
        "dnat": f"{match} th dport {DPORT} dnat {ip} to {address(SERVER[v])}:{REAL_DPORT}",
        "port": f"{match} th dport {DPORT} dnat to :{REAL_DPORT}",
    }
    after = {
        "snat": f"{match} {ip} saddr {CLIENT[v]} snat {ip} to {address(OTHER[v])}:2000-3000",
        "masquerade": f"{match} {ip} saddr {CLIENT[v]} masquerade",
    }
    if l4 == "gre":
        after = {"masquerade": f"{match} masquerade"}
    both = nat == "snat+dnat"
    return f"""
        table inet fw {{
            flowtable ft {{
                hook ingress priority filter
                devices = {{ nic0, nic1 }}
                flags offload
            }}
            chain forward {{
                type filter hook forward priority filter
                ct state established meta l4proto {{ tcp, udp, gre }} flow add @ft
            }}
            chain prerouting {{
                type nat hook prerouting priority dstnat
                {before.get("dnat" if both else nat, "")}
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat
                {after.get("snat" if both else nat, "")}
            }}
        }}
    """


class Router:
    def __init__(self, netns):
        self.netns = netns
        with netns:
            self.conntrack = os.open("/proc/net/nf_conntrack", os.O_RDONLY)
        self.log = Kmsg()

    def load(self, text, profile):
        """Whether nftables has taken it. The ports are bound then."""
        self.log.read()
        if shell(self.netns, "nft -f -", text).returncode:
            return False
        if profile.endswith("-tc"):
            # By a worker, after the ruleset is loaded.
            bound = set()

            def both_are_bound():
                bound.update(re.findall(r"(nic\d): takes rules, of tc", self.log.read()))
                return len(bound) == 2
            expect("the ports are bound", both_are_bound)
        return True

    def flag(self, flag, v, l4):
        lines = os.pread(self.conntrack, 65536, 0).decode().splitlines()
        return any(
            line.startswith(f"ipv{v} ") and f" {l4} " in line and f"[{flag}]" in line
            for line in lines
        )


def shorter(reason):
    """Without what is of no interest to who reads the table."""
    reason = reason.replace("emunic: ", "")
    return re.sub(
        r"(mangle|add) of header (\d) offset \d+ mask \w+ not",
        lambda found: f"{found[1]} in the {HEADERS[found[2]]} header not",
        reason,
    )


def outcome(router, netns, nat, proto, profile):
    """Where the flow is, and why."""
    v = 4 if proto in ("ipsec", "ipip", "gre4", "gre6") else int(proto[-1])
    l4 = "tcp" if proto.startswith("tcp") else "udp"
    flow_l4 = "gre" if proto.startswith("gre") else l4
    flow_v = 6 if proto == "gre6" else v
    if not router.load(ruleset(nat, flow_l4, flow_v), profile):
        found = re.search(r"so the flowtable is refused: (.*?)\. Take", router.log.read())
        return "no flowtable: " + shorter(found[1]) if found else "ERROR: no flowtable"
    to = INNER.get(proto) or (VIRTUAL[v] if nat in ("dnat", "snat+dnat") else SERVER[v])
    real = REAL_DPORT if nat in ("dnat", "port", "snat+dnat") else DPORT
    any_address = "::" if v == 6 else "0.0.0.0"
    connection = Connection(f"{l4}{v}", netns[0], netns[2], (to, DPORT), (any_address, real))
    for sock in (connection.sock, connection.peer):
        sock.settimeout(LIMIT / 4)
    try:
        exchange(connection)
        return settled(router, connection, flow_v, flow_l4)
    except TimeoutError:
        return "in no hardware, and the connection stands still"
    finally:
        connection.close(patience=0)


def settled(router, connection, *flow):
    # If nobody ever says why not, this is how long it takes to believe that.
    end = time.monotonic() + LIMIT / 2
    while time.monotonic() < end:
        exchange(connection)
        reason = router.log.reason()
        if reason:
            exchange(connection)
            return shorter(reason)
        if router.flag("HW_OFFLOAD", *flow):
            before = nic_packets()
            exchange(connection)
            expect("packets pass in the NIC", lambda: nic_packets() >= before + 2)
            return "hardware"
        time.sleep(0.01)
    if router.flag("OFFLOAD", *flow):
        return "nf_flow_table offers no such flow to drivers"
    return "nftables puts no such flow into a flowtable"


def main():
    netns, kinds, cases = [Namespace(name) for name in sys.argv[1:4]], sys.argv[5:7], sys.argv[7:]
    profiles = sys.argv[4].split(",")
    router = Router(netns[1])
    for case in cases:
        nat, proto = case.rsplit("-", 1)
        for profile in profiles:
            # Nobody may use the devices: what was learned about them goes with that.
            shell(netns[1], "nft flush ruleset; conntrack -F")
            knob("profile", profile)
            try:
                result = outcome(router, netns, nat, proto, profile)
            except (OSError, RuntimeError) as error:
                result = f"ERROR: {error}"
            print("|".join((*kinds, nat, proto, profile, result)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

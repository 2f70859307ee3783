# SPDX-License-Identifier: GPL-2.0
"""stories.py: what happens, at random: one story for each seed (its language is play.py's).

A step that makes no sense any more, for what it is about is gone, fails on all routers alike, and
so any step can be left out of a story.
"""

import random

from world import HOSTS, PREFIXES, SERVERS, TABLES, host_addr

GATEWAYS = ("u1", "u2", "x1", "box")
MARK = "0x7"


class Teller:
    def __init__(self, seed, only=""):
        self.random = random.Random(seed)
        self.only = only
        self.flows = []  # (number, kind, client, server)
        self.macs = 0
        self.undo = []
        self.vlan, self.bridged = None, False

    def pick(self, *choices):
        return self.random.choice(choices)

    def chance(self, percent):
        return self.random.random() * 100 < percent

    # --- words

    def family(self):
        """-4 or -6, rather of the flows that there are."""
        kinds = [kind for _, kind, _, _ in self.flows] or ["udp4"]
        return "-6" if self.random.choice(kinds).endswith("6") else "-4"

    def address(self, name, family):
        return host_addr(name, family == "-6")

    def flow(self):
        return self.random.choice(self.flows)

    def new_flow(self):
        number = len(self.flows) + 1
        kind = self.pick("udp4", "udp4", "udp4", "tcp4", "tcp4", "udp6", "udp6", "tcp6",
                         "icmp4", "gre4")
        client, server = self.pick("c1", "c1", "c2"), self.pick("s1", "s1", "s2")
        if any(flow[1:] == ("gre4", client, server) for flow in self.flows):
            kind = "udp4"
        self.flows.append((number, kind, client, server))
        words = ""
        if self.chance(15):
            words += f" tos={self.pick('0x10', '0x08', '0xb8')}"
        if self.chance(8):
            words += f" pcp={self.pick(1, 5)}"
        if self.chance(12):
            words += " answers=" + self.pick("p1", "p2", "p1", "p2", "no")
        return f"flow {number} {kind} {client} {server}{words}"

    # --- what there is from the beginning

    def setup(self):
        lines = self.topology()
        if self.chance(40):
            lines += self.marks()
        if self.chance(30):
            lines += self.nat()
        lines.append("ruleset when=" + self.pick("established", "established", "any", "any",
                                                 "reply", "lan")
                     + self.pick("", "", " counter") + self.pick("", " strict")
                     + self.pick("", "", "", " plus=late0"))
        return lines

    def topology(self):
        lines = []
        if self.chance(30):
            port = self.pick(1, 1, 2, 0)
            lines.append(f"vlan {port} {self.pick(20, 832)}"
                         + self.pick("", " egress-qos-map 0:3 6:5", " egress-qos-map 0:2"))
        if self.chance(30) and not any(line.startswith("vlan 0") for line in lines):
            lines.append("bridge 0" + self.pick("", "", " vlan_filtering 1"))
        self.bridged = any(line.startswith("bridge") for line in lines)
        self.vlan = next((line.split()[1] for line in lines if line.startswith("vlan")), None)
        return lines

    def marks(self):
        who = self.pick('ip saddr 192.168.1.2', 'iifname "p0"', 'ip daddr 10.9.9.9',
                        'ip6 saddr fd00:1::2', 'ip6 daddr fd00:9::9')
        keep = self.pick("", "", " ct mark set meta mark")
        first = "meta mark set ct mark; " if keep and self.chance(50) else ""
        return ["r nft add table inet marks { chain pre { type filter hook prerouting priority"
                f" mangle; {first}{who} meta mark set {MARK}{keep}; }}; }}"]

    def nat(self):
        port = self.pick('"p1"', '"p2"', '{ "p1", "p2" }')
        what = self.pick("masquerade", "masquerade", "ip protocol udp masquerade")
        return ["r nft add table inet nat { chain post { type nat hook postrouting priority srcnat;"
                f" oifname {port} {what}; }}; }}"]

    # --- events

    def route(self):
        family, server = self.family(), self.pick(*SERVERS)
        to = self.address(server, family)
        via = self.pick(*GATEWAYS)
        gateway = self.address(via, family)
        match self.random.randrange(11):
            case 8:
                other = self.address(self.pick(*GATEWAYS), family)
                return [f"r ip {family} route replace {to} nexthop via {gateway}"
                        f" nexthop via {other} weight {self.pick(1, 3)}"]
            case 9:
                return [f"r sysctl net.ipv{'6' if family == '-6' else '4'}"
                        f".fib_multipath_hash_policy={self.pick(0, 1)}"]
            case 10:
                number = self.random.randrange(1, 4)
                port = HOSTS[via][0]
                return [f"r ip nexthop replace id {number} via {gateway} dev p{port}",
                        f"r ip {family} route replace {to} nhid {number}"]
            case 0 | 1 | 2:
                return [f"r ip {family} route replace {to} via {gateway}"]
            case 3:
                return [f"r ip {family} route del {to}",
                        f"r ip {family} route add {to} via {gateway}"]
            case 4:
                kind = self.pick("blackhole", "unreachable", "prohibit", "throw")
                self.undo.append(f"r ip {family} route del {kind} {to} metric 1")
                return [f"r ip {family} route add {kind} {to} metric 1"]
            case 5:
                table = self.pick(*TABLES)
                return [f"r ip {family} route replace default via {gateway} table {table}"]
            case 6:
                net = "10.9.0.0/16" if family == "-4" else "fd00:9::/32"
                return [f"r ip {family} route replace {net} via {gateway}"]
            case _:
                mtu = self.pick(1300, 1400)
                return [f"r ip {family} route replace {to} via {gateway} mtu {mtu}",
                        *self.long(mtu)]

    def rule(self):
        family = self.family()
        prefix = "/128" if family == "-6" else "/32"
        selector = self.pick(
            "iif p0", "iif p1", "iif p1", "iif p2", f"fwmark {MARK}", f"fwmark {MARK}",
            f"fwmark {MARK}", "tos 0x10", "tos 0x08",
            f"from {self.address('c1', family)}{prefix}",
            f"to {self.address('s1', family)}{prefix}",
            f"to {self.address('c1', family)}{prefix}",
            f"from {self.address('s1', family)}{prefix}", "ipproto udp", "ipproto tcp",
            f"dport 500{self.random.randrange(1, 5)}", "oif p1")
        table = self.pick(*TABLES)
        number = self.random.randrange(100, 200)
        self.undo.append(f"r ip {family} rule del prio {number}")
        action = f"lookup {table}"
        if self.chance(10):
            action = self.pick("blackhole", "unreachable", "prohibit",
                               "lookup main suppress_prefixlength 0")
        return [f"r ip {family} rule add {selector} prio {number} {action}"]

    def neighbour(self):
        family = self.family()
        name = self.pick("u1", "u2", "c1", "x1")
        port = HOSTS[name][0]
        self.macs += 1
        match self.random.randrange(6):
            case 0:
                return [f"mac {name} {self.macs}"]
            case 1:
                return [f"r ip neigh del {self.address(name, family)} dev p{port}"]
            case 2:
                return [f"r ip {family} neigh flush dev p{port}"]
            case 3:
                mac = f"02:00:00:0{port}:dd:0{self.macs % 10}"
                return [f"r ip neigh replace {self.address(name, family)} lladdr {mac} dev p{port}"
                        + self.pick("", " nud permanent")]
            case 4:
                self.undo.append(f"unmute {name}")
                return [f"mute {name}",
                        f"r ip neigh del {self.address(name, family)} dev p{port}"]
            case _:
                return [f"r ip neigh replace {self.address(name, family)} dev p{port} nud failed"]

    def forwarding(self):
        name = self.pick("net.ipv4.ip_forward", "net.ipv4.conf.p0.forwarding",
                         "net.ipv4.conf.p1.forwarding", "net.ipv6.conf.all.forwarding",
                         "net.ipv6.conf.p0.forwarding")
        self.undo.append(f"r sysctl {name}=1")
        lines = [f"r sysctl {name}=0"]
        if "ipv6" in name and self.chance(30):
            lines.append("r sysctl net.ipv6.conf.p0.force_forwarding=1")
            self.undo.append("r sysctl net.ipv6.conf.p0.force_forwarding=0")
        return lines

    def filters(self):
        name = self.pick("all.rp_filter", "p1.rp_filter", "p2.rp_filter", "p0.rp_filter")
        value = self.pick(1, 1, 2)
        self.undo.append(f"r sysctl net.ipv4.conf.{name}=0")
        lines = [f"r sysctl net.ipv4.conf.{name}={value}"]
        if self.chance(60):
            number, _, _, _ = self.flow()
            lines.append(f"answer {number} {self.pick('p1', 'p2')}")
        return lines

    def xfrm(self):
        _, kind, client, server = self.flow()
        family = "-6" if kind.endswith("6") else "-4"
        client, server = self.address(client, family), self.address(server, family)
        prefix = "/128" if family == "-6" else "/32"
        port = self.pick(1, 1, 2, 0)
        here, there = f"{PREFIXES[port][family == '-6']}1", f"{PREFIXES[port][family == '-6']}2"
        src, dst = (server, client) if port == 0 else (client, server)
        of = f"src {src}{prefix} dst {dst}{prefix}"
        template = f"tmpl src {here} dst {there} proto esp reqid 1 mode tunnel"
        match self.random.randrange(7):
            case 0 | 1:
                lines = [f"r ip xfrm policy add {of} dir out {template}"]
            case 2:
                lines = [f"r ip xfrm policy add {of} dir fwd action block"]
            case 3:
                lines = [f"r ip xfrm policy add {of} dir out action block"]
            case 4:
                self.undo.append("r ip xfrm policy setdefault fwd accept")
                return ["r ip xfrm policy setdefault fwd block"]
            case 5:
                of = f"src {src}{prefix} dst {dst}{prefix} proto udp"
                lines = [f"r ip xfrm policy add {of} dir out {template}"]
            case _:
                lines = [f"r ip xfrm state add src {here} dst {there} proto esp spi 0x1000 reqid 1"
                         " mode tunnel aead rfc4106(gcm(aes))"
                         " 0x000102030405060708090a0b0c0d0e0f10111213 128",
                         f"r ip xfrm policy add {of} dir out {template}"]
        if self.chance(30):
            lines[-1] = lines[-1].replace(" dir ", " priority 5 dir ")
        self.undo.append(self.pick("r ip xfrm policy flush",
                                   f"r ip xfrm policy del {of} dir "
                                   + ("fwd" if "dir fwd" in lines[-1] else "out")))
        return lines

    def conntrack(self):
        number, kind, _, _ = self.flow()
        udp = "udp" if kind.startswith("udp") else "tcp"
        family = "ipv6" if kind.endswith("6") else "ipv4"
        which = f"-f {family} -p {udp} --orig-port-dst {5000 + number}"
        match self.random.randrange(5):
            case 0:
                return [f"r conntrack -D {which}"]
            case 1:
                return ["r conntrack -F"]
            case 2:
                return [f"r conntrack -U {which} --mark {self.pick(MARK, 0)}"]
            case 3:
                # A connection's mark, which each packet gets from it, leads elsewhere.
                rule = f"r ip {'-6' if family == 'ipv6' else '-4'} rule add fwmark {MARK}"
                return ["r nft add table inet restore { chain pre { type filter hook prerouting"
                        " priority mangle; meta mark set ct mark; }; }",
                        f"{rule} prio 90 lookup {self.pick(*TABLES)}",
                        f"r conntrack -U {which} --mark {MARK}"]
            case _:
                return ["r nft delete table inet marks"]

    def link(self):
        port = self.pick(1, 2)
        v4, v6 = PREFIXES[port]
        again = [f"r ip link set p{port} up", f"r ip addr add {v6}1/64 dev p{port} nodad",
                 f"r ip -4 route replace 10.9.9.9 via {v4}2",
                 f"r ip -6 route replace fd00:9::9 via {v6}2"]
        match self.random.randrange(6):
            case 4:
                self.undo.append("r ip link del late0")
                return ["r ip link add late0 type dummy"]
            case 5:
                if self.vlan is None:
                    return []
                return [f"r ip link set p{self.vlan} type vlan egress-qos-map"
                        f" {self.pick('0:4', '6:6', '0:0')}"]
            case 0:
                self.undo += reversed(again)
                return [f"r ip link set p{port} down"]
            case 1:
                self.undo.append(f"r ip addr add {v4}1/24 dev p{port}")
                return [f"r ip addr del {v4}1/24 dev p{port}"]
            case 2:
                return [f"r ip addr add {v4}9/24 dev p{port}"]
            case _:
                mtu = self.pick(1300, 1400, 1280)
                self.undo.append(f"r ip link set p{port} mtu 1500")
                return [f"r ip link set p{port} mtu {mtu}", *self.long(mtu)]

    def long(self, mtu):
        """Packets that are too long, of all flows."""
        # Without `flags offload`, a new entry is looked at after a second.
        return ["pass 2200"] + [
            f"send {number} {self.pick('to', 'back')} size={mtu + 20}{self.pick('', ' df')}"
            for number, kind, _, _ in self.flows]

    def bridge(self):
        if not self.bridged:
            return []
        mac = self.pick("02:00:00:00:00:02", "02:00:00:00:00:03")
        port = self.pick("q0", "q3")
        match self.random.randrange(9):
            case 0 | 1:
                return [f"roam {self.pick('c1', 'c2')} {self.pick(0, 3)}"]
            case 2:
                return [f"r bridge fdb replace {mac} dev {port} master "
                        + self.pick("static", "dynamic", "permanent")]
            case 3:
                return [f"r bridge fdb del {mac} dev {port} master"]
            case 4:
                self.undo.append(f"r bridge link set dev {port} state 3")
                return [f"r bridge link set dev {port} state {self.pick(0, 1, 2, 4)}"]
            case 5:
                name = self.pick("isolated", "locked", "hairpin", "flood", "learning")
                self.undo.append(f"r bridge link set dev {port} {name} off")
                return [f"r bridge link set dev {port} {name} {self.pick('on', 'off')}"]
            case 6:
                self.undo.append(f"r bridge vlan add dev {port} vid 1 pvid untagged")
                return [self.pick(f"r bridge vlan del dev {port} vid 1",
                                  f"r bridge vlan add dev {port} vid 1 pvid",
                                  f"r bridge vlan add dev {port} vid 7 pvid untagged")]
            case 7:
                return [f"r ip link set p0 type bridge vlan_filtering {self.pick(0, 1)}"]
            case _:
                self.undo.append(f"r ip link set {port} master p0")
                return [f"r ip link set {port} nomaster"]

    def nic(self):
        match self.random.randrange(3):
            case 0:
                return ["nic evict all"]
            case 1:
                self.undo.append("nic capacity 0")
                return [f"nic capacity {self.random.randrange(1, 6)}"]
            case _:
                return ["nic reset 1"]

    def odd(self):
        """Packets that are not like the others."""
        number, kind, _, _ = self.flow()
        words = ["ttl=1", "ttl=2", "ttl=0", "size=1400 df", "size=1472", "tos=0x10", "size=10",
                 "dmac=02:00:00:00:00:99", "pcp=5"]
        if kind.endswith("4"):
            words += ["frag=512 size=1400", "options", "frag=16"]
        if kind == "udp4":
            words += ["zero"]
        if kind.startswith("tcp"):
            words += ["rst=100000", "rst=100000", "rst=-100000", "fin", "rst", "fin pcp=3",
                      "rst pcp=1"]
        return [f"send {number} {self.pick('to', 'to', 'back')} {self.pick(*words)}"
                for _ in range(self.random.randrange(1, 4))]

    def answer(self):
        number, _, _, _ = self.flow()
        return [f"answer {number} {self.pick('yes', 'p1', 'p2', 'no')}"]

    def again(self):
        """Something is made good."""
        if not self.undo:
            return []
        return [self.undo.pop(self.random.randrange(len(self.undo)))]

    EVENTS = {"route": 5, "rule": 6, "neighbour": 4, "forwarding": 2, "filters": 2, "xfrm": 4,
              "conntrack": 3, "link": 3, "bridge": 3, "nic": 1, "odd": 4, "answer": 1, "again": 6,
              "new_flow": 2}

    def tell(self):
        lines = self.setup()
        early = self.random.randrange(3)
        names = [name for name in self.EVENTS if not self.only or name in self.only.split(",")]
        weights = [self.EVENTS[name] for name in names]
        flows = self.random.randrange(2, 5)
        pending = [self.new_flow() for _ in range(flows)]
        for _ in range(early):
            lines += self.event(names, weights)
        lines += pending
        if self.chance(20):
            lines.append("pass 2200")
        for _ in range(self.random.randrange(3, 9)):
            lines += self.event(names, weights)
            if self.chance(5):
                lines.append("pass 1200")
        if self.chance(50):
            lines.append("bare")
        return lines

    def event(self, names, weights):
        lines = getattr(self, self.random.choices(names, weights)[0])()
        return [lines] if isinstance(lines, str) else lines


def tell(seed, only=""):
    return Teller(seed, only).tell()

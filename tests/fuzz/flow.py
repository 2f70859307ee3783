# SPDX-License-Identifier: GPL-2.0
"""flow.py: connections, of which both ends are here.

What an end sends goes by what has reached it through the yardstick, the first router. So the
frames that all routers get are the same, and are those of a real connection there.
"""

import itertools

from packets import ACK, FIN, PSH, RST, SYN, Packet, fragments, mac_bytes, payload
from world import HOSTS, host_addr

SIZE = 24  # of a message
UNACKNOWLEDGED = 240  # of the 500 that Packet's window has
NUMBERS = itertools.count(1)


class End:
    """What an end of a TCP connection knows: of its own bytes, and of the other's."""

    def __init__(self, start):
        self.next = self.acked = start
        self.other = None  # the next byte that is expected; None before SYN


class Flow:
    """udp4, tcp6, icmp4 …, from a host of the LAN to a server."""

    def __init__(self, number, kind, client, server, words=()):
        options = dict(word.split("=") for word in words)
        self.number, self.kind = number, kind
        self.proto, self.v6 = kind[:-1], kind.endswith("6")
        self.client, self.server = client, server
        self.tos = int(options.get("tos", "0"), 0)
        self.pcp = int(options.get("pcp", "0"))
        self.answers = options.get("answers", "yes")  # no; or always by p1 or p2
        self.to = dict(saddr=host_addr(client, self.v6), daddr=host_addr(server, self.v6),
                       sport=4000 + number, dport=int(options.get("dport", "5000")) + number)
        if self.proto in ("icmp", "gre"):
            self.to["dport"] = 0
        self.back = None  # how the server has to address its answers
        self.back_port = None
        self.by_chance = False  # it is translated to a port that a router has chosen at random
        self.silent = set()  # ends that have said FIN or RST, or got a RST that counts
        self.ends = {False: End(1000), True: End(5000)}

    def __str__(self):
        return f"flow {self.number} {self.kind} {self.client} {self.server}"

    def is_of(self, connection):
        """Whether these words about a connection's original direction are about this flow."""
        words = connection.split()
        if self.proto == "gre":
            return words[:3] == ["gre", self.to["saddr"], self.to["daddr"]]
        return str(self.to["sport"]) in words

    def address(self, back):
        return self.back if back else self.to

    def ports(self, world, back):
        """Where a frame goes in: the port, and the MAC of who sends it."""
        if not back:
            return world.at[self.client], self.client
        port = self.back_port
        if self.answers.startswith("p"):
            port = int(self.answers[1:])
        # From whom it comes does not matter to a router: the first host there.
        return port, next(name for name, (at, _) in HOSTS.items() if at == port)

    def may(self, back):
        """Whether this end has something to say."""
        if back in self.silent:
            return False
        if not back:
            return True
        if self.back is None or self.answers == "no":
            return False
        return True

    def is_open(self, back):
        """Whether this end of a TCP connection has got something."""
        if self.silent == {False, True}:
            return False
        return self.ends[back].other is not None and self.ends[not back].other is not None

    def frame(self, world, back, **fields):
        """A frame with a new number, and what has changed of it; None if this end says nothing."""
        port, sender = self.ports(world, back)
        number = next(NUMBERS)
        size = fields.pop("size", SIZE)
        given = dict(v=6 if self.v6 else 4, proto=self.proto, tos=self.tos, ident=number & 0xFFFF,
                     src=mac_bytes(world.macs[sender]), dst=mac_bytes(world.router_mac(port)),
                     payload=payload(number, size), **self.address(back))
        if self.proto == "icmp":
            given["echo_reply"] = back
            given["sport"] = self.to["sport"]
        if self.proto == "tcp":
            given.update(self.tcp(back))
        if self.pcp:
            given["tags"] = ((0x8100, self.pcp << 13),)
        given.update(fields)
        if self.proto == "tcp" and not given["payload"]:
            given["tcp_options"] = b"\xfd\x0c" + payload(number)  # of an experiment
        return number, port, Packet(**given)

    def tcp(self, back):
        end = self.ends[back]
        if end.other is None and not back:
            return dict(flags=SYN, seq=end.next, ack=0, payload=b"")
        if back and end.next == 5000:
            return dict(flags=SYN | ACK, seq=end.next, ack=end.other or 0, payload=b"")
        seq = end.next
        if end.next - end.acked > UNACKNOWLEDGED:
            seq = end.acked
        return dict(flags=ACK | PSH, seq=seq, ack=end.other)

    def arrived(self, back, port, seen, frame):
        """A frame has reached the other end by the yardstick."""
        if not back:
            self.back = seen.reply_tuple()
            self.by_chance |= self.proto in ("tcp", "udp") and seen.sport != self.to["sport"]
            if self.proto == "icmp":
                self.back.update(sport=self.to["sport"], dport=0)
            # By the uplink that it came from, or to where it was translated.
            if port in (1, 2) or seen.src != self.to["saddr"]:
                self.back_port = port
            elif self.back_port is None:
                self.back_port = 1
        if self.proto != "tcp":
            return
        end, other, f = self.ends[back], self.ends[not back], frame.f
        if f["flags"] & RST:
            return
        after = f["seq"] + len(f["payload"]) + bool(f["flags"] & (SYN | FIN))
        if other.other is None or f["seq"] <= other.other:
            other.other = max(other.other or 0, after)
        end.next = max(end.next, after)
        if f["flags"] & ACK:
            other.acked = max(other.acked, f["ack"])

    def special(self, world, back, words):
        """One frame that is not like the others, as its fragments if it has some."""
        fields, parts, other = {}, 0, None
        for word in words:
            name, _, value = word.partition("=")
            match name:
                case "ttl" | "tos" | "size":
                    fields[name] = int(value, 0)
                case "df":
                    fields["frag"] = 0x4000
                case "frag":
                    parts = int(value)
                case "rst" | "fin":
                    # Where the other end expects it, or so far from there.
                    self.silent |= {back} if name == "fin" else set() if value else {False, True}
                    end = self.ends[back]
                    fields.update(flags=RST if name == "rst" else FIN | ACK,
                                  seq=(end.next + int(value or 0)) & 0xFFFFFFFF, payload=b"")
                case "options":
                    fields["options"] = b"\1\1\1\0"
                case "zero":
                    fields["udp_zero"] = True
                case "pcp":
                    fields["tags"] = ((0x8100, int(value) << 13),)
                case "dmac":
                    other = value
        number, port, frame = self.frame(world, back, **fields)
        if other:
            frame.f["dst"] = mac_bytes(other)
        return number, port, fragments(frame, parts) if parts else [frame]


def is_at_home(seen, back, flow):
    """Whether a frame that has left is what the other end is to get, and not an error about it."""
    names = {"tcp": 6, "udp": 17, "gre": 47, "icmp": 58 if flow.v6 else 1}
    if seen.l4 != names[flow.proto] or (flow.proto == "icmp" and seen.type not in (0, 8, 128, 129)):
        return False
    there = flow.client if back else flow.server
    return seen.dst == host_addr(there, flow.v6)

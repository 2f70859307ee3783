# SPDX-License-Identifier: GPL-2.0
"""packets.py: frames that are sent into the routers, and what is compared of those that leave.

Each frame that is sent in has a number in its payload. What leaves with that number, be it inside
an ICMP error, is the answer to it.
"""

import re
import socket
import struct

from frame import Frame, addr, csum

ETH_IP, ETH_ARP, ETH_V6, ETH_PPP = 0x0800, 0x0806, 0x86DD, 0x8864
TAGS = (0x8100, 0x88A8)
NUMBER = re.compile(rb"fz([0-9a-f]{8})")
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
ICMP, TCP, UDP, ESP, ICMP6 = 1, 6, 17, 50, 58
NAMES = {ICMP: "icmp", TCP: "tcp", UDP: "udp", 47: "gre", ESP: "esp", ICMP6: "icmp6"}


def payload(number, size=10):
    """The number, again and again, so that each fragment has it."""
    return (b"fz%08x" % number * (size // 10 + 1))[:size]


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


def checked(proto, saddr, daddr, body, at):
    """The body with its checksum, which is at this place."""
    if len(saddr) == 4:
        pseudo = saddr + daddr + struct.pack("!HH", proto, len(body)) if proto != ICMP else b""
    else:
        pseudo = saddr + daddr + struct.pack("!II", len(body), proto)
    check = csum(pseudo + body)
    if proto == UDP:
        check = check or 0xFFFF
    return body[:at] + struct.pack("!H", check) + body[at + 2:]


class Packet(Frame):
    """A frame of tests/frame.py that may be an ICMP echo as well."""

    def change(self, **fields):
        return Packet(**{**self.f, **fields})

    def l4_bytes(self):
        f = self.f
        if f["proto"] != "icmp":
            return super().l4_bytes()
        v6 = f["v"] == 6
        kind = {(True, False): 128, (True, True): 129, (False, False): 8, (False, True): 0}[
            v6, f["echo_reply"]]
        body = struct.pack("!BBHHH", kind, 0, 0, f["sport"], 1) + f["payload"]
        proto = ICMP6 if v6 else ICMP
        return proto, checked(proto, addr(f["saddr"]), addr(f["daddr"]), body, 2)


def fragments(frame, size):
    """An IPv4 frame as its fragments, each with so many bytes of it, a multiple of 8."""
    proto, l4 = frame.l4_bytes()
    out = []
    for at in range(0, len(l4), size):
        more = 0x2000 if at + size < len(l4) else 0
        part = frame.change(l4=l4[at:at + size], frag=at // 8 | more)
        part.f["proto"] = {ICMP: "udp"}.get(proto, frame.f["proto"])
        out.append(part)
    return out


# --- what is said by the hosts on the cables


def arp_reply(src, dst, sender, target):
    return (mac_bytes(dst) + mac_bytes(src) + struct.pack("!HHHBBH", ETH_ARP, 1, ETH_IP, 6, 4, 2)
            + mac_bytes(src) + addr(sender) + mac_bytes(dst) + addr(target))


def advertisement(src, dst, sender, target, solicited=True):
    """An NA of the sender, to the target: router's, solicited, override flags."""
    body = struct.pack("!BBHI", 136, 0, 0, 0x60000000 if solicited else 0x20000000)
    body += addr(sender) + b"\2\1" + mac_bytes(src)
    saddr, daddr = addr(sender), addr(target)
    body = checked(ICMP6, saddr, daddr, body, 2)
    return (mac_bytes(dst) + mac_bytes(src) + struct.pack("!HIHBB", ETH_V6, 6 << 28, len(body),
                                                          ICMP6, 255) + saddr + daddr + body)


class Seen:
    """A frame that has left a router, taken apart.

    `key` is what must be equal; `number` that of the frame that it answers, or None; `asks` the
    address for whose MAC it asks. `bad` is what is wrong with it, whatever other routers do.
    """

    __slots__ = ("data", "tags", "proto", "number", "asks", "key", "bad", "l3", "src", "dst", "ttl",
                 "tos", "l4", "sport", "dport", "size", "by_rule", "fragment", "multicast", "type")

    def __init__(self, data, by_rule=False):
        self.data, self.by_rule = data, by_rule
        self.asks = self.bad = self.src = self.dst = self.l4 = self.type = None
        self.sport = self.dport = 0
        self.fragment = False
        self.tags = []
        self.multicast = bool(data[0] & 1)
        found = NUMBER.search(data, 14)
        self.number = int(found[1], 16) if found else None
        at, proto = 14, struct.unpack_from("!H", data, 12)[0]
        while proto in TAGS:
            self.tags.append((proto, *struct.unpack_from("!H", data, at)))
            at, proto = at + 4, struct.unpack_from("!H", data, at + 2)[0]
        self.proto = proto
        self.l3 = at
        self.key = data
        if data[:6] == bytes(6):
            self.bad = "goes to the MAC 00:00:00:00:00:00"
        if proto == ETH_ARP:
            if data[at + 7] == 1:
                self.asks = socket.inet_ntop(socket.AF_INET, data[at + 24:at + 28])
                self.src = socket.inet_ntop(socket.AF_INET, data[at + 14:at + 18])
        elif proto == ETH_IP:
            self.ipv4(at)
        elif proto == ETH_V6:
            self.ipv6(at)

    def ipv4(self, at):
        data = self.data
        ihl, total = (data[at] & 15) * 4, struct.unpack_from("!H", data, at + 2)[0]
        self.tos, self.ttl, self.l4 = data[at + 1], data[at + 8], data[at + 9]
        self.src = socket.inet_ntop(socket.AF_INET, data[at + 12:at + 16])
        self.dst = socket.inet_ntop(socket.AF_INET, data[at + 16:at + 20])
        self.size = total
        frag = struct.unpack_from("!H", data, at + 6)[0]
        self.fragment = bool(frag & 0x3FFF)
        if csum(data[at:at + ihl]):
            self.bad = self.bad or "has a wrong IP checksum"
        pseudo = data[at + 12:at + 20] + struct.pack("!HH", self.l4, total - ihl)
        self.layer4(at + ihl, at + total, pseudo if self.l4 != ICMP else b"", frag & 0x1FFF)
        key = bytearray(self.key)
        # The router's own packets have IDs of its own.
        if self.l4 == ESP or self.type in (3, 5, 11):
            key[at + 4:at + 6] = b"\0\0"
        key[at + 10:at + 12] = b"\0\0"
        self.key = bytes(key)

    def ipv6(self, at):
        data = self.data
        self.size, self.l4, self.ttl = struct.unpack_from("!HBB", data, at + 4)
        self.tos = struct.unpack_from("!H", data, at)[0] >> 4 & 255
        self.src = socket.inet_ntop(socket.AF_INET6, data[at + 8:at + 24])
        self.dst = socket.inet_ntop(socket.AF_INET6, data[at + 24:at + 40])
        self.size += 40
        pseudo = data[at + 8:at + 40] + struct.pack("!II", self.size - 40, self.l4)
        self.layer4(at + 40, at + self.size, pseudo, 0)
        if self.l4 == ICMP6 and self.type == 135:
            self.asks = socket.inet_ntop(socket.AF_INET6, data[at + 48:at + 64])
        elif self.l4 == ICMP6 and self.type in (130, 131, 132, 133, 134, 136, 143):
            self.multicast = True

    def layer4(self, at, end, pseudo, offset):
        data = self.data
        if self.l4 == ESP:
            # Sequence number, IV and what is encrypted differ.
            self.key = data[:at + 4] + bytes(end - at - 4)
            return
        if offset or len(data) < end:
            if len(data) < end:
                self.bad = self.bad or "is cut off"
            return
        if self.l4 in (ICMP, ICMP6):
            self.type = data[at]
        elif self.l4 in (TCP, UDP):
            self.sport, self.dport = struct.unpack_from("!HH", data, at)
        else:
            return
        zero = self.l4 == UDP and data[at + 6:at + 8] == b"\0\0"
        if not self.fragment and not zero and csum(pseudo + data[at:end]):
            self.bad = self.bad or f"has a wrong checksum of {NAMES[self.l4]}"

    def is_unreachable(self):
        """A router's word that a host cannot be reached."""
        return (self.l4, self.type) in ((ICMP, 3), (ICMP6, 1))

    def reply_tuple(self):
        """How an answer to it has to be addressed."""
        return dict(saddr=self.dst, daddr=self.src, sport=self.dport, dport=self.sport)

    def tell(self, names):
        """In words; names are those of MAC addresses."""
        macs = [self.data[i:i + 6].hex(":") for i in (6, 0)]
        text = " > ".join(names.get(mac, mac) for mac in macs)
        for _, tci in self.tags:
            text += f" vlan {tci & 4095} pcp {tci >> 13}"
        if self.src is None or self.proto == ETH_ARP:
            return text + f" type {self.proto:#06x}"
        text += f" {self.src}:{self.sport} > {self.dst}:{self.dport} {NAMES.get(self.l4, self.l4)}"
        if self.type is not None:
            text += f" type {self.type}"
        text += f" ttl {self.ttl} len {self.size}"
        if self.tos:
            text += f" tos {self.tos:#x}"
        if self.fragment:
            text += " fragment"
        return text + (" [by the NIC]" if self.by_rule else "")

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""wire.py CLIENT_NS ROUTER_NS SERVER_NS SIDE0 SIDE1 PROFILES CASES SEED

The same packets through the router, once in software and once through the rules that each of the
PROFILES (with commas) of the NIC has taken, byte by byte.

A SIDE is KIND:DEVICE:MAC: see sides.sh; the device that has the IP address, and the MAC that frames
for the router have. CASES are NAT-PROTOCOL, as in masquerade-udp4, with commas. The hosts are made
of raw sockets: nobody answers but this program. Of each packet, all that leaves the router on
either wire until the router has answered what was sent after it is compared. Prints a line per case
and profile: "ok", "not ok" or "software", then how much was compared.
"""

import os
import random
import select
import socket
import struct
import subprocess
import sys
import time

from connection import Namespace
from frame import MARK, Frame, Tap, addr, csum
from kmsg import Kmsg
from nic import counters, knob
from wait import until

LIMIT = 10 * int(os.environ.get("SLOWNESS", "1"))
HOST_MAC = [bytes.fromhex("020000000c09"), bytes.fromhex("020000000509")]
HOST = {4: ["192.168.1.9", "10.0.2.9"], 6: ["fd00:1::9", "fd00:2::9"]}
ROUTER = {4: ["192.168.1.1", "10.0.2.1"], 6: ["fd00:1::1", "fd00:2::1"]}
OTHER = {4: "10.0.2.77", 6: "fd00:2::77"}  # to which sources are translated
VIRTUAL = {4: "10.0.2.200", 6: "fd00:2::200"}  # of which destinations are translated
SPORT, DPORT, OTHER_SPORT, REAL_DPORT = 4000, 5000, 2000, 7000
SYN, ACK, PSH, FIN, RST = 2, 16, 8, 1, 4
OPENING = 3  # packets that make a connection
Q, AD = 0x8100, 0x88A8


def headers(kind, side):
    """The tags and the session that frames have on a side of that kind."""
    vid = 10 * side + 10
    tags = {
        "vlan": ((Q, vid),),
        "vlan-bridge": ((Q, vid),),
        "vlan-pppoe": ((Q, vid),),
        "qinq": ((Q, vid), (Q, vid + 1)),
        "8021ad": ((AD, vid),),
        "8021ad-vlan": ((AD, vid), (Q, vid + 1)),
    }
    return tags.get(kind, ()), 0x1234 + side if kind.endswith("pppoe") else None


class Side:
    def __init__(self, number, text, netns):
        self.kind, self.dev, mac = text.split(":", 2)
        self.number = number
        self.router_mac = bytes.fromhex(mac.replace(":", ""))
        self.mac = HOST_MAC[number]
        self.tags, self.pppoe = headers(self.kind, number)
        self.mtu = 1492 if self.pppoe else 9000 - 1000 * number
        with netns:
            self.tap = Tap(f"wire{number}")

    def probe(self):
        """Whatever was sent before has passed the router when this is answered."""
        router = socket.inet_aton(ROUTER[4][self.number])
        arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + self.mac + bytes(4) + bytes(6) + router
        return b"\xff" * 6 + self.mac + struct.pack("!H", 0x0806) + arp


def offset_l3(frame):
    """Ethertype and offset of what is in a frame, below tags and PPPoE."""
    at, proto = 14, struct.unpack_from("!H", frame, 12)[0]
    while proto in (Q, AD):
        proto = struct.unpack_from("!H", frame, at + 2)[0]
        at += 4
    if proto == 0x8864:
        proto = {0x21: 0x0800, 0x57: 0x86DD}.get(struct.unpack_from("!H", frame, at + 6)[0], 0)
        at += 8
    return proto, at


def comparable(frame):
    """Without what the router draws anew: the ID of its own ICMP errors, and of IPv6 fragments."""
    proto, at = offset_l3(frame)
    if proto == 0x0800 and frame[at + 9] == 1:
        frame = frame[: at + 4] + bytes(2) + frame[at + 6 : at + 10] + bytes(2) + frame[at + 12 :]
    if proto == 0x86DD and frame[at + 6] == 44:
        frame = frame[: at + 44] + bytes(4) + frame[at + 48 :]
    return frame


def is_chatter(frame):
    """Multicast and neighbour discovery."""
    proto, at = offset_l3(frame)
    if frame[0] & 1 or proto != 0x86DD:
        return frame[0] & 1
    return frame[at + 24] == 0xFF or (frame[at + 6] == 58 and frame[at + 40] >= 130)


def shell(netns, script, stdin=None):
    """Runs a script of the shell in a namespace; how it went, and what it said on errors."""
    with netns:
        return subprocess.run(
            ("sh", "-ec", script), input=stdin, capture_output=True, text=True, check=False
        )


def expect(what, condition):
    if not until(condition, LIMIT):
        raise RuntimeError(f"not within {LIMIT} s: {what}")


class Bench:
    """The router between two wires."""

    def __init__(self, router, sides):
        self.router = router
        self.sides = sides
        with self.router:
            self.conntrack = os.open("/proc/net/nf_conntrack", os.O_RDONLY)
        self.log = Kmsg()

    def load(self, case, offload):
        # First without: what was learned about a device goes when nobody uses it.
        script = "nft flush ruleset; conntrack -F 2>&1; nft -f -"
        result = shell(self.router, script, case.ruleset(offload))
        if result.returncode:
            raise RuntimeError(f"{script}: {result.stderr}")
        self.log.read()

    def wait_offload(self, sport, hardware):
        flag = "[HW_OFFLOAD]" if hardware else "[OFFLOAD]"

        def settled():
            reason = self.log.reason()
            if reason:
                raise Software(reason)
            lines = os.pread(self.conntrack, 65536, 0).decode().splitlines()
            ports = f"sport={sport} ", "srckey=0x0 "
            return any(flag in line and any(p in line for p in ports) for line in lines)

        expect(f"the flow is {flag}", settled)

    def exchange(self, number, frames):
        """Sends frames to the router; what leaves there, by wire."""
        out = ([], [])
        taps = {side.tap.sock: side for side in self.sides}
        sender = self.sides[number]
        for frame in frames:
            sender.tap.sock.send(frame)
        sender.tap.sock.send(sender.probe())
        end = time.monotonic() + LIMIT
        answered = False
        while True:
            ready, _, _ = select.select(list(taps), [], [], 0 if answered else 0.1)
            if answered and not ready:
                return out
            if time.monotonic() > end:
                raise RuntimeError("the router does not answer")
            for sock in ready:
                frame = taps[sock].tap.recv()
                if frame is None:
                    continue
                side = taps[sock]
                if frame[12:14] == b"\x08\x06":
                    answered |= side is sender and frame[:6] == sender.mac
                elif not is_chatter(frame):
                    out[side.number].append(comparable(frame))


def nic_packets():
    return counters()["nic_packets"]


class Case:
    """One kind of flow, and its packets."""

    def __init__(self, nat, proto, sides, rng):
        self.name = f"{sides[0].kind} to {sides[1].kind}, {nat}, {proto}"
        self.nat, self.proto, self.v = nat, proto[:-1], int(proto[-1])
        self.sides, self.rng = sides, rng
        v = self.v
        self.client, self.server = HOST[v]
        self.to, self.dport = self.server, DPORT
        self.seen, self.sport = self.client, SPORT
        if nat in ("dnat", "both"):
            self.to = VIRTUAL[v]
        self.real_dport = REAL_DPORT if nat in ("dnat", "both", "port") else DPORT
        if nat in ("snat", "both"):
            self.seen, self.sport = OTHER[v], OTHER_SPORT
        self.index = 0  # of the flow
        if nat == "masquerade":
            self.seen = ROUTER[v][1]

    def ruleset(self, offload):
        ip = "ip" if self.v == 4 else "ip6"
        match = f"meta l4proto {self.proto} {ip}"
        text = f"""
            table inet fw {{
                flowtable ft {{
                    hook ingress priority 0
                    devices = {{ nic0, nic1 }}
                    {"flags offload" if offload else ""}
                }}
                chain forward {{
                    type filter hook forward priority 0
                    ct state established meta l4proto {{ tcp, udp, gre }} flow add @ft
                }}
                chain prerouting {{
                    type nat hook prerouting priority -100
                    """
        host = self.server if self.v == 4 else f"[{self.server}]"
        if self.nat in ("dnat", "both"):
            text += f"{match} daddr {self.to} th dport {DPORT} dnat {ip} to {host}:{REAL_DPORT}"
        if self.nat == "port":
            text += f"{match} daddr {self.to} th dport {DPORT} dnat to :{REAL_DPORT}"
        text += """
                }
                chain postrouting {
                    type nat hook postrouting priority 100
                    """
        other = OTHER[4] if self.v == 4 else f"[{OTHER[6]}]"
        if self.nat in ("snat", "both"):
            for i in range(7):
                text += f"{match} saddr {self.client} th sport {SPORT + i} "
                text += f"snat {ip} to {other}:{OTHER_SPORT + i}\n"
        if self.nat == "masquerade":
            text += f"{match} saddr {self.client} masquerade"
        return text + "\n}\n}\n"

    def frame(self, number, **fields):
        """A packet of the flow from that side."""
        side = self.sides[number]
        if number == 0:
            ends = dict(saddr=self.client, sport=SPORT, daddr=self.to, dport=self.dport)
            ends["sport"] += self.index
        else:
            ends = dict(saddr=self.server, sport=self.real_dport, daddr=self.seen, dport=self.sport)
            ends["dport"] += self.index
        base = dict(dst=side.router_mac, src=side.mac, tags=side.tags, pppoe=side.pppoe)
        return Frame(**{**base, **ends, "v": self.v, "proto": self.proto, **fields})

    def translated(self, number, **fields):
        """The same packet of the first flow as its receiver sees it, from IP upwards."""
        if number == 0:
            ends = dict(
                saddr=self.seen, sport=self.sport, daddr=self.server, dport=self.real_dport
            )
        else:
            ends = dict(saddr=self.to, sport=self.dport, daddr=self.client, dport=SPORT)
        return Frame(**{**ends, "v": self.v, "proto": self.proto, **fields})

    def opening(self):
        """What makes it an established connection, of which nobody asks how it went."""
        if self.proto == "tcp":
            yield "opens", 0, [bytes(self.frame(0, flags=SYN, seq=6, ack=0, payload=b""))], None
            answer = self.frame(1, flags=SYN | ACK, seq=8, ack=7, payload=b"")
            yield "opens", 1, [bytes(answer)], None
            yield "opens", 0, [bytes(self.frame(0, payload=b""))], None
            return
        for number in (0, 1, 0):
            yield "opens", number, [bytes(self.frame(number))], None

    def sum_becomes(self, frame_of, want):
        """A payload with which the sum that is computed comes out as wanted."""
        at = 6 if self.proto == "udp" else 16

        def made(word):
            payload = MARK + struct.pack("!H", word)
            return payload, struct.unpack_from("!H", frame_of(payload=payload).l4_bytes()[1], at)[0]

        payload, got = made((made(0)[1] - want) % 0xFFFF)
        # What is 0 goes as 0xffff with UDP.
        assert got == (want or 0xFFFF if self.proto == "udp" else want)
        return payload

    def packets(self, number):
        """(name, side, frames, whether the NIC has to forward them: True, False, None)"""
        this, other = self.sides[number], self.sides[1 - number]
        head = (20 if self.v == 4 else 40) + {"tcp": 20, "udp": 8, "gre": 4}[self.proto]
        room = min(this.mtu, other.mtu)

        def one(name, nic=True, **fields):
            return name, number, [bytes(self.frame(number, **fields))], nic

        yield one("plain")
        for size in (0, 1, 2, 17, 101, room - head - 1, room - head):
            frame = bytes(self.frame(number, payload=MARK.ljust(size, b".")[:size]))
            yield f"{size} bytes", number, [frame.ljust(60, b"\0")], True
            if len(frame) < 60:
                yield f"{size} bytes, not padded", number, [frame], True
        if other.mtu < this.mtu:
            over = MARK.ljust(other.mtu - head + 1, b".")
            yield one("over the MTU", nic=False, payload=over)
            yield one("over the MTU, DF", nic=False, payload=over, frag=0x4000)
        for tos in (0, 1, 2, 3, 0xB8, 0xB9, 0xBA, 0xBB, 0x28, 0xE1, 0xFC, 0xFF):
            yield one(f"traffic class {tos:#x}", tos=tos)
        for ttl, nic in ((0, False), (1, False), (2, True), (3, True), (128, True), (255, True)):
            yield one(f"TTL {ttl}", nic, ttl=ttl)
        for tags in self.priorities(number):
            text = ".".join(f"{tci:#06x}" for _, tci in tags)
            yield one(f"tags {text}", tags=tags)
        yield from self.l4_packets(number, one)
        if self.v == 4:
            yield from self.v4_packets(number, one)
        else:
            yield one("hop-by-hop options", nic=False, ext=0)
            yield one("destination options", nic=False, ext=60)
        for name, order in (("fragments", 1), ("fragments, the last first", -1)):
            yield name, number, list(self.fragments(number))[::order], False
        for i in range(8):
            size = self.rng.randrange(room - head)
            yield one(
                f"random {i}",
                ident=self.rng.randrange(0x10000),
                tos=self.rng.randrange(0x100),
                ttl=self.rng.randrange(2, 256),
                payload=self.rng.randbytes(size),
            )

    def priorities(self, number):
        tags = self.sides[number].tags
        for i in range(len(tags)):
            for bits in (1 << 12, 1 << 13, 5 << 13, 0xF << 12):
                yield tags[:i] + ((tags[i][0], tags[i][1] | bits),) + tags[i + 1 :]

    def l4_packets(self, number, one):
        if self.proto == "gre":
            key = struct.pack("!HHI", 0x2000, 0x0800, 77) + MARK
            yield one("a key", l4=key)
            return
        for name, frame_of in (
            ("becomes", lambda **f: self.translated(number, **f)),
            ("was", lambda **f: self.frame(number, **f)),
        ):
            for want in (0, 1, 0xFFFE):
                payload = self.sum_becomes(frame_of, want)
                yield one(f"L4 checksum {name} {want:#06x}", payload=payload)
        good = self.frame(number).l4_bytes()[1]
        at = 6 if self.proto == "udp" else 16
        wrong = struct.pack("!H", struct.unpack_from("!H", good, at)[0] ^ 0x1111)
        yield one("a wrong L4 checksum", l4=good[:at] + wrong + good[at + 2 :])
        if self.proto == "udp":
            yield one("no L4 checksum", udp_zero=True)
            return
        for flags in (ACK | PSH, ACK | 0x20, ACK | 0x40, ACK | 0x80, ACK | PSH | 0xE0, 0):
            yield one(f"TCP flags {flags:#x}", flags=flags)
        stamps = struct.pack("!BBBBII", 1, 1, 8, 10, 1234, 5678)
        yield one("TCP timestamps", tcp_options=stamps)
        yield one("TCP SYN", nic=False, flags=SYN, seq=6, ack=0)

    def v4_packets(self, number, one):
        yield one("DF", frag=0x4000)
        yield one("reserved bit", frag=0x8000)
        yield one("wrong header checksum", nic=False, bad_ip_csum=True)
        yield one("shorter than its header says", nic=False, cut=4)
        yield one("options: NOP", nic=False, options=b"\1\1\1\0")
        yield one("options: record route", nic=False, options=b"\7\7\4\0\0\0\0\0")
        # Decrements of the TTL over every carry.
        before = struct.unpack_from("!H", self.translated(number, ident=0).l3_bytes(), 10)[0]
        for want in (0x0000, 0xFEFF, 0xFF00, 0xFFFE, 0x00FF):
            ident = (before - want) % 0xFFFF
            yield one(f"header checksum near {want:#06x}", ident=ident)

    def fragments(self, number):
        whole = self.frame(number, payload=MARK * 50, ident=321)
        side = self.sides[number]
        num, l4 = whole.l4_bytes()
        cut = 256
        for at in range(0, len(l4), cut):
            part, more = l4[at : at + cut], at + cut < len(l4)
            if self.v == 4:
                start = struct.pack(
                    "!BBHHHBB", 0x45, 0, 20 + len(part), 321, at >> 3 | more << 13, 64, num
                )
                ends = addr(whole.f["saddr"]) + addr(whole.f["daddr"])
                l3 = start + struct.pack("!H", csum(start + ends)) + ends + part
            else:
                head = struct.pack("!BBHI", num, 0, at | more, 321)
                l3 = struct.pack("!IHBB", 6 << 28, len(head + part), 44, 64)
                l3 += addr(whole.f["saddr"]) + addr(whole.f["daddr"]) + head + part
            l2 = side.router_mac + side.mac
            l2 += b"".join(struct.pack("!HH", *tag) for tag in side.tags)
            if side.pppoe is not None:
                proto = 0x21 if self.v == 4 else 0x57
                l2 += struct.pack("!HBBHHH", 0x8864, 0x11, 0, side.pppoe, len(l3) + 2, proto)
            else:
                l2 += struct.pack("!H", 0x0800 if self.v == 4 else 0x86DD)
            yield l2 + l3

    def flows(self):
        """Lists of packets, each to be sent over a flow of its own, from its beginning."""
        self.index = 0
        yield [*self.opening(), *self.packets(0), *self.packets(1)]
        if self.proto != "tcp":
            return
        for flags in (FIN | ACK, RST, RST | ACK):
            for number in (0, 1):
                self.index += 1
                end = bytes(self.frame(number, flags=flags, payload=b""))
                after = bytes(self.frame(1 - number, payload=b""))
                yield [
                    *self.opening(),
                    (f"TCP flags {flags:#x}", number, [end], False),
                    (f"after TCP flags {flags:#x}", 1 - number, [after], None),
                ]


class Software(Exception):
    """The flow is not in hardware, for that reason."""


def send_flows(bench, case, flows, offload):
    """What came out for each packet of each flow, and how many the NIC has forwarded."""
    bench.load(case, offload)
    results = []
    by_nic = 0
    for index, packets in enumerate(flows):
        out = []
        for name, number, frames, nic in packets:
            if len(out) == OPENING:
                bench.wait_offload(SPORT + index, offload)
            before = nic_packets()
            out.append(bench.exchange(number, frames))
            passed = nic_packets() - before
            by_nic += passed
            wanted = len(frames) if nic and offload else 0
            if passed != wanted and (nic is not None or not offload):
                raise RuntimeError(f"{name}, side {number}: {passed} packets passed in the NIC")
        results.append(out)
    return results, by_nic


def expected(case, profile, number, frames, out):
    """What a NIC of that profile has to make of it, given what software makes of it: the same, but
    for what Documentation/drivers.md says."""
    far = case.sides[1 - number]
    near = case.sides[number]

    def change(frame):
        rewrites = len(near.tags) == len(far.tags) == 1
        if profile == "mlx5-ft" and rewrites:
            bits = struct.unpack_from("!H", frames[0], 14)[0] & 0xF000
            tci = struct.unpack_from("!H", frame, 14)[0]
            frame = frame[:14] + struct.pack("!H", tci | bits) + frame[16:]
        return frame

    return tuple([change(f) if i == far.number else f for f in sent] for i, sent in enumerate(out))


def compare(case, profile, flow, software, hardware):
    """Problems, as texts."""
    for (name, number, frames, nic), soft, hard in zip(flow, software, hardware, strict=True):
        want = expected(case, profile, number, frames, soft) if nic else soft
        if hard == want:
            continue
        text = f"{name}, side {number}"
        for label, lists in (("sent", (frames, [])), ("want", want), ("got ", hard)):
            for wire, sent in enumerate(lists):
                text += "".join(f"\n# {label} {wire} {frame[:120].hex()}" for frame in sent)
        yield text


def run_case(bench, case, profiles):
    """Packets compared, and how many of them were in the NIC."""
    flows = list(case.flows())
    packets = sum(len(frames) for flow in flows for _, _, frames, _ in flow)
    knob("profile", "none")
    try:
        software, _ = send_flows(bench, case, flows, False)
    except RuntimeError as error:
        print(f"not ok {case.name} in software: {error}", flush=True)
        return 0, 0
    compared = by_nic = 0
    for profile in profiles:
        knob("profile", profile)
        problems = []
        passed = 0
        try:
            hardware, passed = send_flows(bench, case, flows, True)
            for each in zip(flows, software, hardware, strict=True):
                problems += compare(case, profile, *each)
        except Software as reason:
            print(f"software {case.name} on {profile}: {reason}", flush=True)
            continue
        except RuntimeError as error:
            problems.append(str(error))
        compared += packets
        by_nic += passed
        verdict = "not ok" if problems else "ok"
        text = f"{case.name} on {profile}: {packets} packets, {passed} in the NIC"
        print(f"{verdict} {text}", flush=True)
        for problem in problems[:3]:
            print(f"# {problem}", flush=True)
    return compared, by_nic


def main():
    client, router, server, side0, side1, profiles, cases, seed = sys.argv[1:]
    # Frames stay in order: they are all in the queue of one CPU.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    sides = [Side(0, side0, Namespace(client)), Side(1, side1, Namespace(server))]
    bench = Bench(Namespace(router), sides)
    for side in sides:
        if side.pppoe is None:
            for v in (4, 6):
                neigh = f"neigh replace {HOST[v][side.number]} dev {side.dev} nud permanent lladdr"
                cmd = ("ip", "-n", router, *neigh.split(), side.mac.hex(":"))
                subprocess.run(cmd, check=True)
    total = [0, 0]
    for text in cases.split(","):
        nat, proto = text.split("-")
        case = Case(nat, proto, sides, random.Random(f"{seed} {text}"))
        result = run_case(bench, case, profiles.split(","))
        total = [a + b for a, b in zip(total, result, strict=True)]
    print("total", *total)


if __name__ == "__main__":
    main()

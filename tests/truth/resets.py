#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""resets.py CLIENT ROUTER SERVER LIMIT_MS TEXT offload|software CLIENT-DEVICE [tag VID|reuse]

TCP connections of a router with a flowtable get RSTs whose sequence number is far from what is
expected, from either side. With `tag`, the client's have a tag with a priority, of this VLAN, which
may be 0. With `reuse`, the connections really end, and their ports are used again at once. Prints
lines "ok TEXT" and "not ok TEXT".
"""

import random
import socket
import struct
import subprocess
import sys
import time

from connection import Connection, Namespace
from frame import Frame, ETH_P_ALL
from nic import cookies
from wait import until

client, router, server = (Namespace(name) for name in sys.argv[1:4])
limit = float(sys.argv[4]) / 1000
title, place, device = sys.argv[5:8]
what = sys.argv[8:]
RST, FAR = 4, 1 << 30
PORTS = iter(range(random.randrange(10000, 30000, 100), 65536))


def check(fine, text, *figures):
    print(f"{'ok' if fine else 'not ok'} {title}: {text}", flush=True)
    if not fine:
        print("#", *figures, flush=True)


def sysctl(name):
    with router, open(f"/proc/sys/net/netfilter/{name}", encoding="ascii") as file:
        return int(file.read())


def raw(namespace, device):
    with namespace:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        sock.bind((device, ETH_P_ALL))
    sock.setblocking(False)
    return sock


class Flow(Connection):
    """A connection with an echo server, whose frames are looked at where they leave the hosts."""

    def __init__(self, version, source=0, port=0):
        self.version, self.port = version, port or next(PORTS)
        addr = "10.0.2.2" if version == 4 else "fd00:2::2"
        super().__init__(f"tcp{version}", client, server, (addr, self.port), source=source)
        self.source = self.sock.getsockname()[1]
        self.back = 0
        self.wires = {"client": raw(client, device), "server": raw(server, "wire1")}

    def turn(self):
        """A message and its echo, each if there is room for it."""
        for step in (lambda: self.sock.send(b"x" * 64), self.echo, self.receive):
            try:
                step()
            except BlockingIOError:
                pass
        time.sleep(0.005)  # the pace of the messages

    def echo(self):
        self.peer.send(self.peer.recv(65536))

    def receive(self):
        self.back += len(self.sock.recv(65536))

    def hears(self):
        try:
            self.receive()
        except BlockingIOError:
            return False
        return True

    def works(self):
        back = self.back
        return until(lambda: self.back > back + 640, 10 * limit, self.turn)

    def frames(self, side, outgoing):
        """TCP frames of the connection at a host, that it has sent or that have come."""
        while True:
            try:
                data, sender = self.wires[side].recvfrom(65536)
            except BlockingIOError:
                return
            if (sender[2] == socket.PACKET_OUTGOING) != outgoing:
                continue
            l4 = 34 if data[12:14] == b"\x08\0" else 54
            ports = struct.unpack("!HH", data[l4 : l4 + 4])
            if data[23 if l4 == 34 else 20] == socket.IPPROTO_TCP and self.port in ports:
                yield data, l4

    def last(self, side):
        """Fields of the last frame that a host has sent."""
        for sock in self.wires.values():
            try:
                while sock.recv(65536):
                    pass
            except BlockingIOError:
                pass
        found = []

        def seen():
            found.extend(self.frames(side, True))
            return found

        if not until(seen, 10 * limit, self.turn):
            sys.exit(f"nothing leaves the {side}")
        data, l4 = found[-1]
        sport, dport, seq = struct.unpack("!HHI", data[l4 : l4 + 8])
        first, size, family = (26, 4, socket.AF_INET) if l4 == 34 else (22, 16, socket.AF_INET6)
        saddr, daddr = (
            socket.inet_ntop(family, data[at : at + size]) for at in (first, first + size)
        )
        return dict(
            dst=data[:6],
            src=data[6:12],
            v=self.version,
            saddr=saddr,
            daddr=daddr,
            proto="tcp",
            sport=sport,
            dport=dport,
            seq=seq,
            payload=b"",
        )

    def reset(self, side, shift, **fields):
        frame = Frame(**self.last(side)).change(flags=RST, ack=0, **fields)
        frame = frame.change(seq=(frame.f["seq"] + shift) & 0xffffffff)
        self.quiet()
        wire = self.wires[side]
        if "tags" in fields:
            wire = raw(client, "wire0")
        wire.send(bytes(frame))

    def quiet(self):
        """Has what is on its way arrive, ACKs that are put off included."""
        looks = 0
        while looks < 50:
            looks += 1
            for step in self.echo, self.receive:
                try:
                    step()
                except BlockingIOError:
                    pass
            if any([*self.frames("server", False), *self.frames("server", True)]):
                looks = 0
            time.sleep(0.005)

    def conntrack(self):
        """Its line in conntrack's table."""
        with router, open("/proc/thread-self/net/nf_conntrack", encoding="ascii") as file:
            words = (f"sport={self.source} ", f"dport={self.port} ")
            return next((line for line in file if all(word in line for word in words)), "")

    def is_in_place(self):
        if place == "software":
            return "[OFFLOAD]" in self.conntrack()
        return len(self.rules()) == 2

    def rules(self):
        return cookies(f"sport={self.port} ") | cookies(f"dport={self.port} ")

    def is_out(self):
        return "OFFLOAD]" not in self.conntrack() and not self.rules()

    def goes_in_place(self):
        return until(self.is_in_place, 60, self.turn)


def open_flow(version, **ports):
    flow = Flow(version, **ports)
    if not (flow.goes_in_place() and flow.works()):
        sys.exit(f"a connection over IPv{version} does not get into place")
    return flow


def blind(version, side, shift, **fields):
    flow = open_flow(version)
    other = "server" if side == "client" else "client"
    text = f"a RST from the {side}, {shift:+d}, IPv{version}"
    flow.reset(side, shift, **fields)

    def arrives():
        return any(data[l4 + 13] & RST for data, l4 in flow.frames(other, False))

    check(until(arrives, 10 * limit), f"{text}: is forwarded")
    # The other host answers one in its window, and the answer makes a new entry.
    if abs(shift) >= FAR:
        start = time.monotonic()
        out = until(flow.is_out, 10 * limit)
        took = time.monotonic() - start
        line = flow.conntrack()
        gone = out and took < limit
        check(gone, f"{text}: the flow leaves the flowtable, and its rules the NIC", took, line)
        unack = sysctl("nf_conntrack_tcp_timeout_unacknowledged")
        lives = " ESTABLISHED " in line and int(line.split()[4]) <= unack
        check(lives, f"{text}: conntrack doubts it, and knows the flow for {unack} s at most", line)
    flow.peer.send(b"news")
    check(until(flow.hears, 10 * limit), f"{text}: the server's next data arrive", flow.conntrack())
    goes_on = flow.works() and flow.goes_in_place()
    check(goes_on, f"{text}: the connection goes on where it was", flow.conntrack())
    return flow


def without_time():
    """One that the host drops before it is forwarded changes nothing."""
    kept = open_flow(4)
    before = kept.rules()
    kept.reset("client", 0, ttl=1)
    expired = until(lambda: "OFFLOAD]" not in kept.conntrack(), 0.1)
    # By then, the garbage collector has been there.
    blind(4, "client", FAR).close()
    line = kept.conntrack()
    stays = not expired and "OFFLOAD]" in line and kept.rules() == before
    check(stays, "a RST with TTL 1: the flow stays where it is", line)
    check(kept.works(), "a RST with TTL 1: the connection goes on", kept.conntrack())
    kept.close()


def with_options():
    """One with IP options, which has no entry, when conntrack has just begun anew."""
    flow = blind(4, "client", FAR)
    # Conntrack sees a first packet of the server, and no more.
    flow.quiet()
    flow.reset("server", FAR)
    until(flow.is_out, 10 * limit)
    flow.peer.send(b"news")
    until(lambda: "OFFLOAD]" in flow.conntrack(), 10 * limit)
    # The garbage collector has been there when it has freed another entry.
    other = open_flow(4)
    other.quiet()
    other.reset("client", FAR)
    freed = until(lambda: other.is_out() and "use=2" in other.conntrack(), 10 * limit)
    check(freed, "RSTs with IP options: another entry is freed", other.conntrack())
    other.close()
    flow.quiet()
    for shift in FAR, -FAR:
        flow.reset("server", shift, options=b"\1\1\1\1")
    flow.quiet()
    # What state that is can be seen when the flow has left the flowtable.
    flow.reset("client", FAR)
    until(flow.is_out, 10 * limit)
    line = flow.conntrack()
    check(" ESTABLISHED " in line, "RSTs with IP options: conntrack does not believe them", line)
    check(flow.works(), "RSTs with IP options: the connection goes on", flow.conntrack())
    flow.close()


def reuse(version, abort):
    text = f"{'RST' if abort else 'FIN'}, IPv{version}"
    flow = open_flow(version)
    flow.quiet()
    start = time.monotonic()
    flow.close(abort=abort)
    if abort:
        fresh = open_flow(version, source=flow.source, port=flow.port)
        line = fresh.conntrack()
        check("OFFLOAD]" in line, f"{text}: the ports are used again at once", line)
        fresh.close()
        return
    gone = until(flow.is_out, 10 * limit) and time.monotonic() - start < limit
    line = flow.conntrack()
    check(gone, f"{text}: the flow leaves the flowtable, and its rules the NIC", line)
    # A NIC has forwarded the last ACK.
    last = (" TIME_WAIT ", " LAST_ACK ") if place == "offload" else (" TIME_WAIT ",)
    seen = until(lambda: any(state in flow.conntrack() for state in last), 10 * limit)
    check(seen, f"{text}: conntrack sees it", flow.conntrack())


if "reuse" in what:
    for version in 4, 6:
        for abort in False, True:
            reuse(version, abort)
elif "tag" in what:
    subprocess.run(["modprobe", "8021q"], check=True)
    for version in 4, 6:
        blind(version, "client", FAR, tags=((0x8100, 5 << 13 | int(what[1])),)).close()
else:
    for version, side, shift in (
        (4, "client", FAR),
        (4, "client", -FAR),
        (4, "server", FAR),
        (4, "client", 1000),
        (6, "client", FAR),
        (6, "server", -FAR),
    ):
        blind(version, side, shift).close()
    without_time()
    with_options()

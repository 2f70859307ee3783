#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""probe.py: what an event does to connections, packet by packet.

Runs connections from a namespace to an echo server in another, loads the ruleset and waits until
the NIC has their rules, lets the event happen, and watches the cables: which frames still take the
old way, for how long a connection stands still, when its rules are gone and when they are back.

Before there is a flowtable, something happens that is none of these connections' business
(--control). For how long they stand still meanwhile is the machine's doing: if it is longer than
--calm, the machine is so many times slower than the one that --grace and --watch are meant for.
That goes by this event or by the median of all up to now, whichever is longer.

Where the event is undone again, what comes back is looked at after that, and before it what takes
the old way.

Prints one JSON object. Times are in milliseconds after the event's command has returned; null
means never, as far as was watched. "slowness" is 1 where nothing was longer.

Without arguments it takes them from standard input, event after event: each argument ends with a
NUL, and each event with an empty one.
"""

import argparse
import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from statistics import median

from connection import Connection, Namespace
from nic import cookies
from wait import until

MESSAGE = 64
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 263, 8, 16
SO_TIMESTAMPNS = 35
SO_RCVPRIORITY = 82
SO_RCVBUFFORCE = 33
PACKET_OUTGOING = 4
ETH_P_ALL = 3


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--client", required=True, help="namespace")
    parser.add_argument("--server", required=True, help="namespace")
    parser.add_argument("--router", required=True, help="namespace")
    parser.add_argument("--ruleset", required=True, help="file for nft -f")
    parser.add_argument("--control", required=True, help="shell commands")
    parser.add_argument("--to", nargs=2, required=True, metavar="ADDR", help="IPv4 and IPv6")
    parser.add_argument("--flows", default="tcp4,tcp6,udp4,udp6")
    parser.add_argument("--port", type=int, default=7000)
    parser.add_argument("--wires", required=True, help="NAMESPACE:DEVICE, separated by commas")
    parser.add_argument("--old", action="append", default=[],
                        help="wire=, dmac=, smac=, proto= or saddr= (IPv4) of frames "
                             "on the old way")
    parser.add_argument("--rule", default="", help="the old rules are those that contain this")
    parser.add_argument("--rules", type=int, help="how many rules there are; 2 per flow")
    parser.add_argument("--pace", type=float, default=5, help="ms between messages of a flow")
    parser.add_argument("--calm", type=float, default=40, help="ms for the longest stall without")
    parser.add_argument("--grace", type=float, default=50, help="ms for the old way")
    parser.add_argument("--watch", type=float, default=3000, help="ms, at least, after the event")
    parser.add_argument("--limit", type=float, default=10000, help="ms, at most")
    parser.add_argument("--lossy", action="store_true",
                        help="it is the NIC that loses rules; the same ones come back")
    parser.add_argument("--no-return", action="store_true", help="rules do not come back")
    parser.add_argument("--undo", default="",
                        help="shell commands; only after these connections go on, and rules "
                             "come back")
    parser.add_argument("--software", action="store_true",
                        help="a table without `flags offload`: entries are what rules are else")
    parser.add_argument("event", nargs="+", help="shell commands, one after the other")
    return parser.parse_args(arguments)


class Flow(Connection):
    """A connection that carries numbered messages, and their echo."""

    def __init__(self, name, client, server, addr, port, source=0):
        super().__init__(name, client, server, (addr, port), source=source)
        self.name = name
        self.ports = {port, self.sock.getsockname()[1]}
        self.sent = 0
        self.received = 0
        self.partial = b""
        self.unechoed = b""
        self.last = time.monotonic()
        self.stall = 0.0
        self.last_number = -1

    def send(self):
        try:
            self.sock.send(struct.pack("!Q", self.sent).ljust(MESSAGE, b"."))
            self.sent += 1
        except OSError:
            # A full buffer, or a way that is gone at the moment: TCP and the next message help.
            pass

    def echo(self):
        try:
            if self.tcp:
                self.unechoed += self.peer.recv(65536)
                self.unechoed = self.unechoed[self.peer.send(self.unechoed):]
            else:
                data, addr = self.peer.recvfrom(2048)
                self.peer.sendto(data, addr)
        except OSError:
            pass

    def receive(self, now):
        try:
            data = self.sock.recv(65536)
        except OSError:
            return
        if self.tcp:
            self.partial += data
            count, rest = divmod(len(self.partial), MESSAGE)
            if not count:
                return
            data = self.partial[(count - 1) * MESSAGE:count * MESSAGE]
            self.partial = self.partial[len(self.partial) - rest:]
        else:
            count = 1
        self.received += count
        self.last_number = struct.unpack("!Q", data[:8])[0]
        self.stall = max(self.stall, now - self.last)
        self.last = now


def longest_stall(flows):
    """For how long one of them has stood still since this was last asked for, in ms."""
    now = time.monotonic()
    stall = max(max(flow.stall, now - flow.last) for flow in flows)
    for flow in flows:
        flow.stall = 0.0
        flow.last = now
    return stall * 1000


def carry_on(step, command):
    """Has the connections go on, step by step, until a program ends; whether it succeeds."""
    process = subprocess.Popen(command)
    while process.poll() is None:
        step()
    return process.returncode == 0


class Wire:
    """A cable's end, and the frames of our flows that come out of it."""

    def __init__(self, namespace, device):
        with Namespace(namespace):
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
            self.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVPRIORITY, 1)
            self.sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            self.sock.bind((device, 0))
        self.sock.setblocking(False)
        self.device = device

    def frames(self):
        """When each has come, what it is with its VLAN tag, and whether a rule has sent it."""
        while True:
            try:
                data, control, _, addr = self.sock.recvmsg(128, 128)
            except OSError:
                return
            if addr[2] == PACKET_OUTGOING:
                continue
            values = {(level, kind): value for level, kind, value in control}
            aux = values[SOL_PACKET, PACKET_AUXDATA]
            if struct.unpack_from("I", aux)[0] & TP_STATUS_VLAN_VALID:
                tci, = struct.unpack_from("H", aux, 16)
                data = data[:12] + struct.pack("!HH", 0x8100, tci) + data[12:]
            sec, nsec = struct.unpack("qq", values[socket.SOL_SOCKET, SO_TIMESTAMPNS])
            yield sec + nsec / 1e9, data, any(values[socket.SOL_SOCKET, socket.SO_PRIORITY])


def frame_ports(data):
    """The ports of an untagged TCP or UDP frame without options, or nothing."""
    if data[12:14] == b"\x08\x00" and data[23] in (6, 17):
        return set(struct.unpack("!HH", data[34:38]))
    if data[12:14] == b"\x86\xdd" and data[20] in (6, 17):
        return set(struct.unpack("!HH", data[54:58]))
    return set()


def mac(data):
    return data.hex(":")


class Probe:
    stalls = []

    def __init__(self, args):
        self.args = args
        self.in_nic = set()
        self.looked = 0.0
        client, server = Namespace(args.client), Namespace(args.server)
        self.router = Namespace(args.router)
        self.flows = [
            Flow(name, client, server, args.to[name.endswith("6")], args.port + number)
            for number, name in enumerate(args.flows.split(","))
        ]
        self.wires = [Wire(*wire.split(":")) for wire in args.wires.split(",")]
        each = 1 if args.software else 2
        self.expected = args.rules if args.rules is not None else each * len(self.flows)
        self.poll = select.poll()
        self.handlers = {}
        for flow in self.flows:
            self.handlers[flow.sock.fileno()] = flow.receive
            self.handlers[flow.peer.fileno()] = lambda now, flow=flow: flow.echo()
        for fd in self.handlers:
            self.poll.register(fd, select.POLLIN)
        self.next = time.monotonic()
        self.turn = 0

    def close(self):
        for flow in self.flows:
            flow.peer.close()
            flow.sock.close()
        for wire in self.wires:
            wire.sock.close()

    def step(self):
        """Sends what is due and waits for something to come."""
        now = time.monotonic()
        if self.next <= now:
            for flow in self.flows:
                flow.send()
            # What the machine had no time for is not made up for: it would have none for that.
            self.next = max(self.next + self.args.pace / 1000, now)
        for fd, _ in self.poll.poll(max(0.0, self.next - now) * 1000):
            self.handlers[fd](time.monotonic())

    def rules(self, word=""):
        """The rules in the NIC with that word, or the connections that have entries."""
        if not self.args.software:
            return cookies(word)
        with self.router, open("/proc/thread-self/net/nf_conntrack", encoding="ascii") as file:
            lines = [line for line in file if "[OFFLOAD]" in line and word in line]
        return {tuple(part for part in line.split() if "port=" in part) for line in lines}

    def look(self, now):
        """The rules in the NIC, read five times as often as messages are sent."""
        if now >= self.looked + self.args.pace / 5000:
            self.in_nic = self.rules()
            self.looked = now
        return self.in_nic

    def is_offloaded(self):
        return len(self.look(time.monotonic())) >= self.expected

    def steps(self, condition, limit):
        """Steps until the condition holds; whether it does."""
        return until(condition, limit / 1000, self.step)

    def receive(self, messages):
        """Lets the connections go on until each has received so many."""
        marks = [flow.received + messages for flow in self.flows]
        self.steps(lambda: all(f.received >= m for f, m in zip(self.flows, marks)), self.args.limit)

    def is_old(self, wire, data):
        """Whether a frame is on the old way."""
        proto = data[23] if data[12:14] == b"\x08\x00" else data[20]
        have = {"wire": wire.device, "dmac": mac(data[0:6]), "smac": mac(data[6:12]),
                "proto": "udp" if proto == socket.IPPROTO_UDP else "tcp",
                "saddr": ".".join(map(str, data[26:30]))}
        return any(have[key] == value for key, value in (old.split("=") for old in self.args.old))

    def from_now_on(self):
        """Has connections go on, and rules looked at, from when something has happened."""
        self.looked = 0.0
        for flow in self.flows:
            flow.mark = flow.sent
        return time.monotonic()

    def late(self, wall, slowness):
        """How many frames have taken the old way too late after that time; when the last has."""
        late, latest = 0, None
        for wire in self.wires:
            for stamp, data, _ in wire.frames():
                ports = frame_ports(data)
                if not any(flow.ports == ports for flow in self.flows):
                    continue
                if self.is_old(wire, data):
                    age = (stamp - wall) * 1000
                    if age > 0:
                        latest = max(latest or 0, age)
                    late += age > self.args.grace * slowness
        return late, latest

    def run(self):
        args = self.args
        self.receive(20)
        for _ in range(1 if self.stalls else 3):
            longest_stall(self.flows)
            carry_on(self.step, ["sh", "-c", args.control])
            self.stalls.append(longest_stall(self.flows))
        slowness = max(args.calm, self.stalls[-1], median(self.stalls)) / args.calm

        with self.router:
            loaded = carry_on(self.step, ["nft", "-f", args.ruleset])
        if not loaded:
            return {"error": "the ruleset cannot be loaded"}
        if not self.steps(self.is_offloaded, args.limit * 2):
            return {"error": f"only {len(self.rules())} of {self.expected} rules are in the NIC"}
        # The connections run in hardware for a while, so that what comes is not their start.
        self.receive(20)
        for wire in self.wires:
            for _ in wire.frames():
                pass
        longest_stall(self.flows)

        old = self.rules(args.rule)
        others = kept = self.rules() - old
        if not carry_on(self.step, ["sh", "-ec", "\n".join(args.event)]):
            return {"error": "the event has failed"}
        happened, wall = self.from_now_on(), time.time()

        gone = back = late = None
        while True:
            self.step()
            now = time.monotonic()
            passed = (now - happened) * 1000
            rules = self.look(now)
            kept = kept & rules
            if gone is None and (args.lossy or not rules & old):
                gone = passed
            is_over = passed > args.watch * slowness
            if args.undo and late is None:
                if passed > args.limit or (is_over and gone is not None):
                    late, latest = self.late(wall, slowness)
                    lost = len(others - kept)
                    if not carry_on(self.step, ["sh", "-ec", args.undo]):
                        return {"error": "the event cannot be undone"}
                    happened = self.from_now_on()
                continue
            if not args.lossy and not args.software:
                rules = rules - old
            if back is None and gone is not None and len(rules) >= self.expected:
                back = passed
            alive = all(flow.last_number >= flow.mark for flow in self.flows)
            if passed > args.limit:
                break
            if is_over and alive and (back is not None or args.no_return):
                break
        stall = longest_stall(self.flows)
        if late is None:
            late, latest = self.late(wall, slowness)
            lost = len(others - kept)
        return {
            "slowness": round(slowness, 1),
            "late": late,
            "last_old_ms": latest and round(latest, 1),
            "stall_ms": round(stall, 1),
            "lost_udp": sum(f.sent - f.received for f in self.flows if not f.tcp),
            "dead": [flow.name for flow in self.flows if flow.last_number < flow.mark],
            "gone_ms": gone and round(gone, 1),
            "back_ms": back and round(back, 1),
            "rules_left": len(self.rules() & old),
            "others_lost": lost,
        }


def events(fd):
    arguments, rest = [], b""
    while data := os.read(fd, 65536):
        *words, rest = (rest + data).split(b"\0")
        for word in words:
            if word:
                arguments.append(word.decode())
            else:
                yield arguments
                arguments = []


if __name__ == "__main__":
    for arguments in [sys.argv[1:]] if sys.argv[1:] else events(sys.stdin.fileno()):
        with contextlib.closing(Probe(parse(arguments))) as probe:
            print(json.dumps(probe.run()), flush=True)

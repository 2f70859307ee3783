#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""demo.py CLIENT ROUTER SERVER: the same transfers from namespace to namespace, with a software
flowtable in the router and with an offloaded one; a table of who forwarded what, by the emulated
NIC's own counters, and /share/demo.json.
"""

import dataclasses
import json
import os
import platform
import re
import select
import struct
import subprocess
import sys
import time
from pathlib import Path

from connection import DATAGRAM, Connection, Namespace
from nic import counters, rules
from wait import until

LEAST_SHARE = 0.95
LIMIT = 30  # seconds without progress, on the slowest machine

RULESET = """\
table inet fw {
    flowtable ft {
        hook ingress priority filter
        devices = { nic0, nic1 }
        flags offload
        counter
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established meta l4proto { tcp, udp } flow add @ft
        ct state established,related accept
        iifname "nic0" accept
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        meta nfproto ipv4 oifname "nic1" masquerade
    }
}
"""
OFFLOAD = "        flags offload\n"

TOPOLOGY = """\
    client                      router                       server
    192.168.1.2  wire0 == nic0  masquerade  nic1 == wire1  10.0.2.2
    fd00:1::2                   routed                    fd00:2::2
"""

MIB = 1 << 20
OFFSET = struct.Struct("!I")  # of a datagram's bytes
TO = {"4": "10.0.2.2", "6": "fd00:2::2"}
# As which the server sees the client.
SEEN = {"4": "10.0.2.1", "6": "fd00:1::2"}


class DemoError(Exception):
    """One line about what did not work."""


def in_router(*command, stdin=None):
    with router:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=LIMIT,
                              check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise DemoError(f"{' '.join(command)}: {reason[0]}")
    return done.stdout


def conntrack(*arguments):
    return in_router("conntrack", *arguments).splitlines()


@dataclasses.dataclass
class Counters:
    """Who forwarded how much: what the NIC counts on all of its ports."""

    nic_packets: int
    nic_bytes: int
    cpu_packets: int
    cpu_bytes: int

    @classmethod
    def read(cls):
        now = counters()
        return cls(*(now[field.name] for field in dataclasses.fields(cls)))

    def __sub__(self, other):
        mine, others = dataclasses.astuple(self), dataclasses.astuple(other)
        return Counters(*(a - b for a, b in zip(mine, others, strict=True)))

    @property
    def share(self):
        return self.nic_bytes / max(self.nic_bytes + self.cpu_bytes, 1)


# --- the transfers


@dataclasses.dataclass(frozen=True)
class Transfer:
    kind: str  # as in "tcp4"
    download: bool
    size: int
    port: int

    def __str__(self):
        way = "download" if self.download else "upload"
        return f"{self.kind[:3].upper()} IPv{self.kind[3]} {way}"

    def connect(self):
        """A connection whose server has heard of its client, and the other way round."""
        try:
            connection = Connection(self.kind, client, server, (TO[self.kind[3]], self.port))
            if not connection.tcp:
                connection.peer.settimeout(LIMIT)
                connection.sock.send(b"hello")
                connection.peer.connect(connection.peer.recvfrom(DATAGRAM)[1])
                connection.sock.settimeout(LIMIT)
                connection.peer.send(b"hello")
                connection.sock.recv(DATAGRAM)
            for sock in connection.sock, connection.peer:
                sock.setblocking(False)
            seen = connection.peer.getpeername()[0]
        except OSError as error:
            raise DemoError(f"{self}: cannot connect: {error}") from error
        if seen != SEEN[self.kind[3]]:
            raise DemoError(
                f"{self}: the server sees the client as {seen}, not as {SEEN[self.kind[3]]}")
        return connection

    def carry(self, connection, size):
        """Sends random bytes through the connection, and compares what arrives."""
        ends = connection.sock, connection.peer
        receiver, sender = ends if self.download else ends[::-1]
        data, received, sent = os.urandom(size), bytearray(), 0
        arrived = time.monotonic()
        while len(received) < size:
            count = connection.room(min(size - sent, 1 << 16), sent - len(received))
            ready, free, _ = select.select([receiver], [sender] if count else [], [], 0.5)
            if free:
                header = b"" if connection.tcp else OFFSET.pack(sent)
                sent += sender.send(header + data[sent:sent + count]) - len(header)
            if ready:
                got = receiver.recv(1 << 16)
                if connection.tcp and not got:
                    raise DemoError(f"{self}: it ended {size - len(received)} bytes too early")
                # A datagram that is not the next one is sent again.
                if connection.tcp or OFFSET.unpack_from(got)[0] == len(received):
                    received += got if connection.tcp else got[OFFSET.size:]
                    arrived = time.monotonic()
            elif not free and not connection.tcp:
                sent = len(received)  # What is lost is sent again.
            if time.monotonic() > arrived + LIMIT:
                raise DemoError(f"{self}: nothing after {len(received)} bytes for {LIMIT} s")
        if received != data:
            raise DemoError(f"{self}: what was received is not what was sent")


TRANSFERS = [
    Transfer("tcp4", True, 16 * MIB, 5001),
    Transfer("udp4", False, 8 * MIB, 5002),
    Transfer("tcp6", False, 16 * MIB, 5003),
    Transfer("udp6", True, 8 * MIB, 5004),
]
PAYLOAD = sum(transfer.size for transfer in TRANSFERS)


def dport(line):
    """The port of conntrack's line that tells the transfer."""
    return int(re.findall(r"dport=(\d+)|$", line)[0] or 0)


def counted(line):
    """The bytes of the busier direction, in conntrack's line."""
    return max(map(int, re.findall(r" bytes=(\d+)", line)), default=0)


class Run:
    """All transfers, one after the other, over connections that stay open.

    Each is looked at as soon as it is over: an idle connection leaves the NIC after half a
    minute, and on a busy machine the others may take as long.
    """

    def __init__(self, name):
        self.name = name
        self.seconds = 0.0
        self.shares = {}  # by transfer
        self.open = []
        self.lines = {}  # of conntrack, by port
        self.rules = {}  # by port
        conntrack("-F")
        before = Counters.read()
        for transfer in TRANSFERS:
            self.transfer(transfer)
        self.counters = Counters.read() - before

    def transfer(self, transfer):
        before, start = Counters.read(), time.monotonic()
        connection = transfer.connect()
        self.open.append(connection)
        transfer.carry(connection, transfer.size)
        seconds = time.monotonic() - start
        self.seconds += seconds
        self.shares[transfer] = share = (Counters.read() - before).share
        print(
            f"  {self.name:9} {transfer!s:18} {transfer.size // MIB:4} MiB {seconds:7.2f} s "
            f"{transfer.size * 8 / seconds / 1e6:7.1f} Mbit/s  verified {share:11.1%}"
        )
        port = str(transfer.port)
        self.rules[transfer.port] = [r for r in rules() if port in (r["sport"], r["dport"])]
        self.heard(line for line in conntrack("-L") if dport(line) == transfer.port)

    def heard(self, lines):
        self.lines |= {dport(line): line for line in lines}

    def follow_counters(self):
        """Until conntrack has heard from the NIC about all bytes of what is offloaded."""
        sizes = {transfer.port: transfer.size for transfer in TRANSFERS}

        def late():
            lines = [line for line in conntrack("-L") if "[HW_OFFLOAD]" in line]
            self.heard(lines)
            return [line for line in lines if counted(line) < sizes.get(dport(line), 0)]

        if not until(lambda: not late(), LIMIT):
            raise DemoError(f"conntrack does not count what the NIC forwards: {late()[0]}")

    def close(self):
        # Without a goodbye: the ruleset that would carry it is gone.
        for connection in self.open:
            connection.close(abort=True, patience=0)

    def figures(self):
        return dataclasses.asdict(self.counters) | {"seconds": round(self.seconds, 3)}


# --- what the user sees


def print_connections(lines):
    """As conntrack prints them, folded: there, back, state."""
    for line in filter(None, lines):
        there, back = line.rsplit(" src=", 1)
        back, *state = back.partition(" [")
        print(
            f"    {' '.join(there.split())}\n        src={back}\n       {''.join(state)}"
        )


def print_rules(table):
    for rule in table:
        bracket = "[{}]:{}" if ":" in rule["src"] else "{}:{}"
        source = bracket.format(rule["src"], rule["sport"])
        destination = bracket.format(rule["dst"], rule["dport"])
        print(f"    from {rule['in']}: {rule['proto']} {source} -> {destination}")
        actions = [action.partition(":") for action in rule["actions"].split(",")]
        words = [f"{name}={value}" for name, _, value in actions if value]
        print(f"        {' '.join(words)}")
        print(
            f"        out of {rule['out']}; so far {int(rule['packets']):,} packets, "
            f"{int(rule['bytes']):,} bytes"
        )


def print_table(runs):
    print(f"{'':21}{'forwarded by the CPU':>24}{'forwarded by the NIC':>27}")
    print(
        f"  {'run':9}{'seconds':>10}{'packets':>10}{'bytes':>14}"
        f"{'packets':>13}{'bytes':>14}{'in the NIC':>13}"
    )
    for one in runs:
        c = one.counters
        print(
            f"  {one.name:9}{one.seconds:10.2f}{c.cpu_packets:10,}{c.cpu_bytes:14,}"
            f"{c.nic_packets:13,}{c.nic_bytes:14,}{c.share:13.1%}"
        )


def judge(software, offload, connections, left):
    """Raises DemoError for the first thing that did not work."""
    for one in software, offload:
        carried = one.counters.nic_bytes + one.counters.cpu_bytes
        if not PAYLOAD < carried < PAYLOAD * 1.25:
            raise DemoError(
                f"{one.name}: the NIC's counters say {carried} bytes for a payload of {PAYLOAD}"
            )
    if software.counters.nic_packets:
        raise DemoError(
            "the NIC forwarded packets although the flowtable is not offloaded"
        )
    for transfer, share in offload.shares.items():
        if share < LEAST_SHARE:
            raise DemoError(
                f"{transfer}: only {share:.1%} of its bytes passed in the NIC, "
                f"{LEAST_SHARE:.0%} expected"
            )
    marked = sum("[HW_OFFLOAD]" in line for line in connections)
    if marked != len(TRANSFERS):
        raise DemoError(
            f"{marked} of {len(TRANSFERS)} connections are marked [HW_OFFLOAD] in conntrack"
        )
    if left:
        raise DemoError(f"{left} rules are left in the NIC after nft flush ruleset")


def demo():
    shipped = ", as Debian ships it" if os.environ["MACHINE"] == "stock" else ""
    print(f"""
Kernel {platform.release()}{shipped}, on {platform.machine()}: modprobe of nf_flow_table
and nft's own modules, insmod of nft_offload.ko and the emulated NIC. Namespaces on its wires:

{TOPOLOGY}
The router's ruleset:

{RULESET}
The same transfers through it, first without the line "flags offload", then with it.

  run       transfer               size      time          rate  content   in the NIC\
""")
    in_router("nft", "-f", "-", stdin=RULESET.replace(OFFLOAD, ""))
    # Emulators are slow where they meet code for the first time: not in the first run.
    for transfer in TRANSFERS:
        connection = transfer.connect()
        transfer.carry(connection, MIB // 2)
        connection.close()
    software = Run("software")
    in_router("nft", "flush", "ruleset")
    software.close()

    in_router("nft", "-f", "-", stdin=RULESET)
    offload = Run("offload")
    offload.follow_counters()
    connections = [offload.lines.get(transfer.port, "") for transfer in TRANSFERS]
    held = len(rules())
    in_router("nft", "flush", "ruleset")
    left = len(rules())
    offload.close()
    figures = {one.name: one.figures() for one in (offload, software)}
    Path("/share/demo.json").write_text(json.dumps(figures, indent=2) + "\n")

    print("\nThe router's connections in the offloaded run, conntrack -L:\n")
    print_connections(connections)
    print("\nThe NIC holds two rules per connection. Those of the first:\n")
    print_rules(sorted(offload.rules[TRANSFERS[0].port], key=lambda rule: rule["in"]))
    print(
        f"\nRules in the NIC before nft flush ruleset: {held}; after it, with all "
        f"connections open: {left}.\n"
    )
    print_table([software, offload])
    print(
        f"\n  Payload of each run: {PAYLOAD:,} bytes. The counters are the NIC's own and\n"
        "  count frames of both directions with all their headers. Client, router, server\n"
        "  and NIC share the CPUs of this machine: a real NIC has other seconds.\n"
    )
    judge(software, offload, connections, left)


if __name__ == "__main__":
    client, router, server = map(Namespace, sys.argv[1:])
    sys.stdout.reconfigure(line_buffering=True)
    try:
        demo()
    except (DemoError, OSError, subprocess.TimeoutExpired) as error:
        sys.exit(f"error: {error}")

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""full_table.py storm|sick CLIENT SERVER [OPTION=NUMBER]: flows that a NIC does not take.

storm   long UDP flows, and a storm of short ones that fill the NIC's table. Prints JSON: for how
        many percent of the storm the long ones were in the NIC; how many ms after it they are, for
        good; how many rules the NIC has refused
sick    the long flows only, for `seconds` with a NIC that fails everything; then it does not
"""

import collections
import json
import select
import socket
import sys
import time

import nic
from connection import Namespace

SERVER = "10.0.2.2"
STORM, LONG = 6000, 7001


class Flows:
    """UDP flows from a client to an echo server, in one loop."""

    def __init__(self, client, server, flows):
        self.client, self.server = Namespace(client), Namespace(server)
        self.poll = select.poll()
        self.echoes, self.long, self.short = {}, [], {}
        # Open until their last answer has come.
        self.last = collections.deque(maxlen=1000)
        ports = range(LONG, LONG + flows)
        for port in (STORM, *ports):
            with self.server:
                echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                echo.bind((SERVER, port))
            echo.setblocking(False)
            self.poll.register(echo, select.POLLIN)
            self.echoes[echo.fileno()] = echo
        self.ports = ports
        self.beat = 0

    def open(self, port):
        with self.client:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((SERVER, port))
        sock.setblocking(False)
        sock.send(b"x" * 64)
        return sock

    def begin(self):
        self.long = [self.open(port) for port in self.ports]

    def add_short(self):
        """One that is asked, answered, asked again, and never heard of any more."""
        sock = self.open(STORM)
        self.poll.register(sock, select.POLLIN)
        self.short[sock.fileno()] = [sock, time.monotonic() + 1]

    def turn(self, now):
        """Each long flow has a message in 50 ms; others get their answers."""
        if now >= self.beat:
            self.beat = now + 0.05
            for sock in self.long:
                sock.send(b"x" * 64)
            for fd in [fd for fd, (_, end) in self.short.items() if end < now]:
                self.poll.unregister(fd)
                self.short.pop(fd)[0].close()
        for fd, _ in self.poll.poll(5):
            try:
                if fd in self.echoes:
                    for _ in range(100):
                        self.echoes[fd].sendto(*self.echoes[fd].recvfrom(2000))
                else:
                    self.poll.unregister(fd)
                    sock, _ = self.short.pop(fd)
                    sock.recv(2000)
                    sock.send(b"x" * 64)
                    self.last.append(sock)
            except OSError:
                pass
        for sock in self.long:
            try:
                while sock.recv(2000):
                    pass
            except OSError:
                pass

    def in_nic(self):
        """How many of the long flows have both rules."""
        ports = [rule.get(end) for rule in nic.rules() for end in ("sport", "dport")]
        return sum(ports.count(str(port)) >= 2 for port in self.ports)


def storm(flows, seconds=25, rate=60, limit=60, grace=3):
    start = time.monotonic()
    end, due, begin, look = start + seconds, start, start + grace, 0
    looks = found = 0
    refused = nic.counters()["replace_enospc"]
    while (now := time.monotonic()) < end:
        if not flows.long and now >= begin:
            flows.begin()
        if now >= due:
            flows.add_short()
            due = max(due + 1 / rate, now - 0.05)
        flows.turn(now)
        if flows.long and now >= look:
            look = now + 0.1
            looks += len(flows.long)
            found += flows.in_nic()
    refused = nic.counters()["replace_enospc"] - refused
    since = None
    while (now := time.monotonic()) < end + limit and (since is None or now < since + 3):
        flows.turn(now)
        if flows.in_nic() < len(flows.long):
            since = None
        elif since is None:
            since = now
    return {"percent": round(100 * found / looks), "refused": refused,
            "after_ms": round(1000 * ((since or now) - end)), "in_nic": flows.in_nic()}


def sick(flows, seconds=8, **_):
    before = nic.counters()["replace_failed"]
    end = time.monotonic() + seconds
    flows.begin()
    while (now := time.monotonic()) < end:
        flows.turn(now)
    refused = nic.counters()["replace_failed"] - before
    nic.knob("faults", "none")
    while (now := time.monotonic()) < end + 60 and flows.in_nic() < len(flows.long):
        flows.turn(now)
    return {"refused": refused, "after_ms": round(1000 * (now - end)), "in_nic": flows.in_nic()}


def main(what, client, server, *options):
    options = {name: float(value) for name, value in (option.split("=") for option in options)}
    flows = Flows(client, server, int(options.pop("flows", 5)))
    print(json.dumps({"storm": storm, "sick": sick}[what](flows, **options)))


main(*sys.argv[1:])

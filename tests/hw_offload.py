#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""hw_offload.py CLIENT ROUTER SERVER CALL_MS RULESET: [HW_OFFLOAD] is there while the rules are.

The NIC takes CALL_MS for each call. Connections get into the NIC and out of it in several ways, and
meanwhile conntrack is read, and the NIC's rules before and after it. Nobody can set the bit and
install a rule at the same moment, so the bit may be wrong for half a call, but it must never be
there before a rule is.

Prints "ok TEXT" or "not ok TEXT" for each way.
"""

import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "truth"))
from connection import Namespace  # noqa: E402
from nic import cookies  # noqa: E402
from probe import Flow  # noqa: E402
from wait import until  # noqa: E402

client, router, server = (Namespace(name) for name in sys.argv[1:4])
call, ruleset = float(sys.argv[4]) / 1000, sys.argv[5]
with router:
    conntrack = os.open("/proc/thread-self/net/nf_conntrack", os.O_RDONLY)


def addr_of(name):
    return "fd00:2::2" if name.endswith("6") else "10.0.2.2"


class Watched:
    """A connection, its rules in the NIC, and its line in conntrack."""

    def __init__(self, name, port):
        self.name, self.port = name, port
        self.flow = Flow(name, client, server, addr_of(name), port)
        self.old = set()
        self.begin()

    def rules(self):
        return cookies(f"port={self.port} ")

    def bit(self):
        """Whether it says [HW_OFFLOAD]; None if conntrack does not know it."""
        os.lseek(conntrack, 0, os.SEEK_SET)
        text = b""
        while data := os.read(conntrack, 65536):
            text += data
        for line in text.decode().splitlines():
            if f"port={self.port} " in line:
                return "[HW_OFFLOAD]" in line
        return None

    def look(self):
        """Compares the two once. The rules, if they were the same before and after."""
        before, bit, after = self.rules(), self.bit(), self.rules()
        now, wrong = time.monotonic(), None
        self.looks += 1
        if before == after and bit is not None:
            if bit and not before:
                wrong = "without"
            elif not bit and len(before) == 2:
                wrong = "with"
        if bit and not before and not after and not self.old:
            self.early += 1
        self.old |= after
        if wrong != self.wrong:
            self.wrong, self.since = wrong, now
        elif wrong:
            self.longest[wrong] = max(self.longest[wrong], now - self.since)
        return before if before == after else None

    def until(self, condition, seconds=60, send=True):
        """Looks until the condition holds of the rules, and for three calls more."""
        due, rules = 0, None

        def step():
            nonlocal due, rules
            now = time.monotonic()
            if now >= due and send:
                self.flow.send()
                due = now + 0.02
            self.flow.echo()
            self.flow.receive(now)
            rules = self.look()
            time.sleep(0.001)  # lets the others get on with it

        holds = until(lambda: rules is not None and condition(rules), seconds + 10 * call, step)
        until(lambda: False, 3 * call, step)
        return holds

    def begin(self):
        """From here on, what is wrong is counted anew."""
        self.early = self.looks = 0
        self.since = self.wrong = None
        self.longest = {"without": 0.0, "with": 0.0}

    def say(self, happens, what):
        grace = call / 2
        without, missing = (1000 * self.longest[key] for key in ("without", "with"))
        right = happens and not self.early and max(self.longest.values()) < grace
        print(f"{'ok' if right else 'not ok'} {self.name}, {what}: "
              "[HW_OFFLOAD] is there exactly while the rules are in the NIC")
        print(f"# {without:.0f} ms without rules, {missing:.0f} ms missing where there were two; "
              f"it may be {1000 * grace:.0f} ms. Looked {self.looks} times, saw it {self.early} "
              f"times before the first rule.{'' if happens else ' It did not happen in time.'}",
              flush=True)


def run(namespace, *command):
    with namespace:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait(watched, process):
    while process.poll() is None:
        watched.look()


for number, name in enumerate(("udp4", "tcp6")):
    watched = Watched(name, 7300 + number)
    watched.say(watched.until(lambda rules: len(rules) == 2), "offered")

    watched.begin()
    old = watched.rules()
    to, new = addr_of(name), f"02:00:00:00:73:0{number}"
    wait(watched, run(router, "ip", "neigh", "replace", to, "lladdr", new, "dev", "nic1",
                      "nud", "permanent"))
    gone = watched.until(lambda rules: not rules & old, send=False)
    watched.say(gone, "the neighbour has another MAC")
    wait(watched, run(router, "ip", "neigh", "del", to, "dev", "nic1"))

    watched.begin()
    if not watched.until(lambda rules: len(rules) == 2):
        print(f"not ok {name} gets back into the NIC")
    watched.say(True, "offered again")

    watched.begin()
    if watched.flow.tcp:
        watched.flow.close(patience=5)
        watched.say(watched.until(lambda rules: not rules, send=False), "it ends with FIN")
    else:
        wait(watched, run(router, "nft", "flush", "ruleset"))
        watched.say(watched.until(lambda rules: not rules, send=False), "nft flush ruleset")
        wait(watched, run(router, "nft", "-f", ruleset))

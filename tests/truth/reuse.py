#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""reuse.py CLIENT ROUTER SERVER LIMIT_MS: a connection ends, and its ports are used again at once.

Once with FIN and once with RST, over IPv4 and IPv6. Prints a line for each and fails if conntrack
does not see the FIN, if the new connection does not work or does not get into the NIC, or if the
old rules are there for longer than the limit.

Before that, half of a connection ends; the other half has to go on, after a silence too that is
longer than conntrack remembers closed connections here. After it, conntrack forgets connections,
and the rules of the flows that follow must not meet the old ones.
"""

import os
import socket
import subprocess
import sys
import time

from connection import Namespace
from nic import cookies, counters
from probe import Flow
from wait import until

client, router, server = (Namespace(name) for name in sys.argv[1:4])
limit = float(sys.argv[4]) / 1000
failed = False


def run(flow, seconds, condition):
    """Has the flow carry messages until the condition holds; whether it does in time."""
    def step():
        flow.send()
        flow.echo()
        flow.receive(time.monotonic())
        time.sleep(0.005)  # the pace of the messages

    return until(condition, seconds, step)


def addr_of(name):
    return "fd00:9::9" if name.endswith("6") else "10.9.9.9"


def rules_met():
    """How often the NIC was given a rule for the packets of another one."""
    return counters()["replace_dup_match"]


def of(port):
    """The rules for connections to that port."""
    return cookies(f"port={port} ")


def in_nic(name, port, source=0):
    """A connection that is in the NIC, and its rules; the first one to that port."""
    flow = Flow(name, client, server, addr_of(name), port, source)
    if not run(flow, 60, lambda: len(of(port)) == 2):
        print(f"a {name} connection does not get into the NIC: {of(port)}")
        sys.exit(1)
    return flow, of(port)


class Events:
    """What conntrack tells of TCP connections."""

    def __init__(self):
        with router:
            # The kernel's part is loaded at once by this, and only some time after a listener.
            subprocess.run(["conntrack", "-C"], check=True, stdout=subprocess.DEVNULL)
            self.process = subprocess.Popen(["conntrack", "-E", "-p", "tcp"],
                                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.text = ""
        if not until(self.listens, 60):
            sys.exit("conntrack -E does not listen")

    def listens(self):
        """Whether its socket has joined a group of NETLINK_NETFILTER, which is 12."""
        with open(f"/proc/{self.process.pid}/net/netlink", encoding="ascii") as file:
            rows = [line.split() for line in file][1:]
        return any(row[1] == "12" and int(row[3], 16) for row in rows)

    def tell(self, source, states):
        """Whether the connection from this port was said to be in one of the states."""
        self.text += (self.process.stdout.read() or b"").decode()
        return any(f"sport={source} " in line and any(f" {state} " in line for state in states)
                   for line in self.text.splitlines())


events = Events()

for number, name in enumerate(("tcp4", "tcp6")):
    source = 40200 + number
    flow, old = in_nic(name, 9200 + number, source)
    flow.sock.shutdown(socket.SHUT_WR)
    seen = until(lambda: events.tell(source, ("FIN_WAIT", "CLOSE_WAIT")), 10 * limit)
    gone = until(lambda: not cookies() & old, 10 * limit)
    time.sleep(3)  # the silence
    flow.peer.setblocking(True)
    flow.peer.sendall(b"more")
    flow.sock.settimeout(10)
    heard = b""
    try:
        while not heard.endswith(b"more"):
            heard += flow.sock.recv(65536)
    except OSError:
        pass
    lives = heard.endswith(b"more")
    flow.close()
    failed = failed or not (seen and gone and lives)
    if not seen:
        print(events.text)
    print(f"half of {name}: conntrack {'sees' if seen else 'does not see'} the FIN; the other half "
          f"{'goes on' if lives else 'is cut off'}")

for number, (how, name) in enumerate((h, n) for h in ("FIN", "RST") for n in ("tcp4", "tcp6")):
    port, source = 9100 + number, 40100 + number
    flow, old = in_nic(name, port, source)

    flow.close(abort=how == "RST")
    ended = time.monotonic()
    flow = Flow(name, client, server, addr_of(name), port, source)
    works = run(flow, 10, lambda: flow.received >= 20)
    run(flow, 10 * limit, lambda: not cookies() & old)
    gone = time.monotonic() - ended
    back = run(flow, 60, lambda: len(of(port) - old) == 2)
    flow.close(abort=how == "RST")

    # A RST it doubts (resets.py).
    seen = how == "RST" or until(lambda: events.tell(source, ("FIN_WAIT", "CLOSE_WAIT")), 10)
    failed = failed or not (works and gone < limit and back and seen)
    word = "doubts" if how == "RST" else "sees" if seen else "does not see"
    print(f"{how}, {name}: conntrack {word} it; the rules are gone "
          f"after {1000 * gone:.0f} ms; the next connection "
          f"{'works' if works else 'does not work'} and {'is' if back else 'is not'} in the NIC")

# Conntrack forgets a connection, of which fragments, which NICs hand to the host, go on: it makes a
# new one, and nftables a new flow, before the garbage collector has come to the old flow.
for number, name in enumerate(("udp4", "udp6")):
    soon, met = 0, rules_met()
    for turn in range(5):
        port = 9300 + 10 * number + turn
        flow, old = in_nic(name, port)
        with router:
            subprocess.run(["conntrack", "-F"], check=True, stderr=subprocess.DEVNULL)
        end = time.monotonic() + limit
        new = set()
        while not new and time.monotonic() < end:
            try:
                flow.sock.send(bytes(2000))
            except OSError:
                pass
            flow.echo()
            flow.receive(time.monotonic())
            new = of(port) - old
        soon += bool(new)
        flow.close()
    met = rules_met() - met
    failed = failed or not soon or met > 0
    print(f"{name}, forgotten: {soon} of 5 times there was a new flow soon, and {met} of its rules "
          "met one of the old flow in the NIC")

events.process.kill()
sys.exit(failed)

#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""stress.py: all that can happen, at random, under connections that have to survive it.

While the connections run, things change: neighbours, routes, rules, ports, rulesets, conntrack,
the NIC's rules, capacity, latency and errors; memory is short now and then. All the time no
frame may go to an address that the server has had before and the router knows to be old. In the
end everything is made good again, and the connections must go on and get back into hardware.

For how long is measured against what else happens to these connections where there is no flowtable,
before and after: if they stand still for longer than --calm then, the machine is slow.
"""

import argparse
import collections
import errno
import math
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from connection import Namespace
from nic import NIC, cookies
from probe import Flow, Wire, carry_on, frame_ports, longest_stall, mac
from wait import until

FAILSLAB = "/sys/kernel/debug/failslab"
FAIL_FUNCTION = "/sys/kernel/debug/fail_function"
# For how many seconds there may be frames to an old address; the latter where a flow has to wait
# for garbage collection, which comes once a second.
GRACE, GARBAGE_COLLECTION = 0.05, 2


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("client", "server", "router"):
        parser.add_argument(f"--{name}", required=True, help="namespace")
    parser.add_argument("--ruleset", required=True, help="file for nft -f")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--slowness", type=float, default=1)
    parser.add_argument("--control", required=True, help="shell commands that concern nobody")
    parser.add_argument("--calm", type=float, default=40, help="ms for the longest stall of these")
    parser.add_argument("--faults", action="store_true", help="with failslab and fail_function")
    return parser.parse_args()


def write(path, text):
    """Again and again where memory is short, for which nothing but chance is to blame."""
    while True:
        try:
            Path(path).write_text(text, encoding="ascii")
            return
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise


class Stress:
    def __init__(self, args):
        self.args = args
        self.random = random.Random(args.seed)
        self.client, self.server = Namespace(args.client), Namespace(args.server)
        self.next_port = 20000
        self.flows = [self.open(name) for name in ("tcp4", "tcp6", "udp4", "udp6") * 2]
        self.wires = [Wire(args.server, name) for name in ("wire1", "wire2")]
        # The addresses that the server has had on the first cable: when each became old.
        self.old_macs = {}
        self.done = collections.Counter()
        self.current = []
        # By who sent them and what happened: frames, each by how many times the grace.
        self.late = {}
        self.slow = 1.0
        # Until when a flow may be that nobody could tell the module of.
        self.short_until = 0
        self.pace = 0.005 * args.slowness
        self.due = time.monotonic()
        self.moves = 0
        self.ruleset = Path(args.ruleset).read_text(encoding="ascii")
        self.events = [
            value for name, value in vars(Stress).items() if name.startswith("do_")
            and (args.faults or not name.startswith("do_fault"))
            and (name != "do_fault_nic_fails_anywhere" or Path(FAIL_FUNCTION).exists())
        ]

    def open(self, name):
        self.next_port += 1
        addr = "fd00:9::9" if name.endswith("6") else "10.9.9.9"
        return Flow(name, self.client, self.server, addr, self.next_port)

    def run_command(self, command):
        """Runs a command in the shell while the connections go on; what it prints. It may fail."""
        process = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL)
        while process.poll() is None:
            self.step()
        return process.stdout.read().decode()

    def router(self, *commands):
        return [self.run_command(f"ip netns exec {self.args.router} {c}") for c in commands]

    def on_server(self, *commands):
        return [self.run_command(f"ip netns exec {self.args.server} {c}") for c in commands]

    def nft(self, commands):
        """Lets nft carry out commands in the router, which may fail."""
        process = subprocess.Popen(["ip", "netns", "exec", self.args.router, "nft", "-f", "-"],
                                   stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            process.stdin.write(commands)
            process.stdin.close()
        except BrokenPipeError:
            pass
        while process.poll() is None:
            self.step()

    def step(self):
        now = time.monotonic()
        if self.due <= now:
            for flow in self.flows:
                flow.send()
            self.due = now + self.pace
        for flow in self.flows:
            flow.echo()
            flow.receive(now)
        self.look()
        # Lets the machine get on with it; nothing depends on for how long.
        time.sleep(max(0.0, min(0.001, self.due - time.monotonic())))

    def look(self):
        """Are there frames to addresses that are old for longer than the grace?

        Where memory is short, nf_flow_table may not be able to tell the module of a flow. Such a
        flow is never in the NIC, and leaves the host's flowtable with the next garbage collection.
        """
        for wire in self.wires:
            for stamp, data, by_nic in wire.frames():
                since = self.old_macs.get(mac(data[0:6]))
                if not since or not frame_ports(data):
                    continue
                short = not by_nic and stamp < self.short_until
                grace = (GARBAGE_COLLECTION if short else GRACE) * self.args.slowness
                if stamp > since + grace:
                    where = f"{'the NIC' if by_nic else 'the host'} in: {', '.join(self.current)}"
                    self.late.setdefault(where, []).append((stamp - since) / grace)

    def measure(self):
        """Without a flowtable, how slow is the machine? How many rules are left when that goes."""
        self.nft("flush ruleset")
        left, stalls = len(cookies()), []
        for _ in range(5):
            longest_stall(self.flows)
            carry_on(self.step, ["sh", "-c", self.args.control])
            stalls.append(longest_stall(self.flows))
        self.slow = max(self.slow, median(stalls) / self.args.calm)
        return left

    def happen(self, events):
        event = self.random.choice(events)
        name = event.__name__[3:].replace("_", " ")
        self.current.append(name)
        event(self)
        self.done[name] += 1
        self.a_while()
        self.current.pop()

    # What can happen. What stays broken is made good by heal().

    def do_neighbour_moves(self):
        old = self.on_server("cat /sys/class/net/wire1/address")[0].strip()
        if not old:
            sys.exit("the machine starts no programs any more")
        new = f"02:00:00:{self.random.randrange(1 << 24).to_bytes(3, 'big').hex(':')}"
        self.on_server(f"ip link set wire1 address {new}")
        self.moves += 1
        # If it was told while it could not hear, it does not know; where memory is short, the
        # server may not even have moved. (What it knows of the link-local address plays no part.)
        known = self.router("ip neigh show 10.0.2.2 dev nic1", "ip neigh show fd00:2::2 dev nic1")
        if all(new in text for text in known):
            self.old_macs[old] = time.time()

    def do_neighbours_are_deleted(self):
        self.router("ip neigh flush dev nic1", "ip -6 neigh flush dev nic1")

    def do_route_changes(self):
        way = self.random.choice((2, 3))
        self.on_server(f"ip route replace default via 10.0.{way}.1",
                       f"ip -6 route replace default via fd00:{way}::1")
        self.router(f"ip route replace 10.9.9.9 via 10.0.{way}.2",
                    f"ip -6 route replace fd00:9::9 via fd00:{way}::2")

    def do_legs_come_and_go(self):
        """Of a route with two of them, and of a group of next hops."""
        self.router("ip -6 route replace fd00:9::9 nexthop via fd00:2::2 nexthop via fd00:3::2",
                    "ip nexthop replace id 2 via 10.0.2.2 dev nic1",
                    "ip nexthop replace id 3 via 10.0.3.2 dev nic2",
                    "ip nexthop replace id 23 group 2/3",
                    "ip route replace 10.9.9.9 nhid 23")
        for _ in range(4):
            leg = self.random.choice((2, 3))
            self.router(f"ip -6 route del fd00:9::9 via fd00:{leg}::2",
                        f"ip nexthop replace id 23 group {5 - leg}",
                        f"ip -6 route append fd00:9::9 via fd00:{leg}::2",
                        "ip nexthop replace id 23 group 2/3")
        self.router("ip route replace 10.9.9.9 via 10.0.2.2",
                    "ip -6 route replace fd00:9::9 via fd00:2::2",
                    "ip nexthop flush")

    def do_rule_comes_and_goes(self):
        self.router("ip route replace 10.9.9.9 via 10.0.3.2 table 100",
                    "ip rule add to 10.9.9.9 lookup 100 priority 100")
        self.a_while()
        self.router("ip rule del priority 100")

    def do_mtu_changes(self):
        self.router(f"ip link set nic1 mtu {self.random.choice((1300, 1400, 1500))}")

    def do_egress_address_changes(self):
        self.router(f"ip link set nic1 address 02:00:01:00:00:{self.random.randrange(100):02d}")

    def do_port_goes_down(self):
        self.router("ip link set nic1 down")
        self.a_while()
        self.heal_links()

    def do_cable_is_pulled(self):
        self.on_server("ip link set wire1 down")
        self.a_while()
        self.heal_links()

    def do_ruleset_is_flushed(self):
        self.nft("flush ruleset")
        self.a_while()
        self.nft(self.ruleset)

    def do_ruleset_is_replaced(self):
        self.nft("flush ruleset\n" + self.ruleset)

    def do_device_leaves(self):
        self.nft("delete flowtable inet fw ft { devices = { nic1 }; }")
        self.a_while()
        self.nft("add flowtable inet fw ft { devices = { nic1 }; }")

    def do_conntrack_is_flushed(self):
        self.router("conntrack -F")

    def do_nic_resets(self):
        write(f"{NIC}/reset", "1")

    def do_nic_loses_rules(self):
        write(f"{NIC}/evict", str(self.random.randrange(1, 5)))

    def do_nic_is_full(self):
        write(f"{NIC}/capacity", str(self.random.randrange(1, 8)))
        self.a_while()
        write(f"{NIC}/capacity", "0")

    def do_nic_is_slow(self):
        write(f"{NIC}/latency_us", str(self.random.randrange(5000)))
        self.a_while()
        write(f"{NIC}/latency_us", "0")

    def do_nic_refuses(self):
        write(f"{NIC}/faults", "replace -28 40%\nstats -5 10%\ndestroy -5 20%\n")
        self.a_while()
        write(f"{NIC}/faults", "none")

    def do_connections_come_and_go(self):
        flow = self.open(self.random.choice(("tcp4", "tcp6", "udp4", "udp6")))
        self.flows.append(flow)
        self.a_while()
        self.flows.remove(flow)
        flow.close(abort=self.random.random() < 0.5)

    def do_fault_memory_is_short(self):
        """On behalf of modules (stress.sh has seen to that)."""
        self.short_until = math.inf
        write(f"{FAILSLAB}/probability", str(self.random.choice((1, 2, 5, 20))))
        for _ in range(4):
            self.happen([e for e in self.events if not e.__name__.startswith("do_fault")
                         and e != Stress.do_connections_come_and_go])
        write(f"{FAILSLAB}/probability", "0")
        self.short_until = time.time() + GARBAGE_COLLECTION * self.args.slowness

    def do_fault_nic_fails_anywhere(self):
        write(f"{FAIL_FUNCTION}/inject", "emunic_clsflower")
        # -ENOMEM, as this file wants it.
        write(f"{FAIL_FUNCTION}/emunic_clsflower/retval", hex((1 << 64) - 12))
        for name, value in (("probability", 20), ("times", -1), ("verbose", 0)):
            write(f"{FAIL_FUNCTION}/{name}", str(value))
        self.a_while()
        write(f"{FAIL_FUNCTION}/inject", "\n")

    def a_while(self):
        end = time.monotonic() + self.random.random() * 0.3 * self.args.slowness
        while time.monotonic() < end:
            self.step()

    def heal_links(self):
        self.on_server("ip link set wire1 up", "ip addr replace fd00:2::2/64 dev wire1 nodad",
                       "ip route replace default via 10.0.2.1",
                       "ip -6 route replace default via fd00:2::1")
        self.router("ip link set nic1 up", "ip addr replace fd00:2::1/64 dev nic1 nodad",
                    "ip route replace 10.9.9.9 via 10.0.2.2",
                    "ip -6 route replace fd00:9::9 via fd00:2::2")

    def heal(self):
        self.heal_links()
        self.router("ip rule del priority 100", "ip link set nic1 mtu 1500")
        self.nft("flush ruleset\n" + self.ruleset)

    def lives(self, seconds):
        """Whether all connections carry a message that is sent from now on."""
        marks = [flow.sent for flow in self.flows]
        return until(lambda: all(flow.last_number >= mark
                                 for flow, mark in zip(self.flows, marks)), seconds, self.step)

    def run(self):
        self.measure()
        self.nft(self.ruleset)
        end = time.monotonic() + self.args.seconds
        while time.monotonic() < end:
            self.happen(self.events)
        self.heal()
        print(f"# {sum(self.done.values())} events:", flush=True)
        for name, count in sorted(self.done.items()):
            print(f"#   {count:4} {name}")

        problems = []
        # TCP waits the longer between two tries the longer it was cut off.
        if not self.lives(120 * self.args.slowness):
            dead = [flow.name for flow in self.flows if time.monotonic() - flow.last > 5]
            problems.append(f"connections did not survive: {' '.join(dead)}")
        if not until(lambda: len(cookies()) >= 2 * len(self.flows), 120 * self.args.slowness,
                     self.step):
            problems.append(f"only {len(cookies())} rules came back "
                            f"for {len(self.flows)} connections")
        if left := self.measure():
            problems.append(f"nft flush ruleset leaves {left} rules")
        print(f"# the machine was {self.slow:.1f} times slower than a calm one")
        for where, times in self.late.items():
            if times := [t for t in times if t > self.slow]:
                problems.append(f"{len(times)} frames went to addresses that were known to be old, "
                                f"after {max(times):.1f} times the grace, sent by {where}")
        print(f"# that the server moved, the router knew "
              f"{len(self.old_macs)} of {self.moves} times")
        if self.moves > 2 and not self.old_macs:
            problems.append(f"the router never heard that the server moved, {self.moves} times")
        return problems


if __name__ == "__main__":
    for problem in (found := Stress(parse()).run()):
        print(problem)
    sys.exit(bool(found))

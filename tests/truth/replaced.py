#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""replaced.py: rulesets replace themselves under connections, and no driver gets two rules for the
same packets.

First a rule sends connections that conntrack has just forgotten to the flowtable of another
table, with the same devices. Then, at random, for --seconds: the ruleset is replaced in one
transaction, when conntrack forgets some connections or all, a neighbour is forgotten, or nothing
happens, and the NIC takes its time for each call, or not. All the time the connections go on,
partly through the host.

Prints "ok TEXT" or "not ok TEXT".
"""

import argparse
import collections
import random
import subprocess
import sys
import time
from pathlib import Path

from connection import Namespace
from nic import cookies, counters, knob
from probe import Flow
from wait import until


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("client", "server", "router"):
        parser.add_argument(f"--{name}", required=True, help="namespace")
    parser.add_argument("--ruleset", required=True, help="file for nft -f")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--pace", type=float, required=True, help="ms between messages")
    parser.add_argument("--limit", type=float, required=True, help="ms, at most")
    return parser.parse_args()


class Mixed(Flow):
    """Over UDP, each second message comes in fragments, which NICs hand to the host."""

    def send(self):
        super().send()
        if not self.tcp:
            try:
                self.sock.send(bytes(2000))
            except OSError:
                pass


class Replaced:
    def __init__(self, args):
        self.args = args
        self.random = random.Random(args.seed)
        self.router = Namespace(args.router)
        client, server = Namespace(args.client), Namespace(args.server)
        self.flows = [
            Mixed(name, client, server, "fd00:2::2" if name.endswith("6") else "10.0.2.2",
                  7400 + number)
            for number, name in enumerate(("udp4", "udp4", "udp6", "tcp4", "tcp6", "udp6"))
        ]
        self.due = 0.0
        self.ruleset = Path(args.ruleset).read_text(encoding="ascii")

    def step(self):
        now = time.monotonic()
        if self.due <= now:
            for flow in self.flows:
                flow.send()
            self.due = now + self.args.pace / 1000
        for flow in self.flows:
            flow.echo()
            flow.receive(now)
        time.sleep(0.0005)  # lets the machine get on with it

    def until(self, condition):
        return until(condition, self.args.limit / 1000, self.step)

    def run(self, *command, text=None):
        """Runs a command in the router while the connections go on."""
        with self.router:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL, text=True)
        if text:
            process.stdin.write(text)
        process.stdin.close()
        while process.poll() is None:
            self.step()
        return process.returncode

    def nft(self, text):
        if self.run("nft", "-f", "-", text=text):
            sys.exit(f"nft does not take: {text}")

    @staticmethod
    def met():
        """How often the NIC was given a rule for the packets of another one."""
        return counters()["replace_dup_match"]

    def all_in(self):
        return len(cookies()) == 2 * len(self.flows)

    def say(self, right, text):
        print(f"{'ok' if right else 'not ok'} {text}", flush=True)

    def another_flowtable(self):
        rule = ""
        for line in self.ruleset.splitlines():
            if "flow add" in line:
                rule = line.strip()
        self.nft(self.ruleset + self.ruleset.replace("table inet fw", "table inet fw2")
                 .replace(rule, ""))
        self.say(self.until(self.all_in), "all connections are in the NIC")
        for turn in range(4):
            before, old = self.met(), cookies()
            old_table, table = ("fw", "fw2") if turn % 2 == 0 else ("fw2", "fw")
            self.nft(f"flush chain inet {old_table} forward\n"
                     f"add rule inet {table} forward {rule}")
            self.run("conntrack", "-F")
            back = self.until(lambda old=old: self.all_in() and not cookies() & old)
            met = self.met() - before
            self.say(back and not met, "connections that were forgotten go to another flowtable, "
                     f"time {turn + 1}: no rule meets another one for the same packets")
            print(f"# {met} rules met others{'' if back else '; not all got back'}", flush=True)
        self.nft("flush ruleset")

    def at_random(self):
        self.nft(self.ruleset)
        self.say(self.until(self.all_in), "all connections are in the NIC again")
        before, count, happened = self.met(), 0, collections.Counter()
        end = time.monotonic() + self.args.seconds
        while time.monotonic() < end:
            knob("latency_us", self.random.choice((0, 500, 2000, 10000)))
            what = self.random.choice(("conntrack -F", "conntrack -D -p udp", "conntrack -D -p tcp",
                                       "ip neigh flush dev nic1", "ip -6 neigh flush dev nic1",
                                       "true"))
            met = self.met()
            self.run(*what.split())
            self.nft("flush ruleset\n" + self.ruleset)
            count += 1
            # Mostly all of them, so that there is something to meet; sometimes at once again.
            if self.random.random() < 0.8:
                self.until(self.all_in)
            happened[what] += self.met() - met
        knob("latency_us", 0)
        met = self.met() - before
        self.say(not met, f"a ruleset that replaces itself {count} times: "
                 "no rule ever meets another one for the same packets")
        print("# rules that met others, by what happened just before: " + ", ".join(
            f"{number} after {what}" for what, number in sorted(happened.items())), flush=True)
        self.say(self.until(self.all_in), "all connections get back into the NIC")


def main():
    replaced = Replaced(parse())
    replaced.another_flowtable()
    replaced.at_random()


if __name__ == "__main__":
    main()

#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""follow.py: a UDP flow in hardware, whose neighbour changes its MAC address when it is asked to.

The flow carries a message each --pace ms, and its echo. For each line on standard input the
cable's end of --wire gets a new address, and when the connection is in hardware with that, a line
of JSON says how long it has taken, in ms after the command that changed it has returned:

    last_old    the last frame to an address of before; 0 if there was none
    back        both rules are in the NIC again; null if they were not within --limit
    stall       the longest time without an echo

"error" is what went wrong instead.
"""

import argparse
import json
import os
import select
import subprocess
import sys
import time

from connection import Namespace
from nic import cookies
from probe import Flow, Wire, carry_on, frame_ports, longest_stall, mac
from wait import until


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("client", "server"):
        parser.add_argument(f"--{name}", required=True, help="namespace")
    parser.add_argument("--to", required=True, help="the server's address")
    parser.add_argument("--port", type=int, default=6999)
    parser.add_argument("--wire", required=True, help="the server's device")
    parser.add_argument("--pace", type=float, default=5, help="ms between messages")
    parser.add_argument("--watch", type=float, default=300, help="ms, at least, after the change")
    parser.add_argument("--limit", type=float, default=10000, help="ms, at most")
    return parser.parse_args()


class Follow:
    def __init__(self, args):
        self.args = args
        self.flow = Flow("udp4", Namespace(args.client), Namespace(args.server), args.to, args.port)
        self.wire = Wire(args.server, args.wire)
        self.due = time.monotonic()
        self.turn = 0

    def step(self):
        """Sends what is due, and waits for something to come, or on standard input."""
        now = time.monotonic()
        if self.due <= now:
            self.flow.send()
            self.due = max(self.due + self.args.pace / 1000, now)
        asked, _, _ = select.select([0, self.flow.sock, self.flow.peer], [], [],
                                    max(0, self.due - now))
        self.flow.echo()
        self.flow.receive(time.monotonic())
        return 0 in asked

    def rules(self):
        return cookies(f"port={self.args.port} ")

    def change(self):
        args = self.args
        if not until(lambda: len(self.rules()) == 2, args.limit / 1000, self.step):
            return {"error": f"{len(self.rules())} of the flow's 2 rules are in the NIC before"}
        old = self.rules()
        self.turn += 1
        new = f"02:00:00:f0:{self.turn >> 8:02x}:{self.turn & 255:02x}"
        list(self.wire.frames())
        longest_stall([self.flow])
        change = ["ip", "-n", args.server, "link", "set", args.wire, "address", new]
        if not carry_on(self.step, change):
            return {"error": "the address could not be changed"}
        begin, wall = time.monotonic(), time.time()
        back = None
        last_old, come = 0.0, False

        while True:
            self.step()
            passed = (time.monotonic() - begin) * 1000
            rules = self.rules()
            if back is None and len(rules) == 2 and not rules & old:
                back = passed
            for stamp, data, _ in self.wire.frames():
                if self.args.port not in frame_ports(data):
                    continue
                if mac(data[:6]) == new:
                    come = True
                else:
                    last_old = max(last_old, (stamp - wall) * 1000)
            if passed > args.limit or (passed > args.watch and come and back is not None):
                break
        return {"last_old": round(last_old, 1), "back": back and round(back, 1),
                "stall": round(longest_stall([self.flow]), 1)}


def main():
    follow = Follow(parse())
    while True:
        if not follow.step():
            continue
        if not os.read(0, 4096):
            break
        try:
            print(json.dumps(follow.change()), flush=True)
        except OSError as error:
            print(json.dumps({"error": str(error)}), flush=True)


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, subprocess.SubprocessError) as error:
        sys.exit(str(error))

#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""late_worker.py: flows whose way changes after they have an entry, and before they are offered.

flowbench.ko offers many flows of its own at once, so that the core's worker is late with what comes
after. Connections to --to then get their entries, at last one to --control, whose way stays. The
event's commands give the first ones another way. All of them have a message each --pace ms, until
the rules of the last one have been in the NIC for --watch ms: by then, all have been offered.

Prints one JSON object:

    late_ms     from the entries to the rules of the connection to --control
    before      frames that have left by --old after the event, as long as these rules were not in
    after       the same --grace ms after that, and later
    by_new      frames that have left by --new
    error       what went wrong instead
"""

import argparse
import json
import os
import subprocess
import time
from pathlib import Path

from connection import Namespace
from nic import cookies
from probe import Flow, Wire, frame_ports
from wait import until

DO = Path("/sys/kernel/debug/flowbench/do")
FLOWS = 8
PORT = 6900


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("client", "server"):
        parser.add_argument(f"--{name}", required=True, help="namespace")
    for name in ("to", "control"):
        parser.add_argument(f"--{name}", required=True, help="an address of the server")
    for name in ("old", "new"):
        parser.add_argument(f"--{name}", required=True, help="the server's device")
    parser.add_argument("--pace", type=float, default=5, help="ms between messages of a flow")
    parser.add_argument("--grace", type=float, default=50, help="ms for the old way")
    parser.add_argument("--watch", type=float, default=500, help="ms, at least, after the offer")
    parser.add_argument("--limit", type=float, default=60000, help="ms, at most")
    parser.add_argument("event", nargs="+", help="shell commands, one after the other")
    return parser.parse_args()


class Late:
    def __init__(self, args):
        self.args = args
        client, server = Namespace(args.client), Namespace(args.server)
        to = [args.to] * FLOWS + [args.control]
        self.flows = [Flow("udp4", client, server, addr, PORT + number)
                      for number, addr in enumerate(to)]
        self.old, self.new = Wire(args.server, args.old), Wire(args.server, args.new)
        self.due = 0.0

    def step(self):
        """Sends what is due, and has it echoed."""
        now = time.monotonic()
        if self.due <= now:
            for flow in self.flows:
                flow.send()
            self.due = now + self.args.pace / 1000
        for flow in self.flows:
            flow.echo()
            flow.receive(now)
        time.sleep(max(0, self.due - time.monotonic()))

    def frames(self, wire):
        """When frames to the server have come out of a cable, but for those of the last flow."""
        ports = set(range(PORT, PORT + FLOWS))
        return [stamp for stamp, data, _ in wire.frames() if frame_ports(data) & ports]

    def run(self):
        args = self.args
        DO.write_text("queue", encoding="ascii")
        # The answer to the first message makes the entry.
        if not until(lambda: all(flow.received >= 2 for flow in self.flows),
                     args.limit / 1000, self.step):
            return {"error": "not all connections have answers"}
        begin = time.time()
        for wire in (self.old, self.new):
            self.frames(wire)
        for command in args.event:
            subprocess.run(command.split(), check=True)
        changed, offered = time.time(), None

        def is_over():
            nonlocal offered
            if offered is None and len(cookies(f"port={PORT + FLOWS} ")) == 2:
                offered = time.time()
            return offered is not None and (time.time() - offered) * 1000 > args.watch

        if not until(is_over, args.limit / 1000, self.step):
            return {"error": "the rules of the last connection are not in the NIC"}
        old = [stamp for stamp in self.frames(self.old) if stamp > changed]
        return {"late_ms": round((offered - begin) * 1000),
                "before": sum(stamp <= offered for stamp in old),
                "after": sum(stamp > offered + args.grace / 1000 for stamp in old),
                "by_new": len(self.frames(self.new))}


def main():
    # The core's workers are many, and would leave little time.
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        result = Late(parse()).run()
    except (OSError, subprocess.SubprocessError) as error:
        result = {"error": str(error)}
    print(json.dumps(result))


main()

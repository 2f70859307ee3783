#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""reuse.py CLIENT SERVER LIMIT_MS: a connection ends, and its ports are used again at once.

Once with FIN and once with RST, over IPv4 and IPv6. Prints a line for each and fails if the new
connection does not work or does not get into the NIC, or if the old rules are there for longer than
the limit.
"""

import sys
import time

from probe import Flow, Namespace, cookies

client, server = Namespace(sys.argv[1]), Namespace(sys.argv[2])
limit = float(sys.argv[3])
failed = False


def run(flow, seconds, condition):
    """Has the flow carry messages until the condition holds; whether it does in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        flow.send()
        flow.echo()
        flow.receive(time.monotonic())
        time.sleep(0.005)  # the pace of the messages
    return True


for number, (how, name) in enumerate((h, n) for h in ("FIN", "RST") for n in ("tcp4", "tcp6")):
    addr = "fd00:9::9" if name == "tcp6" else "10.9.9.9"
    port, source = 9100 + number, 40100 + number
    before = cookies()
    flow = Flow(name, client, server, addr, port, source)
    if not run(flow, 60, lambda: len(cookies() - before) == 2):
        sys.exit("the first connection does not get into the NIC")
    old = cookies() - before

    flow.close(abort=how == "RST")
    ended = time.monotonic()
    flow = Flow(name, client, server, addr, port, source)
    works = run(flow, 10, lambda: flow.received >= 20)
    run(flow, 10 * limit / 1000, lambda: not cookies() & old)
    gone = (time.monotonic() - ended) * 1000
    back = run(flow, 60, lambda: len(cookies() - before - old) == 2)
    flow.close(abort=how == "RST")

    good = works and gone < limit and back
    failed = failed or not good
    print(f"{how}, {name}: the rules are gone after {gone:.0f} ms; the next connection "
          f"{'works' if works else 'does not work'} and {'is' if back else 'is not'} in the NIC")

sys.exit(failed)

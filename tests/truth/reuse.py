#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""reuse.py CLIENT SERVER ROUTER LIMIT_MS: a connection ends, and its ports are used again at once.

Once with FIN and once with RST, over IPv4 and IPv6. Prints a line for each and fails if conntrack
has not seen the end, if the new connection does not work or does not get into the NIC, or if the
old rules are there for longer than the limit.
"""

import subprocess
import sys
import time

from probe import Flow, Namespace, cookies

client, server = Namespace(sys.argv[1]), Namespace(sys.argv[2])
router, limit = sys.argv[3], float(sys.argv[4])
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


def wait_for_end(source, family, seconds):
    """What conntrack says of the connection when it has seen its end, or at last."""
    end = time.monotonic() + seconds
    while (seen := state(source, family)) in ("OFFLOAD", "ESTABLISHED"):
        if time.monotonic() > end:
            break
        time.sleep(0.02)  # between two looks
    return seen


def state(source, family):
    """The state that conntrack shows; it shows none while the connection is in a flowtable."""
    words = subprocess.run(
        ["ip", "netns", "exec", router, "conntrack", "-L", "-f", family, "-p", "tcp",
         "--sport", str(source)], capture_output=True, check=False, text=True).stdout.split()
    if not words:
        return "gone"
    return "OFFLOAD" if "OFFLOAD]" in " ".join(words) else words[3]


for number, (how, name) in enumerate((h, n) for h in ("FIN", "RST") for n in ("tcp4", "tcp6")):
    addr, family = ("fd00:9::9", "ipv6") if name == "tcp6" else ("10.9.9.9", "ipv4")
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
    seen = wait_for_end(source, family, limit / 1000)

    good = seen not in ("OFFLOAD", "ESTABLISHED") and works and gone < limit and back
    failed = failed or not good
    print(f"{how}, {name}: the rules are gone after {gone:.0f} ms; the next connection "
          f"{'works' if works else 'does not work'} and {'is' if back else 'is not'} in the NIC; "
          f"when it ends conntrack says {seen}")

sys.exit(failed)

#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""aging.py CLIENT SERVER TIMEOUT: flows that are alive in one direction only.

The NIC has the rule of the original direction and refuses the other one. Packets come in one
direction only for four times the flow's timeout, in seconds; the rule must stay the same one.
Prints a line for each direction, and fails if a flow has expired in use.
"""

import sys
import time

from probe import Flow, Namespace, cookies


def removals():
    """How many rules the NIC was told to remove. (With the C module, cookies come back.)"""
    with open("/sys/kernel/debug/emunic/counters", encoding="ascii") as lines:
        return dict(line.split() for line in lines)["destroy_ok"]


client, server = Namespace(sys.argv[1]), Namespace(sys.argv[2])
timeout = float(sys.argv[3])
expired = False

for number, direction in enumerate(("original", "reply")):
    flow = Flow("udp4", client, server, "10.9.9.9", 9000 + number)
    before = cookies()
    start = time.monotonic()
    # Both directions once, so that the flow is established.
    while not (rules := cookies() - before):
        flow.send()
        flow.echo()
        flow.receive(time.monotonic())
        if time.monotonic() > start + 10 * timeout:
            sys.exit("the flow does not get into the NIC")
    packets, taken = 0, removals()
    end = time.monotonic() + 4 * timeout
    while time.monotonic() < end:
        if direction == "original":
            flow.send()
        else:
            flow.peer.sendto(b"x" * 64, flow.sock.getsockname())
        packets += 1
        time.sleep(timeout / 20)  # this is the traffic
    stays = rules <= cookies() and removals() == taken
    expired = expired or not stays
    print(f"packets in {direction} direction only: {packets} in {4 * timeout:.0f} s, "
          f"the flow {'lives' if stays else 'has expired'}")
    flow.close(abort=False)

sys.exit(expired)

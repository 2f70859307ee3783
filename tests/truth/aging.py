#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""aging.py CLIENT SERVER TIMEOUT: flows that are alive in one direction only.

The NIC has the rule of the original direction and refuses the other one. Packets come in one
direction only, and few, for four times the flow's timeout, in seconds; the rule must stay the same
one.
Prints a line for each direction, and fails if a flow has expired in use.
"""

import sys
import time

from connection import Namespace
from nic import cookies, rules
from probe import Flow
from wait import until


def rule_value(rule, key):
    """A number that the NIC shows of a rule; None if the rule is gone."""
    found = rules(f"{rule} ")
    return int(found[0][key]) if found else None


client, server = Namespace(sys.argv[1]), Namespace(sys.argv[2])
timeout = float(sys.argv[3])
expired = False

for number, direction in enumerate(("original", "reply")):
    flow = Flow("udp4", client, server, "10.9.9.9", 9000 + number)
    word = f"dport={9000 + number} "

    def send():
        flow.send()
        time.sleep(0.01)  # the pace of the messages

    def step():
        send()
        flow.echo()
        flow.receive(time.monotonic())

    # Both directions once, so that the flow is established.
    if not until(lambda: cookies(word), 10 * timeout, step):
        sys.exit("the flow does not get into the NIC")
    (rule,) = cookies(word)
    # The NIC has seen a packet; when, is what the C module goes by.
    until(lambda: rule_value(rule, "packets") != 0, 10 * timeout, send)
    packets, stays, age = 0, True, 0
    end = time.monotonic() + 4 * timeout
    while time.monotonic() < end:
        if direction == "original":
            flow.send()
        else:
            flow.peer.sendto(b"x" * 64, flow.sock.getsockname())
        packets += 1
        # With the C module, a cookie may come back, but the new rule is young.
        before, age = age, rule_value(rule, "idle_ms")
        if age is None or (direction == "reply" and age < before):
            stays = False
            break
        # The pace of the messages: a poll comes in between, and does not see it too late.
        time.sleep(0.5 * timeout)
    expired = expired or not stays
    print(f"{packets} packets, in {direction} direction only: "
          f"the flow {'lives' if stays else 'has expired in use'}")
    flow.close()

sys.exit(expired)

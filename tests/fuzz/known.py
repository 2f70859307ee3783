# SPDX-License-Identifier: GPL-2.0
"""known.py: differences that are documented, and so do not count.

Each says where it is documented. One that a long run does not see any more is reported, so that it
can leave this list and the documentation.
"""

import collections
from dataclasses import dataclass
from typing import Callable

from nic import NIC


@dataclass
class Known:
    name: str
    where: str  # the document
    is_it: Callable


def is_about(difference, word):
    return difference.kind == "conntrack" and difference.text.endswith(f": {word}")


def is_of_states(difference, word, right, wrong):
    if not is_about(difference, word):
        return False
    return difference.right[0].state in right and difference.wrong[0].state in wrong


def is_young(difference):
    if not is_about(difference, "timeout"):
        return False
    right, wrong = difference.right[0], difference.wrong[0]
    return "udp " in difference.what and right.timeout <= 30 and wrong.timeout <= 125


def is_unacknowledged(difference):
    """Of TCP's time-outs: which side has the one of data that wait for an answer."""
    if not is_about(difference, "timeout") or "tcp " not in difference.what:
        return None
    times = difference.right[0].timeout, difference.wrong[0].timeout
    return [time <= 300 for time in times]


def has_reset(difference):
    return any(" rst" in line for line in difference.lines)


def is_reset(difference):
    if not has_reset(difference) or difference.kind != "conntrack":
        return False
    return (is_unacknowledged(difference) == [False, True]
            or is_of_states(difference, "state", {"CLOSE"}, {"ESTABLISHED"}))


def matches_macs():
    """Whether the NIC's rules do."""
    return (NIC / "profile").read_text(encoding="ascii").startswith("mlx5")


KNOWN = [
    Known("a frame for another MAC takes the fast path of a NIC that does not match MACs",
          "Documentation/truth.md, Not promised",
          lambda it: (it.router == "hw" and it.kind == "frame" and "dmac=" in it.step
                      and not matches_macs())),
    Known("a packet with another DSCP takes the way of the flow's others",
          "Documentation/truth.md, Not promised",
          lambda it: it.kind == "frame" and it.step.startswith("send") and "tos=" in it.step),
    Known("an ended connection is in FIN_WAIT, not in CLOSE_WAIT, as the ACK was in the fast path",
          "Documentation/truth.md, Not promised",
          lambda it: is_of_states(it, "state", {"CLOSE_WAIT"}, {"FIN_WAIT"})),
    Known("data that wait for an answer do not make TCP's time-out shorter",
          "Documentation/truth.md, Not promised",
          lambda it: is_unacknowledged(it) == [True, False]),
    Known("a RST leaves a connection that is forgotten soon if nothing follows",
          "Documentation/truth.md, How", is_reset),
    Known("without `flags offload`, a mark that changes in the first second of an entry is missed",
          "Documentation/truth.md, Not promised",
          lambda it: it.router == "soft" and it.step.startswith("r conntrack -U")),
    Known("a connection that ended by two FINs is in LAST_ACK, not in TIME_WAIT",
          "Documentation/truth.md, Not promised",
          lambda it: is_of_states(it, "state", {"TIME_WAIT"}, {"LAST_ACK"})),
    Known("UDP of less than two seconds has the timeout of a stream when it leaves the flowtable",
          "Documentation/fuzz.md, What does not count", is_young),
]


class Judge:
    """Calls a difference known or not, and counts."""

    def __init__(self):
        self.seen = collections.Counter()

    def __call__(self, difference):
        for known in KNOWN:
            if known.is_it(difference):
                self.seen[known.name] += 1
                return known
        return None

    def unseen(self):
        return [known for known in KNOWN if not self.seen[known.name]]

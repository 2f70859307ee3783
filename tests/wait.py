# SPDX-License-Identifier: GPL-2.0
"""wait.py: waits for conditions, up to a limit."""

import time


def pause():
    """Between two looks, so that the machine gets on with it."""
    time.sleep(0.005)


def until(condition, limit, step=pause):
    """Whether the condition holds within so many seconds, with steps between two looks."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            return False
        step()
    return True

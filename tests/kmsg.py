# SPDX-License-Identifier: GPL-2.0
"""kmsg.py: the kernel log, from now on."""

import os
import re


class Kmsg:
    def __init__(self):
        self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.fd, 0, os.SEEK_END)

    def read(self):
        """The lines since it was last read."""
        text = ""
        while True:
            try:
                text += os.read(self.fd, 8192).decode(errors="replace").split("\n")[0] + "\n"
            except BlockingIOError:
                return text
            except BrokenPipeError:
                pass  # some were overwritten

    def reason(self):
        """Why a flow stays in software, if these lines say so."""
        found = re.search(r"stays in software: (.*?)(?: \(\d+ more since.*)?$", self.read(), re.M)
        return found and found[1]

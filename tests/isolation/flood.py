#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""flood.py NAMESPACE DEVICE random|same: broadcasts frames, as many as it can, until it is killed.

They come from random MAC addresses, or all from the same one.
"""

import os
import random
import socket
import sys

from connection import Namespace

with Namespace(sys.argv[1]):
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind((sys.argv[2], 0))
seed = int.from_bytes(os.urandom(4))
print(f"# seed {seed}", flush=True)
generator = random.Random(seed)
head, tail = b"\xff" * 6, b"\x88\xb5" + bytes(46)
while True:
    addresses = generator.randbytes(6 * 1000) if sys.argv[3] == "random" else bytes(6 * 1000)
    for at in range(0, len(addresses), 6):
        try:
            sock.send(head + b"\x02" + addresses[at + 1:at + 6] + tail)
        except OSError:
            pass

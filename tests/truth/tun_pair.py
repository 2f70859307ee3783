#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""tun_pair.py NAMESPACE NAMESPACE: makes tun0 in each, and a cable between them."""

import fcntl
import os
import select
import struct
import sys

from connection import Namespace

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000


def tun(name):
    with Namespace(name):
        fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
    return fd


one, other = map(tun, sys.argv[1:3])
print("ready", flush=True)
while True:
    for fd in select.select([one, other], [], [])[0]:
        try:
            os.write(other if fd == one else one, os.read(fd, 65536))
        except OSError:
            pass  # the other one is down

#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""tun.py NAMESPACE:DEVICE NAMESPACE:DEVICE: a cable between two devices without an Ethernet header.

Makes both, as tun devices, says "ready", and hands the packets of either on to the other until it
is killed.
"""

import fcntl
import os
import select
import struct
import sys

from connection import Namespace

TUNSETIFF = 0x400454ca
IFF_TUN, IFF_NO_PI = 1, 0x1000


def tun(end):
    namespace, device = end.split(":")
    with Namespace(namespace):
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
    return fd


here, there = tun(sys.argv[1]), tun(sys.argv[2])
print("ready", flush=True)
while True:
    for fd in select.select([here, there], [], [])[0]:
        try:
            os.write(there if fd == here else here, os.read(fd, 65536))
        except OSError:
            pass

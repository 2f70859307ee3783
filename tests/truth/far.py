#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""far.py CLIENT SOURCE SPORT DEST DPORT: TCP packets with sequence numbers all around the circle.

All of them but one, at most, are out of the window of the connection with these addresses and
ports.
"""

import socket
import struct
import sys

from connection import Namespace
from frame import addr, csum

namespace, source, sport, dest, dport = sys.argv[1:]
family = socket.AF_INET6 if ":" in dest else socket.AF_INET
with Namespace(namespace):
    sock = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
sock.bind((source, 0))
ACK = 16
for quarter in range(4):
    header = struct.pack("!HHIIBBHHH", int(sport), int(dport), quarter << 30, 0, 5 << 4, ACK,
                         512, 0, 0)
    segment = header + b"far"
    pseudo = addr(source) + addr(dest) + struct.pack("!II", len(segment), socket.IPPROTO_TCP)
    total = struct.pack("!H", csum(pseudo + segment))
    sock.sendto(segment[:16] + total + segment[18:], (dest, 0))

#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""pppoe.py DEV SID MAC: a PPPoE session with MAC on DEV, up until this program ends.

Discovery and LCP, which only user space knows, are left out: both ends are told. Prints the
name of the PPP netdev when it is there.
"""

import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys

AF_PPPOX = 24
PX_PROTO_OE = 0
PPPIOCGCHAN = 0x80047437
PPPIOCATTCHAN = 0x40047438
PPPIOCCONNECT = 0x4004743A
PPPIOCNEWUNIT = 0xC004743E

dev, sid, mac = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3].replace(":", ""))

session = socket.socket(AF_PPPOX, socket.SOCK_STREAM, PX_PROTO_OE)
# struct sockaddr_pppox
address = struct.pack("=HI", AF_PPPOX, PX_PROTO_OE)
address += struct.pack("!H", sid) + mac + dev.encode().ljust(16, b"\0")
libc = ctypes.CDLL(None, use_errno=True)
if libc.connect(session.fileno(), address, len(address)):
    error = ctypes.get_errno()
    sys.exit(f"connect: {os.strerror(error)}")

number = bytearray(4)
fcntl.ioctl(session, PPPIOCGCHAN, number)
channel = os.open("/dev/ppp", os.O_RDWR)
fcntl.ioctl(channel, PPPIOCATTCHAN, number)
unit = os.open("/dev/ppp", os.O_RDWR)
number = bytearray(struct.pack("i", -1))
fcntl.ioctl(unit, PPPIOCNEWUNIT, number)
fcntl.ioctl(channel, PPPIOCCONNECT, number)
print(f"ppp{struct.unpack('i', number)[0]}", flush=True)
signal.pause()

#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""routes.py NAMESPACE fill|churn|batch N GATEWAY…: many IPv4 routes of a namespace, at once.

fill    N routes by the first gateway, from 20.0.0.0/24 on.
churn   these routes are replaced, one after the other, by each of the gateways in turn, until this
        is killed; a line of output says that it has begun.
batch   once.

A gateway is DEVICE:ADDRESS.
"""

import os
import socket
import struct
import sys

from connection import Namespace

RTM_NEWROUTE = 24
REQUEST, ACK, REPLACE, CREATE = 1, 4, 0x100, 0x400
AT_ONCE = 500
FIRST = 20 << 24


def attribute(kind, value):
    return struct.pack("HH", 4 + len(value), kind) + value


def route(number, gateway, ack):
    """A message that sets a route."""
    index, addr = gateway
    body = (struct.pack("8BI", socket.AF_INET, 24, 0, 0, 254, 4, 0, 1, 0)
            + attribute(1, struct.pack("!I", FIRST + (number << 8)))
            + attribute(4, struct.pack("I", index)) + attribute(5, addr))
    flags = REQUEST | REPLACE | CREATE | (ACK if ack else 0)
    return struct.pack("IHHII", 16 + len(body), RTM_NEWROUTE, flags, 0, 0) + body


def change(netlink, numbers, gateway):
    """Sets routes, and waits until that is done."""
    last = len(numbers) - 1
    netlink.send(b"".join(route(number, gateway, at == last) for at, number in enumerate(numbers)))
    error = struct.unpack("i", netlink.recv(4096)[16:20])[0]
    if error:
        sys.exit(os.strerror(-error))


def main():
    namespace, what, count = Namespace(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    with namespace:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        words = [word.split(":") for word in sys.argv[4:]]
        gateways = [(socket.if_nametoindex(dev), socket.inet_aton(addr)) for dev, addr in words]
    netlink.setsockopt(socket.SOL_SOCKET, 32, 1 << 22)  # SO_SNDBUFFORCE
    turn = 0

    while True:
        for first in range(0, count, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, count))
            change(netlink, numbers, gateways[turn % len(gateways)])
        turn += 1
        if what != "churn":
            break
        if turn == 1:
            print("begun", flush=True)


main()

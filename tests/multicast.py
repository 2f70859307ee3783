#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""multicast.py CLIENT ROUTER SERVER SECOND SLOWNESS 4|6 TEXT

The server sends datagrams to a group that the router forwards to the client and to SECOND. Prints
lines "ok TEXT" and "not ok TEXT".
"""

import socket
import struct
import sys
import time

from connection import Namespace
from frame import ETH_P_ALL
from nic import cookies
from wait import until

client, router, server, second = (Namespace(name) for name in sys.argv[1:5])
slowness, version, title = float(sys.argv[5]), int(sys.argv[6]), sys.argv[7]
GROUP, SERVER = ("239.1.2.3", "10.0.2.2") if version == 4 else ("ff3e::1234", "fd00:2::2")
PORT, NUMBER = 7400 + version, 400
IPPROTO_IPV6, IPV6_MULTICAST_IF, IPV6_MULTICAST_HOPS = 41, 17, 18
# MRT_INIT, MRT_ADD_VIF, MRT_ADD_MFC, and the same of MRT6
INIT, ADD_DEVICE, ADD_ROUTE = 200, 202, 204


def check(fine, text, *figures):
    print(f"{'ok' if fine else 'not ok'} {title}: {text}", flush=True)
    if not fine:
        print("#", *figures, flush=True)


def sockaddr_in6(text):
    return struct.pack("HHI16sI", socket.AF_INET6, 0, 0, socket.inet_pton(socket.AF_INET6, text), 0)


def multicast_router():
    """From nic1 to nic0 and nic2, as long as the socket is open."""
    index = [socket.if_nametoindex(f"nic{number}") for number in range(3)]
    if version == 4:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP)
        sock.setsockopt(socket.IPPROTO_IP, INIT, 1)
        for number, ifindex in enumerate(index):
            vif = struct.pack("HBBIi4s", number, 8, 1, 0, ifindex, bytes(4))
            sock.setsockopt(socket.IPPROTO_IP, ADD_DEVICE, vif)
        ttls = bytes([1, 0, 1]).ljust(32, b"\0")
        route = socket.inet_aton(SERVER) + socket.inet_aton(GROUP) + struct.pack("H", 1) + ttls
        sock.setsockopt(socket.IPPROTO_IP, ADD_ROUTE, route + struct.pack("=xxIIIi", 0, 0, 0, 0))
        return sock
    sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    sock.setsockopt(IPPROTO_IPV6, INIT, 1)
    for number, ifindex in enumerate(index):
        sock.setsockopt(IPPROTO_IPV6, ADD_DEVICE, struct.pack("HBBHxxI", number, 0, 1, ifindex, 0))
    route = sockaddr_in6(SERVER) + sockaddr_in6(GROUP) + struct.pack("Hxx", 1)
    sock.setsockopt(IPPROTO_IPV6, ADD_ROUTE, route + struct.pack("8I", 0b101, *[0] * 7))
    return sock


def source():
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if version == 4:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 9)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(SERVER))
    else:
        index = struct.pack("I", socket.if_nametoindex("wire1"))
        sock.setsockopt(IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 9)
        sock.setsockopt(IPPROTO_IPV6, IPV6_MULTICAST_IF, index)
    sock.bind((SERVER, PORT))
    return sock


def cable(namespace, device):
    with namespace:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        sock.bind((device, ETH_P_ALL))
    sock.setblocking(False)
    return sock


class Receiver:
    def __init__(self, namespace, device):
        self.sock, self.numbers = cable(namespace, device), []

    def look(self):
        while True:
            try:
                data = self.sock.recv(2048)
            except BlockingIOError:
                return
            if MARK in data:
                at = data.index(MARK) + len(MARK)
                self.numbers += struct.unpack("!I", data[at : at + 4])


MARK = f"multicast{version}".encode()
with router:
    daemon = multicast_router()
with server:
    sender = source()
receivers = [Receiver(client, "wire0"), Receiver(second, "wire2")]
rules = 0


def conntrack():
    with router, open("/proc/thread-self/net/nf_conntrack", encoding="ascii") as file:
        return next((line for line in file if f"dport={PORT} " in line), "")


for number in range(NUMBER):
    sender.sendto(MARK + struct.pack("!I", number) + bytes(100), (GROUP, PORT))
    for receiver in receivers:
        receiver.look()
    if number % 10 == 0:
        rules += bool(cookies())
    time.sleep(0.01)  # so that the garbage collector comes a few times


def all_there():
    for receiver in receivers:
        receiver.look()
    return all(len(receiver.numbers) >= NUMBER for receiver in receivers)


until(all_there, 2 * slowness)
for name, receiver in zip(("client", "second client"), receivers):
    right = receiver.numbers == list(range(NUMBER))
    figures = len(receiver.numbers), len(set(receiver.numbers))
    check(right, f"the {name} gets each datagram once", *figures)
check(rules == 0, "there is never a rule", rules)
check("OFFLOAD]" not in conntrack(), "there is no entry in the flowtable", conntrack())
daemon.close()

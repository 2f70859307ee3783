#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""hosts.py CLIENT SERVER BASE COUNT [STRIDE [PORT]]: a UDP flow to each of many addresses.

The server answers for COUNT addresses from BASE on, STRIDE apart; it has them, or a local route.
Says "ready" when each has answered twice, so that the flow has an entry in the flowtable, and goes
when standard input ends. For each line there all of them are asked once more, and how many have
answered at the first try is said.

hosts.py scan CLIENT BASE COUNT RATE: a datagram for each of these addresses, RATE in a second, over
and over until it is killed.
"""

import ipaddress
import os
import select
import socket
import struct
import sys
import time

from connection import Namespace

AT_ONCE = 200
LIMIT = 120


def udp(namespace, family):
    with namespace:
        sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)  # SO_RCVBUFFORCE
    sock.setblocking(False)
    return sock


class Hosts:
    def __init__(self, client, server, base, count, stride=1, port=7):
        first = ipaddress.ip_address(base)
        self.is_v6 = first.version == 6
        family = socket.AF_INET6 if self.is_v6 else socket.AF_INET
        self.addresses = [str(first + number * int(stride)) for number in range(int(count))]
        self.port = int(port)
        self.client, self.server = udp(Namespace(client), family), udp(Namespace(server), family)
        if self.is_v6:
            self.server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            self.server.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND
        else:
            self.server.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
        self.server.bind(("", self.port))

    def serve(self):
        """Answers all that has come, from the address that it has come to."""
        while True:
            try:
                data, control, _, sender = self.server.recvmsg(64, 64)
            except BlockingIOError:
                return
            for level, kind, value in control:
                if self.is_v6:
                    value = value[:16] + struct.pack("I", 0)
                else:
                    value = struct.pack("I4s4s", 0, value[8:12], bytes(4))
                try:
                    self.server.sendmsg([data], [(level, kind, value)], 0, sender)
                except OSError:
                    pass

    def answers(self, todo):
        """Takes those who have answered off the set."""
        while True:
            try:
                _, sender = self.client.recvfrom(64)
            except BlockingIOError:
                return
            except OSError:
                continue
            todo.discard(sender[0])

    def ask(self, todo, patience=0.5):
        """Asks all of a set once, a few at a time, and takes those who answer off it."""
        names = sorted(todo)
        for at in range(0, len(names), AT_ONCE):
            for name in names[at:at + AT_ONCE]:
                try:
                    self.client.sendto(b"are you there?", (name, self.port))
                except OSError:
                    pass
            end = time.monotonic() + patience
            while not todo.isdisjoint(names[at:at + AT_ONCE]) and time.monotonic() < end:
                select.select([self.client, self.server], [], [], 0.01)
                self.serve()
                self.answers(todo)

    def everybody(self):
        end = time.monotonic() + LIMIT
        todo = set(self.addresses)
        while todo:
            self.ask(todo)
            if time.monotonic() > end:
                sys.exit(f"{len(todo)} of {len(self.addresses)} hosts do not answer")


def scan(client, base, count, rate):
    first = ipaddress.ip_address(base)
    family = socket.AF_INET6 if first.version == 6 else socket.AF_INET
    sock, number, begin = udp(Namespace(client), family), 0, time.monotonic()
    while True:
        try:
            sock.sendto(b"?", (str(first + number % int(count)), 9))
        except OSError:
            pass
        number += 1
        time.sleep(max(0, begin + number / float(rate) - time.monotonic()))


def main():
    if sys.argv[1] == "scan":
        scan(*sys.argv[2:])
    hosts = Hosts(*sys.argv[1:])
    hosts.everybody()
    hosts.everybody()
    print("ready", flush=True)
    while os.read(0, 4096):
        todo = set(hosts.addresses)
        hosts.ask(todo)
        print(len(hosts.addresses) - len(todo), flush=True)


main()

#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""pairs.py CLIENT SERVER TO KIND:PORT…: connections in pairs, which do the same at the same time.

To each port belongs the one that is a thousand higher. KIND is tcp or udp. Commands on standard
input:

    PORT c N MS    the client sends N messages on both, so many milliseconds apart; "s": the server

The answer is how many arrived, on either: "3 3".
"""

import socket
import sys
import time

from connection import Namespace

client, server, to, *which = sys.argv[1:]
client, server = Namespace(client), Namespace(server)
family = socket.AF_INET6 if ":" in to else socket.AF_INET
LIMIT = 5


class Pair:
    def __init__(self, kind, port):
        self.ends = []
        kind = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
        for number in port, port + 1000:
            with server:
                there = socket.socket(family, kind)
            there.bind((to, number))
            with client:
                here = socket.socket(family, kind)
            if kind == socket.SOCK_STREAM:
                there.listen()
                here.settimeout(60)
            here.connect((to, number))
            if kind == socket.SOCK_STREAM:
                there = there.accept()[0]
            self.ends.append([here, there])
        self.udp = kind == socket.SOCK_DGRAM
        for end in sum(self.ends, []):
            end.settimeout(LIMIT)

    def move(self, who, number, pace):
        arrived = [0, 0]
        for at in range(number):
            if at:
                time.sleep(pace / 1000)
            for here, there in self.ends:
                (here if who == "c" else there).send(b"x" * 100)
            for i, (here, there) in enumerate(self.ends):
                try:
                    if who == "s":
                        here.recv(200)
                    elif self.udp:
                        # From then on it has somebody to answer.
                        there.connect(there.recvfrom(200)[1])
                    else:
                        there.recv(200)
                    arrived[i] += 1
                except TimeoutError:
                    pass
        return arrived


pairs = {}
for word in which:
    kind, port = word.split(":")
    pairs[port] = Pair(kind, int(port))
print("ready", flush=True)
for line in sys.stdin:
    port, who, number, pace = line.split()
    try:
        print(*pairs[port].move(who, int(number), float(pace)), flush=True)
    except OSError as error:
        print(error, flush=True)

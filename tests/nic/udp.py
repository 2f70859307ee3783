#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""udp.py CLIENT SERVER ADDRESS PORT COUNT [echo]: datagrams from that port to the server's 5000.

With echo, the next one comes when the one before is back.
"""

import sys

from connection import Connection, Namespace

client, server, address, port, count, *echo = sys.argv[1:]
# Nothing is lost where the server has no such address: it listens on all.
listen = (address if echo else "", 5000)
udp = Connection("udp4", Namespace(client), Namespace(server), (address, 5000), listen, int(port))
for sock in udp.sock, udp.peer:
    sock.settimeout(5)
for _ in range(int(count)):
    try:
        udp.sock.send(b"x" * 100)
        if echo:
            udp.peer.sendto(*udp.peer.recvfrom(200))
            udp.sock.recv(200)
    except OSError as error:
        if echo:
            sys.exit(f"{address}: {error}")

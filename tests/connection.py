# SPDX-License-Identifier: GPL-2.0
"""connection.py: connections between namespaces, with both ends in this process."""

import os
import socket
import struct

DATAGRAM = 1400
WINDOW = 32 * DATAGRAM  # of UDP on its way, so that no queue overflows


class Namespace:
    """What is opened or started inside belongs to that network namespace, and stays there.

    "" is the initial one.
    """

    def __init__(self, name):
        self.fd = os.open(f"/run/netns/{name}" if name else "/proc/1/ns/net", os.O_RDONLY)
        self.homes = []

    def __del__(self):
        os.close(self.fd)

    def __enter__(self):
        self.homes.append(os.open("/proc/self/ns/net", os.O_RDONLY))
        os.setns(self.fd, os.CLONE_NEWNET)

    def __exit__(self, *_):
        home = self.homes.pop()
        os.setns(home, os.CLONE_NEWNET)
        os.close(home)


class Connection:
    """From a client's namespace to a server's: TCP or UDP, IPv4 or IPv6, as in "tcp4".

    It goes to an address and a port, and the server listens there, or where that is translated to.
    None of the two ends, `sock` and `peer`, blocks.
    """

    CONNECT = 60  # seconds

    def __init__(self, kind, client, server, to, listen=None, source=0):
        self.tcp = kind.startswith("tcp")
        family = socket.AF_INET6 if kind.endswith("6") else socket.AF_INET
        kind = socket.SOCK_STREAM if self.tcp else socket.SOCK_DGRAM
        with server:
            self.peer = socket.socket(family, kind)
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.peer.bind(listen or to)
        with client:
            self.sock = socket.socket(family, kind)
        if source:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.sock.bind(("", source))
        if self.tcp:
            with self.peer as listener:
                listener.listen()
                self.sock.settimeout(self.CONNECT)
                self.sock.connect(to)
                self.peer = listener.accept()[0]
            for sock in (self.sock, self.peer):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            self.sock.connect(to)
        self.sock.setblocking(False)
        self.peer.setblocking(False)

    def room(self, size, underway):
        """How much of that may be sent at once when so much is on its way."""
        return size if self.tcp else max(0, min(size, DATAGRAM, WINDOW - underway))

    def close(self, abort=False, patience=10):
        """TCP says FIN, the server first, or RST; the client waits for it, for so many seconds.

        If nothing comes, the client says the same.
        """
        if self.tcp and abort:
            for sock in (self.sock, self.peer):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()
        if self.tcp:
            self.sock.settimeout(patience)
            try:
                while self.sock.recv(65536):
                    pass
            except OSError:
                pass
        self.sock.close()

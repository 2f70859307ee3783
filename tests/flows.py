#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""flows.py CLIENT SERVER: the connections of a test (flow_open and its like in lib.sh).

They go from a namespace to an echo server in another. Each line on standard input is a command:

    open ID tcp4|tcp6|udp4|udp6 ADDRESS PORT LISTEN-ADDRESS LISTEN-PORT
    send ID BYTES SECONDS       and have the echo of all that was ever sent back in time
    flood ID                    from now on something is on its way all the time
    close ID                    TCP says FIN

The answer is a line: "ok", or what went wrong. One process is all, as starting them is what takes
an emulated machine most time.
"""

import os
import select
import socket
import sys
import time

DATAGRAM = 1400
WINDOW = 32 * DATAGRAM  # of UDP on its way, so that no queue overflows
CONNECT = 60  # seconds
ZEROS = bytes(65536)


class Flow:
    def __init__(self, kind, addr, port, listen_addr, listen_port):
        self.tcp = kind.startswith("tcp")
        family = socket.AF_INET6 if kind.endswith("6") else socket.AF_INET
        kind = socket.SOCK_STREAM if self.tcp else socket.SOCK_DGRAM
        self.sock, self.peer = in_netns(client, family, kind), in_netns(server, family, kind)
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.peer.bind((listen_addr, int(listen_port)))
        self.sock.settimeout(CONNECT)
        if self.tcp:
            with self.peer as listener:
                listener.listen()
                self.sock.connect((addr, int(port)))
                self.peer = listener.accept()[0]
            for sock in (self.sock, self.peer):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            self.sock.connect((addr, int(port)))
        self.sock.setblocking(False)
        self.peer.setblocking(False)
        self.sent = self.back = 0
        self.unechoed = b""

    def write(self, size):
        """How much of that could be sent."""
        if not self.tcp:
            size = min(size, DATAGRAM, max(0, WINDOW - self.sent + self.back))
        size = self.sock.send(ZEROS[:size]) if size else 0
        self.sent += size
        return size

    def echo(self):
        try:
            if not self.tcp:
                self.peer.sendto(*self.peer.recvfrom(2048))
            elif len(self.unechoed) < len(ZEROS):
                self.unechoed += self.peer.recv(len(ZEROS))
        except BlockingIOError:
            pass
        if self.unechoed:
            self.unechoed = self.unechoed[self.peer.send(self.unechoed):]

    def receive(self):
        try:
            self.back += len(self.sock.recv(65536))
        except BlockingIOError:
            pass

    def send(self, size, seconds):
        end = time.monotonic() + float(seconds)
        size, error = int(size), ""
        while size or self.back < self.sent:
            if time.monotonic() > end:
                return f"{self.back} of {self.sent + size} bytes came back{error}"
            for step in (lambda: self.write(size), self.echo, self.receive):
                try:
                    size -= step() or 0
                except BlockingIOError:
                    pass
                except OSError as e:
                    # A way that is gone at the moment, perhaps.
                    error = f", {e.strerror}"
            keep_flooding()
            select.select([self.sock, self.peer], [self.sock] if size else [], [], 0.002)
        return "ok"

    def close(self):
        if self.tcp:
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass
        self.peer.close()
        self.sock.close()
        return "ok"


def in_netns(name, *args):
    """A socket in that namespace."""
    with open("/proc/self/ns/net", "rb") as here, open(f"/run/netns/{name}", "rb") as there:
        os.setns(there.fileno(), os.CLONE_NEWNET)
        try:
            return socket.socket(*args)
        finally:
            os.setns(here.fileno(), os.CLONE_NEWNET)


def keep_flooding():
    for flow in flooding.values():
        for step in (lambda flow=flow: flow.sock.send(ZEROS[:200]), flow.echo, flow.receive):
            try:
                step()
            except OSError:
                pass


def obey(command, number, *args):
    if command == "open":
        flows[number] = Flow(*args)
    elif command == "send":
        return flows[number].send(*args)
    elif command == "flood":
        flooding[number] = flows[number]
    elif command == "close":
        flooding.pop(number, None)
        return flows.pop(number).close()
    return "ok"


client, server = sys.argv[1:]
flows, flooding = {}, {}
commands = b""
while True:
    if select.select([0], [], [], 0.002 if flooding else None)[0]:
        data = os.read(0, 4096)
        if not data:
            break
        *lines, commands = (commands + data).split(b"\n")
        for line in lines:
            try:
                answer = obey(*line.decode().split())
            except OSError as e:
                answer = f"{line.decode()}: {e.strerror or e}"
            print(answer, flush=True)
    keep_flooding()

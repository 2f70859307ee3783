#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""flows.py CLIENT SERVER: the connections of a test (flow_open and its like in lib.sh).

They go from a namespace to an echo server in another. Each line on standard input is a command:

    open ID tcp4|tcp6|udp4|udp6 ADDRESS PORT LISTEN-ADDRESS LISTEN-PORT
    send ID BYTES SECONDS       and have the echo of all that was ever sent back in time
    flood ID                    from now on something is on its way all the time
    end ID client|server fin|rst  TCP says so at that end
    close ID                    TCP says FIN

The answer is a line: "ok", or what went wrong. One process is all, as starting them is what takes
an emulated machine most time.
"""

import os
import select
import socket
import struct
import sys
import time

from connection import Connection, Namespace

ZEROS = bytes(65536)


class Flow(Connection):
    def __init__(self, kind, addr, port, listen_addr, listen_port):
        super().__init__(kind, client, server, (addr, int(port)), (listen_addr, int(listen_port)))
        self.sent = self.back = 0
        self.unechoed = b""

    def write(self, size):
        """How much of that could be sent."""
        size = self.room(size, self.sent - self.back)
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

    def end(self, end, how):
        sock = self.sock if end == "client" else self.peer
        if how == "fin":
            sock.shutdown(socket.SHUT_WR)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()


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
    elif command == "end":
        flows[number].end(*args)
    elif command == "close":
        flooding.pop(number, None)
        flows.pop(number).close(patience=0)
    return "ok"


client, server = map(Namespace, sys.argv[1:])
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

#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""fast_path.py CLIENT ROUTER SERVER SLOWNESS COMMAND…

neighbour DEVICE WORDS…   `ip neigh WORDS…` has the router forget the server: how long frames to the
                          zero address leave, and if connections go on
stale DEVICE              the router takes the server for stale: packets have it look again
source DEVICE MAC TEXT    frames that the client gets by DEVICE come from this address
stays DEVICE TEXT         connections stay in the fast path
others DEVICE MAC TEXT    of frames of a connection, sent by the client's DEVICE, only those to the
                          router's MAC are forwarded, and these take the fast path
hardware DEVICE MAC TEXT  the same with a connection that is in hardware

All with UDP over IPv4 and IPv6. Prints lines "ok TEXT" and "not ok TEXT".
"""

import socket
import subprocess
import sys
import time

from connection import Connection, Namespace
from frame import Frame, ETH_P_ALL
from wait import until

client, router, server = (Namespace(name) for name in sys.argv[1:4])
router_name, slowness = sys.argv[2], float(sys.argv[4])
command, device, *words = sys.argv[5:]
LIMIT = 10 * slowness
STATE = "[HW_OFFLOAD]" if command == "hardware" else "[OFFLOAD]"
title = words[-1] if words else ""
SERVER = {4: "10.0.2.2", 6: "fd00:2::2"}


def check(fine, text, *figures):
    print(f"{'ok' if fine else 'not ok'} {text}", flush=True)
    if not fine:
        print("#", *figures, flush=True)


def raw(namespace, dev):
    with namespace:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        sock.bind((dev, ETH_P_ALL))
    sock.setblocking(False)
    return sock


def frames(sock):
    while True:
        try:
            data, sender = sock.recvfrom(65536)
        except BlockingIOError:
            return
        if sender[2] != socket.PACKET_OUTGOING:
            yield data


class Flow(Connection):
    ports = iter(range(7300, 7400))

    def __init__(self, version):
        self.version, self.port = version, next(self.ports)
        super().__init__(f"udp{version}", client, server, (SERVER[version], self.port))
        self.source = self.sock.getsockname()[1]
        self.back, self.last, self.stall = 0, time.monotonic(), 0.0
        if not until(self.is_in_place, LIMIT, self.turn):
            sys.exit(f"UDP over IPv{version} gets no entry")

    def turn(self):
        try:
            self.sock.send(b"x" * 64)
        except OSError:
            pass
        for step in self.echo, self.receive:
            try:
                step()
            except BlockingIOError:
                pass
        time.sleep(0.005)  # the pace of the messages

    def echo(self):
        self.peer.sendto(*self.peer.recvfrom(2048))

    def receive(self):
        self.back += len(self.sock.recv(2048))
        now = time.monotonic()
        self.stall, self.last = max(self.stall, now - self.last), now

    def is_in_place(self):
        with router, open("/proc/thread-self/net/nf_conntrack", encoding="ascii") as file:
            return any(f"sport={self.source} " in line and STATE in line for line in file)

    def goes_on_for(self, seconds):
        end = time.monotonic() + seconds + slowness
        until(lambda: time.monotonic() > end, LIMIT, self.turn)

    def works(self):
        back = self.back
        return until(lambda: self.back > back + 640, LIMIT, self.turn)


def ip(*words):
    subprocess.run(["ip", "-n", router_name, *words], check=True, stdout=subprocess.DEVNULL)


def state_of(version):
    """Of the router's entry for the server, "REACHABLE" or the like."""
    result = subprocess.run(
        ["ip", "-n", router_name, "neigh", "show", SERVER[version], "dev", device],
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout.split()[-1] if result.stdout else "none"


def zero(cable):
    return sum(data[:6] == bytes(6) for data in frames(cable))


def forget():
    for version in 4, 6:
        flow = Flow(version)
        text = f"ip neigh {words[0]}, IPv{version}"
        flow.works()
        # At its first visit, the garbage collector does not touch an entry.
        flow.goes_on_for(2)
        cable = raw(server, "wire1")
        ip("neigh", *(word.replace("SERVER", SERVER[version]) for word in words))
        start = flow.last = time.monotonic()
        flow.stall = 0.0
        last = sent = 0
        # The garbage collector of the flowtable comes each second.
        end = start + 3 * slowness
        while time.monotonic() < end:
            flow.turn()
            found = zero(cable)
            if found:
                sent, last = sent + found, time.monotonic() - start
        limit = 1.5 * slowness
        check(last < limit, f"{text}: no frame to the zero address a second later", sent, last)
        goes_on = flow.works() and flow.stall < limit
        check(goes_on, f"{text}: the connection goes on", flow.stall)
        flow.close()


def stale():
    for version in 4, 6:
        flow = Flow(version)
        with raw(server, "wire1") as sock:
            mac = sock.getsockname()[4].hex(":")
        ip("neigh", "replace", SERVER[version], "lladdr", mac, "dev", device, "nud", "stale")
        fresh = until(lambda: state_of(version) != "STALE", LIMIT, flow.turn)
        check(fresh, f"a stale neighbour, IPv{version}: is asked for, as if the host sent to it")
        flow.close()


def slow_packets():
    """Packets that the chain `forward` has counted."""
    result = subprocess.run(
        ["ip", "netns", "exec", router_name, "nft", "list", "counter", "inet", "count", "seen"],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(result.stdout.split("packets ")[1].split()[0])


def source():
    mac = bytes.fromhex(words[0].replace(":", ""))
    for version in 4, 6:
        flow = Flow(version)
        # The garbage collector of the flowtable comes each second.
        flow.goes_on_for(3)
        cable = raw(client, device)
        flow.works()
        own = cable.getsockname()[4]
        found = {data[6:12].hex(":") for data in frames(cable) if data[:6] == own}
        check(found == {mac.hex(":")}, f"{title}, IPv{version}: frames have its address", found)
        flow.close()


def takes_fast_path(flow, text):
    before = slow_packets()
    flow.works()
    slow = slow_packets() - before
    check(slow == 0, f"{text} take the fast path", slow)


def stays():
    for version in 4, 6:
        flow = Flow(version)
        # The garbage collector of the flowtable comes each second.
        flow.goes_on_for(3)
        takes_fast_path(flow, f"{title}, IPv{version}: packets")
        flow.close()


def others():
    for version in 4, 6:
        flow = Flow(version)
        # The garbage collector of the flowtable comes each second.
        flow.goes_on_for(3)
        out, cable = raw(client, device), raw(server, "wire1")
        source = out.getsockname()[4]
        frame = Frame(
            v=version,
            src=source,
            saddr=flow.sock.getsockname()[0],
            daddr=SERVER[version],
            sport=flow.source,
            dport=flow.port,
        )
        mac = bytes.fromhex(words[0].replace(":", ""))
        out.send(bytes(frame.change(dst=bytes.fromhex("02000000dead"), payload=b"to another")))
        out.send(bytes(frame.change(dst=mac, payload=b"to the router")))
        seen = []

        def arrived():
            seen.extend(frames(cable))
            return any(b"to the router" in data for data in seen)

        check(until(arrived, LIMIT), f"{title}, IPv{version}: a frame to the router is forwarded")
        leaked = any(b"to another" in data for data in seen)
        check(not leaked, f"{title}, IPv{version}: a frame to another host is not")
        takes_fast_path(flow, f"{title}, IPv{version}: frames to the router")
        flow.close()


COMMANDS = {
    "neighbour": forget,
    "stale": stale,
    "source": source,
    "stays": stays,
    "others": others,
    "hardware": others,
}
COMMANDS[command]()

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""way.py [-6] CLIENT SERVER WIRE PORT LENGTH [COUNT]: datagrams of so many bytes, which are echoed.

Prints, as JSON, what arrives of them at the WIRE: `longest`, the IP length; `pcp`, the priorities
of the VLAN tags; and `refused`: how many ICMP messages "fragmentation needed" or "packet too big"
have come back.
"""

import json
import socket
import struct
import sys
import time

from connection import Namespace

SOL_PACKET, AUXDATA, TAGGED = 263, 8, 16
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PROBE = 10, 23, 3


def tap(namespace, device):
    with namespace:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    sock.setsockopt(SOL_PACKET, AUXDATA, 1)
    sock.bind((device, 0))
    sock.setblocking(False)
    return sock


def packets(sock):
    """IP packets without options that came in, with the tag's TCI."""
    while True:
        try:
            data, control, _, addr = sock.recvmsg(65535, 512)
        except BlockingIOError:
            return
        if addr[2] == socket.PACKET_OUTGOING or data[:1] not in b"\x45\x60":
            continue
        tci = None
        for _, _, value in control:
            status, _, _, _, _, tag, _ = struct.unpack("IIIHHHH", value[:20])
            tci = tag if status & TAGGED else None
        yield data, tci


def is_datagram(data, port):
    """To that port."""
    proto, at = (data[9], 20) if data[0] >> 4 == 4 else (data[6], 40)
    return proto == socket.IPPROTO_UDP and data[at + 2:at + 4] == struct.pack("!H", port)


def length_of(data):
    at, header = (2, 0) if data[0] >> 4 == 4 else (4, 40)
    return header + struct.unpack_from("!H", data, at)[0]


def is_refusal(data):
    if data[0] >> 4 == 4:
        return data[9] == socket.IPPROTO_ICMP and data[20:22] == b"\x03\x04"
    return data[6] == socket.IPPROTO_ICMPV6 and data[40] == 2


def main(six, client, server, wire, port, length, count="50"):
    client, server = Namespace(client), Namespace(server)
    port = int(port)
    family, to, source = socket.AF_INET, "10.0.2.2", "192.168.1.2"
    level, option = socket.IPPROTO_IP, IP_MTU_DISCOVER
    if six:
        family, to, source = socket.AF_INET6, "fd00:2::2", "fd00:1::2"
        level, option = socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER
    with server:
        echo = socket.socket(family, socket.SOCK_DGRAM)
    echo.bind((to, port))
    echo.setblocking(False)
    with client:
        sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(level, option, PROBE)
    sock.bind((source, port))
    sock.connect((to, port))
    sock.setblocking(False)
    at_wire, at_client = tap(server, wire), tap(client, "wire0")
    longest, pcps, refused = 0, set(), 0

    for _ in range(int(count)):
        try:
            sock.send(b"x" * int(length))
        except OSError:  # what an ICMP message has left
            pass
        time.sleep(0.02)  # the pace
        for end in (echo, sock):
            try:
                data, addr = end.recvfrom(65535)
                if end is echo:
                    echo.sendto(data[:64], addr)
            except OSError:
                pass
        for data, tci in packets(at_wire):
            if is_datagram(data, port):
                longest = max(longest, length_of(data))
                pcps.add(None if tci is None else tci >> 13)
        refused += sum(is_refusal(data) for data, _ in packets(at_client))
    print(json.dumps({"longest": longest, "pcp": sorted(pcps, key=str), "refused": refused}))


words = sys.argv[1:]
main("-6" in words, *(word for word in words if word != "-6"))

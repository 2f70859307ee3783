#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""scale.py: what many flows take. Makes them from both ends, measures, and prints JSON.

Times are in seconds, memory in bytes; null means that it did not happen within --limit seconds.
"""

import argparse
import json
import socket
import struct
import subprocess
import sys
import time

from connection import Namespace
from nic import counters
from wait import until

PORTS = 50000  # of each client


def rules():
    return counters()["rules"]


def seconds_until(condition, limit):
    start = time.monotonic()
    return round(time.monotonic() - start, 3) if until(condition, limit) else None


def busy_share(seconds):
    """How much of a CPU is in use meanwhile."""
    def ticks():
        with open("/proc/stat", encoding="ascii") as stat:
            return [int(word) for word in stat.readline().split()[1:9]]
    before = ticks()
    time.sleep(seconds)
    spent = [after - earlier for after, earlier in zip(ticks(), before)]
    return round(1 - (spent[3] + spent[4]) / max(sum(spent), 1), 3)


def free_memory():
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as drop:
        drop.write("3")
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        return next(int(line.split()[1]) * 1024 for line in meminfo if line.startswith("MemFree"))


def mac_of(namespace, device):
    links = subprocess.run(["ip", "-n", namespace, "-json", "link", "show", device],
                           check=True, capture_output=True).stdout
    return bytes.fromhex(json.loads(links)[0]["address"].replace(":", ""))


class Wire:
    """A cable's end, into which UDP frames are put."""

    def __init__(self, namespace, device, to):
        self.to = to
        with Namespace(namespace):
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self.sock.bind((device, 0))

    def frame(self, mac, source, dest):
        """A frame from there, all but the ports, which are at [34:38]."""
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 36, 0, 0x4000, 64, 17, 0, source, dest)
        words = sum(struct.unpack("!10H", ip))
        words = (words & 0xffff) + (words >> 16)
        ip = ip[:10] + struct.pack("!H", 0xffff - (words & 0xffff) - (words >> 16)) + ip[12:]
        udp = struct.pack("!HHHH", 0, 0, 16, 0) + b"scale..!"
        return bytearray(self.to + mac + b"\x08\0" + ip + udp)


class Scale:
    def __init__(self, args):
        self.args = args
        self.result = {"module": args.module, "flows": args.flows, "limit_s": args.limit}
        self.client = Wire(args.client, "wire0", mac_of(args.router, "nic0"))
        self.server = Wire(args.server, "wire1", mac_of(args.router, "nic1"))

    def in_router(self, *command, **options):
        subprocess.run(["nsenter", f"--net=/run/netns/{self.args.router}", *command], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)

    def frames(self):
        """A packet there and one back for each flow."""
        for number in range(self.args.flows):
            host, port = divmod(number, PORTS)
            if port == 0:
                client = bytes((10, 128 + (host >> 16), host >> 8 & 255, 1 + (host & 255)))
                pairs = [self.pair(client, n) for n in range(self.args.servers)]
            there, back = pairs[number % self.args.servers]
            struct.pack_into("!HH", there, 34, 1024 + port, 9)
            struct.pack_into("!HH", back, 34, 9, 1024 + port)
            yield there, back

    def pair(self, client, number):
        address, mac = bytes((10, 0, 2, 100 + number)), bytes((2, 0, 0, 0, 0, 100 + number))
        return (self.client.frame(b"\x02\0\0\0\2\1", client, address),
                self.server.frame(mac, address, client))

    def fill(self):
        """All flows are in the NIC."""
        args, result = self.args, self.result
        self.in_router("nft", "-f", "-", input=args.ruleset.encode())
        progress, start = [], time.monotonic()
        for number, (there, back) in enumerate(self.frames()):
            self.client.sock.send(there)
            self.server.sock.send(back)
            if number % max(1, args.flows // 50) == 0:
                progress.append((round(time.monotonic() - start, 2), rules()))
        result["offered_s"] = round(time.monotonic() - start, 2)
        until(lambda: rules() >= 2 * args.flows, args.limit)
        result["offloaded_s"] = round(time.monotonic() - start, 2)
        result["progress"] = progress + [(result["offloaded_s"], rules())]
        if rules() < 2 * args.flows:
            sys.exit(f"only {rules()} of {2 * args.flows} rules are in the NIC")

    def event(self, *command, most):
        """Until the NIC has no more rules than that."""
        self.in_router(*command)
        return seconds_until(lambda: rules() <= most, self.args.limit)

    def memory(self):
        free = free_memory()
        self.fill()
        self.result["bytes_per_flow"] = round((free - free_memory()) / self.args.flows)

    def events(self):
        args, result = self.args, self.result
        self.fill()
        result["idle_cpu"] = busy_share(10)
        self.in_router("ip", "route", "add", "203.0.113.0/24", "via", "10.0.2.100")
        result["unrelated_route_cpu_s"] = round(10 * (busy_share(10) - result["idle_cpu"]), 2)
        mine = 2 * len(range(0, args.flows, args.servers))
        result["neighbour_s"] = self.event(
            "ip", "neigh", "replace", "10.0.2.100", "lladdr", "02:00:00:00:03:00", "dev", "nic1",
            "nud", "permanent", most=2 * args.flows - mine)
        result["route_s"] = self.event(
            "ip", "route", "replace", "10.128.0.0/9", "via", "192.168.1.3", most=0)
        self.in_router("nft", "flush", "ruleset")

    def flush(self):
        self.fill()
        start = time.monotonic()
        self.in_router("nft", "flush", "ruleset")
        self.result["flush_s"] = round(time.monotonic() - start, 3)
        self.result["rules_after_flush"] = rules()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("memory", "events", "flush"))
    parser.add_argument("--module", required=True)
    parser.add_argument("--flows", type=int, required=True)
    parser.add_argument("--servers", type=int, required=True)
    parser.add_argument("--client", required=True, help="namespace")
    parser.add_argument("--server", required=True, help="namespace")
    parser.add_argument("--router", required=True, help="namespace")
    parser.add_argument("--ruleset", required=True, help="what nft is to load")
    parser.add_argument("--limit", type=float, required=True)
    args = parser.parse_args()
    scale = Scale(args)
    getattr(scale, args.what)()
    print("json:", json.dumps(scale.result))


if __name__ == "__main__":
    main()

#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""core.py: what flowbench measures of one flowtable type after the other, as JSON lines.

See flowbench.h. Times are in nanoseconds; on a machine that counts instructions they are these.
"""

import argparse
import contextlib
import ctypes
import json
import os
import socket
import struct
import subprocess
import time
from pathlib import Path

BENCH = Path("/sys/kernel/debug/flowbench")
C_MODULE = "nf_flow_table_inet"
LIFETIME = 30  # what flows have by default
# A timer tells, on idle CPUs too: less often for what waits for C's garbage collector.
SAMPLE_NS = {"offer": 50000, "evict": 50000, "flush": 50000}
SAMPLE_IDLE_NS = 200000
PACKETS = 6400

WORLD = """
addr add 192.168.1.1/24 dev bench0
addr add 10.0.2.1/24 dev bench1
link set bench0 up
link set bench1 up
route add 10.128.0.0/9 via 192.168.1.2
route add 10.64.0.0/10 via 10.0.2.2
neigh replace 192.168.1.2 lladdr 02:00:00:00:01:02 dev bench0 nud permanent
neigh replace 192.168.1.3 lladdr 02:00:00:00:01:03 dev bench0 nud permanent
neigh replace 10.0.2.2 lladdr 02:00:00:00:02:02 dev bench1 nud permanent
"""

RULESET = """
table inet fw {
    flowtable ft {
        hook ingress priority 0
        devices = { bench0, bench1 }
        %s
        counter
    }
    chain forward {
        type filter hook forward priority 0; policy accept;
        ct state established meta l4proto { tcp, udp } flow add @ft
    }
}
"""


def do(command):
    """A command of flowbench; its answer."""
    (BENCH / "do").write_text(command, encoding="ascii")
    lines = (BENCH / "do").read_text(encoding="ascii").splitlines()
    return {name: int(value) for name, value in (line.split("=") for line in lines)}


def number(name):
    return int((BENCH / name).read_text(encoding="ascii"))


def sysctl(name, value):
    Path("/proc/sys/net/netfilter", name).write_text(f"{value}\n", encoding="ascii")


def kernel_memory():
    """All that is allocated, but for what programs and files take, and pages of their own."""
    for _ in range(2):
        Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
        refresh = Path("/proc/sys/vm/stat_refresh")
        if refresh.exists():
            refresh.write_text("1", encoding="ascii")
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in meminfo}
    return sizes["Slab"] + sizes["VmallocUsed"] + sizes["Percpu"]


def wait_for(condition, what):
    limit = time.monotonic() + 600
    while not condition():
        if time.monotonic() > limit:
            raise TimeoutError(what)
        time.sleep(0.01)


class Nft:
    """nft, without the start of a program."""

    def __init__(self):
        self.library = ctypes.CDLL("libnftables.so.1")
        self.library.nft_ctx_new.restype = ctypes.c_void_p
        self.context = ctypes.c_void_p(self.library.nft_ctx_new(0))

    def __call__(self, commands):
        if self.library.nft_run_cmd_from_buffer(self.context, commands.encode()):
            raise ValueError(commands)


class Route:
    """The route to all clients, changed without the start of a program."""

    RTM_NEWROUTE, NLM_F_REQUEST, NLM_F_ACK, NLM_F_REPLACE = 24, 1, 4, 0x100
    RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5

    def __init__(self):
        self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self.oif = socket.if_nametoindex("bench0")
        self.gateway = 2

    def change(self):
        """To the other of the two gateways."""
        self.gateway = 5 - self.gateway
        route = struct.pack("=BBBBBBBBI", socket.AF_INET, 9, 0, 0, 254, 3, 0, 1, 0)
        for kind, value in ((self.RTA_DST, bytes((10, 128, 0, 0))),
                            (self.RTA_OIF, struct.pack("=I", self.oif)),
                            (self.RTA_GATEWAY, bytes((192, 168, 1, self.gateway)))):
            route += struct.pack("=HH", 4 + len(value), kind) + value
        flags = self.NLM_F_REQUEST | self.NLM_F_ACK | self.NLM_F_REPLACE
        header = struct.pack("=IHHII", 16 + len(route), self.RTM_NEWROUTE, flags, 0, 0)
        self.sock.send(header + route)
        error = struct.unpack_from("=i", self.sock.recv(4096), 16)[0]
        if error:
            raise OSError(-error, os.strerror(-error))


class Module:
    """One of the two flowtable types, while it is loaded."""

    def __init__(self, name, ko, nft):
        self.name, self.nft = name, nft
        if name == "c":
            subprocess.run(["modprobe", C_MODULE], check=True)
        else:
            subprocess.run(["insmod", ko], check=True)
        self.kernel_name = C_MODULE if name == "c" else name

    def load(self, flags="flags offload"):
        self.nft(RULESET % flags)

    def is_unused(self):
        path = Path("/sys/module", self.kernel_name, "refcnt")
        return path.read_text(encoding="ascii").strip() == "0"

    def flush(self):
        do("start")
        self.nft("flush ruleset")
        wait_for(self.is_unused, "the flowtable is not freed")
        do("clear")

    def unload(self):
        subprocess.run(["rmmod", self.kernel_name], check=True)


class Core:
    def __init__(self, args):
        self.args = args
        self.cpus = 1
        self.pair = 0
        self.module = None
        self.errors = 0
        self.flows = 0
        subprocess.run(["modprobe", "-a", "nf_conntrack", "nf_flow_table", "nf_tables"], check=True)
        hashsize = Path("/sys/module/nf_conntrack/parameters/hashsize")
        hashsize.write_text(str(max(65536, args.flows)), encoding="ascii")
        room = int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text(encoding="ascii"))
        sysctl("nf_conntrack_max", max(room, 2 * args.flows))
        subprocess.run(["insmod", args.flowbench, f"flows={args.flows}"], check=True)
        subprocess.run(["ip", "-batch", "-"], input=WORLD.encode(), check=True)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n", encoding="ascii")
        for timeout in ("conntrack_udp_timeout", "conntrack_udp_timeout_stream",
                        "flowtable_udp_timeout", "flowtable_tcp_timeout"):
            sysctl(f"nf_{timeout}", 86400)
        self.nft = Nft()
        self.route = Route()

    def close(self):
        self.set_cpus(os.cpu_count() or 1)
        if self.module:
            self.module.flush()
            self.module.unload()
        subprocess.run(["rmmod", "flowbench"], check=True)

    def say(self, what, **result):
        if self.args.what == "profile":
            return
        line = {"what": what, "module": self.module.name, "pair": self.pair, "cpus": self.cpus,
                "counted": self.args.what == "count", "flows": self.flows, **result}
        print(json.dumps(line), file=self.args.json, flush=True)

    @contextlib.contextmanager
    def sampling(self, what):
        """Where a profile is wanted, what is done meanwhile is in it: files beside the results."""
        if self.args.what != "profile":
            yield
            return
        out, name = Path(self.args.json.name).parent, self.module.name
        do(f"profile {SAMPLE_NS.get(what, SAMPLE_IDLE_NS)}")
        yield
        do("profile 0")
        (out / f"{what}-{name}.samples").write_bytes((BENCH / "samples").read_bytes())
        (out / f"{name}.kallsyms").write_bytes(Path("/proc/kallsyms").read_bytes())

    def begin(self, name):
        self.module = Module(name, self.args.nft_offload, self.nft)
        self.module.load()

    def done(self):
        """The module is done. Ours may not offer a driver what it has; C's does, all the time."""
        if self.module.name != "c" and number("errors") != self.errors:
            raise ValueError("cookies or matches were known to the driver")
        self.errors = number("errors")
        self.module.unload()
        self.module = None

    def connections(self, flows, proto="udp"):
        do(f"connections {proto} {flows}")
        self.flows = flows

    # --- from connections to flows with rules

    def memory(self):
        """Of a machine that has just been started."""
        before = kernel_memory()
        self.connections(self.args.flows)
        do("flows")
        # So that no queue grows, of which something would be left.
        do("offer 5000")
        self.say("memory", bytes=kernel_memory() - before)

    def offer(self, what="offer", **about):
        do("flows")
        with self.sampling(what):
            result = do("offer")
        self.say(what, **about, **result)

    def latency(self):
        do("flows")
        self.say("latency", **do("offer 10000"))

    # --- with all rules in

    def keep(self):
        sysctl("nf_flowtable_udp_timeout", LIFETIME)
        for what, rounds in (("idle", 4), ("keep", 6)):
            with self.sampling(what):
                result = do(f"{what} {rounds} {LIFETIME}")
            self.say(what, **result)
        sysctl("nf_flowtable_udp_timeout", 86400)

    def teardown(self):
        with self.sampling("teardown"):
            result = do("teardown")
        self.say("teardown", **result)

    def evict(self):
        """The C module would not."""
        if self.module.name == "c":
            do("teardown")
            return
        with self.sampling("evict"):
            do("start 0")
            self.route.change()
            result = do("until")
        self.say("evict", **result)
        do("until_empty")

    def flush(self):
        """Leaves no flowtable."""
        with self.sampling("flush"):
            do("start")
            self.nft("flush ruleset")
            result = do("stop")
            rules = number("rules")
            wait_for(self.module.is_unused, "the flowtable is not freed")
            freed = do("stop")
        self.say("flush", rules_left=rules, freed_ns=freed["ns"],
                 freed_busy_ns=freed["busy_ns"], **result)
        do("clear")

    def rates(self):
        for how, us, flows in (("busy", 0, self.args.flows), ("busy", 10, 20000),
                               ("busy", 100, 2000), ("sleep", 100, 2000),
                               ("serial", 100, 2000)):
            self.connections(min(flows, self.args.flows))
            do(f"latency {us} {how}")
            self.offer("rate", latency_us=us, how=how)
            do(f"latency 0 {how}")
            do("teardown")

    # --- packets, without a flowtable before and after

    def packets(self):
        def forwarded():
            with open("/proc/net/snmp", encoding="ascii") as snmp:
                names, values = [line.split() for line in snmp if line.startswith("Ip:")]
            return int(values[names.index("ForwDatagrams")])

        for table, flags in (("offload", "flags offload"), ("plain", "")):
            for proto in ("udp", "tcp"):
                self.connections(64, proto)
                self.module.load(flags)
                do("flows")
                do("offer")
                before = forwarded()
                do(f"packets {PACKETS}")
                result = do(f"packets {PACKETS}")
                if forwarded() != before:
                    raise ValueError("packets went past the flowtable")
                self.say("packets", packets=PACKETS, table=table, proto=proto, **result)
                self.module.flush()

    def set_cpus(self, cpus):
        self.cpus = cpus
        for cpu in Path("/sys/devices/system/cpu").glob("cpu[1-9]*/online"):
            online = int(cpu.parent.name[3:]) < cpus
            if cpu.read_text(encoding="ascii").strip() != str(int(online)):
                cpu.write_text(str(int(online)), encoding="ascii")

    # --- one module, from the first of its flows to the last

    def count(self, name):
        """On a machine that counts instructions and has just been started."""
        self.begin(name)
        self.memory()
        self.keep()
        self.teardown()
        self.offer()
        self.evict()
        self.latency()
        self.flush()
        self.packets()
        self.done()

    def all_at_once(self):
        """What concerns all flows, to the end."""
        self.offer()
        self.evict()
        self.offer()
        self.flush()
        self.done()

    def clock(self, name):
        """On a machine where time is real."""
        for cpus in (1, 2):
            self.set_cpus(cpus)
            self.begin(name)
            self.rates()
            self.connections(self.args.flows)
            if cpus == 1:
                self.offer()
                self.keep()
                self.teardown()
            self.all_at_once()

    def mass(self, name):
        """So many that only what concerns all of them is measured."""
        for cpus in (1, 2):
            self.set_cpus(cpus)
            self.begin(name)
            self.connections(self.args.flows)
            self.all_at_once()

    def profile(self, name):
        """By function, of what count() counts."""
        self.begin(name)
        self.connections(self.args.flows)
        self.offer()
        self.keep()
        self.teardown()
        self.all_at_once()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("count", "clock", "mass", "profile"))
    parser.add_argument("--flowbench", required=True, help="its file")
    parser.add_argument("--nft-offload", required=True, help="its file")
    parser.add_argument("--modules", required=True, help="c, nft_offload or both, in this order")
    parser.add_argument("--flows", type=int, required=True)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--json", type=argparse.FileType("w"), required=True)
    args = parser.parse_args()
    core = Core(args)
    try:
        for core.pair in range(args.pairs):
            # The first of a pair is the second of the next.
            modules = args.modules.split(",")
            for name in modules if core.pair % 2 == 0 else modules[::-1]:
                getattr(core, args.what)(name)
    finally:
        core.close()


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-2.0
"""world.py: routers side by side, and the cables between them and the rest of the world.

Each router is a network namespace with the ports p0 (the LAN), p1 and p2 (two uplinks) and p3 (a
box beside them) of the emulated NIC. All routers have the same names, MACs and addresses. The far
ends of their cables are in one namespace, in which nothing lives but this process: it sends the
same frames into all routers, and says what the hosts on the cables would say about their MACs.
"""

import collections
import fcntl
import itertools
import select
import socket
import struct
import subprocess
import time
from pathlib import Path

import packets
from connection import Namespace
from nic import lines_of_rules
from packets import Seen
from wait import until

ETH_P_ALL, ETH_FENCE = 3, 0x88B5
SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 263, 8, 23
SO_RCVPRIORITY, SO_PRIORITY, SO_RCVBUFFORCE = 82, 12, 33
PORTS = 4
SIOCGIFFLAGS, IFF_RUNNING = 0x8913, 0x40
LIMIT = 60  # seconds, for what never takes long
NAME = "fuzz"

ROUTER_MAC = "02:00:00:aa:00:0{}"
PREFIXES = [("192.168.1.", "fd00:1::"), ("10.0.2.", "fd00:2::"), ("10.0.3.", "fd00:3::"),
            ("10.0.4.", "fd00:4::")]
# Hosts on the cables: name: (port, last number of the addresses)
HOSTS = {"c1": (0, 2), "c2": (0, 3), "gw": (0, 4), "u1": (1, 2), "x1": (1, 3), "u2": (2, 2),
         "box": (3, 2)}
SERVERS = {"s1": ("10.9.9.9", "fd00:9::9"), "s2": ("10.8.8.8", "fd00:8::8")}

# Routing tables that rules may lead to: the other uplink, a gateway in the LAN, the box, another
# router on the first uplink's network.
TABLES = {100: "u2", 101: "gw", 102: "box", 103: "x1"}
# Connections are tracked, flowtable or not.
TRACK = ("add table inet track { chain forward { type filter hook forward priority 0;"
         " ct state new; }; }")

# So that a run has nothing by chance: no limits of rates, and no time in which a neighbour's word
# does not count.
SYSCTLS = """
net/ipv4/ip_forward=1 net/ipv6/conf/all/forwarding=1 net/ipv6/conf/default/forwarding=1
net/ipv4/icmp_ratelimit=0 net/ipv6/icmp/ratelimit=0 net/ipv4/icmp_msgs_per_sec=1000000
net/ipv4/icmp_msgs_burst=1000000
net/ipv4/conf/all/send_redirects=0 net/ipv4/conf/default/send_redirects=0
net/ipv6/conf/all/accept_dad=0 net/ipv6/conf/default/accept_dad=0
net/ipv4/conf/all/rp_filter=0 net/ipv4/conf/default/rp_filter=0
net/ipv4/fib_multipath_hash_seed=1 net/netfilter/nf_conntrack_tcp_loose=1
""".split()
OF_NEIGHBOURS = ("ipv4/neigh/{}/locktime=0", "ipv4/neigh/{}/retrans_time_ms=100",
                 "ipv6/neigh/{}/retrans_time_ms=100")


def host_addr(name, v6):
    if name in SERVERS:
        return SERVERS[name][v6]
    port, number = HOSTS[name]
    return f"{PREFIXES[port][v6]}{number}"


OWNERS = {host_addr(name, v6): name for name in HOSTS for v6 in (False, True)}


class Router:
    def __init__(self, kind, index):
        self.kind, self.index = kind, index
        self.name = f"{NAME}-{kind}"
        self.ports = range(index * PORTS, (index + 1) * PORTS)
        self.ns = None

    def write(self, path, value):
        """A sysctl; whether it could be written."""
        with self.ns:
            try:
                Path("/proc/sys", path).write_text(value, encoding="ascii")
            except OSError:
                return False
        return True

    def is_running(self, device):
        """Whether it is up for the kernel, which looks at carriers once a second."""
        with self.ns, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            flags = fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack("16sH22x", device.encode(), 0))
        return bool(struct.unpack_from("H", flags, 16)[0] & IFF_RUNNING)

    def start(self, *command, text=None):
        with self.ns:
            process = subprocess.Popen(command, stdin=subprocess.PIPE if text else None, text=True,
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if text:
            process.stdin.write(text)
            process.stdin.close()
            process.stdin = None
        return process

    def run(self, *command, text=None):
        """Its status, and what it has printed."""
        process = self.start(*command, text=text)
        out = process.communicate(timeout=LIMIT)[0]
        return process.returncode, out


class World:
    def __init__(self, kinds, nic_ko):
        self.routers = [Router(kind, index) for index, kind in enumerate(kinds)]
        self.nic_ko = nic_ko
        self.at = {name: port for name, (port, _) in HOSTS.items()}  # where a host is
        self.macs = {name: self.first_mac(name) for name in HOSTS}
        self.mute = set()  # hosts that do not say their MACs
        self.devices = [f"p{port}" for port in range(PORTS)]  # that belong into a flowtable
        self.names = {ROUTER_MAC.format(i): f"router.p{i}" for i in range(PORTS)}
        self.tags = collections.defaultdict(tuple)  # of frames of a port
        self.fences = itertools.count(1)
        self.sock = None

    # --- making and unmaking

    def build(self):
        wires = PORTS * len(self.routers)
        subprocess.run(["insmod", self.nic_ko, f"ports={wires}"], check=True)
        self.batch([], [f"netns add {name}" for name in self.namespaces()])
        self.cables = Namespace(NAME)
        with self.cables:
            for path in ("all", "default"):
                Path(f"/proc/sys/net/ipv6/conf/{path}/disable_ipv6").write_text("1", "ascii")
        batch = [f"link set wire{i} netns {NAME}" for i in range(wires)]
        for router in self.routers:
            router.ns = Namespace(router.name)
            for sysctl in SYSCTLS:
                router.write(*sysctl.split("="))
            for port, wire in enumerate(router.ports):
                batch.append(f"link set nic{wire} netns {router.name} name p{port}"
                             f" address {ROUTER_MAC.format(port)}")
        self.batch([], batch)
        self.batch(["-n", NAME], ["link add fence0 type veth peer name fence1"] + [
            f"link set {name} arp off up"
            for name in ("fence0", "fence1", *(f"wire{i}" for i in range(wires)))])
        self.open_cables()
        for name, mac in self.macs.items():
            self.names[mac] = name
        self.every_ip(["link set lo up"] + [
            line for i, (v4, v6) in enumerate(PREFIXES) for line in (
                f"link set p{i} mtu 1500 up", f"addr add {v4}1/24 dev p{i}",
                f"addr add {v6}1/64 dev p{i} nodad")] + [
            "route add 10.9.9.9 via 10.0.2.2", "route add 10.8.8.8 via 10.0.3.2",
            "route add fd00:9::9 via fd00:2::2", "route add fd00:8::8 via fd00:3::2"] + [
            f"route add default via {host_addr(gateway, v6)} table {table}"
            for table, gateway in TABLES.items() for v6 in (False, True)])
        for router in self.routers:
            router.run("nft", TRACK)
        self.tune(range(PORTS))

    def tune(self, ports):
        """Devices that are new: their timers; and until the kernel has noticed that they are up."""
        until(lambda: all(router.is_running(name) for router in self.routers
                          for name in {*self.devices, *(f"p{port}" for port in ports)}), LIMIT)
        for router in self.routers:
            for port in ports:
                for sysctl in OF_NEIGHBOURS:
                    router.write(*f"net/{sysctl.format(f'p{port}')}".split("="))

    def unmake(self):
        if self.sock:
            self.sock.close()
        for router in self.routers:
            router.ns = None
        self.cables = None
        self.batch(["-force"], [f"netns delete {name}" for name in self.namespaces()], check=False)
        end = time.monotonic() + LIMIT
        remove = ["rmmod", "emunic"]
        while subprocess.run(remove, stderr=subprocess.DEVNULL, check=False).returncode:
            if time.monotonic() > end:
                raise RuntimeError("the emulated NIC cannot be unloaded")
            time.sleep(0.01)

    def namespaces(self):
        return [NAME, *(router.name for router in self.routers)]

    def batch(self, options, lines, check=True):
        subprocess.run(["ip", *options, "-batch", "-"], input="\n".join(lines), text=True,
                       check=check, stderr=None if check else subprocess.DEVNULL)

    def every_ip(self, lines):
        for router in self.routers:
            status, out = router.run("ip", "-batch", "-", text="\n".join(lines))
            if status:
                raise RuntimeError(f"{router.kind}: ip: {out}")

    @staticmethod
    def first_mac(name):
        port, number = HOSTS[name]
        return f"02:00:00:0{port}:00:0{number}"

    def open_cables(self):
        with self.cables:
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            for level, option, value in (
                    (SOL_PACKET, PACKET_AUXDATA, 1), (SOL_PACKET, PACKET_IGNORE_OUTGOING, 1),
                    (socket.SOL_SOCKET, SO_RCVPRIORITY, 1),
                    (socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)):
                self.sock.setsockopt(level, option, value)
        self.poll = select.poll()
        self.poll.register(self.sock, select.POLLIN)
        # By the name of the cable: the router, and its port.
        self.ends = {f"wire{wire}": (router, port) for router in self.routers
                     for port, wire in enumerate(router.ports)}

    # --- frames

    def router_mac(self, port):
        """That of the routers' device with an address there, which may be a bridge."""
        return ROUTER_MAC.format(0 if self.devices[port] == "q3" else port)

    def tagged(self, port, frame):
        """With the tags that are usual there; one without a number has a priority for them."""
        frame = bytes(frame)
        priority = 0
        if frame[12:14] == b"\x81\0" and not frame[15] and not frame[14] & 0x0F:
            if not self.tags[port]:
                return frame
            priority, frame = frame[14] >> 5 << 13, frame[:12] + frame[16:]
        for tpid, tci in self.tags[port]:
            tci |= priority
            frame = frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]
        return frame

    def send(self, port, frame, only=None):
        """Into all routers, or one."""
        for router in [only] if only else self.routers:
            try:
                self.sock.sendto(frame, (f"wire{router.ports[port]}", 0))
            except OSError:
                pass  # its link is down

    def receive(self):
        """The router, its port, and a frame that has left there; None if it is a fence."""
        data, control, _, addr = self.sock.recvmsg(65536, 256)
        by_rule = False
        for level, kind, value in control:
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", value[:20])
                if status & 0x10:
                    data = data[:12] + struct.pack("!HH", tpid, tci) + data[12:]
            elif (level, kind) == (socket.SOL_SOCKET, SO_PRIORITY):
                by_rule = struct.unpack("I", value[:4])[0] == 1
        if addr[0].startswith("fence"):
            return None, None, data
        router, port = self.ends[addr[0]]
        return router, port, Seen(data, by_rule)

    def pass_fence(self):
        """All that has left before this frame of our own has come. What has come?"""
        number = next(self.fences)
        fence = b"\2" * 12 + struct.pack("!HI", ETH_FENCE, number)
        self.sock.sendto(fence, ("fence0", 0))
        while True:
            if not self.poll.poll(LIMIT * 1000):
                raise RuntimeError("a frame to ourselves does not come")
            router, port, seen = self.receive()
            if router:
                yield router, port, seen
            elif seen[:18] == fence[:18]:
                return

    def drain(self):
        """All that leaves the routers, until nothing leaves any more; their questions answered."""
        out, quiet = [], 0
        # What one fence has waited for may have something leave behind it, and so on.
        while quiet < 2:
            quiet += 1
            for router, port, seen in self.pass_fence():
                quiet = 0
                if seen.asks:
                    self.answer(router, port, seen)
                else:
                    out.append((router, port, seen))
        return out

    def answer(self, router, port, seen):
        """The question for a MAC that has left a router."""
        name = OWNERS.get(seen.asks)
        if name is None or name in self.mute or self.at[name] != port:
            return
        asker = seen.data[6:12].hex(":")
        if ":" not in seen.asks:
            frame = packets.arp_reply(self.macs[name], asker, seen.asks, seen.src)
        else:
            frame = packets.advertisement(self.macs[name], asker, seen.asks, seen.src)
        self.send(port, self.tagged(port, frame), router)

    def tell(self, name):
        """The host says its MAC to everybody."""
        mac, port = self.macs[name], self.at[name]
        for v6, everyone in ((False, "ff:ff:ff:ff:ff:ff"), (True, "33:33:00:00:00:01")):
            address = host_addr(name, v6)
            if v6:
                frame = packets.advertisement(mac, everyone, address, "ff02::1", False)
            else:
                frame = packets.arp_reply(mac, everyone, address, address)
            self.send(port, self.tagged(port, frame))

    def new_mac(self, name, number):
        port, last = HOSTS[name]
        self.macs[name] = f"02:00:00:0{port}:{number:02x}:0{last}"
        self.names[self.macs[name]] = f"{name}'{number}"
        self.tell(name)

    # --- what the routers' ports are below their addresses: what is on top is always p0 to p3

    def port(self, port, device, words):
        """The commands that make a VLAN device or a bridge of the port."""
        low = f"q{port}"
        v4, v6 = PREFIXES[port]
        lines = [f"link set p{port} down", f"link set p{port} name {low}",
                 f"addr flush dev {low}", f"link set {low} up"]
        if device == "vlan":
            self.tags[port] = ((0x8100, int(words[0])),)
            lines.append(f"link add link {low} name p{port} type vlan id {' '.join(words)}")
        else:
            # Of the LAN: the box's port is another one of it.
            lines += ["link set p3 down", "addr flush dev p3", "link set p3 name q3",
                      f"link add p{port} address {ROUTER_MAC.format(port)} type bridge"
                      f" forward_delay 0 mcast_snooping 0 {' '.join(words)}",
                      f"link set {low} master p{port}", f"link set q3 master p{port}",
                      "link set q3 up"]
            self.devices[3] = "q3"
        self.devices[port] = low
        return lines + [f"link set p{port} up", f"addr add {v4}1/24 dev p{port}",
                        f"addr add {v6}1/64 dev p{port} nodad"] + [
            f"route replace {address} via {host_addr(via, v6)}"
            for server, via in (("s1", "u1"), ("s2", "u2")) if HOSTS[via][0] == port
            for v6, address in enumerate(SERVERS[server])] + [
            f"route replace default via {host_addr(via, v6)} table {table}"
            for table, via in TABLES.items() if HOSTS[via][0] == port for v6 in (False, True)]

    def rules(self, router):
        """The cookies of the NIC's rules for frames that come in by this router's ports."""
        words = {f"in=nic{wire}" for wire in router.ports}
        return {line.partition(" ")[0] for line in lines_of_rules("") if words & set(line.split())}

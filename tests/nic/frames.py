#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Frame by frame through the emulated NIC: frames.py CLIENT_NS SERVER_NS

wire0 is in CLIENT_NS, wire1 in SERVER_NS, nic0 and nic1 here, all of them up.
Each case installs one tc flower rule on nic0, sends one frame on wire0, and
compares every byte of what leaves: at wire1 if the hardware is to take the
frame, else at nic0, unchanged. Checksums of expected frames are computed from
nothing, not by increments. Prints "ok frame: NAME" or "not ok frame: NAME" lines.
"""

import os
import select
import struct
import subprocess
import sys

from connection import Namespace
from frame import MARK, Frame, Tap
from nic import counters, knob, rules

NEW_DMAC = bytes.fromhex("020000000501")
NEW_SMAC = bytes.fromhex("0200000005f1")
N4, M4 = "10.0.1.99", "10.0.1.77"
N6, M6 = "fd01::99", "fd01::77"
TIMEOUT = float(os.environ.get("FRAME_TIMEOUT", "5"))


def run(*args, stdin=None):
    res = subprocess.run(args, input=stdin, capture_output=True, text=True)
    if res.returncode:
        raise RuntimeError(f"{' '.join(args)}: {res.stderr.strip()}")
    return res


def rule_hits():
    """Packets and bytes of the one rule."""
    (rule,) = rules()
    return int(rule["packets"]), int(rule["bytes"])


def flower(frame):
    """The tc arguments that match a frame."""
    f = frame.f
    l3 = "ip" if f["v"] == 4 else "ipv6"
    name = {0x8100: "802.1Q", 0x88A8: "802.1ad"}
    chain = [name[t] for t, _ in f["tags"]]
    out = ""
    for i, (_, tci) in enumerate(f["tags"]):
        inner = chain[i + 1] if i + 1 < len(chain) else {"ip": "ipv4"}.get(l3, l3)
        p = "c" if i else ""
        out += f" {p}vlan_id {tci & 0xFFF} {p}vlan_ethtype {inner}"
    if f["pppoe"] is not None:
        out += f" pppoe_sid {f['pppoe']} ppp_proto {l3}"
    proto = chain[0] if chain else "ppp_ses" if f["pppoe"] is not None else l3
    out += f" ip_proto {f['proto'] if f['proto'] != 'gre' else '2f'}"
    out += f" src_ip {f['saddr']} dst_ip {f['daddr']}"
    if f["proto"] != "gre":
        out += f" src_port {f['sport']} dst_port {f['dport']}"
    return f"protocol {proto} flower skip_sw{out}"


MACS = f"munge eth src set {NEW_SMAC.hex(':')} munge eth dst set {NEW_DMAC.hex(':')}"


class Bench:
    def __init__(self, client, server):
        with Namespace(client):
            self.wire0 = Tap("wire0")
        with Namespace(server):
            self.wire1 = Tap("wire1")
        self.nic0 = Tap("nic0")
        self.installed = None
        self.pref = 0

    def install(self, rule, accept):
        """The rule on the NIC, alone. tc keeps its copy of the old one, with skip_sw no harm."""
        if (rule, accept) == self.installed:
            return
        self.installed = None
        knob("accept", "default " + accept)
        knob("evict", "all")
        self.pref += 1
        run(*f"tc filter add dev nic0 ingress pref {self.pref} {rule}".split())
        self.installed = (rule, accept)

    def result(self, name, problem):
        verdict = "not ok" if problem else "ok"
        print(f"{verdict} frame: {name}{': ' + problem if problem else ''}", flush=True)

    def wait(self, timeout=TIMEOUT):
        """The first marked frame at wire1 or nic0."""
        taps = {self.wire1.sock: ("wire1", self.wire1), self.nic0.sock: ("nic0", self.nic0)}
        while True:
            ready, _, _ = select.select(list(taps), [], [], timeout)
            if not ready:
                return "nowhere", b""
            for sock in ready:
                name, tap = taps[sock]
                data = tap.recv()
                if data is not None and MARK[:8] in data:
                    return name, data

    def case(
        self, name, frame, out=None, actions=MACS, tail="", match=None, exception=None, accept=""
    ):
        """out: the frame expected at wire1; None: the CPU gets the frame as it is."""
        try:
            problem = self.try_case(frame, out, actions, tail, match or frame, exception, accept)
        except RuntimeError as e:
            problem = str(e)
        self.result(name, problem)

    def try_case(self, frame, out, actions, tail, match, exception, accept):
        rule = f"{flower(match)} action pedit ex {actions} pipe{tail}"
        self.install(f"{rule} action mirred egress redirect dev nic1", accept)
        hits = rule_hits()
        before = counters()
        data = bytes(frame)
        while self.wait(0)[0] != "nowhere":
            pass
        self.wire0.sock.send(data)
        where, got = self.wait()
        after = counters()
        again, _ = self.wait(0)
        want_where, want = ("wire1", bytes(out)) if out else ("nic0", data)
        if where != want_where:
            return f"went to {where}, not to {want_where}"
        if again != "nowhere":
            return f"came twice, again at {again}"
        if got != want:
            return f"\n# sent {data.hex()}\n# want {want.hex()}\n# got  {got.hex()}"
        kind = "nic" if out else "cpu"
        for unit, n in (("packets", 1), ("bytes", len(data))):
            c = f"nic0.{kind}_{unit}"
            if after[c] - before[c] != n:
                return f"{c} went up by {after[c] - before[c]}, not {n}"
        excs = {
            k: after[k] - before[k]
            for k in after
            if k.startswith("exception_") and after[k] != before[k]
        }
        if excs != ({f"exception_{exception}": 1} if exception else {}):
            return f"exceptions: {excs}"
        want_hits = (hits[0] + 1, hits[1] + len(data)) if out else hits
        if rule_hits() != want_hits:
            return f"the rule counts {rule_hits()}, not {want_hits}"
        return ""


def udp_sum_becomes(frame, want):
    """The frame, with a payload that makes its UDP checksum come out as want."""
    for i in range(0x10000):
        f = frame.change(payload=MARK + struct.pack("!H", i))
        if struct.unpack("!H", f.l4_bytes()[1][6:8])[0] == want:
            return f.f["payload"]
    raise RuntimeError("no such payload")


def forward(b, v):
    new, back = (N4, M4) if v == 4 else (N6, M6)
    ip = "ip" if v == 4 else "ip6"
    out = dict(src=NEW_SMAC, dst=NEW_DMAC, ttl=63)
    for proto in ("udp", "tcp"):
        base = Frame(v=v, proto=proto)
        # pedit has written the headers: let csum complete what it touched
        done = f" action csum {proto}" + (" and ip4h pipe" if v == 4 else " pipe")
        snat = f"{MACS} munge {ip} src set {new} munge {proto} sport set 6000"
        dnat = f"{MACS} munge {ip} dst set {back} munge {proto} dport set 7000"
        both = f"{snat} munge {ip} dst set {back} munge {proto} dport set 7000"
        ip_s, ip_d = dict(saddr=new, sport=6000), dict(daddr=back, dport=7000)
        b.case(f"v{v} {proto} routed", base, base.change(**out))
        b.case(f"v{v} {proto} snat", base, base.change(**out, **ip_s), snat, tail=done)
        b.case(f"v{v} {proto} dnat", base, base.change(**out, **ip_d), dnat, tail=done)
        b.case(f"v{v} {proto} snat+dnat", base, base.change(**out, **ip_s, **ip_d), both, tail=done)
        b.case(
            f"v{v} {proto} port only",
            base,
            base.change(**out, sport=6000),
            f"{MACS} munge {proto} sport set 6000",
            tail=done,
        )
        big = base.change(payload=MARK * 120)
        b.case(f"v{v} {proto} 1440 bytes", big, big.change(**out, **ip_s), snat, tail=done)
    base = Frame(v=v)
    snat = f"{MACS} munge {ip} src set {new} munge udp sport set 6000"
    moved = dict(**out, saddr=new, sport=6000)
    if v == 4:
        zero = base.change(udp_zero=True)
        b.case("v4 udp checksum 0 stays 0", zero, zero.change(**moved), snat)
    p = udp_sum_becomes(base.change(**moved), 0xFFFF)
    b.case(
        f"v{v} udp checksum becomes ffff",
        base.change(payload=p),
        base.change(**moved, payload=p),
        snat,
    )
    p = udp_sum_becomes(base, 0xFFFF)
    b.case(
        f"v{v} udp checksum was ffff", base.change(payload=p), base.change(**moved, payload=p), snat
    )
    odd = base.change(payload=MARK + b"x", tos=0xB9)
    b.case(f"v{v} odd length, dscp and ecn", odd, odd.change(**moved), snat)
    gre = base.change(proto="gre")
    b.case(f"v{v} gre", gre, gre.change(**out))


def v4_header_checksums(b):
    """Decrements over every carry of the header checksum."""
    out = dict(src=NEW_SMAC, dst=NEW_DMAC, ttl=63)
    for want in (0x0000, 0xFEFF, 0xFF00, 0xFFFE, 0x00FF):
        for ident in range(0x10000):
            f = Frame(ident=ident)
            if struct.unpack("!H", f.l3_bytes()[10:12])[0] == want:
                break
        else:
            continue
        b.case(f"v4 header checksum {want:04x}", f, f.change(**out))


def tags(b):
    q, ad = 0x8100, 0x88A8
    out = dict(src=NEW_SMAC, dst=NEW_DMAC, ttl=63)
    base = Frame()
    one = base.change(tags=((q, 7),))
    two = base.change(tags=((q, 100), (q, 200)))
    pop = " action vlan pop pipe"

    def push(vid, proto="802.1Q"):
        return f" action vlan push id {vid} protocol {proto} pipe"

    b.case("vlan pop", one, base.change(**out), tail=pop)
    b.case(
        "vlan pop, priority ignored",
        one.change(tags=((q, 5 << 13 | 7),)),
        base.change(**out),
        tail=pop,
    )
    b.case("vlan push", base, one.change(**out), tail=push(7))
    b.case("vlan pop and push", one, base.change(**out, tags=((q, 9),)), tail=pop + push(9))
    # as mlx5: the tag that would be popped gets the ID that would be pushed
    b.case(
        "vlan rewritten, priority kept",
        one.change(tags=((q, 5 << 13 | 1 << 12 | 7),)),
        one.change(**out, tags=((q, 5 << 13 | 1 << 12 | 9),)),
        tail=pop + push(9),
        accept="+vlan_rewrite",
    )
    b.case(
        "vlan rewritten, protocol kept",
        one,
        one.change(**out, tags=((q, 9),)),
        tail=pop + push(9, "802.1ad"),
        accept="+vlan_rewrite +8021ad",
    )
    b.case("vlan kept", one, one.change(**out))
    b.case(
        "vlan kept with priority, another pushed",
        one.change(tags=((q, 3 << 13 | 7),)),
        base.change(**out, tags=((q, 9), (q, 3 << 13 | 7))),
        tail=push(9),
    )
    b.case("qinq pop both", two, base.change(**out), tail=pop + pop)
    b.case("qinq pop outer", two, base.change(**out, tags=((q, 200),)), tail=pop)
    b.case("qinq push: the last is outer", base, two.change(**out), tail=push(200) + push(100))
    b.case(
        "qinq push, outer first",
        base,
        two.change(**out),
        tail=push(100) + push(200),
        accept="+push_outer_first",
    )
    s_c = base.change(tags=((ad, 100), (q, 200)))
    b.case("802.1ad pop both", s_c, base.change(**out), tail=pop + pop, accept="+8021ad")
    b.case(
        "802.1ad push",
        base,
        s_c.change(**out),
        tail=push(200) + push(100, "802.1ad"),
        accept="+8021ad",
    )
    b.case("untagged rule, tagged frame", one, match=base)
    b.case("tagged rule, untagged frame", base, match=one)
    b.case("vlan 7 rule, vlan 8 frame", one.change(tags=((q, 8),)), match=one)
    b.case("802.1Q rule, 802.1ad frame", one.change(tags=((ad, 7),)), match=one)
    b.case("three tags", base.change(tags=((q, 1), (q, 100), (q, 200))), match=two)
    ses = base.change(pppoe=5)
    b.case("plain rule, pppoe frame", ses, match=base)
    b.case("pppoe decapsulated", ses, base.change(**out), match=base, accept="+pppoe_decap")
    b.case(
        "pppoe decapsulated in a vlan",
        ses.change(tags=((q, 7),)),
        base.change(**out),
        match=one,
        tail=pop,
        accept="+pppoe_decap",
    )
    b.case("pppoe session matched", ses, base.change(**out), accept="+pppoe_match")
    b.case("pppoe other session", ses.change(pppoe=6), match=ses, accept="+pppoe_match")


def exceptions(b):
    base = Frame()
    tcp = Frame(proto="tcp")
    six = Frame(v=6)
    for flag, bit in (("fin", 1), ("syn", 2), ("rst", 4)):
        b.case(f"tcp {flag}", tcp.change(flags=0x10 | bit), match=tcp, exception="tcp_flags")
    b.case(
        "tcp psh is no exception",
        tcp.change(flags=0x18),
        tcp.change(flags=0x18, src=NEW_SMAC, dst=NEW_DMAC, ttl=63),
    )
    for v, f in ((4, base), (6, six)):
        for ttl in (0, 1):
            b.case(f"v{v} ttl {ttl}", f.change(ttl=ttl), exception="ttl")
        b.case(f"v{v} ttl 2", f.change(ttl=2), f.change(src=NEW_SMAC, dst=NEW_DMAC, ttl=1))
        b.case(
            f"v{v} frame shorter than its header says", f.change(cut=4), match=f, exception="other"
        )
        b.case(f"v{v} multicast mac", f.change(dst=bytes.fromhex("01005e000001")), match=f)
        b.case(f"v{v} other port", f.change(dport=5001), match=f)
        b.case(f"v{v} other protocol", f.change(proto="tcp"), match=f)
        b.case(
            f"v{v} padded frame",
            f.change(pad=20),
            f.change(pad=20, src=NEW_SMAC, dst=NEW_DMAC, ttl=63),
        )
    b.case("v4 options", base.change(options=b"\x01\x01\x01\x00"), match=base, exception="options")
    b.case("v4 first fragment", base.change(frag=0x2000), match=base, exception="fragment")
    b.case("v4 last fragment", base.change(frag=0x0010), match=base, exception="fragment")
    b.case("v4 bad header checksum", base.change(bad_ip_csum=True), match=base, exception="other")
    b.case(
        "tcp header cut", tcp.change(l4=b"\x0f\xa0\x13\x88" + MARK), match=tcp, exception="other"
    )
    b.case("v6 hop-by-hop", six.change(ext=0), match=six, exception="options")
    b.case("v6 fragment header", six.change(ext=44), match=six, exception="fragment")
    run("ip", "link", "set", "nic1", "mtu", "1000")
    for v, head in ((4, 28), (6, 48)):
        fits = Frame(v=v, payload=MARK.ljust(1000 - head, b"."))
        over = Frame(v=v, payload=MARK.ljust(1001 - head, b"."))
        b.case(
            f"v{v} exactly the egress mtu", fits, fits.change(src=NEW_SMAC, dst=NEW_DMAC, ttl=63)
        )
        b.case(f"v{v} over the egress mtu", over, exception="mtu")
    tagged = Frame(payload=MARK.ljust(1000 - 28, b"."))
    b.case(
        "a pushed tag is outside the mtu",
        tagged,
        tagged.change(src=NEW_SMAC, dst=NEW_DMAC, ttl=63, tags=((0x8100, 7),)),
        tail=" action vlan push id 7 pipe",
    )
    run("ip", "link", "set", "nic1", "mtu", "1500")
    run("ip", "link", "set", "nic1", "down")
    b.case("egress port down", base, exception="egress")
    run("ip", "link", "set", "nic1", "up")


def ttl_as_told(b):
    out = dict(src=NEW_SMAC, dst=NEW_DMAC)
    for v, words in ((4, "ip ttl"), (6, "ip6 hoplimit")):
        f = Frame(v=v)
        b.case(f"v{v} no ttl action, no decrement", f, f.change(**out), accept="+ttl_add")
        b.case(
            f"v{v} ttl added -1",
            f,
            f.change(**out, ttl=63),
            f"{MACS} munge {words} add 255",
            accept="+ttl_add",
        )
        b.case(
            f"v{v} ttl added -1, taken and not done",
            f,
            f.change(**out),
            f"{MACS} munge {words} add 255",
            accept="+any_action",
        )
        b.case(
            f"v{v} ttl set",
            f,
            f.change(**out, ttl=99),
            f"{MACS} munge {words} set 99",
            accept="+ttl_add",
        )


def own_mac(b):
    with open("/sys/class/net/nic1/address") as f:
        own = bytes.fromhex(f.read().strip().replace(":", ""))
    for v, smac in ((4, NEW_SMAC), (6, own)):
        f = Frame(v=v)
        out = f.change(dst=NEW_DMAC, src=smac, ttl=63)
        b.case(f"v{v} source mac of the port, for IPv6", f, out, accept="+v6_port_mac")


def main():
    b = Bench(sys.argv[1], sys.argv[2])
    for v in (4, 6):
        forward(b, v)
    v4_header_checksums(b)
    tags(b)
    exceptions(b)
    ttl_as_told(b)
    own_mac(b)
    knob("accept", "default")
    run("tc", "filter", "del", "dev", "nic0", "ingress")


if __name__ == "__main__":
    main()

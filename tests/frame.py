# SPDX-License-Identifier: GPL-2.0
"""frame.py: frames, made from their fields, and raw sockets that send and receive them."""

import socket
import struct

ETH_P_ALL = 3
SOL_PACKET, PACKET_AUXDATA = 263, 8
CMAC = bytes.fromhex("020000000c01")
RMAC = bytes.fromhex("026e69630000")
C4, S4 = "10.0.0.2", "10.0.1.2"
C6, S6 = "fd00::2", "fd01::2"
MARK = b"emunic-frame"  # of a payload


def csum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def addr(text):
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


class Frame:
    """A frame as its fields; change() gives the one that should leave."""

    def __init__(self, **fields):
        self.f = dict(
            dst=RMAC,
            src=CMAC,
            tags=(),
            pppoe=None,
            v=4,
            saddr=None,
            daddr=None,
            ttl=64,
            tos=0,
            ident=1,
            frag=0,
            options=b"",
            proto="udp",
            sport=4000,
            dport=5000,
            flags=0x10,
            seq=7,
            ack=9,
            tcp_options=b"",
            payload=MARK,
            udp_zero=False,
            ext=None,
            l4=None,
            bad_ip_csum=False,
            cut=0,
            pad=0,
        )
        self.f.update(fields)
        v6 = self.f["v"] == 6
        self.f["saddr"] = self.f["saddr"] or (C6 if v6 else C4)
        self.f["daddr"] = self.f["daddr"] or (S6 if v6 else S4)

    def change(self, **fields):
        return Frame(**{**self.f, **fields})

    def l4_bytes(self):
        f = self.f
        num = {"tcp": 6, "udp": 17, "gre": 47}[f["proto"]]
        if f["l4"] is not None:
            return num, f["l4"]
        if f["proto"] == "gre":
            return num, struct.pack("!HH", 0, 0x0800) + f["payload"]
        ports = struct.pack("!HH", f["sport"], f["dport"])
        if f["proto"] == "udp":
            head, tail = ports + struct.pack("!H", 8 + len(f["payload"])), b""
        else:
            words = 5 + len(f["tcp_options"]) // 4
            head = ports + struct.pack("!IIBBH", f["seq"], f["ack"], words << 4, f["flags"], 500)
            tail = struct.pack("!H", 0) + f["tcp_options"]
        body = head + b"\0\0" + tail + f["payload"]
        if f["v"] == 4:
            pseudo = struct.pack("!BBH", 0, num, len(body))
        else:
            pseudo = struct.pack("!II", len(body), num)
        check = csum(addr(f["saddr"]) + addr(f["daddr"]) + pseudo + body)
        if f["proto"] == "udp":
            check = 0 if f["udp_zero"] else check or 0xFFFF
        return num, head + struct.pack("!H", check) + tail + f["payload"]

    def l3_bytes(self):
        f = self.f
        num, l4 = self.l4_bytes()
        if f["v"] == 6:
            ext = b""
            if f["ext"] is not None:
                ext = struct.pack("!BB", num, 0) + b"\1\4\0\0\0\0"
                num = f["ext"]
            return (
                struct.pack("!IHBB", 6 << 28 | f["tos"] << 20, len(ext + l4), num, f["ttl"])
                + addr(f["saddr"])
                + addr(f["daddr"])
                + ext
                + l4
            )
        ihl = 5 + len(f["options"]) // 4
        start = struct.pack(
            "!BBHHHBB",
            4 << 4 | ihl,
            f["tos"],
            4 * ihl + len(l4),
            f["ident"],
            f["frag"],
            f["ttl"],
            num,
        )
        rest = addr(f["saddr"]) + addr(f["daddr"]) + f["options"]
        check = csum(start + rest) ^ (0x5555 if f["bad_ip_csum"] else 0)
        return start + struct.pack("!H", check) + rest + l4

    def __bytes__(self):
        f = self.f
        l3 = self.l3_bytes()
        out = f["dst"] + f["src"]
        for tpid, tci in f["tags"]:
            out += struct.pack("!HH", tpid, tci)
        if f["pppoe"] is not None:
            out += struct.pack(
                "!HBBHHH", 0x8864, 0x11, 0, f["pppoe"], len(l3) + 2, 0x21 if f["v"] == 4 else 0x57
            )
        else:
            out += struct.pack("!H", 0x0800 if f["v"] == 4 else 0x86DD)
        out += l3
        return out[: len(out) - f["cut"]] + b"\0" * f["pad"]


class Tap:
    """A raw socket on a device, with the VLAN tag that the kernel strips put back."""

    def __init__(self, dev):
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.sock.bind((dev, ETH_P_ALL))

    def recv(self):
        """A frame that has come; None if it is one that was sent from here."""
        data, anc, _, sender = self.sock.recvmsg(65536, 256)
        if sender[2] == socket.PACKET_OUTGOING:
            return None
        for level, kind, value in anc:
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", value[:20])
                if status & 0x10:
                    data = data[:12] + struct.pack("!HH", tpid, tci) + data[12:]
        return data

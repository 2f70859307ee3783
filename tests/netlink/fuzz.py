#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""fuzz.py COUNT SEED: sends so many requests to the family nft_offload that are made from the
specification: most are as it says, the others nearly so. Each has to be answered, and what is told
has to be as the specification says. Between them, dumps are read in part, and left alone."""

import collections
import errno
import random
import socket
import struct
import sys
import time

from family import family

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED = 0x8000
SPECIAL = (0, 1, 2, 5, 17, 31, 32, 33, 127, 128, 129, 255, 5000, 65535, 1 << 31, (1 << 32) - 1)


class Maker:
    """Makes requests."""

    def __init__(self, y, rng, known):
        self.y, self.rng, self.known = y, rng, known
        self.commands = {}
        for op in y.ops.values():
            for mode, flags in ("do", 0), ("dump", NLM_F_DUMP):
                if mode in op.yaml:
                    request = op.yaml[mode].get("request", {})
                    names = request.get("attributes", [])
                    self.commands[op.name, mode] = (op.req_value, flags, names)

    def rare(self, one_in=20):
        return self.rng.randrange(one_in) == 0

    def bytes(self, length):
        return self.rng.randbytes(length)

    def attr(self, kind, payload, is_nest=False):
        kind |= NLA_F_NESTED if is_nest else 0
        length = 4 + len(payload)
        if self.rare(60):
            kind ^= self.rng.choice((NLA_F_NESTED, 0x4000, 1, 2, 64))
        if self.rare(60):
            length = self.rng.choice((0, 3, 4, length - 1, length + 1, length + 40, 65535))
        return (
            struct.pack("HH", length & 0xFFFF, kind & 0xFFFF) + payload + bytes(-len(payload) % 4)
        )

    def value(self, name, spec):
        kind = spec["type"]
        if self.rare():
            return self.bytes(self.rng.choice((0, 1, 2, 3, 4, 5, 8, 15, 16, 17, 40)))
        if name == "ifindex" and self.rng.randrange(2):
            return struct.pack("I", self.rng.choice(socket.if_nameindex())[0])
        if kind == "binary":
            return self.rng.choice(
                (
                    socket.inet_aton("192.168.1.2"),
                    socket.inet_aton("10.0.2.2"),
                    socket.inet_pton(socket.AF_INET6, "fd00:2::2"),
                    self.bytes(4),
                    self.bytes(16),
                )
            )
        size = int(kind[1:]) // 8
        if "enum" in spec and not self.rare():
            number = self.rng.choice(list(self.y.consts[spec["enum"]].entries_by_val))
        else:
            number = self.rng.choice((*SPECIAL, 6, 17, 5001, 5002, self.rng.getrandbits(32)))
        return (number & ((1 << size * 8) - 1)).to_bytes(size, sys.byteorder)

    def nest(self, set_name, names=None):
        attrs = self.y.attr_sets[set_name]
        names = list(names if names is not None else attrs)
        if self.known and set_name == "tuple" and self.rng.randrange(2):
            # One that there is, or was.
            return self.rng.choice(list(self.known))
        if not self.rare(10):
            # All conditions of a filter have to be true.
            most = self.rng.randrange(4) if set_name == "filter" else 3
            chosen = [n for n in names if self.rng.randrange(4) < most or len(names) == 1]
        else:
            chosen = self.rng.choices(list(attrs), k=self.rng.randrange(6))
        payload = b""
        for name in chosen:
            spec = attrs[name]
            if spec["type"] == "nest":
                payload += self.attr(spec.value, self.nest(spec["nested-attributes"]), True)
            elif spec["type"] in ("string", "flag", "uint"):
                payload += self.attr(spec.value, self.bytes(self.rng.randrange(9)))
            else:
                payload += self.attr(spec.value, self.value(name, spec))
        if self.rare(40):
            payload += self.attr(self.rng.randrange(300), self.bytes(self.rng.randrange(20)))
        if self.rare(80):
            payload = payload[: self.rng.randrange(len(payload) + 1)]
        return payload

    def request(self):
        """Returns a request, and its sequence number."""
        (_, mode), (cmd, flags, names) = self.rng.choice(list(self.commands.items()))
        if self.rare(40):
            cmd = self.rng.randrange(256)
        if self.rare(20):
            flags ^= NLM_F_DUMP
        payload = self.nest("message", names)
        seq = self.rng.getrandbits(31) + 1
        version = self.rng.randrange(256) if self.rare() else 1
        reserved = self.rng.getrandbits(16) if self.rare(40) else 0
        body = struct.pack("BBH", cmd, version, reserved) + payload
        header = struct.pack(
            "IHHII",
            16 + len(body),
            self.y.nlproto.family_id,
            NLM_F_REQUEST | NLM_F_ACK | flags,
            seq,
            0,
        )
        return header + body, seq


class Fuzzer:
    def __init__(self, count, seed):
        self.y = family()
        self.rng = random.Random(seed)
        self.known = collections.deque(maxlen=50)
        self.maker = Maker(self.y, self.rng, self.known)
        self.count = count
        self.answers = collections.Counter()
        self.told = collections.Counter()
        self.socks = [self.socket() for _ in range(4)]
        self.by_value = {op.rsp_value: op for op in self.y.ops.values()}

    def socket(self):
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
        sock.setsockopt(270, 11, 1)  # NETLINK_EXT_ACK
        sock.setsockopt(270, 10, 1)  # NETLINK_CAP_ACK
        sock.settimeout(60)
        return sock

    def messages(self, data):
        at = 0
        while at + 16 <= len(data):
            length, kind, _, seq, _ = struct.unpack_from("IHHII", data, at)
            yield kind, seq, data[at + 16 : at + length]
            at += (length + 3) & ~3

    def look(self, body):
        """Decodes what is told; it is an error if that is not as the specification says."""
        from lib.ynl import NlAttrs

        op = self.by_value[body[0]]
        message = self.y._decode(NlAttrs(body[4:]), op.attr_set.name)
        self.told[op.name] += bool(message)
        if "flow" in message and self.rng.randrange(4) == 0:
            which = self.rng.choice(("original", "reply"))
            found = message["flow"][which]["tuple"]
            self.known.append(self.y._add_nest_attrs(found, "tuple", None))

    def read(self, sock, seq):
        """Reads the answer to a request, or the beginning of a dump."""
        pieces = self.rng.choice((1, 2, 1000, 1000, 1000))
        while pieces:
            # As much as netlink sends at a time.
            data = sock.recv(32768)
            for kind, found, body in self.messages(data):
                if kind == self.y.nlproto.family_id:
                    self.look(body)
                elif found == seq and kind in (NLMSG_ERROR, NLMSG_DONE):
                    (code,) = struct.unpack_from("i", body)
                    self.answers[errno.errorcode.get(-code, "done")] += 1
                    return True
            pieces -= 1
        self.answers["read in part"] += 1
        return False

    def run(self):
        start = time.monotonic()
        for _ in range(self.count):
            index = self.rng.randrange(len(self.socks))
            request, seq = self.maker.request()
            self.socks[index].send(request)
            try:
                is_over = self.read(self.socks[index], seq)
            except (OSError, KeyError, struct.error):
                print("# request:", request.hex())
                raise
            if not is_over:
                # The dump is under way for as long as its socket.
                self.socks[index].close()
                self.socks[index] = self.socket()
        seconds = time.monotonic() - start
        print(f"# {self.count} requests in {seconds:.0f} s: {dict(self.answers.most_common())}")
        print(f"# told: {dict(self.told.most_common())}")
        print("ok each request is answered, and all that is told is as the specification says")
        few = [name for name in self.y.ops if not self.told[name]]
        print("not ok" if few else "ok", "each operation has told something", " ".join(few))


if __name__ == "__main__":
    Fuzzer(int(sys.argv[1]), int(sys.argv[2])).run()

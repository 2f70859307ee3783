#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""check.py WHAT [ARGUMENT…]: asks the family nft_offload, in the namespace in which it is called,
and prints a line "ok TEXT" or "not ok TEXT" for each thing that is checked."""

import errno
import json
import socket
import struct
import subprocess
import sys

from family import SCHEMA, SPEC, NlError, family

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR = 1, 4, 0x300, 0x10
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED = 0x8000

CLIENT4, SERVER4 = "192.168.1.2", "10.0.2.2"


def check(text, is_so, found=None):
    print("ok" if is_so else "not ok", text, flush=True)
    if not is_so:
        print("found:", found, flush=True)


def same(text, found, expected):
    check(text, found == expected, f"{found!r}, not {expected!r}")


def ask(y, what, values):
    """The messages of a dump that tell something: some are empty."""
    return [message for message in y.dump(what, values) if message]


def dump(y, what, key, **filters):
    return [message[key] for message in ask(y, what, {"filter": filters} if filters else {})]


def is_clock_coarse():
    """Whether a call to a driver may well begin and end in the same tick of the kernel's clock."""
    path = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    with open(path, encoding="ascii") as file:
        return file.read().strip().endswith("jiffies")


def named(y, tuple_):
    """The flow with these packets."""
    found = [message["flow"] for message in ask(y, "flow-get", {"tuple": tuple_})]
    return found[0] if len(found) == 1 else found


def total(y):
    (found,) = dump(y, "total-get", "total")
    return found


def flows(y, **filters):
    return dump(y, "flow-get", "flow", **filters)


def reasons(y):
    return {(r["reason"], r["by"]): r["flows"] for r in dump(y, "reason-get", "reason-count")}


def states(flow):
    return [flow[which]["state"] for which in ("original", "reply")]


def whys(flow, which):
    return [(why["reason"], why["by"]) for why in flow[which].get("why", [])]


def failure(y, what, values):
    """The errno and the words with which a request fails."""
    try:
        found = ask(y, what, values)
    except NlError as error:
        return error.error, (error.nl_msg.extack or {}).get("msg", "")
    return 0, repr(found)


def hardware(y):
    """A TCP flow over IPv4 and a UDP flow over IPv6 are in hardware, and nothing else."""
    all_flows = flows(y)
    same("there are two flows", len(all_flows), 2)
    same(
        "their directions are in hardware",
        {state for f in all_flows for state in states(f)},
        {"hardware"},
    )
    (tcp,) = flows(y, l4proto=6)
    packets = tcp["original"]["tuple"]
    same(
        "the flow's original direction has these addresses",
        (packets["src"], packets["dst"]),
        (CLIENT4, SERVER4),
    )
    back = tcp["reply"]["tuple"]
    same(
        "the flow's reply direction has the ports the other way round",
        (back["sport"], back["dport"]),
        (packets["dport"], packets["sport"]),
    )
    same(
        "the flow is in this table",
        (tcp["family"], tcp["table"], tcp["flowtable"]),
        (1, "fw", "ft"),
    )
    check("the flow was offered", tcp["offers"] >= 1, tcp)
    same("the flow's neighbour is the server", tcp["original"]["route"]["neighbour"], SERVER4)
    check("the flow's route has MAC addresses", len(tcp["original"]["route"]["dmac"]) == 17, tcp)
    same(
        "the device by which replies come in is the one to which the route leads",
        tcp["reply"]["ingress"],
        tcp["original"]["route"]["egress"],
    )
    same("no reason is told of what is in hardware", whys(tcp, "original") + whys(tcp, "reply"), [])
    check("how long it has been there is told", "since" in tcp["original"], tcp)
    for which in "original", "reply":
        by_nic, by_all = tcp[which]["hardware"], tcp[which]["connection"]
        check(
            f"{which}: conntrack has counted what the NIC has forwarded, and more",
            0 < by_nic["packets"] < by_all["packets"] and 0 < by_nic["bytes"] < by_all["bytes"],
            (by_nic, by_all),
        )
    (udp,) = flows(y, l4proto=17)
    check(
        "of a flow without packets, nothing is told that was not said",
        "hardware" not in udp["reply"],
        udp,
    )

    # One direction explains the flow as well as the other.
    for which, tuple_ in ("original", packets), ("reply", back):
        found = named(y, tuple_)
        same(f"a flow is found by its {which} direction", found["original"]["tuple"], packets)
    same(
        "a flow is found in its zone",
        named(y, {**packets, "zone": 0})["original"]["tuple"],
        packets,
    )
    same("a flow is not found in another zone", named(y, {**packets, "zone": 7}), [])

    ifindex = tcp["original"]["ingress"]
    for text, filters, expected in (
        ("protocol", {"l4proto": 17}, 1),
        ("port", {"port": packets["dport"]}, 1),
        ("port that none has", {"port": 9}, 0),
        ("address", {"address": SERVER4}, 1),
        ("prefix", {"address": "10.0.2.0", "prefix-len": 24}, 1),
        ("prefix that none has", {"address": "10.0.3.0", "prefix-len": 24}, 0),
        ("IPv6 prefix", {"address": "fd00:2::", "prefix-len": 64}, 1),
        ("prefix of no bits", {"address": "0.0.0.0", "prefix-len": 0}, 1),
        ("device", {"ifindex": ifindex}, 2),
        ("device that none has", {"ifindex": 4000}, 0),
        ("state", {"state": "hardware"}, 2),
        ("state that none is in", {"state": "software"}, 0),
        ("reason", {"reason": "no-flag"}, 0),
        ("protocol and port", {"l4proto": 17, "port": packets["dport"]}, 0),
    ):
        same(f"filter by {text}: flows", len(flows(y, **filters)), expected)

    same(
        "total",
        total(y),
        {"tables": 1, "flows": 2, "in-hardware": 2, "half-in-hardware": 0, "left": 0},
    )
    same("no flow has a reason", reasons(y), {})

    (table,) = dump(y, "table-get", "table")
    same(
        "the flowtable has its entries and flags",
        (table["table"], table["flowtable"], table["entries"], table["offload"], table["counter"]),
        ("fw", "ft", 2, True, True),
    )
    same(
        "both devices are bound for it, and have rules",
        sorted((p["name"], p["bound"], p["rules"]) for p in table["port"]),
        [("nic0", True, 2), ("nic1", True, 2)],
    )
    devices = dump(y, "device-get", "device")
    same("the devices are told of", [d["name"] for d in devices], ["nic0", "nic1"])
    for device in devices:
        same(
            f"{device['name']}: its rules and how it is bound",
            (device["rules"], device["rules-max"] >= 2, device["stale-rules"], device["bind-type"]),
            (2, True, 0, "flowtable"),
        )
        check(
            f"{device['name']}: what it has forwarded", device["forwarded"]["packets"] > 0, device
        )
        latency = device["add-latency"]
        check(
            f"{device['name']}: how long it took to add rules",
            latency["count"] >= 2
            and (0 < latency["p50"] or is_clock_coarse())
            and latency["p50"] <= latency["p99"] <= latency["longest"],
            latency,
        )


def is_counted(y):
    (flow,) = flows(y, l4proto=6)
    is_told = all("hardware" in flow[which] for which in ("original", "reply"))
    sys.exit(0 if is_told else 1)


def no_flow(y):
    """Entries are freed some time after their rules are gone."""
    sys.exit(1 if flows(y) else 0)


def refused(y, errno_text, words):
    """The reply direction is refused by the driver."""
    (flow,) = flows(y)
    same("a refused flow is in software", states(flow), ["software", "software"])
    reply = {why["reason"]: why for why in flow["reply"].get("why", [])}
    why = reply.get("refused", {})
    same("the driver has refused its reply direction: errno", why.get("errno"), int(errno_text))
    check("the driver's words are told", words in why.get("words", ""), why)
    same("it was the driver", why.get("by"), "driver")
    same(
        "the other direction is out for that",
        whys(flow, "original"),
        [("other-direction", "module")],
    )
    same(
        "reasons are counted",
        reasons(y),
        {("refused", "driver"): 1, ("other-direction", "module"): 1},
    )
    same("filter by reason", len(flows(y, reason="refused")), 1)
    same("filter by another reason", len(flows(y, reason="mtu")), 0)
    errors = {d["name"]: d.get("add-errors", []) for d in dump(y, "device-get", "device")}
    check(
        "the device's errors are counted",
        any(e["errno"] == int(errno_text) for e in errors["nic1"]),
        errors,
    )


def each_is_refused(y):
    (flow,) = flows(y)
    refused = [("refused", "driver")]
    sys.exit(0 if whys(flow, "original") == whys(flow, "reply") == refused else 1)


def not_bound(y, device, by):
    """Packets come in by a device that takes no rules."""
    (flow,) = flows(y)
    check(
        f"{device} takes no rules, by {by}",
        ("not-bound", by) in whys(flow, "original") + whys(flow, "reply"),
        flow,
    )


def plain(y):
    """The flowtable has no "flags offload"."""
    (flow,) = flows(y)
    same(
        "a flow of a flowtable without flags offload is told of, and why",
        (states(flow), whys(flow, "original"), whys(flow, "reply")),
        (["software"] * 2, [("no-flag", "nftables")], [("no-flag", "nftables")]),
    )
    check("it was not offered", "offers" not in flow, flow)
    same(
        "total",
        total(y),
        {"tables": 1, "flows": 1, "in-hardware": 0, "half-in-hardware": 0, "left": 0},
    )
    (table,) = dump(y, "table-get", "table")
    check(
        "the flowtable does not say that it offloads",
        "offload" not in table and "port" not in table,
        table,
    )
    same("no device is bound", dump(y, "device-get", "device"), [])


def left(y):
    """A connection is left to the host."""
    found = flows(y, state="left")
    same("a connection that is left to the host is told of", len(found), 1)
    for flow in found:
        all_whys = whys(flow, "original") + whys(flow, "reply")
        check("why a connection is left", ("ipsec", "kernel") in all_whys, flow)
        check("it is in no flowtable", "flowtable" not in flow, flow)
        check("how often it was left", flow["times-left"] >= 1, flow)
        same(
            "it is found by its packets",
            # So is its entry, as long as that is being torn down.
            "left"
            in [
                message["flow"]["original"]["state"]
                for message in ask(y, "flow-get", {"tuple": flow["original"]["tuple"]})
            ],
            True,
        )
    same("total: left", total(y)["left"], 1)


def is_left(y):
    sys.exit(0 if flows(y, state="left") else 1)


def nothing(y):
    """What another namespace sees."""
    for what, key in (
        ("device-get", "device"),
        ("table-get", "table"),
        ("flow-get", "flow"),
        ("reason-get", "reason-count"),
    ):
        same(f"{what}: nothing of others is told", dump(y, what, key), [])
    same(
        "total-get: nothing of others is counted",
        total(y),
        {"tables": 0, "flows": 0, "in-hardware": 0, "half-in-hardware": 0, "left": 0},
    )
    for ifindex in range(1, 10):
        if failure(y, "flush-device", {"ifindex": ifindex})[0] != errno.ENODEV:
            check("flush-device: no device of others is flushed", False, ifindex)


def forbidden(y):
    """Without CAP_NET_ADMIN."""
    for what in "device-get", "table-get", "flow-get", "reason-get":
        try:
            found = y.dump(what, {})
        except NlError as error:
            found = error.error
        same(f"{what}: needs CAP_NET_ADMIN", found, errno.EPERM)
    for what, values in (
        ("total-get", {}),
        ("evict", {"tuple": {"src": CLIENT4}}),
        ("flush-device", {"ifindex": 1}),
    ):
        same(f"{what}: needs CAP_NET_ADMIN", failure(y, what, values)[0], errno.EPERM)


# --- malformed requests


def attr(kind, payload=b""):
    return struct.pack("HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def raw_request(y, command, payload, flags=NLM_F_DUMP):
    """Sends a request as it is. Returns the errno and the words of the answer."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as sock:
        for option in (
            1,
            11,
            12,
        ):  # NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK; the port is bound by the first send
            if option != 1:
                sock.setsockopt(270, option, 1)
        body = struct.pack("BBH", command, 1, 0) + payload
        sock.send(
            struct.pack(
                "IHHII",
                16 + len(body),
                y.nlproto.family_id,
                NLM_F_REQUEST | NLM_F_ACK | flags,
                1,
                0,
            )
            + body
        )
        while True:
            answer = sock.recv(1 << 16)
            length, kind, nl_flags = struct.unpack_from("IHH", answer)
            # Empty messages come before the answer.
            if kind in (NLMSG_ERROR, NLMSG_DONE):
                break
            if length > 20:
                return 0, ""
    (code,) = struct.unpack_from("i", answer, 16)
    words = ""
    if nl_flags & 0x200:  # NLM_F_ACK_TLVS
        at = 20 if kind == NLMSG_DONE else 36
        if kind == NLMSG_ERROR and not nl_flags & 0x100:  # NLM_F_CAPPED
            (request_length,) = struct.unpack_from("I", answer, 20)
            at += (request_length - 16 + 3) & ~3
        while at + 4 <= length:
            size, what = struct.unpack_from("HH", answer, at)
            if what == 1:  # NLMSGERR_ATTR_MSG
                words = answer[at + 4 : at + size].rstrip(b"\0").decode()
            elif what in (2, 5, 6):  # an attribute's place, its type, what nest misses it
                words = words or f"attribute {what}"
            at += (size + 3) & ~3
    return -code, words


def malformed(y):
    v4 = socket.inet_aton(CLIENT4)
    a = {name: set_.attrs_by_val for name, set_ in y.attr_sets.items()}
    number = {
        f"{name}.{at.name}": value for name, by_val in a.items() for value, at in by_val.items()
    }
    op = {name: y.ops[name].req_value for name in y.ops}
    u8, u16, u32 = (
        (lambda v: struct.pack("B", v)),
        (lambda v: struct.pack("H", v)),
        (lambda v: struct.pack("I", v)),
    )

    def tuple_(*parts, nested=NLA_F_NESTED):
        payload = b"".join(attr(number[f"tuple.{name}"], value) for name, value in parts)
        return attr(number["message.tuple"] | nested, payload)

    def filter_(*parts):
        payload = b"".join(attr(number[f"filter.{name}"], value) for name, value in parts)
        return attr(number["message.filter"] | NLA_F_NESTED, payload)

    proto, src, dst = ("l4proto", u8(6)), ("src", v4), ("dst", v4)
    cases = [
        ("a tuple without addresses", "flow-get", tuple_(proto)),
        ("a tuple without a destination", "flow-get", tuple_(proto, src)),
        ("a tuple without a protocol", "flow-get", tuple_(src, dst)),
        ("an address of 5 bytes", "flow-get", tuple_(proto, src, ("dst", bytes(5)))),
        ("an address of 17 bytes", "flow-get", tuple_(proto, src, ("dst", bytes(17)))),
        ("addresses of two families", "flow-get", tuple_(proto, src, ("dst", bytes(16)))),
        ("a port of 4 bytes", "flow-get", tuple_(proto, src, dst, ("sport", u32(5)))),
        ("a tuple that is no nest", "flow-get", tuple_(proto, src, dst, nested=0)),
        (
            "an unknown attribute in a tuple",
            "flow-get",
            attr(number["message.tuple"] | NLA_F_NESTED, attr(77, u32(1))),
        ),
        ("an unknown attribute", "flow-get", attr(77, u32(1))),
        ("a filter where a tuple belongs", "evict", filter_(("port", u16(1)))),
        ("evict without a tuple", "evict", b""),
        ("evict of nothing", "evict", tuple_(proto, src, ("dst", bytes(4)))),
        ("flush-device without a device", "flush-device", b""),
        (
            "flush-device of no device",
            "flush-device",
            attr(number["message.ifindex"], u32(4000)),
        ),
        ("flush-device of device 0", "flush-device", attr(number["message.ifindex"], u32(0))),
        ("total-get with an attribute", "total-get", attr(number["message.ifindex"], u32(1))),
        ("bytes after the attributes", "total-get", b"\1\2\3\4"),
        (
            "device-get with an attribute",
            "device-get",
            attr(number["message.ifindex"], u32(1)),
        ),
        (
            "table-get with an attribute",
            "table-get",
            attr(number["message.ifindex"], u32(1)),
        ),
        (
            "reason-get with an attribute",
            "reason-get",
            attr(number["message.ifindex"], u32(1)),
        ),
        ("a filter by device 0", "flow-get", filter_(("ifindex", u32(0)))),
        (
            "a filter by a state that there is not",
            "flow-get",
            filter_(("state", u32(99))),
        ),
        (
            "a filter by a reason that there is not",
            "flow-get",
            filter_(("reason", u32(99))),
        ),
        (
            "a filter by a prefix without an address",
            "flow-get",
            filter_(("prefix-len", u8(8))),
        ),
        (
            "a filter by 33 bits of IPv4",
            "flow-get",
            filter_(("address", v4), ("prefix-len", u8(33))),
        ),
        (
            "a filter by 129 bits",
            "flow-get",
            filter_(("address", bytes(16)), ("prefix-len", u8(129))),
        ),
        (
            "a filter by 3 bytes of an address",
            "flow-get",
            filter_(("address", bytes(3))),
        ),
    ]
    for text, what, payload in cases:
        code, words = raw_request(y, op[what], payload)
        check(f"{text} is refused, and told why", code > 0 and words != "", (code, words))
    for what, number in op.items():
        code, _ = raw_request(y, number, b"", 0)
        same(f"{what} is a dump, and nothing else", code, errno.EOPNOTSUPP)


# --- dumps that take long


def attributes(data):
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("HH", data, at)
        yield kind & 0x3FFF, data[at + 4 : at + size]
        at += (size + 3) & ~3


def busy(y):
    """Of many requests in one datagram, one is begun."""
    body = struct.pack("BBH", y.ops["reason-get"].req_value, 1, 0)
    header = (16 + len(body), y.nlproto.family_id, NLM_F_REQUEST | NLM_F_DUMP)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as sock:
        sock.send(b"".join(struct.pack("IHHII", *header, seq, 0) + body for seq in range(1, 11)))
        codes = {}
        while len(codes) < 10:
            data, at = sock.recv(1 << 16), 0
            while at < len(data):
                length, kind, _, seq, _ = struct.unpack_from("IHHII", data, at)
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    (codes[seq],) = struct.unpack_from("i", data, at + 16)
                at += (length + 3) & ~3
    same(
        "of ten requests at once, the first is answered, and the others have to wait for that",
        codes,
        {seq: -errno.EBUSY if seq > 1 else 0 for seq in range(1, 11)},
    )


class SlowDump:
    """A dump of flows that is read in small pieces."""

    def __init__(self, y):
        self.path = [
            y.attr_sets[name][kind].value
            for name, kind in (("message", "flow"), ("flow", "original"), ("direction", "tuple"))
        ]
        self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
        body = struct.pack("BBH", y.ops["flow-get"].req_value, 1, 0)
        self.sock.send(
            struct.pack(
                "IHHII", 16 + len(body), y.nlproto.family_id, NLM_F_REQUEST | NLM_F_DUMP, 1, 0
            )
            + body
        )
        self.tuples, self.is_done, self.is_interrupted = [], False, False
        self.sizes = []

    def read(self):
        """Reads what there is room for. Returns whether there is more."""
        data = self.sock.recv(4096)
        at = 0
        while at < len(data):
            length, kind, flags = struct.unpack_from("IHH", data, at)
            self.is_interrupted |= bool(flags & NLM_F_DUMP_INTR)
            if kind in (NLMSG_DONE, NLMSG_ERROR):
                self.is_done = True
            else:
                found = data[at + 20 : at + length]
                self.sizes.append(len(found))
                for step in self.path if found else ():
                    found = dict(attributes(found))[step]
                if found:
                    self.tuples.append(found)
            at += (length + 3) & ~3
        return not self.is_done

    def read_all(self):
        while self.read():
            pass


def slow(y, count):
    """As many flows are there as said; the ruleset goes while they are dumped."""
    dumped = SlowDump(y)
    dumped.read_all()
    same(
        "a dump that is read in small pieces has each flow once",
        (len(dumped.tuples), len(set(dumped.tuples))),
        (int(count), int(count)),
    )

    dumped = SlowDump(y)
    dumped.read()
    same("the first message of a dump is empty", dumped.sizes, [0])
    dumped.read()
    check("a dump is under way", not dumped.is_done and dumped.tuples, len(dumped.tuples))
    unloads = subprocess.run(["rmmod", "nft_offload"], stderr=subprocess.DEVNULL).returncode == 0
    check("the module cannot go during a dump", not unloads)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    # The flowtable goes some time after its ruleset.
    tries = 0
    while dump(y, "table-get", "table") and tries < 10000:
        tries += 1
    dumped.read_all()
    check(
        "a dump ends when its flowtable has gone",
        len(dumped.tuples) <= int(count),
        len(dumped.tuples),
    )
    check("a dump says that its flowtable has gone", dumped.is_interrupted)

    SlowDump(y).sock.close()
    check("a dump may be left alone", True)


def grow(y, count):
    """More flows come during a dump, which waits for a line."""
    before = SlowDump(y)
    before.read_all()
    dumped = SlowDump(y)
    dumped.read()
    dumped.read()
    check("a dump of flows is under way", not dumped.is_done, len(dumped.tuples))
    sys.stdin.readline()
    dumped.read_all()
    check(
        "no flow is missing that was there before",
        set(before.tuples) <= set(dumped.tuples),
        len(dumped.tuples),
    )
    check(
        "a dump in which flows come twice says that it was interrupted",
        dumped.is_interrupted or len(dumped.tuples) == len(set(dumped.tuples)),
        len(dumped.tuples),
    )
    after = SlowDump(y)
    after.read_all()
    same("the next dump has all flows", len(set(after.tuples)), int(count))


def many(_, count):
    """A flowtable has so many devices that one message has no room for them."""
    tables = dump(family(recv_size=4096), "table-get", "table")
    ports = [port["name"] for table in tables for port in table.get("port", [])]
    same(
        "all devices of a flowtable are told, once each",
        (len(ports), len(set(ports))),
        (int(count), int(count)),
    )
    same(
        "they are told in several messages, of which those after the first say that they go on",
        [table.get("continued", False) for table in tables],
        [False] + [True] * max(len(tables) - 1, 1),
    )


def evict(y, port):
    (flow,) = flows(y, port=int(port))
    packets = flow["reply"]["tuple"]
    same("evict tears down one flow", ask(y, "evict", {"tuple": packets}), [{"count": 1}])
    code, words = failure(y, "evict", {"tuple": {**packets, "dport": 9}})
    check("evict of nothing fails, and says why", (code, bool(words)) == (errno.ENOENT, True), code)


def flush(y, device):
    same(
        f"flush-device takes {device}'s flows out",
        ask(y, "flush-device", {"ifindex": socket.if_nametoindex(device)})[0]["count"] >= 1,
        True,
    )


def policies(y):
    """What the kernel takes is what the specification says."""
    if not hasattr(y, "get_policy"):
        return
    for name, op in y.ops.items():
        for mode in "do", "dump":
            if mode not in op.yaml or "request" not in op.yaml[mode]:
                continue
            policy = y.get_policy(name, mode)
            expected = op.yaml[mode]["request"]["attributes"]
            same(
                f"{name} {mode}: the kernel takes these attributes",
                sorted(policy),
                sorted(expected),
            )
            for attribute in expected:
                spec = op.attr_set[attribute]
                if spec["type"] != "nest":
                    continue
                nested = y.attr_sets[spec["nested-attributes"]]
                same(
                    f"{name} {mode}, {attribute}: the kernel takes these attributes",
                    sorted(policy[attribute]),
                    sorted(nested),
                )
                for member in nested:
                    same(
                        f"{name} {mode}, {attribute}, {member}: type and limits",
                        policy[attribute][member].to_dict(),
                        limits(y, nested[member]),
                    )


def limits(y, member):
    """What the kernel's policy is to say of an attribute."""
    kind, checks = member["type"], member.yaml.get("checks", {})
    if kind == "binary":
        return {"type": kind, "max-length": checks["max-len"]}
    most = (1 << int(kind[1:])) - 1
    if "enum" in member:
        most = max(y.consts[member["enum"]].entries_by_val)
    return {"type": kind, "min-value": checks.get("min", 0), "max-value": checks.get("max", most)}


def schema(y):
    """The specification is one in the kernel's schema."""
    from lib import SpecFamily

    try:
        SpecFamily(str(SPEC), str(SCHEMA))
        found = ""
    except Exception as error:  # jsonschema's
        found = str(error)
    same("the specification is valid in the kernel's schema", found, "")


def show(y):
    """All that there is, as JSON."""
    for what in "device-get", "table-get", "flow-get", "total-get", "reason-get":
        print(json.dumps({what: y.dump(what, {})}, indent=1))


if __name__ == "__main__":
    globals()[sys.argv[1]](family(), *sys.argv[2:])

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""record.py KERNEL-SOURCE >messages.json: messages with all attributes of the specification, as
the kernel's own encoder makes them (tools/net/ynl/pyynl, which needs python3-yaml), for the tests
of src/spec.rs."""

import json
import sys
from pathlib import Path

source = Path(sys.argv[1])
sys.path.append(str(source / "tools/net/ynl/pyynl"))
from lib import ynl  # noqa: E402  pylint: disable=wrong-import-position

SPEC = Path(__file__).resolve().parents[3] / "Documentation/netlink/specs/nft_offload.yaml"
NUMBERS = {"u8": 8, "u16": 16, "u32": 32, "uint": 64}

# The kernel of this machine does not have the family, and is not asked.
ynl.GenlProtocol = lambda name: ynl.NetlinkProtocol(name, 16)
family = ynl.YnlFamily(str(SPEC), str(source / "Documentation/netlink/genetlink-legacy.yaml"))
family.nlproto.message = lambda *_: b""


def sample(space, round_):
    """An object with all attributes: other values in each round."""
    return {name: value(attr, round_) for name, attr in family.attr_sets[space].items()}


def value(attr, round_):
    """A value for an attribute; for one that may be there more than once, two."""
    if attr.is_multi:
        return [one(attr, round_), one(attr, round_ + 1)]
    return one(attr, round_)


def one(attr, round_):
    """A single one."""
    kind = attr["type"]
    if kind == "nest":
        return sample(attr["nested-attributes"], round_)
    if "enum" in attr:
        names = list(family.consts[attr["enum"]].entries)
        return names[-1 - round_ % len(names)]
    if kind == "s32":
        return -2 ** 31 + round_
    if kind in NUMBERS:
        return (2 ** NUMBERS[kind] - 1) >> (round_ % 2 * 33 if kind == "uint" else round_)
    return {"string": f"name{round_}", "flag": True,
            "binary": "02:00:00:00:00:ff" if attr.display_hint == "mac" else
            ["192.0.2.1", "2001:db8::ff"][round_ % 2]}[kind]


messages = []
for round_ in range(3):
    whole = sample("message", round_)
    for key, part in whole.items():
        payload = family._add_attr(  # pylint: disable=protected-access
            "message", key, part, ynl.SpaceAttrs(family.attr_sets["message"], whole))
        messages.append({"value": {key: part}, "bytes": payload.hex()})
print("[" + ",\n".join(json.dumps(message) for message in messages) + "]")

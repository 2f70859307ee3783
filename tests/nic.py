# SPDX-License-Identifier: GPL-2.0
"""nic.py: what the emulated NIC holds and counts, and its knobs; emunic.h describes them."""

from pathlib import Path

NIC = Path("/sys/kernel/debug/emunic")


def knob(name, value):
    (NIC / name).write_text(str(value), encoding="ascii")


def counters():
    """By name: of the whole NIC, or of a port, as in "nic0.nic_packets"."""
    lines = (NIC / "counters").read_text(encoding="ascii").splitlines()
    return {name: int(value) for name, value in map(str.split, lines)}


def lines_of_rules(word):
    lines = (NIC / "rules").read_text(encoding="ascii").splitlines()
    return [line for line in lines if word in line]


def rules(word=""):
    """The rules whose line contains the word, each as its fields."""
    return [dict(field.partition("=")[::2] for field in line.split())
            for line in lines_of_rules(word)]


def cookies(word=""):
    """Of the rules whose line contains the word, as these begin: "cookie=0x1"."""
    return {line.partition(" ")[0] for line in lines_of_rules(word)}

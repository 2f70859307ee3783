#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What profiles.py printed, on standard input, as a table in Markdown."""

import sys

NAMES = {"tcp4": "TCP, IPv4", "udp4": "UDP, IPv4", "tcp6": "TCP, IPv6", "udp6": "UDP, IPv6"}
NAMES |= {"gre4": "GRE, IPv4", "gre6": "GRE, IPv6", "ipsec": "UDP by ESP from the router"}
NAMES |= {"ipip": "UDP by IPIP from the router", "ip6ip6": "UDP by IP6IP6 from the router"}


def main():
    profiles, rows, reasons = [], {}, {}
    for line in sys.stdin:
        *case, profile, result = line.rstrip("\n").split("|")
        if profile not in profiles:
            profiles.append(profile)
        if result != "hardware":
            result = f"[{reasons.setdefault(result, len(reasons) + 1)}]"
        rows.setdefault(tuple(case), {})[profile] = result

    print("| client's side | server's side | NAT | flow |", " | ".join(profiles), "|")
    print("|---" * (4 + len(profiles)) + "|")
    for (kind0, kind1, nat, proto), results in rows.items():
        nat = "" if nat == "routed" else nat
        cells = " | ".join(results[profile] for profile in profiles)
        print(f"| {kind0} | {kind1} | {nat} | {NAMES[proto]} | {cells} |")
    print()
    for reason, number in reasons.items():
        print(f"- [{number}] {reason}")


main()

# SPDX-License-Identifier: GPL-2.0
"""rulesets.py: the table that a user writes, for the yardstick without a flowtable."""

FLOW = {
    "established": "ct state established meta l4proto { tcp, udp, gre }",
    "any": "meta l4proto { tcp, udp, gre }",
    "reply": "ct direction reply meta l4proto { tcp, udp, gre }",
    "lan": 'iifname "p0" meta l4proto { tcp, udp, gre }',
}


def table(kind, devices, words):
    """WORDS: when=FLOW plus=DEVICE counter strict

    `strict` lets the LAN begin connections, and nobody else.
    """
    options = dict(word.partition("=")[::2] for word in words)
    devices = ", ".join(devices + [options["plus"]] if "plus" in options else devices)
    flow, flowtable = "counter", ""
    if kind != "plain":
        flow = "flow add @ft"
        flowtable = f"""flowtable ft {{
            hook ingress priority 0
            devices = {{ {devices} }}
            {"flags offload" if kind == "hw" else ""}
            {"counter" if "counter" in options else ""}
        }}"""
    strict = "" if "strict" not in options else """
            ct state established,related accept
            iifname "p0" accept
            meta l4proto { icmp, ipv6-icmp } accept"""
    return f"""
    add table inet fw
    delete table inet fw
    table inet fw {{
        {flowtable}
        chain forward {{
            type filter hook forward priority 0; policy {"drop" if strict else "accept"};
            {FLOW[options.get("when", "established")]} {flow}{strict}
        }}
    }}
    """

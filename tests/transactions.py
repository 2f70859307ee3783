#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""transactions.py NUMBER: so many transactions of nftables, which change nothing.

Each makes a table and deletes it. Works in the namespace that it runs in.
"""

import socket
import struct
import sys

NETLINK_NETFILTER = 12
NLMSG_ERROR, NLM_F_REQUEST, NLM_F_CREATE = 2, 1, 0x400
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES = 0x10, 0x11, 10
NFT_MSG_NEWTABLE, NFT_MSG_DELTABLE, NFTA_TABLE_NAME, NFPROTO_INET = 0, 2, 1, 1


def message(kind, flags, family, resource, attributes=b""):
    body = struct.pack("!BBH", family, 0, resource) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST | flags, 0, 0) + body


def main():
    name = struct.pack("=HH", 4 + 8, NFTA_TABLE_NAME) + b"nothing\0"
    kind = NFNL_SUBSYS_NFTABLES << 8
    batch = (message(NFNL_MSG_BATCH_BEGIN, 0, 0, NFNL_SUBSYS_NFTABLES)
             + message(kind | NFT_MSG_NEWTABLE, NLM_F_CREATE, NFPROTO_INET, 0, name)
             + message(kind | NFT_MSG_DELTABLE, 0, NFPROTO_INET, 0, name)
             + message(NFNL_MSG_BATCH_END, 0, 0, NFNL_SUBSYS_NFTABLES))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as nfnl:
        nfnl.bind((0, 0))
        for _ in range(int(sys.argv[1])):
            nfnl.send(batch)
            try:
                answer = nfnl.recv(4096, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            sys.exit(f"error: {struct.unpack_from('=IHHIIi', answer)}")


main()

# SPDX-License-Identifier: GPL-2.0
"""The family nft_offload, by the kernel's own netlink library and the specification."""

import os
import sys
from pathlib import Path

YNL = Path(os.environ["KSRC"]) / "tools/net/ynl/pyynl"
SPECS = Path(__file__).resolve().parents[2] / "Documentation/netlink"
SPEC = SPECS / "specs/nft_offload.yaml"
SCHEMA = Path(os.environ["KSRC"]) / "Documentation/netlink/genetlink-legacy.yaml"

sys.path.insert(0, str(YNL))
from lib import NlError, YnlFamily  # noqa: E402

__all__ = ["NlError", "SCHEMA", "SPEC", "YNL", "family"]


def family(**options):
    """A socket for the family in the namespace of this process."""
    return YnlFamily(str(SPEC), schema="", **options)

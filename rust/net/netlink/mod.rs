// SPDX-License-Identifier: GPL-2.0

//! Generic netlink.
//!
//! As `kernel::net::netlink`, which there is since Linux 7.3 for multicast messages in the initial namespace,
//! and beyond that: operations with their policies, which dump, in any namespace. The module of a family is known
//! when it is registered, not when it is made, for Linux 7.2 has no constant for it.
//!
//! C header: [`include/net/genetlink.h`](srctree/include/net/genetlink.h)

mod attr;
mod family;

pub(crate) use attr::{Attr, Attrs, Nested, NlaPolicy};
pub(crate) use family::{
    Dump,
    DumpMsgs,
    Extack,
    Family,
    GenlInfo,
    Op,
    OpFlags,
    Registration, //
};

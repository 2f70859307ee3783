// SPDX-License-Identifier: GPL-2.0

//! The msg in which the kernel says why it refuses something.
//!
//! C header: [`include/linux/netlink.h`](srctree/include/linux/netlink.h)

use crate::{
    bindings,
    net::device::write_c_chars, //
};
use kernel::{
    error::to_result,
    fmt,
    prelude::*,
    str::{CStr, CStrExt}, //
};

/// As long as `NETLINK_MAX_FMTMSG_LEN`; longer constant messages are cut.
const MSG_LEN: usize = bindings::NETLINK_MAX_FMTMSG_LEN as usize;

/// A place for the callee's msg, `struct netlink_ext_ack`.
///
/// # Invariants
///
/// `_msg` is NULL or points to a C string that is valid for as long as this value is not moved:
/// drivers set it to a constant or to the value's own `_msg_buf`.
pub(crate) struct Extack(bindings::netlink_ext_ack);

impl Extack {
    /// Calls `f` with an empty place for its msg. If it fails, returns the error with what was written
    /// there: `_msg`, if it is set, has to be valid when `f` returns.
    pub(crate) fn with(
        f: impl FnOnce(*mut bindings::netlink_ext_ack) -> c_int,
    ) -> Result<(), (Error, ExtackMsg)> {
        // INVARIANT: `_msg` is NULL.
        let mut extack = Extack(pin_init::zeroed());

        to_result(f(&raw mut extack.0)).map_err(|error| (error, extack.msg()))
    }

    fn msg(&self) -> ExtackMsg {
        let mut msg = ExtackMsg::NONE;

        if !self.0._msg.is_null() {
            // SAFETY: By the type invariant.
            let text = unsafe { CStr::from_char_ptr(self.0._msg) };
            let text = text.to_bytes();
            // The last byte stays a NUL.
            let len = text.len().min(MSG_LEN - 1);
            msg.0[..len].copy_from_slice(&text[..len]);
        }
        msg
    }
}

/// A copy of what the callee wrote into an [`Extack`]; possibly nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExtackMsg([u8; MSG_LEN]);

impl ExtackMsg {
    /// No msg.
    pub(crate) const NONE: Self = Self([0; MSG_LEN]);

    /// Returns the msg as it is.
    pub(crate) fn as_c_str(&self) -> Option<&CStr> {
        CStr::from_bytes_until_nul(&self.0).ok()
    }

    /// Whether the callee said nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.0[0] == 0
    }
}

impl fmt::Display for ExtackMsg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_c_chars(f, &self.0)
    }
}

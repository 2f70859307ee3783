// SPDX-License-Identifier: GPL-2.0

//! Networking abstractions that the kernel crate lacks.

pub(crate) mod device;
pub(crate) mod extack;
pub(crate) mod flow_block;
pub(crate) mod flow_rule;
pub(crate) mod log;
pub(crate) mod module;
pub(crate) mod namespace;
pub(crate) mod netlink;
pub(crate) mod notifier;
pub(crate) mod route;
pub(crate) mod rtnl;
pub(crate) mod skbuff;

/// `EOPNOTSUPP`, which [`kernel::error::code`] lacks. (Its `ENOTSUPP` is another one, of which
/// userspace knows no name.)
pub(crate) fn eopnotsupp() -> kernel::error::Error {
    kernel::error::Error::from_errno(-(crate::bindings::EOPNOTSUPP as i32))
}

/// `ENETUNREACH`, which the kernel crate does not have.
pub(crate) fn enetunreach() -> kernel::error::Error {
    kernel::error::Error::from_errno(-(crate::bindings::ENETUNREACH as i32))
}

// SPDX-License-Identifier: GPL-2.0

//! Messages about devices, which do not flood the log.
//!
//! C header: [`include/linux/ratelimit.h`](srctree/include/linux/ratelimit.h)

use crate::{
    bindings,
    net::device::NetDevice, //
};

/// What a message about a device is about. Each kind has a limit of its own in each namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogKind {
    /// Its driver is bound, or cannot be.
    Bind = bindings::shim_log_SHIM_LOG_BIND as isize,
    /// Its driver is unbound, or refuses to be.
    Unbind = bindings::shim_log_SHIM_LOG_UNBIND as isize,
    /// Its driver unregisters.
    Unregister = bindings::shim_log_SHIM_LOG_UNREGISTER as isize,
    /// What became of its rules.
    Rules = bindings::shim_log_SHIM_LOG_RULES as isize,
    /// Which devices a flowtable has, or lacks.
    Members = bindings::shim_log_SHIM_LOG_MEMBERS as isize,
}

impl NetDevice {
    /// Returns whether one more message of this kind may be logged now. Can be called anywhere.
    ///
    /// C: `__ratelimit()`.
    pub(crate) fn may_log(&self, kind: LogKind) -> bool {
        // SAFETY: The type invariant keeps the device alive.
        unsafe { bindings::shim_dev_may_log(self.as_raw(), kind as bindings::shim_log) }
    }
}

/// Logs a warning about a device, after its name, unless there were too many of this [`LogKind`] in its
/// namespace lately (ten in five seconds). Can be used anywhere.
macro_rules! dev_warn_ratelimited {
    ($dev:expr, $kind:ident, $($arg:tt)*) => {{
        let dev: &$crate::net::device::NetDevice = $dev;
        if dev.may_log($crate::net::log::LogKind::$kind) {
            ::kernel::pr_warn!("{}: {}", dev.name(), ::kernel::prelude::fmt!($($arg)*));
        }
    }};
}
pub(crate) use dev_warn_ratelimited;

// SPDX-License-Identifier: GPL-2.0

//! The kernel's clock, where the kernel crate lacks it.

use crate::bindings;
use kernel::time::msecs_to_jiffies;

/// The time in jiffies, at full width (`get_jiffies_64()`). It starts five minutes before 2^32.
pub(crate) fn jiffies64() -> u64 {
    // SAFETY: Can be called anywhere.
    unsafe { bindings::shim_jiffies64() }
}

/// So many milliseconds in jiffies, rounded up.
pub(crate) fn ms(ms: u32) -> u64 {
    msecs_to_jiffies(ms) as u64
}

/// So many jiffies in milliseconds.
pub(crate) fn to_ms(jiffies: u64) -> u64 {
    jiffies.saturating_mul(1000) / ms(1000).max(1)
}

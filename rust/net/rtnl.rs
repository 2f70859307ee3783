// SPDX-License-Identifier: GPL-2.0

//! The lock of network configuration.
//!
//! C header: [`include/linux/rtnetlink.h`](srctree/include/linux/rtnetlink.h)

use crate::bindings;
use core::marker::PhantomData;

/// RTNL is held as long as the value lives.
#[must_use]
pub(crate) struct Rtnl {
    /// Whether it was taken for this value.
    taken: bool,
    _not_send: PhantomData<*mut ()>,
}

impl Rtnl {
    fn new(taken: bool) -> Self {
        Self {
            taken,
            _not_send: PhantomData,
        }
    }

    /// Takes RTNL. Sleeps. Nothing may be held that is taken with RTNL held, such as nftables'
    /// `commit_mutex`.
    pub(crate) fn lock() -> Self {
        // SAFETY: Only called in process context.
        unsafe { bindings::shim_rtnl_lock() };
        Self::new(true)
    }

    /// Takes RTNL if nobody has it, or if this task has it because it was called from nftables'
    /// notifier of devices. Does not sleep; any lock may be held.
    pub(crate) fn try_lock() -> Option<Self> {
        let mut taken = false;

        // SAFETY: Can be called in process context.
        unsafe { bindings::shim_rtnl_trylock(&mut taken) }.then(|| Self::new(taken))
    }

    /// Whether this task has RTNL because it was called from nftables' notifier of devices; for
    /// messages, for a change that was refused may have left that behind.
    pub(crate) fn is_held_by_notifier() -> bool {
        // SAFETY: Can be called anywhere.
        unsafe { bindings::shim_rtnl_is_mine() }
    }
}

impl Drop for Rtnl {
    fn drop(&mut self) {
        if self.taken {
            // SAFETY: It was taken by this task: the value is not `Send`.
            unsafe { bindings::shim_rtnl_unlock() }
        }
    }
}

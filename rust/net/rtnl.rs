// SPDX-License-Identifier: GPL-2.0

//! The lock of network configuration.
//!
//! C header: [`include/linux/rtnetlink.h`](srctree/include/linux/rtnetlink.h)

use crate::bindings;
use core::{
    marker::PhantomData,
    mem::ManuallyDrop, //
};

/// RTNL is held as long as the value lives.
#[must_use]
pub(crate) struct Rtnl(PhantomData<*mut ()>);

impl Rtnl {
    /// Takes RTNL.
    ///
    /// Sleeps. Nothing may be held that is taken with RTNL held, such as nftables' `commit_mutex`.
    pub(crate) fn lock() -> Self {
        // SAFETY: Only called in process context.
        unsafe { bindings::shim_rtnl_lock() };
        Self(PhantomData)
    }

    /// RTNL, which this task holds, for those that need to know. It is not given up.
    ///
    /// # Safety
    ///
    /// This task must hold RTNL as long as the value lives.
    pub(crate) unsafe fn assume_held() -> ManuallyDrop<Self> {
        ManuallyDrop::new(Self(PhantomData))
    }

    /// Takes RTNL if no task has it.
    ///
    /// Does not sleep; any lock may be held.
    pub(crate) fn try_lock() -> Option<Self> {
        // SAFETY: Can be called in process context.
        unsafe { bindings::shim_rtnl_trylock() }.then(|| Self(PhantomData))
    }
}

impl Drop for Rtnl {
    fn drop(&mut self) {
        // SAFETY: It was taken by this task: the value is not `Send`.
        unsafe { bindings::shim_rtnl_unlock() }
    }
}

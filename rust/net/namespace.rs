// SPDX-License-Identifier: GPL-2.0

//! Network namespaces.
//!
//! C header: [`include/net/net_namespace.h`](srctree/include/net/net_namespace.h)

use crate::{
    bindings,
    net::device::NetDevice, //
};
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    prelude::*,
    sync::aref::ARef,
    types::Opaque, //
};

/// A network namespace, `struct net`, borrowed from something that lives in it.
#[repr(transparent)]
pub(crate) struct Net(Opaque<bindings::net>);

impl Net {
    /// # Safety
    ///
    /// `ptr` must point to a network namespace that is not freed during `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::net) -> &'a Self {
        // SAFETY: By the function's requirements; the type is transparent.
        unsafe { &*ptr.cast() }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::net {
        self.0.get()
    }

    /// Returns the device with this index, if there is one. Does not sleep.
    ///
    /// C: `dev_get_by_index()`.
    pub(crate) fn device(&self, ifindex: u32) -> Option<ARef<NetDevice>> {
        let ifindex = i32::try_from(ifindex).ok()?;
        // SAFETY: `self` is a valid namespace.
        let dev = NonNull::new(unsafe { bindings::dev_get_by_index(self.0.get(), ifindex) })?;

        // SAFETY: `dev_get_by_index` returned a reference, which now is the `ARef`'s.
        Some(unsafe { ARef::from_raw(dev.cast()) })
    }

    /// Has packets noted that the host forwards, until the end of its handler, which it does not have yet.
    /// `ENOMEM`. Called with `commit_mutex` held; sleeps.
    pub(crate) fn see_packets(&self) -> Result {
        // SAFETY: The namespace is valid.
        to_result(unsafe { bindings::shim_net_see(self.as_raw()) })
    }

    /// Has [`Event::Forwarded`](super::notifier::Event::Forwarded) come to the namespace's handler. Called with
    /// `commit_mutex` held; sleeps.
    pub(crate) fn watch_forwarded(&self) {
        // SAFETY: The namespace is valid, and takes the hooks away when it ends.
        unsafe { bindings::shim_net_watch_forwarded(self.as_raw()) }
    }

    /// Returns the generation of the namespace's ruleset, `net->nft.base_seq`, which each transaction of nftables
    /// changes: that of two seconds ago, by which the packet went at least that made an entry which is seen for
    /// the first time. Does not sleep.
    pub(crate) fn ruleset(&self) -> u32 {
        // SAFETY: The namespace is valid.
        unsafe { bindings::shim_net_ruleset(self.as_raw()) }
    }

    /// Sets for how many seconds at least the flows of a ruleset go on before those of the next one are
    /// made anew, see [`Self::outdates`]; 0: they all go on. Does not sleep.
    pub(crate) fn set_ruleset_pause(seconds: u32) {
        // SAFETY: Can be called anywhere.
        unsafe { bindings::shim_settings_set_ruleset_pause(seconds) }
    }

    /// Returns whether an entry that was made with a [`Self::ruleset`] with these lower bits is to be made anew: there
    /// is another one, and it is this entry's turn. To be asked each second. Does not sleep.
    pub(crate) fn outdates(&self, ruleset: u16) -> bool {
        // SAFETY: The namespace is valid.
        unsafe { bindings::shim_net_outdates(self.as_raw(), ruleset) }
    }
}

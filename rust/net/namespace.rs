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

    pub(super) fn as_raw(&self) -> *mut bindings::net {
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
}

// SPDX-License-Identifier: GPL-2.0

//! Conntrack entries.
//!
//! C header: [`include/net/netfilter/nf_conntrack.h`](srctree/include/net/netfilter/nf_conntrack.h)

use crate::{
    bindings,
    netfilter::flow::Direction, //
};
use core::ptr::NonNull;
use kernel::{
    sync::aref::AlwaysRefCounted,
    types::Opaque, //
};

/// A tracked connection, `struct nf_conn`.
///
/// # Invariants
///
/// Instances are always reference counted (`ct_general`).
#[repr(transparent)]
pub(crate) struct Conntrack(Opaque<bindings::nf_conn>);

impl Conntrack {
    /// # Safety
    ///
    /// `ptr` must point to an entry to which a reference is held during `'a`.
    pub(super) unsafe fn from_raw<'a>(ptr: *mut bindings::nf_conn) -> &'a Self {
        // SAFETY: By the function's requirements; the type is transparent.
        unsafe { &*ptr.cast() }
    }

    /// Takes back `[HW_OFFLOAD]`, `IPS_HW_OFFLOAD_BIT`: the connection is no longer in hardware.
    pub(crate) fn clear_hw_offload(&self) {
        // SAFETY: The type invariant keeps the entry alive; the bit is changed atomically.
        unsafe { bindings::shim_ct_clear_hw_offload(self.0.get()) }
    }

    /// Says so again: [`Self::clear_hw_offload`] was for an older flow of the connection.
    pub(crate) fn set_hw_offload(&self) {
        // SAFETY: The type invariant keeps the entry alive; the bit is changed atomically.
        unsafe { bindings::shim_ct_set_hw_offload(self.0.get()) }
    }

    /// Has conntrack learn the windows of a TCP connection anew, of which it has not seen all
    /// packets (`flow_offload_fixup_tcp()`): else it may take a RST for an invalid one.
    pub(super) fn forget_windows(&self) {
        // SAFETY: The type invariant keeps the entry alive; its lock is taken.
        unsafe { bindings::shim_ct_forget_windows(self.0.get()) }
    }

    /// The connection's zone, 0 if it is in none.
    pub(crate) fn zone(&self) -> u16 {
        // SAFETY: The type invariant keeps the entry alive; the zone does not change.
        unsafe { bindings::shim_ct_zone(self.0.get()) }
    }

    /// The connection's mark, 0 if this kernel has none.
    pub(crate) fn mark(&self) -> u32 {
        // SAFETY: The type invariant keeps the entry alive.
        unsafe { bindings::shim_ct_mark(self.0.get()) }
    }

    /// Adds to the counters of one direction, if the entry has any (`nf_ct_acct_add`, whose bytes have
    /// 32 bits).
    pub(crate) fn account(&self, dir: Direction, packets: u64, bytes: u64) {
        // SAFETY: The type invariant keeps the entry alive; the counters are atomic.
        unsafe { bindings::shim_ct_account(self.0.get(), dir as u32, packets, bytes) }
    }
}

// SAFETY: `struct nf_conn` is reference counted and used from any thread.
unsafe impl Send for Conntrack {}

// SAFETY: The methods above are atomic.
unsafe impl Sync for Conntrack {}

// SAFETY: `nf_conntrack_get` and `nf_ct_put` count references to the entry.
unsafe impl AlwaysRefCounted for Conntrack {
    fn inc_ref(&self) {
        // SAFETY: The type invariant keeps the entry alive.
        unsafe { bindings::shim_ct_get(self.0.get()) }
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up a reference that it owns.
        unsafe { bindings::shim_ct_put(obj.as_ref().0.get()) }
    }
}

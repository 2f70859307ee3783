// SPDX-License-Identifier: GPL-2.0

//! Conntrack entries.
//!
//! C header: [`include/net/netfilter/nf_conntrack.h`](srctree/include/net/netfilter/nf_conntrack.h)

use crate::{
    bindings,
    net::namespace::Net, //
};
use core::ptr::NonNull;
use kernel::{
    fmt,
    sync::aref::AlwaysRefCounted,
    types::Opaque, //
};

/// One of the two directions of a flow, `enum flow_offload_tuple_dir`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Original = 0,
    Reply = 1,
}

impl Direction {
    /// Both directions, original first.
    pub(crate) const BOTH: [Self; 2] = [Self::Original, Self::Reply];

    pub(super) fn as_raw(self) -> bindings::flow_offload_tuple_dir {
        match self {
            Self::Original => bindings::flow_offload_tuple_dir_FLOW_OFFLOAD_DIR_ORIGINAL,
            Self::Reply => bindings::flow_offload_tuple_dir_FLOW_OFFLOAD_DIR_REPLY,
        }
    }

    /// The opposite direction.
    pub(crate) fn reverse(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Original => "original",
            Self::Reply => "reply",
        })
    }
}

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

    /// Sets or clears `[HW_OFFLOAD]`, `IPS_HW_OFFLOAD_BIT`.
    pub(crate) fn set_hw_offload(&self, is_set: bool) {
        // SAFETY: The type invariant keeps the entry alive; the bit is changed atomically.
        unsafe {
            if is_set {
                bindings::shim_ct_set_hw_offload(self.0.get())
            } else {
                bindings::shim_ct_clear_hw_offload(self.0.get())
            }
        }
    }

    /// Returns the connection's namespace, which waits for its connections when it ends.
    pub(crate) fn net(&self) -> &Net {
        // SAFETY: The type invariant keeps the entry, and that the namespace, alive.
        unsafe { Net::from_raw(bindings::shim_ct_net(self.0.get())) }
    }

    /// Returns whether the connection has been killed.
    ///
    /// C: `nf_ct_is_dying()`.
    pub(crate) fn is_dying(&self) -> bool {
        // SAFETY: The type invariant keeps the entry alive.
        unsafe { bindings::shim_ct_is_dying(self.0.get()) }
    }

    /// Resets TCP window tracking, as packets of the connection have passed conntrack by: else it may
    /// take a RST for an invalid one.
    ///
    /// C: `flow_offload_fixup_tcp()`.
    pub(crate) fn reset_tcp_windows(&self) {
        // SAFETY: The type invariant keeps the entry alive; its lock is taken.
        unsafe { bindings::shim_ct_forget_windows(self.0.get()) }
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

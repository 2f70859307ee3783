// SPDX-License-Identifier: GPL-2.0

//! Flowtables.
//!
//! C header: [`include/net/netfilter/nf_flow_table.h`](srctree/include/net/netfilter/nf_flow_table.h)

use crate::{
    bindings,
    net::namespace::Net,
    netfilter::flow::{Direction, FlowName, FlowOffload}, //
};
use core::ptr::addr_of;
use kernel::{
    sync::rcu,
    types::Opaque, //
};

/// A flowtable, `struct nf_flowtable`.
///
/// # Invariants
///
/// `nf_flow_table_init()` has initialised the table, and it is not freed while it is borrowed.
#[repr(transparent)]
pub(crate) struct Flowtable(Opaque<bindings::nf_flowtable>);

impl Flowtable {
    /// # Safety
    ///
    /// `ptr` must point to an initialised flowtable that is not freed during `'a`.
    pub(super) unsafe fn from_raw<'a>(ptr: *mut bindings::nf_flowtable) -> &'a Self {
        // SAFETY: By the function's requirements; the type is transparent.
        unsafe { &*ptr.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::nf_flowtable {
        self.0.get()
    }

    fn flags(&self) -> u32 {
        // SAFETY: The table is valid. An update of the table may set other flags meanwhile, but
        // not change NF_FLOWTABLE_HW_OFFLOAD (nft_flowtable_update()).
        unsafe { addr_of!((*self.0.get()).flags).read_volatile() }
    }

    /// `flags offload`
    pub(super) fn is_offload(&self) -> bool {
        self.flags() & bindings::nf_flowtable_flags_NF_FLOWTABLE_HW_OFFLOAD != 0
    }

    /// Whether packets are to be counted in conntrack (`counter`).
    pub(crate) fn has_counter(&self) -> bool {
        self.flags() & bindings::nf_flowtable_flags_NF_FLOWTABLE_COUNTER != 0
    }

    /// The table's hook priority. Constant once devices are bound.
    pub(crate) fn priority(&self) -> i32 {
        // SAFETY: The table is valid.
        unsafe { addr_of!((*self.0.get()).priority).read_volatile() }
    }

    /// Tears an entry down if it is found. While the hash table grows, one that was torn down
    /// before may hide it. Does not sleep. C: `flow_offload_teardown()`.
    pub(crate) fn teardown(&self, name: &FlowName) {
        self.with_entry(name.tuple(), |flow, _| {
            if flow.name().entry == name.entry {
                flow.teardown();
            }
        });
    }

    /// Calls `f` for the live entry that has this tuple, and with the direction that it is of. `f`
    /// must not sleep. C: `flow_offload_lookup()`.
    pub(super) fn with_entry<R>(
        &self,
        mut tuple: bindings::flow_offload_tuple,
        f: impl FnOnce(&FlowOffload, Direction) -> R,
    ) -> Option<R> {
        // Entries are freed after a grace period.
        let _guard = rcu::read_lock();
        // SAFETY: The table is valid, and the tuple is only compared with those in it.
        let found = unsafe { bindings::flow_offload_lookup(self.0.get(), &mut tuple).as_ref() }?;
        // SAFETY: What is found is a tuple of an entry, which RCU protects.
        let (flow, dir) = unsafe { FlowOffload::from_cookie((&raw const found.tuple) as usize) };

        Some(f(flow, dir))
    }

    /// The network namespace of the table.
    pub(crate) fn net(&self) -> &Net {
        // SAFETY: A table is destroyed before its namespace.
        unsafe { Net::from_raw(bindings::shim_flowtable_net(self.0.get())) }
    }
}

/// Holds `flow_block_lock` of a table.
pub(super) struct BlockLock {
    table: *mut bindings::nf_flowtable,
    unlock: unsafe extern "C" fn(*mut bindings::nf_flowtable),
}

impl BlockLock {
    /// For reading.
    pub(super) fn shared(table: &Flowtable) -> Self {
        // SAFETY: The table is initialised, and so is its lock.
        unsafe { bindings::shim_flowtable_lock_shared(table.0.get()) };
        Self {
            table: table.0.get(),
            unlock: bindings::shim_flowtable_unlock_shared,
        }
    }

    /// For writing.
    pub(super) fn new(table: &Flowtable) -> Self {
        // SAFETY: As above.
        unsafe { bindings::shim_flowtable_lock(table.0.get()) };
        Self {
            table: table.0.get(),
            unlock: bindings::shim_flowtable_unlock,
        }
    }
}

impl Drop for BlockLock {
    fn drop(&mut self) {
        // SAFETY: The lock was taken in this way; the table was borrowed by the function that did so.
        unsafe { (self.unlock)(self.table) }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Flowtables.
//!
//! C header: [`include/net/netfilter/nf_flow_table.h`](srctree/include/net/netfilter/nf_flow_table.h)

use crate::{
    bindings,
    net::namespace::Net,
    netfilter::{
        conntrack::Direction,
        flow::FlowOffload, //
    }, //
};
use core::ptr::{addr_of, NonNull};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    new_spinlock,
    prelude::*,
    sync::{rcu, Arc, SpinLock},
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

    pub(super) fn as_raw(&self) -> *mut bindings::nf_flowtable {
        self.0.get()
    }

    fn flags(&self) -> u32 {
        // SAFETY: The table is valid. An update of the table may set other flags meanwhile, but
        // not change NF_FLOWTABLE_HW_OFFLOAD (nft_flowtable_update()).
        unsafe { addr_of!((*self.0.get()).flags).read_volatile() }
    }

    /// Returns whether the table has `flags offload`.
    pub(super) fn is_offload(&self) -> bool {
        self.flags() & bindings::nf_flowtable_flags_NF_FLOWTABLE_HW_OFFLOAD != 0
    }

    /// Returns whether packets are to be counted in conntrack (`counter`).
    pub(crate) fn has_counter(&self) -> bool {
        self.flags() & bindings::nf_flowtable_flags_NF_FLOWTABLE_COUNTER != 0
    }

    /// Returns the table's hook priority. Constant once devices are bound.
    pub(crate) fn priority(&self) -> i32 {
        // SAFETY: The table is valid.
        unsafe { addr_of!((*self.0.get()).priority).read_volatile() }
    }

    /// Calls `f` for the live entry that has this tuple, and with the direction that it is of. `f`
    /// must not sleep.
    ///
    /// C: `flow_offload_lookup()`.
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

    fn has(&self, entry: &FlowOffload) -> bool {
        let is_entry = |found: &FlowOffload, _| core::ptr::eq(found, entry);

        self.with_entry(entry.lookup_key(), is_entry) == Some(true)
    }

    /// Returns the network namespace of the table.
    pub(crate) fn net(&self) -> &Net {
        // SAFETY: A table is destroyed before its namespace.
        unsafe { Net::from_raw(bindings::shim_flowtable_net(self.0.get())) }
    }
}

/// Flowtables of a namespace, with what is kept for each: `nf_flowtable_type::action` does not say
/// in which table an entry is.
#[pin_data]
pub(crate) struct Tables<T> {
    #[pin]
    list: SpinLock<KVec<TableRef<T>>>,
}

/// # Invariants
///
/// `raw` is valid as long as the value is in the list.
struct TableRef<T> {
    raw: NonNull<bindings::nf_flowtable>,
    table: Arc<T>,
}

// SAFETY: Flowtables are used from any thread.
unsafe impl<T: Send + Sync> Send for TableRef<T> {}

impl<T> Tables<T> {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            list <- new_spinlock!(KVec::new()),
        })
    }

    /// Adds a table. Sleeps; fails with `ENOMEM`.
    ///
    /// # Safety
    ///
    /// The table must be removed before it is freed.
    pub(super) unsafe fn add(&self, flowtable: &Flowtable, table: Arc<T>) -> Result {
        let mut added = KVec::new();

        // The list is as long as the one that takes its place, but for one.
        loop {
            let len = self.list.lock().len();
            added.reserve(len + 1, GFP_KERNEL_ACCOUNT)?;
            let mut list = self.list.lock();
            if list.len() > len {
                continue;
            }
            for entry in list.drain_all() {
                added.push_within_capacity(entry)?;
            }
            // INVARIANT: By the function's requirements.
            added.push_within_capacity(TableRef {
                // SAFETY: It is the address of a reference.
                raw: unsafe { NonNull::new_unchecked(flowtable.as_raw()) },
                table,
            })?;
            core::mem::swap(&mut *list, &mut added);
            break;
        }
        Ok(())
    }

    /// Removes a table, if it is there.
    pub(super) fn remove(&self, flowtable: &Flowtable) {
        let mut list = self.list.lock();
        let found = list
            .iter()
            .position(|entry| entry.raw.as_ptr() == flowtable.as_raw());
        let removed = found.and_then(|index| list.remove(index).ok());

        drop(list);
        drop(removed);
    }

    /// Returns the table that has `entry`. `None` if none of these does, or as long as an older entry,
    /// while the hash table grows, hides it. Does not sleep.
    pub(super) fn find<'a>(&self, entry: &'a FlowOffload) -> Option<(Arc<T>, &'a Flowtable)> {
        let list = self.list.lock();

        list.iter().find_map(|found| {
            // SAFETY: By the type invariant it is valid now, and if it has the entry, which is freed
            // before its table, then as long as the entry.
            let flowtable = unsafe { Flowtable::from_raw(found.raw.as_ptr()) };
            flowtable
                .has(entry)
                .then(|| (found.table.clone(), flowtable))
        })
    }

    /// Returns whether `f` is true of any table. `f` must not sleep.
    pub(crate) fn any(&self, f: impl FnMut(&T) -> bool) -> bool {
        let mut f = f;
        self.list.lock().iter().any(|found| f(&found.table))
    }
}

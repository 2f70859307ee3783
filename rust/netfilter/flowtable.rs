// SPDX-License-Identifier: GPL-2.0

//! Flowtables.
//!
//! C header: [`include/net/netfilter/nf_flow_table.h`](srctree/include/net/netfilter/nf_flow_table.h)

use crate::{
    bindings,
    net::{
        device::NetDevice,
        namespace::Net,
        rtnl::Rtnl, //
    },
    netfilter::{
        conntrack::Direction,
        flow::{EntryKey, FlowOffload}, //
    }, //
};
use core::{
    mem::ManuallyDrop,
    ptr::{addr_of, NonNull}, //
};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    new_spinlock,
    prelude::*,
    str::{CStr, CStrExt},
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
    pub(crate) fn is_offload(&self) -> bool {
        self.flags() & bindings::nf_flowtable_flags_NF_FLOWTABLE_HW_OFFLOAD != 0
    }

    /// Returns whether packets are to be counted in conntrack (`counter`).
    pub(crate) fn has_counter(&self) -> bool {
        self.flags() & bindings::nf_flowtable_flags_NF_FLOWTABLE_COUNTER != 0
    }

    /// Returns the name of the flowtable, and that of the nftables table that it is in.
    pub(crate) fn names(&self) -> [&CStr; 2] {
        // SAFETY: The table is valid, and a member of a `struct nft_flowtable`, as only nftables makes
        // tables of our types; names end with a NUL, and do not change.
        unsafe {
            [
                CStr::from_char_ptr(bindings::shim_flowtable_name(self.as_raw())),
                CStr::from_char_ptr(bindings::shim_flowtable_table(self.as_raw())),
            ]
        }
    }

    /// Returns the family of the nftables table, `NFPROTO_INET` and such.
    pub(crate) fn family(&self) -> u8 {
        // SAFETY: As for `names`.
        unsafe { bindings::shim_flowtable_family(self.as_raw()) }
    }

    /// Returns the generation of the ruleset by which an entry of the table was made at least. Called with
    /// `commit_mutex` held.
    fn ruleset(&self) -> u32 {
        // SAFETY: As for `names`.
        unsafe { bindings::shim_flowtable_ruleset(self.as_raw()) }
    }

    /// Returns how many entries there are now.
    pub(crate) fn entries(&self) -> u32 {
        // SAFETY: The table is valid; the number is read atomically.
        unsafe { bindings::shim_flowtable_entries(self.as_raw()) }
    }

    /// Returns the table's hook priority. Constant once devices are bound.
    pub(crate) fn priority(&self) -> i32 {
        // SAFETY: The table is valid.
        unsafe { addr_of!((*self.0.get()).priority).read_volatile() }
    }

    /// Returns RTNL if nftables binds `dev` because it has come, or got its name, after the ruleset:
    /// then its notifier of devices calls, and the device cannot come if it is refused.
    ///
    /// # Safety
    ///
    /// Only for `nf_flowtable_type::setup` with `FLOW_BLOCK_BIND` for `dev`; what is returned must not
    /// outlive the call.
    pub(super) unsafe fn awaits(&self, dev: &NetDevice) -> Option<ManuallyDrop<Rtnl>> {
        // SAFETY: The table is valid, and a member of a `struct nft_flowtable`, as only nftables makes
        // tables of our types. It calls `setup` with `commit_mutex` held.
        let is_late = unsafe { bindings::shim_flowtable_awaits(self.as_raw(), dev.as_raw()) };

        // SAFETY: Notifiers of devices are called with RTNL held.
        is_late.then(|| unsafe { Rtnl::assume_held() })
    }

    /// Calls `f` for the live entry that has this tuple, and with the direction that it is of. `f`
    /// must not sleep.
    ///
    /// C: `flow_offload_lookup()`.
    pub(super) fn with_entry<R>(
        &self,
        tuple: bindings::flow_offload_tuple,
        f: impl FnOnce(&FlowOffload, Direction) -> R,
    ) -> Option<R> {
        let guard = rcu::read_lock();
        self.lookup(tuple, &guard).map(|(entry, dir)| f(entry, dir))
    }

    /// As [`Self::with_entry`]: entries are freed after a grace period, whatever becomes of their table.
    fn lookup<'a>(
        &self,
        mut tuple: bindings::flow_offload_tuple,
        _guard: &'a rcu::Guard,
    ) -> Option<(&'a FlowOffload, Direction)> {
        // SAFETY: The table is valid, and the tuple is only compared with those in it.
        let found = unsafe { bindings::flow_offload_lookup(self.0.get(), &mut tuple).as_ref() }?;

        // SAFETY: What is found is a tuple of an entry, which RCU protects.
        Some(unsafe { FlowOffload::from_cookie((&raw const found.tuple) as usize) })
    }

    fn has(&self, entry: &FlowOffload) -> bool {
        let is_entry = |found: &FlowOffload, _| core::ptr::eq(found, entry);

        self.with_entry(entry.key().0, is_entry) == Some(true)
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
    /// Those without `flags offload` come first.
    #[pin]
    list: SpinLock<KVec<TableRef<T>>>,
}

/// # Invariants
///
/// `raw` is valid as long as the value is in the list.
struct TableRef<T> {
    raw: NonNull<bindings::nf_flowtable>,
    table: Arc<T>,
    is_plain: bool,
    ruleset: u32,
}

// SAFETY: Flowtables are used from any thread.
unsafe impl<T: Send + Sync> Send for TableRef<T> {}

impl<T> Tables<T> {
    /// So many tables without `flags offload`, the oldest, are looked into: each costs garbage collection a
    /// look-up for a new entry.
    const MAX_PLAIN: usize = 16;

    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            list <- new_spinlock!(KVec::new()),
        })
    }

    /// Adds a table. Called with `commit_mutex` held; sleeps; fails with `ENOMEM`.
    ///
    /// # Safety
    ///
    /// The table must be removed before it is freed.
    pub(super) unsafe fn add(&self, flowtable: &Flowtable, table: Arc<T>) -> Result {
        let mut added = KVec::new();
        let is_plain = !flowtable.is_offload();
        // INVARIANT: By the function's requirements.
        let new = TableRef {
            // SAFETY: It is the address of a reference.
            raw: unsafe { NonNull::new_unchecked(flowtable.as_raw()) },
            table,
            is_plain,
            ruleset: flowtable.ruleset(),
        };

        // The list is as long as the one that takes its place, but for one.
        loop {
            let len = self.list.lock().len();
            added.reserve(len + 1, GFP_KERNEL_ACCOUNT)?;
            let mut list = self.list.lock();
            if list.len() > len {
                continue;
            }
            let plain = list.iter().take_while(|entry| entry.is_plain).count();
            let at = if is_plain { plain } else { list.len() };
            for entry in list.drain_all() {
                added.push_within_capacity(entry)?;
            }
            added.insert_within_capacity(at, new)?;
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

    /// Returns what is kept for a table, if it is there. Does not sleep.
    pub(crate) fn get(&self, flowtable: &Flowtable) -> Option<Arc<T>> {
        let list = self.list.lock();
        let found = list
            .iter()
            .find(|found| found.raw.as_ptr() == flowtable.as_raw())?;
        Some(found.table.clone())
    }

    /// Returns the table that has `entry`, and the generation of the ruleset that has brought the table. `None`
    /// if none of these does, or as long as an older entry, while the hash table grows, hides it. Does not sleep.
    pub(super) fn find<'a>(&self, entry: &'a FlowOffload) -> Option<(Arc<T>, &'a Flowtable, u32)> {
        let list = self.list.lock();

        list.iter()
            .filter(|found| !found.is_plain)
            .find_map(|found| {
                // SAFETY: By the type invariant it is valid now, and if it has the entry, which is freed
                // before its table, then as long as the entry.
                let flowtable = unsafe { Flowtable::from_raw(found.raw.as_ptr()) };
                flowtable
                    .has(entry)
                    .then(|| (found.table.clone(), flowtable, found.ruleset))
            })
    }

    /// The tables without `flags offload` that are looked into.
    fn plain(list: &[TableRef<T>]) -> impl Iterator<Item = (&Flowtable, u32)> {
        list.iter()
            .take(Self::MAX_PLAIN)
            .take_while(|found| found.is_plain)
            .map(|found| {
                // SAFETY: By the type invariant.
                let flowtable = unsafe { Flowtable::from_raw(found.raw.as_ptr()) };
                (flowtable, found.ruleset)
            })
    }

    /// Returns the generation of the ruleset that has brought the table that has `entry`, if it is one without
    /// `flags offload`, as far as these are looked into. Does not sleep.
    pub(super) fn find_plain(&self, entry: &FlowOffload) -> Option<u32> {
        Self::plain(&self.list.lock())
            .find_map(|(flowtable, ruleset)| flowtable.has(entry).then_some(ruleset))
    }

    /// Calls `f`, which must not sleep, with the live entry of a table without `flags offload` that has this
    /// key, as far as these are looked into.
    pub(crate) fn with_plain(&self, key: &EntryKey, f: impl FnOnce(&FlowOffload)) {
        let guard = rcu::read_lock();
        let lookup = |(flowtable, _): (&Flowtable, u32)| flowtable.lookup(key.0, &guard);
        // A table that goes waits for the lock, and not for `f`.
        let found = Self::plain(&self.list.lock()).find_map(lookup);

        if let Some((entry, _)) = found {
            f(entry);
        }
    }

    /// Returns what `f` finds in the first table in which it finds anything. `f` must not sleep.
    pub(crate) fn find_map<R>(&self, f: impl FnMut(&T) -> Option<R>) -> Option<R> {
        let mut f = f;
        self.list.lock().iter().find_map(|found| f(&found.table))
    }

    /// Returns whether `f` is true of any table. `f` must not sleep.
    pub(crate) fn any(&self, f: impl FnMut(&T) -> bool) -> bool {
        let mut f = f;
        self.list.lock().iter().any(|found| f(&found.table))
    }
}

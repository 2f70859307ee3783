// SPDX-License-Identifier: GPL-2.0

//! All flowtables of our types, whether devices have joined them or not.
//!
//! nftables frees a flowtable when it likes; who looks into one does that for a moment at a time. So each table
//! has a [`KnownTable`], which stays when the table goes, and which then takes all walks out of it.
//!
//! No memory is asked for with a lock held: a task whose cgroup has too much is made to wait then, and all rulesets
//! of the host with it.

use crate::{
    bindings,
    net::namespace::Net,
    netfilter::{
        flow::FlowOffload,
        flowtable::Flowtable, //
    },
};
use core::ptr::NonNull;
use kernel::{
    alloc::{
        flags::{GFP_KERNEL_ACCOUNT, GFP_NOWAIT, __GFP_NOWARN},
        Flags, //
    },
    new_mutex,
    new_spinlock,
    prelude::*,
    rbtree::{RBTree, RBTreeNode},
    sync::{Arc, Mutex, SpinLock},
    types::Opaque, //
};

/// Where a table is among all, ordered by namespace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    net: usize,
    table: usize,
}

/// The flowtables of all namespaces.
#[pin_data]
pub(crate) struct KnownTables {
    #[pin]
    tables: SpinLock<RBTree<Key, Arc<KnownTable>>>,
}

/// A place between two tables of a namespace, none of which has to be there any more.
#[derive(Clone, Default)]
pub(crate) struct TableCursor(Option<(usize, Arc<KnownTable>)>);

impl TableCursor {
    /// Returns whether the table before it is gone: those after it may be others than there were. Sleeps.
    pub(crate) fn is_adrift(&self) -> bool {
        matches!(&self.0, Some((_, table)) if table.with(|_| ()).is_none())
    }
}

impl KnownTables {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            tables <- new_spinlock!(RBTree::new()),
        })
    }

    fn key(flowtable: &Flowtable) -> Key {
        Key {
            net: core::ptr::from_ref(flowtable.net()) as usize,
            table: flowtable.as_raw() as usize,
        }
    }

    /// Adds a table. Sleeps; fails with `ENOMEM`.
    ///
    /// # Safety
    ///
    /// The table must be removed before it is freed.
    pub(super) unsafe fn add(&self, flowtable: &Flowtable) -> Result {
        // INVARIANT: By the function's requirements.
        let inner = Inner {
            raw: NonNull::new(flowtable.as_raw()),
            walks: RBTree::new(),
        };
        let table = Arc::pin_init(
            pin_init!(KnownTable {
                inner <- new_mutex!(inner),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        let node = RBTreeNode::new(Self::key(flowtable), table, GFP_KERNEL_ACCOUNT)?;
        let old = self.tables.lock().insert(node);
        drop(old);
        Ok(())
    }

    /// Removes a table, and waits for those who look into it. Sleeps.
    pub(super) fn remove(&self, flowtable: &Flowtable) {
        let removed = self.tables.lock().remove_node(&Self::key(flowtable));

        if let Some(node) = removed {
            node.to_key_value().1.close();
        }
    }

    /// Returns the next table of a namespace, and where to go on after it. Does not sleep.
    pub(crate) fn next(
        &self,
        net: &Net,
        after: &TableCursor,
    ) -> Option<(TableCursor, Arc<KnownTable>)> {
        let net = core::ptr::from_ref(net) as usize;
        let from = Key {
            net,
            table: after.0.as_ref().map_or(0, |&(table, _)| table + 1),
        };
        let tables = self.tables.lock();
        let cursor = tables.cursor_lower_bound(&from)?;
        let (key, table) = cursor.current();

        (key.net == net).then(|| (TableCursor(Some((key.table, table.clone()))), table.clone()))
    }
}

/// A flowtable that may be gone.
#[pin_data]
pub(crate) struct KnownTable {
    #[pin]
    inner: Mutex<Inner>,
}

/// # Invariants
///
/// - `raw` is valid if it is there.
/// - All of `walks` are in that table, and no others are in it.
struct Inner {
    raw: Option<NonNull<bindings::nf_flowtable>>,
    /// By address.
    walks: RBTree<usize, NonNull<bindings::rhashtable_iter>>,
}

// SAFETY: Flowtables and walks in them are used from any thread.
unsafe impl Send for Inner {}

impl KnownTable {
    /// The table is about to be freed.
    fn close(&self) {
        let mut inner = self.inner.lock();

        inner.raw = None;
        for iter in core::mem::take(&mut inner.walks).values() {
            // SAFETY: By the type invariant of `Inner`; none is between start and stop, for these hold
            // the lock.
            unsafe { bindings::rhashtable_walk_exit(iter.as_ptr()) };
        }
    }

    /// Calls `f` with the table if it is still there. Sleeps; the table's end waits for `f`.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&Flowtable) -> R) -> Option<R> {
        let inner = self.inner.lock();

        let raw = inner.raw?;
        // SAFETY: By the type invariant of `Inner`.
        Some(f(unsafe { Flowtable::from_raw(raw.as_ptr()) }))
    }
}

/// How a step of a walk has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walked {
    /// There may be more entries.
    Some,
    /// The table was made anew, and the walk begins anew: all entries come, seen or not.
    Anew,
    /// The table is being made anew, and the walk goes on with what was moved by now: entries may come twice.
    Moved,
    /// All entries have been seen. (One may have been passed over, as that before it had gone meanwhile.)
    All,
    /// The table is gone.
    Gone,
}

/// For memory that is accounted within a dump: whoever sends another request by the same socket waits for it with
/// genetlink's lock held, so it is not waited for.
pub(crate) fn dump_flags() -> Flags {
    GFP_NOWAIT | __GFP_NOWARN | (GFP_KERNEL_ACCOUNT & !GFP_KERNEL)
}

/// A walk through the entries of a table, which may take as long as it likes.
pub(crate) struct TableWalk {
    table: Arc<KnownTable>,
    iter: KBox<Opaque<bindings::rhashtable_iter>>,
}

// SAFETY: It is used from any thread, with the table's lock held.
unsafe impl Send for TableWalk {}

impl TableWalk {
    /// Begins a walk. Sleeps, but not for memory; fails with `ENOMEM`.
    pub(crate) fn new(table: &Arc<KnownTable>) -> Result<Self> {
        let flags = dump_flags();
        let walk = Self {
            table: table.clone(),
            iter: KBox::new(Opaque::uninit(), flags)?,
        };
        let iter = NonNull::new(walk.iter.get()).ok_or(EINVAL)?;
        let node = RBTreeNode::new(iter.as_ptr() as usize, iter, flags)?;
        let mut inner = table.inner.lock();

        if let Some(raw) = inner.raw {
            inner.walks.insert(node);
            // SAFETY: By the type invariant of `Inner`.
            // INVARIANT: `KBox` does not move what it owns; `drop` takes it out.
            unsafe { bindings::shim_flowtable_walk_enter(raw.as_ptr(), iter.as_ptr()) };
        }
        drop(inner);
        Ok(walk)
    }

    pub(crate) fn table(&self) -> &KnownTable {
        &self.table
    }

    /// Begins once more with the first entry. Sleeps.
    pub(crate) fn restart(&mut self) {
        let iter = self.iter.get();
        let inner = self.table.inner.lock();

        if let Some(raw) = inner.raw {
            // SAFETY: By the type invariant of `Inner`, the table is valid and `iter` in it, and is
            // afterwards.
            unsafe {
                bindings::rhashtable_walk_exit(iter);
                bindings::shim_flowtable_walk_enter(raw.as_ptr(), iter);
            }
        }
    }

    /// Goes on by up to `max` entries, and calls `f` for each; less if it returns `false`. Sleeps, but `f`
    /// must not: RCU is read-locked.
    pub(crate) fn step(&mut self, max: usize, mut f: impl FnMut(&FlowOffload) -> bool) -> Walked {
        let iter = self.iter.get();
        let inner = self.table.inner.lock();
        if inner.raw.is_none() {
            return Walked::Gone;
        }

        // SAFETY: By the type invariant of `Inner`, `iter` is in the table, which is not freed as long as
        // the lock is held. Entries are freed after a grace period. The start has its stop.
        unsafe {
            let mut walked = Walked::Some;
            let mut left = max;
            if bindings::shim_flowtable_walk_start(iter) != 0 {
                walked = Walked::Anew;
                left = 0;
            }
            for _ in 0..left {
                let entry = bindings::shim_flowtable_walk_next(iter);
                if entry.is_null() {
                    walked = Walked::All;
                    break;
                }
                if kernel::error::from_err_ptr(entry).is_err() {
                    walked = Walked::Moved;
                    break;
                }
                if !f(FlowOffload::from_raw(entry)) {
                    break;
                }
            }
            bindings::shim_flowtable_walk_stop(iter);
            walked
        }
    }
}

impl Drop for TableWalk {
    fn drop(&mut self) {
        let iter = self.iter.get();
        let mut inner = self.table.inner.lock();

        // It is not there if the table is gone.
        if inner.walks.remove(&(iter as usize)).is_some() {
            // SAFETY: By the type invariant of `Inner` it was in the table.
            unsafe { bindings::rhashtable_walk_exit(iter) };
        }
    }
}

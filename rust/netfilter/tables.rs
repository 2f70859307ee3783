// SPDX-License-Identifier: GPL-2.0

//! The flowtables with `flags offload`, and access to them for who is not called by C.

use crate::{
    bindings,
    net::notifier::RouteNotifier,
    netfilter::{
        flowtable::{BlockLock, Flowtable},
        flowtable_type::Offload, //
    },
};
use core::{
    cell::UnsafeCell,
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{Arc, CondVar, Mutex}, //
};

/// What the callback in a table's block works with.
///
/// # Invariants
///
/// `table` outlives this value: it is dropped in `nf_flowtable_type::free`.
#[pin_data]
pub(super) struct Shared<T: Offload> {
    table: *mut bindings::nf_flowtable,
    #[pin]
    pub(super) offload: T,
    pub(super) devices: UnsafeCell<T::Devices>,
    #[pin]
    _routes: RouteNotifier<T::Context>,
}

// SAFETY: `T` and `T::Devices` are `Send`, and a flowtable is used from any thread.
unsafe impl<T: Offload> Send for Shared<T> {}

// SAFETY: `T` and `T::Devices` are `Sync`, `flow_block_lock` guards `devices`.
unsafe impl<T: Offload> Sync for Shared<T> {}

impl<T: Offload> Shared<T> {
    pub(super) fn new<'a>(
        flowtable: &'a Flowtable,
        context: &'a Arc<T::Context>,
    ) -> impl PinInit<Self, Error> + use<'a, T> {
        try_pin_init!(Self {
            table: flowtable.as_ptr(),
            offload <- T::new(),
            devices: UnsafeCell::new(T::devices(context)),
            // SAFETY: A table is destroyed before its namespace, and this value with the table.
            _routes <- unsafe { RouteNotifier::new(flowtable.net(), context.clone()) },
        })
    }

    pub(super) fn table(&self) -> &Flowtable {
        // SAFETY: By the type invariant.
        unsafe { Flowtable::from_raw(self.table) }
    }
}

/// The tables of a [`Registration`](super::flowtable_type::Registration) with `flags offload`.
#[pin_data]
pub(crate) struct Tables<T: Offload> {
    #[pin]
    list: Mutex<List<T>>,
    /// Somebody has done with a table.
    #[pin]
    left: CondVar,
}

struct List<T: Offload> {
    /// In the order of their numbers.
    entries: KVec<Entry<T>>,
    last: u64,
}

/// # Invariants
///
/// The table is valid as long as the entry is in the list.
struct Entry<T: Offload> {
    number: u64,
    table: NonNull<Shared<T>>,
    /// How many have [`Access`].
    users: usize,
}

// SAFETY: What it points to is `Sync`.
unsafe impl<T: Offload> Send for Entry<T> {}

impl<T: Offload> Tables<T> {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            list <- new_mutex!(List {
                entries: KVec::new(),
                last: 0,
            }),
            left <- new_condvar!(),
        })
    }

    /// Calls `f` for each table, which does not go meanwhile. None of our locks is held. Sleeps.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&T, &Access<'_, T>)) {
        let mut number = 0;

        while let Some((next, table)) = self.enter_after(number) {
            number = next;
            // SAFETY: The entry has a user until `leave`, for which `remove` waits; so it stays in the
            // list, and the table is valid.
            let shared = unsafe { table.as_ref() };
            f(&shared.offload, &Access(shared));
            self.leave(number);
        }
    }

    fn enter_after(&self, number: u64) -> Option<(u64, NonNull<Shared<T>>)> {
        let mut list = self.list.lock();
        let entry = list
            .entries
            .iter_mut()
            .find(|entry| entry.number > number)?;

        entry.users += 1;
        Some((entry.number, entry.table))
    }

    fn leave(&self, number: u64) {
        let mut list = self.list.lock();
        let entry = list.entries.iter_mut().find(|entry| entry.number == number);

        if let Some(entry) = entry {
            entry.users -= 1;
        }
        self.left.notify_all();
    }

    /// # Safety
    ///
    /// The value must stay in place until it is removed.
    pub(super) unsafe fn add(&self, table: NonNull<Shared<T>>) -> Result {
        let mut list = self.list.lock();

        list.last += 1;
        let number = list.last;
        // INVARIANT: By the function's requirements.
        list.entries.push(
            Entry {
                number,
                table,
                users: 0,
            },
            GFP_KERNEL,
        )?;
        Ok(())
    }

    /// Waits for those who have access to the table.
    pub(super) fn remove(&self, table: NonNull<Shared<T>>) {
        let mut list = self.list.lock();

        while list
            .entries
            .iter()
            .any(|entry| entry.table == table && entry.users > 0)
        {
            self.left.wait(&mut list);
        }
        list.entries.retain(|entry| entry.table != table);
    }
}

/// A table with `flags offload` that is not freed meanwhile.
pub(crate) struct Access<'a, T: Offload>(&'a Shared<T>);

impl<T: Offload> Access<'_, T> {
    pub(crate) fn table(&self) -> &Flowtable {
        self.0.table()
    }

    /// The table's devices: none joins or leaves as long as the value lives, and nft waits. Sleeps.
    pub(crate) fn devices(&self) -> LockedDevices<'_, T> {
        LockedDevices {
            _lock: BlockLock::shared(self.table()),
            // SAFETY: The lock that guards the devices is held for reading.
            devices: unsafe { &*self.0.devices.get() },
        }
    }
}

/// The devices of a table, with `flow_block_lock` held for reading.
pub(crate) struct LockedDevices<'a, T: Offload> {
    devices: &'a T::Devices,
    _lock: BlockLock,
}

impl<T: Offload> Deref for LockedDevices<'_, T> {
    type Target = T::Devices;

    fn deref(&self) -> &T::Devices {
        self.devices
    }
}

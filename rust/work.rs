// SPDX-License-Identifier: GPL-2.0

//! Work that is put off: a queue to leave it in, and a worker that gets it done.

use crate::bindings;
use kernel::{
    error::to_result,
    prelude::*,
    str::CStrExt,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        Arc, //
    },
    types::Opaque, //
};

struct Node<T> {
    item: T,
    next: *mut Node<T>,
}

/// A queue into which items can be put in any context, without a lock.
///
/// It is bounded, and memory may be short: then an item is lost, and [`Queue::take`] says so.
///
/// # Invariants
///
/// `head` is NULL or the head of a list of nodes that the queue owns.
pub(crate) struct Queue<T> {
    head: Atomic<*mut Node<T>>,
    len: Atomic<u32>,
    lost: Atomic<u32>,
}

// SAFETY: The queue owns its items and hands them on.
unsafe impl<T: Send> Send for Queue<T> {}

// SAFETY: Items are put in and taken out atomically; none is looked at while it is in the queue.
unsafe impl<T: Send> Sync for Queue<T> {}

impl<T> Queue<T> {
    /// With more than this, it is quicker to assume that everything has changed.
    const MAX: u32 = 4096;

    pub(crate) const fn new() -> Self {
        Self {
            head: Atomic::new(core::ptr::null_mut()),
            len: Atomic::new(0),
            lost: Atomic::new(0),
        }
    }

    /// Puts an item in. Does not sleep.
    pub(crate) fn put(&self, item: T) {
        let node = Node {
            item,
            next: core::ptr::null_mut(),
        };
        let node = match KBox::new(node, GFP_ATOMIC | kernel::alloc::flags::__GFP_NOWARN) {
            Ok(node) if self.len.load(Relaxed) < Self::MAX => KBox::into_raw(node),
            _ => return self.lose(),
        };
        self.len.fetch_add(1, Relaxed);

        let mut head = self.head.load(Relaxed);
        loop {
            // SAFETY: The node is not in the queue yet, so it is ours.
            unsafe { (*node).next = head };
            // INVARIANT: The node is owned by the queue from here on.
            match self.head.cmpxchg(head, node, Full) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// As if an item had been lost. Does not sleep.
    pub(crate) fn lose(&self) {
        self.lost.store(1, Relaxed);
    }

    /// Takes all items out, the newest first, and says whether any was lost since the last time.
    pub(crate) fn take(&self) -> (Items<T>, bool) {
        let lost = self.lost.xchg(0, Relaxed) != 0;
        // INVARIANT: The queue is empty, and `Items` owns what was in it.
        let head = self.head.xchg(core::ptr::null_mut(), Full);
        self.len.store(0, Relaxed);
        (Items(head), lost)
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// Items that were in a queue.
///
/// # Invariants
///
/// NULL or the head of a list of nodes that this value owns.
pub(crate) struct Items<T>(*mut Node<T>);

impl<T> Iterator for Items<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.0.is_null() {
            return None;
        }

        // SAFETY: By the type invariant the node was made by `KBox::into_raw` and is ours.
        let node = KBox::into_inner(unsafe { KBox::from_raw(self.0) });
        // INVARIANT: The rest of the list.
        self.0 = node.next;
        Some(node.item)
    }
}

impl<T> Drop for Items<T> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

/// What a worker does. Both are called in process context, may sleep, and may run at the same time.
pub(crate) trait Work: Send + Sync + Sized + 'static {
    /// Called after [`Worker::start`].
    fn run(&self, worker: &Worker<Self>);

    /// Called some time after [`Worker::start_later`].
    fn run_later(&self, worker: &Worker<Self>);
}

/// A workqueue of its own, with something to do. When it is dropped, nothing of it runs any more.
///
/// C: `alloc_workqueue()`.
///
/// # Invariants
///
/// `raw` is started and calls with a pointer to the value.
#[pin_data(PinnedDrop)]
pub(crate) struct Worker<W: Work> {
    work: W,
    #[pin]
    raw: Opaque<bindings::shim_worker>,
}

// SAFETY: Work can be started from anywhere, and `W` is `Send`.
unsafe impl<W: Work> Send for Worker<W> {}

// SAFETY: As above, and `W` is `Sync`.
unsafe impl<W: Work> Sync for Worker<W> {}

impl<W: Work> Worker<W> {
    /// A worker that has nothing to do yet. Sleeps; fails with `ENOMEM`.
    pub(crate) fn new(name: &'static CStr, work: W) -> Result<Arc<Self>> {
        Arc::pin_init(
            try_pin_init!(&this in Self {
                work,
                // INVARIANT: Started when this succeeds; the value is pinned.
                raw <- Opaque::try_ffi_init(move |raw| {
                    // SAFETY: `raw` and what it calls with stay in place until `drop` stops it; and
                    // nobody starts work before the value is complete.
                    to_result(unsafe {
                        bindings::shim_worker_start(
                            raw,
                            name.as_char_ptr(),
                            Some(Self::run),
                            Some(Self::run_later),
                            this.as_ptr().cast(),
                        )
                    })
                }),
            }),
            GFP_KERNEL,
        )
    }

    /// What it does.
    pub(crate) fn work(&self) -> &W {
        &self.work
    }

    /// Has [`Work::run`] called soon, once more if it is running. Does not sleep.
    pub(crate) fn start(&self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::shim_worker_now(self.raw.get()) }
    }

    /// Has [`Work::run_later`] called after `delay`, in jiffies, unless that is under way. Does not
    /// sleep.
    pub(crate) fn start_later(&self, delay: u64) {
        // SAFETY: By the type invariant.
        unsafe { bindings::shim_worker_later(self.raw.get(), delay as usize) }
    }

    /// # Safety
    ///
    /// Only called by `raw`.
    unsafe extern "C" fn run(this: *mut c_void) {
        // SAFETY: By the type invariant; `drop` waits for this.
        let this = unsafe { &*this.cast::<Self>() };
        this.work.run(this);
    }

    /// # Safety
    ///
    /// Only called by `raw`.
    unsafe extern "C" fn run_later(this: *mut c_void) {
        // SAFETY: By the type invariant; `drop` waits for this.
        let this = unsafe { &*this.cast::<Self>() };
        this.work.run_later(this);
    }
}

#[pinned_drop]
impl<W: Work> PinnedDrop for Worker<W> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant. Sleeps; those who drop a worker may.
        unsafe { bindings::shim_worker_stop(self.raw.get()) }
    }
}

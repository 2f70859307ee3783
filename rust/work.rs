// SPDX-License-Identifier: GPL-2.0

//! Deferred work: a queue of items, workqueues and their works.

use crate::bindings;
use core::{
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    prelude::*,
    str::CStrExt,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        Arc,
        LockClassKey, //
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
    max: u32,
}

// SAFETY: The queue owns its items and hands them on.
unsafe impl<T: Send> Send for Queue<T> {}

// SAFETY: Items are put in and taken out atomically; none is looked at while it is in the queue.
unsafe impl<T: Send> Sync for Queue<T> {}

impl<T> Queue<T> {
    /// With more than this, it is quicker to assume that everything has changed.
    const MAX: u32 = 4096;

    pub(crate) const fn new() -> Self {
        Self::bounded(Self::MAX)
    }

    /// A queue for so many items.
    pub(crate) const fn bounded(max: u32) -> Self {
        Self {
            head: Atomic::new(core::ptr::null_mut()),
            len: Atomic::new(0),
            lost: Atomic::new(0),
            max,
        }
    }

    /// Puts an item in. Returns whether there was room, and memory. Does not sleep.
    pub(crate) fn put(&self, item: T) -> bool {
        let node = Node {
            item,
            next: core::ptr::null_mut(),
        };
        let node = match KBox::new(node, GFP_ATOMIC | kernel::alloc::flags::__GFP_NOWARN) {
            Ok(node) if self.len.load(Relaxed) < self.max => KBox::into_raw(node),
            _ => {
                self.lose();
                return false;
            }
        };
        self.len.fetch_add(1, Relaxed);

        let mut head = self.head.load(Relaxed);
        loop {
            // SAFETY: The node is not in the queue yet, so it is ours.
            unsafe { (*node).next = head };
            // INVARIANT: The node is owned by the queue from here on.
            match self.head.cmpxchg(head, node, Full) {
                Ok(_) => return true,
                Err(now) => head = now,
            }
        }
    }

    /// Returns whether there is nothing in it. Does not sleep.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Relaxed).is_null() && self.lost.load(Relaxed) == 0
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

/// A workqueue of the module's own, `WQ_UNBOUND`.
///
/// C: `alloc_workqueue()`.
///
/// # Invariants
///
/// A valid workqueue on which no work is left when the value is dropped: each [`Worker`] keeps a
/// reference to its queue and stops its works before it gives that up.
pub(crate) struct Workqueue(NonNull<bindings::workqueue_struct>);

// SAFETY: Workqueues are used from any thread.
unsafe impl Send for Workqueue {}

// SAFETY: As above.
unsafe impl Sync for Workqueue {}

impl Workqueue {
    /// Sleeps; fails with `ENOMEM`.
    pub(crate) fn new(name: &'static CStr) -> Result<Arc<Self>> {
        // SAFETY: The name is a C string.
        let queue = unsafe { bindings::shim_alloc_workqueue(name.as_char_ptr()) };
        // INVARIANT: Allocated just now, without any work.
        let queue = Self(NonNull::new(queue).ok_or(ENOMEM)?);
        Ok(Arc::new(queue, GFP_KERNEL)?)
    }
}

impl Workqueue {
    /// Waits for all works that are queued. Sleeps.
    ///
    /// C: `flush_workqueue()`.
    pub(crate) fn flush(&self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::shim_flush_workqueue(self.0.as_ptr()) }
    }
}

impl Drop for Workqueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. Sleeps, as dropping the last reference may.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) }
    }
}

/// What a [`Worker`] does. Both methods are called in process context, may sleep, and may run at the
/// same time.
pub(crate) trait Work: Send + Sync + Sized + 'static {
    /// Returns the lock classes of the two works, each a `static_lock_class!()` of this type's.
    fn lock_classes() -> [Pin<&'static LockClassKey>; 2];

    /// Called after [`Worker::queue`].
    fn run(&self, worker: &Worker<Self>);

    /// Called some time after [`Worker::queue_delayed`].
    fn run_delayed(&self, _worker: &Worker<Self>) {}
}

/// A work and a delayed work of a [`Workqueue`], with a value that they work on. When the last
/// reference is dropped, which must not be in either of them, neither runs any more.
///
/// # Invariants
///
/// `raw` is initialised and calls with a pointer to the value.
#[pin_data(PinnedDrop)]
pub(crate) struct Worker<W: Work> {
    #[pin]
    work: W,
    #[pin]
    raw: Opaque<bindings::shim_worker>,
    _queue: Arc<Workqueue>,
}

// SAFETY: Work can be queued from anywhere, and `W` is `Send`.
unsafe impl<W: Work> Send for Worker<W> {}

// SAFETY: As above, and `W` is `Sync`.
unsafe impl<W: Work> Sync for Worker<W> {}

impl<W: Work> Worker<W> {
    /// Makes a worker that has nothing to do yet.
    ///
    /// Sleeps; fails with `ENOMEM`.
    pub(crate) fn new(queue: &Arc<Workqueue>, work: W) -> Result<Arc<Self>> {
        Self::pin_init(queue, work)
    }

    /// As [`Self::new`] for what is made in place.
    pub(crate) fn pin_init(queue: &Arc<Workqueue>, work: impl PinInit<W>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(&this in Self {
                work <- work,
                // INVARIANT: Initialised; the value is pinned.
                raw <- Opaque::ffi_init(|raw| {
                    // SAFETY: `raw` and what it calls with stay in place until `drop` stops it; and
                    // no work is queued before the value is complete.
                    unsafe {
                        bindings::shim_worker_init(
                            raw,
                            queue.0.as_ptr(),
                            Some(Self::run),
                            Some(Self::run_delayed),
                            this.as_ptr().cast(),
                            W::lock_classes()
                                .map(|class| (&raw const *class).cast_mut().cast())
                                .as_mut_ptr(),
                        )
                    }
                }),
                _queue: queue.clone(),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Queues [`Work::run`]; if it is running, it runs once more. Does not sleep.
    ///
    /// C: `queue_work()`.
    pub(crate) fn queue(&self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::shim_worker_now(self.raw.get()) }
    }

    /// Queues [`Work::run_delayed`] for `delay` jiffies from now, unless it is queued already. Does
    /// not sleep.
    ///
    /// C: `queue_delayed_work()`.
    pub(crate) fn queue_delayed(&self, delay: u64) {
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
    unsafe extern "C" fn run_delayed(this: *mut c_void) {
        // SAFETY: By the type invariant; `drop` waits for this.
        let this = unsafe { &*this.cast::<Self>() };
        this.work.run_delayed(this);
    }
}

impl<W: Work> Deref for Worker<W> {
    type Target = W;

    fn deref(&self) -> &W {
        &self.work
    }
}

#[pinned_drop]
impl<W: Work> PinnedDrop for Worker<W> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant. Sleeps, as dropping the last reference may.
        unsafe { bindings::shim_worker_stop(self.raw.get()) }
    }
}

/// Lets other tasks run if they should. May sleep.
///
/// C: `cond_resched()`.
pub(crate) fn cond_resched() {
    // SAFETY: Only called in process context.
    unsafe { bindings::shim_cond_resched() }
}

/// Returns the number of CPUs that are online.
///
/// C: `num_online_cpus()`.
pub(crate) fn num_online_cpus() -> u32 {
    // SAFETY: Reads a number.
    unsafe { bindings::shim_num_online_cpus() }
}

// SPDX-License-Identifier: GPL-2.0

//! What a module keeps with a flowtable entry.
//!
//! From the first `nf_flowtable_type::action` for an entry until its `FLOW_CLS_DESTROY`, the entry
//! holds a reference to the module's own object for the flow, which in turn may look at the entry as
//! long as it holds the object's lock.

use crate::{
    bindings,
    netfilter::flow::FlowOffload, //
};
use core::{
    marker::PhantomData,
    ops::{Deref, DerefMut},
    ptr::NonNull, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        lock::{spinlock::SpinLockBackend, Guard},
        Arc,
        SpinLock, //
    }, //
};

/// A module's object for a flow.
pub(crate) trait HwObject: Send + Sync + Sized + 'static {
    /// What the object's lock guards.
    type State: Send + Unpin;

    /// Returns the part that [`Link::into_attached`] has made.
    fn attached(&self) -> &Attached<Self::State>;
}

struct Inner<S> {
    entry: Option<NonNull<FlowOffload>>,
    state: S,
}

// SAFETY: Entries are used from any thread.
unsafe impl<S: Send> Send for Inner<S> {}

/// The state of a flow, and the entry as long as there is one. Its lock may be taken in process
/// context only; what holds it must not sleep.
///
/// # Invariants
///
/// `entry` is valid: it is taken out, with the lock held, before the core frees the entry.
#[pin_data]
pub(crate) struct Attached<S> {
    #[pin]
    inner: SpinLock<Inner<S>>,
}

impl<S: Unpin> Attached<S> {
    pub(crate) fn lock(&self) -> AttachedGuard<'_, S> {
        AttachedGuard(self.inner.lock())
    }

    /// Takes the entry away.
    fn detach(&self) {
        self.inner.lock().entry = None;
    }
}

/// The lock of an [`Attached`].
pub(crate) struct AttachedGuard<'a, S>(Guard<'a, Inner<S>, SpinLockBackend>);

impl<S> AttachedGuard<'_, S> {
    /// Returns the entry, if it is still there.
    pub(crate) fn entry(&self) -> Option<&FlowOffload> {
        // SAFETY: By the type invariant of `Attached` it is valid as long as the lock is held.
        self.0.entry.map(|entry| unsafe { entry.as_ref() })
    }
}

impl<S> Deref for AttachedGuard<'_, S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.0.state
    }
}

impl<S: Unpin> DerefMut for AttachedGuard<'_, S> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.0.state
    }
}

/// The permission to make the object of an entry.
pub(crate) struct Link(());

impl Link {
    /// Makes the object's part for the entry.
    pub(crate) fn into_attached<S>(self, state: S) -> impl PinInit<Attached<S>> {
        // INVARIANT: There is no entry before `Attachment::attach`.
        pin_init!(Attached {
            inner <- new_spinlock!(Inner { entry: None, state }),
        })
    }
}

/// Access to the object that is attached to an entry.
pub(crate) struct Attachment<'a, F: HwObject> {
    entry: &'a FlowOffload,
    _object: PhantomData<F>,
}

impl<'a, F: HwObject> Attachment<'a, F> {
    /// # Safety
    ///
    /// The entry must be in a table of a type whose objects are of type `F`, and not be freed as long as
    /// the value lives; to call any method, `NF_FLOW_HW` must be set, and `NF_FLOW_HW_DEAD` not.
    /// `NF_FLOW_PENDING` must be set, so that there is no other value for the entry, but for one in
    /// `nf_flowtable_type::gc`, where only [`Self::get`] may be called.
    pub(super) unsafe fn new(entry: &'a FlowOffload) -> Self {
        Self {
            entry,
            _object: PhantomData,
        }
    }

    fn raw(&self) -> *const F {
        // SAFETY: The entry is valid; the pointer is read atomically.
        unsafe { bindings::shim_flow_data(self.entry.as_raw()) }
            .cast_const()
            .cast()
    }

    fn set_raw(&self, raw: *const F) {
        // SAFETY: The entry is valid; the pointer is written atomically.
        unsafe { bindings::shim_flow_set_data(self.entry.as_raw(), raw.cast_mut().cast()) }
    }

    /// Returns the object, if there is one.
    pub(crate) fn get(&self) -> Option<&F> {
        // SAFETY: What is there is from `Arc::into_raw`, and stays as long as it is borrowed from here.
        unsafe { self.raw().as_ref() }
    }

    /// Returns a reference to the object, if there is one.
    pub(crate) fn get_arc(&self) -> Option<Arc<F>> {
        let raw = self.get()?;
        // SAFETY: It is from `Arc::into_raw`; the reference that `from_raw` takes over is not given up.
        let borrowed = core::mem::ManuallyDrop::new(unsafe { Arc::from_raw(raw) });
        Some(Arc::clone(&borrowed))
    }

    /// Attaches the object that `make` makes to an entry that has none; returns it.
    pub(crate) fn attach(&self, make: impl FnOnce(Link) -> Result<Arc<F>>) -> Result<Arc<F>> {
        if self.get().is_some() {
            return Err(EEXIST);
        }
        let object = make(Link(()))?;
        let mut inner = object.attached().inner.lock();
        if inner.entry.is_some() {
            return Err(EINVAL);
        }
        // INVARIANT: What is attached is detached before the entry is freed.
        inner.entry = Some(NonNull::from(self.entry));
        drop(inner);

        self.set_raw(Arc::into_raw(object.clone()));
        Ok(object)
    }

    /// Detaches the object, if there is one: from now on it has no entry.
    pub(super) fn detach(&self) -> Option<Arc<F>> {
        let raw = core::ptr::from_ref(self.get()?);
        self.set_raw(core::ptr::null());
        // SAFETY: It was made by `Arc::into_raw`, and is there no more.
        let object = unsafe { Arc::from_raw(raw) };

        object.attached().detach();
        Some(object)
    }
}

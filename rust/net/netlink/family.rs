// SPDX-License-Identifier: GPL-2.0

//! Generic netlink families, and what is asked of them.

use super::attr::{Attr, Attrs, NlaPolicy};
use crate::{
    bindings,
    net::namespace::Net, //
};
use core::{
    marker::PhantomData,
    mem::{ManuallyDrop, MaybeUninit},
    ptr::{addr_of_mut, NonNull}, //
};
use kernel::{
    error::{from_result, to_result},
    prelude::*,
    str::CStr,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed, Release},
        Arc, //
    },
    types::Opaque, //
};

/// Where a callee says why it refuses a request, `struct netlink_ext_ack`.
///
/// # Invariants
///
/// The pointer is NULL or valid during `'a`.
#[derive(Clone, Copy)]
pub(crate) struct Extack<'a> {
    raw: *mut bindings::netlink_ext_ack,
    _extack: PhantomData<&'a bindings::netlink_ext_ack>,
}

impl Extack<'_> {
    pub(super) fn as_raw(self) -> *mut bindings::netlink_ext_ack {
        self.raw
    }

    fn set(self, f: impl FnOnce(&mut bindings::netlink_ext_ack)) {
        // SAFETY: By the type invariant; only the task that handles the request uses it.
        if let Some(raw) = unsafe { self.raw.as_mut() } {
            f(raw);
        }
    }

    /// Says why; returns the error. C: `NL_SET_ERR_MSG()`.
    pub(crate) fn err(self, error: Error, why: &'static CStr) -> Error {
        self.set(|raw| raw._msg = why.as_char_ptr());
        error
    }

    /// As [`Self::err`] of an attribute. C: `NL_SET_ERR_MSG_ATTR()`.
    pub(crate) fn bad(self, attr: Attr<'_>, error: Error, why: &'static CStr) -> Error {
        self.set(|raw| {
            raw._msg = why.as_char_ptr();
            raw.bad_attr = attr.as_raw();
        });
        error
    }

    /// Says that an attribute is missing in a nest, or in the request itself; returns `EINVAL`. C:
    /// `NL_SET_ERR_ATTR_MISS()`.
    pub(crate) fn missing(self, nest: Option<Attr<'_>>, attrtype: u16) -> Error {
        self.set(|raw| {
            raw._msg = c"an attribute is missing".as_char_ptr();
            raw.miss_type = attrtype;
            raw.miss_nest = nest.map_or(core::ptr::null(), Attr::as_raw);
        });
        EINVAL
    }
}

/// A request, `struct genl_info`.
///
/// # Invariants
///
/// `raw` is valid during `'a`; its attributes are NULL, or as many as `policy` says, and have been validated
/// with that.
#[derive(Clone, Copy)]
pub(crate) struct GenlInfo<'a> {
    raw: &'a Opaque<bindings::genl_info>,
    policy: &'static [NlaPolicy],
}

impl<'a> GenlInfo<'a> {
    /// # Safety
    ///
    /// `raw` must be a request of an operation with this policy, and be valid during `'a`.
    unsafe fn from_raw(raw: *const bindings::genl_info, policy: &'static [NlaPolicy]) -> Self {
        // INVARIANT: By the function's requirements.
        Self {
            // SAFETY: By the function's requirements; the type is transparent.
            raw: unsafe { &*raw.cast() },
            policy,
        }
    }

    fn get(&self) -> &'a bindings::genl_info {
        // SAFETY: By the type invariant; genetlink does not write to it while the operation runs.
        unsafe { &*self.raw.get() }
    }

    /// Returns the place for a message on what is wrong with the request.
    pub(crate) fn extack(&self) -> Extack<'a> {
        // INVARIANT: It lives as long as the request.
        Extack {
            raw: self.get().extack,
            _extack: PhantomData,
        }
    }

    /// Returns the port of the socket that has sent the request.
    pub(crate) fn snd_portid(&self) -> u32 {
        self.get().snd_portid
    }

    /// Returns the attribute of this type, if it is there.
    pub(crate) fn attr(&self, attrtype: u16) -> Option<Attr<'a>> {
        let attrs = self.get().attrs;
        if attrs.is_null() || usize::from(attrtype) >= self.policy.len() {
            return None;
        }
        // SAFETY: By the type invariant.
        unsafe { Attr::from_raw(*attrs.add(usize::from(attrtype))) }
    }

    /// As [`Self::attr`]; `EINVAL` if it is not there, and then says so.
    pub(crate) fn require(&self, attrtype: u16) -> Result<Attr<'a>> {
        self.attr(attrtype)
            .ok_or_else(|| self.extack().missing(None, attrtype))
    }
}

/// Who may ask for an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpFlags {
    /// A caller that has `CAP_NET_ADMIN` in the user namespace of the socket's network namespace,
    /// `GENL_UNS_ADMIN_PERM`.
    UnsAdminPerm,
}

impl OpFlags {
    const fn bits(self) -> u32 {
        match self {
            Self::UnsAdminPerm => bindings::GENL_UNS_ADMIN_PERM,
        }
    }
}

/// An operation that answers with many messages. The value is what one that is under way has to remember.
///
/// Requests come in with genetlink's lock held, for which the requests of all families wait as soon as one of these
/// comes or goes. So nothing is done there but to read the request: the first message of a dump is empty, and
/// when it has been read, the dump goes on with the lock of its socket only. That may be waited for with
/// genetlink's, by another request: so each call is short, and ends with an empty message where there is nothing to
/// tell yet.
///
/// A dump keeps the module, but not the family's data: it goes on when the family is gone.
pub(crate) trait Dump: Send + Sized + 'static {
    /// What the family was registered with.
    type Data: Send + Sync + 'static;

    /// What attributes a request may have, by type. All else is refused.
    const POLICY: &'static [NlaPolicy];

    /// Reads a request. Waits for nothing, memory of a cgroup included, in which a task may be made to wait when it
    /// has too much.
    fn start(data: &Arc<Self::Data>, info: &GenlInfo<'_>) -> Result<Self>;

    /// Goes on for a moment, and puts messages as long as there is room. Returns whether there may be more. May
    /// sleep, but not wait for what takes long.
    fn dump(&mut self, msgs: &mut DumpMsgs<'_>, net: &Net) -> Result<bool>;
}

/// Where a dump puts its messages.
///
/// # Invariants
///
/// Both are of one call of `genl_split_ops::dumpit`, which lasts for `'a`.
pub(crate) struct DumpMsgs<'a> {
    skb: NonNull<bindings::sk_buff>,
    cb: NonNull<bindings::netlink_callback>,
    _call: PhantomData<&'a mut ()>,
}

impl DumpMsgs<'_> {
    fn is_empty(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { (*self.skb.as_ptr()).len == 0 }
    }

    /// Returns where the request may be told what is wrong.
    pub(crate) fn extack(&self) -> Extack<'_> {
        // INVARIANT: It lives as long as the call.
        Extack {
            // SAFETY: By the type invariant.
            raw: unsafe { (*self.cb.as_ptr()).extack },
            _extack: PhantomData,
        }
    }

    /// Returns how many bytes there is room for.
    pub(crate) fn room(&self) -> usize {
        // SAFETY: By the type invariant.
        unsafe { bindings::shim_skb_tailroom(self.skb.as_ptr()) as usize }
    }

    /// Says that what is dumped has changed, so that messages may be missing or come twice
    /// (`NLM_F_DUMP_INTR`).
    pub(crate) fn set_interrupted(&mut self) {
        // SAFETY: By the type invariant, as for all below.
        unsafe { (*self.cb.as_ptr()).seq = (*self.cb.as_ptr()).seq.wrapping_add(1).max(1) }
    }

    /// Puts a message with what `fill` puts. `EMSGSIZE` if there is no room; if it fails, nothing was put.
    pub(crate) fn put(&mut self, fill: impl FnOnce(&mut Attrs<'_>) -> Result) -> Result {
        let (skb, cb) = (self.skb.as_ptr(), self.cb.as_ptr());

        // SAFETY: By the type invariant.
        let hdr = unsafe {
            if (*cb).seq == 0 {
                (*cb).seq = 1;
            }
            let info = &*bindings::shim_genl_info_dump(cb);
            bindings::genlmsg_put(
                skb,
                info.snd_portid,
                info.snd_seq,
                info.family,
                bindings::NLM_F_MULTI as c_int,
                (*info.genlhdr).cmd,
            )
        };
        if hdr.is_null() {
            return Err(EMSGSIZE);
        }
        // SAFETY: `self` is borrowed.
        let result = fill(&mut unsafe { Attrs::from_raw(self.skb) });
        // SAFETY: The header was put into this message, which has only become longer since.
        unsafe {
            match result {
                Ok(()) => {
                    bindings::shim_genl_dump_check_consistent(cb, hdr);
                    bindings::shim_genlmsg_end(skb, hdr);
                }
                Err(_) => bindings::shim_genlmsg_cancel(skb, hdr),
            }
        }
        result
    }
}

/// The C entry points of an operation.
struct Adapter<T>(PhantomData<T>);

/// A dump that is under way, in the place that netlink has for it.
struct UnderWay<T> {
    dump: *mut T,
    /// The first message was put.
    is_open: bool,
}

impl<T: Dump> Adapter<T> {
    /// Returns the place, which is all 0 at first.
    ///
    /// # Safety
    ///
    /// `cb` must be valid.
    unsafe fn place(cb: *mut bindings::netlink_callback) -> *mut UnderWay<T> {
        const {
            assert!(
                size_of::<UnderWay<T>>() <= size_of::<bindings::netlink_callback__bindgen_ty_1>()
            );
            assert!(
                align_of::<UnderWay<T>>() <= align_of::<bindings::netlink_callback__bindgen_ty_1>()
            );
        }
        // SAFETY: By the function's requirements.
        unsafe { addr_of_mut!((*cb).__bindgen_anon_1).cast() }
    }

    /// # Safety
    ///
    /// Only called through `genl_split_ops::start` of a [`Family<T::Data>`].
    unsafe extern "C" fn start(cb: *mut bindings::netlink_callback) -> c_int {
        from_result(|| {
            // SAFETY: By the function's requirements; netlink does not end the family meanwhile, for the
            // request that begins the dump is being handled.
            let (info, data) = unsafe {
                let info = bindings::shim_genl_info_dump(cb);
                (
                    GenlInfo::from_raw(info, T::POLICY),
                    Family::<T::Data>::data((*info).family),
                )
            };
            let dump = KBox::new(T::start(&data, &info)?, GFP_KERNEL)?;
            // SAFETY: The place is the operation's. `done` takes the dump from there.
            unsafe { (*Self::place(cb)).dump = KBox::into_raw(dump) };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Only called through `genl_split_ops::dumpit` after `start`.
    unsafe extern "C" fn dumpit(
        skb: *mut bindings::sk_buff,
        cb: *mut bindings::netlink_callback,
    ) -> c_int {
        from_result(|| {
            // SAFETY: `start` has put it there, and netlink makes one call at a time.
            let under_way = unsafe { &mut *Self::place(cb) };
            // INVARIANT: This is the call.
            let mut msgs = DumpMsgs {
                skb: NonNull::new(skb).ok_or(EINVAL)?,
                cb: NonNull::new(cb).ok_or(EINVAL)?,
                _call: PhantomData,
            };
            let has_more = if under_way.is_open {
                // SAFETY: The callback is valid; a socket keeps its namespace. The dump is there.
                unsafe {
                    let info = bindings::shim_genl_info_dump(cb);
                    let net = Net::from_raw(bindings::shim_genl_info_net(info));
                    (*under_way.dump).dump(&mut msgs, net)?
                }
            } else {
                true
            };
            under_way.is_open = true;
            if !has_more {
                return Ok(0);
            }
            // If it was empty, netlink would take the dump for complete.
            if msgs.is_empty() {
                msgs.put(|_| Ok(()))?;
            }
            // SAFETY: The message is valid.
            Ok(unsafe { (*skb).len as c_int })
        })
    }

    /// # Safety
    ///
    /// Only called through `genl_split_ops::done`, after `start` has succeeded, and last.
    unsafe extern "C" fn done(cb: *mut bindings::netlink_callback) -> c_int {
        // SAFETY: `start` made it by `KBox::into_raw`, and `dumpit` is not called after this.
        drop(unsafe { KBox::from_raw((*Self::place(cb)).dump) });
        0
    }
}

/// An operation of a family, `struct genl_split_ops`.
#[repr(transparent)]
pub(crate) struct Op<D>(bindings::genl_split_ops, PhantomData<fn(&D)>);

// SAFETY: It is constant.
unsafe impl<D> Sync for Op<D> {}

impl<D: Send + Sync + 'static> Op<D> {
    const fn new(
        cmd: u8,
        flags: u32,
        policy: &'static [NlaPolicy],
        callbacks: bindings::genl_split_ops__bindgen_ty_1,
    ) -> Self {
        Self(
            bindings::genl_split_ops {
                __bindgen_anon_1: callbacks,
                // Without one, netlink refuses all attributes.
                policy: if policy.is_empty() {
                    core::ptr::null()
                } else {
                    policy.as_ptr().cast()
                },
                maxattr: policy.len().saturating_sub(1) as u32,
                cmd,
                flags: flags as u8,
                ..pin_init::zeroed()
            },
            PhantomData,
        )
    }

    /// An operation that dumps.
    pub(crate) const fn dumpit<T: Dump<Data = D>>(cmd: u8, flags: OpFlags) -> Self {
        Self::new(
            cmd,
            flags.bits() | bindings::GENL_CMD_CAP_DUMP,
            T::POLICY,
            bindings::genl_split_ops__bindgen_ty_1 {
                __bindgen_anon_2: bindings::genl_split_ops__bindgen_ty_1__bindgen_ty_2 {
                    start: Some(Adapter::<T>::start),
                    dumpit: Some(Adapter::<T>::dumpit),
                    done: Some(Adapter::<T>::done),
                },
            },
        )
    }
}

/// A generic netlink family, `struct genl_family`, whose operations get a `D`.
///
/// # Invariants
///
/// `data` is NULL, or that of a [`Registration`] that is there, from `Arc::as_ptr`.
#[repr(C)]
pub(crate) struct Family<D = ()> {
    inner: Opaque<bindings::genl_family>,
    data: Atomic<*mut c_void>,
    _data: PhantomData<fn(&D)>,
}

// SAFETY: Netlink uses a family from any thread.
unsafe impl<D> Sync for Family<D> {}

impl<D: Send + Sync + 'static> Family<D> {
    /// Makes a family in which namespaces have their own view, and whose operations run in parallel. In a
    /// constant context: panics if something does not fit.
    ///
    /// `name` ends with a NUL, as bindgen makes it.
    pub(crate) const fn const_new(name: &[u8], version: u32, ops: &'static [Op<D>]) -> Self {
        assert!(ops.len() <= u8::MAX as usize);
        // SAFETY: All of its members may be 0.
        let mut family: bindings::genl_family = unsafe { MaybeUninit::zeroed().assume_init() };
        family.version = version;
        family.split_ops = ops.as_ptr().cast();
        family.n_split_ops = ops.len() as u8;
        assert!(CStr::from_bytes_with_nul(name).is_ok() && name.len() <= family.name.len());
        let mut i = 0;
        while i < name.len() {
            family.name[i] = name[i] as kernel::ffi::c_char;
            i += 1;
        }

        // INVARIANT: There is no registration.
        Self {
            inner: Opaque::new(family),
            data: Atomic::new(core::ptr::null_mut()),
            _data: PhantomData,
        }
    }

    pub(super) fn as_raw(&self) -> *mut bindings::genl_family {
        self.inner.get()
    }

    /// Returns what the family was registered with.
    ///
    /// # Safety
    ///
    /// `family` must be that of a `Family<D>` that is registered.
    unsafe fn data(family: *const bindings::genl_family) -> Arc<D> {
        // SAFETY: By the function's requirements; the family is the first member. The data are
        // the registration's; the reference that `from_raw` takes over is not given up.
        let data = unsafe {
            let family = &*family.cast::<Self>();
            ManuallyDrop::new(Arc::from_raw(
                family.data.load(Acquire).cast_const().cast::<D>(),
            ))
        };
        Arc::clone(&data)
    }

    /// Registers the family. Sleeps; `EEXIST` if a family of this name is, `EBUSY` if this one is.
    pub(crate) fn register(
        &'static self,
        module: &'static ThisModule,
        data: Arc<D>,
    ) -> Result<Registration<D>> {
        // The registration has another one.
        let raw = Arc::as_ptr(&data).cast_mut().cast::<c_void>();
        if self.data.cmpxchg(core::ptr::null_mut(), raw, Full).is_err() {
            return Err(EBUSY);
        }
        // SAFETY: The family is not registered, so that genetlink does not use it.
        let registered = to_result(unsafe {
            let family = &mut *self.as_raw();
            family.module = module.as_ptr();
            family.set_netnsok(1);
            family.set_parallel_ops(1);
            bindings::genl_register_family(self.as_raw())
        });
        if let Err(error) = registered {
            self.data.store(core::ptr::null_mut(), Release);
            return Err(error);
        }
        Ok(Registration {
            family: self,
            _data: data,
        })
    }
}

/// A family that is registered for as long as the value lives.
pub(crate) struct Registration<D: 'static> {
    family: &'static Family<D>,
    _data: Arc<D>,
}

impl<D: 'static> Drop for Registration<D> {
    fn drop(&mut self) {
        // SAFETY: It is registered. This waits for requests that are being handled; dumps go on.
        unsafe { bindings::genl_unregister_family(self.family.inner.get()) };
        self.family.data.store(core::ptr::null_mut(), Relaxed);
    }
}

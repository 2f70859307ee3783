// SPDX-License-Identifier: GPL-2.0

//! Flowtable types.
//!
//! A type stands between nftables and the flowtables of a family. The flow entries, their
//! hash table, garbage collector, workqueues and the software fast path belong to the core
//! (`nf_flow_table.ko`). A type's own part is the hardware side, which [`Offload`] describes.
//!
//! # How requests come in
//!
//! `nf_flow_offload_rule_alloc()` calls `action` for the original direction of each flow that it is to
//! offload: there it is met, and declined, so that the core neither allocates a second rule nor calls
//! a block. A table that a device has joined has one callback of ours in its own `flow_block`, and no
//! other, for `FLOW_CLS_DESTROY` and `FLOW_CLS_STATS`. The core lets one request per flow run at a time
//! (`NF_FLOW_PENDING`), and does not free a flow before a `DESTROY` for it has returned.
//!
//! # Locking
//!
//! `setup` is called with `commit_mutex` held, which in turn may be taken with RTNL held. The callback
//! runs with the table's `flow_block_lock` held for reading, which is taken for writing only while the
//! callback is put into the block.
//!
//! C header: [`include/net/netfilter/nf_flow_table.h`](srctree/include/net/netfilter/nf_flow_table.h)

use crate::{
    bindings,
    net::{
        device::NetDevice,
        eopnotsupp,
        namespace::Net,
        notifier::{self, Notifiers},
        rtnl::Rtnl, //
    },
    netfilter::{
        attach::Attachment,
        conntrack::Direction,
        flow::{FlowOffload, Visit},
        flowtable::Flowtable,
        hook,
        offload::Offload, //
    },
};
use core::marker::PhantomData;
use kernel::{
    container_of,
    error::{from_result, to_result},
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Release},
        Arc, //
    },
    types::{ForeignOwnable, Opaque}, //
};

/// The C entry points of a type.
struct Adapter<T: Offload>(PhantomData<T>);

impl<T: Offload> Adapter<T> {
    /// Returns the hardware side of a table, if a device has ever joined it.
    ///
    /// # Safety
    ///
    /// `flowtable` must be of our type, and its callback not be taken out during `'a`.
    unsafe fn table<'a>(flowtable: &'a Flowtable) -> Option<Arc<T>> {
        // SAFETY: The table is initialised.
        let data = unsafe { bindings::shim_flowtable_cb_priv(flowtable.as_raw()) };
        if data.is_null() {
            return None;
        }
        // SAFETY: The data was made by `into_foreign` in `setup`, and is given back in `free` only.
        Some(unsafe { Arc::<T>::borrow(data) }.into())
    }

    /// # Safety
    ///
    /// Only called through `nf_flowtable_type::init`, with a new table.
    unsafe extern "C" fn init(table: *mut bindings::nf_flowtable) -> c_int {
        // SAFETY: By the function's requirements, as for all below. nftables has set the type of the
        // table, which is one of ours, and its namespace.
        let type_ = unsafe { Type::<T>::from_raw((*table).type_) };
        // SAFETY: The table is new.
        let result = unsafe { bindings::nf_flow_table_init(table) };
        if result < 0 {
            return result;
        }
        // SAFETY: The table is initialised.
        let flowtable = unsafe { Flowtable::from_raw(table) };
        // SAFETY: `free` removes it.
        match unsafe { T::known_tables(&type_.context).add(flowtable) } {
            Ok(()) => result,
            Err(error) => {
                // SAFETY: The table is initialised, and nobody uses it.
                unsafe { bindings::nf_flow_table_free(table) };
                error.to_errno()
            }
        }
    }

    /// # Safety
    ///
    /// Only called through `nf_flowtable_type::free`, after which nobody uses the table.
    unsafe extern "C" fn free(table: *mut bindings::nf_flowtable) {
        // SAFETY: The table is initialised.
        let flowtable = unsafe { Flowtable::from_raw(table) };
        // SAFETY: The type of the table is one of ours.
        let type_ = unsafe { Type::<T>::from_raw((*table).type_) };

        T::known_tables(&type_.context).remove(flowtable);
        // SAFETY: The table is of our type.
        if let Some(table) = unsafe { Self::table(flowtable) } {
            T::tables(table.namespace()).remove(flowtable);
        }
        // SAFETY: The table is initialised, and all devices have left by now, so no flow has rules. Where
        // the core had no memory for a DESTROY, it would not free the flow, whose conntrack entry would
        // hold up its namespace for ever.
        unsafe {
            bindings::shim_flowtable_forget(table, Some(Self::forget), Some(Self::end));
        }

        // SAFETY: The table is initialised. This waits for its workers.
        unsafe { bindings::nf_flow_table_free(table) };

        // SAFETY: As above.
        let data = unsafe { bindings::shim_flowtable_cb_priv(table) };
        if !data.is_null() {
            // SAFETY: No worker uses the block any more.
            unsafe { bindings::shim_flowtable_clear_cb(table) };
            // SAFETY: The data is from `into_foreign` in `setup`, and nobody borrows it any more.
            drop(unsafe { Arc::<T>::from_foreign(data) });
        }
    }

    /// # Safety
    ///
    /// Only called through `shim_flowtable_forget`, with `NF_FLOW_PENDING` of `flow` set.
    unsafe extern "C" fn forget(flow: *mut bindings::flow_offload) {
        // SAFETY: Nothing frees entries meanwhile.
        let entry = unsafe { FlowOffload::from_raw(flow) };
        // SAFETY: The entry is in a table of our type, and NF_FLOW_PENDING is set.
        let attachment = unsafe { Attachment::<T::Flow>::new(entry) };

        let object = attachment.detach();
        if !entry.is_torn_down() {
            T::end(entry, object.as_deref());
        }
        if let Some(object) = object {
            T::destroy(entry, object);
        }
    }

    /// # Safety
    ///
    /// Only called through `shim_flowtable_forget`.
    unsafe extern "C" fn end(flow: *mut bindings::flow_offload) {
        // SAFETY: Nothing frees entries meanwhile.
        let entry = unsafe { FlowOffload::from_raw(flow) };
        if !entry.is_torn_down() {
            T::end(entry, None);
        }
    }

    /// # Safety
    ///
    /// Only called through `nf_flowtable_type::setup`, with an initialised table.
    unsafe extern "C" fn setup(
        table: *mut bindings::nf_flowtable,
        dev: *mut bindings::net_device,
        command: bindings::flow_block_command,
    ) -> c_int {
        // SAFETY: By the function's requirements.
        let flowtable = unsafe { Flowtable::from_raw(table) };
        // SAFETY: nftables has set the type of the table, which is one of ours.
        let type_ = unsafe { Type::<T>::from_raw((*table).type_) };
        // SAFETY: The table is of our type, and is not freed while it is set up.
        let known = unsafe { Self::table(flowtable) };
        if !flowtable.is_offload() {
            if known.is_none() && command == bindings::flow_block_command_FLOW_BLOCK_BIND {
                // Without memory, its entries are not followed.
                let _ = T::plain(&type_.context, flowtable)
                    .and_then(|table| Self::set_table(flowtable, table));
            }
            // SAFETY: By the function's requirements. This keeps XDP lookups working.
            return unsafe { bindings::nf_flow_table_offload_setup(table, dev, command) };
        }

        // SAFETY: nftables holds a reference to the device for this call.
        let dev = unsafe { NetDevice::from_raw(dev) };

        from_result(|| {
            match (command, known) {
                (bindings::flow_block_command_FLOW_BLOCK_BIND, known) => {
                    // SAFETY: This is `setup`, for the device.
                    let rtnl = unsafe { flowtable.awaits(dev) };
                    let rtnl = rtnl.as_deref();
                    match Self::bind(&type_.context, known, flowtable, dev, rtnl) {
                        // An error would undo what brings the device, or its name.
                        Err(_) if rtnl.is_some() => {}
                        result => result?,
                    }
                }
                (_, Some(known)) => known.unbind(dev),
                (_, None) => {}
            }
            Ok(0)
        })
    }

    fn bind(
        context: &Arc<T::Context>,
        known: Option<Arc<T>>,
        flowtable: &Flowtable,
        dev: &NetDevice,
        rtnl: Option<&Rtnl>,
    ) -> Result {
        let table = T::bind(context, known.as_ref(), flowtable, dev, rtnl)?;

        if known.is_none() {
            Self::set_table(flowtable, table.clone()).inspect_err(|_| table.unbind(dev))?;
        }
        Ok(())
    }

    fn set_table(flowtable: &Flowtable, table: Arc<T>) -> Result {
        let tables = T::tables(table.namespace());
        // SAFETY: `free` removes it.
        unsafe { tables.add(flowtable, table.clone()) }?;

        let data = table.clone().into_foreign();
        // SAFETY: The table is initialised; `setup` is not called twice at a time.
        to_result(unsafe {
            bindings::shim_flowtable_set_cb(flowtable.as_raw(), Some(Self::request), data)
        })
        .inspect_err(|_| {
            tables.remove(flowtable);
            // SAFETY: `data` was made by `into_foreign` just now and went nowhere.
            drop(unsafe { Arc::<T>::from_foreign(data) })
        })
    }

    /// Meets a flow, and declines: the module hands rules to drivers by itself.
    ///
    /// # Safety
    ///
    /// Only called through `nf_flowtable_type::action`.
    unsafe extern "C" fn action(
        net: *mut bindings::net,
        flow: *mut bindings::flow_offload,
        dir: bindings::flow_offload_tuple_dir,
        _rule: *mut bindings::nf_flow_rule,
    ) -> c_int {
        if dir == Direction::Original.as_raw() {
            // SAFETY: The namespace has a flowtable.
            let net = unsafe { Net::from_raw(net) };
            // SAFETY: The core's worker keeps the entry.
            let entry = unsafe { FlowOffload::from_raw(flow) };
            // A packet that was looked up before may ask for a refresh after the last DESTROY.
            if !entry.is_for_hardware() || entry.is_leaving() {
                return eopnotsupp().to_errno();
            }
            if entry.is_multicast() {
                entry.keep_out();
                return eopnotsupp().to_errno();
            }
            entry.set_offered();
            // SAFETY: `Registration::new` has seen the notifiers, which outlive it.
            if let Some(namespace) = unsafe { notifier::handler::<T::Namespace>(net) } {
                match T::tables(&namespace).find(entry) {
                    Some((table, flowtable, ruleset)) => {
                        entry.raise_ruleset(ruleset);
                        // SAFETY: The entry is in a table of our type; the worker has set
                        // NF_FLOW_PENDING.
                        let attachment = unsafe { Attachment::new(entry) };
                        table.offer(flowtable, entry, &attachment);
                    }
                    None => T::offer_unknown(&namespace, entry),
                }
            }
        }
        eopnotsupp().to_errno()
    }

    /// # Safety
    ///
    /// Only called through `nf_flowtable_type::gc`.
    unsafe extern "C" fn gc(flow: *const bindings::flow_offload) -> bool {
        // SAFETY: The core walks its table under RCU, so the entry is not freed meanwhile.
        let entry = unsafe { FlowOffload::from_raw(flow) };
        if entry.is_leaving() {
            // The core may have asked whether it is torn down before it was.
            if entry.unmark() {
                T::end(entry, None);
            }
            T::extend(entry);
            entry.after_reset();
            return false;
        }
        entry.mark();
        entry.await_reset();
        // SAFETY: `Registration::new` has seen the notifiers, which outlive it.
        unsafe { notifier::with_handler(entry.net(), |namespace| Self::gc_entry(namespace, entry)) }
    }

    fn gc_entry(namespace: Option<&T::Namespace>, entry: &FlowOffload) -> bool {
        let visit = (!entry.is_for_hardware()).then(|| entry.visit());
        if visit == Some(Visit::First) {
            let found = namespace.and_then(|namespace| T::tables(namespace).find_plain(entry));
            let Some(ruleset) = found else {
                T::gc_new(entry);
                return false;
            };
            entry.raise_ruleset(ruleset);
            entry.set_plain();
        }
        let mistakes_tunnel = || {
            Direction::BOTH
                .iter()
                .any(|&dir| entry.mistakes_tunnel(dir))
        };
        if entry.is_multicast() || mistakes_tunnel() {
            entry.keep_out();
            return true;
        }
        if visit == Some(Visit::OtherMark) {
            entry.conntrack().forget_packets();
            return true;
        }
        if !entry.can_send() {
            return true;
        }
        if visit.is_some() {
            return T::gc_plain(namespace, entry);
        }
        // SAFETY: The entry is in a table of our type. Only gc itself has the core queue a DESTROY, so
        // that nothing is detached meanwhile.
        T::gc(entry, &unsafe { Attachment::new(entry) })
    }

    /// Our callback in the table's block, `flow_setup_cb_t`.
    ///
    /// # Safety
    ///
    /// Only called from `nf_flow_offload_tuple()`, which holds `flow_block_lock` for reading.
    unsafe extern "C" fn request(
        type_: bindings::tc_setup_type,
        type_data: *mut c_void,
        _priv: *mut c_void,
    ) -> c_int {
        if type_ != bindings::tc_setup_type_TC_SETUP_CLSFLOWER {
            return eopnotsupp().to_errno();
        }

        // SAFETY: This is what the type of request says.
        let cls = unsafe { &mut *type_data.cast::<bindings::flow_cls_offload>() };
        // SAFETY: The worker that sends the request keeps the flow alive.
        let (entry, dir) = unsafe { FlowOffload::from_cookie(cls.cookie) };
        // SAFETY: The entry is in a table of our type; the worker has set NF_FLOW_PENDING.
        let attachment = unsafe { Attachment::<T::Flow>::new(entry) };

        match cls.command {
            bindings::flow_cls_command_FLOW_CLS_DESTROY => {
                if let Some(object) = attachment.detach() {
                    T::destroy(entry, object);
                }
                0
            }
            // The answer for one direction is the one for both. With CLOSING, the core asks after the
            // DESTROY too.
            bindings::flow_cls_command_FLOW_CLS_STATS => {
                if dir == Direction::Original {
                    let object = if entry.is_leaving() {
                        None
                    } else {
                        attachment.get_arc()
                    };
                    let stats = T::stats(entry, object);
                    cls.stats.pkts = stats.packets;
                    cls.stats.bytes = stats.bytes;
                    cls.stats.lastused = stats.lastused;
                }
                0
            }
            _ => eopnotsupp().to_errno(),
        }
    }

    fn new_type(
        context: &Arc<T::Context>,
        module: &'static ThisModule,
        family: u32,
        hook: unsafe extern "C" fn(
            *mut c_void,
            *mut bindings::sk_buff,
            *const bindings::nf_hook_state,
        ) -> c_uint,
    ) -> Type<T> {
        Type {
            raw: Opaque::new(bindings::nf_flowtable_type {
                family: family as c_int,
                init: Some(Self::init),
                setup: Some(Self::setup),
                action: Some(Self::action),
                free: Some(Self::free),
                gc: Some(Self::gc),
                hook: Some(hook),
                owner: module.as_ptr(),
                ..pin_init::zeroed()
            }),
            context: context.clone(),
            _tables: PhantomData,
        }
    }
}

/// A flowtable type and what its tables share.
struct Type<T: Offload> {
    raw: Opaque<bindings::nf_flowtable_type>,
    context: Arc<T::Context>,
    _tables: PhantomData<T>,
}

impl<T: Offload> Type<T> {
    /// # Safety
    ///
    /// `raw` must be the member of a `Type<T>` that is not dropped during `'a`.
    unsafe fn from_raw<'a>(raw: *const bindings::nf_flowtable_type) -> &'a Self {
        // SAFETY: By the function's requirements; `Opaque` is transparent.
        unsafe { &*container_of!(Opaque::cast_from(raw), Self, raw) }
    }
}

/// The flowtable types of the families inet, ip and ip6, registered from [`Registration::register`] on for as long
/// as the value lives.
///
/// A table holds a reference to the module, so that the module cannot go while there are tables.
///
/// # Invariants
///
/// All of `types` are registered if `is_registered` is set, and else none is.
pub(crate) struct Registration<T: Offload> {
    types: KBox<[Type<T>; 3]>,
    is_registered: bool,
    _notifiers: Arc<Notifiers<T::Namespace, T::Devices>>,
}

/// Whether there is a [`Registration`].
static IS_THERE: Atomic<bool> = Atomic::new(false);

// SAFETY: The types may be unregistered from any thread.
unsafe impl<T: Offload> Send for Registration<T> {}

// SAFETY: A shared reference allows nothing.
unsafe impl<T: Offload> Sync for Registration<T> {}

impl<T: Offload> Registration<T> {
    /// Makes the types. Fails with `EBUSY` if there is a value already, or `ENOMEM`.
    pub(crate) fn new(module: &'static ThisModule, context: &Arc<T::Context>) -> Result<Self> {
        let types = KBox::new(
            [
                Adapter::<T>::new_type(context, module, bindings::NFPROTO_IPV4, hook::ip_hook::<T>),
                Adapter::<T>::new_type(
                    context,
                    module,
                    bindings::NFPROTO_IPV6,
                    hook::ipv6_hook::<T>,
                ),
                Adapter::<T>::new_type(
                    context,
                    module,
                    bindings::NFPROTO_INET,
                    hook::inet_hook::<T>,
                ),
            ],
            GFP_KERNEL,
        )?;

        if IS_THERE.xchg(true, Full) {
            return Err(EBUSY);
        }
        // INVARIANT: None is registered.
        Ok(Self {
            types,
            is_registered: false,
            _notifiers: T::notifiers(context).clone(),
        })
    }

    /// Registers the types. From here on rulesets may use the module, so it may not fail to load any more.
    /// nftables takes the first type of a family that it finds, so no other module may have registered any before.
    /// Sleeps.
    pub(crate) fn register(&mut self) {
        if self.is_registered {
            return;
        }
        for type_ in self.types.iter() {
            // SAFETY: The type is complete and stays in place until it is unregistered.
            unsafe { bindings::nft_register_flowtable_type(type_.raw.get()) };
        }
        // INVARIANT: Registered just now.
        self.is_registered = true;
    }
}

impl<T: Offload> Drop for Registration<T> {
    fn drop(&mut self) {
        if self.is_registered {
            for type_ in self.types.iter() {
                // SAFETY: By the type invariant.
                unsafe { bindings::nft_unregister_flowtable_type(type_.raw.get()) };
            }
            // nftables looks types up under RCU and is not waited for.
            // SAFETY: Modules are unloaded in process context.
            unsafe { bindings::shim_synchronize_rcu() };
        }
        IS_THERE.store(false, Release);
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Flowtable types.
//!
//! A type stands between nftables and the flowtables of a family. The flow entries, their
//! hash table, garbage collector, workqueues and the software fast path belong to the C core
//! (`nf_flow_table.ko`). A type's own part is the hardware side, which [`Offload`] describes.
//!
//! # How requests come in
//!
//! Each table with `flags offload` has one callback of ours in its own `flow_block`, and no other,
//! so that every `FLOW_CLS_REPLACE`, `DESTROY` and `STATS` of the C workers arrives at
//! [`Offload`]. C lets one such request per flow run at a time (`NF_FLOW_PENDING`), and a flow is
//! not freed before a `DESTROY` for it has returned.
//!
//! # Locking
//!
//! `flow_block_lock` of the table guards [`Offload::Devices`]. C holds it for reading around
//! requests, and so does who uses [`Access::devices`]; `setup` takes it for writing. It nests
//! inside nftables' `commit_mutex`, which in turn may be taken with RTNL held: RTNL is only tried
//! for here. The list of [`Tables`] is held for a moment at a time, and a table is not freed while
//! somebody has [`Access`] to it. All that is also had where the driver of a device leaves
//! ([`Listener::driver_leaves`]), maybe with RTNL and locks of that driver held, but never one that
//! the driver takes to be bound or to answer a request.
//!
//! [`Access`]: super::tables::Access
//! [`Access::devices`]: super::tables::Access::devices
//!
//! C header: [`include/net/netfilter/nf_flow_table.h`](srctree/include/net/netfilter/nf_flow_table.h)

use crate::{
    bindings,
    net::{
        device::NetDevice,
        eopnotsupp,
        flow_block::FlowStats,
        notifier::Listener, //
    },
    netfilter::{
        flow::{Direction, FlowOffload},
        flowtable::{BlockLock, Flowtable},
        hook,
        tables::{Shared, Tables}, //
    },
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    container_of,
    error::{from_result, to_result},
    prelude::*,
    sync::Arc,
    types::{ForeignOwnable, Opaque}, //
};

/// The hardware side of the flowtables of a type. A value is made for each table with
/// `flags offload` and lives as long as the table.
///
/// All methods but [`Offload::led_nowhere`] are called in process context and may sleep.
pub(crate) trait Offload: Send + Sync + Sized + 'static {
    /// What all tables of a [`Registration`] share. It is told of the routes of all namespaces
    /// that have tables.
    type Context: Listener;

    /// The devices that take rules for the table. Guarded by the table's `flow_block_lock`.
    type Devices: Send + Sync;

    /// Makes the hardware side of a new table. Called with the namespace's `commit_mutex` held.
    fn new() -> impl PinInit<Self, Error>;

    /// The devices of a new table: none.
    fn devices(context: &Arc<Self::Context>) -> Self::Devices;

    /// A device joins the table. An error fails the user's request.
    ///
    /// Called with `commit_mutex` and `flow_block_lock` (for writing) held.
    fn bind(&self, table: &Flowtable, devices: &mut Self::Devices, dev: &NetDevice) -> Result;

    /// A device leaves the table: when this returns, no rule of the table may be left in it. The
    /// device may be one that never joined.
    ///
    /// Called with `commit_mutex` and `flow_block_lock` (for writing) held.
    fn unbind(&self, table: &Flowtable, devices: &mut Self::Devices, dev: &NetDevice);

    /// C offers a direction of a flow. For a bidirectional flow, the original direction is
    /// followed by the reply direction at once, and the flow counts as offloaded
    /// (`IPS_HW_OFFLOAD`) if either is answered with `Ok`.
    ///
    /// Called for new flows, and then at most once per second for flows of which packets reach
    /// the host. `flow_block_lock` is held for reading, and no other request for the flow runs.
    fn replace(
        &self,
        table: &Flowtable,
        devices: &Self::Devices,
        flow: &FlowOffload,
        dir: Direction,
    ) -> Result;

    /// The flow leaves hardware, whether or not it was ever accepted. Locks as for
    /// [`Offload::replace`].
    fn destroy(
        &self,
        table: &Flowtable,
        devices: &Self::Devices,
        flow: &FlowOffload,
        dir: Direction,
    );

    /// What a direction has done since the last call. C goes on to set the flow's timeout to
    /// [`FlowStats::lastused`] plus its lifetime, so this has to be right even if no rule is
    /// installed. Locks as for [`Offload::replace`].
    fn stats(
        &self,
        table: &Flowtable,
        devices: &Self::Devices,
        flow: &FlowOffload,
        dir: Direction,
    ) -> FlowStats;

    /// A packet takes the slow path, because the fast one would send it to no address. Called for
    /// each such packet, in softirq.
    fn led_nowhere(table: &Flowtable, flow: &FlowOffload, dir: Direction);
}

/// The C entry points of a type.
struct Adapter<T: Offload>(PhantomData<T>);

impl<T: Offload> Adapter<T> {
    /// # Safety
    ///
    /// `table` must be initialised and have our callback in its block.
    unsafe fn shared<'a>(table: *mut bindings::nf_flowtable) -> Pin<&'a Shared<T>> {
        // SAFETY: The callback's data was made by `into_foreign` in `init`, and is given back in
        // `free` only, which is the last call for a table.
        unsafe { Pin::<KBox<Shared<T>>>::borrow(bindings::shim_flowtable_cb_priv(table)) }
    }

    /// # Safety
    ///
    /// Only called through `nf_flowtable_type::init`, with a new table.
    unsafe extern "C" fn init(table: *mut bindings::nf_flowtable) -> c_int {
        from_result(|| {
            // SAFETY: The table is new, its flags and namespace are set.
            to_result(unsafe { bindings::nf_flow_table_init(table) })?;
            // SAFETY: The table is initialised as of now.
            let flowtable = unsafe { Flowtable::from_raw(table) };
            if !flowtable.is_offload() {
                return Ok(0);
            }

            // SAFETY: nftables has set the type of the table, which is one of ours.
            let type_ = unsafe { Type::<T>::from_raw((*table).type_) };
            let shared = KBox::pin_init(Shared::<T>::new(flowtable, &type_.context), GFP_KERNEL);
            let result = shared.and_then(|shared| {
                let place = NonNull::from(&*shared);
                // SAFETY: The value is pinned, and `free` removes it before it is dropped.
                unsafe { type_.tables.add(place) }?;
                let data = shared.into_foreign();
                // SAFETY: The table is initialised and nobody else uses it yet.
                to_result(unsafe {
                    bindings::shim_flowtable_set_cb(table, Some(Self::request), data)
                })
                .inspect_err(|_| {
                    type_.tables.remove(place);
                    // SAFETY: `data` was made by `into_foreign` just now and went nowhere.
                    drop(unsafe { Pin::<KBox<Shared<T>>>::from_foreign(data) })
                })
            });

            if result.is_err() {
                // SAFETY: The table is initialised and has no flows.
                unsafe { bindings::nf_flow_table_free(table) };
            }
            result.map(|()| 0)
        })
    }

    /// # Safety
    ///
    /// Only called through `nf_flowtable_type::free`, after which nobody uses the table.
    unsafe extern "C" fn free(table: *mut bindings::nf_flowtable) {
        // SAFETY: The table is initialised.
        if unsafe { Flowtable::from_raw(table) }.is_offload() {
            // SAFETY: The table has our callback since `init`, and its type is one of ours.
            let (shared, type_) =
                unsafe { (Self::shared(table), Type::<T>::from_raw((*table).type_)) };
            type_.tables.remove(NonNull::from(&*shared));
            // SAFETY: The table is initialised, and all devices have left by now, so no flow has
            // rules. Where C had no memory for a DESTROY, it would not free the flow, whose
            // conntrack entry would hold up its namespace for ever.
            unsafe { bindings::shim_flowtable_forget_hardware(table) };
        }

        // SAFETY: The table is initialised. This waits for its workers.
        unsafe { bindings::nf_flow_table_free(table) };

        // SAFETY: As above.
        let data = unsafe { bindings::shim_flowtable_cb_priv(table) };
        if !data.is_null() {
            // SAFETY: No worker uses the block any more.
            unsafe { bindings::shim_flowtable_clear_cb(table) };
            // SAFETY: The data is from `into_foreign` in `init`, and nobody borrows it any more.
            drop(unsafe { Pin::<KBox<Shared<T>>>::from_foreign(data) });
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
        if !flowtable.is_offload() {
            // SAFETY: By the function's requirements. This keeps XDP lookups working.
            return unsafe { bindings::nf_flow_table_offload_setup(table, dev, command) };
        }

        // SAFETY: Tables with `flags offload` have our callback since `init`.
        let shared = unsafe { Self::shared(table) };
        // SAFETY: nftables holds a reference to the device for this call.
        let dev = unsafe { NetDevice::from_raw(dev) };
        let _lock = BlockLock::new(flowtable);
        // SAFETY: The lock that guards the devices is held for writing.
        let devices = unsafe { &mut *shared.devices.get() };

        from_result(|| {
            match command {
                bindings::flow_block_command_FLOW_BLOCK_BIND => {
                    shared.offload.bind(flowtable, devices, dev)?
                }
                _ => shared.offload.unbind(flowtable, devices, dev),
            }
            Ok(0)
        })
    }

    /// The translation needs to know the table and the device that gets the rule, so it is done
    /// when C hands the rule on, in [`Self::request`]; the one that C has allocated stays empty.
    ///
    /// # Safety
    ///
    /// Only called through `nf_flowtable_type::action`.
    unsafe extern "C" fn action(
        _net: *mut bindings::net,
        _flow: *mut bindings::flow_offload,
        _dir: bindings::flow_offload_tuple_dir,
        _rule: *mut bindings::nf_flow_rule,
    ) -> c_int {
        0
    }

    /// Whether the garbage collector is to take an entry out, which may have nothing wrong with it
    /// but that nobody looks after it. C comes to each entry once a second.
    ///
    /// # Safety
    ///
    /// Only called through `nf_flowtable_type::gc`.
    unsafe extern "C" fn gc(flow: *const bindings::flow_offload) -> bool {
        // SAFETY: C walks its table under RCU, so the entry is not freed meanwhile.
        unsafe { FlowOffload::from_raw(flow) }.is_overlooked()
    }

    /// Our callback in the table's block, `flow_setup_cb_t`.
    ///
    /// # Safety
    ///
    /// Only called from `nf_flow_offload_tuple()`, which holds `flow_block_lock` for reading.
    unsafe extern "C" fn request(
        type_: bindings::tc_setup_type,
        type_data: *mut c_void,
        priv_: *mut c_void,
    ) -> c_int {
        if type_ != bindings::tc_setup_type_TC_SETUP_CLSFLOWER {
            return eopnotsupp().to_errno();
        }

        // SAFETY: The data was made by `into_foreign` in `init`, and `free` waits for the workers.
        let shared = unsafe { Pin::<KBox<Shared<T>>>::borrow(priv_) };
        // SAFETY: The lock that guards the devices is held for reading.
        let devices = unsafe { &*shared.devices.get() };
        // SAFETY: This is what the type of request says.
        let cls = unsafe { &mut *type_data.cast::<bindings::flow_cls_offload>() };
        // SAFETY: The worker that sends the request keeps the flow alive.
        let (flow, dir) = unsafe { FlowOffload::from_cookie(cls.cookie) };
        let table = shared.table();

        from_result(|| {
            match cls.command {
                bindings::flow_cls_command_FLOW_CLS_REPLACE => {
                    flow.set_offered();
                    shared.offload.replace(table, devices, flow, dir)?
                }
                bindings::flow_cls_command_FLOW_CLS_DESTROY => {
                    shared.offload.destroy(table, devices, flow, dir)
                }
                bindings::flow_cls_command_FLOW_CLS_STATS => {
                    let stats = shared.offload.stats(table, devices, flow, dir);
                    cls.stats.pkts = stats.packets;
                    cls.stats.bytes = stats.bytes;
                    cls.stats.lastused = stats.lastused;
                }
                _ => return Err(eopnotsupp()),
            }
            Ok(0)
        })
    }

    fn new_type(
        tables: &Arc<Tables<T>>,
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
            tables: tables.clone(),
            context: context.clone(),
        }
    }
}

/// A flowtable type and what its tables share.
struct Type<T: Offload> {
    raw: Opaque<bindings::nf_flowtable_type>,
    tables: Arc<Tables<T>>,
    context: Arc<T::Context>,
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

/// The flowtable types of the families inet, ip and ip6, registered as long as the value lives.
///
/// A table holds a reference to the module, so that the module cannot go while there are tables.
///
/// # Invariants
///
/// All of `types` are registered.
pub(crate) struct Registration<T: Offload> {
    types: KBox<[Type<T>; 3]>,
}

// SAFETY: The types may be unregistered from any thread.
unsafe impl<T: Offload> Send for Registration<T> {}

// SAFETY: A shared reference allows nothing.
unsafe impl<T: Offload> Sync for Registration<T> {}

impl<T: Offload> Registration<T> {
    /// Registers the types. nftables takes the first type of a family that it finds, so no other
    /// module may have registered any before. Sleeps.
    pub(crate) fn new(
        module: &'static ThisModule,
        tables: Arc<Tables<T>>,
        context: Arc<T::Context>,
    ) -> Result<Self> {
        let types = KBox::new(
            [
                Adapter::<T>::new_type(
                    &tables,
                    &context,
                    module,
                    bindings::NFPROTO_IPV4,
                    hook::ip_hook::<T>,
                ),
                Adapter::<T>::new_type(
                    &tables,
                    &context,
                    module,
                    bindings::NFPROTO_IPV6,
                    hook::ipv6_hook::<T>,
                ),
                Adapter::<T>::new_type(
                    &tables,
                    &context,
                    module,
                    bindings::NFPROTO_INET,
                    hook::inet_hook::<T>,
                ),
            ],
            GFP_KERNEL,
        )?;

        for type_ in types.iter() {
            // SAFETY: The type is complete and stays in place until it is unregistered.
            unsafe { bindings::nft_register_flowtable_type(type_.raw.get()) };
        }

        // INVARIANT: Registered just now.
        Ok(Self { types })
    }
}

impl<T: Offload> Drop for Registration<T> {
    fn drop(&mut self) {
        for type_ in self.types.iter() {
            // SAFETY: By the type invariant.
            unsafe { bindings::nft_unregister_flowtable_type(type_.raw.get()) };
        }

        // nftables looks types up under RCU and is not waited for.
        // SAFETY: Modules are unloaded in process context.
        unsafe { bindings::shim_synchronize_rcu() };
    }
}

/// How the C module that registers the same types is there.
pub(crate) enum CModule {
    Loaded,
    BuiltIn,
}

/// The C module `nf_flow_table_inet`, if it is there; it would keep its types.
pub(crate) fn c_module(module: &'static ThisModule) -> Option<CModule> {
    // SAFETY: `module` is being initialised, so that it is in sysfs.
    let loaded = unsafe {
        bindings::shim_module_is_loaded(module.as_ptr(), c"nf_flow_table_inet".as_char_ptr())
    };

    // SAFETY: A constant.
    if unsafe { bindings::shim_flow_table_inet_is_builtin() } {
        Some(CModule::BuiltIn)
    } else {
        loaded.then_some(CModule::Loaded)
    }
}

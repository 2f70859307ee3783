// SPDX-License-Identifier: GPL-2.0

//! What the kernel's notifiers tell about routes, neighbours, bridges and devices.
//!
//! C headers: [`include/net/netevent.h`](srctree/include/net/netevent.h),
//! [`include/net/fib_notifier.h`](srctree/include/net/fib_notifier.h)

use crate::{
    bindings,
    net::{
        device::{MacAddress, NetDevice},
        namespace::{Net, NetId},
        route, //
    },
};
use core::net::IpAddr;
use kernel::{
    error::to_result,
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// Something has changed in a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) net: NetId,
    pub(crate) what: What,
}

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A neighbour behind a device: its address, or whether it can be reached.
    Neighbour { ifindex: u32, addr: IpAddr },
    /// The port behind which a bridge finds an address.
    Fdb(MacAddress),
    /// A device, by its index: up, down, carrier, address, master, gone.
    Device(u32),
    /// The routes to addresses that begin with `len` bits of `addr`. Told before the change.
    Route { addr: IpAddr, len: u8 },
    /// Any route: rules, next hops, own addresses, names of devices, how long packets may be. Told
    /// before the change.
    Routes,
}

impl What {
    /// Whether it may be told before it can be seen.
    pub(crate) fn is_early(self) -> bool {
        matches!(self, Self::Route { .. } | Self::Routes)
    }
}

/// Somebody who wants to know of events.
pub(crate) trait Listener: Send + Sync + 'static {
    /// Called in any context but hard interrupts; must not sleep.
    fn event(&self, event: Event);

    /// A device is being unregistered, and has left all flowtables. Called with RTNL held; may
    /// sleep.
    fn device_gone(&self, dev: &NetDevice);

    /// The driver that takes the rules of a device which is bound as
    /// [`Binder::Indirect`](crate::net::flow_block::Binder::Indirect) leaves: it takes no new ones,
    /// and those that it has must be withdrawn before this returns. Called with or without RTNL
    /// held, and maybe with locks of the driver; may sleep, but not take RTNL.
    /// C: `nf_flow_table_indr_cleanup()`.
    fn driver_leaves(&self, dev: &NetDevice);
}

/// Whether there is or was a device of an IP tunnel in any namespace, of which [`Notifiers`] have to
/// be registered to know.
pub(crate) fn has_ip_tunnels() -> bool {
    // SAFETY: Reads a flag.
    unsafe { bindings::shim_has_ip_tunnels() }
}

/// # Safety
///
/// `data` must be a `*const L` that is valid for this call, and `dev` a device that is being
/// unregistered.
unsafe extern "C" fn on_device_gone<L: Listener>(
    data: *mut c_void,
    dev: *mut bindings::net_device,
) {
    // SAFETY: By the function's requirements.
    let (listener, dev) = unsafe { (&*data.cast::<L>(), NetDevice::from_raw(dev)) };
    listener.device_gone(dev);
}

/// # Safety
///
/// `data` must be a `*const L` that is valid for this call, and `dev` a device that is not freed
/// meanwhile.
unsafe extern "C" fn on_driver_leaves<L: Listener>(
    data: *mut c_void,
    dev: *mut bindings::net_device,
) {
    // SAFETY: By the function's requirements.
    let (listener, dev) = unsafe { (&*data.cast::<L>(), NetDevice::from_raw(dev)) };
    listener.driver_leaves(dev);
}

/// # Safety
///
/// `data` must be a `*const L` that is valid for this call, and `event` complete.
unsafe extern "C" fn on_event<L: Listener>(data: *mut c_void, event: *const bindings::shim_event) {
    // SAFETY: By the function's requirements.
    let (listener, event) = unsafe { (&*data.cast::<L>(), &*event) };
    let addr = route::from_raw(event.family, &event.addr);
    let what = match (event.kind, addr) {
        (bindings::shim_event_kind_SHIM_EVENT_NEIGHBOUR, Some(addr)) => What::Neighbour {
            ifindex: event.ifindex,
            addr,
        },
        (bindings::shim_event_kind_SHIM_EVENT_FDB, _) => What::Fdb(event.mac),
        (bindings::shim_event_kind_SHIM_EVENT_DEVICE, _) => What::Device(event.ifindex),
        (bindings::shim_event_kind_SHIM_EVENT_ROUTE, Some(addr)) => What::Route {
            addr,
            len: event.prefix_len,
        },
        (bindings::shim_event_kind_SHIM_EVENT_ROUTES, _) => What::Routes,
        // The neighbour tables of other families.
        _ => return,
    };

    listener.event(Event {
        net: NetId::from_raw(event.net),
        what,
    });
}

/// Tells a listener of neighbours, bridges, devices and addresses of all namespaces, and of drivers
/// that leave, as long as the value lives. There is one, for as long as the module is there, which
/// is not unloaded while a driver leaves.
///
/// # Invariants
///
/// `raw` is registered and calls with a pointer to `_listener`.
#[pin_data(PinnedDrop)]
pub(crate) struct Notifiers<L: Listener> {
    #[pin]
    raw: Opaque<bindings::shim_notifiers>,
    _listener: Arc<L>,
}

// SAFETY: Notifiers may be unregistered from any thread.
unsafe impl<L: Listener> Send for Notifiers<L> {}

// SAFETY: A shared reference allows nothing.
unsafe impl<L: Listener> Sync for Notifiers<L> {}

impl<L: Listener> Notifiers<L> {
    /// Sleeps and takes RTNL. Devices that are there already are told of at once.
    pub(crate) fn new(listener: Arc<L>) -> impl PinInit<Self, Error> {
        let data = (&raw const *listener).cast_mut().cast::<c_void>();

        try_pin_init!(Self {
            // INVARIANT: Registered when this succeeds; an `Arc`'s content does not move.
            raw <- Opaque::try_ffi_init(move |raw| {
                // SAFETY: `raw` stays in place until `drop` unregisters it, and `data` lives as
                // long. No driver leaves after that, for it would keep the module.
                to_result(unsafe {
                    bindings::shim_notifiers_register(
                        raw,
                        Some(on_event::<L>),
                        Some(on_device_gone::<L>),
                        Some(on_driver_leaves::<L>),
                        data,
                    )
                })
            }),
            _listener: listener,
        })
    }
}

#[pinned_drop]
impl<L: Listener> PinnedDrop for Notifiers<L> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant. Sleeps, as modules and their parts may when they go.
        unsafe { bindings::shim_notifiers_unregister(self.raw.get()) }
    }
}

/// Tells a listener of routes and rules of a namespace, as long as the value lives.
///
/// # Invariants
///
/// `raw` is registered and calls with a pointer to `_listener`; its namespace is not freed before.
#[pin_data(PinnedDrop)]
pub(crate) struct RouteNotifier<L: Listener> {
    #[pin]
    raw: Opaque<bindings::shim_fib_notifier>,
    _listener: Arc<L>,
}

// SAFETY: Notifiers may be unregistered from any thread.
unsafe impl<L: Listener> Send for RouteNotifier<L> {}

// SAFETY: A shared reference allows nothing.
unsafe impl<L: Listener> Sync for RouteNotifier<L> {}

impl<L: Listener> RouteNotifier<L> {
    /// Sleeps. `EAGAIN` if routes change so quickly that they could not be listed.
    ///
    /// # Safety
    ///
    /// `net` must not be freed before the value is dropped.
    pub(crate) unsafe fn new(net: &Net, listener: Arc<L>) -> impl PinInit<Self, Error> {
        let data = (&raw const *listener).cast_mut().cast::<c_void>();
        let net = net.as_raw();

        try_pin_init!(Self {
            // INVARIANT: As for `Notifiers`; the namespace by the function's requirements.
            raw <- Opaque::try_ffi_init(move |raw| {
                // SAFETY: As for `Notifiers`, and `net` is valid.
                to_result(unsafe {
                    bindings::shim_fib_notifier_register(raw, net, Some(on_event::<L>), data)
                })
            }),
            _listener: listener,
        })
    }
}

#[pinned_drop]
impl<L: Listener> PinnedDrop for RouteNotifier<L> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant. Sleeps; those who hold this may.
        unsafe { bindings::shim_fib_notifier_unregister(self.raw.get()) }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Notifiers of routes, neighbours, bridges and devices.
//!
//! C headers: [`include/net/netevent.h`](srctree/include/net/netevent.h),
//! [`include/net/fib_notifier.h`](srctree/include/net/fib_notifier.h),
//! [`include/net/netns/generic.h`](srctree/include/net/netns/generic.h)

use crate::{
    bindings,
    net::{
        device::{MacAddress, NetDevice},
        namespace::Net,
        route, //
    },
};
use core::{
    marker::PhantomData,
    net::IpAddr, //
};
use kernel::{
    error::to_result,
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{rcu, Arc, CondVar, Mutex},
    types::Opaque, //
};

/// A change in a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A neighbour behind a device: its address, or whether it can be reached.
    Neighbour { ifindex: u32, addr: IpAddr },
    /// A neighbour has not answered, or was deleted by hand: the host asks for it when a packet goes there.
    NeighbourFailed { ifindex: u32, addr: IpAddr },
    /// A device, by its index: up, down, carrier, address, master, gone.
    Device(u32),
    /// A device, by its index: what it is able to do.
    Features(u32),
    /// A device, by its index: its driver is about to stop it.
    Stop(u32),
    /// The port behind which a bridge finds an address.
    Fdb(MacAddress),
    /// The routes to addresses that begin with `len` bits of `addr`.
    Route { addr: IpAddr, len: u8 },
    /// Any route: rules, next hops, names of devices, MTUs.
    Routes,
    /// An address of the host goes.
    Address(IpAddr),
    /// What decides whether packets are forwarded: IPsec policies, `forwarding`, `rp_filter` and the
    /// like.
    Settings,
    /// The generic netlink socket with this port is closed.
    SocketClosed(u32),
    /// The `Watcher` sends it once a second: what the kernel does not tell may have changed.
    Second,
    /// A packet of a connection without an entry was forwarded, which might have one: by devices in
    /// the eyes of IP, and with addresses as they are between the translations.
    Forwarded {
        iif: u32,
        ifindex: u32,
        src: IpAddr,
        dst: IpAddr,
    },
}

impl Event {
    /// Returns whether the notifier runs before the change is visible.
    pub(crate) fn is_early(self) -> bool {
        matches!(self, Self::Route { .. } | Self::Routes | Self::Address(_))
    }

    fn from_raw(event: &bindings::shim_event) -> Option<Self> {
        let addr = route::from_raw(event.family, &event.addr);

        Some(match event.kind {
            bindings::shim_event_kind_SHIM_EVENT_NEIGHBOUR => Self::Neighbour {
                ifindex: event.ifindex,
                // The neighbour tables of other families are left out.
                addr: addr?,
            },
            bindings::shim_event_kind_SHIM_EVENT_NEIGHBOUR_FAILED => Self::NeighbourFailed {
                ifindex: event.ifindex,
                addr: addr?,
            },
            bindings::shim_event_kind_SHIM_EVENT_FDB => Self::Fdb(event.mac),
            bindings::shim_event_kind_SHIM_EVENT_DEVICE => Self::Device(event.ifindex),
            bindings::shim_event_kind_SHIM_EVENT_FEATURES => Self::Features(event.ifindex),
            bindings::shim_event_kind_SHIM_EVENT_STOP => Self::Stop(event.ifindex),
            bindings::shim_event_kind_SHIM_EVENT_ROUTE => Self::Route {
                addr: addr?,
                len: event.prefix_len,
            },
            bindings::shim_event_kind_SHIM_EVENT_ROUTES => Self::Routes,
            bindings::shim_event_kind_SHIM_EVENT_ADDRESS => Self::Address(addr?),
            bindings::shim_event_kind_SHIM_EVENT_SETTINGS => Self::Settings,
            bindings::shim_event_kind_SHIM_EVENT_SOCKET_CLOSED => Self::SocketClosed(event.ifindex),
            bindings::shim_event_kind_SHIM_EVENT_SECOND => Self::Second,
            bindings::shim_event_kind_SHIM_EVENT_FORWARDED => Self::Forwarded {
                iif: event.iif,
                ifindex: event.ifindex,
                src: route::from_raw(event.family, &event.source)?,
                dst: addr?,
            },
            _ => return None,
        })
    }
}

/// The handler of a namespace's events, from [`Notifiers::attach`] until [`Notifiers::detach`] or
/// the end of the namespace.
pub(crate) trait NetHandler: Send + Sync + 'static {
    /// Called in any context but hard interrupts, under `rcu_read_lock()`; must not sleep.
    fn event(&self, event: Event);

    /// Returns the reference that [`Notifiers::attach`] has handed out for this handler.
    fn net(&self) -> &NetRef;
}

/// The handler of what concerns devices of all namespaces.
pub(crate) trait DeviceHandler: Send + Sync + 'static {
    /// A device is being unregistered and has left all flowtables. Called with RTNL held; may sleep.
    fn netdev_unregistered(&self, dev: &NetDevice);

    /// The driver behind `dev`, which is bound as
    /// [`SetupType::Indirect`](crate::net::flow_block::SetupType::Indirect), unregisters: it takes no
    /// new rules, and those that it has must be withdrawn before this returns.
    ///
    /// Called with or without RTNL held, and maybe with locks of the driver; may sleep, but not take
    /// RTNL. C: `nf_flow_table_indr_cleanup()`.
    fn indr_cleanup(&self, dev: &NetDevice);
}

/// A network namespace that may come to its end: access to it lasts for a call.
///
/// # Invariants
///
/// The pointer, if there is one, is valid: the end of the namespace takes it away, and waits for
/// calls that are under way.
#[pin_data]
pub(crate) struct NetRef {
    #[pin]
    net: Mutex<NetUse>,
    /// A call has returned.
    #[pin]
    returned: CondVar,
}

struct NetUse {
    net: Option<*mut bindings::net>,
    calls: usize,
}

// SAFETY: A namespace is used from any thread.
unsafe impl Send for NetUse {}

impl NetRef {
    /// Calls `f` with the namespace unless that has come to its end. Sleeps.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&Net) -> R) -> Option<R> {
        let mut used = self.net.lock();
        let net = used.net?;
        used.calls += 1;
        drop(used);

        // SAFETY: By the type invariant the namespace is valid as long as the call is counted.
        let result = f(unsafe { Net::from_raw(net) });
        let mut used = self.net.lock();
        used.calls -= 1;
        self.returned.notify_all();
        Some(result)
    }

    /// Takes the namespace away, and calls `f` with it when no other call is under way. Sleeps.
    pub(crate) fn end_with<R>(&self, f: impl FnOnce(&Net) -> R) -> Option<R> {
        let mut used = self.net.lock();
        let net = used.net.take()?;
        // `end` waits for this call too.
        used.calls += 1;
        while used.calls > 1 {
            self.returned.wait(&mut used);
        }
        drop(used);

        // SAFETY: By the type invariant the namespace is valid as long as the call is counted.
        let result = f(unsafe { Net::from_raw(net) });
        let mut used = self.net.lock();
        used.calls -= 1;
        self.returned.notify_all();
        Some(result)
    }

    /// Takes the namespace away. Sleeps.
    fn end(&self) {
        let mut used = self.net.lock();
        used.net = None;
        while used.calls > 0 {
            self.returned.wait(&mut used);
        }
    }

    /// Registers the namespace's FIB notifier. May take long: all routes are listed. `EBUSY` if they
    /// change too often for that. Sleeps.
    ///
    /// C: `register_fib_notifier()`.
    pub(crate) fn watch_routes(&self) -> Result {
        self.with(|net| {
            // SAFETY: The namespace is valid, and unregisters the notifier when it ends.
            to_result(unsafe { bindings::shim_net_watch_routes(net.as_raw()) })
        })
        .unwrap_or(Ok(()))
    }

    /// Has [`Event::Settings`] come with the kernel's messages on settings. `ENOMEM`. Sleeps.
    pub(crate) fn watch_settings(&self) -> Result {
        self.with(|net| {
            // SAFETY: The namespace is valid, and closes the sockets when it ends.
            to_result(unsafe { bindings::shim_net_watch_settings(net.as_raw()) })
        })
        .unwrap_or(Ok(()))
    }

    /// Has [`Event::Settings`] come if settings of which no message tells are others than they were last, and
    /// [`Event::Second`]. To be called once a second; sleeps.
    pub(crate) fn compare_settings(&self) {
        // SAFETY: The namespace is valid.
        self.with(|net| unsafe { bindings::shim_net_compare_settings(net.as_raw()) });
    }
}

/// A permission to make the [`NetRef`] of a handler; see [`Notifiers::attach`].
pub(crate) struct NetToken(*mut bindings::net);

impl NetToken {
    /// Makes the reference that the handler keeps.
    pub(crate) fn into_ref(self) -> impl PinInit<NetRef> {
        // INVARIANT: `attach` makes tokens with the pointer to a valid namespace, and takes it away
        // from a handler that it cannot attach.
        pin_init!(NetRef {
            net <- new_mutex!(NetUse {
                net: Some(self.0),
                calls: 0,
            }),
            returned <- new_condvar!(),
        })
    }
}

/// # Safety
///
/// `handler` must point to an `H` that is valid for this call, and `event` be complete.
unsafe extern "C" fn on_event<H: NetHandler>(
    handler: *mut c_void,
    event: *const bindings::shim_event,
) {
    // SAFETY: By the function's requirements.
    let (handler, event) = unsafe { (&*handler.cast::<H>(), &*event) };
    if let Some(event) = Event::from_raw(event) {
        handler.event(event);
    }
}

/// # Safety
///
/// `handler` must be from [`Notifiers::attach`], and not be used by C any more.
unsafe extern "C" fn on_net_exit<H: NetHandler>(handler: *mut c_void) {
    // SAFETY: `attach` made it by `Arc::into_raw`.
    let handler = unsafe { Arc::from_raw(handler.cast_const().cast::<H>()) };
    handler.net().end();
}

/// # Safety
///
/// `data` must be a `*const D` that is valid for this call, and `dev` a device that is being
/// unregistered.
unsafe extern "C" fn on_unregistered<D: DeviceHandler>(
    data: *mut c_void,
    dev: *mut bindings::net_device,
) {
    // SAFETY: By the function's requirements.
    let (handler, dev) = unsafe { (&*data.cast::<D>(), NetDevice::from_raw(dev)) };
    handler.netdev_unregistered(dev);
}

/// # Safety
///
/// `data` must be a `*const D` that is valid for this call, and `dev` a device that is not freed
/// meanwhile.
unsafe extern "C" fn on_indr_cleanup<D: DeviceHandler>(
    data: *mut c_void,
    dev: *mut bindings::net_device,
) {
    // SAFETY: By the function's requirements.
    let (handler, dev) = unsafe { (&*data.cast::<D>(), NetDevice::from_raw(dev)) };
    handler.indr_cleanup(dev);
}

/// The notifiers of the kernel, registered as long as the value lives.
///
/// # Invariants
///
/// `raw` is registered and calls with a pointer to `_devices`. All handlers that are attached to
/// namespaces are of type `H`: there is one value of this type at a time.
#[pin_data(PinnedDrop)]
pub(crate) struct Notifiers<H: NetHandler, D: DeviceHandler> {
    #[pin]
    raw: Opaque<bindings::shim_notifiers>,
    _devices: Arc<D>,
    _handlers: PhantomData<H>,
}

// SAFETY: Notifiers may be unregistered from any thread.
unsafe impl<H: NetHandler, D: DeviceHandler> Send for Notifiers<H, D> {}

// SAFETY: The methods of a shared reference lock what they need.
unsafe impl<H: NetHandler, D: DeviceHandler> Sync for Notifiers<H, D> {}

impl<H: NetHandler, D: DeviceHandler> Notifiers<H, D> {
    /// Registers the notifiers. `EBUSY` if there are some already.
    ///
    /// Sleeps and takes RTNL. Calls the handlers for devices that are there already.
    pub(crate) fn new(devices: Arc<D>) -> impl PinInit<Self, Error> {
        let data = (&raw const *devices).cast_mut().cast::<c_void>();

        try_pin_init!(Self {
            // INVARIANT: Registered when this succeeds; an `Arc`'s content does not move.
            raw <- Opaque::try_ffi_init(move |raw| {
                // SAFETY: `raw` stays in place until `drop` unregisters it, and `data` lives as
                // long. No driver unregisters after that, for its callbacks keep the module.
                to_result(unsafe {
                    bindings::shim_notifiers_register(
                        raw,
                        Some(on_event::<H>),
                        Some(on_net_exit::<H>),
                        Some(on_unregistered::<D>),
                        Some(on_indr_cleanup::<D>),
                        data,
                    )
                })
            }),
            _devices: devices,
            _handlers: PhantomData,
        })
    }

    /// Attaches the handler that `make` makes to a namespace without one, and returns it. Sleeps.
    /// `EBUSY` if the namespace has a handler, or the error of `make`.
    pub(crate) fn attach(
        &self,
        net: &Net,
        make: impl FnOnce(NetToken) -> Result<Arc<H>>,
    ) -> Result<Arc<H>> {
        let handler = make(NetToken(net.as_raw()))?;
        let raw = Arc::into_raw(handler.clone());

        // SAFETY: The namespace is valid, and the reference is C's from here on.
        if unsafe { bindings::shim_net_set_handler(net.as_raw(), raw.cast_mut().cast()) } {
            return Ok(handler);
        }
        // SAFETY: C did not take the reference.
        drop(unsafe { Arc::from_raw(raw) });
        handler.net().end();
        Err(EBUSY)
    }

    /// Takes the handler of a namespace away. When this returns, no event comes to it any more.
    /// Sleeps.
    pub(crate) fn detach(&self, net: &Net) {
        // SAFETY: The namespace is valid.
        unsafe { bindings::shim_net_unwatch(net.as_raw()) };
        // Last, as the end of the namespace waits for this if it finds the handler.
        // SAFETY: As above.
        let handler = unsafe { bindings::shim_net_take_handler(net.as_raw()) };
        if !handler.is_null() {
            // SAFETY: `attach` made it by `Arc::into_raw`, and by the type invariant from an `H`.
            drop(unsafe { Arc::from_raw(handler.cast_const().cast::<H>()) });
        }
    }

    /// Returns the handler of a namespace, if it has one. Does not sleep.
    pub(crate) fn handler(&self, net: &Net) -> Option<Arc<H>> {
        // SAFETY: By the type invariant.
        unsafe { handler(net) }
    }
}

/// Calls `f`, which must not sleep, with the handler of a namespace, if it has one.
///
/// # Safety
///
/// There must be a [`Notifiers<H, _>`], as long as this runs.
pub(crate) unsafe fn with_handler<H: NetHandler, R>(
    net: &Net,
    f: impl FnOnce(Option<&H>) -> R,
) -> R {
    let _guard = rcu::read_lock();
    // SAFETY: The namespace is valid, and RCU is read-locked.
    let handler = unsafe { bindings::shim_net_handler(net.as_raw()) }.cast_const();

    // SAFETY: By the function's requirements; RCU keeps the reference of C.
    f(unsafe { handler.cast::<H>().as_ref() })
}

/// As [`Notifiers::handler`].
///
/// # Safety
///
/// As for [`with_handler`].
pub(crate) unsafe fn handler<H: NetHandler>(net: &Net) -> Option<Arc<H>> {
    let get = |handler: Option<&H>| {
        let raw = core::ptr::from_ref(handler?);
        // SAFETY: `attach` made it by `Arc::into_raw`, and C's reference is kept by RCU; the one that
        // `from_raw` takes over is not given up.
        let borrowed = core::mem::ManuallyDrop::new(unsafe { Arc::from_raw(raw) });
        Some(Arc::clone(&borrowed))
    };

    // SAFETY: By the function's requirements.
    unsafe { with_handler(net, get) }
}

#[pinned_drop]
impl<H: NetHandler, D: DeviceHandler> PinnedDrop for Notifiers<H, D> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant. Sleeps, as modules and their parts may when they go.
        unsafe { bindings::shim_notifiers_unregister(self.raw.get()) }
    }
}

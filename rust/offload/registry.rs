// SPDX-License-Identifier: GPL-2.0

//! All devices that take rules.
//!
//! A device may be in several flowtables, or in one of them several times, at least for a moment:
//! when a ruleset replaces itself in one transaction, the new flowtable or hook is bound before the
//! old one is unbound. Most drivers refuse a second binding of a device, so all share one.

use crate::{
    net::{
        device::NetDevice,
        eopnotsupp,
        flow_block::{BindError, FlowBlock, SetupType},
        log::dev_warn_ratelimited,
        namespace::Net,
        notifier::DeviceHandler,
        rtnl::Rtnl, //
    },
    offload::{
        config::Config,
        device::{OffloadDevice, Port},
        table::Table, //
    },
    work::{Work, Worker, Workqueue}, //
};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    new_mutex,
    new_spinlock,
    prelude::*,
    rbtree::{RBTree, RBTreeNodeReservation},
    static_lock_class,
    sync::{Arc, LockClassKey, Mutex, SpinLock}, //
};

/// The devices of all flowtables.
///
/// There are as many as users wrote into flowtables; only what changes these looks for one here.
#[pin_data]
pub(crate) struct BoundDevices {
    config: Config,
    workqueue: Arc<Workqueue>,
    /// Held while a driver is bound or unbound.
    #[pin]
    bound: Mutex<KVec<Bound>>,
    /// Those of `bound`, for who must not wait for drivers.
    #[pin]
    listed: SpinLock<RBTree<Key, Arc<OffloadDevice>>>,
}

/// Where a device is among all, of which those of several namespaces may have the same index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    ifindex: u32,
    device: usize,
}

impl Key {
    fn of(device: &OffloadDevice) -> Self {
        Self {
            ifindex: device.dev().ifindex(),
            device: core::ptr::from_ref(device) as usize,
        }
    }
}

struct Bound {
    device: Arc<OffloadDevice>,
    key: Key,
    /// Where it takes rules. One without any waits for RTNL, with which alone it can be unbound.
    ports: KVec<(Arc<Port>, Arc<Table>)>,
    /// RTNL is needed to bind it, and has not been had yet.
    is_pending: bool,
}

/// How a driver is to be bound.
enum Verdict {
    Bound(Arc<FlowBlock>),
    /// With RTNL held, by a work.
    NeedsRtnl,
}

impl BoundDevices {
    pub(super) fn new(config: Config, workqueue: Arc<Workqueue>) -> impl PinInit<Self> {
        pin_init!(Self {
            config,
            workqueue,
            bound <- new_mutex!(KVec::new()),
            listed <- new_spinlock!(RBTree::new()),
        })
    }

    pub(super) fn workqueue(&self) -> &Arc<Workqueue> {
        &self.workqueue
    }

    /// Binds the driver of a device for flowtables. One that has nothing for these may take rules of tc.
    /// `EAGAIN` if RTNL is needed, and another task has it.
    fn bind_driver(dev: &NetDevice, rtnl: Option<&Rtnl>) -> Result<Verdict, BindError> {
        if !dev.has_setup_tc() {
            // Drivers keep lists of indirect blocks under RTNL, for which a task with `commit_mutex` must
            // not wait.
            let locked = match rtnl {
                Some(_) => None,
                None => Some(Rtnl::try_lock().ok_or(EAGAIN)?),
            };
            let result = FlowBlock::bind(dev, SetupType::Indirect).map(Verdict::Bound);
            drop(locked);
            return result;
        }
        match FlowBlock::bind(dev, SetupType::Ft) {
            Ok(driver) if driver.takes_rules() => Ok(Verdict::Bound(driver)),
            Err(error) if error.errno() != eopnotsupp() => Err(error),
            // It has refused, or agreed without a callback (netdevsim).
            _ => Ok(Verdict::NeedsRtnl),
        }
    }

    /// As [`Self::bind_driver`] with RTNL held.
    fn bind_with_rtnl(dev: &NetDevice, _rtnl: &Rtnl) -> Result<Arc<FlowBlock>, BindError> {
        if !dev.has_setup_tc() {
            return FlowBlock::bind(dev, SetupType::Indirect);
        }
        let driver = FlowBlock::bind(dev, SetupType::Block).inspect_err(|error| {
            if error.errno() == EBUSY {
                dev_warn_ratelimited!(
                    dev,
                    Bind,
                    "tc has the driver's rules; remove its ingress or clsact qdisc first\n"
                );
            }
        })?;
        if driver.takes_rules() {
            Ok(driver)
        } else {
            Err(eopnotsupp().into())
        }
    }

    /// Adds a port of `table` to a device, whose driver is bound if it is not yet, now or by a work.
    /// Fails with the driver's error, or `ENOMEM`. `rtnl` is there if the caller holds it. Sleeps.
    pub(super) fn bind(
        self: &Arc<Self>,
        worker: &Worker<Binder>,
        dev: &NetDevice,
        priority: i32,
        rtnl: Option<&Rtnl>,
        table: impl FnOnce() -> Result<Arc<Table>>,
    ) -> Result<(Arc<Port>, Arc<Table>), BindError> {
        let mut bound = self.bound.lock();
        let found = bound.iter().position(|bound| bound.device.is(dev));

        if let Some(index) = found {
            let Bound {
                device,
                ports,
                is_pending,
                ..
            } = &mut bound[index];
            match device.rebind() {
                Some(result) => result?,
                // What stood against it may be gone.
                None => {
                    *is_pending = true;
                    worker.queue();
                }
            }
            let (port, table) = (Port::new(device.clone(), priority)?, table()?);
            // It may have been about to be unbound.
            device.start(&self.workqueue)?;
            ports.push((port.clone(), table.clone()), GFP_KERNEL_ACCOUNT)?;
            return Ok((port, table));
        }

        bound.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let ports = KVec::with_capacity(1, GFP_KERNEL_ACCOUNT)?;
        let node = RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT)?;
        let device = OffloadDevice::new(dev, &self.workqueue)?;
        let (port, verdict) = Port::new(device.clone(), priority)
            .map_err(BindError::from)
            .and_then(|port| Ok((port, Self::bind_driver(dev, rtnl)?)))
            .inspect_err(|_| drop(device.take_driver()))?;
        let is_pending = match verdict {
            Verdict::Bound(driver) => {
                device.set_driver(Some(driver), self.config.dialect);
                false
            }
            Verdict::NeedsRtnl => true,
        };
        let key = Key::of(&device);
        self.listed
            .lock()
            .insert(node.into_node(key, device.clone()));
        let new = Bound {
            device,
            key,
            ports,
            is_pending,
        };
        bound.push(new, GFP_KERNEL_ACCOUNT)?;

        // A device that is refused costs no monitor of its namespace. From here on it is unbound as any.
        let joined = table().and_then(|table| {
            let new = bound.last_mut().ok_or(EINVAL)?;
            new.ports
                .push((port.clone(), table.clone()), GFP_KERNEL_ACCOUNT)?;
            Ok(table)
        });
        drop(bound);
        let table = joined.inspect_err(|_| self.unbind(worker, &port))?;
        if is_pending {
            worker.queue();
        }
        Ok((port, table))
    }

    /// Has the driver of a device, in which a table has a port already, bound anew if it has
    /// unregistered. Sleeps.
    pub(super) fn rebind(&self, port: &Port) -> Result<(), BindError> {
        let _bound = self.bound.lock();
        Ok(port.device().rebind().unwrap_or(Ok(()))?)
    }

    /// Removes a port, in which no rule is left, and unbinds the device if it has no other one: by a
    /// work if RTNL is needed. Sleeps.
    pub(super) fn unbind(&self, worker: &Worker<Binder>, port: &Arc<Port>) {
        let mut bound = self.bound.lock();
        let device = port.device();
        let Some(found) = bound
            .iter_mut()
            .find(|bound| Arc::ptr_eq(&bound.device, device))
        else {
            return;
        };

        found.ports.retain(|(known, _)| !Arc::ptr_eq(known, port));
        if !found.ports.is_empty() {
            return;
        }
        if Self::needs_rtnl(device) {
            worker.queue();
            return;
        }
        // Others do not wait for the driver.
        device.stop();
        drop(bound);
        device.wait_stopped();
        let mut bound = self.bound.lock();
        // Others may have bound it meanwhile, in another way.
        self.unbind_where(&mut bound, |found| {
            Arc::ptr_eq(&found.device, device) && !Self::needs_rtnl(device)
        });
    }

    /// Returns whether the driver can be unbound with RTNL held only, by [`Binder`].
    fn needs_rtnl(device: &OffloadDevice) -> bool {
        device
            .setup_type()
            .is_some_and(|setup_type| setup_type != SetupType::Ft)
    }

    /// Unbinds those of the drivers that no table uses.
    fn unbind_where(&self, bound: &mut KVec<Bound>, mut which: impl FnMut(&Bound) -> bool) {
        bound.retain(|found| {
            let goes = found.ports.is_empty() && which(found);
            if goes {
                let node = self.listed.lock().remove_node(&found.key);
                drop(node);
                drop(found.device.take_driver());
            }
            !goes
        });
    }

    /// Stops one after the other of the devices that no table uses, without a lock that others need.
    fn stop_unused(&self, which: impl Fn(&OffloadDevice) -> bool) {
        loop {
            let bound = self.bound.lock();
            let unused = bound.iter().find(|bound| {
                bound.ports.is_empty() && which(&bound.device) && !bound.device.is_stopped()
            });
            let Some(device) = unused.map(|bound| bound.device.clone()) else {
                break;
            };
            device.stop();
            drop(bound);
            device.wait_stopped();
        }
    }

    /// Binds and unbinds what waits for RTNL. Sleeps.
    pub(super) fn run_with_rtnl(&self) {
        self.stop_unused(Self::needs_rtnl);
        let is_unused = |bound: &Bound| bound.ports.is_empty() && Self::needs_rtnl(&bound.device);
        let waits = |bound: &Bound| bound.is_pending || is_unused(bound);
        if !self.bound.lock().iter().any(waits) {
            return;
        }
        let rtnl = Rtnl::lock();
        let mut bound = self.bound.lock();

        // Others are unbound by the task that has stopped them.
        self.unbind_where(&mut bound, is_unused);
        for found in bound.iter_mut().filter(|found| found.is_pending) {
            found.is_pending = false;
            if found.ports.is_empty() {
                continue;
            }
            let device = &found.device;
            match Self::bind_with_rtnl(device.dev(), &rtnl) {
                Ok(driver) => {
                    device.set_driver(Some(driver), self.config.dialect);
                    pr_info!("{}: takes rules, of tc\n", device.dev().name());
                }
                Err(error) => {
                    dev_warn_ratelimited!(
                        device.dev(),
                        Bind,
                        "cannot offload, so its flows stay in software: {}\n",
                        error
                    );
                    device.set_driver(None, None);
                }
            }
            for (_, table) in &found.ports {
                table.monitor().device_changed();
            }
        }
    }

    /// Returns the device of a namespace whose index is the next after this one. Does not sleep.
    pub(super) fn after(&self, net: &Net, ifindex: u32) -> Option<Arc<OffloadDevice>> {
        let from = Key {
            ifindex: ifindex + 1,
            device: 0,
        };
        let mut listed = self.listed.lock();
        let mut cursor = listed.cursor_lower_bound_mut(&from)?;

        loop {
            let (_, device) = cursor.current();
            if device.dev().is_in(net) {
                return Some(device.clone());
            }
            cursor = cursor.move_next()?;
        }
    }

    /// The ports of a device.
    fn ports(&self, dev: &NetDevice) -> Result<KVec<(Arc<Port>, Arc<Table>)>> {
        let bound = self.bound.lock();
        let mut ports = KVec::new();

        for found in bound.iter().filter(|bound| bound.device.is(dev)) {
            ports.extend_from_slice(&found.ports, GFP_KERNEL)?;
        }
        Ok(ports)
    }
}

impl DeviceHandler for BoundDevices {
    fn netdev_unregistered(&self, dev: &NetDevice) {
        self.stop_unused(|device| device.is(dev));
        self.unbind_where(&mut self.bound.lock(), |found| found.device.is(dev));
    }

    fn indr_cleanup(&self, dev: &NetDevice) {
        // There must be memory for this, or rules would stay.
        let ports = loop {
            if let Ok(ports) = self.ports(dev) {
                break ports;
            }
        };

        for (port, table) in &ports {
            port.device().retry_stale();
            table.withdraw(port);
            port.wait();
        }
        dev_warn_ratelimited!(
            dev,
            Unregister,
            "the driver unregistered; flows continue in software. Reload the ruleset to offload \
             them again\n"
        );
    }
}

/// What has to be done with RTNL held, which nothing may wait for that is called with it held.
pub(crate) struct Binder(Arc<BoundDevices>);

impl Binder {
    pub(super) fn new(devices: Arc<BoundDevices>) -> Self {
        Self(devices)
    }
}

impl Work for Binder {
    fn lock_classes() -> [Pin<&'static LockClassKey>; 2] {
        [static_lock_class!(), static_lock_class!()]
    }

    fn run(&self, _worker: &Worker<Self>) {
        self.0.run_with_rtnl();
    }
}

impl Drop for Binder {
    fn drop(&mut self) {
        // The work may not have come to it.
        self.0.run_with_rtnl();
    }
}

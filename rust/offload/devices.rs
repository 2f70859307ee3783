// SPDX-License-Identifier: GPL-2.0

//! The devices that take rules.
//!
//! A device may be in several flowtables, or in one of them several times, at least for a moment:
//! when a ruleset replaces itself in one transaction, the new flowtable or hook is bound before the
//! old one is unbound. Most drivers refuse a second binding of a device, so all share one.

use crate::{
    compat::param,
    module_parameters,
    net::{
        device::NetDevice,
        eopnotsupp,
        flow_block::{BindError, Binder, BoundBlock, DriverError, RuleName},
        rtnl::Rtnl, //
    },
    offload::{
        translate::Dialect,
        truth::Context, //
    },
    ratelimit::pr_warn_ratelimited,
    time::ms,
    work::{Work, Worker}, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
        Mutex,
        UniqueArc, //
    }, //
};

/// A device that takes rules, and what has been learned about it.
#[pin_data]
pub(crate) struct Device {
    driver: Pin<KBox<BoundBlock>>,
    /// What tc means where the driver is bound for tc, else the parameter `ttl` where it is not 0, else
    /// what a driver has taken first.
    dialect: Atomic<u32>,
    /// Rules that the driver failed to remove.
    #[pin]
    orphans: Mutex<KVec<RuleName>>,
}

impl Device {
    const UNKNOWN: u32 = 0;
    const TC: u32 = 1;
    const ROUTER: u32 = 2;

    /// Binds the device's driver for flowtables, or for tc if it has nothing for these. A device
    /// without one is offered to others.
    fn bind(dev: &NetDevice) -> Result<Arc<Self>, BindError> {
        // First, as what is bound for tc could not be unbound any more without RTNL.
        let device = UniqueArc::new_uninit(GFP_KERNEL)?;
        let driver = if dev.has_setup_tc() {
            Self::bind_own(dev)?
        } else {
            BoundBlock::bind(dev, Binder::Indirect)?
        };
        let dialect = match driver.binder() {
            Binder::Block => Self::TC,
            Binder::Ft | Binder::Indirect => u32::from(param::<u8>(module_parameters::ttl.value())),
        };
        let init = pin_init!(Self {
            driver,
            dialect: Atomic::new(dialect),
            orphans <- new_mutex!(KVec::new()),
        }? Error);
        Ok(device.pin_init_with(init)?.into())
    }

    fn bind_own(dev: &NetDevice) -> Result<Pin<KBox<BoundBlock>>, BindError> {
        match BoundBlock::bind(dev, Binder::Ft) {
            Ok(driver) if driver.takes_rules() => Ok(driver),
            Err(error) if error.errno() != eopnotsupp() => Err(error),
            // It has refused, or agreed without a callback (netdevsim).
            _ => Self::bind_for_tc(dev),
        }
    }

    /// `EAGAIN` if somebody else has RTNL, who may be waiting for a lock that is held here: nftables
    /// then lets go of all and tries again.
    fn bind_for_tc(dev: &NetDevice) -> Result<Pin<KBox<BoundBlock>>, BindError> {
        let _rtnl = Rtnl::try_lock().ok_or(EAGAIN)?;

        let driver = BoundBlock::bind(dev, Binder::Block).inspect_err(|error| {
            if error.errno() == EBUSY {
                pr_warn_ratelimited!(
                    "{}: tc has the driver's rules; remove its ingress or clsact qdisc first\n",
                    dev.name()
                );
            }
        })?;
        if driver.takes_rules() {
            Ok(driver)
        } else {
            Err(eopnotsupp().into())
        }
    }

    pub(super) fn driver(&self) -> &BoundBlock {
        &self.driver
    }

    fn is(&self, dev: &NetDevice) -> bool {
        core::ptr::eq(self.driver.device(), dev)
    }

    /// How the driver may read rules, in the order in which to try.
    pub(super) fn dialects(&self) -> &'static [Dialect] {
        match self.dialect.load(Relaxed) {
            Self::TC => &[Dialect::Tc],
            Self::ROUTER => &[Dialect::Router],
            _ => &[Dialect::Tc, Dialect::Router],
        }
    }

    /// The driver has taken a rule in this dialect.
    pub(super) fn learn(&self, dialect: Dialect) {
        let dialect = match dialect {
            Dialect::Tc => Self::TC,
            Dialect::Router => Self::ROUTER,
        };
        // If two flows have found out at once, they have found out the same.
        let _ = self.dialect.cmpxchg(Self::UNKNOWN, dialect, Relaxed);
    }

    /// Removes a rule. One that the driver does not know is gone; one that it fails to remove is an
    /// orphan. Returns whether there is one more of these to be removed later.
    fn remove(&self, name: RuleName) -> bool {
        let Err(error) = self.try_remove(name) else {
            return false;
        };

        let kept = self.orphans.lock().push(name, GFP_KERNEL).is_ok();
        pr_warn_ratelimited!(
            "{}: the driver did not remove a rule: {}; it goes on forwarding, {}\n",
            self.driver.device().name(),
            error,
            if kept {
                "the removal will be tried again"
            } else {
                "and there is no memory to try again"
            }
        );
        kept
    }

    /// Fails if the rule is still there.
    fn try_remove(&self, name: RuleName) -> Result<(), DriverError> {
        self.driver.destroy(name).or_else(|error| {
            let is_gone = match error.errno {
                ENOENT => true,
                // What mlx5 says of a rule that it does not know, and others of a failure.
                EINVAL => self.driver.stats(name).is_err(),
                _ => false,
            };
            if is_gone {
                Ok(())
            } else {
                Err(error)
            }
        })
    }

    /// Whether the driver says that the hardware has no such rule any more.
    fn has_lost(&self, name: RuleName) -> bool {
        self.driver
            .stats(name)
            .is_err_and(|error| error.errno == ENOENT)
    }

    /// Tries again to remove those orphans. Returns whether any is left.
    fn remove_orphans_where(&self, mut which: impl FnMut(RuleName) -> bool) -> bool {
        let mut orphans = self.orphans.lock();

        orphans.retain(|&mut name| {
            !which(name) || (!self.has_lost(name) && self.try_remove(name).is_err())
        });
        !orphans.is_empty()
    }

    /// Tries again to remove what could not be removed. Returns whether anything is left.
    pub(super) fn remove_orphans(&self) -> bool {
        self.remove_orphans_where(|_| true)
    }

    /// Whether no orphan has this name: a rule that is installed under it would go with the orphan.
    pub(super) fn is_free(&self, wanted: RuleName) -> bool {
        !self.remove_orphans_where(|name| name == wanted) || !self.orphans.lock().contains(&wanted)
    }

    /// Says what stays in hardware when the driver is unbound or leaves, for there is no one left to
    /// ask.
    pub(super) fn give_up_orphans(&self) {
        let orphans = core::mem::take(&mut *self.orphans.lock()).len();
        if orphans > 0 {
            pr_warn_ratelimited!(
                "{}: rules that the driver did not remove stay and go on forwarding: {}. Reset the \
                 device to be rid of them\n",
                self.driver.device().name(),
                orphans
            );
        }
    }
}

/// All devices whose drivers are bound, of all flowtables.
///
/// There are as many as users wrote into flowtables, a handful, so that a walk is quicker than
/// anything clever. The same goes for [`Devices`].
#[pin_data]
pub(crate) struct Registry {
    /// With the number of tables that use each. Held while a driver is bound or unbound. One that
    /// nobody uses any more is there until RTNL can be had to unbind it.
    #[pin]
    bound: Mutex<KVec<(Arc<Device>, usize)>>,
}

impl Registry {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            bound <- new_mutex!(KVec::new()),
        })
    }

    /// The device `dev`, whose driver is bound if it is not yet.
    fn bind(&self, dev: &NetDevice) -> Result<Arc<Device>, BindError> {
        let mut bound = self.bound.lock();

        if let Some((device, tables)) = bound.iter_mut().find(|(device, _)| device.is(dev)) {
            device.driver.rebind()?;
            *tables += 1;
            return Ok(device.clone());
        }

        bound.reserve(1, GFP_KERNEL)?;
        let device = Device::bind(dev)?;
        bound.push((device.clone(), 1), GFP_KERNEL)?;
        Ok(device)
    }

    /// Undoes a [`Self::bind`]. The caller has dropped what it got from there. Returns whether
    /// [`Self::unbind_unused`] has to be called.
    fn unbind(&self, dev: &NetDevice) -> bool {
        let mut bound = self.bound.lock();
        let Some((device, tables)) = bound.iter_mut().find(|(device, _)| device.is(dev)) else {
            return false;
        };

        *tables -= 1;
        if *tables > 0 {
            return false;
        }
        let _rtnl = match device.driver.binder() {
            Binder::Ft | Binder::Indirect => None,
            Binder::Block => match Rtnl::try_lock() {
                None => return true,
                rtnl => rtnl,
            },
        };
        Self::unbind_where(&mut bound, |device| device.is(dev));
        false
    }

    /// Unbinds those of the drivers that nobody uses. Those that are bound for tc need RTNL.
    fn unbind_where(
        bound: &mut KVec<(Arc<Device>, usize)>,
        mut which: impl FnMut(&Device) -> bool,
    ) {
        bound.retain(|(device, tables)| {
            let goes = *tables == 0 && which(device);
            if goes {
                device.give_up_orphans();
            }
            !goes
        });
    }

    /// Unbinds drivers that could not be unbound when they should. Sleeps and takes RTNL.
    pub(super) fn unbind_unused(&self) {
        if self.bound.lock().iter().any(|(_, tables)| *tables == 0) {
            let _rtnl = Rtnl::lock();
            Self::unbind_where(&mut self.bound.lock(), |_| true);
        }
    }

    /// Tries again to remove what drivers could not remove. Returns whether anything is left. Sleeps.
    fn remove_orphans(&self) -> bool {
        // A device that is to be bound or unbound waits: an orphan must not meet its rules.
        let bound = self.bound.lock();

        bound
            .iter()
            .fold(false, |left, (device, _)| device.remove_orphans() | left)
    }

    /// As [`Self::unbind_unused`] for a device that is being unregistered, with RTNL held.
    pub(super) fn device_gone(&self, dev: &NetDevice) {
        Self::unbind_where(&mut self.bound.lock(), |device| device.is(dev));
    }
}

/// Rules that drivers failed to remove, tried again until they are gone.
pub(crate) struct Orphans(Arc<Registry>);

impl Orphans {
    const AGAIN_MS: u32 = 1000;

    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self(registry)
    }

    pub(super) fn remove_later(worker: &Worker<Self>) {
        worker.start_later(ms(Self::AGAIN_MS));
    }
}

impl Work for Orphans {
    fn run(&self, worker: &Worker<Self>) {
        if self.0.remove_orphans() {
            Self::remove_later(worker);
        }
    }

    fn run_later(&self, worker: &Worker<Self>) {
        self.run(worker);
    }
}

/// The devices that take rules for one flowtable.
pub(crate) struct Devices {
    context: Arc<Context>,
    /// With the number of the table's hooks that bound each.
    list: KVec<(Arc<Device>, usize)>,
    changes: u64,
}

impl Devices {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            list: KVec::new(),
            changes: 0,
        }
    }

    /// Binds the driver of `dev`. Fails with the driver's error, or `ENOMEM`.
    pub(super) fn bind(&mut self, dev: &NetDevice) -> Result<(), BindError> {
        self.changes += 1;
        if let Some((device, hooks)) = self.list.iter_mut().find(|(device, _)| device.is(dev)) {
            device.driver.rebind()?;
            *hooks += 1;
            return Ok(());
        }

        self.list.reserve(1, GFP_KERNEL)?;
        let device = self.context.registry().bind(dev)?;
        self.list.push((device, 1), GFP_KERNEL)?;
        Ok(())
    }

    /// Whether one more [`Self::unbind`] would unbind the driver of `dev`.
    pub(super) fn is_last(&self, dev: &NetDevice) -> bool {
        self.list
            .iter()
            .any(|(device, hooks)| device.is(dev) && *hooks == 1)
    }

    /// Undoes one [`Self::bind`] of `dev`, if there was any. The table's rules have to be gone if
    /// it is the last one.
    pub(super) fn unbind(&mut self, dev: &NetDevice) {
        let before = self.list.len();
        self.list.retain(|(device, hooks)| {
            if device.is(dev) {
                *hooks -= 1;
                device.remove_orphans();
            }
            *hooks > 0
        });

        if self.list.len() < before && self.context.registry().unbind(dev) {
            self.context.unbind_unused_later();
        }
    }

    /// Removes a rule from a device, later if the driver fails to.
    pub(super) fn remove(&self, device: &Device, name: RuleName) {
        if device.remove(name) {
            self.context.remove_orphans_later();
        }
    }

    /// The device `dev`, if it is one of the table's.
    pub(super) fn find(&self, dev: &NetDevice) -> Option<&Device> {
        self.list
            .iter()
            .find(|(device, _)| device.is(dev))
            .map(|(device, _)| &**device)
    }

    /// The device with index `ifindex`.
    pub(super) fn get(&self, ifindex: u32) -> Option<&Device> {
        self.list
            .iter()
            .find(|(device, _)| device.driver.device().ifindex() == ifindex)
            .map(|(device, _)| &**device)
    }

    /// A number that grows with each device that joins.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The devices that take rules.
//!
//! A device may be in several flowtables, at least for a moment: when a ruleset replaces itself in
//! one transaction, the new flowtable is bound before the old one is unbound. Most drivers refuse a
//! second binding of a device, so the tables share one.

use crate::{
    module_parameters,
    net::{
        device::NetDevice,
        flow_block::{BoundBlock, DriverError}, //
    },
    offload::translate::Ttl,
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
        Mutex, //
    },
};

/// A device that takes rules, and what has been learned about it.
pub(crate) struct Device {
    block: Pin<KBox<BoundBlock>>,
    /// Who decrements the TTL: one of [`Self::UNKNOWN`], [`Self::BY_RULE`], [`Self::BY_HARDWARE`].
    ttl: Atomic<u32>,
}

impl Device {
    const UNKNOWN: u32 = 0;
    const BY_RULE: u32 = 1;
    const BY_HARDWARE: u32 = 2;

    fn bind(dev: &NetDevice) -> Result<Arc<Self>, DriverError> {
        let device = Arc::new(
            Self {
                block: BoundBlock::bind(dev)?,
                ttl: Atomic::new(u32::from(*module_parameters::ttl.value())),
            },
            GFP_KERNEL,
        )?;

        if device.block.is_empty() {
            pr_warn!(
                "{}: the driver takes no rules from flowtables; its flows stay in software\n",
                dev.name()
            );
        }
        Ok(device)
    }

    /// The driver.
    pub(super) fn driver(&self) -> &BoundBlock {
        &self.block
    }

    fn is(&self, dev: &NetDevice) -> bool {
        core::ptr::eq(self.block.device(), dev)
    }

    /// Who may have to decrement the TTL, in the order in which to try.
    pub(super) fn ttl(&self) -> &'static [Ttl] {
        match self.ttl.load(Relaxed) {
            Self::BY_RULE => &[Ttl::ByRule],
            Self::BY_HARDWARE => &[Ttl::ByHardware],
            _ => &[Ttl::ByRule, Ttl::ByHardware],
        }
    }

    /// The driver has taken a rule with this.
    pub(super) fn set_ttl(&self, ttl: Ttl) {
        let ttl = match ttl {
            Ttl::ByRule => Self::BY_RULE,
            Ttl::ByHardware => Self::BY_HARDWARE,
        };
        // A rule that was refused for another reason may say otherwise later: the first one counts.
        let _ = self.ttl.cmpxchg(Self::UNKNOWN, ttl, Relaxed);
    }
}

/// All devices whose drivers are bound, of all flowtables.
///
/// There are as many as users wrote into flowtables, a handful, so that a walk is quicker than
/// anything clever. The same goes for [`Devices`].
#[pin_data]
pub(crate) struct Registry {
    /// Held while a driver is bound or unbound. Drivers keep lists of what they are bound to and
    /// rely on their caller to serialise that.
    #[pin]
    bound: Mutex<KVec<Binding>>,
}

struct Binding {
    device: Arc<Device>,
    /// How many tables use it.
    users: usize,
}

impl Registry {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            bound <- new_mutex!(KVec::new()),
        })
    }

    /// The device `dev`, whose driver is bound if it is not yet.
    fn bind(&self, dev: &NetDevice) -> Result<Arc<Device>, DriverError> {
        let mut bound = self.bound.lock();

        if let Some(binding) = bound.iter_mut().find(|binding| binding.device.is(dev)) {
            binding.users += 1;
            return Ok(binding.device.clone());
        }

        bound.reserve(1, GFP_KERNEL)?;
        let device = Device::bind(dev)?;
        let binding = Binding {
            device: device.clone(),
            users: 1,
        };
        bound.push(binding, GFP_KERNEL)?;
        Ok(device)
    }

    /// Undoes a [`Self::bind`]. The caller has dropped what it got from there.
    fn unbind(&self, dev: &NetDevice) {
        self.bound.lock().retain(|binding| {
            if binding.device.is(dev) {
                binding.users -= 1;
            }
            binding.users > 0
        });
    }
}

/// The devices that take rules for one flowtable.
pub(crate) struct Devices {
    registry: Arc<Registry>,
    list: KVec<Arc<Device>>,
}

impl Devices {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            list: KVec::new(),
        }
    }

    /// Binds the driver of `dev`. Fails with the driver's error, or `ENOMEM`.
    pub(super) fn bind(&mut self, dev: &NetDevice) -> Result<(), DriverError> {
        self.list.reserve(1, GFP_KERNEL)?;
        let device = self.registry.bind(dev)?;
        self.list.push(device, GFP_KERNEL)?;
        Ok(())
    }

    /// Unbinds the driver of `dev`, if it is bound for this table. The table's rules are gone
    /// already.
    pub(super) fn unbind(&mut self, dev: &NetDevice) {
        let before = self.list.len();
        self.list.retain(|device| !device.is(dev));

        if self.list.len() < before {
            self.registry.unbind(dev);
        }
    }

    /// The device with index `ifindex`.
    pub(super) fn get(&self, ifindex: u32) -> Option<&Device> {
        self.list
            .iter()
            .find(|device| device.block.device().ifindex() == ifindex)
            .map(|device| &**device)
    }
}

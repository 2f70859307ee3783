// SPDX-License-Identifier: GPL-2.0

//! The devices that take rules.
//!
//! A device may be in several flowtables, at least for a moment: when a ruleset replaces itself in
//! one transaction, the new flowtable is bound before the old one is unbound. Most drivers refuse a
//! second binding of a device, so the tables share one.

use crate::net::{
    device::NetDevice,
    flow_block::{BoundBlock, DriverError}, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex}, //
};

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
    block: Arc<BoundBlock>,
    /// How many tables use it.
    users: usize,
}

impl Registry {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            bound <- new_mutex!(KVec::new()),
        })
    }

    /// The block of `dev`, whose driver is bound if it is not yet.
    fn bind(&self, dev: &NetDevice) -> Result<Arc<BoundBlock>, DriverError> {
        let mut bound = self.bound.lock();

        if let Some(binding) = bound.iter_mut().find(|b| b.block.is_for(dev)) {
            binding.users += 1;
            return Ok(binding.block.clone());
        }

        bound.reserve(1, GFP_KERNEL)?;
        let block = BoundBlock::bind(dev)?;
        if block.is_empty() {
            pr_warn!(
                "{}: the driver takes no rules from flowtables; its flows stay in software\n",
                dev.name()
            );
        }
        bound.push(
            Binding {
                block: block.clone(),
                users: 1,
            },
            GFP_KERNEL,
        )?;
        Ok(block)
    }

    /// Undoes a [`Self::bind`]. The caller has dropped the block that it got from there.
    fn unbind(&self, dev: &NetDevice) {
        self.bound.lock().retain(|binding| {
            if binding.block.is_for(dev) {
                binding.users -= 1;
            }
            binding.users > 0
        });
    }
}

/// The devices that take rules for one flowtable.
pub(crate) struct Devices {
    registry: Arc<Registry>,
    blocks: KVec<Arc<BoundBlock>>,
}

impl Devices {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            blocks: KVec::new(),
        }
    }

    /// Binds the driver of `dev`. Fails with the driver's error, or `ENOMEM`.
    pub(super) fn bind(&mut self, dev: &NetDevice) -> Result<(), DriverError> {
        self.blocks.reserve(1, GFP_KERNEL)?;
        let block = self.registry.bind(dev)?;
        self.blocks.push(block, GFP_KERNEL)?;
        Ok(())
    }

    /// Unbinds the driver of `dev`, if it is bound for this table. The table's rules are gone
    /// already.
    pub(super) fn unbind(&mut self, dev: &NetDevice) {
        let before = self.blocks.len();
        self.blocks.retain(|block| !block.is_for(dev));

        if self.blocks.len() < before {
            self.registry.unbind(dev);
        }
    }

    /// The device with index `ifindex`.
    pub(super) fn get(&self, ifindex: u32) -> Option<&BoundBlock> {
        self.blocks
            .iter()
            .find(|block| block.device().ifindex() == ifindex)
            .map(|block| &**block)
    }
}

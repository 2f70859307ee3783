// SPDX-License-Identifier: GPL-2.0

//! The devices that take rules for a flowtable.

use crate::net::{
    device::NetDevice,
    flow_block::{BoundBlock, DriverError}, //
};
use kernel::prelude::*;

/// Devices whose drivers are bound. There are as many as the user wrote into the flowtable, a
/// handful, so that a walk is quicker than anything clever.
#[derive(Default)]
pub(crate) struct Devices(KVec<Pin<KBox<BoundBlock>>>);

impl Devices {
    /// Binds the driver of `dev`. Fails with the driver's error, or `ENOMEM`.
    pub(super) fn bind(&mut self, dev: &NetDevice, priority: i32) -> Result<(), DriverError> {
        self.0.reserve(1, GFP_KERNEL).map_err(DriverError::from)?;
        let bound = BoundBlock::bind(dev, priority)?;

        if bound.is_empty() {
            pr_warn!(
                "{}: the driver takes no rules from flowtables; its flows stay in software\n",
                dev.name()
            );
        }
        self.0.push(bound, GFP_KERNEL).map_err(DriverError::from)
    }

    /// Unbinds the driver of `dev`, if it is bound. Its rules are gone already.
    pub(super) fn unbind(&mut self, dev: &NetDevice) {
        self.0
            .retain(|bound| !core::ptr::eq(bound.device(), dev));
    }

    /// The device with index `ifindex`.
    pub(super) fn get(&self, ifindex: u32) -> Option<&BoundBlock> {
        self.0
            .iter()
            .find(|bound| bound.device().ifindex() == ifindex)
            .map(|bound| &**bound)
    }
}

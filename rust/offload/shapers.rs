// SPDX-License-Identifier: GPL-2.0

//! Qdiscs that shape what devices send, past which hardware sends.

use crate::{
    net::{
        device::{Name, NetDevice},
        log::LogKind,
        namespace::Net, //
    },
    offload::{
        refusal::Cause,
        route::ForwardPath, //
    },
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::Mutex, //
};

/// The qdiscs of a namespace that do more than to queue, as far as flows of flowtables go by them.
///
/// The kernel tells nobody but netlink of another qdisc, so they are looked at: when a flow is to get rules,
/// and then once a second.
#[pin_data]
pub(super) struct Shapers {
    /// Flows by a device with such a qdisc get no rules (parameter `bypass_qdisc`).
    refuses: bool,
    /// Those of which was told last: the device, by its index, and the qdisc.
    #[pin]
    known: Mutex<[Shaper; Self::REMEMBERED]>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Shaper {
    ifindex: u32,
    qdisc: Name,
}

impl Shapers {
    const REMEMBERED: usize = 16;

    pub(super) fn new(bypasses: bool) -> impl PinInit<Self> {
        pin_init!(Self {
            refuses: !bypasses,
            known <- new_mutex!([Shaper::default(); Self::REMEMBERED]),
        })
    }

    /// Tells of the qdiscs of a path. Fails if packets must not be sent past them. Sleeps.
    pub(super) fn check(&self, net: &Net, path: &ForwardPath) -> Result<(), Cause> {
        // The device that sends, and the one that the route leads to: a VLAN device, a session, a bridge.
        let upper = path.has_devices_below().then_some(path.ifindex);
        for ifindex in [Some(path.egress), upper].into_iter().flatten() {
            let Some(dev) = net.device(ifindex) else {
                continue;
            };
            let Some(qdisc) = dev.shaper() else {
                continue;
            };
            let shaper = Shaper { ifindex, qdisc };
            // If may_log() refuses, Shapers tells of the qdisc at the next check.
            if self.is_first(shaper, &dev) {
                pr_warn!(
                    "{}: its qdisc {} does more than to queue, {}\n",
                    dev.name(),
                    shaper.qdisc,
                    if self.refuses {
                        "so that flows by it stay in software (bypass_qdisc=0)"
                    } else {
                        "and hardware sends past it. Load the module with bypass_qdisc=0 to have \
                         flows by such devices in software"
                    }
                );
            }
            if self.refuses {
                return Err(Cause::Shaped(ifindex));
            }
        }
        Ok(())
    }

    fn is_first(&self, shaper: Shaper, dev: &NetDevice) -> bool {
        let mut known = self.known.lock();
        if known.contains(&shaper) || !dev.may_log(LogKind::Rules) {
            return false;
        }
        // Another one of the same device has gone.
        let index = known.iter().position(|old| old.ifindex == shaper.ifindex);
        known[..=index.unwrap_or(Self::REMEMBERED - 1)].rotate_right(1);
        known[0] = shaper;
        true
    }

    /// Forgets those that are not there any more. Returns whether there were any. Sleeps.
    pub(super) fn forget_gone(&self, net: &Net) -> bool {
        let mut known = self.known.lock();
        let mut gone = false;

        for shaper in known.iter_mut().filter(|shaper| shaper.ifindex != 0) {
            let dev = net.device(shaper.ifindex);
            if dev.and_then(|dev| dev.shaper()) != Some(shaper.qdisc) {
                *shaper = Shaper::default();
                gone = true;
            }
        }
        gone
    }
}

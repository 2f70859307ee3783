// SPDX-License-Identifier: GPL-2.0

//! Which devices belong into a flowtable: the kernel makes entries for those only that send and receive
//! the frames, and says nothing about connections that get none because one of them is missing.

use crate::{
    net::{
        device::{NetDevice, Upper},
        log::LogKind,
        namespace::Net,
        route::FlowKey, //
    },
    offload::route::egress,
};
use core::net::IpAddr;
use kernel::{
    fmt,
    new_mutex,
    prelude::*,
    sync::Mutex, //
};

/// Shows what is to be in the flowtable in the place of a device, beginning with a space; nothing for one
/// that is right there.
pub(super) struct Advice<'a>(pub(super) &'a NetDevice);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whose, instead) = match self.0.upper() {
            Some(Upper::Bridge) => ("The ports of the bridge send for it", true),
            Some(Upper::Vlan) => ("The device below the VLAN device sends for it", true),
            Some(Upper::Ppp) => (
                "For PPPoE, put the device below the session there instead",
                false,
            ),
            Some(Upper::Lag) => (
                "Nothing that goes by a bond can be offloaded, nor by its ports",
                false,
            ),
            None => return Ok(()),
        };

        f.write_str(" ")?;
        f.write_str(whose)?;
        if instead {
            let names = self.0.lower_names();
            if names.is_empty() {
                f.write_str(": put that there instead")?;
            } else {
                f.write_str(": put ")?;
                fmt::Display::fmt(&names, f)?;
                f.write_str(" there instead")?;
            }
        }
        f.write_str(".")
    }
}

/// Tells of devices that are missing from the flowtables of a namespace: of each once, until it has been in
/// one.
#[pin_data]
pub(super) struct MissingMembers {
    /// The indices of those of which was told last.
    #[pin]
    told: Mutex<[u32; Self::REMEMBERED]>,
}

impl MissingMembers {
    const REMEMBERED: usize = 32;

    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            told <- new_mutex!([0; Self::REMEMBERED]),
        })
    }

    /// A packet of a connection without an entry was forwarded; see `Event::Forwarded`. If one end of its
    /// way is a member of a flowtable, or stands above what should be one, the other end is missing. Sleeps.
    pub(super) fn check(&self, net: &Net, iif: u32, ifindex: u32, src: IpAddr, dst: IpAddr) {
        let key = |iif, src, dst| FlowKey {
            iif,
            src,
            dst,
            in_dst: dst,
            out_src: src,
            ..FlowKey::NONE
        };
        let ends = [
            (ifindex, egress(net, &key(iif, src, dst), ifindex)),
            (iif, egress(net, &key(ifindex, dst, src), iif)),
        ];
        let is_member = |index: u32| net.device(index).is_some_and(|dev| dev.is_member());
        let is_meant =
            |&(top, bottom): &(u32, Option<u32>)| is_member(top) || bottom.is_some_and(is_member);
        // Whoever has neither end in a flowtable does not mean such connections.
        if !ends.iter().any(is_meant) {
            return;
        }
        for (_, bottom) in ends {
            if let Some(dev) = bottom.and_then(|index| net.device(index)) {
                if !dev.is_member() {
                    self.tell(&dev, src, dst);
                }
            }
        }
    }

    /// A device is in a flowtable now. Sleeps.
    pub(super) fn forget(&self, ifindex: u32) {
        for told in self.told.lock().iter_mut() {
            if *told == ifindex {
                *told = 0;
            }
        }
    }

    fn tell(&self, dev: &NetDevice, src: IpAddr, dst: IpAddr) {
        let ifindex = dev.ifindex();
        let mut told = self.told.lock();
        // If may_log() refuses, MissingMembers tells of the device with the next packet.
        if told.contains(&ifindex) || !dev.may_log(LogKind::Members) {
            return;
        }
        told.rotate_right(1);
        told[0] = ifindex;
        drop(told);

        let what = if dev.upper() == Some(Upper::Lag) {
            "Nothing that goes by a bond can be offloaded; in a flowtable without \"flags offload\", it is \
             in software"
        } else {
            "Add it to the devices of the flowtable, if that is to be offloaded"
        };

        pr_warn!(
            "{}: is in no flowtable, and sends or receives for connections such as from {} to {}. {}\n",
            dev.name(),
            Address(src),
            Address(dst),
            what
        );
    }
}

struct Address(IpAddr);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

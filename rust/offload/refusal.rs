// SPDX-License-Identifier: GPL-2.0

//! Why a flow is not in hardware.

use crate::{
    net::{
        flow_block::{write_errno, DriverError},
        namespace::Net, //
    },
    netfilter::{
        conntrack::Direction,
        flow::Tuple, //
    },
    offload::{backoff::Hope, translate::Unsupported},
};
use kernel::{
    fmt,
    prelude::*,
    sync::atomic::{Atomic, Relaxed}, //
};

/// What stood against one direction of a flow.
#[derive(Clone, Copy)]
pub(super) enum Cause {
    /// The flow is not IP.
    NotIp,
    /// There is no rule for it.
    Unsupported(Unsupported),
    /// Packets come in by a device, given by its index, that takes no rules for this table.
    NotBound(u32),
    /// Packets come in by a device, given by its index, of which `hw-tc-offload` is off.
    SwitchedOff(u32),
    /// The device, given by its index, has a qdisc that does more than to queue.
    Shaped(u32),
    /// The host would not send its packets the way that it was made with.
    RouteMismatch,
    /// The host does not forward its packets, or not in the clear.
    NotForwarded(Error),
    /// As [`Cause::RouteMismatch`] for a route with a tunnel: these are not followed.
    RouteTunnel,
    /// The rule could not be prepared: no memory, or the way out is gone.
    Prepare(Error),
    /// An earlier rule of the flow could not be removed yet.
    StaleRule,
    /// The driver refused the rule.
    Driver(DriverError),
    /// Packets of the way have to be shorter than the device lets them be.
    Mtu,
    /// VLAN tags get a priority that depends on the packet.
    Priority,
    /// The device, given by its index, has no room for more rules.
    NoRoom(u32),
    /// The driver of the device, given by its index, has failed one rule after the other.
    Failing(u32),
}

impl Cause {
    /// Whether the software fast path must not forward the packets either: it would not do what the host
    /// does.
    pub(super) fn needs_host(&self) -> bool {
        matches!(
            self,
            Self::Priority | Self::Unsupported(Unsupported::Priority)
        )
    }

    /// What it means for the next try.
    pub(super) fn hope(&self) -> Hope {
        match self {
            Self::Driver(error) => Hope::of(error.errno),
            Self::Prepare(errno) => Hope::of(*errno),
            Self::NoRoom(_) | Self::Failing(_) => Hope::Room,
            _ => Hope::None,
        }
    }
}

/// The last refusal of a flow.
#[derive(Clone, Copy)]
pub(super) struct Refusal {
    pub(super) dir: Direction,
    pub(super) cause: Cause,
}

/// Writes the name of the device with this index, and then `what`.
fn write_about(f: &mut fmt::Formatter<'_>, net: &Net, ifindex: u32, what: &str) -> fmt::Result {
    match net.device(ifindex) {
        Some(dev) => fmt::Display::fmt(&dev.name(), f)?,
        None => write!(f, "device {ifindex} (gone)")?,
    }
    f.write_str(what)
}

/// Shows a cause in words; device indices as names of `net`.
struct Words<'a>(&'a Cause, &'a Net);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(cause, net) = *self;
        match *cause {
            Cause::NotIp => f.write_str("not IP"),
            Cause::Unsupported(what) => match what {
                Unsupported::Protocol(proto) => write!(f, "protocol {proto} cannot be offloaded"),
                Unsupported::Nat => f.write_str("NAT of this protocol or between address families cannot be offloaded"),
                Unsupported::Encapsulation(proto) => {
                    write!(f, "encapsulation {proto:#06x} cannot be offloaded")
                }
                Unsupported::IngressTag(proto) => {
                    write!(
                        f,
                        "the driver does not match ingress VLAN tags of type {proto:#06x}"
                    )
                }
                Unsupported::VlanRewrite => {
                    f.write_str("the driver cannot replace VLAN tags by another type or number of tags")
                }
                Unsupported::Priority => {
                    f.write_str("the driver does not set the priority of a VLAN tag (egress-qos-map)")
                }
                Unsupported::Tunnel => f.write_str("an IP tunnel ends here"),
                Unsupported::LwTunnel(kind) => {
                    write!(
                        f,
                        "the route's encapsulation of type {kind} cannot be offloaded"
                    )
                }
                Unsupported::TunnelOptions => f.write_str("the route's tunnel has options"),
                Unsupported::Ipsec => f.write_str("IPsec applies"),
                Unsupported::Unresolved => f.write_str("the next hop is not resolved"),
                Unsupported::Xmit => f.write_str("the way out is not Ethernet"),
                Unsupported::TooLong => f.write_str("it needs too many actions"),
            },
            Cause::NotBound(ifindex) => {
                write_about(f, net, ifindex, " takes no rules for this flowtable")
            }
            Cause::SwitchedOff(ifindex) => {
                f.write_str("hw-tc-offload is off (ethtool -K ")?;
                write_about(f, net, ifindex, " hw-tc-offload on)")
            }
            Cause::NoRoom(ifindex) => write_about(f, net, ifindex, " has no room for more rules"),
            Cause::Failing(ifindex) => {
                write_about(f, net, ifindex, " has failed one rule after the other")
            }
            Cause::Mtu => f.write_str(
                "the route or a VLAN or PPPoE device lets packets be less long than the port does",
            ),
            Cause::Priority => f.write_str(
                "a VLAN device gives priorities that depend on the packet (egress-qos-map)",
            ),
            Cause::Shaped(ifindex) => {
                f.write_str("hardware would send past the qdisc of ")?;
                write_about(f, net, ifindex, ", which does more than to queue (bypass_qdisc=0)")
            }
            Cause::RouteTunnel => {
                f.write_str("changes of a route with a tunnel could not be followed")
            }
            Cause::RouteMismatch => f.write_str(
                "the route that it was made with is not found again; if that depends on the \
                 packet's mark, keep the mark in conntrack (ct mark set meta mark) and give it to \
                 the packets of both directions (meta mark set ct mark); if on the device by which \
                 it comes in (ip rule iif), let only packets that come in there make flows (iifname \
                 before flow add)",
            ),
            Cause::NotForwarded(EPERM) => f.write_str("IPsec applies"),
            Cause::NotForwarded(errno) => {
                f.write_str("the host does not forward it: ")?;
                write_errno(f, errno)
            }
            Cause::StaleRule => f.write_str("an earlier rule of it could not be removed yet"),
            Cause::Prepare(errno) => {
                f.write_str("the rule could not be prepared: ")?;
                write_errno(f, errno)
            }
            Cause::Driver(error) => {
                f.write_str("the driver refused the rule: ")?;
                fmt::Display::fmt(&error, f)
            }
        }
    }
}

/// What of a flow is in software.
#[derive(Clone, Copy)]
pub(super) enum InSoftware {
    Both,
    /// The direction of the refusal, and not the other one (parameter `partial`).
    One,
}

/// The messages of a namespace on flows that stay in software: one in a while, so that they do not
/// flood the log.
pub(super) struct RefusalLog {
    /// The least time between two messages, in jiffies.
    interval: u64,
    quiet_until: Atomic<u64>,
    suppressed: Atomic<u64>,
}

impl RefusalLog {
    pub(super) const fn new(interval: u64) -> Self {
        Self {
            interval,
            quiet_until: Atomic::new(0),
            suppressed: Atomic::new(0),
        }
    }

    /// Logs that a flow, given by its original direction, stays in software because of `refusal`,
    /// unless a message was logged lately; then it is counted. `now` is in jiffies. Does not sleep.
    pub(super) fn refused(
        &self,
        now: u64,
        net: &Net,
        flow: Option<&Tuple>,
        refusal: &Refusal,
        what: InSoftware,
    ) {
        if !self.reminded(now, net, flow, refusal, what) {
            self.suppressed.fetch_add(1, Relaxed);
        }
    }

    /// As [`Self::refused`] for a refusal that is found anew with each packet: it is not counted.
    /// Returns whether it was logged.
    pub(super) fn reminded(
        &self,
        now: u64,
        net: &Net,
        flow: Option<&Tuple>,
        refusal: &Refusal,
        what: InSoftware,
    ) -> bool {
        let until = self.quiet_until.load(Relaxed);
        let next = now + self.interval;
        if now < until || self.quiet_until.cmpxchg(until, next, Relaxed).is_err() {
            return false;
        }

        pr_notice!(
            "{} stays in software{}: {} direction: {}{}\n",
            Subject(flow),
            match what {
                InSoftware::Both => "",
                InSoftware::One => " in one direction",
            },
            refusal.dir,
            Words(&refusal.cause, net),
            More(self.suppressed.xchg(0, Relaxed))
        );
        true
    }
}

/// How many refusals were not logged, if any.
struct More(u64);

impl fmt::Display for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            n => write!(f, " ({n} more since the last such message)"),
        }
    }
}

/// A flow by its original direction, if that is known.
struct Subject<'a>(Option<&'a Tuple>);

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(tuple) => fmt::Display::fmt(tuple, f),
            None => f.write_str("a flow"),
        }
    }
}

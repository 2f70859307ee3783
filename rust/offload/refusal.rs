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
    offload::translate::Unsupported,
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
    /// The host would not send its packets the way that it was made with.
    RouteMismatch,
    /// The same for a route with a tunnel: these are not followed.
    RouteTunnel,
    /// The rule could not be prepared: no memory, or the way out is gone.
    Prepare(Error),
    /// An earlier rule of the flow could not be removed yet.
    StaleRule,
    /// The driver refused the rule.
    Driver(DriverError),
}

/// The last refusal of a flow.
#[derive(Clone, Copy)]
pub(super) struct Refusal {
    pub(super) dir: Direction,
    pub(super) cause: Cause,
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
            Cause::NotBound(ifindex) => match net.device(ifindex) {
                Some(dev) => {
                    fmt::Display::fmt(&dev.name(), f)?;
                    f.write_str(" takes no rules for this flowtable")
                }
                None => write!(f, "device {ifindex} is gone"),
            },
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

// SPDX-License-Identifier: GPL-2.0

//! Why a flow is not in hardware.

use crate::{
    compat::param,
    module_parameters,
    net::{
        eopnotsupp,
        flow_block::{write_errno, DriverError},
        namespace::Net, //
    },
    netfilter::flow::{Direction, Tuple},
    offload::translate::Unsupported,
    time::ms, //
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
    Elsewhere,
    /// The same for a route with a tunnel: these are not followed.
    RouteTunnel,
    /// The rule could not be prepared: no memory, or the way out is gone.
    Prepare(Error),
    /// An earlier rule of the flow could not be removed yet.
    Orphan,
    /// The driver refused the rule.
    Driver(DriverError),
}

/// The last refusal of a flow.
#[derive(Clone, Copy)]
pub(super) struct Refusal {
    pub(super) dir: Direction,
    pub(super) cause: Cause,
}

impl Refusal {
    /// What C is told, which throws it away.
    pub(super) fn errno(&self) -> Error {
        match self.cause {
            Cause::NotIp
            | Cause::Unsupported(_)
            | Cause::NotBound(_)
            | Cause::Elsewhere
            | Cause::RouteTunnel => eopnotsupp(),
            Cause::Orphan => EBUSY,
            Cause::Prepare(errno) => errno,
            Cause::Driver(error) => error.errno,
        }
    }
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
                Unsupported::Translation => f.write_str("this translation cannot be offloaded"),
                Unsupported::Encapsulation(proto) => {
                    write!(f, "encapsulation {proto:#06x} cannot be offloaded")
                }
                Unsupported::Unmatched(proto) => {
                    write!(
                        f,
                        "the driver would not look at the tag {proto:#06x} of what comes in"
                    )
                }
                Unsupported::Exchange => {
                    f.write_str("tags are replaced by others of another kind or number")
                }
                Unsupported::Tunnel => f.write_str("an IP tunnel ends here"),
                Unsupported::Lightweight(kind) => {
                    write!(
                        f,
                        "the route's encapsulation of type {kind} cannot be offloaded"
                    )
                }
                Unsupported::TunnelOptions => f.write_str("the route's tunnel has options"),
                Unsupported::Ipsec => f.write_str("IPsec applies"),
                Unsupported::Unresolved => f.write_str("the next hop is not resolved"),
                Unsupported::Path => f.write_str("the way out is not Ethernet"),
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
            Cause::Elsewhere => f.write_str(
                "the route that it was made with is not found again; if that depends on the \
                 packet's mark, keep the mark in conntrack (ct mark set meta mark) and give it to \
                 the packets of both directions (meta mark set ct mark); if on the device by which \
                 it comes in (ip rule iif), let only packets that come in there make flows (iifname \
                 before flow add)",
            ),
            Cause::Orphan => f.write_str("an earlier rule of it could not be removed yet"),
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

/// Tells the kernel log that a flow, given by its original direction, stays in software because of
/// `refusal`, if nothing of the kind was told in the last `report_ms`; else counts it. `now` is in
/// jiffies.
pub(super) fn report(
    now: u64,
    net: &Net,
    flow: Option<&Tuple>,
    refusal: &Refusal,
    what: InSoftware,
) {
    if !remind(now, net, flow, refusal, what) {
        UNTOLD.fetch_add(1, Relaxed);
    }
}

/// How many refusals were not told.
static UNTOLD: Atomic<u64> = Atomic::new(0);

/// As [`report`] for a refusal that is found anew with each packet: it does not count. Returns
/// whether it was told. Does not sleep.
pub(super) fn remind(
    now: u64,
    net: &Net,
    flow: Option<&Tuple>,
    refusal: &Refusal,
    what: InSoftware,
) -> bool {
    static QUIET_UNTIL: Atomic<u64> = Atomic::new(0);

    let until = QUIET_UNTIL.load(Relaxed);
    let next = now + ms(param(module_parameters::report_ms.value()));
    if now < until || QUIET_UNTIL.cmpxchg(until, next, Relaxed).is_err() {
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
        More(UNTOLD.xchg(0, Relaxed))
    );
    true
}

/// How many refusals were not told, if any.
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

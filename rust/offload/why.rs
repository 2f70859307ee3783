// SPDX-License-Identifier: GPL-2.0

//! Reasons as they are kept: each takes 12 bytes.

use crate::{
    net::extack::ExtackMsg,
    offload::{refusal::Cause, translate::Unsupported},
    uapi::{origin, reason}, //
};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    new_spinlock,
    prelude::*,
    sync::SpinLock, //
};

/// Who stands against a direction being in hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Origin {
    Nftables = origin::NFTABLES,
    Kernel = origin::KERNEL,
    Module = origin::MODULE,
    Driver = origin::DRIVER,
}

/// Why a direction is not in hardware. Each is explained in the family's specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reason {
    NoFlag = reason::NO_FLAG,
    NotOffered = reason::NOT_OFFERED,
    NotBound = reason::NOT_BOUND,
    SwitchedOff = reason::SWITCHED_OFF,
    NotIp = reason::NOT_IP,
    Protocol = reason::PROTOCOL,
    Nat = reason::NAT,
    Encapsulation = reason::ENCAPSULATION,
    IngressTag = reason::INGRESS_TAG,
    VlanRewrite = reason::VLAN_REWRITE,
    VlanPriority = reason::VLAN_PRIORITY,
    VaryingPriority = reason::VARYING_PRIORITY,
    Tunnel = reason::TUNNEL,
    LwTunnel = reason::LWTUNNEL,
    TunnelOptions = reason::TUNNEL_OPTIONS,
    Ipsec = reason::IPSEC,
    Unresolved = reason::UNRESOLVED,
    Xmit = reason::XMIT,
    TooLong = reason::TOO_LONG,
    Mtu = reason::MTU,
    Shaped = reason::SHAPED,
    RouteMismatch = reason::ROUTE_MISMATCH,
    RouteTunnel = reason::ROUTE_TUNNEL,
    NotForwarded = reason::NOT_FORWARDED,
    Prepare = reason::PREPARE,
    StaleRule = reason::STALE_RULE,
    Refused = reason::REFUSED,
    NoRoom = reason::NO_ROOM,
    Failing = reason::FAILING,
    OtherDirection = reason::OTHER_DIRECTION,
    Ending = reason::ENDING,
    LeftToHost = reason::LEFT_TO_HOST,
    NewRuleset = reason::NEW_RULESET,
    Pinned = reason::PINNED,
}

impl Reason {
    /// Who it is; of [`Self::NotBound`] if the device is in the flowtable.
    pub(super) fn origin(self) -> Origin {
        match self {
            Self::NoFlag | Self::NewRuleset => Origin::Nftables,
            Self::NotOffered
            | Self::NotIp
            | Self::Ipsec
            | Self::Tunnel
            | Self::Unresolved
            | Self::Xmit
            | Self::Shaped
            | Self::RouteMismatch
            | Self::NotForwarded
            | Self::SwitchedOff
            | Self::VaryingPriority
            | Self::Ending
            | Self::LeftToHost => Origin::Kernel,
            Self::Protocol
            | Self::Nat
            | Self::Encapsulation
            | Self::LwTunnel
            | Self::TunnelOptions
            | Self::TooLong
            | Self::Mtu
            | Self::RouteTunnel
            | Self::Prepare
            | Self::OtherDirection
            | Self::Pinned => Origin::Module,
            Self::NotBound
            | Self::IngressTag
            | Self::VlanRewrite
            | Self::VlanPriority
            | Self::StaleRule
            | Self::Refused
            | Self::NoRoom
            | Self::Failing => Origin::Driver,
        }
    }
}

/// A reason, and what belongs to it; 0 where nothing does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Why {
    pub(super) reason: Reason,
    /// In [`Words`].
    words: u8,
    pub(super) errno: u16,
    pub(super) detail: u16,
    pub(super) ifindex: u32,
}

kernel::build_assert::static_assert!(size_of::<Option<Why>>() == 12);

impl Why {
    /// A reason to which nothing belongs.
    pub(super) const fn new(reason: Reason) -> Self {
        Self {
            reason,
            words: 0,
            errno: 0,
            detail: 0,
            ifindex: 0,
        }
    }

    fn about(reason: Reason, ifindex: u32) -> Self {
        Self {
            ifindex,
            ..Self::new(reason)
        }
    }

    fn of_errno(reason: Reason, errno: Error) -> Self {
        Self {
            errno: errno.to_errno().unsigned_abs() as u16,
            ..Self::new(reason)
        }
    }

    fn detailed(reason: Reason, detail: u16) -> Self {
        Self {
            detail,
            ..Self::new(reason)
        }
    }

    /// The host does not forward the packets, or not in the clear.
    pub(super) fn of_not_forwarded(errno: Error) -> Self {
        match errno {
            EPERM => Self::new(Reason::Ipsec),
            errno => Self::of_errno(Reason::NotForwarded, errno),
        }
    }

    /// Keeps a cause; a driver's words in `words`. `ifindex` is that of the device by which packets come
    /// in. Sleeps.
    pub(super) fn of(cause: &Cause, ifindex: u32, words: &Words) -> Self {
        match *cause {
            Cause::NotIp => Self::new(Reason::NotIp),
            Cause::Unsupported(what) => match what {
                Unsupported::Protocol(proto) => Self::detailed(Reason::Protocol, proto.into()),
                Unsupported::Nat => Self::new(Reason::Nat),
                Unsupported::Encapsulation(proto) => Self::detailed(Reason::Encapsulation, proto),
                Unsupported::IngressTag(proto) => Self::detailed(Reason::IngressTag, proto),
                Unsupported::VlanRewrite => Self::new(Reason::VlanRewrite),
                Unsupported::Priority => Self::new(Reason::VlanPriority),
                Unsupported::Tunnel => Self::new(Reason::Tunnel),
                Unsupported::LwTunnel(kind) => Self::detailed(Reason::LwTunnel, kind),
                Unsupported::TunnelOptions => Self::new(Reason::TunnelOptions),
                Unsupported::Ipsec => Self::new(Reason::Ipsec),
                Unsupported::Unresolved => Self::new(Reason::Unresolved),
                Unsupported::Xmit => Self::new(Reason::Xmit),
                Unsupported::TooLong => Self::new(Reason::TooLong),
            },
            Cause::NotBound(ifindex) => Self::about(Reason::NotBound, ifindex),
            Cause::SwitchedOff(ifindex) => Self::about(Reason::SwitchedOff, ifindex),
            Cause::Shaped(ifindex) => Self::about(Reason::Shaped, ifindex),
            Cause::RouteMismatch => Self::new(Reason::RouteMismatch),
            Cause::NotForwarded(errno) => Self::of_not_forwarded(errno),
            Cause::RouteTunnel => Self::new(Reason::RouteTunnel),
            Cause::Prepare(errno) => Self::of_errno(Reason::Prepare, errno),
            Cause::StaleRule => Self::new(Reason::StaleRule),
            Cause::Driver(error) => Self {
                words: words.keep(&error.msg),
                ifindex,
                ..Self::of_errno(Reason::Refused, error.errno)
            },
            Cause::Mtu => Self::new(Reason::Mtu),
            Cause::Priority => Self::new(Reason::VaryingPriority),
            Cause::NoRoom(ifindex) => Self::about(Reason::NoRoom, ifindex),
            Cause::Failing(ifindex) => Self::about(Reason::Failing, ifindex),
        }
    }

    /// Returns what the driver said, if it said anything and that was kept.
    pub(super) fn words(&self, words: &Words) -> Option<ExtackMsg> {
        words.get(self.words)
    }
}

/// What drivers have said in a namespace. They say few different things, of which each is kept once.
#[pin_data]
pub(super) struct Words {
    #[pin]
    kept: SpinLock<KVec<ExtackMsg>>,
}

impl Words {
    /// More are not kept.
    const MAX: usize = u8::MAX as usize;

    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            kept <- new_spinlock!(KVec::new()),
        })
    }

    /// Keeps a message; returns its number, or 0 if there is none, no room or no memory. Sleeps.
    fn keep(&self, msg: &ExtackMsg) -> u8 {
        if msg.is_empty() {
            return 0;
        }
        let find = |kept: &KVec<ExtackMsg>| kept.iter().position(|kept| kept == msg);
        loop {
            let kept = self.kept.lock();
            let len = kept.len();
            match find(&kept) {
                Some(index) => return index as u8 + 1,
                None if len >= Self::MAX => return 0,
                None => {}
            }
            drop(kept);

            // Allocated without the lock, in which they change places.
            let Ok(mut more) = KVec::with_capacity(len + 1, GFP_KERNEL_ACCOUNT) else {
                return 0;
            };
            let mut kept = self.kept.lock();
            if kept.len() == len {
                let all = Iterator::chain(kept.iter(), core::iter::once(msg));
                if all
                    .copied()
                    .all(|msg| more.push_within_capacity(msg).is_ok())
                {
                    core::mem::swap(&mut *kept, &mut more);
                }
                drop(kept);
                return len as u8 + 1;
            }
        }
    }

    fn get(&self, number: u8) -> Option<ExtackMsg> {
        let index = usize::from(number).checked_sub(1)?;
        self.kept.lock().get(index).copied()
    }
}

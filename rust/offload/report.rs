// SPDX-License-Identifier: GPL-2.0

//! What others are told of a flow.

use crate::{
    net::{
        flow_rule::{Addresses, Ports, IPPROTO_GRE},
        namespace::Net,
        netlink::Attrs,
        route::Marks, //
    },
    netfilter::{
        conntrack::{Conntrack, Direction},
        flow::{Encap, Flow, FlowOffload, Xmit, ENCAP_MAX},
        known::KnownTable, //
    },
    offload::{
        flow_counters::Counters,
        index::Path,
        left::LeftFlow,
        monitor::Monitor,
        table::Table,
        why::{Origin, Reason, Why}, //
    },
    time::{jiffies64, to_ms},
    uapi, //
};
use core::net::IpAddr;
use kernel::{
    prelude::*,
    str::CStr,
    sync::{aref::ARef, Arc}, //
};

/// Where a direction is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    #[default]
    Software = uapi::flow_state::SOFTWARE,
    Queued = uapi::flow_state::QUEUED,
    Hardware = uapi::flow_state::HARDWARE,
    Withdrawing = uapi::flow_state::WITHDRAWING,
    Stale = uapi::flow_state::STALE,
    Left = uapi::flow_state::LEFT,
}

/// A direction.
#[derive(Clone, Copy, Default)]
pub(super) struct DirReport {
    pub(super) state: State,
    /// In jiffies.
    pub(super) since: Option<u64>,
    whys: [Option<Why>; 4],
}

impl DirReport {
    /// Adds a reason, once. (There are never more than there is room for.)
    pub(super) fn add(&mut self, why: Why) {
        if self.whys().any(|known| known.reason == why.reason) {
            return;
        }
        if let Some(free) = self.whys.iter_mut().find(|why| why.is_none()) {
            *free = Some(why);
        }
    }

    pub(super) fn whys(&self) -> impl Iterator<Item = &Why> + Clone {
        self.whys.iter().flatten()
    }
}

/// What the hardware side knows of an entry.
#[derive(Clone, Copy, Default)]
pub(super) struct HwReport {
    pub(super) dirs: [DirReport; 2],
    pub(super) marks: [Marks; 2],
    /// The marks are those by which its route was found.
    pub(super) is_routed: bool,
    pub(super) offers: u32,
    /// What the rules have forwarded, if the driver says that.
    pub(super) counters: Option<[Counters; 2]>,
    /// How many jiffies ago, if hardware has it.
    pub(super) last_use: Option<u64>,
}

/// Which flows are asked for. All conditions have to be true.
#[derive(Clone, Copy, Default)]
pub(super) struct Filter {
    pub(super) ifindex: Option<u32>,
    pub(super) state: Option<u32>,
    pub(super) reason: Option<u32>,
    pub(super) prefix: Option<(IpAddr, u8)>,
    pub(super) port: Option<u16>,
    pub(super) l4proto: Option<u8>,
}

fn has_prefix(addr: IpAddr, (prefix, len): (IpAddr, u8)) -> bool {
    match (addr, prefix) {
        (IpAddr::V4(addr), IpAddr::V4(prefix)) => {
            let diff = u32::from(addr) ^ u32::from(prefix);
            diff.leading_zeros() >= len.into()
        }
        (IpAddr::V6(addr), IpAddr::V6(prefix)) => {
            let diff = u128::from(addr) ^ u128::from(prefix);
            diff.leading_zeros() >= len.into()
        }
        _ => false,
    }
}

/// Packets of a direction as they come in.
pub(super) type Packets = (Addresses, Ports, u8);

impl Filter {
    fn takes_packets(&self, (addresses, ports, l4proto): &Packets) -> bool {
        let is_prefix = |prefix| {
            [addresses.src(), addresses.dst()]
                .into_iter()
                .any(|addr| has_prefix(addr, prefix))
        };

        self.l4proto.is_none_or(|proto| proto == *l4proto)
            && self
                .port
                .is_none_or(|port| ports.src == port || ports.dst == port)
            && self.prefix.is_none_or(is_prefix)
    }

    /// Returns whether packets of either direction are asked for. One direction has to be what is asked for
    /// in one respect, and another one may be it in another.
    fn takes_any(&self, packets: &[Packets; 2]) -> bool {
        let any = |filter: Self| packets.iter().any(|packets| filter.takes_packets(packets));

        any(Self {
            l4proto: self.l4proto,
            ..Self::default()
        }) && any(Self {
            port: self.port,
            ..Self::default()
        }) && any(Self {
            prefix: self.prefix,
            ..Self::default()
        })
    }

    /// Returns whether a flow is asked for, as far as its entry says. Called under `rcu_read_lock()`.
    pub(super) fn takes_entry(&self, entry: &FlowOffload) -> bool {
        if !self.ifindex.is_none_or(|ifindex| {
            Direction::BOTH
                .iter()
                .any(|&dir| entry.iifidx(dir) == ifindex)
        }) {
            return false;
        }
        if self.l4proto.is_none() && self.port.is_none() && self.prefix.is_none() {
            return true;
        }
        let packets = |dir| {
            let tuple = entry.describe_packets(dir)?;
            Some((tuple.addresses, tuple.ports, tuple.l4proto))
        };
        match (packets(Direction::Original), packets(Direction::Reply)) {
            (Some(original), Some(reply)) => self.takes_any(&[original, reply]),
            _ => false,
        }
    }

    /// The same for a connection that is left to the host.
    pub(super) fn takes_left(&self, conntrack: &Conntrack) -> bool {
        let [original, reply] = Direction::BOTH.map(|dir| conntrack.packets(dir));
        let (Some(original), Some(reply)) = (original, reply) else {
            return false;
        };
        self.ifindex.is_none() && self.takes_any(&[original, reply])
    }

    /// Returns whether a flow is asked for, as far as its directions say.
    pub(super) fn takes_dirs(&self, dirs: &[DirReport; 2]) -> bool {
        let is_state = |state| dirs.iter().any(|dir| dir.state as u32 == state);
        let has_reason = |reason| {
            dirs.iter()
                .flat_map(DirReport::whys)
                .any(|why| why.reason as u32 == reason)
        };

        self.state.is_none_or(is_state) && self.reason.is_none_or(has_reason)
    }
}

/// A flow that is named by its packets.
#[derive(Clone, Copy)]
pub(super) struct Named {
    pub(super) packets: Packets,
    pub(super) zone: Option<u16>,
}

impl Named {
    /// Returns whether a direction of an entry has these packets. Called under `rcu_read_lock()`.
    pub(super) fn is_entry(&self, entry: &FlowOffload) -> bool {
        Direction::BOTH.into_iter().any(|dir| {
            entry
                .describe_packets(dir)
                .is_some_and(|tuple| self.packets == (tuple.addresses, tuple.ports, tuple.l4proto))
        })
    }

    pub(super) fn is_in_zone(&self, conntrack: &Conntrack) -> bool {
        self.zone.is_none_or(|zone| zone == conntrack.zone())
    }

    pub(super) fn is_left(&self, conntrack: &Conntrack) -> bool {
        let mut packets = Direction::BOTH
            .into_iter()
            .map(|dir| conntrack.packets(dir));
        self.is_in_zone(conntrack) && packets.any(|packets| packets == Some(self.packets))
    }
}

/// An entry as it was seen, without a reference to it.
pub(super) struct Seen {
    flow: Flow,
    pub(super) address: usize,
    pub(super) conntrack: ARef<Conntrack>,
    /// By which its flow is found, if it has one.
    pub(super) hash: Option<u64>,
    is_leaving: bool,
    is_left_to_host: [bool; 2],
    /// When a packet was last seen by the fast path, so many jiffies ago.
    idle: u64,
}

impl Seen {
    /// Looks at an entry. `None` if it is about to be freed. Called under `rcu_read_lock()`.
    pub(super) fn new(net: &Net, entry: &FlowOffload) -> Option<Self> {
        let conntrack = entry.get_conntrack()?;
        let mut flow = Flow::new();
        entry.describe(net, &mut flow)?;
        let now = jiffies64() as u32;
        let last = entry.expires().wrapping_sub(entry.lifetime() as u32);

        Some(Self {
            flow,
            address: entry.address(),
            conntrack,
            hash: (entry.is_for_hardware() && entry.is_offered())
                .then(|| entry.tuple_hash(Direction::Original)),
            is_leaving: entry.is_leaving(),
            is_left_to_host: Direction::BOTH.map(|dir| entry.is_left_to_host(dir)),
            idle: (now.wrapping_sub(last) as i32).max(0) as u64,
        })
    }

    /// Finds out what is known of the flow beyond its entry. Sleeps.
    pub(super) fn into_report(
        self,
        monitor: Option<&Monitor>,
        table: Option<&Table>,
        is_offload: bool,
    ) -> FlowReport {
        let found = self
            .hash
            .and_then(|hash| monitor?.flows().get(hash))
            .and_then(|flow| Some((flow.report(self.address)?, flow)));
        let paths = found
            .as_ref()
            .and_then(|(_, flow)| monitor?.index().paths_of(flow));
        let is_known = found.is_some();
        let mut hw = found.map(|(report, _)| report).unwrap_or_default();

        for dir in Direction::BOTH {
            let to = &mut hw.dirs[dir as usize];
            if to.state == State::Hardware {
                continue;
            }
            if !is_offload {
                to.add(Why::new(Reason::NoFlag));
            } else if self.is_leaving {
                to.add(Why::new(Reason::Ending));
            } else if !is_known {
                to.add(Why::new(Reason::NotOffered));
            }
            if self.is_left_to_host[dir as usize] {
                to.add(Why::new(Reason::LeftToHost));
            }
        }
        let origin_of_not_bound = |why: &Why| match table {
            Some(table) if table.has_joined(why.ifindex) => Origin::Driver,
            _ => Origin::Nftables,
        };
        let origins = [0, 1].map(|dir| {
            let not_bound = hw.dirs[dir]
                .whys()
                .find(|why| why.reason == Reason::NotBound);
            not_bound.map_or(Origin::Driver, origin_of_not_bound)
        });
        FlowReport {
            seen: self,
            hw,
            is_known,
            paths,
            origins,
        }
    }
}

/// All that is told of an entry.
pub(super) struct FlowReport {
    seen: Seen,
    pub(super) hw: HwReport,
    /// The hardware side knows it.
    is_known: bool,
    paths: Option<[Arc<Path>; 2]>,
    /// Who it is, for [`Reason::NotBound`] of each direction.
    origins: [Origin; 2],
}

/// Returns who stands against a direction.
fn origin(why: &Why, not_bound: Origin) -> Origin {
    match why.reason {
        Reason::NotBound => not_bound,
        reason => reason.origin(),
    }
}

fn put_packets(attrs: &mut Attrs<'_>, packets: &Packets) -> Result {
    use uapi::tuple::{DPORT, DST, L4PROTO, SPORT, SRC};

    let (addresses, ports, l4proto) = packets;
    attrs.put_u8(L4PROTO, *l4proto)?;
    attrs.put_addr(SRC, addresses.src())?;
    attrs.put_addr(DST, addresses.dst())?;
    if *l4proto != IPPROTO_GRE {
        attrs.put_u16(SPORT, ports.src)?;
        attrs.put_u16(DPORT, ports.dst)?;
    }
    Ok(())
}

fn put_encaps(attrs: &mut Attrs<'_>, kind: u16, encaps: &[Option<Encap>; ENCAP_MAX]) -> Result {
    use uapi::encap::{BY_SWITCH, ID, PROTO};

    encaps.iter().flatten().try_for_each(|encap| {
        attrs.nest(kind, |attrs| {
            attrs.put_u16(PROTO, encap.proto)?;
            attrs.put_u16(ID, encap.id)?;
            attrs.put_flag_if(BY_SWITCH, encap.ingress_vlan)
        })
    })
}

fn put_why(attrs: &mut Attrs<'_>, why: &Why, by: Origin, monitor: Option<&Monitor>) -> Result {
    use uapi::why::{BY, DETAIL, ERRNO, IFINDEX, REASON, WORDS};

    attrs.put_u32(REASON, why.reason as u32)?;
    attrs.put_u32(BY, by as u32)?;
    if why.errno != 0 {
        attrs.put_u32(ERRNO, why.errno.into())?;
    }
    let words = monitor.and_then(|monitor| why.words(monitor.words()));
    if let Some(words) = words.as_ref().and_then(|words| words.as_c_str()) {
        attrs.put_string(WORDS, words)?;
    }
    if why.ifindex != 0 {
        attrs.put_u32(IFINDEX, why.ifindex)?;
    }
    if why.detail != 0 {
        attrs.put_u32(DETAIL, why.detail.into())?;
    }
    Ok(())
}

fn put_connection(attrs: &mut Attrs<'_>, conntrack: &Conntrack, dir: Direction) -> Result {
    use uapi::counters::{BYTES, PACKETS};

    let Some((packets, bytes)) = conntrack.counters(dir) else {
        return Ok(());
    };
    attrs.nest(uapi::direction::CONNECTION, |attrs| {
        attrs.put_uint(PACKETS, packets)?;
        attrs.put_uint(BYTES, bytes)
    })
}

/// Where a flow is: its nftables table and flowtable.
pub(super) struct Whereabouts<'a> {
    pub(super) family: u8,
    /// Of the flowtable, and of the table.
    pub(super) names: [&'a CStr; 2],
    pub(super) counts: bool,
}

impl FlowReport {
    /// No message about a flow is longer: so much room is enough.
    pub(super) const MAX_LEN: usize = 2560;

    /// Returns each reason, and who it is.
    pub(super) fn whys(&self) -> impl Iterator<Item = (Reason, Origin)> + Clone + '_ {
        let dirs = self.hw.dirs.iter().zip(self.origins);
        dirs.flat_map(|(dir, not_bound)| {
            dir.whys()
                .map(move |why| (why.reason, origin(why, not_bound)))
        })
    }

    fn put_route(&self, attrs: &mut Attrs<'_>, dir: Direction) -> Result {
        use uapi::route::{DMAC, DSCP, EGRESS, ENCAP, IFINDEX, MARK, MTU, NEIGHBOUR, SMAC};

        let Some(paths) = &self.paths else {
            return Ok(());
        };
        let path = &paths[dir as usize].forward;
        attrs.nest(uapi::direction::ROUTE, |attrs| {
            attrs.put_u32(IFINDEX, path.ifindex)?;
            attrs.put_addr(NEIGHBOUR, path.neighbour)?;
            attrs.put_u32(EGRESS, path.egress)?;
            attrs.put_bytes(SMAC, &path.smac())?;
            attrs.put_bytes(DMAC, &path.dmac())?;
            put_encaps(attrs, ENCAP, path.encaps())?;
            attrs.put_u32(MTU, path.mtu())?;
            if self.hw.is_routed {
                let marks = &self.hw.marks[dir as usize];
                attrs.put_u32(MARK, marks.mark)?;
                attrs.put_u8(DSCP, marks.dscp)?;
            }
            Ok(())
        })
    }

    fn put_dir(
        &self,
        attrs: &mut Attrs<'_>,
        dir: Direction,
        monitor: Option<&Monitor>,
        counts: bool,
    ) -> Result {
        use uapi::direction::{ENCAP, INGRESS, SINCE, STATE, TUNNEL, TUPLE, WHY, XMIT};

        let tuple = self.seen.flow.tuple(dir);
        let report = &self.hw.dirs[dir as usize];
        let packets = (tuple.addresses, tuple.ports, tuple.l4proto);
        attrs.nest(TUPLE, |attrs| put_packets(attrs, &packets))?;
        attrs.put_u32(INGRESS, tuple.ingress)?;
        put_encaps(attrs, ENCAP, &tuple.encaps)?;
        attrs.put_flag_if(TUNNEL, tuple.tunnel)?;
        attrs.put_u32(
            XMIT,
            match tuple.xmit {
                Xmit::Ethernet { .. } => uapi::xmit::ETHERNET,
                Xmit::Unresolved => uapi::xmit::UNRESOLVED,
                Xmit::Ipsec => uapi::xmit::IPSEC,
                Xmit::Other => uapi::xmit::OTHER,
            },
        )?;
        self.put_route(attrs, dir)?;
        attrs.put_u32(STATE, report.state as u32)?;
        if let Some(since) = report.since {
            attrs.put_uint(SINCE, to_ms(since))?;
        }
        for why in report.whys() {
            let by = origin(why, self.origins[dir as usize]);
            attrs.nest(WHY, |attrs| put_why(attrs, why, by, monitor))?;
        }
        if let Some(counters) = &self.hw.counters {
            let Counters { packets, bytes } = counters[dir as usize];
            attrs.nest(uapi::direction::HARDWARE, |attrs| {
                attrs.put_uint(uapi::counters::PACKETS, packets)?;
                attrs.put_uint(uapi::counters::BYTES, bytes)
            })?;
        }
        if counts {
            put_connection(attrs, &self.seen.conntrack, dir)?;
        }
        Ok(())
    }

    /// Puts all into the nest of a message.
    pub(super) fn put(
        &self,
        attrs: &mut Attrs<'_>,
        monitor: Option<&Monitor>,
        whereabouts: &Whereabouts<'_>,
    ) -> Result {
        use uapi::flow::{
            DNAT, FAMILY, FLOWTABLE, LAST_USE, MARK, OFFERS, ORIGINAL, REPLY, SNAT, TABLE, ZONE,
        };

        let [flowtable, table] = whereabouts.names;
        let counts = whereabouts.counts;
        attrs.put_u8(FAMILY, whereabouts.family)?;
        attrs.put_string(TABLE, table)?;
        attrs.put_string(FLOWTABLE, flowtable)?;
        for (dir, kind) in Direction::BOTH.into_iter().zip([ORIGINAL, REPLY]) {
            attrs.nest(kind, |attrs| self.put_dir(attrs, dir, monitor, counts))?;
        }
        attrs.put_flag_if(SNAT, self.seen.flow.snat)?;
        attrs.put_flag_if(DNAT, self.seen.flow.dnat)?;
        attrs.put_u32(MARK, self.seen.conntrack.mark())?;
        attrs.put_u16(ZONE, self.seen.conntrack.zone())?;
        if self.is_known {
            attrs.put_u32(OFFERS, self.hw.offers)?;
        }
        let idle = self.hw.last_use.unwrap_or(self.seen.idle);
        attrs.put_uint(LAST_USE, to_ms(idle))
    }
}

/// Returns what is told of the directions of a connection that is left to the host.
pub(super) fn dirs_of_left(left: &LeftFlow) -> [DirReport; 2] {
    let mut dirs = [DirReport {
        state: State::Left,
        ..DirReport::default()
    }; 2];
    let (dir, why) = left.why;

    dirs[dir as usize].add(why);
    dirs[dir.reverse() as usize].add(Why::new(Reason::OtherDirection));
    dirs
}

/// Puts a connection that is left to the host into the nest of a message.
pub(super) fn put_left(attrs: &mut Attrs<'_>, left: &LeftFlow, monitor: &Monitor) -> Result {
    use uapi::{
        direction::{STATE, TUPLE, WHY},
        flow::{DNAT, MARK, ORIGINAL, REPLY, SNAT, TIMES_LEFT, ZONE},
    };

    let conntrack = &left.conntrack;
    let dirs = dirs_of_left(left);
    for (dir, kind) in Direction::BOTH.into_iter().zip([ORIGINAL, REPLY]) {
        attrs.nest(kind, |attrs| {
            if let Some(packets) = conntrack.packets(dir) {
                attrs.nest(TUPLE, |attrs| put_packets(attrs, &packets))?;
            }
            let report = &dirs[dir as usize];
            attrs.put_u32(STATE, report.state as u32)?;
            for why in report.whys() {
                let by = why.reason.origin();
                attrs.nest(WHY, |attrs| put_why(attrs, why, by, Some(monitor)))?;
            }
            put_connection(attrs, conntrack, dir)
        })?;
    }
    let [snat, dnat] = conntrack.has_nat();
    attrs.put_flag_if(SNAT, snat)?;
    attrs.put_flag_if(DNAT, dnat)?;
    attrs.put_u32(MARK, conntrack.mark())?;
    attrs.put_u16(ZONE, conntrack.zone())?;
    attrs.put_u32(TIMES_LEFT, left.times)
}

/// A table in which a dump is, as long as it is there.
pub(super) fn with_whereabouts<R>(
    table: &KnownTable,
    f: impl FnOnce(&Whereabouts<'_>) -> R,
) -> Option<R> {
    table.with(|flowtable| {
        f(&Whereabouts {
            family: flowtable.family(),
            names: flowtable.names(),
            counts: flowtable.has_counter(),
        })
    })
}

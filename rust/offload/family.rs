// SPDX-License-Identifier: GPL-2.0

//! The generic netlink family `nft_offload`: what is in hardware, and why not the rest.
//!
//! A request is about the namespace of its socket. What is dumped goes on changing: no lock is held from one
//! message to the next, or while many entries are looked at, and where entries may be missing or come twice, the
//! messages say so. All operations are dumps, also those with one answer: that is looked for when the first
//! message has been read ([`Dump`]).

use crate::{
    net::{
        device::NetDevice,
        flow_block::SetupType,
        flow_rule::{Addresses, Ports},
        namespace::Net,
        netlink::{
            self, Attr, Attrs, Dump, DumpMsgs, Extack, Family, GenlInfo, Nested, NlaPolicy, Op,
            OpFlags,
        },
    },
    netfilter::{
        conntrack::{Conntrack, Direction},
        flow::FlowOffload,
        known::{dump_flags, KnownTable, TableCursor, TableWalk, Walked}, //
    },
    offload::{
        device::{OffloadDevice, Port},
        device_stats::{Errors, Latency},
        hw_flow::HwFlow,
        left::{LeftFlow, LeftFlows, PinEnd},
        monitor::Monitor,
        report::{
            dirs_of_left, put_left, with_whereabouts, Filter, FlowReport, Named, Seen, State,
            Whereabouts,
        },
        table::{Context, Table},
        translate::Dialect,
        why::{Origin, Reason}, //
    },
    time::{jiffies64, ms, to_ms},
    uapi::{self, message},
    work::cond_resched, //
};
use core::net::IpAddr;
use kernel::{
    prelude::*,
    sync::{aref::ARef, Arc}, //
};

/// The family, as long as the value lives.
pub(crate) type Registration = netlink::Registration<Context>;

/// Registers the family. Sleeps; `EEXIST` if there is one of its name.
pub(crate) fn register(
    module: &'static ThisModule,
    context: &Arc<Context>,
) -> Result<Registration> {
    FAMILY.register(module, context.clone())
}

const PERM: OpFlags = OpFlags::UnsAdminPerm;

static FAMILY: Family<Context> = Family::const_new(uapi::FAMILY_NAME, uapi::FAMILY_VERSION, &OPS);

static OPS: [Op<Context>; 9] = [
    Op::dumpit::<Devices>(uapi::cmd::DEVICE_GET, PERM),
    Op::dumpit::<Tables>(uapi::cmd::TABLE_GET, PERM),
    Op::dumpit::<Flows>(uapi::cmd::FLOW_GET, PERM),
    Op::dumpit::<Survey<Totals>>(uapi::cmd::TOTAL_GET, PERM),
    Op::dumpit::<Survey<Reasons>>(uapi::cmd::REASON_GET, PERM),
    Op::dumpit::<Survey<Evict>>(uapi::cmd::EVICT, PERM),
    Op::dumpit::<Survey<FlushDevice>>(uapi::cmd::FLUSH_DEVICE, PERM),
    Op::dumpit::<Survey<Pin>>(uapi::cmd::PIN, PERM),
    Op::dumpit::<Unpin>(uapi::cmd::UNPIN, PERM),
];

/// How many steps a call of a dump makes.
const STEPS: usize = 64;

// --- What requests may say

const FILTER: usize = uapi::filter::MAX as usize + 1;
static FILTER_POLICY: [NlaPolicy; FILTER] = {
    let mut policy = [const { NlaPolicy::NONE }; FILTER];
    policy[uapi::filter::IFINDEX as usize] = NlaPolicy::U32.min(1);
    policy[uapi::filter::STATE as usize] = NlaPolicy::U32.max(uapi::flow_state::LEFT as i16);
    policy[uapi::filter::REASON as usize] = NlaPolicy::U32.max(uapi::reason::MAX as i16);
    policy[uapi::filter::ADDRESS as usize] = NlaPolicy::bytes(16);
    policy[uapi::filter::PREFIX_LEN as usize] = NlaPolicy::U8.max(128);
    policy[uapi::filter::PORT as usize] = NlaPolicy::U16;
    policy[uapi::filter::L4PROTO as usize] = NlaPolicy::U8;
    policy
};

const TUPLE: usize = uapi::tuple::MAX as usize + 1;
static TUPLE_POLICY: [NlaPolicy; TUPLE] = {
    let mut policy = [const { NlaPolicy::NONE }; TUPLE];
    policy[uapi::tuple::L4PROTO as usize] = NlaPolicy::U8;
    policy[uapi::tuple::SRC as usize] = NlaPolicy::bytes(16);
    policy[uapi::tuple::DST as usize] = NlaPolicy::bytes(16);
    policy[uapi::tuple::SPORT as usize] = NlaPolicy::U16;
    policy[uapi::tuple::DPORT as usize] = NlaPolicy::U16;
    policy[uapi::tuple::ZONE as usize] = NlaPolicy::U16;
    policy
};

static WITH_TUPLE: [NlaPolicy; message::TUPLE as usize + 1] = {
    let mut policy = [const { NlaPolicy::NONE }; message::TUPLE as usize + 1];
    policy[message::TUPLE as usize] = NlaPolicy::nested(&TUPLE_POLICY);
    policy
};

static WITH_TUPLE_OR_FILTER: [NlaPolicy; message::FILTER as usize + 1] = {
    let mut policy = [const { NlaPolicy::NONE }; message::FILTER as usize + 1];
    policy[message::TUPLE as usize] = NlaPolicy::nested(&TUPLE_POLICY);
    policy[message::FILTER as usize] = NlaPolicy::nested(&FILTER_POLICY);
    policy
};

static TO_PIN: [NlaPolicy; message::TIMEOUT as usize + 1] = {
    let mut policy = [const { NlaPolicy::NONE }; message::TIMEOUT as usize + 1];
    policy[message::TUPLE as usize] = NlaPolicy::nested(&TUPLE_POLICY);
    policy[message::TIMEOUT as usize] = NlaPolicy::U32.range(1, i16::MAX);
    policy
};

static WITH_IFINDEX: [NlaPolicy; message::IFINDEX as usize + 1] = {
    let mut policy = [const { NlaPolicy::NONE }; message::IFINDEX as usize + 1];
    policy[message::IFINDEX as usize] = NlaPolicy::U32.min(1);
    policy
};

fn read_prefix(
    nest: &Nested<'_, FILTER>,
    addr: Attr<'_>,
    extack: Extack<'_>,
) -> Result<(IpAddr, u8)> {
    let prefix = addr.addr(extack)?;
    let max = if prefix.is_ipv4() { 32 } else { 128 };
    let len = match nest.get(uapi::filter::PREFIX_LEN) {
        Some(attr) => {
            let len = attr.u8()?;
            if len > max {
                return Err(extack.bad(attr, EINVAL, c"an IPv4 prefix has no more than 32 bits"));
            }
            len
        }
        None => max,
    };
    Ok((prefix, len))
}

fn read_filter(info: &GenlInfo<'_>) -> Result<Filter> {
    let Some(attr) = info.attr(message::FILTER) else {
        return Ok(Filter::default());
    };
    let extack = info.extack();
    let nest = attr.nested(&FILTER_POLICY, extack)?;
    let number = |kind| nest.get(kind).map(|attr| attr.u32()).transpose();
    let prefix = match nest.get(uapi::filter::ADDRESS) {
        Some(addr) => Some(read_prefix(&nest, addr, extack)?),
        None => {
            if let Some(attr) = nest.get(uapi::filter::PREFIX_LEN) {
                return Err(extack.bad(attr, EINVAL, c"a prefix needs an address"));
            }
            None
        }
    };

    Ok(Filter {
        ifindex: number(uapi::filter::IFINDEX)?,
        state: number(uapi::filter::STATE)?,
        reason: number(uapi::filter::REASON)?,
        prefix,
        port: nest
            .get(uapi::filter::PORT)
            .map(|attr| attr.u16())
            .transpose()?,
        l4proto: nest
            .get(uapi::filter::L4PROTO)
            .map(|attr| attr.u8())
            .transpose()?,
    })
}

fn read_named(tuple: Attr<'_>, extack: Extack<'_>) -> Result<Named> {
    use uapi::tuple::{DPORT, DST, L4PROTO, SPORT, SRC, ZONE};

    let nest = tuple.nested(&TUPLE_POLICY, extack)?;
    let dst = nest.require(DST, extack)?;
    let src = nest.require(SRC, extack)?.addr(extack)?;
    let addresses = match (src, dst.addr(extack)?) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Addresses::V4 {
            src: src.octets(),
            dst: dst.octets(),
        },
        (IpAddr::V6(src), IpAddr::V6(dst)) => Addresses::V6 {
            src: src.octets(),
            dst: dst.octets(),
        },
        _ => return Err(extack.bad(dst, EINVAL, c"both addresses are of one family")),
    };
    let port = |kind| nest.get(kind).map_or(Ok(0), Attr::u16);
    let ports = Ports {
        src: port(SPORT)?,
        dst: port(DPORT)?,
    };
    Ok(Named {
        packets: (addresses, ports, nest.require(L4PROTO, extack)?.u8()?),
        zone: nest.get(ZONE).map(Attr::u16).transpose()?,
    })
}

// --- Walks

/// What is known of the table in which an entry was found.
struct Where<'a> {
    monitor: Option<&'a Monitor>,
    table: Option<&'a Table>,
    is_offload: bool,
    whereabouts: &'a Whereabouts<'a>,
}

/// A walk through all entries of a namespace, which does not keep the tables.
struct EntryWalk {
    context: Arc<Context>,
    cursor: TableCursor,
    walk: Option<TableWalk>,
    batch: KVec<Seen>,
    order: Order,
    /// How often the walk of this table has begun anew.
    again: u32,
    /// What was told may be incomplete, or have come twice, and that was not said yet.
    is_interrupted: bool,
}

/// What has happened to a walk.
#[derive(PartialEq, Eq)]
enum Step {
    /// There may be more entries in this table.
    Some,
    /// What was seen of this table does not count: it is gone, or its entries come once more, from the first on.
    Again,
    /// There are no more in this table.
    Table,
    /// There are no more.
    All,
}

/// Whether entries may come twice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// If the table is made anew meanwhile.
    Loose,
    /// No: then the walk begins anew, but not for ever.
    Once,
}

impl EntryWalk {
    /// How many entries are looked at, and how many are kept, before others may have the table.
    const SCAN: usize = 512;
    const BATCH: usize = 16;
    /// How often a walk of one table begins anew.
    const AGAIN: u32 = 16;

    fn new(context: &Arc<Context>, order: Order) -> Self {
        Self {
            context: context.clone(),
            cursor: TableCursor::default(),
            walk: None,
            batch: KVec::new(),
            order,
            again: 0,
            is_interrupted: false,
        }
    }

    /// Has the messages say so if entries may be missing or have come twice.
    fn tell(&mut self, msgs: &mut DumpMsgs<'_>) {
        if core::mem::take(&mut self.is_interrupted) {
            msgs.set_interrupted();
        }
    }

    /// Goes to the next table. Returns `false` if there is none. Sleeps.
    fn enter(&mut self, net: &Net) -> Result<bool> {
        self.is_interrupted |= self.cursor.is_adrift();
        let Some((cursor, table)) = self.context.known_tables().next(net, &self.cursor) else {
            return Ok(false);
        };

        self.cursor = cursor;
        self.walk = Some(TableWalk::new(&table)?);
        self.again = 0;
        Ok(true)
    }

    /// Goes on, and calls `f` for up to `max` of those that `takes` is true of, which must not sleep. Sleeps.
    fn step(
        &mut self,
        net: &Net,
        max: usize,
        mut takes: impl FnMut(&FlowOffload) -> bool,
        mut f: impl FnMut(Seen, &Where<'_>) -> Result,
    ) -> Result<Step> {
        self.batch.reserve(Self::BATCH, dump_flags())?;
        if self.walk.is_none() && !self.enter(net)? {
            return Ok(Step::All);
        }
        let Some(walk) = &mut self.walk else {
            return Ok(Step::All);
        };
        let batch = &mut self.batch;
        let max = max.min(Self::BATCH);
        let walked = walk.step(Self::SCAN, |entry| {
            if takes(entry) {
                // There is room for it.
                let seen = Seen::new(net, entry);
                let _ = seen.map(|seen| batch.push_within_capacity(seen));
            }
            batch.len() < max
        });

        let is_anew = matches!(walked, Walked::Anew | Walked::Moved);
        let begins_anew = is_anew && self.order == Order::Once && self.again < Self::AGAIN;
        if begins_anew {
            self.again += 1;
            if walked == Walked::Moved {
                walk.restart();
            }
        } else if is_anew || walked == Walked::Gone {
            self.is_interrupted = true;
        }
        let monitor = self.context.known_monitor(net);
        let monitor = monitor.as_deref().map(|monitor| &**monitor);
        let result = Self::visit(walk.table(), monitor, batch, &mut f);
        batch.clear();
        let step = match walked {
            _ if begins_anew => Step::Again,
            Walked::Some | Walked::Moved => Step::Some,
            Walked::Anew => Step::Again,
            Walked::All => Step::Table,
            Walked::Gone => Step::Again,
        };
        if matches!(walked, Walked::All | Walked::Gone) {
            self.walk = None;
        }
        cond_resched();
        result.map(|()| step)
    }

    /// Calls `f` for those that were kept, if the table is still there.
    fn visit(
        known: &KnownTable,
        monitor: Option<&Monitor>,
        batch: &mut KVec<Seen>,
        f: &mut impl FnMut(Seen, &Where<'_>) -> Result,
    ) -> Result {
        if batch.is_empty() {
            return Ok(());
        }
        let facts = known.with(|flowtable| {
            let table = monitor.and_then(|monitor| monitor.tables().get(flowtable));
            (flowtable.is_offload(), table)
        });
        let Some((is_offload, table)) = facts else {
            return Ok(());
        };
        with_whereabouts(known, |whereabouts| {
            let place = Where {
                monitor,
                table: table.as_deref(),
                is_offload,
                whereabouts,
            };
            batch.drain_all().try_for_each(|seen| f(seen, &place))
        })
        .unwrap_or(Ok(()))
    }
}

impl Where<'_> {
    /// Returns the flow of an entry, if the hardware side has one.
    fn flow(&self, seen: &Seen) -> Option<Arc<HwFlow>> {
        let flow = self.monitor?.flows().get(seen.hash?)?;
        flow.report(seen.address).is_some().then_some(flow)
    }

    fn report(&self, seen: Seen) -> FlowReport {
        seen.into_report(self.monitor, self.table, self.is_offload)
    }
}

/// How many connections that are left to the host are looked at before others may have their list.
const LEFT_BATCH: usize = 16;

/// Calls `f` for connections of a namespace that are left to the host, from `from` on, until it returns
/// `false`. Returns where to go on, if there are more. Sleeps.
fn some_left(
    monitor: &Monitor,
    from: usize,
    max: usize,
    mut f: impl FnMut(&LeftFlow) -> Result,
) -> Result<Option<usize>> {
    let mut batch = KVec::with_capacity(LEFT_BATCH, dump_flags())?;
    let next = monitor.left().some(from, max.min(LEFT_BATCH), |left| {
        let _ = batch.push_within_capacity(left.clone());
    });
    cond_resched();
    batch.iter().try_for_each(&mut f)?;
    Ok(next)
}

// --- Flows

/// All flows of a namespace.
struct Flows {
    walk: EntryWalk,
    filter: Filter,
    named: Option<Named>,
    /// Where to go on among the connections that are left to the host, when all entries are through.
    left: Option<usize>,
}

impl Flows {
    fn dump_entries(&mut self, msgs: &mut DumpMsgs<'_>, net: &Net, max: usize) -> Result<Step> {
        let (filter, named) = (self.filter, self.named);

        let result = self.walk.step(
            net,
            max,
            |entry| filter.takes_entry(entry) && named.is_none_or(|named| named.is_entry(entry)),
            |seen, place| {
                if named.is_some_and(|named| !named.is_in_zone(&seen.conntrack)) {
                    return Ok(());
                }
                let report = place.report(seen);
                if !filter.takes_dirs(&report.hw.dirs) {
                    return Ok(());
                }
                msgs.put(|attrs| {
                    attrs.nest(message::FLOW, |attrs| {
                        report.put(attrs, place.monitor, place.whereabouts)
                    })
                })
            },
        );
        self.walk.tell(msgs);
        result
    }

    /// Returns whether there are more.
    fn dump_left(
        &mut self,
        msgs: &mut DumpMsgs<'_>,
        monitor: &Monitor,
        from: usize,
        max: usize,
    ) -> Result<bool> {
        let (filter, named) = (self.filter, self.named);
        let next = some_left(monitor, from, max, |left| {
            let is_taken = filter.takes_left(&left.conntrack)
                && filter.takes_dirs(&dirs_of_left(left))
                && named.is_none_or(|named| named.is_left(&left.conntrack));
            if !is_taken {
                return Ok(());
            }
            msgs.put(|attrs| attrs.nest(message::FLOW, |attrs| put_left(attrs, left, monitor)))
        })?;
        self.left = next;
        Ok(next.is_some())
    }
}

impl Dump for Flows {
    type Data = Context;
    const POLICY: &'static [NlaPolicy] = &WITH_TUPLE_OR_FILTER;

    fn start(context: &Arc<Context>, info: &GenlInfo<'_>) -> Result<Self> {
        let tuple = info.attr(message::TUPLE);

        Ok(Self {
            walk: EntryWalk::new(context, Order::Loose),
            filter: read_filter(info)?,
            named: tuple
                .map(|tuple| read_named(tuple, info.extack()))
                .transpose()?,
            left: None,
        })
    }

    fn dump(&mut self, msgs: &mut DumpMsgs<'_>, net: &Net) -> Result<bool> {
        for _ in 0..STEPS {
            let max = msgs.room() / FlowReport::MAX_LEN;
            if max == 0 {
                break;
            }
            let Some(from) = self.left else {
                if self.dump_entries(msgs, net, max)? == Step::All {
                    self.left = Some(0);
                }
                continue;
            };
            let Some(monitor) = self.walk.context.known_monitor(net) else {
                return Ok(false);
            };
            if !self.dump_left(msgs, &monitor, from, max)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

// --- What all flows have to be looked at for

/// What is done with the flows of a namespace, of which something is told in the end.
trait Visit: Send + Sized + 'static {
    const POLICY: &'static [NlaPolicy];

    /// Connections that are left to the host are visited, too.
    const LEFT: bool = false;

    /// Reads a request.
    fn new(info: &GenlInfo<'_>) -> Result<Self>;

    /// Before the first visit; sleeps.
    fn begin(&mut self, _msgs: &DumpMsgs<'_>, _context: &Context, _net: &Net) -> Result {
        Ok(())
    }

    /// Returns whether an entry is to be visited. Called under `rcu_read_lock()`.
    fn takes(&self, _entry: &FlowOffload) -> bool {
        true
    }

    /// Visits an entry. Sleeps, but allocates nothing.
    fn visit(&mut self, seen: Seen, place: &Where<'_>);

    /// The table is gone, or its entries are visited once more, from the first on.
    fn again(&mut self) {}

    /// All entries of a table have been visited.
    fn through(&mut self) {}

    /// Visits a connection that is left to the host.
    fn visit_left(&mut self, _left: &LeftFlow) {}

    /// Tells of it, when all have been visited. Returns whether there is more to be told.
    fn tell(&mut self, msgs: &mut DumpMsgs<'_>) -> Result<bool>;
}

/// A [`Visit`] of all flows of a namespace.
struct Survey<V> {
    walk: EntryWalk,
    visit: V,
    at: At,
}

/// How far a survey has come.
#[derive(Clone, Copy)]
enum At {
    Begin,
    Entries,
    Left(usize),
    End,
}

impl<V: Visit> Survey<V> {
    /// Goes on for a step, before the end.
    fn step(&mut self, msgs: &mut DumpMsgs<'_>, net: &Net) -> Result {
        let visit = &mut self.visit;

        self.at = match self.at {
            At::Begin => {
                visit.begin(msgs, &self.walk.context, net)?;
                At::Entries
            }
            At::Entries => {
                let visit = core::cell::RefCell::new(visit);
                let step = self.walk.step(
                    net,
                    EntryWalk::BATCH,
                    |entry| visit.borrow_mut().takes(entry),
                    |seen, place| {
                        visit.borrow_mut().visit(seen, place);
                        Ok(())
                    },
                );
                self.walk.tell(msgs);
                match step? {
                    Step::Some => At::Entries,
                    Step::Again => {
                        visit.borrow_mut().again();
                        At::Entries
                    }
                    Step::Table => {
                        visit.borrow_mut().through();
                        At::Entries
                    }
                    Step::All if V::LEFT => At::Left(0),
                    Step::All => At::End,
                }
            }
            At::Left(from) => {
                let next = match self.walk.context.known_monitor(net) {
                    Some(monitor) => some_left(&monitor, from, LEFT_BATCH, |left| {
                        visit.visit_left(left);
                        Ok(())
                    })?,
                    None => None,
                };
                next.map_or(At::End, At::Left)
            }
            At::End => At::End,
        };
        Ok(())
    }
}

impl<V: Visit> Dump for Survey<V> {
    type Data = Context;
    const POLICY: &'static [NlaPolicy] = V::POLICY;

    fn start(context: &Arc<Context>, info: &GenlInfo<'_>) -> Result<Self> {
        Ok(Self {
            walk: EntryWalk::new(context, Order::Once),
            visit: V::new(info)?,
            at: At::Begin,
        })
    }

    fn dump(&mut self, msgs: &mut DumpMsgs<'_>, net: &Net) -> Result<bool> {
        for _ in 0..STEPS {
            if matches!(self.at, At::End) {
                return self.visit.tell(msgs);
            }
            self.step(msgs, net)?;
        }
        Ok(true)
    }
}

fn put_count(msgs: &mut DumpMsgs<'_>, count: u32) -> Result<bool> {
    msgs.put(|attrs| attrs.put_u32(message::COUNT, count))?;
    Ok(false)
}

/// Tears a flow down, if that has not been done.
struct Evict {
    named: Named,
    count: u32,
}

impl Visit for Evict {
    const POLICY: &'static [NlaPolicy] = &WITH_TUPLE;

    fn new(info: &GenlInfo<'_>) -> Result<Self> {
        let tuple = info.require(message::TUPLE)?;

        Ok(Self {
            named: read_named(tuple, info.extack())?,
            count: 0,
        })
    }

    fn takes(&self, entry: &FlowOffload) -> bool {
        // To tear it down takes its connection.
        let is_named = self.named.is_entry(entry) && !entry.is_leaving();
        let conntrack = match is_named {
            true => entry.get_conntrack(),
            false => None,
        };
        let is_named = conntrack.is_some_and(|conntrack| self.named.is_in_zone(&conntrack));
        if is_named {
            entry.teardown();
        }
        is_named
    }

    fn visit(&mut self, seen: Seen, place: &Where<'_>) {
        // Its rules are not to wait for garbage collection.
        if let Some(flow) = place.flow(&seen) {
            flow.evict();
        }
        self.count += 1;
    }

    fn tell(&mut self, msgs: &mut DumpMsgs<'_>) -> Result<bool> {
        match self.count {
            0 => Err(msgs.extack().err(ENOENT, c"no flowtable has these packets")),
            count => put_count(msgs, count),
        }
    }
}

/// Finds the connection that a request names. Sleeps.
fn find_conntrack(named: &Named, net: &Net, extack: Extack<'_>) -> Result<ARef<Conntrack>> {
    Conntrack::find(net, named.zone.unwrap_or(0), &named.packets)
        .ok_or_else(|| extack.err(ENOENT, c"conntrack has no such connection"))
}

/// Keeps a connection in software.
struct Pin {
    named: Named,
    end: PinEnd,
    conntrack: Option<ARef<Conntrack>>,
    count: u32,
}

impl Visit for Pin {
    const POLICY: &'static [NlaPolicy] = &TO_PIN;

    fn new(info: &GenlInfo<'_>) -> Result<Self> {
        let tuple = info.require(message::TUPLE)?;
        let end = match info.attr(message::TIMEOUT) {
            Some(seconds) => PinEnd::At(jiffies64() + u64::from(seconds.u32()?) * ms(1000)),
            None => PinEnd::SocketClosed(info.snd_portid()),
        };

        Ok(Self {
            named: read_named(tuple, info.extack())?,
            end,
            conntrack: None,
            count: 0,
        })
    }

    fn begin(&mut self, msgs: &DumpMsgs<'_>, context: &Context, net: &Net) -> Result {
        let extack = msgs.extack();
        let monitor = context
            .known_monitor(net)
            .ok_or_else(|| extack.err(ENOENT, c"this namespace has no flowtable"))?;
        let conntrack = find_conntrack(&self.named, net, extack)?;

        // From here on there is no new entry. Those that are there are torn down.
        LeftFlows::pin(monitor.left(), &conntrack, self.end).inspect_err(|&error| {
            if error == ENOSPC {
                extack.err(error, c"too many connections of this namespace are pinned");
            }
        })?;
        self.conntrack = Some(conntrack);
        Ok(())
    }

    fn takes(&self, entry: &FlowOffload) -> bool {
        // To tear it down takes its connection.
        let conntrack = match entry.is_leaving() {
            true => None,
            false => entry.get_conntrack(),
        };
        let is_pinned = matches!((&conntrack, &self.conntrack), (Some(its), Some(own))
            if core::ptr::eq(&**its, &**own));
        if is_pinned {
            entry.teardown();
        }
        is_pinned
    }

    fn visit(&mut self, seen: Seen, place: &Where<'_>) {
        // Its rules are not to wait for garbage collection.
        if let Some(flow) = place.flow(&seen) {
            flow.evict();
        }
        self.count += 1;
    }

    fn tell(&mut self, msgs: &mut DumpMsgs<'_>) -> Result<bool> {
        put_count(msgs, self.count)
    }
}

/// Lets a connection make entries again that was pinned.
struct Unpin {
    context: Arc<Context>,
    named: Named,
}

impl Dump for Unpin {
    type Data = Context;
    const POLICY: &'static [NlaPolicy] = &WITH_TUPLE;

    fn start(context: &Arc<Context>, info: &GenlInfo<'_>) -> Result<Self> {
        let tuple = info.require(message::TUPLE)?;

        Ok(Self {
            context: context.clone(),
            named: read_named(tuple, info.extack())?,
        })
    }

    fn dump(&mut self, msgs: &mut DumpMsgs<'_>, net: &Net) -> Result<bool> {
        let conntrack = find_conntrack(&self.named, net, msgs.extack())?;
        let is_unpinned = self
            .context
            .known_monitor(net)
            .is_some_and(|monitor| monitor.left().unpin(&conntrack));

        match is_unpinned {
            true => put_count(msgs, 1),
            false => Err(msgs.extack().err(ENOENT, c"this connection is not pinned")),
        }
    }
}

/// Takes all rules out of a device.
struct FlushDevice {
    ifindex: u32,
    count: u32,
}

impl Visit for FlushDevice {
    const POLICY: &'static [NlaPolicy] = &WITH_IFINDEX;

    fn new(info: &GenlInfo<'_>) -> Result<Self> {
        Ok(Self {
            ifindex: info.require(message::IFINDEX)?.u32()?,
            count: 0,
        })
    }

    fn begin(&mut self, msgs: &DumpMsgs<'_>, context: &Context, net: &Net) -> Result {
        let has_port = context
            .known_monitor(net)
            .is_some_and(|monitor| monitor.tables().any(|table| table.has_port(self.ifindex)));

        match has_port {
            true => Ok(()),
            false => Err(msgs.extack().err(
                ENODEV,
                c"no flowtable of this namespace has rules in this device",
            )),
        }
    }

    fn takes(&self, entry: &FlowOffload) -> bool {
        let comes_by = |&dir: &Direction| entry.iifidx(dir) == self.ifindex;
        entry.is_for_hardware() && Direction::BOTH.iter().any(comes_by)
    }

    fn visit(&mut self, seen: Seen, place: &Where<'_>) {
        if let Some(flow) = place.flow(&seen) {
            self.count += u32::from(flow.withdraw());
        }
    }

    fn tell(&mut self, msgs: &mut DumpMsgs<'_>) -> Result<bool> {
        put_count(msgs, self.count)
    }
}

/// How many flows there are.
#[derive(Default)]
struct Totals {
    tables: u32,
    total: Total,
    /// Of the table that is being walked through.
    here: Total,
    left: u32,
}

#[derive(Default)]
struct Total {
    flows: u32,
    in_hardware: u32,
    half_in_hardware: u32,
}

impl Visit for Totals {
    const POLICY: &'static [NlaPolicy] = &[];
    const LEFT: bool = true;

    fn new(_info: &GenlInfo<'_>) -> Result<Self> {
        Ok(Self::default())
    }

    fn visit(&mut self, seen: Seen, place: &Where<'_>) {
        let report = place.report(seen);
        let dirs = report.hw.dirs.iter();

        self.here.flows += 1;
        match dirs.filter(|dir| dir.state == State::Hardware).count() {
            2 => self.here.in_hardware += 1,
            1 => self.here.half_in_hardware += 1,
            _ => {}
        }
    }

    fn again(&mut self) {
        self.here = Total::default();
    }

    fn through(&mut self) {
        let here = core::mem::take(&mut self.here);

        self.tables += 1;
        self.total.flows += here.flows;
        self.total.in_hardware += here.in_hardware;
        self.total.half_in_hardware += here.half_in_hardware;
    }

    fn visit_left(&mut self, _left: &LeftFlow) {
        self.left += 1;
    }

    fn tell(&mut self, msgs: &mut DumpMsgs<'_>) -> Result<bool> {
        use uapi::total::{FLOWS, HALF_IN_HARDWARE, IN_HARDWARE, LEFT, TABLES};

        let Total {
            flows,
            in_hardware,
            half_in_hardware,
        } = self.total;
        msgs.put(|attrs| {
            attrs.nest(message::TOTAL, |attrs| {
                attrs.put_u32(TABLES, self.tables)?;
                attrs.put_u32(FLOWS, flows)?;
                attrs.put_u32(IN_HARDWARE, in_hardware)?;
                attrs.put_u32(HALF_IN_HARDWARE, half_in_hardware)?;
                attrs.put_u32(LEFT, self.left)
            })
        })?;
        Ok(false)
    }
}

/// How many flows have each reason, by whom.
struct Reasons {
    counts: ReasonCounts,
    /// Of the table that is being walked through.
    here: ReasonCounts,
    /// The first that was not told.
    next: usize,
}

/// By reason and origin.
type ReasonCounts = [[u32; uapi::origin::DRIVER as usize + 1]; uapi::reason::MAX as usize + 1];

impl Reasons {
    const NONE: ReasonCounts =
        [[0; uapi::origin::DRIVER as usize + 1]; uapi::reason::MAX as usize + 1];

    /// Counts a flow once for each.
    fn add(counts: &mut ReasonCounts, whys: impl Iterator<Item = (Reason, Origin)> + Clone) {
        for (index, (reason, by)) in whys.clone().enumerate() {
            if !whys.clone().take(index).any(|seen| seen == (reason, by)) {
                counts[reason as usize][by as usize] += 1;
            }
        }
    }
}

impl Visit for Reasons {
    const POLICY: &'static [NlaPolicy] = &[];
    const LEFT: bool = true;

    fn new(_info: &GenlInfo<'_>) -> Result<Self> {
        Ok(Self {
            counts: Self::NONE,
            here: Self::NONE,
            next: 0,
        })
    }

    fn visit(&mut self, seen: Seen, place: &Where<'_>) {
        Self::add(&mut self.here, place.report(seen).whys());
    }

    fn again(&mut self) {
        self.here = Self::NONE;
    }

    fn through(&mut self) {
        let here = core::mem::replace(&mut self.here, Self::NONE);
        let counts = self.counts.as_flattened_mut().iter_mut();

        counts
            .zip(here.as_flattened())
            .for_each(|(count, here)| *count += here);
    }

    fn visit_left(&mut self, left: &LeftFlow) {
        let dirs = dirs_of_left(left);
        let whys = dirs.iter().flat_map(|dir| dir.whys());

        Self::add(
            &mut self.counts,
            whys.map(|why| (why.reason, why.reason.origin())),
        );
    }

    fn tell(&mut self, msgs: &mut DumpMsgs<'_>) -> Result<bool> {
        use uapi::reason_count::{BY, FLOWS, REASON};

        const ORIGINS: usize = uapi::origin::DRIVER as usize + 1;
        let mut has_put = false;
        while let Some(&count) = self.counts.as_flattened().get(self.next) {
            if count > 0 {
                let put = msgs.put(|attrs| {
                    attrs.nest(message::REASON_COUNT, |attrs| {
                        attrs.put_u32(REASON, (self.next / ORIGINS) as u32)?;
                        attrs.put_u32(BY, (self.next % ORIGINS) as u32)?;
                        attrs.put_u32(FLOWS, count)
                    })
                });
                if let Err(error) = put {
                    return has_more(error, has_put);
                }
                has_put = true;
            }
            self.next += 1;
        }
        Ok(false)
    }
}

/// A message could not be put. Returns whether to go on in the next call.
fn has_more(error: Error, has_put: bool) -> Result<bool> {
    if error == EMSGSIZE && has_put {
        Ok(true)
    } else {
        Err(error)
    }
}

// --- Flowtables

/// The flowtables of a namespace.
struct Tables {
    context: Arc<Context>,
    cursor: TableCursor,
    /// The device of the next table after which to go on, or 0.
    after: u32,
}

fn put_port(attrs: &mut Attrs<'_>, dev: &NetDevice, port: Option<&Port>) -> Result {
    use uapi::port::{BOUND, IFINDEX, NAME, RULES, STALE_RULES};

    attrs.put_u32(IFINDEX, dev.ifindex())?;
    if let Some(name) = dev.name().as_c_str() {
        attrs.put_string(NAME, name)?;
    }
    let Some(port) = port else {
        return Ok(());
    };
    if port.device().setup_type().is_none() {
        return Ok(());
    }
    let [rules, stale] = port.rules();
    attrs.put_flag(BOUND)?;
    attrs.put_u32(RULES, rules)?;
    attrs.put_u32(STALE_RULES, stale)
}

/// Puts a table with the devices after this one, as many as there is room for. Sets `after` to the last of these,
/// or to 0 if there are no more.
fn put_table(
    attrs: &mut Attrs<'_>,
    known: &KnownTable,
    monitor: Option<&Monitor>,
    after: &mut u32,
) -> Result {
    use uapi::table::{
        CONTINUED, COUNTER, ENTRIES, FAMILY, FLOWTABLE, OFFLOAD, PORT, PRIORITY, TABLE,
    };

    let is_continued = *after > 0;

    let table = known.with(|flowtable| {
        let [name, table] = flowtable.names();
        attrs.put_u8(FAMILY, flowtable.family())?;
        attrs.put_string(TABLE, table)?;
        attrs.put_string(FLOWTABLE, name)?;
        attrs.put_s32(PRIORITY, flowtable.priority())?;
        attrs.put_flag_if(OFFLOAD, flowtable.is_offload())?;
        attrs.put_flag_if(COUNTER, flowtable.has_counter())?;
        attrs.put_u32(ENTRIES, flowtable.entries())?;
        Ok::<_, Error>(monitor.and_then(|monitor| monitor.tables().get(flowtable)))
    });
    let table = table.ok_or(ENOENT)??;
    attrs.put_flag_if(CONTINUED, is_continued)?;
    let mut has_put = false;
    while let Some(table) = &table {
        let next = table.joined_after(*after, |dev, port| {
            let put = attrs.nest(PORT, |attrs| put_port(attrs, dev, port));
            (dev.ifindex(), put)
        });
        match next {
            None => break,
            Some((ifindex, Ok(()))) => *after = ifindex,
            // The next message goes on.
            Some((_, Err(EMSGSIZE))) if has_put => return Ok(()),
            Some((_, Err(error))) => return Err(error),
        }
        has_put = true;
    }
    *after = 0;
    Ok(())
}

impl Dump for Tables {
    type Data = Context;
    const POLICY: &'static [NlaPolicy] = &[];

    fn start(context: &Arc<Context>, _info: &GenlInfo<'_>) -> Result<Self> {
        Ok(Self {
            context: context.clone(),
            cursor: TableCursor::default(),
            after: 0,
        })
    }

    fn dump(&mut self, msgs: &mut DumpMsgs<'_>, net: &Net) -> Result<bool> {
        let mut has_put = false;
        for _ in 0..STEPS {
            if self.cursor.is_adrift() {
                msgs.set_interrupted();
            }
            let Some((cursor, known)) = self.context.known_tables().next(net, &self.cursor) else {
                return Ok(false);
            };
            let monitor = self.context.known_monitor(net);
            let monitor = monitor.as_deref().map(|monitor| &**monitor);
            let mut after = self.after;
            let put = msgs.put(|attrs| {
                attrs.nest(message::TABLE, |attrs| {
                    put_table(attrs, &known, monitor, &mut after)
                })
            });
            match put {
                Ok(()) => {
                    has_put = true;
                    self.after = after;
                    if after > 0 {
                        continue;
                    }
                }
                // It has just gone.
                Err(ENOENT) => self.after = 0,
                Err(error) => return has_more(error, has_put),
            }
            self.cursor = cursor;
        }
        Ok(true)
    }
}

// --- Devices

/// The devices of a namespace.
struct Devices {
    context: Arc<Context>,
    /// Of the last one.
    ifindex: u32,
}

fn put_latency(attrs: &mut Attrs<'_>, kind: u16, latency: &Latency) -> Result {
    use uapi::latency::{COUNT, LONGEST, MEAN, P50, P99};

    let Some(summary) = latency.summary() else {
        return Ok(());
    };
    attrs.nest(kind, |attrs| {
        attrs.put_uint(COUNT, summary.count)?;
        attrs.put_uint(MEAN, summary.mean)?;
        attrs.put_uint(P50, summary.p50)?;
        attrs.put_uint(P99, summary.p99)?;
        attrs.put_uint(LONGEST, summary.longest)
    })
}

fn put_errors(attrs: &mut Attrs<'_>, kind: u16, errors: &Errors) -> Result {
    use uapi::errors::{COUNT, ERRNO};

    errors.iter().try_for_each(|(errno, count)| {
        attrs.nest(kind, |attrs| {
            attrs.put_u32(ERRNO, errno)?;
            attrs.put_uint(COUNT, count)
        })
    })
}

fn put_device(attrs: &mut Attrs<'_>, device: &OffloadDevice) -> Result {
    use uapi::device::*;

    let dev = device.dev();
    let stats = device.stats();
    let room = device.room();
    attrs.put_u32(IFINDEX, dev.ifindex())?;
    if let Some(name) = dev.name().as_c_str() {
        attrs.put_string(NAME, name)?;
    }
    if let Some(setup_type) = device.setup_type() {
        let bind_type = match setup_type {
            SetupType::Ft => uapi::bind_type::FLOWTABLE,
            SetupType::Block => uapi::bind_type::TC,
            SetupType::Indirect => uapi::bind_type::INDIRECT,
        };
        attrs.put_u32(BIND_TYPE, bind_type)?;
    }
    if let Some(dialect) = device.dialect() {
        let dialect = match dialect {
            Dialect::Tc => uapi::dialect::TC,
            Dialect::Router => uapi::dialect::ROUTER,
        };
        attrs.put_u32(DIALECT, dialect)?;
    }
    attrs.put_flag_if(SWITCHED_OFF, dev.is_switched_off())?;
    let [withdrawals, adds, polls, stale] = device.queued();
    attrs.put_u32(RULES, stats.rules())?;
    attrs.put_u32(RULES_MAX, stats.rules_max())?;
    attrs.put_u32(STALE_RULES, stale)?;
    if let Some(jiffies) = room.tight_for(jiffies64()) {
        attrs.put_uint(FULL_FOR, to_ms(jiffies))?;
        attrs.put_flag_if(FAILING, room.is_failing())?;
    }
    attrs.put_u32(QUEUED_ADDS, adds)?;
    attrs.put_u32(QUEUED_WITHDRAWALS, withdrawals)?;
    attrs.put_u32(QUEUED_POLLS, polls)?;
    put_latency(attrs, ADD_LATENCY, &stats.adds)?;
    put_latency(attrs, WITHDRAW_LATENCY, &stats.withdrawals)?;
    put_errors(attrs, ADD_ERRORS, &stats.add_errors)?;
    put_errors(attrs, WITHDRAW_ERRORS, &stats.withdraw_errors)?;
    if stats.lost_rules() > 0 {
        attrs.put_uint(LOST_RULES, stats.lost_rules())?;
    }
    if let Some((packets, bytes)) = stats.counters() {
        attrs.nest(FORWARDED, |attrs| {
            attrs.put_uint(uapi::counters::PACKETS, packets)?;
            attrs.put_uint(uapi::counters::BYTES, bytes)
        })?;
    }
    Ok(())
}

impl Dump for Devices {
    type Data = Context;
    const POLICY: &'static [NlaPolicy] = &[];

    fn start(context: &Arc<Context>, _info: &GenlInfo<'_>) -> Result<Self> {
        Ok(Self {
            context: context.clone(),
            ifindex: 0,
        })
    }

    fn dump(&mut self, msgs: &mut DumpMsgs<'_>, net: &Net) -> Result<bool> {
        let mut has_put = false;
        for _ in 0..STEPS {
            let Some(device) = self.context.devices().after(net, self.ifindex) else {
                return Ok(false);
            };
            let put =
                msgs.put(|attrs| attrs.nest(message::DEVICE, |attrs| put_device(attrs, &device)));
            if let Err(error) = put {
                return has_more(error, has_put);
            }
            self.ifindex = device.dev().ifindex();
            has_put = true;
        }
        Ok(true)
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The hardware side of a flowtable: which flows get rules, and when.
//!
//! C offers the two directions of a flow one after the other, in one go. The original direction is
//! held back, and with the reply direction both are installed or neither, unless the parameter
//! `partial` says that half a flow is good enough.

use crate::{
    compat::param,
    module_parameters,
    net::{
        device::NetDevice,
        flow_block::FlowStats,
        namespace::Net,
        rtnl::Rtnl, //
    },
    netfilter::{
        flow::{Direction, Flow, FlowOffload},
        flowtable::Flowtable,
        flowtable_type::Offload,
        tables::Access, //
    },
    offload::{
        aging,
        devices::Devices,
        doubts::Doubts,
        index::{Index, Prefix},
        record::{Record, State},
        refusal::{remind, report, Cause, InSoftware, Refusal},
        rules::{Lost, Rules},
        translate::Unsupported,
        truth::{Context, What},
        way::{Way, Ways}, //
    },
    ratelimit::pr_warn_ratelimited,
    time::{jiffies64, ms}, //
};
use core::net::IpAddr;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, //
    },
    xarray::{AllocKind, XArray}, //
};

/// The flows that C has offered for one flowtable.
#[pin_data]
pub(crate) struct Table {
    /// By [`FlowOffload::key`].
    #[pin]
    flows: XArray<Arc<Record>>,
    #[pin]
    index: Index,
    /// How often a device of the table or a way has changed.
    changes: Atomic<u64>,
    doubts: Doubts,
    /// When a change has last evicted a flow, in jiffies.
    changed: Atomic<u64>,
}

/// The directions that C asks for.
fn directions(flow: &FlowOffload) -> &'static [Direction] {
    if flow.is_bidirectional() {
        &Direction::BOTH
    } else {
        &[Direction::Original]
    }
}

/// Whether one direction may be in hardware without the other.
fn keeps_partial() -> bool {
    param::<u8>(module_parameters::partial.value()) != 0
}

impl Table {
    fn record(&self, flow: &FlowOffload) -> Option<Arc<Record>> {
        self.flows.lock().get(flow.key()).map(Arc::from)
    }

    /// The record of `flow`, which is made if there is none. No two requests for a flow run at a
    /// time, so nobody else makes it meanwhile.
    fn record_or_new(
        &self,
        table: &Flowtable,
        devices: &Devices,
        flow: &FlowOffload,
    ) -> Result<Arc<Record>> {
        if let Some(record) = self.record(flow) {
            if core::ptr::eq(record.conntrack(), flow.conntrack()) {
                return Ok(record);
            }
            // Of a flow that was here before and is gone without a DESTROY. C promises one; if it
            // ever fails to keep that, the new flow must not inherit anything.
            self.withdraw(table, devices, &record);
        }

        let record = Record::new(flow)?;
        self.flows
            .lock()
            .store(flow.key(), record.clone(), GFP_KERNEL)?;
        Ok(record)
    }

    /// A number that is another one after each change that makes a refusal void.
    fn changes(&self, devices: &Devices) -> u64 {
        devices.changes() + self.changes.load(Relaxed)
    }

    /// Finds the ways of a flow, and has events of these reach it. `Ok(false)` if the host would
    /// send its packets elsewhere.
    fn watch(
        &self,
        net: &Net,
        record: &Arc<Record>,
        state: &mut State,
        flow: &Flow,
    ) -> Result<bool> {
        if state.ways.is_none() {
            let Some(ways) = Ways::find(net, flow, record.conntrack().mark()) else {
                return Ok(false);
            };
            let ways = KBox::new(ways, GFP_KERNEL)?;
            self.index.insert(&ways, record)?;
            state.ways = Some(ways);
        }
        Ok(true)
    }

    /// Takes the rules of a flow out of hardware, and the flow out of the index.
    fn withdraw(&self, table: &Flowtable, devices: &Devices, record: &Record) {
        self.withdraw_locked(record, &mut Rules::new(table, devices, record));
    }

    fn withdraw_locked(&self, record: &Record, rules: &mut Rules<'_>) {
        rules.withdraw();
        if let Some(ways) = rules.state.ways.take() {
            self.index.remove(&ways, record);
        }
    }

    /// Takes the rules of all flows from or to `dev` out of hardware.
    fn withdraw_all_of(&self, table: &Flowtable, devices: &Devices, dev: &NetDevice) {
        // A rule takes packets from the device to which it sends those of the other direction.
        for (way, number) in self.index.ways() {
            if way.egress == dev.ifindex() {
                for record in self.index.flows(number) {
                    Rules::new(table, devices, &record).withdraw();
                }
            }
        }
    }

    /// C takes `[HW_OFFLOAD]` from the connection of a flow that goes, though a newer one may be in
    /// hardware.
    fn say_hw_offload(&self, gone: &Record) {
        if let Some(newer) = self.index.successor(gone) {
            let state = newer.state().lock();
            if !state.is_empty() {
                newer.conntrack().set_hw_offload();
            }
        }
    }

    /// The driver behind `dev` leaves: what it cannot be told now, it cannot be told any more.
    pub(super) fn driver_leaves(&self, table: &Flowtable, devices: &Devices, dev: &NetDevice) {
        if let Some(device) = devices.find(dev) {
            self.withdraw_all_of(table, devices, dev);
            if device.remove_orphans() {
                device.give_up_orphans();
            }
        }
    }

    /// The host would send the packets of a flow another way: no rule may go on with the old one,
    /// nor the entry in software. The caller tears the entry down afterwards: then there may be a new
    /// one for the same packets, which must find no rule of the old one in hardware.
    fn evict_locked(&self, record: &Record, rules: &mut Rules<'_>) {
        rules.state.evicted = true;
        self.withdraw_locked(record, rules);
    }

    fn evict(&self, table: &Flowtable, devices: &Devices, record: &Record) {
        self.changed.store(jiffies64(), Relaxed);
        self.evict_locked(record, &mut Rules::new(table, devices, record));
        table.teardown(record.name());
    }

    /// Whether an entry that is not what the host would make may have been, before something changed.
    fn is_doubtful(&self, record: &Record, state: &State, flow: &FlowOffload, now: u64) -> bool {
        let keeps_addresses = Direction::BOTH.iter().any(|&dir| flow.keeps_addresses(dir));

        let changed = self.changed.load(Relaxed);
        keeps_addresses
            && if state.looked == 0 {
                let second = ms(1000) as u32;
                self.doubts
                    .rejects(record.conntrack(), now, changed, second)
            } else {
                self.is_out_of_date(state)
            }
    }

    /// Whether something has changed since the ways of a flow were looked for in vain, or they have not
    /// been looked for yet.
    fn is_out_of_date(&self, state: &State) -> bool {
        state.ways.is_none() && state.looked <= self.changed.load(Relaxed)
    }

    /// Installs what is missing of `flow`.
    fn install(
        &self,
        table: &Flowtable,
        devices: &Devices,
        record: &Arc<Record>,
        rules: &mut Rules<'_>,
        flow: &FlowOffload,
    ) -> Result {
        let now = jiffies64();
        let described = flow.describe(table.net());
        let result = match &described {
            Some(described) => {
                let watched = self
                    .watch(table.net(), record, &mut rules.state, described)
                    .inspect_err(|_| flow.teardown())?;
                let is_stale = match &rules.state.ways {
                    // What has changed before the index knew the flow can be seen by now.
                    Some(ways) => {
                        self.doubts.forget(record.conntrack());
                        !ways.are_live(table.net())
                    }
                    None => self.is_doubtful(record, &rules.state, flow, now),
                };
                rules.state.looked = now;
                if is_stale {
                    self.evict_locked(record, rules);
                    flow.teardown();
                    return Err(ENOENT);
                }
                Self::install_directions(rules, described, directions(flow), watched)
            }
            None => Err(Refusal {
                dir: Direction::Original,
                cause: Cause::NotIp,
            }),
        };

        let Err(refusal) = result else {
            rules.state.refusal = None;
            rules.state.backoff.reset();
            return Ok(());
        };
        let original = described
            .as_ref()
            .map(|flow| flow.tuple(Direction::Original));
        let what = if rules.state.is_empty() {
            InSoftware::Both
        } else {
            InSoftware::One
        };
        report(now, table.net(), original, &refusal, what);
        rules
            .state
            .backoff
            .refused(now, ms(1000), self.changes(devices));
        rules.state.refusal = KBox::new(refusal, GFP_KERNEL).ok();
        rules.state.outcome()
    }

    fn install_directions(
        rules: &mut Rules<'_>,
        flow: &Flow,
        directions: &[Direction],
        watched: bool,
    ) -> Result<(), Refusal> {
        let mut result = Ok(());
        let partial = keeps_partial();

        // No driver is bothered with one direction if there cannot be a rule for the other.
        if !partial || !watched {
            for &dir in directions {
                rules
                    .check(flow, dir)
                    .map_err(|cause| Refusal { dir, cause })?;
            }
        }
        if !watched {
            let dir = Direction::Original;
            let tunnel = flow.tuples.iter().any(|tuple| tuple.lightweight.is_some());
            let cause = if tunnel {
                Cause::RouteTunnel
            } else {
                Cause::Elsewhere
            };
            return Err(Refusal { dir, cause });
        }
        for &dir in directions {
            if rules.state.rule(dir).is_some() {
                continue;
            }
            if let Err(cause) = rules.install(flow, dir) {
                result = Err(Refusal { dir, cause });
                if !partial {
                    rules.withdraw();
                    break;
                }
            }
        }
        result
    }

    /// C offers the whole of `flow`.
    fn offer(&self, table: &Flowtable, devices: &Devices, flow: &FlowOffload) -> Result {
        if flow.is_leaving() {
            return Err(ENOENT);
        }

        // What cannot be kept an eye on, for lack of memory, must not go on.
        let record = self
            .record_or_new(table, devices, flow)
            .inspect_err(|_| flow.teardown())?;
        // C forgets a flow at once when its connection or its way is gone, and makes a new one for
        // the next packet, but takes its time with the DESTROY of the old one. There is nothing left
        // to tear down of that.
        while let Some(older) = self.index.predecessor(&record) {
            self.evict_locked(&older, &mut Rules::new(table, devices, &older));
        }
        let mut rules = Rules::new(table, devices, &record);

        if rules.state.evicted {
            // It was hidden when it was evicted.
            flow.teardown();
            return Err(ENOENT);
        }
        if !rules.state.is_empty() {
            rules.verify();
        }
        if directions(flow)
            .iter()
            .all(|&dir| rules.state.rule(dir).is_some())
        {
            return Ok(());
        }
        if !self.is_out_of_date(&rules.state)
            && !rules
                .state
                .backoff
                .is_over(jiffies64(), self.changes(devices))
        {
            return rules.state.outcome();
        }
        self.install(table, devices, &record, &mut rules, flow)
    }

    /// Something has changed in the table's namespace: flows whose packets the host would send
    /// another way than before leave. Sleeps; nft has to wait for one flow at most.
    pub(super) fn recheck(&self, access: &Access<'_, Self>, what: What) {
        let table = access.table();
        let net = table.net();
        let evict = |record: &Record| self.evict(table, &access.devices(), record);
        let evict_all = |number| {
            for record in self.index.flows(number) {
                evict(&record);
            }
        };
        // A flow is found once for each direction, and only that one is looked at.
        let recheck_routes = |record: &Record, is_found: &dyn Fn(&Way, IpAddr) -> bool| {
            let ways = record.state().lock().ways.as_deref().copied();
            if ways.is_some_and(|ways| !ways.are_routed(net, is_found)) {
                evict(record);
            }
        };
        let recheck_ways = || {
            for (way, number) in self.index.ways() {
                if !way.is_live(net) {
                    self.changes.fetch_add(1, Relaxed);
                    evict_all(number);
                }
            }
        };

        match what {
            What::Neighbour { ifindex, addr } => {
                let first = self.index.way_from(&Way::first_to(ifindex, addr));
                for (way, number) in
                    core::iter::successors(first, |(way, _)| self.index.way_after(way))
                        .take_while(|(way, _)| way.ifindex == ifindex && way.neighbour == addr)
                {
                    if !way.is_live(net) {
                        evict_all(number);
                    }
                }
            }
            What::Fdb(mac) => {
                for (way, number) in self.index.ways() {
                    if way.leads_to(mac) && !way.is_live(net) {
                        evict_all(number);
                    }
                }
            }
            What::Device(ifindex) => {
                if access.devices().get(ifindex).is_some() {
                    self.changes.fetch_add(1, Relaxed);
                }
            }
            What::Devices => recheck_ways(),
            What::Route { addr, len } => {
                for (found, record) in self.index.receivers(Prefix { addr, len }) {
                    recheck_routes(&record, &|_, receiver| receiver == found);
                }
            }
            What::Routes => {
                for (found, number) in self.index.ways() {
                    for record in self.index.flows(number) {
                        recheck_routes(&record, &|way, _| *way == found);
                    }
                }
            }
            What::All => {
                self.changes.fetch_add(1, Relaxed);
                recheck_ways();
                self.recheck(access, What::Routes);
            }
        }
    }
}

impl Offload for Table {
    type Context = Context;
    type Devices = Devices;

    fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            flows <- XArray::new(AllocKind::Alloc),
            index <- Index::new(),
            changes: Atomic::new(0),
            doubts: Doubts::new()?,
            changed: Atomic::new(0),
        })
    }

    fn devices(context: &Arc<Context>) -> Devices {
        Devices::new(context.clone())
    }

    fn bind(&self, _table: &Flowtable, devices: &mut Devices, dev: &NetDevice) -> Result {
        let Err(error) = devices.bind(dev) else {
            return Ok(());
        };
        // With EAGAIN, nftables tries again.
        let tolerated =
            param::<u8>(module_parameters::incapable.value()) != 0 && error.errno() != EAGAIN;
        if error.errno() != EAGAIN {
            pr_warn_ratelimited!(
                "{}: cannot offload, so {}: {}.{}\n",
                dev.name(),
                if tolerated {
                    "its flows stay in software"
                } else if Rtnl::is_held_by_notifier() {
                    "what would put it into a flowtable is refused"
                } else {
                    "the flowtable is refused"
                },
                error,
                if tolerated {
                    ""
                } else {
                    " Take the device or \"flags offload\" out of the flowtable, or load the module \
                     with incapable=1"
                }
            );
        }
        if tolerated {
            Ok(())
        } else {
            Err(error.errno())
        }
    }

    fn unbind(&self, table: &Flowtable, devices: &mut Devices, dev: &NetDevice) {
        // Another hook may have bound the device too; then the rules stay.
        if devices.is_last(dev) {
            self.withdraw_all_of(table, devices, dev);
        }
        devices.unbind(dev);
    }

    fn replace(
        &self,
        table: &Flowtable,
        devices: &Devices,
        flow: &FlowOffload,
        dir: Direction,
    ) -> Result {
        if directions(flow).last() != Some(&dir) {
            // Held back: the answer to the other direction decides.
            return Err(EAGAIN);
        }

        // A device may have left while C was about to set the bit for an earlier answer.
        self.offer(table, devices, flow)
            .inspect_err(|_| flow.conntrack().clear_hw_offload())
    }

    fn destroy(&self, table: &Flowtable, devices: &Devices, flow: &FlowOffload, dir: Direction) {
        if dir != Direction::Original {
            // Done with the original direction, which C always asks for first.
            return;
        }
        let record = self.flows.lock().remove(flow.key());

        if let Some(record) = record {
            self.withdraw(table, devices, &record);
            self.say_hw_offload(&record);
        }
        if flow.is_closing() {
            // All its packets are conntrack's from now on.
            flow.teardown();
        }
    }

    fn led_nowhere(table: &Flowtable, flow: &FlowOffload, dir: Direction) {
        let refusal = Refusal {
            dir,
            cause: Cause::Unsupported(Unsupported::Tunnel),
        };
        remind(
            jiffies64(),
            table.net(),
            flow.describe_packets(Direction::Original).as_ref(),
            &refusal,
            InSoftware::Both,
        );
    }

    fn stats(
        &self,
        table: &Flowtable,
        devices: &Devices,
        flow: &FlowOffload,
        dir: Direction,
    ) -> FlowStats {
        let mut stats = FlowStats::default();
        let mut hit = 0;

        if let Some(record) = self.record(flow) {
            let net = table.net();
            let mut rules = Rules::new(table, devices, &record);
            match rules.poll(dir) {
                Ok(new) => stats = rules.account_excess(dir, new),
                // C offers the flow again as soon as the host sees it.
                Err(Lost) => rules.withdraw_from_lossy(),
            }
            hit = rules.state.hit;

            // Events should have said so, but not all is told.
            let ways = rules.state.ways.as_deref().copied();
            if rules.state.evicted {
                flow.teardown();
            } else if let Some(ways) = ways {
                if !ways.is_live(net, dir) {
                    self.changed.store(jiffies64(), Relaxed);
                    self.evict_locked(&record, &mut rules);
                    flow.teardown();
                } else if stats.packets > 0 {
                    // The host does not send to it, and would forget it.
                    ways.way(dir).use_neighbour(net);
                }
            }
        }

        FlowStats {
            lastused: aging::lastused(jiffies64(), flow.expires(), flow.lifetime(), hit),
            ..stats
        }
    }
}

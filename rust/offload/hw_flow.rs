// SPDX-License-Identifier: GPL-2.0

//! A flow and its rules in hardware: the life of both.
//!
//! ```text
//!            offer                         evict
//!   New ───────────▶ Tracked ───────────────────────▶ Evicted
//!    │                  ▲                                ▲
//!    └─▶ Unrouted ──────┘ (offered again)                │
//!           └────────────────────────────────────────────┘
//! ```
//!
//! Each direction has a rule that is *wanted* or not, and *installed* or not. Whoever changes what is
//! wanted pushes the direction into the queue of its device, whose work brings what is installed in
//! line with it ([`HwFlow::work`]), one call of the driver after the other. So a flow that ends before
//! its turn costs no call, and a flow whose connection has an older one with rules waits for these to
//! go.

use crate::{
    lanes::{LaneItem, LaneTag},
    net::{
        flow_block::{DriverError, FlowStats, RuleId},
        log::dev_warn_ratelimited,
        namespace::Net, //
    },
    netfilter::{
        attach::{Attached, AttachedGuard, HwObject, Link},
        conntrack::{Conntrack, Direction},
        flow::{Flow, FlowOffload}, //
    },
    offload::{
        aging,
        device::{Lane, Lost, OffloadDevice, Port, RuleDraft},
        flow_hash::Hashed,
        index::{Maps, Place},
        monitor::Monitor,
        refusal::{Cause, InSoftware, Refusal},
        route::{FlowRoute, KnownRoute, MarkUse, Marks},
        table::Table, //
    },
    time::{jiffies64, ms},
    work::cond_resched, //
};
use core::net::IpAddr;
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    list::{
        impl_list_arc_safe,
        impl_list_item,
        AtomicTracker,
        ListLinks,
        TryNewListArc, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        Arc,
        LockedBy, //
    }, //
};

/// A flow that the core has offered, from its first `action` until its rules are gone after its
/// `FLOW_CLS_DESTROY`.
///
#[pin_data]
pub(crate) struct HwFlow {
    /// One for each direction.
    hashes: [u64; 2],
    /// No other flow's.
    id: u64,
    conntrack: ARef<Conntrack>,
    table: Arc<Table>,
    #[pin]
    attached: Attached<State>,
    place: LockedBy<Place, Maps>,
    #[pin]
    original_links: ListLinks<0>,
    #[pin]
    reply_links: ListLinks<1>,
    #[pin]
    original_tracker: AtomicTracker<0>,
    #[pin]
    reply_tracker: AtomicTracker<1>,
    original_tag: LaneTag,
    reply_tag: LaneTag,
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for HwFlow { tracked_by original_tracker: AtomicTracker<0>; }
    impl ListArcSafe<1> for HwFlow { tracked_by reply_tracker: AtomicTracker<1>; }
}
impl_list_item! {
    impl ListItem<0> for HwFlow { using ListLinks { self.original_links }; }
    impl ListItem<1> for HwFlow { using ListLinks { self.reply_links }; }
}

impl LaneItem<0> for HwFlow {
    fn tag(&self) -> &LaneTag {
        &self.original_tag
    }
}

impl LaneItem<1> for HwFlow {
    fn tag(&self) -> &LaneTag {
        &self.reply_tag
    }
}

impl Hashed for HwFlow {
    fn hashes(&self) -> [u64; 2] {
        self.hashes
    }
}

impl HwObject for HwFlow {
    type State = State;

    fn attached(&self) -> &Attached<State> {
        &self.attached
    }
}

/// Where a flow is in its life.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// Its route has not been looked up.
    #[default]
    New,
    /// The host would not send its packets as the entry does.
    Unrouted,
    /// It is in the index, so that events find it.
    Tracked,
    /// The host would send its packets another way than before, or another entry has taken its place:
    /// it gets no rules any more.
    Evicted,
}

/// What is known of the rule of one direction: a set of the flags below.
#[derive(Clone, Copy, Default)]
struct Rule(u8);

/// The rule is to be in hardware.
const WANTED: u8 = 1 << 0;
/// The driver has it.
const INSTALLED: u8 = 1 << 1;
/// The driver is being called for it.
const BUSY: u8 = 1 << 2;
/// The driver is to be asked for its statistics.
const POLL: u8 = 1 << 3;
/// The driver has failed to remove it.
const STALE: u8 = 1 << 4;
/// That is tried again.
const RETRIED: u8 = 1 << 5;

impl Rule {
    fn is(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    /// Returns whether the driver is yet to be asked for the statistics of the rule.
    fn is_asked(self) -> bool {
        const ALL: u8 = WANTED | INSTALLED | POLL;
        self.0 & ALL == ALL
    }

    fn set(&mut self, flag: u8, on: bool) {
        if on {
            self.0 |= flag;
        } else {
            self.0 &= !flag;
        }
    }
}

/// The part of a flow that its lock guards.
#[derive(Default)]
pub(crate) struct State {
    /// The devices that have, or get, the rules.
    ports: [Option<Arc<Port>>; 2],
    rules: [Rule; 2],
    phase: Phase,
    /// So many older flows of the same packets have rules; one more as long as they are looked for.
    waiting: u8,
    /// See [`Marks`].
    mark: u32,
    mark_use: [MarkUse; 2],
    trouble: Option<KBox<Trouble>>,
    /// When a packet was last seen, by hardware or the fast path, in jiffies.
    lastused: u32,
    /// When the driver was last asked for that, in jiffies.
    polled: u32,
    /// What [`HwFlow::gc`] has set as the entry's timeout.
    expires: u32,
}

type Predecessors = [Option<Arc<HwFlow>>; 4];

/// What few flows have.
#[derive(Default)]
struct Trouble {
    /// Newer flows of the same packets, which wait for this one.
    successors: KVec<Arc<HwFlow>>,
    /// Older ones for which this one waits: two of each direction's packets at most, and for what these
    /// have waited.
    predecessors: Predecessors,
    retry: Backoff,
    /// When the refusal was found, in jiffies.
    refused_at: u32,
}

/// What a work is to do next for a direction.
enum Step {
    Nothing,
    /// The rule is stale, and stays in that lane.
    Keep(Arc<Port>),
    /// Another device's work is to do it.
    Move(Arc<Port>, Lane),
    Add(Arc<Port>),
    Remove(Arc<Port>),
    Poll(Arc<Port>),
}

const BOTH: [Direction; 2] = Direction::BOTH;

impl State {
    fn rule(&mut self, dir: Direction) -> &mut Rule {
        &mut self.rules[dir as usize]
    }

    fn port(&self, dir: Direction) -> Option<&Arc<Port>> {
        self.ports[dir as usize].as_ref()
    }

    fn is_installed(&self, dir: Direction) -> bool {
        self.rules[dir as usize].is(INSTALLED)
    }

    /// Returns whether nothing is to be done about the rule of a direction.
    fn is_settled(&self, dir: Direction) -> bool {
        let rule = self.rules[dir as usize];
        rule.is(WANTED) == rule.is(INSTALLED) && !rule.is_asked()
    }

    fn any_installed(&self) -> bool {
        self.rules.iter().any(|rule| rule.is(INSTALLED))
    }

    /// Returns whether hardware has the flow: all that is wanted of it, or what is still there of that.
    fn is_in_hardware(&self) -> bool {
        let has_all = self
            .rules
            .iter()
            .all(|rule| rule.is(INSTALLED) || !rule.is(WANTED));
        self.any_installed() && has_all
    }

    /// Returns whether all is as it is to be in hardware, or is on its way there.
    fn is_complete(&self) -> bool {
        let is_coming = |port: &Option<Arc<Port>>| {
            port.as_ref()
                .is_some_and(|port| port.device().may_take_rules())
        };

        self.rules.iter().zip(&self.ports).all(|(rule, port)| {
            rule.is(WANTED) && (rule.is(INSTALLED) || rule.is(BUSY) || is_coming(port))
        })
    }

    fn marks(&self) -> Marks {
        Marks {
            mark: self.mark,
            with: self.mark_use,
        }
    }

    fn want(&mut self, wanted: bool) {
        for rule in &mut self.rules {
            rule.set(WANTED, wanted);
        }
    }

    /// Returns whether no driver has a rule, nor gets one as things are.
    fn has_no_rules(&self) -> bool {
        self.rules
            .iter()
            .all(|rule| !rule.is(INSTALLED) && !rule.is(BUSY) && !rule.is(WANTED))
    }

    /// Returns whether nothing of this flow stands against rules of a newer one.
    fn is_clean(&self) -> bool {
        self.waiting == 0 && self.has_no_rules()
    }

    /// One older flow has no rules any more. Returns references to be dropped without the lock.
    fn waits_no_longer(&mut self) -> Predecessors {
        self.waiting -= 1;
        match &mut self.trouble {
            Some(trouble) if self.waiting == 0 => core::mem::take(&mut trouble.predecessors),
            _ => Predecessors::default(),
        }
    }
}

impl HwFlow {
    /// Makes a flow, known by its connection. Sleeps; fails with `ENOMEM`.
    pub(super) fn new(link: Link, table: &Arc<Table>, entry: &FlowOffload) -> Result<Arc<Self>> {
        // Tables of several namespaces may share a driver, so ids are the whole module's.
        static LAST_ID: Atomic<u64> = Atomic::new(0);

        let monitor = table.monitor();
        let flow = Arc::pin_init(
            pin_init!(Self {
                hashes: BOTH.map(|dir| entry.tuple_hash(dir)),
                id: LAST_ID.fetch_add(1, Relaxed) + 1,
                conntrack: entry.conntrack().into(),
                table: table.clone(),
                attached <- link.into_attached(State {
                    waiting: 1,
                    ..State::default()
                }),
                place: monitor.index().place(),
                original_links <- ListLinks::new(),
                reply_links <- ListLinks::new(),
                original_tracker <- AtomicTracker::new(),
                reply_tracker <- AtomicTracker::new(),
                original_tag: LaneTag::new(),
                reply_tag: LaneTag::new(),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;

        // The core forgets a flow at once when its connection or its route is gone, and makes a new one
        // for the next packet, but takes its time with the DESTROY of the old one.
        for older in monitor.flows().insert(&flow)?.iter().flatten() {
            older.evict();
            // Without memory, more flows are kept.
            let _ = flow.take_over(older);
            // No other flow finds `older` any more.
            while flow.wait_for(older, entry).is_err() {
                cond_resched();
            }
        }
        let mut state = flow.lock();
        let none = state.waits_no_longer();
        if state.is_clean() {
            Self::release(flow.settle(state));
        } else {
            drop(state);
        }
        drop(none);

        Ok(flow)
    }

    fn lock(&self) -> AttachedGuard<'_, State> {
        self.attached.lock()
    }

    fn monitor(&self) -> &Monitor {
        self.table.monitor()
    }

    pub(super) fn place(&self) -> &LockedBy<Place, Maps> {
        &self.place
    }

    /// Unlike the core's cookie, the address of the tuple, it is never used again for another flow.
    fn id(&self, dir: Direction, port: &Port) -> RuleId {
        RuleId {
            cookie: (self.id << 1) as usize | dir as usize,
            priority: port.priority(),
        }
    }

    /// Takes the place of `older` among those that wait, if that one only waits itself: so not all that
    /// ever waited for a stale rule are kept. Sleeps; fails with `ENOMEM`.
    fn take_over(self: &Arc<Self>, older: &Self) -> Result {
        let mut own = KBox::new(Trouble::default(), GFP_KERNEL_ACCOUNT)?;
        let mut state = older.lock();
        if !state.has_no_rules() {
            return Ok(());
        }
        // Others find a predecessor by the hashes that it shares with `older`: by this flow only if it
        // has these too.
        let is_found = |predecessor: &Arc<Self>| {
            let shared = |hash: &&u64| older.hashes.contains(hash);
            let mut shared = predecessor.hashes.iter().filter(shared);
            shared.all(|hash| self.hashes.contains(hash))
        };
        if let Some(trouble) = &mut state.trouble {
            for (own, old) in own.predecessors.iter_mut().zip(&mut trouble.predecessors) {
                if old.as_ref().is_some_and(is_found) {
                    *own = old.take();
                }
            }
        }
        drop(state);

        for predecessor in own.predecessors.iter().flatten() {
            self.lock().waiting += 1;
            let mut state = predecessor.lock();
            let moved = state.trouble.as_mut().and_then(|trouble| {
                let is_older = |found: &&mut Arc<Self>| core::ptr::eq(&***found, older);
                let place = trouble.successors.iter_mut().find(is_older)?;
                Some(core::mem::replace(place, self.clone()))
            });
            drop(state);
            // If it is in there no more, `older` has been released.
            let released = if moved.is_some() { older } else { self };
            released.lock().waiting -= 1;
        }
        let no_room = self.add_predecessors(own);
        drop(no_room);
        let state = older.lock();
        if state.is_clean() {
            Self::release(older.settle(state));
        }
        Ok(())
    }

    /// Notes for which older flows this one waits, as far as there is room; returns the rest.
    fn add_predecessors(&self, mut new: KBox<Trouble>) -> Option<KBox<Trouble>> {
        let mut state = self.lock();
        let Some(trouble) = &mut state.trouble else {
            state.trouble = Some(new);
            return None;
        };
        for new in &mut new.predecessors {
            let room = trouble.predecessors.iter_mut().find(|old| old.is_none());
            if let Some(room) = room {
                *room = new.take();
            }
        }
        Some(new)
    }

    /// Puts off rules until those of `older` are gone. Sleeps; fails with `ENOMEM`.
    fn wait_for(self: &Arc<Self>, older: &Arc<Self>, entry: &FlowOffload) -> Result {
        let mut own = KBox::new(Trouble::default(), GFP_KERNEL_ACCOUNT)?;
        let mut trouble = Some(KBox::new(Trouble::default(), GFP_KERNEL_ACCOUNT)?);
        self.lock().waiting += 1;

        let mut state = older.lock();
        let result = if state.is_clean() {
            Ok(false)
        } else {
            match &mut state.trouble {
                Some(trouble) => trouble.successors.push(self.clone(), GFP_ATOMIC),
                none => none
                    .insert(trouble.take().ok_or(ENOMEM)?)
                    .successors
                    .push(self.clone(), GFP_ATOMIC),
            }
            .map(|()| true)
        };
        let has_stale = state.rules.iter().any(|rule| rule.is(STALE));
        drop(state);
        match result {
            Ok(true) => {
                own.predecessors[0] = Some(older.clone());
                let no_room = self.add_predecessors(own);
                drop(no_room);
                if has_stale {
                    self.log_waiting(entry);
                }
                Ok(())
            }
            Ok(false) | Err(_) => {
                self.lock().waiting -= 1;
                result.map(drop).map_err(Error::from)
            }
        }
    }

    /// Logs that the flow stays in software as long as it waits for older ones.
    fn log_waiting(&self, entry: &FlowOffload) {
        let refusal = Refusal {
            dir: Direction::Original,
            cause: Cause::StaleRule,
        };
        let original = entry.describe_packets(Direction::Original);

        self.monitor().log().refused(
            jiffies64(),
            entry.net(),
            original.as_ref(),
            &refusal,
            InSoftware::Both,
        );
    }

    /// Has the works of its devices bring the rules in line with what is wanted. Does not sleep.
    fn push_wanted(self: &Arc<Self>, mut state: AttachedGuard<'_, State>) {
        let left = self.push_rules(&mut state);
        drop(state);
        drop(left);
    }

    /// As [`Self::push_wanted`]. Returns devices that are not used any more, to be dropped without the
    /// lock.
    fn push_rules(self: &Arc<Self>, state: &mut State) -> [Option<Arc<Port>>; 2] {
        let mut left = [const { None }; 2];

        for dir in BOTH {
            let rule = *state.rule(dir);
            // A direction without a rule keeps no device.
            if !rule.is(WANTED) && !rule.is(INSTALLED) && !rule.is(BUSY) {
                left[dir as usize] = state.ports[dir as usize].take();
            }
            let lane = match (rule.is(WANTED), rule.is(INSTALLED)) {
                (true, false) if state.waiting == 0 => Lane::Add,
                (false, true) if !rule.is(STALE) => Lane::Withdraw,
                (true, true) if rule.is(POLL) => Lane::Poll,
                _ => continue,
            };
            // Without the parameter `partial`, the reply direction comes after the original one.
            let is_later = lane == Lane::Add
                && dir == Direction::Reply
                && !self.monitor().config().keeps_partial
                && !state.is_installed(Direction::Original);
            if !rule.is(BUSY) && !is_later {
                if let Some(port) = state.port(dir) {
                    // If the device has left, the next offer begins anew.
                    let _ = port.device().push(self, dir, lane);
                }
            }
        }
        left
    }

    /// Follows up a change: pushes what is wanted, sets `[HW_OFFLOAD]`, and lets go of what waits for
    /// the flow. Sleeps.
    fn update(self: &Arc<Self>, mut state: AttachedGuard<'_, State>) {
        let left = self.push_rules(&mut state);
        // A successor has no rules before this one is clean, and sets the bit after it.
        self.conntrack.set_hw_offload(state.is_in_hardware());
        if state.is_clean() {
            Self::release(self.settle(state));
        } else {
            drop(state);
        }
        drop(left);
    }

    /// Has newer flows of the same packets find this one no more if it is over. It is clean; returns
    /// those that have waited for that. Sleeps.
    fn settle(&self, mut state: AttachedGuard<'_, State>) -> Option<KVec<Arc<Self>>> {
        let trouble = state.trouble.as_mut();
        let successors = trouble.map(|trouble| core::mem::take(&mut trouble.successors));
        // Not one that is about to get its entry.
        let is_over = state.phase == Phase::Evicted && state.entry().is_none();
        drop(state);

        if is_over {
            self.monitor().flows().remove(self);
        }
        successors
    }

    /// What these have waited for has no rules any more. Sleeps.
    fn release(successors: Option<KVec<Arc<Self>>>) {
        let Some(mut successors) = successors else {
            return;
        };
        while let Some(successor) = successors.pop() {
            let mut state = successor.lock();
            let predecessors = state.waits_no_longer();
            if !state.is_clean() {
                successor.push_wanted(state);
                drop(predecessors);
                continue;
            }
            // Evicted while it waited: those that wait for it are next.
            let more = successor.settle(state);
            drop(predecessors);
            for flow in more.into_iter().flatten() {
                // No lock is held that reclaim may need.
                while successors.push(flow.clone(), GFP_KERNEL).is_err() {}
            }
        }
    }

    /// Stops the flow in software and hardware: its packets are the host's from now on, which may make
    /// a new entry for them. Does not wait for drivers; sleeps.
    pub(super) fn evict(self: &Arc<Self>) {
        let mut state = self.lock();
        let is_first = state.phase != Phase::Evicted;

        state.phase = Phase::Evicted;
        state.want(false);
        if let Some(entry) = state.entry() {
            entry.teardown();
        }
        if is_first {
            self.update(state);
            self.monitor().index().remove(self);
        } else {
            self.push_wanted(state);
        }
    }

    /// As [`Self::evict`], after a change that the flow's next entry may not know of yet.
    pub(super) fn evict_changed(self: &Arc<Self>) {
        self.monitor().note_eviction();
        self.evict();
    }

    /// Takes the rules out of hardware; the flow goes on in software. Does not wait for drivers; sleeps.
    pub(super) fn withdraw(self: &Arc<Self>) {
        let mut state = self.lock();
        state.want(false);
        self.update(state);
    }

    /// As [`Self::withdraw`] if a rule is, or is to be, in this port.
    pub(super) fn withdraw_from(self: &Arc<Self>, port: &Arc<Port>) {
        let is_there = self
            .lock()
            .ports
            .iter()
            .flatten()
            .any(|found| Arc::ptr_eq(found, port));
        if is_there {
            self.withdraw();
        }
    }

    /// The entry is gone. Does not wait for drivers; sleeps.
    pub(super) fn destroy(self: &Arc<Self>) {
        let mut state = self.lock();
        state.phase = Phase::Evicted;
        state.want(false);
        let has_rules = state.any_installed();
        self.update(state);
        self.monitor().index().remove(self);
        if !has_rules {
            // The core has cleared `[HW_OFFLOAD]`, which may be a newer flow's.
            if let Some(newer) = self.monitor().flows().get(self.hashes[0]) {
                let state = newer.lock();
                if core::ptr::eq(newer.conntrack(), self.conntrack()) && state.is_in_hardware() {
                    newer.conntrack.set_hw_offload(true);
                }
            }
        }
    }

    pub(super) fn conntrack(&self) -> &Conntrack {
        &self.conntrack
    }

    /// The core offers the flow. Does not wait for drivers; sleeps.
    pub(super) fn offer(self: &Arc<Self>, entry: &FlowOffload) {
        let now = jiffies64();
        let mut state = self.lock();

        if state.phase == Phase::Evicted {
            drop(state);
            return entry.teardown();
        }
        if state.any_installed() {
            // Packets of a flow in hardware have reached the host. Most are exceptions, but maybe the
            // hardware has lost a rule.
            self.request_poll(&mut state, now as u32);
        }
        if state.waiting > 0 && state.phase == Phase::Tracked {
            // For a second at least.
            self.log_waiting(entry);
            return self.push_wanted(state);
        }
        if state.is_complete() {
            return self.push_wanted(state);
        }
        let is_due = self.is_outdated(&state)
            || state.trouble.as_ref().is_none_or(|trouble| {
                trouble
                    .retry
                    .is_over(now as u32, self.monitor().retry_generation())
            });
        if !is_due {
            return self.push_wanted(state);
        }
        self.push_wanted(state);

        if let Err(refusal) = self.prepare(entry, now) {
            self.refuse(refusal);
        }
    }

    /// Returns whether something has changed since the route was looked for in vain, or it has not been
    /// looked for yet.
    fn is_outdated(&self, state: &State) -> bool {
        match state.phase {
            Phase::New => true,
            Phase::Unrouted => state.trouble.as_ref().is_none_or(|trouble| {
                let looked_up = aging::full_width(jiffies64(), trouble.refused_at);
                looked_up <= self.monitor().last_eviction()
            }),
            Phase::Tracked | Phase::Evicted => false,
        }
    }

    /// Finds the route, and has the rules installed.
    fn prepare(self: &Arc<Self>, entry: &FlowOffload, now: u64) -> Result<(), Refusal> {
        let net = entry.net();
        let refusal = |dir, cause| Refusal { dir, cause };
        let mut flow = Flow::new();
        if entry.describe(net, &mut flow).is_none() {
            return Err(refusal(Direction::Original, Cause::NotIp));
        }
        let Some(is_tracked) = self.track(entry, &flow, net, now) else {
            return Ok(());
        };
        let partial = self.monitor().config().keeps_partial;
        let mut ports = self.table.ports(BOTH.map(|dir| flow.tuple(dir).ingress));
        let is_stale = {
            let state = self.lock();
            state.rules.map(|rule| rule.is(STALE))
        };

        // No driver is bothered with one direction if there cannot be a rule for the other.
        let mut first = None;
        let mut wanted = [true; 2];
        for dir in BOTH {
            if is_stale[dir as usize] {
                return Err(refusal(dir, Cause::StaleRule));
            }
            let result = match &ports[dir as usize] {
                Some(port) if port.device().may_take_rules() => port.device().check(&flow, dir),
                _ => Err(Cause::NotBound(flow.tuple(dir).ingress)),
            };
            if let Err(cause) = result {
                if !partial || !is_tracked {
                    return Err(refusal(dir, cause));
                }
                wanted[dir as usize] = false;
                first = first.or(Some(refusal(dir, cause)));
            }
        }
        if !is_tracked {
            let has_tunnel = flow.tuples.iter().any(|tuple| tuple.lwtunnel.is_some());
            let cause = if has_tunnel {
                Cause::RouteTunnel
            } else {
                Cause::RouteMismatch
            };
            return Err(refusal(Direction::Original, cause));
        }

        let mut state = self.lock();
        if state.phase == Phase::Tracked {
            for (dir, port) in BOTH.into_iter().zip(&mut ports) {
                let rule = state.rule(dir);
                if !rule.is(INSTALLED) && !rule.is(BUSY) {
                    rule.set(WANTED, wanted[dir as usize]);
                    // The old one is dropped without the lock.
                    core::mem::swap(&mut state.ports[dir as usize], port);
                }
            }
        }
        self.push_wanted(state);
        first.map_or(Ok(()), Err)
    }

    /// Looks up the route, and has events find the flow. Returns whether the host would send its packets
    /// as the entry does, or `None` if the flow has been evicted.
    fn track(
        self: &Arc<Self>,
        entry: &FlowOffload,
        flow: &Flow,
        net: &Net,
        now: u64,
    ) -> Option<bool> {
        let monitor = self.monitor();
        let phase = self.lock().phase;
        match phase {
            Phase::Tracked => return Some(true),
            Phase::Evicted => return None,
            Phase::New | Phase::Unrouted => {}
        }

        let generation = monitor.event_generation();
        let Some(route) = FlowRoute::find(net, flow, self.conntrack.mark()) else {
            let is_stale = self.may_be_stale(entry, phase, now);
            let mut state = self.lock();
            if state.phase != Phase::Evicted {
                state.phase = Phase::Unrouted;
            }
            drop(state);
            if is_stale {
                self.evict();
                return None;
            }
            return Some(false);
        };

        // What cannot be followed, for lack of memory, must not go on.
        if monitor
            .index()
            .insert(&route, nat_addresses(flow), self)
            .is_err()
        {
            self.evict();
            return None;
        }
        monitor.stale().forget(&self.conntrack);
        let mut state = self.lock();
        let is_evicted = state.phase == Phase::Evicted;
        if !is_evicted {
            state.phase = Phase::Tracked;
            let marks = route.marks();
            state.mark = marks.mark;
            state.mark_use = marks.with;
        }
        drop(state);
        if is_evicted {
            monitor.index().remove(self);
            return None;
        }
        // What has changed before the index had the flow can be seen by now.
        if monitor.event_generation() != generation && !route.is_current(net) {
            self.evict_changed();
            return None;
        }
        Some(true)
    }

    /// Returns whether the mismatch may come from a route change after the entry was created.
    fn may_be_stale(&self, entry: &FlowOffload, phase: Phase, now: u64) -> bool {
        let monitor = self.monitor();
        let is_frozen = BOTH.iter().any(|&dir| entry.is_xmit_direct(dir));

        is_frozen
            && match phase {
                Phase::New => monitor.stale().rejects(
                    &self.conntrack,
                    now,
                    monitor.last_eviction(),
                    ms(1000) as u32,
                ),
                _ => self.is_outdated(&self.lock()),
            }
    }

    /// Something stands against a direction. Sleeps.
    fn refuse(self: &Arc<Self>, refusal: Refusal) {
        let now = jiffies64();
        let monitor = self.monitor();
        let mut trouble = KBox::new(Trouble::default(), GFP_KERNEL_ACCOUNT).ok();
        let mut state = self.lock();

        if monitor.config().keeps_partial {
            state.rule(refusal.dir).set(WANTED, false);
        } else {
            state.want(false);
        }
        if state.trouble.is_none() {
            state.trouble = trouble.take();
        }
        // Without memory, it is offered again in a second.
        if let Some(trouble) = &mut state.trouble {
            let generation = monitor.retry_generation();
            trouble.refused_at = now as u32;
            trouble.retry.refused(now as u32, generation);
        }
        let other = refusal.dir.reverse();
        let what = if state.rule(other).is(WANTED) {
            InSoftware::One
        } else {
            InSoftware::Both
        };
        if let Some(entry) = state.entry() {
            let original = entry.describe_packets(Direction::Original);
            monitor
                .log()
                .refused(now, entry.net(), original.as_ref(), &refusal, what);
        }
        self.update(state);
    }

    /// Brings the rule of a direction in line with what is wanted, as far as it is `device`'s. Called by
    /// a work of the device; sleeps, and calls the driver.
    pub(super) fn work(
        self: &Arc<Self>,
        dir: Direction,
        device: &Arc<OffloadDevice>,
        draft: &mut RuleDraft,
    ) {
        loop {
            match self.next_step(dir, device, &mut draft.flow) {
                Step::Nothing => break,
                Step::Keep(port) => {
                    port.device().push_stale(self, dir);
                    break;
                }
                Step::Move(port, lane) => {
                    let _ = port.device().push(self, dir, lane);
                    break;
                }
                Step::Add(port) => match self.add_rule(dir, &port, draft) {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(cause) => self.refuse(Refusal { dir, cause }),
                },
                Step::Remove(port) => {
                    if self.del_rule(dir, &port) {
                        break;
                    }
                }
                Step::Poll(port) => {
                    if self.poll(dir, &port) {
                        break;
                    }
                }
            }
        }
    }

    /// Decides what is next. For [`Step::Add`], reads the entry into `flow`.
    fn next_step(&self, dir: Direction, device: &Arc<OffloadDevice>, flow: &mut Flow) -> Step {
        let mut state = self.lock();
        let rule = *state.rule(dir);
        let Some(port) = state.port(dir).cloned() else {
            return Step::Nothing;
        };
        if rule.is(BUSY) {
            return Step::Nothing;
        }
        if rule.is(STALE) {
            return Step::Keep(port);
        }

        let is_next = dir == Direction::Original
            || self.monitor().config().keeps_partial
            || state.is_installed(Direction::Original);
        let step = match (rule.is(WANTED), rule.is(INSTALLED)) {
            (true, false) if is_next && state.waiting == 0 => {
                // The core is about to take it away: nothing is to be installed any more.
                let Some(entry) = state.entry().filter(|entry| !entry.is_leaving()) else {
                    return Step::Nothing;
                };
                match entry.describe(entry.net(), flow) {
                    Some(()) => Step::Add(port),
                    None => return Step::Nothing,
                }
            }
            (false, true) => Step::Remove(port),
            (true, true) if rule.is(POLL) => Step::Poll(port),
            _ => return Step::Nothing,
        };
        let (Step::Add(port) | Step::Remove(port) | Step::Poll(port)) = &step else {
            return step;
        };
        if !Arc::ptr_eq(port.device(), device) {
            let lane = match step {
                Step::Add(..) => Lane::Add,
                Step::Remove(..) => Lane::Withdraw,
                _ => Lane::Poll,
            };
            return Step::Move(port.clone(), lane);
        }
        state.rule(dir).set(BUSY, true);
        step
    }

    /// Returns whether nothing else is to be done.
    fn add_rule(
        self: &Arc<Self>,
        dir: Direction,
        port: &Port,
        draft: &mut RuleDraft,
    ) -> Result<bool, Cause> {
        let result = match port.reserve() {
            // The entry may be freed, but the connection, and so the namespace, is not.
            Ok(()) => port
                .device()
                .add_rule(self.id(dir, port), dir, self.conntrack.net(), draft)
                .inspect_err(|_| port.release()),
            Err(_) => Err(Cause::NotBound(draft.flow.tuple(dir).ingress)),
        };
        let mut state = self.lock();
        let rule = state.rule(dir);

        rule.set(BUSY, false);
        rule.set(INSTALLED, result.is_ok());
        let is_settled = state.is_settled(dir);
        if result.is_ok() {
            let now = jiffies64() as u32;
            state.polled = now;
            if !state.is_installed(dir.reverse()) {
                state.lastused = now;
            }
            let is_whole = BOTH.iter().all(|&dir| state.is_installed(dir));
            let is_over = state
                .trouble
                .as_ref()
                .is_some_and(|trouble| trouble.successors.is_empty());
            let trouble = if is_whole && is_over {
                state.trouble.take()
            } else {
                None
            };
            self.update(state);
            drop(trouble);
        }
        result.map(|()| is_settled)
    }

    /// Returns whether nothing else is to be done, or nothing can be done now.
    fn del_rule(self: &Arc<Self>, dir: Direction, port: &Port) -> bool {
        let device = port.device();
        let id = self.id(dir, port);
        let is_retried = self.lock().rule(dir).is(RETRIED);
        let mut result = Ok(());

        // What it did since it was last asked goes to conntrack.
        let is_lost = match self.table.has_counter() {
            true => match device.rule_stats(id) {
                Ok(stats) => {
                    self.account(dir, stats);
                    false
                }
                Err(Lost) => true,
            },
            false => is_retried && device.has_lost(id),
        };
        if !is_lost {
            result = device.del_rule(id);
        }

        // Before the rule can be found to be stale.
        if result.is_err() {
            port.set_stale(true);
        }
        let mut state = self.lock();
        let rule = state.rule(dir);
        rule.set(BUSY, false);
        if is_retried && result.is_ok() {
            device.stale_removed();
        }
        match result {
            Ok(()) => {
                rule.set(INSTALLED, false);
                rule.set(RETRIED, false);
                drop(state);
                port.release();
                let state = self.lock();
                let is_settled = state.is_settled(dir);
                self.update(state);
                is_settled
            }
            Err(error) => {
                rule.set(STALE, true);
                let successor = state
                    .trouble
                    .as_ref()
                    .and_then(|trouble| trouble.successors.first().cloned());
                drop(state);
                if let Some(successor) = successor {
                    let state = successor.lock();
                    state.entry().inspect(|entry| successor.log_waiting(entry));
                }
                if !is_retried {
                    Self::warn_stale(device, error);
                }
                device.push_stale(self, dir);
                true
            }
        }
    }

    fn warn_stale(device: &OffloadDevice, error: DriverError) {
        dev_warn_ratelimited!(
            device.dev(),
            Rules,
            "the driver did not remove a rule: {}; it goes on forwarding, the removal will be \
             tried again\n",
            error
        );
    }

    /// A removal that failed is to be tried again.
    pub(super) fn retry_stale(self: &Arc<Self>, dir: Direction) {
        let mut state = self.lock();
        let Some(port) = state.port(dir).cloned() else {
            return;
        };

        // A work may have put it into the lane too late.
        if !state.rule(dir).is(STALE) {
            return;
        }
        state.rule(dir).set(STALE, false);
        state.rule(dir).set(RETRIED, true);
        drop(state);
        port.set_stale(false);
        if !port.device().push(self, dir, Lane::Withdraw) {
            let mut state = self.lock();
            state.rule(dir).set(INSTALLED, false);
            state.rule(dir).set(RETRIED, false);
            drop(state);
            port.release();
            self.update(self.lock());
        }
    }

    /// The driver, which failed to remove a rule, is about to be unbound.
    pub(super) fn give_up(self: &Arc<Self>, dir: Direction) {
        let mut state = self.lock();
        let port = state.port(dir).cloned();
        let rule = state.rule(dir);

        if !rule.is(STALE) {
            return;
        }
        rule.set(INSTALLED, false);
        rule.set(STALE, false);
        rule.set(RETRIED, false);
        drop(state);
        if let Some(port) = port {
            port.set_stale(false);
            port.release();
        }
        self.update(self.lock());
    }

    fn account(&self, dir: Direction, stats: FlowStats) {
        if self.table.has_counter() && stats.packets > 0 {
            self.conntrack.account(dir, stats.packets, stats.bytes);
        }
    }

    /// Returns whether nothing else is to be done.
    fn poll(self: &Arc<Self>, dir: Direction, port: &Port) -> bool {
        let result = port.device().rule_stats(self.id(dir, port));
        let now = jiffies64() as u32;
        let mut state = self.lock();
        let rule = state.rule(dir);

        rule.set(BUSY, false);
        rule.set(POLL, false);
        let is_settled = state.is_settled(dir);
        match result {
            Ok(stats) => {
                // Packets of the other direction count as much.
                let is_last = !state.rules.iter().any(|rule| rule.is_asked());
                if is_last {
                    state.polled = now;
                }
                let hit = stats.lastused as u32;
                let is_newer = (hit.wrapping_sub(state.lastused) as i32) > 0;
                let is_hit = stats.lastused != 0 && is_newer && now.wrapping_sub(hit) as i32 >= 0;
                if is_hit {
                    state.lastused = hit;
                    if let Some(entry) = state.entry() {
                        let expires = hit.wrapping_add(entry.lifetime() as u32);
                        if expires.wrapping_sub(entry.expires()) as i32 > 0 {
                            entry.set_expires(expires);
                        }
                    }
                }
                drop(state);
                self.account(dir, stats);
                // Not all drivers count packets.
                if stats.packets > 0 || is_hit {
                    self.verify(dir);
                }
                is_settled
            }
            Err(Lost) => {
                // The core offers the flow again as soon as packets reach the host.
                state.rule(dir).set(INSTALLED, false);
                state.want(false);
                drop(state);
                port.release();
                self.update(self.lock());
                false
            }
        }
    }

    /// Hardware forwards packets of a direction: events should have said if the host would not, but
    /// there are changes for which no notifier exists. Sleeps.
    fn verify(self: &Arc<Self>, dir: Direction) {
        let Some(paths) = self.monitor().index().paths_of(self) else {
            return;
        };
        let Some(is_current) = self.with_route(&paths, |net, route| {
            let is_current = route.dir_is_current(net, dir);
            if is_current {
                // The host does not send to the neighbour, and would forget it.
                paths[dir as usize].forward.confirm_neighbour(net);
            }
            is_current
        }) else {
            return;
        };

        if !is_current {
            self.evict_changed();
        }
    }

    /// Calls `f`, which must not sleep, with the route of a flow by these paths, if it has an entry.
    pub(super) fn with_route<R>(
        &self,
        paths: &[Arc<super::index::Path>; 2],
        f: impl FnOnce(&Net, &KnownRoute<'_>) -> R,
    ) -> Option<R> {
        let state = self.lock();
        let entry = state.entry()?;
        let net = entry.net();
        let mut flow = Flow::new();
        entry.describe_packets_of_both(&mut flow)?;
        let [original, reply] = paths;
        let route = KnownRoute {
            flow: &flow,
            paths: [&original.forward, &reply.forward],
            marks: state.marks(),
        };

        Some(f(net, &route))
    }

    /// Has the drivers asked for the statistics of the rules. The caller pushes.
    fn request_poll(&self, state: &mut State, now: u32) {
        // Not more than once in a while, however often it is asked for.
        if now.wrapping_sub(state.polled) < ms(100) as u32 {
            return;
        }
        // Or the driver of one direction would be asked again and again while the other's is busy.
        if state.rules.iter().any(|rule| rule.is_asked()) {
            return;
        }
        for rule in &mut state.rules {
            if rule.is(INSTALLED) {
                rule.set(POLL, true);
            }
        }
    }

    /// Returns when a packet was last seen by hardware or software, such that the flow lives as long as
    /// it should; has the drivers asked.
    pub(super) fn stats(self: &Arc<Self>, entry: &FlowOffload) -> FlowStats {
        let now = jiffies64();
        let mut state = self.lock();
        let hit = if state.any_installed() {
            aging::full_width(now, state.lastused)
        } else {
            0
        };

        if state.phase == Phase::Evicted {
            drop(state);
            entry.teardown();
        } else {
            self.request_poll(&mut state, now as u32);
            self.push_wanted(state);
        }
        FlowStats {
            lastused: aging::lastused(now, entry.expires(), entry.lifetime(), hit),
            ..FlowStats::default()
        }
    }

    /// As [`Self::stats`] for an entry without a flow.
    pub(super) fn stats_without(entry: &FlowOffload) -> FlowStats {
        FlowStats {
            lastused: aging::lastused(jiffies64(), entry.expires(), entry.lifetime(), 0),
            ..FlowStats::default()
        }
    }

    /// Looks at the flow once a second: as long as hardware has it, it lives as long as packets come by
    /// there, and the core need not ask for that. Returns whether its time is over. Does not sleep.
    pub(super) fn gc(self: &Arc<Self>, entry: &FlowOffload) -> bool {
        let now = jiffies64() as u32;
        let mut state = self.lock();

        if state.phase == Phase::Evicted {
            return true;
        }
        if !state.any_installed() {
            return false;
        }
        let lifetime = entry.lifetime() as u32;
        let expires = entry.expires();
        let second = ms(1000) as u32;
        // The core asks for statistics in the last nine tenths of the lifetime, and sets the timeout
        // for a packet in software if that makes a difference of more than a second.
        let is_ours = lifetime > 10 * (second + 1);
        if expires != state.expires {
            let by_software = expires.wrapping_sub(lifetime);
            if by_software.wrapping_sub(state.lastused) as i32 > 0 {
                state.lastused = by_software;
            }
        }
        let idle = now.wrapping_sub(state.lastused);
        let polled_after = state.polled.wrapping_sub(state.lastused);
        let is_over = idle as i32 >= lifetime as i32;
        if is_over && polled_after as i32 >= lifetime as i32 {
            entry.set_expires(now);
            return true;
        }
        if is_ours {
            state.expires = now.wrapping_add(lifetime - second - 1);
            entry.set_expires(state.expires);
        }
        if is_over || now.wrapping_sub(state.polled) >= second.max(lifetime / 10) {
            self.request_poll(&mut state, now);
            self.push_wanted(state);
        }
        false
    }
}

/// The addresses to which the packets of a flow are translated, but for those of its two ends.
fn nat_addresses(flow: &Flow) -> [Option<IpAddr>; 2] {
    let [original, reply] = &flow.tuples;

    [
        flow.snat.then(|| reply.addresses.dst()),
        flow.dnat.then(|| original.addresses.dst()),
    ]
}

/// When a refused flow may be offered to the driver again.
///
/// The core offers a flow again each second in which packets of it reach the host. A driver that had no
/// room a second ago hardly has any now, so each refusal doubles the time until the next try. A
/// device that joins the table, goes up or down changes everything.
#[derive(Default)]
pub(super) struct Backoff {
    until: u32,
    generation: u32,
    refusals: u8,
}

impl Backoff {
    /// No longer than 64 seconds: 1 << 6.
    const MAX_SHIFT: u8 = 6;

    /// Returns whether a try may be made at `now`, in jiffies, in this generation.
    fn is_over(&self, now: u32, generation: u32) -> bool {
        // More than the longest time: it was so long ago that jiffies have gone round.
        let left = self.until.wrapping_sub(now).wrapping_sub(1);

        self.refusals == 0 || left >= Self::time(Self::MAX_SHIFT) || generation != self.generation
    }

    fn time(shift: u8) -> u32 {
        (ms(1000) as u32) << shift
    }

    /// A try has failed at `now`.
    fn refused(&mut self, now: u32, generation: u32) {
        self.generation = generation;
        self.until = now.wrapping_add(Self::time(self.refusals.min(Self::MAX_SHIFT)));
        self.refusals = self.refusals.saturating_add(1);
    }
}

// Locks are larger where they are checked.
#[cfg(not(any(CONFIG_DEBUG_SPINLOCK, CONFIG_DEBUG_LOCK_ALLOC, CONFIG_PREEMPT_RT)))]
kernel::build_assert::static_assert!(size_of::<usize>() + size_of::<HwFlow>() <= 192);

#[kernel::macros::kunit_tests(nft_offload_hw_flow)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_flow_waits_twice_as_long_each_time() {
        let second = ms(1000) as u32;
        let mut backoff = Backoff::default();
        let mut now = u32::MAX - 10 * second;
        let mut waits = [0; 9];

        assert!(backoff.is_over(now, 1));
        for wait in &mut waits {
            backoff.refused(now, 1);
            assert!(!backoff.is_over(now, 1));
            assert!(backoff.is_over(now, 2));
            while !backoff.is_over(now, 1) {
                now = now.wrapping_add(second);
                *wait += 1;
            }
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 64, 64]);

        backoff = Backoff::default();
        backoff.refused(now, 1);
        assert!(backoff.is_over(now.wrapping_add(second), 1));
        // Jiffies have gone round.
        assert!(backoff.is_over(now.wrapping_sub(64 * second), 1));
    }
}

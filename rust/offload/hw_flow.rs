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
        namespace::Net,
        route::Marks, //
    },
    netfilter::{
        attach::{Attached, AttachedGuard, HwObject, Link},
        conntrack::{Conntrack, Direction},
        flow::{Flow, FlowOffload}, //
    },
    offload::{
        aging::{self, Age},
        backoff::{Backoff, Grant, Hope, Room},
        device::{Lane, Lost, OffloadDevice, Port, RuleDraft},
        flow_hash::Hashed,
        index::{Maps, Path, Place},
        left::LeftFlows,
        monitor::Monitor,
        refusal::{Cause, InSoftware, Refusal},
        report::{HwReport, State as Shown},
        route::{FlowRoute, KnownRoute, LastPackets, NoRoute},
        stale::Answer,
        table::Table,
        why::{Reason, Why}, //
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

/// Which flow it is, in which table.
struct Identity {
    /// No other flow's.
    id: u64,
    table: Arc<Table>,
}

impl Drop for Identity {
    fn drop(&mut self) {
        self.table.monitor().counters().remove(self.id);
    }
}

/// A flow that the core has offered, from its first `action` until its rules are gone after its
/// `FLOW_CLS_DESTROY`.
#[pin_data]
pub(crate) struct HwFlow {
    /// One for each direction.
    hashes: [u64; 2],
    own: Identity,
    conntrack: ARef<Conntrack>,
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
    /// Since when the original direction has been what it is, in jiffies.
    since: Atomic<u32>,
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
/// Where the first of the bits is in which what it was last is kept.
const SHOWN: u32 = 6;

impl Rule {
    /// Where the direction is, but for what is stale.
    fn shown(self) -> Shown {
        match (self.is(WANTED), self.is(INSTALLED)) {
            (false, false) => Shown::Software,
            (true, false) => Shown::Queued,
            (true, true) => Shown::Hardware,
            (false, true) => Shown::Withdrawing,
        }
    }

    /// Returns whether the direction is somewhere else than at the last call.
    fn has_moved(&mut self) -> bool {
        let now = self.shown() as u8;
        let has_moved = self.0 >> SHOWN != now;
        self.0 = self.0 & ((1 << SHOWN) - 1) | now << SHOWN;
        has_moved
    }

    fn is(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    /// Returns whether the driver is yet to be asked for the statistics of the rule.
    fn is_asked(self) -> bool {
        const ALL: u8 = WANTED | INSTALLED | POLL;
        self.0 & ALL == ALL
    }

    /// Returns whether the rule is being removed, and the driver has not failed to.
    fn is_leaving(self) -> bool {
        (self.is(INSTALLED) || self.is(BUSY)) && !self.is(WANTED) && !self.is(STALE)
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
    /// The connection's mark when the route was looked for.
    ct_mark: u32,
    /// By what the packets of each direction were routed when the route was found.
    mark_of: [MarkOf; 2],
    /// The DSCP, and [`HASHED`].
    dscp: [u8; 2],
    trouble: Option<KBox<Trouble>>,
    /// When a packet was last seen, by hardware or the fast path, in jiffies.
    lastused: u32,
    /// When the driver was last asked for that, in jiffies.
    polled: u32,
    /// What [`HwFlow::gc`] has set as the entry's timeout.
    expires: u32,
}

/// [`Marks::is_hashed`], where a DSCP has no bit.
const HASHED: u8 = 1 << 7;

/// The mark of the packets of a direction.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum MarkOf {
    #[default]
    None,
    /// That of the connection.
    Connection,
    /// Another one, see [`Trouble::marks`].
    Other,
}

impl MarkOf {
    fn new(mark: u32, ct_mark: u32) -> Self {
        match mark {
            0 => Self::None,
            mark if mark == ct_mark => Self::Connection,
            _ => Self::Other,
        }
    }
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
    /// With [`MarkOf::Other`].
    marks: [u32; 2],
    retry: Backoff,
    /// When the refusal was found, in jiffies.
    refused_at: u32,
    /// What stood against each direction last.
    why: [Option<Why>; 2],
}

/// What a work is to do next for a direction.
enum Step {
    Nothing,
    /// The rule is stale, and stays in that lane.
    Keep(Arc<Port>),
    /// Another device's work is to do it.
    Move(Arc<Port>, Lane),
    Add(Arc<Port>, Option<Grant>),
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
    fn is_complete(&self, entry: &FlowOffload) -> bool {
        let is_coming = |port: &Option<Arc<Port>>| {
            port.as_ref()
                .is_some_and(|port| port.device().may_take_rules())
        };

        BOTH.iter().all(|&dir| {
            let rule = self.rules[dir as usize];
            let is_there = rule.is(INSTALLED) || rule.is(BUSY);

            entry.is_left_to_host(dir)
                || rule.is(WANTED) && (is_there || is_coming(&self.ports[dir as usize]))
        })
    }

    fn marks(&self) -> [Marks; 2] {
        BOTH.map(|dir| Marks {
            mark: match (self.mark_of[dir as usize], &self.trouble) {
                (MarkOf::Connection, _) => self.ct_mark,
                (MarkOf::Other, Some(trouble)) => trouble.marks[dir as usize],
                _ => 0,
            },
            dscp: self.dscp[dir as usize] & !HASHED,
            is_hashed: self.dscp[dir as usize] & HASHED != 0,
        })
    }

    /// Keeps by what packets were routed. Fails if there is no [`Trouble`] and one is needed.
    fn set_marks(&mut self, ct_mark: u32, marks: [Marks; 2]) -> Result {
        self.ct_mark = ct_mark;
        self.mark_of = marks.map(|marks| MarkOf::new(marks.mark, ct_mark));
        self.dscp = marks.map(|marks| marks.dscp | if marks.is_hashed { HASHED } else { 0 });
        let has_other_marks = self.has_other_marks();
        match &mut self.trouble {
            Some(trouble) => trouble.marks = marks.map(|marks| marks.mark),
            None if has_other_marks => return Err(ENOMEM),
            None => {}
        }
        Ok(())
    }

    fn has_other_marks(&self) -> bool {
        self.mark_of.contains(&MarkOf::Other)
    }

    fn want(&mut self, wanted: bool) {
        for rule in &mut self.rules {
            rule.set(WANTED, wanted);
        }
    }

    /// Takes the devices of directions without a rule, to be dropped without the lock; but not the one to which
    /// the other direction's rule sends, unless that cannot be removed ([`HwFlow::is_leaving`]).
    fn take_idle_ports(&mut self) -> [Option<Arc<Port>>; 2] {
        let is_needed = self.rules.map(|rule| {
            let is_some = rule.is(WANTED) || rule.is(INSTALLED) || rule.is(BUSY);
            is_some && !rule.is(STALE)
        });
        BOTH.map(|dir| {
            let keeps = is_needed[dir.reverse() as usize]
                || is_needed[dir as usize]
                || self.rules[dir as usize].is(STALE);

            self.ports[dir as usize].take_if(|_| !keeps)
        })
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
                own: Identity {
                    id: LAST_ID.fetch_add(1, Relaxed) + 1,
                    table: table.clone(),
                },
                conntrack: entry.conntrack().into(),
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
                since: Atomic::new(jiffies64() as u32),
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
        self.own.table.monitor()
    }

    pub(super) fn place(&self) -> &LockedBy<Place, Maps> {
        &self.place
    }

    /// Unlike the core's cookie, the address of the tuple, it is never used again for another flow.
    fn id(&self, dir: Direction, port: &Port) -> RuleId {
        RuleId {
            cookie: (self.own.id << 1) as usize | dir as usize,
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
        self.note_moves(&mut state);
        let left = self.push_rules(&mut state);
        drop(state);
        drop(left);
    }

    /// Notes when a direction gets, or loses, its rule, or is to do so.
    fn note_moves(&self, state: &mut AttachedGuard<'_, State>) {
        for dir in BOTH {
            if !state.rule(dir).has_moved() {
                continue;
            }
            let now = (jiffies64() as u32).max(1);
            match (dir, state.entry()) {
                (Direction::Original, _) => self.since.store(now, Relaxed),
                (Direction::Reply, Some(entry)) => entry.set_reply_since(now),
                (Direction::Reply, None) => {}
            }
        }
    }

    /// Returns what others are told of the flow, if this is its entry. Does not sleep.
    pub(super) fn report(&self, entry: usize) -> Option<HwReport> {
        let now = jiffies64();
        let state = self.lock();
        let entry = state.entry().filter(|own| own.address() == entry)?;
        let is_partial = self.monitor().config().keeps_partial;
        let why = |dir: Direction| {
            let trouble = state.trouble.as_ref()?;
            trouble.why[dir as usize]
        };
        let mut report = HwReport {
            marks: state.marks(),
            is_routed: state.phase == Phase::Tracked,
            counters: self.monitor().counters().get(self.own.id),
            offers: entry.offers(),
            last_use: state
                .any_installed()
                .then(|| now.saturating_sub(aging::full_width(now, state.lastused))),
            ..HwReport::default()
        };

        for dir in BOTH {
            let rule = state.rules[dir as usize];
            let to = &mut report.dirs[dir as usize];
            to.state = match rule.is(STALE) || rule.is(RETRIED) {
                true => Shown::Stale,
                false => rule.shown(),
            };
            let since = match dir {
                Direction::Original => self.since.load(Relaxed),
                Direction::Reply => entry.reply_since(),
            };
            to.since = (since != 0).then(|| u64::from((now as u32).wrapping_sub(since)));
            if to.state == Shown::Hardware {
                continue;
            }
            if state.phase == Phase::Evicted {
                to.add(Why::new(Reason::Ending));
            }
            if state.waiting > 0 {
                to.add(Why::new(Reason::StaleRule));
            }
            if let Some(why) = why(dir) {
                to.add(why);
            } else if why(dir.reverse()).is_some() && !is_partial && !rule.is(WANTED) {
                to.add(Why::new(Reason::OtherDirection));
            }
        }
        Some(report)
    }

    /// As [`Self::push_wanted`]. Returns devices that are not used any more, to be dropped without the
    /// lock.
    fn push_rules(self: &Arc<Self>, state: &mut State) -> [Option<Arc<Port>>; 2] {
        let left = state.take_idle_ports();

        for dir in BOTH {
            let rule = *state.rule(dir);
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
        self.note_moves(&mut state);
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

    /// The route of a flow, which went by these paths, leads elsewhere. Sleeps.
    pub(super) fn follow(self: &Arc<Self>, paths: &[Arc<Path>; 2]) {
        match self.with_route(paths, |net, route| route.look_again(net)) {
            Some(none) if none.refused.is_some() => {
                self.leave(other_way(Cause::RouteMismatch), Some(none))
            }
            _ => self.evict_changed(),
        }
    }

    /// Evicts the flow, and leaves its connection to the host until something changes: its next entry
    /// would be no better. Does not wait for drivers; sleeps.
    fn leave(self: &Arc<Self>, refusal: Refusal, none: Option<NoRoute>) {
        let (refused, view) = none.map_or((None, None), |none| (none.refused, none.view));
        let refusal = refused.map_or(refusal, |(dir, error)| Refusal {
            dir,
            cause: Cause::NotForwarded(error),
        });
        let monitor = self.monitor();
        let state = self.lock();
        let original = state
            .entry()
            .and_then(|entry| entry.describe_packets(Direction::Original));
        drop(state);

        // Not if it has a newer entry already, of which this one knows nothing.
        let newest = monitor.flows().get(self.hashes[0]);
        let has_newer = newest.is_some_and(|newest| {
            newest.own.id != self.own.id && core::ptr::eq(newest.conntrack(), self.conntrack())
        });
        if !has_newer {
            // Without memory, the next packet makes an entry, which comes here again.
            let why = Why::of(&refusal.cause, 0, monitor.words());
            let _ = LeftFlows::add(monitor.left(), &self.conntrack, view, (refusal.dir, why));
        }
        self.evict();
        // Else when it has none any more.
        let has_no_rules = self.lock().has_no_rules();
        if has_no_rules {
            self.conntrack.end_liberal();
        }
        monitor.log().refused(
            jiffies64(),
            self.conntrack.net(),
            original.as_ref(),
            &refusal,
            InSoftware::Both,
        );
    }

    /// Takes the rules out of hardware; the flow goes on in software. Returns whether there were, or were to
    /// be, any. Does not wait for drivers; sleeps.
    pub(super) fn withdraw(self: &Arc<Self>) -> bool {
        let mut state = self.lock();
        let was_wanted = state.rules.iter().any(|rule| rule.is(WANTED));
        state.want(false);
        self.update(state);
        was_wanted
    }

    /// As [`Self::withdraw`] if a rule is, or is to be, in this port.
    pub(super) fn withdraw_from(self: &Arc<Self>, port: &Arc<Port>) {
        if self.other_direction(port).is_some() {
            self.withdraw();
        }
    }

    /// If a direction's rule is, or is to be, in this port: the other direction.
    fn other_direction(&self, port: &Arc<Port>) -> Option<Direction> {
        let state = self.lock();
        let is_there = |&dir: &Direction| {
            state
                .port(dir)
                .is_some_and(|found| Arc::ptr_eq(found, port))
        };

        BOTH.into_iter().find(is_there).map(Direction::reverse)
    }

    /// Returns whether [`Self::is_leaving`] may be true. Does not sleep.
    pub(super) fn may_be_leaving(&self, port: &Arc<Port>) -> bool {
        let state = self.lock();
        let has_predecessors = state
            .trouble
            .as_ref()
            .is_some_and(|trouble| trouble.predecessors.iter().any(Option::is_some));
        drop(state);
        has_predecessors || self.is_one_leaving(port)
    }

    /// Returns whether the rule that sends to this port is being removed, this flow's or an older one's of the same
    /// packets, and the driver has not failed to. Sleeps.
    pub(super) fn is_leaving(&self, port: &Arc<Port>) -> bool {
        let state = self.lock();
        let predecessors = match &state.trouble {
            Some(trouble) => trouble.predecessors.clone(),
            None => Predecessors::default(),
        };
        drop(state);

        let mut older = predecessors.iter().flatten();
        self.is_one_leaving(port) || older.any(|older| older.is_one_leaving(port))
    }

    fn is_one_leaving(&self, port: &Arc<Port>) -> bool {
        self.other_direction(port).is_some_and(|dir| {
            let state = self.lock();
            state.rules[dir as usize].is_leaving()
        })
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

    /// The entry of a connection of GRE is gone, if no newer one is there.
    pub(super) fn release_gre(&self, entry: &FlowOffload) {
        let newer = self.monitor().flows().get(self.hashes[0]);
        let has_newer = newer.is_some_and(|newer| {
            newer.own.id != self.own.id && core::ptr::eq(newer.conntrack(), self.conntrack())
        });

        if !has_newer {
            aging::release_gre(entry);
        }
    }

    pub(super) fn conntrack(&self) -> &Conntrack {
        &self.conntrack
    }

    /// Returns when the last packet came, by hardware or software, in jiffies.
    pub(super) fn last_packet(&self, entry: &FlowOffload) -> u32 {
        let state = self.lock();
        let by_software = aging::last_by_software(entry);
        let is_newer = by_software.wrapping_sub(state.lastused) as i32 > 0;

        // Else it is no packet that has set the timeout.
        let is_known = entry.expires() != state.expires && is_newer;
        if is_known || state.expires == 0 {
            by_software
        } else {
            state.lastused
        }
    }

    /// The core offers the flow. Does not wait for drivers; sleeps.
    pub(super) fn offer(self: &Arc<Self>, entry: &FlowOffload) {
        let now = jiffies64();
        aging::keep_first_answer(entry);
        aging::hold_gre(entry, now as u32);
        if self.comes_otherwise(entry.net()) {
            self.evict();
        }
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
        if state.is_complete(entry) {
            return self.push_wanted(state);
        }
        let is_due = self.is_outdated(&state)
            || state.trouble.as_ref().is_none_or(|trouble| {
                let generation = self.monitor().retry_generation();
                trouble.retry.is_over(now, generation)
            });
        if !is_due {
            return self.push_wanted(state);
        }
        self.push_wanted(state);

        let mut other = None;
        if let Err(refusal) = self.prepare(entry, now, &mut other) {
            self.refuse_both(refusal, Some(other));
        }
    }

    /// Returns whether frames come in to another address of the host's than the rules ask for.
    fn comes_otherwise(&self, net: &Net) -> bool {
        if !self.lock().any_installed() {
            return false;
        }
        let Some(paths) = self.monitor().index().paths_of(self) else {
            return false;
        };

        BOTH.into_iter().zip(paths.iter().rev()).any(|(dir, back)| {
            let dest = self.conntrack.last_frame(dir);
            dest.is_some_and(|dest| !back.forward.is_received_at(net, dest))
        })
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

    /// Finds the route, and has the rules installed. Tells in `other` what stands against the reply direction,
    /// if it fails for the original one.
    fn prepare(
        self: &Arc<Self>,
        entry: &FlowOffload,
        now: u64,
        other: &mut Option<Cause>,
    ) -> Result<(), Refusal> {
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
        let mut ports = self
            .own
            .table
            .ports(BOTH.map(|dir| flow.tuple(dir).ingress));
        let (is_stale, is_new) = {
            let state = self.lock();
            (
                state.rules.map(|rule| rule.is(STALE)),
                state.trouble.is_none(),
            )
        };

        // No driver is bothered with one direction if there cannot be a rule for the other.
        let mut causes = [None; 2];
        let paths = self.monitor().index().paths_of(self);
        let way = paths
            .as_ref()
            .map_or([Ok(()); 2], |paths| Self::add_way(&mut flow, paths));
        for dir in BOTH {
            if is_stale[dir as usize] {
                causes[dir as usize] = Some(Cause::StaleRule);
                continue;
            }
            // The work of the direction that comes first translates it before it calls a driver.
            let is_checked_later = is_tracked && is_new && (partial || dir == Direction::Original);
            let result = match &ports[dir as usize] {
                Some(port) if port.device().may_take_rules() => {
                    port.device().check(&flow, dir, is_checked_later)
                }
                Some(port) if port.device().dev().is_switched_off() => {
                    Err(Cause::SwitchedOff(flow.tuple(dir).ingress))
                }
                _ => Err(Cause::NotBound(flow.tuple(dir).ingress)),
            };
            let result = way[dir as usize].and(result);
            let check_shapers = || match &paths {
                Some(paths) => {
                    let path = &paths[dir as usize].forward;
                    self.monitor().shapers().check(net, path)
                }
                None => Ok(()),
            };
            // Nothing is sent past a qdisc if the other direction has failed.
            let is_alone = causes[0].is_some() && !(partial && is_tracked && !is_stale[0]);
            let result = match is_alone {
                true => result,
                false => result.and_then(|()| check_shapers()),
            };
            causes[dir as usize] = result.err();
        }
        // The device's work never gets to translate it if the other direction has failed.
        if let ([None, Some(_)], true, [Some(port), _]) = (causes, is_tracked && !partial, &ports) {
            causes[0] = port.device().check(&flow, Direction::Original, false).err();
        }
        let mut wanted = causes.map(|cause| cause.is_none());
        let mut first = match causes {
            [Some(cause), reply] => {
                *other = reply;
                Some(refusal(Direction::Original, cause))
            }
            [None, reply] => reply.map(|cause| refusal(Direction::Reply, cause)),
        };
        if let Some(first) = first {
            if !partial || !is_tracked || is_stale.contains(&true) {
                return Err(first);
            }
        }
        if !is_tracked {
            return Err(other_way(mismatch(&flow)));
        }

        for dir in BOTH {
            wanted[dir as usize] &= !entry.is_left_to_host(dir);
        }
        // What is on its way out goes first: then it is offered again.
        if self.lock().rules.iter().any(|rule| rule.is_leaving()) {
            return first.map_or(Ok(()), Err);
        }
        for (dir, cause) in self.ask_for_room(&ports, &wanted, now) {
            if !partial {
                return Err(refusal(dir, cause));
            }
            wanted[dir as usize] = false;
            match first {
                None => first = Some(refusal(dir, cause)),
                Some(_) => *other = Some(cause),
            }
        }

        let mut state = self.lock();
        // Either may have begun meanwhile: a device that leaves withdraws only what it finds.
        let is_leaving = state.rules.iter().any(|rule| rule.is_leaving())
            || ports.iter().flatten().any(|port| port.is_leaving());
        if state.phase == Phase::Tracked && !is_leaving {
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

    /// Adds to `flow` what its entry does not say of the ways of its packets, which are these. Fails for a
    /// direction whose way is not for hardware.
    fn add_way(flow: &mut Flow, paths: &[Arc<Path>; 2]) -> [Result<(), Cause>; 2] {
        BOTH.map(|dir| {
            let path = &paths[dir as usize].forward;
            let back = &mut flow.tuples[dir.reverse() as usize];
            back.dest = path.other_receiver();
            back.priorities = path.priorities().ok_or(Cause::Priority)?;
            if path.is_limited_by_device() {
                Ok(())
            } else {
                Err(Cause::Mtu)
            }
        })
    }

    /// Asks the devices for room for those of the wanted rules that are not installed yet. Returns what
    /// stands against them.
    fn ask_for_room(
        &self,
        ports: &[Option<Arc<Port>>; 2],
        wanted: &[bool; 2],
        now: u64,
    ) -> impl Iterator<Item = (Direction, Cause)> {
        let generation = self.monitor().retry_generation();
        let mut state = self.lock();
        let missing = BOTH.map(|dir| {
            let rule = *state.rule(dir);
            let is_missing = wanted[dir as usize] && !rule.is(INSTALLED) && !rule.is(BUSY);
            ports[dir as usize].as_ref().filter(|_| is_missing)
        });
        let causes = missing.map(|port| port.and_then(|port| port.device().check_room().err()));
        let trouble = state.trouble.as_deref_mut();
        let granted = trouble
            .filter(|trouble| trouble.retry.is_refused())
            .and_then(|trouble| {
                let grant = if trouble.retry.waits(generation) {
                    Self::take_room(
                        missing.map(|port| port.map(|port| &**port.device().room())),
                        now,
                    )
                } else {
                    // Something has changed since.
                    Some(Grant::Place)
                };
                trouble.retry.set_grant(grant);
                grant
            });
        let causes = if granted.is_some() { [None; 2] } else { causes };

        BOTH.into_iter()
            .zip(causes)
            .filter_map(|(dir, cause)| Some((dir, cause?)))
    }

    /// Takes the places for the rules of a flow that waits in those of the devices that are tight.
    fn take_room(rooms: [Option<&Room>; 2], now: u64) -> Option<Grant> {
        let tight = rooms.map(|room| room.filter(|room| room.is_tight(now)));
        let asked = match tight {
            [Some(this), Some(other)] if core::ptr::eq(this, other) => [Some((this, 2)), None],
            _ => tight.map(|room| room.map(|room| (room, 1))),
        };
        let mut asked = asked.into_iter().flatten();

        // Neither is taken if the other one is not to be had.
        if !asked.clone().all(|(room, count)| room.may_try(now, count)) {
            return None;
        }
        asked.try_fold(None, |grant, (room, count)| {
            match room.take(now, count)? {
                Grant::Place => Some(grant.or(Some(Grant::Place))),
                Grant::Probe => Some(Some(Grant::Probe)),
            }
        })?
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
        let ct_mark = self.conntrack.mark();
        let last_packets = LastPackets::of(&self.conntrack, net);
        let found = match last_packets {
            LastPackets::Known(marks) => match FlowRoute::find(net, flow, marks) {
                Ok(route) => Ok((route, marks)),
                Err(none) => Err(Some(none)),
            },
            LastPackets::Unknown => Err(None),
        };
        let (mut route, marks) = match found {
            Ok(found) => found,
            Err(none) => {
                self.lock().ct_mark = ct_mark;
                return self.lose_track(entry, flow, phase, now, none);
            }
        };

        route.received_at(net, BOTH.map(|dir| self.conntrack.last_frame(dir)));

        // What cannot be followed, for lack of memory, must not go on.
        let kept = self.keep_marks(ct_mark, marks).and_then(|()| {
            let addresses = nat_addresses(flow);
            monitor.index().insert(&route, addresses, self)
        });
        if kept.is_err() {
            self.evict();
            return None;
        }
        monitor.stale().forget(&self.conntrack);
        monitor.left().forget(&self.conntrack);
        let mut state = self.lock();
        let is_evicted = state.phase == Phase::Evicted;
        if !is_evicted {
            state.phase = Phase::Tracked;
        }
        drop(state);
        if is_evicted {
            monitor.index().remove(self);
            return None;
        }
        for (dir, (path, _)) in BOTH.into_iter().zip(route.hops()) {
            entry.limit_mtu(dir, path.mtu());
        }
        // What has changed before the index had the flow can be seen by now.
        if monitor.event_generation() != generation && !route.is_current(net) {
            self.evict_changed();
            return None;
        }
        Some(true)
    }

    /// Keeps by what packets were routed. Sleeps; fails with `ENOMEM`.
    fn keep_marks(&self, ct_mark: u32, marks: [Marks; 2]) -> Result {
        if self.lock().set_marks(ct_mark, marks).is_ok() {
            return Ok(());
        }
        let new = KBox::new(Trouble::default(), GFP_KERNEL_ACCOUNT)?;
        let mut state = self.lock();
        let unused = match state.trouble {
            Some(_) => Some(new),
            None => {
                state.trouble = Some(new);
                None
            }
        };
        let kept = state.set_marks(ct_mark, marks);
        drop(state);
        drop(unused);
        kept
    }

    /// The host would not send the packets as the entry does, or it is not known by what they are routed.
    /// As [`Self::track`].
    fn lose_track(
        self: &Arc<Self>,
        entry: &FlowOffload,
        flow: &Flow,
        phase: Phase,
        now: u64,
        none: Option<NoRoute>,
    ) -> Option<bool> {
        let refused = none.as_ref().and_then(|none| none.refused);
        if refused.is_none() && self.may_be_stale(entry, phase, now) {
            self.evict();
            return None;
        }
        if refused.is_some() || is_frozen(entry) {
            self.leave(other_way(mismatch(flow)), none);
            return None;
        }
        // What C asks for with each packet is not wrong.
        let mut state = self.lock();
        if state.phase != Phase::Evicted {
            state.phase = Phase::Unrouted;
        }
        Some(false)
    }

    /// Returns whether the mismatch may come from a route change after the entry was created.
    fn may_be_stale(&self, entry: &FlowOffload, phase: Phase, now: u64) -> bool {
        let monitor = self.monitor();

        is_frozen(entry)
            && match phase {
                Phase::New => {
                    let changed = monitor.last_eviction();
                    let answer =
                        monitor
                            .stale()
                            .note(&self.conntrack, now, changed, ms(1000) as u32);
                    answer == Answer::First
                }
                _ => self.is_outdated(&self.lock()),
            }
    }

    /// Returns the index of the device by which packets of a direction come in, as long as there is an entry.
    fn ingress(&self, dir: Direction) -> Option<u32> {
        Some(self.lock().entry()?.iifidx(dir))
    }

    /// Returns what is known of the room in the device of a direction.
    fn room(&self, state: &AttachedGuard<'_, State>, dir: Direction) -> Option<Arc<Room>> {
        if let Some(port) = state.port(dir) {
            return Some(port.device().room().clone());
        }
        let ifindex = state.entry()?.describe_packets(dir)?.ingress;
        let [port, _] = self.own.table.ports([ifindex; 2]);
        port.map(|port| port.device().room().clone())
    }

    /// Something stands against a direction. Sleeps.
    fn refuse(self: &Arc<Self>, refusal: Refusal) {
        self.refuse_both(refusal, None);
    }

    /// As [`Self::refuse`], and `other` against the other direction, or nothing; `None` if that is not known.
    fn refuse_both(self: &Arc<Self>, refusal: Refusal, other: Option<Option<Cause>>) {
        let now = jiffies64();
        let monitor = self.monitor();
        let (refusal, other) = match other {
            Some(Some(cause)) if cause.needs_host() && !refusal.cause.needs_host() => {
                let dir = refusal.dir.reverse();
                (Refusal { dir, cause }, Some(Some(refusal.cause)))
            }
            other => (refusal, other),
        };
        if refusal.cause.needs_host() {
            let paths = monitor.index().paths_of(self);
            let look = |net: &Net, route: &KnownRoute<'_>| route.look_again(net);
            let none = paths.and_then(|paths| self.with_route(&paths, look));
            return self.leave(refusal, none);
        }
        let mut trouble = KBox::new(Trouble::default(), GFP_KERNEL_ACCOUNT).ok();
        let ingress = self.ingress(refusal.dir).unwrap_or(0);
        let why = Why::of(&refusal.cause, ingress, monitor.words());
        let keeps_partial = monitor.config().keeps_partial;
        let other_ingress = self.ingress(refusal.dir.reverse()).unwrap_or(0);
        let other_why = match other {
            Some(other) => Some(other.map(|cause| Why::of(&cause, other_ingress, monitor.words()))),
            // The other one's rule is not wanted any more.
            None => (!keeps_partial).then_some(None),
        };
        let mut state = self.lock();
        let room = match refusal.cause.hope() {
            Hope::Room => self.room(&state, refusal.dir),
            _ => None,
        };

        if keeps_partial {
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
            trouble.why[refusal.dir as usize] = Some(why);
            if let Some(other_why) = other_why {
                trouble.why[refusal.dir.reverse() as usize] = other_why;
            }
            trouble
                .retry
                .refused(now, generation, refusal.cause.hope(), room);
        }
        let other_dir = refusal.dir.reverse();
        let what = if state.rule(other_dir).is(WANTED) {
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
                Step::Add(port, grant) => match self.add_rule(dir, &port, draft, grant) {
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
                let grant = state
                    .trouble
                    .as_ref()
                    .and_then(|trouble| trouble.retry.grant());
                // The core is about to take it away: nothing is to be installed any more.
                let Some(entry) = state.entry().filter(|entry| !entry.is_leaving()) else {
                    return Step::Nothing;
                };
                if self.conntrack.is_dying() {
                    return Step::Nothing;
                }
                match entry.describe(entry.net(), flow) {
                    Some(()) => Step::Add(port, grant),
                    None => return Step::Nothing,
                }
            }
            (false, true) => Step::Remove(port),
            (true, true) if rule.is(POLL) => Step::Poll(port),
            _ => return Step::Nothing,
        };
        let (Step::Add(port, _) | Step::Remove(port) | Step::Poll(port)) = &step else {
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
        grant: Option<Grant>,
    ) -> Result<bool, Cause> {
        let paths = self.monitor().index().paths_of(self);
        let way = paths.map_or(Ok(()), |paths| {
            Self::add_way(&mut draft.flow, &paths)[dir as usize]
        });
        let result = way.and_then(|()| match port.reserve() {
            // The entry may be freed, but the connection, and so the namespace, is not.
            Ok(()) => port
                .device()
                .add_rule(self.id(dir, port), dir, self.conntrack.net(), draft, grant)
                .inspect_err(|_| port.release()),
            Err(_) => Err(Cause::NotBound(draft.flow.tuple(dir).ingress)),
        });
        let mut state = self.lock();
        let rule = state.rule(dir);

        rule.set(BUSY, false);
        rule.set(INSTALLED, result.is_ok());
        // It may have ended meanwhile.
        if self.conntrack.is_dying() {
            state.want(false);
        }
        let is_settled = state.is_settled(dir);
        if result.is_ok() {
            let now = jiffies64() as u32;
            state.polled = now;
            if let Some(trouble) = &mut state.trouble {
                trouble.why[dir as usize] = None;
            }
            if !state.is_installed(dir.reverse()) {
                state.lastused = now;
            }
            let is_whole = BOTH.iter().all(|&dir| state.is_installed(dir));
            let is_over = state
                .trouble
                .as_ref()
                .is_some_and(|trouble| trouble.successors.is_empty());
            let trouble = if is_whole && is_over && !state.has_other_marks() {
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
        let is_lost = match self.own.table.has_counter() {
            true => match device.rule_stats(id) {
                Ok(stats) => {
                    self.account(dir, device, stats);
                    false
                }
                Err(Lost) => true,
            },
            false => is_retried && device.has_lost(id),
        };
        if is_lost {
            device.stats().lost();
        } else {
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
                device.rule_gone();
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
                let left = state.take_idle_ports();
                drop(state);
                drop(left);
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
             tried again{}\n",
            error,
            if device.dev().is_switched_off() {
                ". Switch hw-tc-offload on again (ethtool -K), take the device out of the \
                 flowtable, and then switch it off"
            } else {
                ""
            }
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
            port.device().stats().gone();
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
            port.device().stats().gone();
            port.set_stale(false);
            port.release();
        }
        self.update(self.lock());
    }

    fn account(&self, dir: Direction, device: &OffloadDevice, stats: FlowStats) {
        device.stats().forwarded(&stats);
        self.monitor().counters().add(self.own.id, dir, &stats);
        if self.own.table.has_counter() && stats.packets > 0 {
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
                self.account(dir, port.device(), stats);
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
                port.device().stats().lost();
                port.device().rule_gone();
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
        paths: &[Arc<Path>; 2],
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

    /// Returns whether the way of the flow is that of the connection's mark, which nobody tells of.
    fn has_way_of_mark(&self, state: &mut State, entry: &FlowOffload) -> bool {
        let mark = self.conntrack.mark();

        mark == state.ct_mark
            || state.phase == Phase::New
            || state.phase == Phase::Tracked && Self::follow_mark(state, entry, mark)
    }

    /// Looks whether the connection's new mark leads the same way, and takes it over if so: by packets
    /// that had the old one.
    #[cold]
    #[inline(never)]
    fn follow_mark(state: &mut State, entry: &FlowOffload, ct_mark: u32) -> bool {
        let net = entry.net();
        let mut flow = Flow::new();
        let marks = state.marks().map(|marks| Marks {
            mark: match marks.mark == state.ct_mark {
                true => ct_mark,
                false => marks.mark,
            },
            ..marks
        });
        let is_same = !net.has_policies()
            || entry
                .describe(net, &mut flow)
                .is_some_and(|()| FlowRoute::find(net, &flow, marks).is_ok());
        is_same && state.set_marks(ct_mark, marks).is_ok()
    }

    /// Looks at the flow once a second: as long as hardware has it, it lives as long as packets come by
    /// there, and the core need not ask for that. Returns whether its time is over. Does not sleep.
    pub(super) fn gc(self: &Arc<Self>, entry: &FlowOffload) -> bool {
        let now = jiffies64() as u32;
        let mut state = self.lock();

        if state.phase == Phase::Evicted {
            return true;
        }
        if !self.has_way_of_mark(&mut state, entry) {
            // By the direction that comes first, another entry is made, which is not to be taken for right
            // with the last packet of the other one.
            self.conntrack.forget_packets();
            return true;
        }
        aging::hold_gre(entry, now);
        if !state.any_installed() {
            drop(state);
            return aging::gc_in_software(Some(self.monitor().left()), entry);
        }
        let lifetime = entry.lifetime() as u32;
        let expires = entry.expires();
        let second = ms(1000) as u32;
        // The core sets the timeout for a packet in software if that makes a difference of more than a
        // second. (It asks for statistics in the last nine tenths of the lifetime.)
        let is_ours = lifetime > 3 * (second + 1);
        if expires != state.expires {
            let by_software = expires.wrapping_sub(lifetime);
            if by_software.wrapping_sub(state.lastused) as i32 > 0 {
                state.lastused = by_software;
            }
        }
        let age = Age::of(entry, now, state.lastused);
        state.lastused = age.last;
        let is_over = age.is_over(now, lifetime);
        // It was asked for packets when it was already.
        let is_sure = age.is_over(state.polled, lifetime);
        if aging::is_answered(entry)
            || is_over && is_sure
            || aging::is_outdated(Some(self.monitor().left()), entry)
        {
            age.conclude(entry, now);
            return true;
        }
        if is_ours {
            state.expires = now.wrapping_add(lifetime - second - 1);
            entry.set_expires(state.expires);
        }
        // Where a poll finds packets, the look-up of their route tells the group that its bucket is in use.
        let interval = match entry.net().has_resilient_groups() {
            true => second / 2,
            false => second.max(lifetime / 10),
        };
        if is_over || now.wrapping_sub(state.polled) >= interval {
            self.request_poll(&mut state, now);
            self.push_wanted(state);
        }
        false
    }
}

/// Whether the fast path goes by what C has found when it made the entry, and does not ask again.
fn is_frozen(entry: &FlowOffload) -> bool {
    BOTH.iter().any(|&dir| entry.is_xmit_direct(dir))
}

/// The host sends the packets of a flow another way.
fn other_way(cause: Cause) -> Refusal {
    Refusal {
        dir: Direction::Original,
        cause,
    }
}

/// Why the route of a flow is not found.
fn mismatch(flow: &Flow) -> Cause {
    match flow.tuples.iter().any(|tuple| tuple.lwtunnel.is_some()) {
        true => Cause::RouteTunnel,
        false => Cause::RouteMismatch,
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

// Locks are larger where they are checked.
#[cfg(not(any(CONFIG_DEBUG_SPINLOCK, CONFIG_DEBUG_LOCK_ALLOC, CONFIG_PREEMPT_RT)))]
kernel::build_assert::static_assert!(size_of::<usize>() + size_of::<HwFlow>() <= 192);

// SPDX-License-Identifier: GPL-2.0

//! Connections that are left to the host.
//!
//! An entry whose packets the host would not send as the entry does is torn down, and its connection
//! gets `IPS_NAT_CLASH`, with which `nft_flow_offload_eval()` makes no other entry: the connection is
//! as one without a flowtable. When something has changed, it may make entries again. Users may have a
//! connection left to the host, too, for a time: it is pinned.

use crate::{
    net::{
        namespace::Net,
        notifier::NetRef, //
    },
    netfilter::{
        conntrack::{Conntrack, Direction},
        known::dump_flags, //
    },
    offload::{
        route::{last_marks, HostView, LastPackets},
        why::{Reason, Why}, //
    },
    time::{jiffies64, ms},
    work::{cond_resched, Queue, Work, Worker, Workqueue}, //
};
use kernel::{
    alloc::{flags::GFP_KERNEL_ACCOUNT, Flags},
    new_mutex,
    prelude::*,
    rbtree::RBTree,
    static_lock_class,
    sync::{
        aref::ARef,
        atomic::{Acquire, Atomic, Relaxed},
        Arc,
        LockClassKey,
        Mutex, //
    }, //
};

/// A connection that was left to the host.
struct Left {
    conntrack: ARef<Conntrack>,
    /// [`LeftFlows::changes`] as of the last look.
    changes: u64,
    /// When it may make entries again after any change; in jiffies.
    until: u64,
    /// How often it was left.
    times: u8,
    /// When conntrack would forget it, as of the last look: another time after each packet.
    end: u32,
    /// It may make entries again.
    is_back: bool,
    /// The direction that is to blame, and for what.
    why: (Direction, Why),
    /// What the host did with it: if that changes, it makes entries again.
    view: Option<KBox<HostView>>,
    pin: Option<Pinned>,
}

/// A user has the connection kept in software.
#[derive(Default)]
struct Pinned {
    /// Until then, in jiffies.
    until: u64,
    /// The ports of netlink sockets, as long as these are open.
    owners: KVec<u32>,
}

impl Pinned {
    fn try_clone(&self) -> Result<Self> {
        let mut owners = KVec::new();
        owners.extend_from_slice(&self.owners, dump_flags())?;
        Ok(Self {
            until: self.until,
            owners,
        })
    }

    /// How many sockets there may be.
    const MAX_OWNERS: usize = 16;

    fn is_over(&self, now: u64) -> bool {
        self.owners.is_empty() && now >= self.until
    }
}

/// When a pin ends.
#[derive(Clone, Copy)]
pub(super) enum PinEnd {
    /// In jiffies.
    At(u64),
    /// When the netlink socket with this port is closed.
    SocketClosed(u32),
}

impl Left {
    /// A minute, and twice as long each time. It is a guess that the next entry will be better.
    fn wait(&self) -> u64 {
        ms(60_000) << self.times.saturating_sub(1).min(6)
    }

    fn is_pinned(&self) -> bool {
        self.pin.is_some()
    }

    /// Returns whether the ruleset has let packets of both directions pass since the connection was left; one of
    /// which no packet comes is not waited for long. Does not sleep.
    fn has_passed(&self, now: u64) -> bool {
        let both = Direction::BOTH.map(|dir| self.conntrack.has_passed(dir));

        match both {
            [Some(true), Some(true)] => true,
            // What it keeps the flowtable from is dropped here, too.
            [Some(false), _] | [_, Some(false)] => false,
            [Some(true), None] if !self.conntrack.has_seen_reply() => true,
            _ => !self.conntrack.is_in_hardware() && now + self.wait() >= self.until + ms(4000),
        }
    }
}

/// Returns whether it is not known what the connection's next entry will be like.
fn is_guess((_, why): &(Direction, Why)) -> bool {
    !matches!(why.reason, Reason::NewRuleset | Reason::Ending)
}

/// One that is to be added.
type NewLeft = (ARef<Conntrack>, Option<KBox<HostView>>, (Direction, Why));

/// A connection that is left to the host, as others see it.
#[derive(Clone)]
pub(super) struct LeftFlow {
    pub(super) conntrack: ARef<Conntrack>,
    /// How often it was left.
    pub(super) times: u32,
    /// The direction that is to blame, and for what.
    pub(super) why: (Direction, Why),
}

/// The connections of a namespace that are left to the host.
pub(super) struct LeftFlows {
    net: Arc<NetRef>,
    /// By the address of the conntrack entry, to which each holds a reference.
    flows: Pin<KBox<Mutex<RBTree<usize, Left>>>>,
    /// How many there are; changed with the lock of `flows` held.
    count: Atomic<usize>,
    /// Another one after each [`Self::clear`]; changed with the lock of `flows` held.
    generation: Atomic<u64>,
    /// Another one after each change.
    changes: Atomic<u64>,
    /// Those to be added.
    new: Queue<NewLeft>,
    /// How many are pinned, and how many sockets keep them; changed with the lock of `flows` held.
    pins: Atomic<usize>,
    owners: Atomic<usize>,
    /// The ports of netlink sockets that were closed.
    closed: Queue<u32>,
}

impl LeftFlows {
    /// How often they are looked at.
    const SWEEP_MS: u32 = 1000;
    /// How many are looked at before others may have the lock.
    const BATCH: usize = 64;
    /// How many may be pinned.
    const MAX_PINS: usize = 1024;

    /// Sleeps; fails with `ENOMEM`.
    pub(super) fn new(workqueue: &Arc<Workqueue>, net: &Arc<NetRef>) -> Result<Arc<Worker<Self>>> {
        Worker::new(
            workqueue,
            Self {
                net: net.clone(),
                flows: KBox::pin_init(new_mutex!(RBTree::new()), GFP_KERNEL_ACCOUNT)?,
                count: Atomic::new(0),
                generation: Atomic::new(0),
                changes: Atomic::new(0),
                new: Queue::new(),
                pins: Atomic::new(0),
                owners: Atomic::new(0),
                closed: Queue::new(),
            },
        )
    }

    fn key(conntrack: &Conntrack) -> usize {
        core::ptr::from_ref(conntrack) as usize
    }

    /// Something has changed. Does not sleep.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Relaxed);
    }

    /// Has a connection make no entry, until something changes, unless there are too many of these at a time,
    /// or no memory to remember it: then it returns false. Does not sleep.
    pub(super) fn add_later(
        worker: &Worker<Self>,
        conntrack: &Conntrack,
        view: Option<KBox<HostView>>,
        why: (Direction, Why),
    ) -> bool {
        conntrack.set_no_entry(true);
        let is_queued = worker.new.put((conntrack.into(), view, why));
        if is_queued {
            worker.queue();
        } else {
            conntrack.set_no_entry(false);
        }
        is_queued
    }

    /// Has a connection make no entry until the ruleset, which has changed, has let packets of both directions pass:
    /// by the entry that an answer makes which is under way, those of the other direction would pass it by. Returns
    /// false as [`Self::add_later`] does. Does not sleep.
    pub(super) fn add_until_passed(worker: &Worker<Self>, conntrack: &Conntrack) -> bool {
        conntrack.watch_passing();
        let why = (Direction::Original, Why::new(Reason::NewRuleset));
        Self::add_later(worker, conntrack, None, why)
    }

    /// Has a connection make no entry until those that were torn down are collected, or some of them. Does not sleep.
    pub(super) fn add_until_collected(worker: &Worker<Self>, conntrack: &Conntrack) {
        let why = (Direction::Original, Why::new(Reason::Ending));
        Self::add_later(worker, conntrack, None, why);
    }

    /// Has a connection make no entry, until something changes. Sleeps; fails with `ENOMEM`.
    pub(super) fn add(
        worker: &Worker<Self>,
        conntrack: &Conntrack,
        view: Option<KBox<HostView>>,
        why: (Direction, Why),
    ) -> Result {
        let generation = worker.generation.load(Relaxed);
        Self::add_in(worker, generation, conntrack, view, why)
    }

    /// As [`Self::add`], unless there are no flowtables any more, or others.
    fn add_in(
        worker: &Worker<Self>,
        generation: u64,
        conntrack: &Conntrack,
        view: Option<KBox<HostView>>,
        why: (Direction, Why),
    ) -> Result {
        let mut flows = worker.flows.lock();

        if worker.generation.load(Relaxed) != generation {
            return Err(EAGAIN);
        }
        let left = worker.find_or_insert(&mut flows, conntrack, why, GFP_KERNEL_ACCOUNT)?;
        if left.is_pinned() {
            return Ok(());
        }
        left.changes = worker.changes.load(Relaxed);
        left.times = left.times.saturating_add(is_guess(&why).into());
        left.until = jiffies64() + left.wait();
        left.is_back = false;
        left.why = why;
        let old = core::mem::replace(&mut left.view, view);
        conntrack.set_no_entry(true);
        drop(flows);
        drop(old);
        worker.queue_delayed(ms(Self::SWEEP_MS));
        Ok(())
    }

    /// Returns what is known of a connection, of which nothing is known at first. Fails with `ENOMEM`.
    fn find_or_insert<'a>(
        &self,
        flows: &'a mut RBTree<usize, Left>,
        conntrack: &Conntrack,
        why: (Direction, Why),
        flags: Flags,
    ) -> Result<&'a mut Left> {
        let key = Self::key(conntrack);

        if flows.get(&key).is_none() {
            let left = Left {
                conntrack: conntrack.into(),
                changes: 0,
                until: 0,
                times: 0,
                end: 0,
                is_back: true,
                why,
                view: None,
                pin: None,
            };
            flows.try_create_and_insert(key, left, flags)?;
            self.count.fetch_add(1, Relaxed);
        }
        flows.get_mut(&key).ok_or(EINVAL)
    }

    /// Has a connection make no entry until `end`, and those that were asked for before. Called within a dump:
    /// sleeps, but waits for no memory; fails with `ENOMEM`, or `ENOSPC` if there are too many.
    pub(super) fn pin(worker: &Worker<Self>, conntrack: &Conntrack, end: PinEnd) -> Result {
        let why = (Direction::Original, Why::new(Reason::Pinned));
        let mut flows = worker.flows.lock();
        let known = flows.get(&Self::key(conntrack));
        let mut pin = known
            .and_then(|left| left.pin.as_ref())
            .map_or(Ok(Pinned::default()), Pinned::try_clone)?;
        let is_new = !known.is_some_and(Left::is_pinned);

        if is_new && worker.pins.load(Relaxed) >= Self::MAX_PINS {
            return Err(ENOSPC);
        }
        match end {
            PinEnd::At(until) => pin.until = until,
            PinEnd::SocketClosed(port) if pin.owners.contains(&port) => {}
            PinEnd::SocketClosed(_) if pin.owners.len() >= Pinned::MAX_OWNERS => {
                return Err(ENOSPC)
            }
            PinEnd::SocketClosed(port) => pin.owners.push(port, dump_flags())?,
        }
        let left = worker.find_or_insert(&mut flows, conntrack, why, dump_flags())?;
        let now = pin.owners.len();
        let old = left.pin.replace(pin);
        left.is_back = false;
        left.why = why;
        let view = left.view.take();
        worker.pins.fetch_add(is_new.into(), Relaxed);
        let before = old.as_ref().map_or(0, |old| old.owners.len());
        worker.owners.fetch_add(now - before, Relaxed);
        conntrack.set_no_entry(true);
        drop(flows);
        drop((old, view));
        worker.queue_delayed(ms(Self::SWEEP_MS));
        Ok(())
    }

    /// Lets a connection make entries again that is pinned; returns whether it was. Sleeps.
    pub(super) fn unpin(&self, conntrack: &Conntrack) -> bool {
        let mut flows = self.flows.lock();
        let key = Self::key(conntrack);

        if !flows.get(&key).is_some_and(Left::is_pinned) {
            return false;
        }
        let removed = flows.remove(&key);
        if let Some(left) = &removed {
            self.removed(left);
        }
        conntrack.set_no_entry(false);
        drop(flows);
        drop(removed);
        true
    }

    /// Counts a connection that is removed, with the lock of `flows` held.
    fn removed(&self, left: &Left) {
        self.count.fetch_sub(1, Relaxed);
        if let Some(pin) = &left.pin {
            self.pins.fetch_sub(1, Relaxed);
            self.owners.fetch_sub(pin.owners.len(), Relaxed);
        }
    }

    /// A generic netlink socket is closed. Does not sleep.
    pub(super) fn socket_closed(worker: &Worker<Self>, port: u32) {
        if worker.owners.load(Relaxed) > 0 {
            // If there is no room for it, all pins with an owner end.
            worker.closed.put(port);
            worker.queue();
        }
    }

    /// Ends what was pinned until sockets were closed.
    fn take_owners(&self) {
        let (closed, mut is_lost) = self.closed.take();
        let mut ports = KVec::new();

        for port in closed {
            is_lost |= ports.push(port, GFP_KERNEL).is_err();
        }
        if ports.is_empty() && !is_lost {
            return;
        }
        ports.sort_unstable();
        let mut next = Some(0);
        while let Some(from) = next {
            next = self.take_some_owners(from, |port| is_lost || ports.binary_search(port).is_ok());
            cond_resched();
        }
    }

    /// As [`Self::take_owners`] for a few connections from `from` on. Returns where to go on.
    fn take_some_owners(&self, from: usize, is_closed: impl Fn(&u32) -> bool) -> Option<usize> {
        let mut flows = self.flows.lock();
        let mut cursor = flows.cursor_lower_bound_mut(&from)?;

        for _ in 0..Self::BATCH {
            let (_, left) = cursor.current_mut();
            if let Some(pin) = &mut left.pin {
                let before = pin.owners.len();
                pin.owners.retain(|port| !is_closed(port));
                self.owners.fetch_sub(before - pin.owners.len(), Relaxed);
                if pin.is_over(jiffies64()) {
                    // The next sweep removes it.
                    left.conntrack.set_no_entry(false);
                }
            }
            cursor = cursor.move_next()?;
        }
        Some(*cursor.current().0)
    }

    /// Calls `f` for up to `max` of the connections that make no entries, from `from` on. Returns where to go
    /// on, if there are more. Sleeps; `f` must not wait for the list.
    pub(super) fn some(
        &self,
        from: usize,
        max: usize,
        mut f: impl FnMut(&LeftFlow),
    ) -> Option<usize> {
        let mut flows = self.flows.lock();
        let mut cursor = flows.cursor_lower_bound_mut(&from)?;

        for _ in 0..max {
            let (_, left) = cursor.current();
            if !left.is_back && !left.conntrack.is_dying() {
                f(&LeftFlow {
                    conntrack: left.conntrack.clone(),
                    times: left.times.into(),
                    why: left.why,
                });
            }
            cursor = cursor.move_next()?;
        }
        Some(*cursor.current().0)
    }

    /// The connection has an entry that is followed. Sleeps.
    pub(super) fn forget(&self, conntrack: &Conntrack) {
        if self.count.load(Relaxed) == 0 {
            return;
        }
        let mut flows = self.flows.lock();
        let key = Self::key(conntrack);
        // Its entry was being made when it was pinned, and will be gone.
        if flows.get(&key).is_some_and(Left::is_pinned) {
            return;
        }
        let removed = flows.remove(&key);
        if let Some(left) = &removed {
            left.conntrack.set_no_entry(false);
            self.removed(left);
        }
        drop(flows);
    }

    /// Lets go of all connections but those that are pinned: there are no flowtables. Sleeps.
    pub(super) fn clear(&self) {
        let mut flows = self.flows.lock();
        // What the work has taken out of the queue is not added any more.
        self.generation.fetch_add(1, Relaxed);
        if self.pins.load(Relaxed) > 0 {
            drop(flows);
            self.clear_but_pins();
        } else {
            self.count.store(0, Relaxed);
            let old = core::mem::take(&mut *flows);
            drop(flows);
            for left in old.values() {
                left.conntrack.set_no_entry(false);
            }
        }

        for (conntrack, ..) in self.new.take().0 {
            conntrack.set_no_entry(false);
        }
    }

    fn clear_but_pins(&self) {
        let mut next = Some(0);
        while let Some(from) = next {
            next = self.remove_some(from, |left| {
                if !left.is_pinned() {
                    left.conntrack.set_no_entry(false);
                }
                left.is_pinned()
            });
            cond_resched();
        }
    }

    /// Removes those of a few connections from `from` on that `keeps` does not keep. Returns where to go on.
    fn remove_some(&self, from: usize, mut keeps: impl FnMut(&mut Left) -> bool) -> Option<usize> {
        let mut flows = self.flows.lock();
        let mut cursor = flows.cursor_lower_bound_mut(&from)?;

        for _ in 0..Self::BATCH {
            let (_, left) = cursor.current_mut();
            cursor = if keeps(left) {
                cursor.move_next()?
            } else {
                self.removed(left);
                cursor.remove_current().0?
            };
        }
        Some(*cursor.current().0)
    }

    /// Looks at one connection. Returns whether it is to be kept.
    fn look(&self, left: &mut Left, now: u64) -> bool {
        if left.conntrack.is_dying() {
            return false;
        }
        if left.is_back {
            return now < left.until + left.wait();
        }
        if let Some(pin) = &left.pin {
            let is_over = pin.is_over(now);
            // Others, who do not know of the pin, may have cleared it.
            left.conntrack.set_no_entry(!is_over);
            if is_over {
                return false;
            }
        }
        // Only packets need a way.
        if left.end == left.conntrack.end() {
            return true;
        }
        left.end = left.conntrack.end();
        left.conntrack.assure_left();
        if !left.conntrack.is_in_hardware() {
            left.conntrack.end_liberal();
        }
        if left.is_pinned() {
            return true;
        }

        let changes = self.changes.load(Relaxed);
        let is_changed = changes != left.changes;
        let marks = last_marks(&left.conntrack);
        left.changes = changes;
        let has_changed = match &mut left.view {
            Some(view) if is_changed || view.is_marked_otherwise(marks) => {
                let is_better =
                    |net: &Net| view.has_changed(net, marks) && !view.is_guessed_wrong(net);
                self.net.with(is_better) == Some(true)
            }
            Some(_) => false,
            None if left.why.1.reason == Reason::NewRuleset => left.has_passed(now),
            // A second has passed.
            None if left.why.1.reason == Reason::Ending => true,
            // It was not known by what its packets are routed, or there was no memory.
            None => {
                let is_known = |net: &Net| {
                    matches!(LastPackets::of(&left.conntrack, net), LastPackets::Known(_))
                };
                left.why.1.reason == Reason::RouteMismatch && self.net.with(is_known) == Some(true)
            }
        };
        let is_guess = is_guess(&left.why);
        let is_back = has_changed || is_changed && now >= left.until && is_guess;
        if is_back {
            left.is_back = true;
            left.conntrack.set_no_entry(false);
        }
        // Of which nothing is to be remembered.
        !(is_back && !is_guess && left.times == 0)
    }
}

impl Drop for LeftFlows {
    fn drop(&mut self) {
        self.clear();
        for left in self.flows.lock().values() {
            left.conntrack.set_no_entry(false);
        }
    }
}

impl Work for LeftFlows {
    fn lock_classes() -> [Pin<&'static LockClassKey>; 2] {
        [static_lock_class!(), static_lock_class!()]
    }

    fn run(&self, worker: &Worker<Self>) {
        let generation = self.generation.load(Acquire);

        for (conntrack, view, why) in self.new.take().0 {
            if Self::add_in(worker, generation, &conntrack, view, why).is_err() {
                // As if the queue had lost it.
                conntrack.set_no_entry(false);
            }
            cond_resched();
        }
        self.take_owners();
    }

    fn run_delayed(&self, worker: &Worker<Self>) {
        let now = jiffies64();
        let mut next = Some(0);

        while let Some(from) = next {
            next = self.remove_some(from, |left| self.look(left, now));
            cond_resched();
        }
        if self.count.load(Relaxed) > 0 {
            worker.queue_delayed(ms(Self::SWEEP_MS));
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Entries of tables without `flags offload`, of which the core tells nothing.
//!
//! Garbage collection comes to each once a second, and has a work look up the way of a new one, and of all
//! that a change may concern; nothing is kept for an entry but a number, after which change that was.

use crate::{
    net::{
        device::MacAddress,
        flow_rule::IPPROTO_GRE,
        namespace::Net,
        notifier::NetRef,
        route::Marks, //
    },
    netfilter::{
        conntrack::{Conntrack, Direction},
        flow::{EntryKey, Flow, FlowOffload, ENCAP_MAX},
        flowtable::Tables, //
    },
    offload::{
        aging::{self, Age},
        left::LeftFlows,
        monitor::Monitor,
        route::{FlowRoute, ForwardPath, HostView, LastPackets, NoRoute},
        stale::{Answer, StaleEntryFilter},
        table::Table,
        why::{Reason, Why}, //
    },
    time::{jiffies64, ms},
    work::{cond_resched, Queue, Work, Worker, Workqueue}, //
};
use core::net::IpAddr;
use kernel::{
    prelude::*,
    static_lock_class,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed},
        Arc,
        LockClassKey, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
};

/// What has changed in a namespace, and how many entries may be looked at for that.
struct Changes {
    /// Another one after each change of routes, rules, settings and devices.
    routes: Atomic<u32>,
    /// Another one after each change that may concern frames to MAC addresses of this hash.
    macs: [Atomic<u32>; Self::MACS],
    /// To which of these are frames that go to the neighbours of this hash: a bit each.
    of_neighbours: [[Atomic<u64>; Self::MACS / 64]; Self::NEIGHBOURS],
    /// When the last change was, in jiffies.
    last: Atomic<u64>,
    /// In which second entries have been counted.
    second: Atomic<u32>,
    /// So many have not been looked at since a change.
    outdated: Atomic<u32>,
    /// One of so many is looked at.
    share: Atomic<u32>,
}

/// A number for bytes that few others have.
fn hash(bytes: &[u8]) -> usize {
    let hash = bytes.iter().fold(0, |hash: u32, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });

    (hash.wrapping_mul(0x9e37_79b1) >> 16) as usize
}

impl Changes {
    /// Look-ups in a second.
    const MAX: u32 = 16384;
    const MACS: usize = 256;
    const NEIGHBOURS: usize = 64;

    fn new() -> Self {
        Self {
            routes: Atomic::new(1),
            macs: [const { Atomic::new(0) }; Self::MACS],
            of_neighbours: [const { [const { Atomic::new(0) }; Self::MACS / 64] };
                Self::NEIGHBOURS],
            last: Atomic::new(0),
            second: Atomic::new(0),
            outdated: Atomic::new(0),
            share: Atomic::new(1),
        }
    }

    fn route_changed(&self) {
        self.last.store(jiffies64(), Relaxed);
        self.routes.fetch_add(1, Full);
    }

    fn mac(mac: &MacAddress) -> usize {
        hash(mac) % Self::MACS
    }

    fn mac_changed(&self, mac: &MacAddress) {
        self.last.store(jiffies64(), Relaxed);
        self.macs[Self::mac(mac)].fetch_add(1, Full);
    }

    fn of_neighbour(&self, ifindex: u32, addr: IpAddr) -> &[Atomic<u64>; Self::MACS / 64] {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&ifindex.to_ne_bytes());
        match addr {
            IpAddr::V4(addr) => bytes[4..8].copy_from_slice(&addr.octets()),
            IpAddr::V6(addr) => bytes[4..].copy_from_slice(&addr.octets()),
        }
        &self.of_neighbours[hash(&bytes) % Self::NEIGHBOURS]
    }

    /// Notes that frames of an entry to `mac` go to this neighbour. Returns whether a change of that has been
    /// told before this, so that it was not taken for one that concerns the entry.
    fn note_neighbour(&self, ifindex: u32, addr: IpAddr, mac: &MacAddress) -> bool {
        let mac = Self::mac(mac);
        let macs = &self.of_neighbour(ifindex, addr)[mac / 64];
        let bit = 1 << (mac % 64);
        let mut old = macs.load(Relaxed);

        while old & bit == 0 {
            match macs.cmpxchg(old, old | bit, Full) {
                Ok(_) => return true,
                Err(now) => old = now,
            }
        }
        false
    }

    fn neighbour_changed(&self, ifindex: u32, addr: IpAddr) {
        let macs = self.of_neighbour(ifindex, addr);

        for (mac, count) in self.macs.iter().enumerate() {
            if macs[mac / 64].load(Relaxed) & 1 << (mac % 64) != 0 {
                self.last.store(jiffies64(), Relaxed);
                count.fetch_add(1, Full);
            }
        }
    }

    /// An odd number that is another one after each change that may concern the entry.
    fn stamp(&self, entry: &FlowOffload) -> usize {
        // Of other neighbours, the fast path asks by itself.
        let macs = Direction::BOTH
            .iter()
            .filter_map(|&dir| entry.direct_dest(dir));

        self.stamp_of(macs)
    }

    fn stamp_of(&self, macs: impl Iterator<Item = MacAddress>) -> usize {
        const BITS: u32 = usize::BITS / 2;
        let paths = macs.fold(0, |sum: u32, mac| {
            sum.wrapping_add(self.macs[Self::mac(&mac)].load(Acquire))
        });

        (self.routes.load(Acquire) as usize) << BITS | (paths as usize) << 1 & ((1 << BITS) - 1) | 1
    }

    /// Returns whether the entry with this number, which has not been looked at since a change, is looked at
    /// in this second.
    fn is_next(&self, number: u32, second: u32) -> bool {
        if self.second.xchg(second, Relaxed) != second {
            let outdated = self.outdated.xchg(0, Relaxed);
            self.share.store(outdated / Self::MAX + 1, Relaxed);
        }
        let count = self.outdated.fetch_add(1, Relaxed);
        // Always the same ones are the first of a table.
        match self.share.load(Relaxed) {
            1 => count < Self::MAX,
            share => number.wrapping_add(second).checked_rem(share) == Some(0),
        }
    }
}

/// Looks at the entries of a namespace.
pub(super) struct PlainEntries {
    net: Arc<NetRef>,
    tables: Arc<Tables<Table>>,
    changes: Changes,
    stale: Arc<StaleEntryFilter>,
    left: Arc<Worker<LeftFlows>>,
    /// Those to be looked at. What gets lost comes again.
    outdated: Queue<EntryKey>,
}

/// What `find` finds for an entry's packets, if they go as the host would send them.
fn by_last_packets<T>(
    net: &Net,
    entry: &FlowOffload,
    find: impl Fn([Marks; 2]) -> Result<T, NoRoute>,
) -> Result<T, Option<NoRoute>> {
    match LastPackets::of(entry.conntrack(), net) {
        LastPackets::Known(marks) => find(marks).map_err(Some),
        // The next packets tell.
        LastPackets::Unknown => [entry.conntrack().mark(), 0]
            .into_iter()
            .find_map(|mark| find([Marks::only(mark); 2]).ok())
            .ok_or(None),
    }
}

/// Why a connection whose route is not found is left to the host.
fn why(refused: Option<(Direction, Error)>) -> (Direction, Why) {
    match refused {
        Some((dir, error)) => (dir, Why::of_not_forwarded(error)),
        None => (Direction::Original, Why::new(Reason::RouteMismatch)),
    }
}

/// How an entry's packets go.
enum Way {
    /// As the host would send them.
    Right,
    /// As the host would send them now; changes before this may not have been counted for the entry.
    Unwatched,
    /// In another way. The entry is to go: its connection makes another one, or, if that would be no better, is
    /// left to the host.
    Wrong,
}

impl PlainEntries {
    /// Look-ups may take long, by rules and policies: after this time, the work sleeps for as long.
    const SLICE_MS: u32 = 4;

    /// Sleeps; fails with `ENOMEM`.
    pub(super) fn new(
        workqueue: &Arc<Workqueue>,
        net: &Arc<NetRef>,
        tables: &Arc<Tables<Table>>,
        stale: &Arc<StaleEntryFilter>,
        left: &Arc<Worker<LeftFlows>>,
    ) -> Result<Arc<Worker<Self>>> {
        Worker::new(
            workqueue,
            Self {
                net: net.clone(),
                tables: tables.clone(),
                changes: Changes::new(),
                stale: stale.clone(),
                left: left.clone(),
                outdated: Queue::bounded(Changes::MAX),
            },
        )
    }

    /// Routes, rules, settings or devices have changed. Does not sleep.
    pub(super) fn route_changed(&self) {
        self.changes.route_changed();
    }

    /// A bridge has found the address elsewhere. Does not sleep.
    pub(super) fn mac_changed(&self, mac: &MacAddress) {
        self.changes.mac_changed(mac);
    }

    /// A neighbour has changed. Does not sleep.
    pub(super) fn neighbour_changed(&self, ifindex: u32, addr: IpAddr) {
        self.changes.neighbour_changed(ifindex, addr);
    }

    /// Has an entry looked at if something may have changed that concerns it. Does not sleep.
    fn look_later(worker: &Worker<Self>, entry: &FlowOffload) {
        let second = jiffies64().checked_div(ms(1000)).unwrap_or(0) as u32;
        let stamp = entry.stamp();

        if stamp.is_some()
            && stamp != Some(worker.changes.stamp(entry))
            && worker.changes.is_next(entry.number(), second)
            && worker.outdated.put(entry.key())
        {
            worker.queue();
        }
    }

    /// Looks at an entry. Does not sleep.
    fn look(&self, net: &Net, entry: &FlowOffload) {
        let stamp = self.changes.stamp(entry);
        let Some(last) = entry.stamp().filter(|&last| last != stamp) else {
            return;
        };
        match self.way(net, entry) {
            Way::Right => entry.set_stamp(last, stamp),
            Way::Unwatched => {}
            Way::Wrong => entry.teardown(),
        }
    }

    /// An entry's packets go by these paths, as far as these are to be followed; `view` is what the host does
    /// with them.
    fn way_by(
        &self,
        entry: &FlowOffload,
        paths: [Option<&ForwardPath>; 2],
        view: impl FnOnce() -> Option<KBox<HostView>>,
    ) -> Way {
        // The fast path gives no priority.
        if paths
            .iter()
            .flatten()
            .any(|path| path.priorities() != Some([0; ENCAP_MAX]))
        {
            let why = (Direction::Original, Why::new(Reason::VaryingPriority));
            LeftFlows::add_later(&self.left, entry.conntrack(), view(), why);
            return Way::Wrong;
        }

        let mut is_new = false;
        for (dir, path) in Direction::BOTH.into_iter().zip(paths) {
            let Some(path) = path else {
                continue;
            };
            entry.limit_mtu(dir, path.mtu());
            if let Some(mac) = entry.direct_dest(dir) {
                is_new |= self
                    .changes
                    .note_neighbour(path.ifindex, path.neighbour, &mac);
            }
        }
        self.stale.forget(entry.conntrack());
        if is_new {
            Way::Unwatched
        } else {
            Way::Right
        }
    }

    /// The core asks for the policies of what goes through IPsec, and for nothing else.
    fn way_beside_ipsec(
        &self,
        net: &Net,
        entry: &FlowOffload,
        flow: &Flow,
        is_ipsec: [bool; 2],
    ) -> Way {
        let find = |marks| FlowRoute::find_beside_ipsec(net, flow, is_ipsec, marks);
        match by_last_packets(net, entry, find) {
            Ok(paths) => self.way_by(entry, paths.each_ref().map(Option::as_ref), || None),
            Err(none) => {
                let NoRoute { refused, view } = none.unwrap_or_default();
                if refused.is_some() || self.was_wrong(entry.conntrack()) {
                    LeftFlows::add_later(&self.left, entry.conntrack(), view, why(refused));
                }
                Way::Wrong
            }
        }
    }

    /// Notes that an entry of the connection is wrong. Returns whether the last one was as well.
    fn was_wrong(&self, conntrack: &Conntrack) -> bool {
        let changed = self.changes.last.load(Relaxed);
        let answer = self
            .stale
            .note(conntrack, jiffies64(), changed, ms(1000) as u32);

        answer == Answer::Again
    }

    fn way(&self, net: &Net, entry: &FlowOffload) -> Way {
        let mut flow = Flow::new();
        if entry.describe(net, &mut flow).is_none() {
            return Way::Right;
        }
        let is_tunnel = flow
            .tuples
            .iter()
            .any(|tuple| tuple.tunnel || tuple.lwtunnel.is_some());
        if is_tunnel {
            return Way::Right;
        }
        let is_ipsec = Direction::BOTH.map(|dir| entry.is_ipsec(dir));
        if is_ipsec != [false; 2] {
            return self.way_beside_ipsec(net, entry, &flow, is_ipsec);
        }

        let find = |marks| FlowRoute::find(net, &flow, marks);
        let none = match by_last_packets(net, entry, find) {
            Ok(route) => {
                let paths = route.hops().map(|(path, _)| Some(path));
                return self.way_by(entry, paths, || route.view());
            }
            Err(none) => none,
        };
        // Left to the host without its view of them, packets soon tell by what they are routed.
        let NoRoute { refused, view } = none.unwrap_or_default();
        let conntrack = entry.conntrack();
        let is_hopeless = view.as_ref().is_some_and(|view| view.is_guessed_wrong(net));
        if refused.is_some() || is_hopeless || self.was_wrong(conntrack) {
            LeftFlows::add_later(&self.left, conntrack, view, why(refused));
        }
        Way::Wrong
    }
}

impl Work for PlainEntries {
    fn lock_classes() -> [Pin<&'static LockClassKey>; 2] {
        [static_lock_class!(), static_lock_class!()]
    }

    fn run(&self, _worker: &Worker<Self>) {
        let mut since = jiffies64();

        for key in self.outdated.take().0 {
            let look = |net: &Net| self.tables.with_plain(&key, |entry| self.look(net, entry));
            // The end of the namespace waits for one at most.
            if self.net.with(look).is_none() {
                break;
            }
            cond_resched();
            if jiffies64() - since >= ms(Self::SLICE_MS) {
                fsleep(Delta::from_millis(Self::SLICE_MS.into()));
                since = jiffies64();
            }
        }
    }
}

/// Looks at an entry once a second. Returns whether it is to go. Does not sleep.
pub(super) fn gc(monitor: Option<&Monitor>, entry: &FlowOffload) -> bool {
    let conntrack = entry.conntrack();
    if entry.l4proto() == IPPROTO_GRE {
        // Nothing tells when the core tears it down, so that conntrack's timeouts cannot be held.
        let now = jiffies64() as u32;
        conntrack.hold_gre(false);
        let age = Age::of(entry, now, now);
        if conntrack.is_assured() {
            conntrack.set_no_entry(true);
        }
        age.conclude(entry, now);
        return true;
    }

    entry.limit_mtu_by_route();
    if let Some(monitor) = monitor {
        PlainEntries::look_later(monitor.plain(), entry);
    }
    aging::gc_in_software(monitor.map(Monitor::left), entry)
}

#[kernel::macros::kunit_tests(nft_offload_plain)]
mod tests {
    use super::*;

    /// How many of the entries with these numbers are looked at in a second.
    fn look(changes: &Changes, outdated: &mut KVec<u32>, second: u32) -> usize {
        let before = outdated.len();
        outdated.retain(|&mut number| !changes.is_next(number, second));
        before - outdated.len()
    }

    #[test]
    fn all_entries_are_looked_at_and_not_too_many_at_a_time() -> Result {
        const MAX: u32 = Changes::MAX;
        for count in [1, MAX, MAX + 1, 5 * MAX / 2] {
            let changes = Changes::new();
            let mut outdated = KVec::with_capacity(count as usize, GFP_KERNEL)?;
            for number in 0..count {
                outdated.push(number, GFP_KERNEL)?;
            }
            let mut seconds = 0;
            while !outdated.is_empty() {
                seconds += 1;
                assert!(look(&changes, &mut outdated, seconds) <= MAX as usize);
                if seconds > 20 {
                    break;
                }
            }
            assert!(seconds <= 2 * count.div_ceil(MAX));
        }
        Ok(())
    }

    #[test]
    fn no_entry_is_left_out_where_all_changes_each_second() {
        let changes = Changes::new();
        let mut looked = [0u32; 4];

        for second in 1..=40 {
            for number in 0..4 * Changes::MAX {
                if changes.is_next(number, second) {
                    looked[number as usize % 4] += 1;
                }
            }
        }
        assert!(looked.iter().all(|&count| count >= 7 * Changes::MAX));
    }

    fn stamp(changes: &Changes, mac: u8) -> usize {
        changes.stamp_of([[2, 0, 0, 0, 0, mac]].into_iter())
    }

    #[test]
    fn a_mac_address_concerns_few_others() {
        let changes = Changes::new();
        let before: [_; 200] = core::array::from_fn(|mac| stamp(&changes, mac as u8));

        changes.mac_changed(&[2, 0, 0, 0, 0, 7]);
        let changed = |&mac: &usize| stamp(&changes, mac as u8) != before[mac];
        assert!(changed(&7));
        assert!((0..200).filter(changed).count() < 10);
        changes.route_changed();
        assert_eq!((0..200).filter(changed).count(), 200);
    }

    #[test]
    fn a_neighbour_concerns_the_addresses_that_were_its_own() {
        let changes = Changes::new();
        let addr = |last| IpAddr::from([192, 0, 2, last]);
        let before: [_; 200] = core::array::from_fn(|mac| stamp(&changes, mac as u8));
        let changed = |&mac: &usize| stamp(&changes, mac as u8) != before[mac];

        for last in 0..200 {
            changes.neighbour_changed(1, addr(last));
        }
        assert_eq!((0..200).filter(changed).count(), 0);
        for mac in [7, 8] {
            assert!(changes.note_neighbour(1, addr(1), &[2, 0, 0, 0, 0, mac]));
            assert!(!changes.note_neighbour(1, addr(1), &[2, 0, 0, 0, 0, mac]));
        }
        changes.neighbour_changed(1, addr(1));
        assert!(changed(&7) && changed(&8));
        assert!((0..200).filter(changed).count() < 20);
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The flows of a namespace by forward path and by destination.

use crate::{
    net::device::MacAddress,
    netfilter::conntrack::Direction,
    offload::{
        hw_flow::HwFlow,
        route::{FlowRoute, ForwardPath}, //
    },
};
use core::net::IpAddr;
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    new_mutex,
    prelude::*,
    rbtree::{RBTree, RBTreeNodeReservation},
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed},
        Arc,
        LockedBy,
        Mutex, //
    }, //
};

/// Finds the flows that an event may concern, so that it costs in proportion to these.
///
/// Flows share their paths and destinations: there are as many paths as neighbours that get packets.
/// Events of neighbours, bridges and devices look at paths first, and at flows only if the path has
/// changed. A flow costs a pointer in each of its two destinations.
///
/// All walks go one step at a time, and nothing is held between two steps. None misses what is there
/// from its beginning to its end.
#[pin_data]
pub(super) struct Index {
    #[pin]
    maps: Mutex<Maps>,
    macs: MacFilter,
}

/// What the index is made of.
pub(super) struct Maps {
    paths: RBTree<ForwardPath, Arc<Path>>,
    /// By address, then number of the path.
    destinations: RBTree<(IpAddr, u64), Arc<Destination>>,
    /// Addresses to which flows are or were translated.
    nat: RBTree<IpAddr, ()>,
    last: u64,
}

/// A forward path that is in use.
pub(super) struct Path {
    number: u64,
    pub(super) forward: ForwardPath,
    destinations: LockedBy<KVec<Arc<Destination>>, Maps>,
}

/// An address that gets packets by a path.
pub(super) struct Destination {
    addr: IpAddr,
    path: Arc<Path>,
    at: LockedBy<usize, Maps>,
    flows: LockedBy<KVVec<Arc<HwFlow>>, Maps>,
}

impl Destination {
    /// Returns the path by which the address gets packets.
    pub(super) fn path(&self) -> &Arc<Path> {
        &self.path
    }
}

/// Where a flow is in the index: a destination for each direction, and which of that one's flows it is.
#[derive(Default)]
pub(super) struct Place {
    destinations: [Option<Arc<Destination>>; 2],
    at: [u32; 2],
}

/// The addresses that begin with `len` bits of `addr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) addr: IpAddr,
    pub(super) len: u8,
}

impl Prefix {
    fn mask(addr: IpAddr, len: u8) -> IpAddr {
        match addr {
            IpAddr::V4(addr) => {
                let mask = u32::MAX
                    .checked_shl(32_u32.saturating_sub(len.into()))
                    .unwrap_or(0);
                IpAddr::from((u32::from(addr) & mask).to_be_bytes())
            }
            IpAddr::V6(addr) => {
                let mask = u128::MAX
                    .checked_shl(128_u32.saturating_sub(len.into()))
                    .unwrap_or(0);
                IpAddr::from((u128::from(addr) & mask).to_be_bytes())
            }
        }
    }

    fn first(self) -> IpAddr {
        Self::mask(self.addr, self.len)
    }

    fn contains(self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.addr.is_ipv4() && Self::mask(addr, self.len) == self.first()
    }
}

/// Tells most MAC addresses that no path leads to from those that one does, without a lock.
struct MacFilter {
    bits: [Atomic<u64>; 64],
    /// Another one after each address that was not there before.
    generation: Atomic<u64>,
}

impl MacFilter {
    fn new() -> Self {
        Self {
            bits: core::array::from_fn(|_| Atomic::new(0)),
            generation: Atomic::new(0),
        }
    }

    /// Returns the word and the bit of an address.
    fn bit(&self, mac: MacAddress) -> (&Atomic<u64>, u64) {
        let [.., a, b, c, d, e] = mac;
        let number =
            u64::from_be_bytes([0, 0, 0, a, b, c, d, e]).wrapping_mul(0x9e37_79b9_7f4a_7c15);

        (
            &self.bits[(number >> 58) as usize],
            1 << (number >> 52 & 63),
        )
    }

    fn add(&self, mac: MacAddress) {
        let (word, bit) = self.bit(mac);
        // Paths are added one at a time.
        let old = word.load(Relaxed);
        if old & bit == 0 {
            word.store(old | bit, Relaxed);
            // Pairs with `may_have`: who does not see the bit has changed what is looked up after this.
            self.generation.fetch_add(1, Full);
        }
    }

    fn may_have(&self, mac: MacAddress) -> bool {
        let (word, bit) = self.bit(mac);
        self.generation.fetch_add(0, Full);
        word.load(Relaxed) & bit != 0
    }
}

/// Removes the element at `at`, whose place the last one takes, and returns that one.
fn swap_remove<T, A: kernel::alloc::Allocator>(
    vec: &mut kernel::alloc::Vec<T, A>,
    at: usize,
) -> Option<(T, Option<&T>)> {
    let last = vec.pop()?;

    match vec.get_mut(at) {
        Some(slot) => {
            let removed = core::mem::replace(slot, last);
            Some((removed, vec.get(at)))
        }
        None => Some((last, None)),
    }
}

impl Index {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            maps <- new_mutex!(Maps {
                paths: RBTree::new(),
                destinations: RBTree::new(),
                nat: RBTree::new(),
                last: 0,
            }),
            macs: MacFilter::new(),
        })
    }

    /// Makes the place of a flow that is not in the index.
    pub(super) fn place(&self) -> LockedBy<Place, Maps> {
        LockedBy::new(&self.maps, Place::default())
    }

    fn path(&self, maps: &mut Maps, forward: &ForwardPath) -> Result<Arc<Path>> {
        if let Some(path) = maps.paths.get(forward) {
            return Ok(path.clone());
        }
        maps.last += 1;
        let path = Path {
            number: maps.last,
            forward: *forward,
            destinations: LockedBy::new(&self.maps, KVec::new()),
        };
        let path = Arc::new(path, GFP_KERNEL_ACCOUNT)?;
        maps.paths
            .try_create_and_insert(*forward, path.clone(), GFP_KERNEL_ACCOUNT)?;
        self.macs.add(forward.dmac());
        Ok(path)
    }

    fn destination(
        &self,
        maps: &mut Maps,
        forward: &ForwardPath,
        addr: IpAddr,
    ) -> Result<Arc<Destination>> {
        // Mostly there is one, by this path.
        let first = maps.destinations.cursor_lower_bound(&(addr, 0));
        if let Some((_, found)) = first.as_ref().map(|cursor| cursor.current()) {
            if found.addr == addr && found.path.forward == *forward {
                return Ok(found.clone());
            }
        }
        let path = self.path(maps, forward)?;
        let key = (addr, path.number);
        if let Some(found) = maps.destinations.get(&key) {
            return Ok(found.clone());
        }

        let node = RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT);
        let at = path.destinations.access(maps).len();
        let destination = Arc::new(
            Destination {
                addr,
                path: path.clone(),
                at: LockedBy::new(&self.maps, at),
                flows: LockedBy::new(&self.maps, KVVec::new()),
            },
            GFP_KERNEL_ACCOUNT,
        );
        let result = node.and_then(|node| {
            let destination = destination?;
            path.destinations
                .access_mut(maps)
                .push(destination.clone(), GFP_KERNEL_ACCOUNT)?;
            maps.destinations
                .insert(node.into_node(key, destination.clone()));
            Ok(destination)
        });
        result.inspect_err(|_| Self::forget_path(maps, &path))
    }

    fn forget_path(maps: &mut Maps, path: &Path) {
        if path.destinations.access(maps).is_empty() {
            maps.paths.remove(&path.forward);
        }
    }

    fn add(
        &self,
        maps: &mut Maps,
        (forward, addr): (&ForwardPath, IpAddr),
        flow: &Arc<HwFlow>,
        dir: Direction,
    ) -> Result {
        let destination = self.destination(maps, forward, addr)?;
        let flows = destination.flows.access_mut(maps);
        let at = flows.len();

        if let Err(error) = flows.push(flow.clone(), GFP_KERNEL_ACCOUNT) {
            Self::forget_destination(maps, &destination);
            return Err(error.into());
        }
        let place = flow.place().access_mut(maps);
        place.at[dir as usize] = at as u32;
        place.destinations[dir as usize] = Some(destination);
        Ok(())
    }

    fn forget_destination(maps: &mut Maps, destination: &Destination) {
        if !destination.flows.access(maps).is_empty() {
            return;
        }
        let path = &destination.path;
        let at = *destination.at.access(maps);

        maps.destinations.remove(&(destination.addr, path.number));
        let moved = swap_remove(path.destinations.access_mut(maps), at)
            .and_then(|(_, moved)| moved.cloned());
        if let Some(moved) = moved {
            *moved.at.access_mut(maps) = at;
        }
        Self::forget_path(maps, path);
    }

    /// Takes a flow out of the destination of a direction; returns references to be dropped without the
    /// lock.
    fn take(
        maps: &mut Maps,
        flow: &HwFlow,
        dir: Direction,
    ) -> Option<(Arc<Destination>, Arc<HwFlow>)> {
        let place = flow.place().access_mut(maps);
        let destination = place.destinations[dir as usize].take()?;
        let at = place.at[dir as usize];

        let (removed, moved) = swap_remove(destination.flows.access_mut(maps), at as usize)?;
        if let Some(moved) = moved.cloned() {
            let last = destination.flows.access(maps).len() as u32;
            let place = moved.place().access_mut(maps);
            for dir in Direction::BOTH {
                let here = place.destinations[dir as usize]
                    .as_ref()
                    .is_some_and(|found| Arc::ptr_eq(found, &destination));
                if here && place.at[dir as usize] == last {
                    place.at[dir as usize] = at;
                }
            }
        }
        Self::forget_destination(maps, &destination);
        Some((destination, removed))
    }

    /// Adds a flow with this route, which is not in the index yet. Sleeps; fails with `ENOMEM`.
    pub(super) fn insert(
        &self,
        route: &FlowRoute,
        nat: [Option<IpAddr>; 2],
        flow: &Arc<HwFlow>,
    ) -> Result {
        let [original, reply] = route.hops();
        let mut maps = self.maps.lock();

        for addr in nat.into_iter().flatten() {
            if maps.nat.get(&addr).is_none() {
                maps.nat
                    .try_create_and_insert(addr, (), GFP_KERNEL_ACCOUNT)?;
            }
        }
        self.add(&mut maps, original, flow, Direction::Original)?;
        self.add(&mut maps, reply, flow, Direction::Reply)
            .inspect_err(|_| drop(Self::take(&mut maps, flow, Direction::Original)))
    }

    /// Takes a flow out, if it is in the index. The caller has a reference to it. Sleeps.
    pub(super) fn remove(&self, flow: &HwFlow) {
        let mut maps = self.maps.lock();
        let removed = Direction::BOTH.map(|dir| Self::take(&mut maps, flow, dir));

        drop(maps);
        drop(removed);
    }

    /// Returns the paths of both directions of a flow that is in the index. Sleeps.
    pub(super) fn paths_of(&self, flow: &HwFlow) -> Option<[Arc<Path>; 2]> {
        let maps = self.maps.lock();
        let [original, reply] = &flow.place().access(&maps).destinations;

        Some([
            original.as_ref()?.path().clone(),
            reply.as_ref()?.path().clone(),
        ])
    }

    /// Returns a number that is another one after each path to a MAC address whose changes were of no interest
    /// before. Does not sleep.
    pub(super) fn mac_generation(&self) -> u64 {
        self.macs.generation.load(Acquire)
    }

    /// Returns whether a path may lead to this MAC address. Does not sleep.
    pub(super) fn may_have_dmac(&self, mac: MacAddress) -> bool {
        self.macs.may_have(mac)
    }

    /// Returns whether flows are or were translated to this address. Sleeps.
    pub(super) fn has_nat(&self, addr: IpAddr) -> bool {
        self.maps.lock().nat.get(&addr).is_some()
    }

    /// The first path that is not before `from`.
    fn path_from(&self, from: &ForwardPath) -> Option<Arc<Path>> {
        let maps = self.maps.lock();
        let cursor = maps.paths.cursor_lower_bound(from)?;
        Some(cursor.current().1.clone())
    }

    /// The first path after `path`.
    fn path_after(&self, path: &ForwardPath) -> Option<Arc<Path>> {
        let maps = self.maps.lock();
        let cursor = maps.paths.cursor_lower_bound(path)?;
        let (found, next) = cursor.current();
        if found == path {
            return Some(cursor.peek_next()?.1.clone());
        }
        Some(next.clone())
    }

    /// Returns the paths from `first` on, one after the other. Sleeps.
    pub(super) fn paths_after(&self, first: &ForwardPath) -> impl Iterator<Item = Arc<Path>> + '_ {
        core::iter::successors(self.path_from(first), |path| self.path_after(&path.forward))
    }

    /// Returns all paths, one after the other. Sleeps.
    pub(super) fn paths(&self) -> impl Iterator<Item = Arc<Path>> + '_ {
        self.paths_after(&ForwardPath::first_to(0, IpAddr::from([0; 4])))
    }

    /// Returns the destinations of a path. From the end, as the last one takes the place of one that
    /// goes.
    fn destinations_of<'a>(
        &'a self,
        path: &'a Path,
    ) -> impl Iterator<Item = Arc<Destination>> + 'a {
        let mut at = usize::MAX;

        core::iter::from_fn(move || {
            let maps = self.maps.lock();
            let destinations = path.destinations.access(&maps);
            at = at.min(destinations.len()).checked_sub(1)?;
            Some(destinations[at].clone())
        })
    }

    /// Returns the flows to a destination, and in which direction, one after the other. Sleeps.
    pub(super) fn flows_to<'a>(
        &'a self,
        destination: Arc<Destination>,
    ) -> impl Iterator<Item = (Arc<HwFlow>, Direction)> + 'a {
        let mut at = usize::MAX;

        core::iter::from_fn(move || {
            let maps = self.maps.lock();
            let flows = destination.flows.access(&maps);
            at = at.min(flows.len()).checked_sub(1)?;
            let flow = flows[at].clone();
            let place = flow.place().access(&maps);
            let is_original = place.at[0] as usize == at
                && place.destinations[0]
                    .as_ref()
                    .is_some_and(|found| Arc::ptr_eq(found, &destination));
            let dir = if is_original {
                Direction::Original
            } else {
                Direction::Reply
            };
            drop(maps);
            Some((flow, dir))
        })
    }

    /// Returns the flows that take a path, and in which direction, one after the other. Sleeps.
    pub(super) fn flows_by<'a>(
        &'a self,
        path: &'a Path,
    ) -> impl Iterator<Item = (Arc<HwFlow>, Direction)> + 'a {
        self.destinations_of(path)
            .flat_map(|destination| self.flows_to(destination))
    }

    /// Returns the destinations in `prefix`, one after the other. Sleeps.
    pub(super) fn destinations_in(
        &self,
        prefix: Prefix,
    ) -> impl Iterator<Item = Arc<Destination>> + '_ {
        let from = move |from: (IpAddr, u64)| {
            let maps = self.maps.lock();
            let cursor = maps.destinations.cursor_lower_bound(&from)?;
            let (&(addr, _), destination) = cursor.current();
            prefix.contains(addr).then(|| destination.clone())
        };

        core::iter::successors(from((prefix.first(), 0)), move |found| {
            from((found.addr, found.path.number + 1))
        })
    }
}

#[kernel::macros::kunit_tests(nft_offload_index)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_contains_what_begins_with_it() {
        let v4 = |a, b, c, d| IpAddr::from([a, b, c, d]);
        let prefix = |addr, len| Prefix { addr, len };

        assert!(prefix(v4(10, 1, 0, 0), 16).contains(v4(10, 1, 255, 1)));
        assert!(!prefix(v4(10, 1, 0, 0), 16).contains(v4(10, 2, 0, 0)));
        assert!(prefix(v4(0, 0, 0, 0), 0).contains(v4(255, 0, 0, 1)));
        assert!(prefix(v4(10, 1, 0, 7), 32).contains(v4(10, 1, 0, 7)));
        assert!(!prefix(v4(10, 1, 0, 7), 32).contains(v4(10, 1, 0, 6)));
        assert_eq!(prefix(v4(10, 1, 2, 3), 12).first(), v4(10, 0, 0, 0));

        let v6 = |first: u16, last: u16| IpAddr::from([first, 0, 0, 0, 0, 0, 0, last]);
        assert!(prefix(v6(0xfd00, 0), 8).contains(v6(0xfdff, 1)));
        assert!(!prefix(v6(0xfd00, 0), 8).contains(v6(0xfe00, 1)));
        assert!(prefix(v6(0, 0), 0).contains(v6(0xffff, 0xffff)));
        assert!(!prefix(v6(0, 0), 0).contains(v4(1, 2, 3, 4)));
    }

    #[test]
    fn a_mac_address_that_was_added_is_had() {
        let filter = MacFilter::new();
        let mac = |last| [2, 0, 0, 0, 1, last];

        filter.add(mac(7));
        assert!(filter.may_have(mac(7)));
        assert!((0..=255).filter(|&last| filter.may_have(mac(last))).count() < 8);
    }
}

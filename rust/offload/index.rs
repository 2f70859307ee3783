// SPDX-License-Identifier: GPL-2.0

//! Which flows take which way, and which go where.

use crate::{
    netfilter::flow::Connection,
    offload::{
        record::Record,
        way::{Way, Ways}, //
    },
};
use core::net::IpAddr;
use kernel::{
    new_mutex,
    prelude::*,
    rbtree::{RBTree, RBTreeNode, RBTreeNodeReservation},
    sync::{Arc, Mutex}, //
};

/// Finds the flows that an event may touch, so that it costs in proportion to these.
///
/// Many flows share a way: there are as many ways as neighbours that get packets. Events of
/// neighbours, bridges and devices look at ways first and at flows only if the way has changed. A
/// flow costs four nodes: one for each way and for each receiver.
///
/// All walks are by key, one step at a time, so that nothing is held between two steps. None sees
/// what is added behind it.
#[pin_data]
pub(super) struct Index {
    #[pin]
    maps: Mutex<Maps>,
}

struct Maps {
    ways: RBTree<Way, Shared>,
    /// By number of the way and [`Record::id`].
    flows: RBTree<(u64, u64), Arc<Record>>,
    receivers: RBTree<Receiver, Arc<Record>>,
    last: u64,
}

/// By receiver, then [`Record::connection`], then [`Record::id`].
type Receiver = (IpAddr, Option<Connection>, u64);

fn receiver(addr: IpAddr, record: &Record) -> Receiver {
    (addr, record.connection(), record.id())
}

/// A way that is in use.
struct Shared {
    number: u64,
    users: u64,
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

impl Maps {
    fn add(&mut self, way: &Way, addr: IpAddr, record: &Arc<Record>) -> Result {
        let flow = RBTreeNodeReservation::new(GFP_KERNEL)?;
        let receiver = RBTreeNode::new(receiver(addr, record), record.clone(), GFP_KERNEL)?;
        let number = match self.ways.get_mut(way) {
            Some(shared) => {
                shared.users += 1;
                shared.number
            }
            None => {
                let number = self.last + 1;
                let shared = Shared { number, users: 1 };
                self.ways.try_create_and_insert(*way, shared, GFP_KERNEL)?;
                self.last = number;
                number
            }
        };

        // Both directions may take the same way, and then have one node for it.
        self.flows
            .insert(flow.into_node((number, record.id()), record.clone()));
        self.receivers.insert(receiver);
        Ok(())
    }

    fn remove(&mut self, way: &Way, addr: IpAddr, record: &Record) {
        self.receivers.remove(&receiver(addr, record));
        if let Some(shared) = self.ways.get_mut(way) {
            self.flows.remove(&(shared.number, record.id()));
            shared.users -= 1;
            if shared.users == 0 {
                self.ways.remove(way);
            }
        }
    }
}

impl Index {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            maps <- new_mutex!(Maps {
                ways: RBTree::new(),
                flows: RBTree::new(),
                receivers: RBTree::new(),
                last: 0,
            }),
        })
    }

    /// Adds a flow that takes these ways, and is not in the index yet. Sleeps; fails with `ENOMEM`.
    pub(super) fn insert(&self, ways: &Ways, record: &Arc<Record>) -> Result {
        let [original, reply] = ways.both();
        let [there, back] = ways.receivers();
        let mut maps = self.maps.lock();

        maps.add(original, there, record)?;
        maps.add(reply, back, record)
            .inspect_err(|_| maps.remove(original, there, record))
    }

    /// Takes out a flow that was added with these ways. The caller has a reference to the record.
    pub(super) fn remove(&self, ways: &Ways, record: &Record) {
        let mut maps = self.maps.lock();

        for (way, receiver) in ways.both().into_iter().zip(ways.receivers()) {
            maps.remove(way, receiver, record);
        }
    }

    /// The first way that is not before `from`, and its number.
    pub(super) fn way_from(&self, from: &Way) -> Option<(Way, u64)> {
        let maps = self.maps.lock();
        let cursor = maps.ways.cursor_lower_bound(from)?;
        let (way, shared) = cursor.current();
        Some((*way, shared.number))
    }

    /// The first way after `way`, and its number.
    pub(super) fn way_after(&self, way: &Way) -> Option<(Way, u64)> {
        let maps = self.maps.lock();
        let cursor = maps.ways.cursor_lower_bound(way)?;
        let (way, shared) = match cursor.current() {
            (found, _) if found == way => cursor.peek_next()?,
            current => current,
        };
        Some((*way, shared.number))
    }

    /// All ways, one after the other.
    pub(super) fn ways(&self) -> impl Iterator<Item = (Way, u64)> + '_ {
        let first = Way::first_to(0, IpAddr::from([0; 4]));
        core::iter::successors(self.way_from(&first), |(way, _)| self.way_after(way))
    }

    /// The flows that take the way with this number, one after the other.
    pub(super) fn flows(&self, number: u64) -> impl Iterator<Item = Arc<Record>> + '_ {
        core::iter::successors(self.flow_from(number, 0), move |record| {
            self.flow_from(number, record.id() + 1)
        })
    }

    fn flow_from(&self, number: u64, id: u64) -> Option<Arc<Record>> {
        let maps = self.maps.lock();
        let cursor = maps.flows.cursor_lower_bound(&(number, id))?;
        let (&(found, _), record) = cursor.current();
        (found == number).then(|| record.clone())
    }

    /// The receivers in `prefix`, and the flows to each, one after the other.
    pub(super) fn receivers(
        &self,
        prefix: Prefix,
    ) -> impl Iterator<Item = (IpAddr, Arc<Record>)> + '_ {
        core::iter::successors(
            self.receiver_from(prefix, (prefix.first(), None, 0)),
            move |(addr, record)| {
                let (_, connection, id) = receiver(*addr, record);
                self.receiver_from(prefix, (*addr, connection, id + 1))
            },
        )
    }

    fn receiver_from(&self, prefix: Prefix, from: Receiver) -> Option<(IpAddr, Arc<Record>)> {
        let maps = self.maps.lock();
        let cursor = maps.receivers.cursor_lower_bound(&from)?;
        let (&(addr, ..), record) = cursor.current();
        prefix.contains(addr).then(|| (addr, record.clone()))
    }

    /// An older flow of the same connection, if one is still in the index.
    pub(super) fn predecessor(&self, record: &Record) -> Option<Arc<Record>> {
        self.first_of_connection(record, 0)
            .filter(|older| older.id() < record.id())
    }

    /// A newer flow of the same connection, if there is one.
    pub(super) fn successor(&self, record: &Record) -> Option<Arc<Record>> {
        self.first_of_connection(record, record.id() + 1)
    }

    /// The first flow of the connection of `record` whose id is not less than `from`.
    fn first_of_connection(&self, record: &Record, from: u64) -> Option<Arc<Record>> {
        let connection = record.connection();
        let client = connection?.client();
        let maps = self.maps.lock();
        let cursor = maps
            .receivers
            .cursor_lower_bound(&(client, connection, from))?;
        let (&(addr, found, _), first) = cursor.current();

        ((addr, found) == (client, connection)).then(|| first.clone())
    }
}

#[kernel::macros::kunit_tests(nft_offload_index)]
mod tests {
    use super::Prefix;
    use core::net::IpAddr;

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
}

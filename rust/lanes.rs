// SPDX-License-Identifier: GPL-2.0

//! A queue with lanes: what is in a lane comes before what is in the ones after it.

use kernel::{
    list::{List, ListArc, ListItem, TryNewListArc},
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, //
    }, //
};

/// In which lane an item is.
///
/// # Invariants
///
/// If it names a queue, the item is in that lane of that queue; it is written under the lock that
/// guards the queue.
pub(crate) struct LaneTag(Atomic<u32>);

impl LaneTag {
    const LANE_BITS: u32 = 3;

    /// In no lane.
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(0))
    }
}

/// An item that can be in one lane at a time for each `ID`, without memory being asked for.
pub(crate) trait LaneItem<const ID: u64>: ListItem<ID> + TryNewListArc<ID> {
    /// Returns the item's tag for this `ID`, always the same one.
    fn tag(&self) -> &LaneTag;
}

/// The lanes, `N` of them, 7 at most.
///
/// # Invariants
///
/// `id` is no other queue's.
pub(crate) struct Lanes<T: LaneItem<ID> + ?Sized, const ID: u64, const N: usize> {
    id: u32,
    lists: [List<T, ID>; N],
    lens: [usize; N],
}

impl<T: LaneItem<ID>, const ID: u64, const N: usize> Lanes<T, ID, N> {
    /// Empty lanes. Does not sleep; fails with `EOVERFLOW` after 2^29 queues.
    pub(crate) fn new() -> Result<Self> {
        const { assert!(N < 1 << LaneTag::LANE_BITS) };
        static LAST: Atomic<u32> = Atomic::new(0);

        let id = LAST.fetch_add(1, Relaxed) + 1;
        if id >> (u32::BITS - LaneTag::LANE_BITS) != 0 {
            return Err(EOVERFLOW);
        }
        // INVARIANT: Each number is handed out once.
        Ok(Self {
            id,
            lists: core::array::from_fn(|_| List::new()),
            lens: [0; N],
        })
    }

    fn tag_of(&self, lane: usize) -> u32 {
        self.id << LaneTag::LANE_BITS | (lane as u32 + 1)
    }

    /// Puts an item at the end of a lane. One that is in a later lane of this queue comes forward, one
    /// that is in this lane or before stays. Returns `false` if the item is in another queue, or is
    /// just being taken out of one.
    pub(crate) fn push(&mut self, item: Arc<T>, lane: usize) -> bool {
        let tag = item.tag().0.load(Relaxed);

        let arc = if tag >> LaneTag::LANE_BITS == self.id {
            let now = (tag & ((1 << LaneTag::LANE_BITS) - 1)) as usize - 1;
            if now <= lane {
                return true;
            }
            // SAFETY: By the invariant of the tag, which is read with the queue borrowed mutably, the
            // item is in that list.
            let Some(arc) = (unsafe { self.lists[now].remove(&item) }) else {
                return false;
            };
            self.lens[now] -= 1;
            arc
        } else {
            match ListArc::try_from_arc(item) {
                Ok(arc) => arc,
                Err(_) => return false,
            }
        };
        // INVARIANT: It is in there from now on.
        arc.tag().0.store(self.tag_of(lane), Relaxed);
        self.lists[lane].push_back(arc);
        self.lens[lane] += 1;
        true
    }

    /// Returns how many items are in a lane.
    pub(crate) fn len(&self, lane: usize) -> usize {
        self.lens[lane]
    }

    /// Takes the first item out of a lane.
    pub(crate) fn pop(&mut self, lane: usize) -> Option<Arc<T>> {
        let arc = self.lists[lane].pop_front()?;
        self.lens[lane] -= 1;
        // INVARIANT: It is in no lane.
        arc.tag().0.store(0, Relaxed);
        Some(arc.into_arc())
    }
}

// SPDX-License-Identifier: GPL-2.0

//! What the rules of flows have forwarded.
//!
//! Drivers do not say that of all flows, and few flows of many have packets. So this is kept beside the flows,
//! for those of which anything was said.

use crate::{
    net::flow_block::FlowStats,
    netfilter::conntrack::Direction, //
};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    new_spinlock,
    prelude::*,
    rbtree::{RBTree, RBTreeNodeReservation},
    sync::SpinLock, //
};

/// Of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// The counters of a namespace's flows, by the flows' ids.
#[pin_data]
pub(super) struct FlowCounters {
    #[pin]
    flows: SpinLock<RBTree<u64, [Counters; 2]>>,
}

impl FlowCounters {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            flows <- new_spinlock!(RBTree::new()),
        })
    }

    /// Adds what a driver says that a rule has done since it was last asked. Without memory, that is
    /// forgotten. Sleeps.
    pub(super) fn add(&self, id: u64, dir: Direction, stats: &FlowStats) {
        if stats.packets == 0 && stats.bytes == 0 {
            return;
        }
        let is_known = self.flows.lock().get(&id).is_some();
        let node = match is_known {
            true => None,
            false => RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT).ok(),
        };

        let mut flows = self.flows.lock();
        // The other direction may have come first.
        let unused = match node {
            Some(node) if flows.get(&id).is_none() => {
                flows.insert(node.into_node(id, Default::default()));
                None
            }
            node => node,
        };
        if let Some(counters) = flows.get_mut(&id) {
            let counters = &mut counters[dir as usize];
            counters.packets += stats.packets;
            counters.bytes += stats.bytes;
        }
        drop(flows);
        drop(unused);
    }

    /// Returns what is known of a flow. Does not sleep.
    pub(super) fn get(&self, id: u64) -> Option<[Counters; 2]> {
        self.flows.lock().get(&id).copied()
    }

    /// Forgets a flow. Does not sleep.
    pub(super) fn remove(&self, id: u64) {
        let removed = self.flows.lock().remove_node(&id);
        drop(removed);
    }
}

#[kernel::macros::kunit_tests(nft_offload_flow_counters)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_flow_is_added_up_until_it_is_forgotten() -> Result {
        let counters = KBox::pin_init(FlowCounters::new(), GFP_KERNEL)?;
        let stats = |packets, bytes| FlowStats {
            packets,
            bytes,
            lastused: 0,
        };

        counters.add(1, Direction::Original, &stats(0, 0));
        assert_eq!(counters.get(1), None);
        counters.add(1, Direction::Original, &stats(2, 100));
        counters.add(1, Direction::Original, &stats(3, 200));
        counters.add(1, Direction::Reply, &stats(1, 50));
        counters.add(2, Direction::Reply, &stats(7, 70));
        let [original, reply] = counters.get(1).ok_or(ENOENT)?;
        assert_eq!((original.packets, original.bytes), (5, 300));
        assert_eq!((reply.packets, reply.bytes), (1, 50));
        counters.remove(1);
        counters.remove(1);
        assert_eq!(counters.get(1), None);
        assert!(counters.get(2).is_some());
        Ok(())
    }
}

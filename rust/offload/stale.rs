// SPDX-License-Identifier: GPL-2.0

//! Decides whether an entry that contradicts the current route is torn down once, to be made anew.

use crate::netfilter::conntrack::Conntrack;
use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed}, //
};

/// Connections whose last entry was not what the host would make.
///
/// Either such an entry was made just before a change, and the next one will differ; or the next one
/// will be the same, for a reason that the module does not know, and is then accepted.
///
/// There are few slots. If the slot of a connection holds a recent entry of another one, the entry is
/// accepted.
pub(super) struct StaleEntryFilter(KVec<Atomic<u64>>);

impl StaleEntryFilter {
    const SIZE: usize = 1024;
    /// For how many seconds a connection is remembered.
    const SECONDS: u32 = 2;

    /// Sleeps; fails with `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        let mut slots = KVec::with_capacity(Self::SIZE, GFP_KERNEL)?;
        for _ in 0..Self::SIZE {
            slots.push(Atomic::new(0), GFP_KERNEL)?;
        }
        Ok(Self(slots))
    }

    /// Whether a new entry of the connection, which is not what the host would make, is to be replaced
    /// by another one. Times are in jiffies: `now`, `changed` when something has last changed, and the
    /// length of a `second`. Does not sleep.
    pub(super) fn rejects(
        &self,
        conntrack: &Conntrack,
        now: u64,
        changed: u64,
        second: u32,
    ) -> bool {
        self.rejects_number(Self::number(conntrack), now, changed, second)
    }

    fn rejects_number(&self, connection: u32, now: u64, changed: u64, second: u32) -> bool {
        let slot = self.slot(connection);
        // Upper 32 bits: the connection. Lower 32 bits: jiffies of the rejection.
        let old = slot.load(Relaxed);
        let age = (now as u32).wrapping_sub(old as u32);

        if old != 0 && age < Self::SECONDS * second {
            if old >> 32 != u64::from(connection) {
                return false;
            }
            let is_unchanged = changed + u64::from(age) < now;
            if is_unchanged {
                slot.store(0, Relaxed);
                return false;
            }
        }
        slot.store(u64::from(connection) << 32 | u64::from(now as u32), Relaxed);
        true
    }

    /// An entry of the connection is what the host would make. Does not sleep.
    pub(super) fn forget(&self, conntrack: &Conntrack) {
        self.forget_number(Self::number(conntrack));
    }

    fn forget_number(&self, connection: u32) {
        let slot = self.slot(connection);

        if slot.load(Relaxed) >> 32 == u64::from(connection) {
            slot.store(0, Relaxed);
        }
    }

    fn number(conntrack: &Conntrack) -> u32 {
        // Conntrack entries are 256 bytes long, or a little less.
        (core::ptr::from_ref(conntrack) as usize >> 8) as u32
    }

    fn slot(&self, connection: u32) -> &Atomic<u64> {
        &self.0[connection as usize % self.0.len()]
    }
}

#[kernel::macros::kunit_tests(nft_offload_stale)]
mod tests {
    use super::*;

    const HZ: u32 = 250;
    const NOW: u64 = (1 << 32) - 1;
    const ONE: u32 = 0x100;

    #[test]
    fn the_second_entry_in_a_row_is_accepted() -> Result {
        let filter = StaleEntryFilter::new()?;

        for connection in [ONE, 0x200] {
            assert!(filter.rejects_number(connection, NOW, 0, HZ));
            assert!(!filter.rejects_number(connection, NOW + 1, 0, HZ));
            assert!(filter.rejects_number(connection, NOW + 2, 0, HZ));
        }
        Ok(())
    }

    #[test]
    fn the_second_entry_is_rejected_after_a_change_a_good_one_or_a_pause() -> Result {
        let filter = StaleEntryFilter::new()?;
        let later = NOW + 2 + u64::from(StaleEntryFilter::SECONDS * HZ);

        assert!(filter.rejects_number(ONE, NOW, 0, HZ));
        assert!(filter.rejects_number(ONE, NOW + 1, NOW, HZ));
        filter.forget_number(ONE);
        assert!(filter.rejects_number(ONE, NOW + 2, NOW, HZ));
        assert!(filter.rejects_number(ONE, later, NOW, HZ));
        assert!(!filter.rejects_number(ONE, later + 1, NOW, HZ));
        Ok(())
    }

    #[test]
    fn an_entry_is_accepted_if_another_connection_has_its_slot() -> Result {
        let filter = StaleEntryFilter::new()?;
        let other = ONE + StaleEntryFilter::SIZE as u32;

        assert!(filter.rejects_number(ONE, NOW, 0, HZ));
        assert!(!filter.rejects_number(other, NOW, 0, HZ));
        assert!(!filter.rejects_number(ONE, NOW, 0, HZ));
        assert!(filter.rejects_number(other, NOW, 0, HZ));
        Ok(())
    }
}

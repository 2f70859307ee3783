// SPDX-License-Identifier: GPL-2.0

//! Decides whether an entry that contradicts the current route is torn down once, to be made anew.

use crate::netfilter::conntrack::Conntrack;
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    prelude::*,
    sync::atomic::{Atomic, Relaxed}, //
};

/// Connections whose last entry was not what the host would make.
///
/// Either such an entry was made just before a change, and the next one will differ; or the next one
/// will be the same, for a reason that the module does not know, and is then accepted.
///
/// There are few slots: that of a connection may hold a recent entry of another one.
pub(super) struct StaleEntryFilter(KVec<Atomic<u64>>);

/// What is known of a connection whose entry is not what the host would make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The last one was not as wrong, or something has changed since.
    First,
    /// So was the last one, and nothing has changed since; or several were.
    Again,
    /// Nothing: another connection has its slot.
    Unknown,
}

impl StaleEntryFilter {
    const SIZE: usize = 1024;
    /// For how many seconds a connection is remembered.
    const SECONDS: u32 = 2;
    /// In this part of a second, an entry is made by a packet, and offered.
    const IN_FLIGHT: u32 = 10;
    /// After so many in a row, changes are no excuse.
    const TIMES: u64 = 3;
    /// Of a time in jiffies.
    const TIME_BITS: u32 = 30;

    /// Sleeps; fails with `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        let mut slots = KVec::with_capacity(Self::SIZE, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..Self::SIZE {
            slots.push(Atomic::new(0), GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Self(slots))
    }

    /// Notes that an entry of the connection is not what the host would make. Times are in jiffies: `now`,
    /// `changed` when something has last changed, and the length of a `second`. Does not sleep.
    pub(super) fn note(
        &self,
        conntrack: &Conntrack,
        now: u64,
        changed: u64,
        second: u32,
    ) -> Answer {
        self.note_number(Self::number(conntrack), now, changed, second)
    }

    fn note_number(&self, connection: u32, now: u64, changed: u64, second: u32) -> Answer {
        const TIME: u64 = (1 << StaleEntryFilter::TIME_BITS) - 1;
        let slot = self.slot(connection);
        // Upper 32 bits: the connection. Then how often it was rejected before, and when it was, in jiffies.
        let old = slot.load(Relaxed);
        let age = now.wrapping_sub(old) & TIME;
        let mut times = 0;

        if old != 0 && age < u64::from(Self::SECONDS * second) {
            if old >> 32 != u64::from(connection) {
                return Answer::Unknown;
            }
            // The last one may have been seen after a change and made before it, and so may be this one.
            let is_unchanged = changed + age + u64::from(second / Self::IN_FLIGHT) < now;
            times = (old as u32 >> Self::TIME_BITS).into();
            if is_unchanged || times == Self::TIMES {
                slot.store(0, Relaxed);
                return Answer::Again;
            }
            times += 1;
        }
        slot.store(
            u64::from(connection) << 32 | times << Self::TIME_BITS | now & TIME,
            Relaxed,
        );
        Answer::First
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
        &self.0[connection as usize % Self::SIZE]
    }
}

#[kernel::macros::kunit_tests(nft_offload_stale)]
mod tests {
    use super::*;

    const HZ: u32 = 250;
    const NOW: u64 = (1 << 32) - 1;
    const ONE: u32 = 0x100;

    #[test]
    fn the_second_entry_in_a_row_is_told_from_the_first() -> Result {
        let filter = StaleEntryFilter::new()?;

        for connection in [ONE, 0x200] {
            assert_eq!(filter.note_number(connection, NOW, 0, HZ), Answer::First);
            assert_eq!(
                filter.note_number(connection, NOW + 1, 0, HZ),
                Answer::Again
            );
            assert_eq!(
                filter.note_number(connection, NOW + 2, 0, HZ),
                Answer::First
            );
        }
        Ok(())
    }

    #[test]
    fn after_a_change_a_good_one_or_a_pause_it_is_a_first_one() -> Result {
        let filter = StaleEntryFilter::new()?;
        let later = NOW + 2 + u64::from(StaleEntryFilter::SECONDS * HZ);

        assert_eq!(filter.note_number(ONE, NOW, 0, HZ), Answer::First);
        assert_eq!(filter.note_number(ONE, NOW + 1, NOW, HZ), Answer::First);
        filter.forget_number(ONE);
        assert_eq!(filter.note_number(ONE, NOW + 2, NOW, HZ), Answer::First);
        assert_eq!(filter.note_number(ONE, later, NOW, HZ), Answer::First);
        assert_eq!(filter.note_number(ONE, later + 1, NOW, HZ), Answer::Again);
        Ok(())
    }

    #[test]
    fn entries_that_were_made_before_a_change_do_not_count() -> Result {
        let filter = StaleEntryFilter::new()?;

        assert_eq!(filter.note_number(ONE, NOW + 1, NOW, HZ), Answer::First);
        assert_eq!(filter.note_number(ONE, NOW + 2, NOW, HZ), Answer::First);
        let later = NOW + 2 + u64::from(HZ);
        assert_eq!(filter.note_number(ONE, later, NOW, HZ), Answer::First);
        assert_eq!(filter.note_number(ONE, later + 1, NOW, HZ), Answer::Again);
        Ok(())
    }

    #[test]
    fn changes_are_no_excuse_for_ever() -> Result {
        let filter = StaleEntryFilter::new()?;
        let second = u64::from(HZ);

        for turn in 0..=StaleEntryFilter::TIMES {
            let now = NOW + turn * second;
            assert_eq!(filter.note_number(ONE, now, now, HZ), Answer::First);
        }
        let now = NOW + (StaleEntryFilter::TIMES + 1) * second;
        assert_eq!(filter.note_number(ONE, now, now, HZ), Answer::Again);
        assert_eq!(filter.note_number(ONE, now, now, HZ), Answer::First);
        Ok(())
    }

    #[test]
    fn nothing_is_known_of_a_connection_whose_slot_another_one_has() -> Result {
        let filter = StaleEntryFilter::new()?;
        let other = ONE + StaleEntryFilter::SIZE as u32;

        assert_eq!(filter.note_number(ONE, NOW, 0, HZ), Answer::First);
        assert_eq!(filter.note_number(other, NOW, 0, HZ), Answer::Unknown);
        assert_eq!(filter.note_number(ONE, NOW, 0, HZ), Answer::Again);
        assert_eq!(filter.note_number(other, NOW, 0, HZ), Answer::First);
        Ok(())
    }
}

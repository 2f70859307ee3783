// SPDX-License-Identifier: GPL-2.0

//! Second looks at entries that the host would not make like that.

use crate::netfilter::conntrack::Conntrack;
use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed}, //
};

/// Connections whose last entry was not what the host would make.
///
/// Either it was made just before something changed, and the next one will be another; or nobody can
/// tell why it is as it is, and the next one will be the same, which is then accepted.
///
/// There are few places. Whoever finds one that was lately taken by another connection is not doubted.
pub(super) struct Doubts(KVec<Atomic<u64>>);

impl Doubts {
    const SIZE: usize = 1024;
    /// For how many seconds a connection is remembered.
    const SECONDS: u32 = 2;

    /// Sleeps; fails with `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        let mut places = KVec::with_capacity(Self::SIZE, GFP_KERNEL)?;
        for _ in 0..Self::SIZE {
            places.push(Atomic::new(0), GFP_KERNEL)?;
        }
        Ok(Self(places))
    }

    /// Whether a new entry of the connection is to be replaced by another one. `now` is in jiffies,
    /// and so is the length of a `second`. Does not sleep.
    pub(super) fn rejects(&self, conntrack: &Conntrack, now: u64, second: u32) -> bool {
        self.rejects_at(core::ptr::from_ref(conntrack) as usize, now, second)
    }

    fn rejects_at(&self, address: usize, now: u64, second: u32) -> bool {
        // Conntrack entries are 256 bytes long, or a little less.
        let connection = address >> 8;
        let place = &self.0[connection % self.0.len()];
        // Who it is in the upper half, since when in the lower one.
        let key = (connection as u64) << 32;
        let old = place.load(Relaxed);
        let is_young = old != 0 && (now as u32).wrapping_sub(old as u32) < Self::SECONDS * second;

        if is_young && old >> 32 == key >> 32 {
            place.store(0, Relaxed);
        } else if !is_young {
            place.store(key | u64::from(now as u32), Relaxed);
        }
        !is_young
    }
}

#[kernel::macros::kunit_tests(nft_offload_doubts)]
mod tests {
    use super::*;

    const HZ: u32 = 250;
    const NOW: u64 = (1 << 32) - 1;
    const ONE: usize = 0x1000;

    #[test]
    fn the_second_entry_in_a_row_is_accepted() -> Result {
        let doubts = Doubts::new()?;

        for connection in [ONE, 0x2000] {
            assert!(doubts.rejects_at(connection, NOW, HZ));
            assert!(!doubts.rejects_at(connection, NOW + 1, HZ));
            assert!(doubts.rejects_at(connection, NOW + 2, HZ));
        }
        Ok(())
    }

    #[test]
    fn after_a_while_it_is_not_the_second_any_more() -> Result {
        let doubts = Doubts::new()?;
        let later = NOW + u64::from(Doubts::SECONDS * HZ);

        assert!(doubts.rejects_at(ONE, NOW, HZ));
        assert!(doubts.rejects_at(ONE, later, HZ));
        assert!(!doubts.rejects_at(ONE, later + 1, HZ));
        Ok(())
    }

    #[test]
    fn who_finds_the_place_taken_is_accepted() -> Result {
        let doubts = Doubts::new()?;
        let other = ONE + (Doubts::SIZE << 8);

        assert!(doubts.rejects_at(ONE, NOW, HZ));
        assert!(!doubts.rejects_at(other, NOW, HZ));
        assert!(!doubts.rejects_at(ONE, NOW, HZ));
        assert!(doubts.rejects_at(other, NOW, HZ));
        Ok(())
    }
}

// SPDX-License-Identifier: GPL-2.0

//! When a driver is asked again for what it has refused.
//!
//! The core offers a flow again each second in which packets of it reach the host. What that is good for
//! depends on why the flow was refused:
//!
//! | errno | it is tried again |
//! |---|---|
//! | `ENOSPC` (mlx5: no entry is left in its flow table; mtk and airoha do not say so: they only queue) | when a rule of the device has been removed: as many rules as there have been removals; else now and then |
//! | `ENOMEM`, `EBUSY`, `EAGAIN`, `EIO`, … (mlx5: its firmware is short of something; airoha: its devices are not up) | after 1, 2, and then each 4 seconds |
//! | `EOPNOTSUPP`, `EINVAL`, … (a rule that the driver does not take) | after 1, 2, 4, … 64 seconds |
//!
//! A device that joins the table, goes up or down ends all that. Whether there is room is known of the device
//! ([`Room`]), and costs a waiting flow no more than to look.

use crate::time::ms;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, //
    }, //
};

/// What a refusal means for the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hope {
    /// When there is room.
    Room,
    /// Soon.
    Soon,
    /// Not as things are.
    None,
}

impl Hope {
    /// What an errno of a driver means.
    pub(super) fn of(errno: Error) -> Self {
        match errno {
            ENOSPC => Self::Room,
            ENOMEM | EBUSY | EAGAIN | EINTR | EIO | ENODEV | ENXIO | ETIMEDOUT => Self::Soon,
            _ => Self::None,
        }
    }
}

/// Why a rule may be tried in a device without room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// The place of a rule that was removed.
    Place,
    /// To find out whether there is room.
    Probe,
}

/// What is known of a device's room for rules since its driver has refused one for lack of it.
///
/// A device is *tight* from then on until no flow has asked for room for a while. Then a flow that is
/// new has to wait, so that those get the places that became free which send for longer; and each waiting flow
/// gets its rules tried only in such a place, or as a probe. A driver that fails rule after rule is treated
/// in the same way.
pub(super) struct Room {
    /// In jiffies; 0 if it is not.
    tight_until: Atomic<u64>,
    /// Rules that were removed meanwhile, less those that were tried for that.
    places: Atomic<u32>,
    next_probe: Atomic<u64>,
    /// Seconds between two probes.
    pause: Atomic<u32>,
    /// Rules that have failed in a row, but not for lack of room.
    failures: Atomic<u32>,
    /// The driver has taken a rule.
    has_taken: Atomic<bool>,
    /// When it has become tight last; in jiffies.
    tight_since: Atomic<u64>,
}

impl Room {
    /// For how many seconds no flow must have waited. Those that send come once in a second, or a little less
    /// often.
    const CALM: u32 = 2;
    /// Longest time between two probes, in seconds.
    const MAX_PAUSE: u32 = 8;
    /// A driver fails everything if so many rules in a row have failed.
    const MAX_FAILURES: u32 = 64;
    /// More than any hardware has.
    const MAX_PLACES: u32 = 1 << 24;

    pub(super) const fn new() -> Self {
        Self {
            tight_until: Atomic::new(0),
            places: Atomic::new(0),
            next_probe: Atomic::new(0),
            pause: Atomic::new(1),
            failures: Atomic::new(0),
            has_taken: Atomic::new(false),
            tight_since: Atomic::new(0),
        }
    }

    /// Times are in jiffies.
    pub(super) fn is_tight(&self, now: u64) -> bool {
        now < self.tight_until.load(Relaxed)
    }

    /// Returns for how many jiffies it has been tight, if it is.
    pub(super) fn tight_for(&self, now: u64) -> Option<u64> {
        self.is_tight(now)
            .then(|| now.saturating_sub(self.tight_since.load(Relaxed)))
    }

    /// Returns whether the driver fails whatever it is asked for.
    pub(super) fn is_failing(&self) -> bool {
        self.failures.load(Relaxed) >= Self::MAX_FAILURES
    }

    /// Returns whether `count` rules of a flow that waits may be tried now.
    pub(super) fn may_try(&self, now: u64, count: u32) -> bool {
        !self.is_tight(now)
            || self.places.load(Relaxed) >= count
            || now >= self.next_probe.load(Relaxed)
    }

    /// A flow that waits may not try. It is not to be overtaken by others.
    pub(super) fn keep_tight(&self, now: u64) {
        let until = now + ms(Self::CALM * 1000);

        // Many flows wait: not each has to write.
        if self.tight_until.load(Relaxed) + ms(Self::CALM * 250) < until {
            self.tight_until.store(until, Relaxed);
        }
    }

    /// Takes places for the rules of a flow that waits, or the next probe. `None` if there are none any
    /// more; then the rules may be tried only if the device is not tight.
    pub(super) fn take(&self, now: u64, count: u32) -> Option<Grant> {
        let places = self.places.load(Relaxed);
        if places >= count {
            let taken = self.places.cmpxchg(places, places - count, Relaxed);
            if taken.is_ok() {
                return Some(Grant::Place);
            }
        }
        let due = self.next_probe.load(Relaxed);
        let pause = (self.pause.load(Relaxed) * 2).min(Self::MAX_PAUSE);
        let next = now + ms(pause * 1000);
        if now < due || self.next_probe.cmpxchg(due, next, Relaxed).is_err() {
            return None;
        }
        self.pause.store(pause, Relaxed);
        Some(Grant::Probe)
    }

    /// The driver has taken a rule, as which was granted.
    pub(super) fn taken(&self, grant: Option<Grant>) {
        // These are written seldom, and read by all CPUs.
        if !self.has_taken.load(Relaxed) {
            self.has_taken.store(true, Relaxed);
        }
        // For a probe, there is room that did not become free by removals.
        if grant == Some(Grant::Probe) || self.is_failing() {
            self.tight_until.store(0, Relaxed);
        }
        if self.failures.load(Relaxed) > 0 {
            self.failures.store(0, Relaxed);
        }
    }

    /// The driver has refused a rule.
    pub(super) fn refused(&self, now: u64, hope: Hope) {
        match hope {
            Hope::Room => {}
            // Drivers do not take rules of each kind.
            Hope::None if self.has_taken.load(Relaxed) => return,
            Hope::Soon | Hope::None => {
                self.failures.fetch_add(1, Relaxed);
                if !self.is_failing() {
                    return;
                }
            }
        }
        if !self.is_tight(now) {
            self.places.store(0, Relaxed);
            self.pause.store(1, Relaxed);
            self.next_probe.store(now + ms(1000), Relaxed);
            self.tight_since.store(now, Relaxed);
        }
        self.keep_tight(now);
    }

    /// A rule is gone from the driver.
    pub(super) fn freed(&self) {
        // None counts before the device is tight.
        if self.tight_until.load(Relaxed) != 0 && self.places.load(Relaxed) < Self::MAX_PLACES {
            self.places.fetch_add(1, Relaxed);
        }
    }
}

/// When a refused flow may try again.
#[derive(Default)]
pub(super) struct Backoff {
    /// In which it waits for room.
    room: Option<Arc<Room>>,
    grant: Option<Grant>,
    until: u32,
    generation: u32,
    refusals: u8,
}

impl Backoff {
    /// No longer than 64 seconds: 1 << 6.
    const MAX_SHIFT: u8 = 6;
    /// The same for what should be over soon.
    const SOON_SHIFT: u8 = 2;

    /// Returns whether a try may be made at `now`, in jiffies, in this generation.
    pub(super) fn is_over(&self, now: u64, generation: u32) -> bool {
        if self.refusals == 0 || generation != self.generation {
            return true;
        }
        if let Some(room) = &self.room {
            let is_over = room.may_try(now, 1);
            if !is_over {
                room.keep_tight(now);
            }
            return is_over;
        }
        // More than the longest time: it was so long ago that jiffies have gone round.
        let left = self.until.wrapping_sub(now as u32).wrapping_sub(1);

        left >= Self::time(Self::MAX_SHIFT)
    }

    fn time(shift: u8) -> u32 {
        (ms(1000) as u32) << shift
    }

    /// Returns whether the flow was refused.
    pub(super) fn is_refused(&self) -> bool {
        self.refusals > 0
    }

    /// Returns whether the flow was refused as things are now, and so takes its turn among those that wait.
    pub(super) fn waits(&self, generation: u32) -> bool {
        self.is_refused() && generation == self.generation
    }

    /// Returns why the rules may be tried though the device has no room.
    pub(super) fn grant(&self) -> Option<Grant> {
        self.grant
    }

    pub(super) fn set_grant(&mut self, grant: Option<Grant>) {
        self.grant = grant;
    }

    /// A try has failed at `now`, or was not allowed; `room` is that of the device.
    pub(super) fn refused(
        &mut self,
        now: u64,
        generation: u32,
        hope: Hope,
        room: Option<Arc<Room>>,
    ) {
        let max = if hope == Hope::None {
            Self::MAX_SHIFT
        } else {
            Self::SOON_SHIFT
        };

        self.room = room.filter(|_| hope == Hope::Room);
        self.grant = None;
        self.generation = generation;
        self.until = (now as u32).wrapping_add(Self::time(self.refusals.min(max)));
        self.refusals = self.refusals.saturating_add(1);
    }
}

#[kernel::macros::kunit_tests(nft_offload_backoff)]
mod tests {
    use super::*;

    const START: u64 = (1 << 32) - 1;

    fn second() -> u64 {
        ms(1000)
    }

    /// How many seconds a flow waits that is refused again and again.
    fn waits<const N: usize>(hope: Hope) -> [u32; N] {
        let mut backoff = Backoff::default();
        let mut now = START - 10 * second();
        let mut waits = [0; N];

        assert!(backoff.is_over(now, 1));
        for wait in &mut waits {
            backoff.refused(now, 1, hope, None);
            assert!(!backoff.is_over(now, 1));
            assert!(backoff.is_over(now, 2));
            while !backoff.is_over(now, 1) {
                now += second();
                *wait += 1;
            }
        }
        waits
    }

    #[test]
    fn a_flow_that_cannot_be_waits_twice_as_long_each_time() {
        assert_eq!(waits(Hope::None), [1, 2, 4, 8, 16, 32, 64, 64, 64]);

        let mut backoff = Backoff::default();
        backoff.refused(START, 1, Hope::None, None);
        assert!(backoff.is_over(START + second(), 1));
        // Jiffies have gone round.
        assert!(backoff.is_over(START + (1 << 32) - 64 * second(), 1));
    }

    #[test]
    fn what_should_be_over_soon_is_tried_soon() {
        assert_eq!(waits(Hope::Soon), [1, 2, 4, 4, 4]);
    }

    #[test]
    fn errnos_say_whether_there_is_hope() {
        assert_eq!(Hope::of(ENOSPC), Hope::Room);
        assert_eq!(Hope::of(ENOMEM), Hope::Soon);
        assert_eq!(Hope::of(EBUSY), Hope::Soon);
        assert_eq!(Hope::of(EINVAL), Hope::None);
        assert_eq!(Hope::of(crate::net::eopnotsupp()), Hope::None);
    }

    fn full(now: u64) -> Room {
        let room = Room::new();
        room.taken(None);
        room.refused(now, Hope::Room);
        room
    }

    #[test]
    fn as_many_rules_are_tried_as_were_removed() {
        let room = full(START);

        assert!(room.is_tight(START));
        assert!(!room.may_try(START, 1));
        assert_eq!(room.take(START, 1), None);
        for _ in 0..3 {
            room.freed();
        }
        assert!(!room.may_try(START, 4));
        assert_eq!(room.take(START, 2), Some(Grant::Place));
        assert_eq!(room.take(START, 2), None);
        assert_eq!(room.take(START, 1), Some(Grant::Place));
        room.taken(Some(Grant::Place));
        assert_eq!(room.take(START, 1), None);
    }

    #[test]
    fn a_flow_that_waits_long_tries_as_soon_as_a_place_is_free() -> Result {
        let room = Arc::new(full(START), GFP_KERNEL)?;
        let mut backoff = Backoff::default();
        let mut now = START;

        for _ in 0..100 {
            room.refused(now, Hope::Room);
            backoff.refused(now, 1, Hope::Room, Some(room.clone()));
            now += second();
        }
        while room.take(now, 1).is_some() {}
        assert!(!backoff.is_over(now, 1));
        room.freed();
        assert!(backoff.is_over(now, 1));
        assert_eq!(room.take(now, 1), Some(Grant::Place));
        assert!(!backoff.is_over(now, 1));
        // Another device, or one that has changed.
        assert!(backoff.is_over(now, 2));
        Ok(())
    }

    #[test]
    fn many_flows_that_wait_cost_the_driver_a_probe_now_and_then() {
        let room = full(START);
        let mut probes = 0;

        for tick in 1..=60 * second() {
            let now = START + tick;
            for _ in 0..10 {
                if !room.may_try(now, 1) {
                    room.keep_tight(now);
                    continue;
                }
                match room.take(now, 1) {
                    None => {}
                    Some(Grant::Place) => assert!(false),
                    Some(Grant::Probe) => {
                        probes += 1;
                        room.refused(now, Hope::Room);
                    }
                }
            }
            assert!(room.is_tight(now));
        }
        // After 1, 3, 7, 15, 23, … seconds.
        assert_eq!(probes, 9);
    }

    #[test]
    fn room_that_a_probe_finds_is_for_all() {
        let room = full(START);
        let now = START + second();
        let grant = room.take(now, 1);

        assert_eq!(grant, Some(Grant::Probe));
        room.taken(grant);
        assert!(!room.is_tight(now));
        room.refused(now, Hope::Room);
        assert!(room.is_tight(now));
        room.freed();
        room.taken(room.take(now, 1));
        assert!(room.is_tight(now));
    }

    #[test]
    fn a_device_is_tight_as_long_as_flows_wait() {
        let room = full(START);
        let mut now = START;

        for _ in 0..10 {
            now += second();
            assert!(room.is_tight(now));
            room.keep_tight(now);
        }
        assert!(room.is_tight(now + second()));
        assert!(!room.is_tight(now + 2 * second()));
        assert!(room.may_try(now + 2 * second(), 2));
        // What was free before says nothing.
        room.freed();
        room.refused(now + 2 * second(), Hope::Room);
        assert_eq!(room.take(now + 2 * second(), 1), None);
    }

    #[test]
    fn a_driver_that_fails_everything_is_left_alone_until_it_does_not() {
        let room = Room::new();

        for _ in 1..Room::MAX_FAILURES {
            room.refused(START, Hope::None);
        }
        assert!(!room.is_tight(START));
        room.refused(START, Hope::Soon);
        assert!(room.is_tight(START) && room.is_failing());
        assert_eq!(room.take(START, 1), None);
        assert_eq!(room.take(START + second(), 1), Some(Grant::Probe));
        room.taken(Some(Grant::Probe));
        assert!(!room.is_tight(START + second()) && !room.is_failing());

        // It takes some kinds of rules, and not others.
        for _ in 0..2 * Room::MAX_FAILURES {
            room.refused(START, Hope::None);
        }
        assert!(!room.is_tight(START));
        for _ in 0..Room::MAX_FAILURES {
            room.refused(START, Hope::Soon);
        }
        assert!(room.is_failing());
    }
}

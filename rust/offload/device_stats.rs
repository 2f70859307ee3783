// SPDX-License-Identifier: GPL-2.0

//! What a device's driver was asked for, and how it has answered.

use crate::net::flow_block::FlowStats;
use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
    time::{Instant, Monotonic}, //
};

/// How long calls took. Their times are in buckets, of which four are between two powers of two.
pub(super) struct Latency {
    count: Atomic<u64>,
    /// In nanoseconds, as all times.
    sum: Atomic<u64>,
    longest: Atomic<u64>,
    buckets: [Atomic<u32>; BUCKETS],
}

/// The last one is for more than a minute.
const BUCKETS: usize = 36 * 4;

fn bucket(nanos: u64) -> usize {
    let nanos = nanos.max(4);
    let power = nanos.ilog2();
    let quarter = nanos >> (power - 2) & 3;

    ((power as usize - 2) * 4 + quarter as usize).min(BUCKETS - 1)
}

/// Returns the most that is in a bucket.
fn limit(bucket: usize) -> u64 {
    let power = bucket as u32 / 4 + 2;

    (1 << power) + ((bucket as u64 % 4 + 1) << (power - 2)) - 1
}

/// What is known of a [`Latency`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LatencySummary {
    pub(super) count: u64,
    pub(super) mean: u64,
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) longest: u64,
}

impl Latency {
    fn new() -> Self {
        Self {
            count: Atomic::new(0),
            sum: Atomic::new(0),
            longest: Atomic::new(0),
            buckets: core::array::from_fn(|_| Atomic::new(0)),
        }
    }

    fn add(&self, nanos: u64) {
        self.count.fetch_add(1, Relaxed);
        self.sum.fetch_add(nanos, Relaxed);
        self.buckets[bucket(nanos)].fetch_add(1, Relaxed);
        let mut longest = self.longest.load(Relaxed);
        while nanos > longest {
            match self.longest.cmpxchg(longest, nanos, Relaxed) {
                Ok(_) => break,
                Err(now) => longest = now,
            }
        }
    }

    /// Returns the time that so many hundredths of the calls took, or less.
    fn percentile(&self, count: u64, hundredths: u64) -> u64 {
        let wanted = (count * hundredths).div_ceil(100);
        let mut seen = 0;

        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += u64::from(bucket.load(Relaxed));
            if seen >= wanted {
                return limit(index).min(self.longest.load(Relaxed));
            }
        }
        self.longest.load(Relaxed)
    }

    /// `None` if there were no calls.
    pub(super) fn summary(&self) -> Option<LatencySummary> {
        let count = self.count.load(Relaxed);
        if count == 0 {
            return None;
        }
        Some(LatencySummary {
            count,
            mean: self.sum.load(Relaxed) / count,
            p50: self.percentile(count, 50),
            p99: self.percentile(count, 99),
            longest: self.longest.load(Relaxed),
        })
    }
}

/// How often there was which errno; those for which there is no place any more are not counted.
pub(super) struct Errors([(Atomic<u32>, Atomic<u64>); 16]);

impl Errors {
    fn new() -> Self {
        Self(core::array::from_fn(|_| (Atomic::new(0), Atomic::new(0))))
    }

    fn add(&self, error: Error) {
        let errno = error.to_errno().unsigned_abs();

        for (known, count) in &self.0 {
            let is_free = known.load(Relaxed) == 0 && known.cmpxchg(0, errno, Relaxed).is_ok();
            if is_free || known.load(Relaxed) == errno {
                count.fetch_add(1, Relaxed);
                break;
            }
        }
    }

    /// Returns each errno, and how often there was that.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.0
            .iter()
            .map(|(errno, count)| (errno.load(Relaxed), count.load(Relaxed)))
            .filter(|&(errno, count)| errno != 0 && count > 0)
    }
}

/// What is counted of a device.
pub(super) struct DeviceStats {
    /// That the driver has.
    rules: Atomic<u32>,
    /// The most of these.
    rules_max: Atomic<u32>,
    lost: Atomic<u64>,
    packets: Atomic<u64>,
    bytes: Atomic<u64>,
    pub(super) adds: Latency,
    pub(super) withdrawals: Latency,
    pub(super) add_errors: Errors,
    pub(super) withdraw_errors: Errors,
}

/// When a driver was called.
pub(super) struct Call(Instant<Monotonic>);

impl Call {
    pub(super) fn begin() -> Self {
        Self(Instant::now())
    }

    fn nanos(&self) -> u64 {
        self.0.elapsed().as_nanos().max(0) as u64
    }
}

impl DeviceStats {
    /// Sleeps; fails with `ENOMEM`.
    pub(super) fn new() -> Result<KBox<Self>> {
        Ok(KBox::new(
            Self {
                rules: Atomic::new(0),
                rules_max: Atomic::new(0),
                lost: Atomic::new(0),
                packets: Atomic::new(0),
                bytes: Atomic::new(0),
                adds: Latency::new(),
                withdrawals: Latency::new(),
                add_errors: Errors::new(),
                withdraw_errors: Errors::new(),
            },
            kernel::alloc::flags::GFP_KERNEL_ACCOUNT,
        )?)
    }

    /// The driver was asked for a rule; `errno` if it has refused.
    pub(super) fn added(&self, call: &Call, errno: Option<Error>) {
        match errno {
            None => {
                self.adds.add(call.nanos());
                let now = self.rules.fetch_add(1, Relaxed) + 1;
                // It grows seldom.
                let mut max = self.rules_max.load(Relaxed);
                while now > max {
                    match self.rules_max.cmpxchg(max, now, Relaxed) {
                        Ok(_) => break,
                        Err(new) => max = new,
                    }
                }
            }
            Some(error) => self.add_errors.add(error),
        }
    }

    /// The driver was asked to remove a rule; `errno` if it has failed.
    pub(super) fn removed(&self, call: &Call, errno: Option<Error>) {
        match errno {
            None => self.withdrawals.add(call.nanos()),
            Some(error) => self.withdraw_errors.add(error),
        }
    }

    /// The driver does not have a rule any more.
    pub(super) fn gone(&self) {
        self.rules.fetch_sub(1, Relaxed);
    }

    /// It should have it.
    pub(super) fn lost(&self) {
        self.lost.fetch_add(1, Relaxed);
    }

    /// The driver says that rules have forwarded so much more.
    pub(super) fn forwarded(&self, stats: &FlowStats) {
        if stats.packets > 0 || stats.bytes > 0 {
            self.packets.fetch_add(stats.packets, Relaxed);
            self.bytes.fetch_add(stats.bytes, Relaxed);
        }
    }

    /// Returns how many packets and bytes the rules have forwarded, if the driver says that.
    pub(super) fn counters(&self) -> Option<(u64, u64)> {
        let counters = (self.packets.load(Relaxed), self.bytes.load(Relaxed));
        (counters != (0, 0)).then_some(counters)
    }

    pub(super) fn rules(&self) -> u32 {
        self.rules.load(Relaxed)
    }

    pub(super) fn rules_max(&self) -> u32 {
        self.rules_max.load(Relaxed)
    }

    pub(super) fn lost_rules(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

#[kernel::macros::kunit_tests(nft_offload_device_stats)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_not_more_than_its_bucket_has_nor_less_than_three_fourths() {
        for power in 2..37 {
            for nanos in [
                1_u64 << power,
                (1 << power) + 1,
                (2 << power) - 1,
                3 << (power - 1),
            ] {
                let most = limit(bucket(nanos));
                assert!(nanos <= most && nanos * 4 >= most * 3);
            }
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_exact_to_a_fourth() -> Result {
        let stats = DeviceStats::new()?;
        assert_eq!(stats.adds.summary(), None);
        for _ in 0..98 {
            stats.adds.add(1000);
        }
        stats.adds.add(50_000);
        stats.adds.add(90_000);
        let summary = stats.adds.summary().ok_or(EINVAL)?;
        assert_eq!(summary.count, 100);
        assert_eq!(summary.mean, 2380);
        assert!((1000..1250).contains(&summary.p50));
        assert!((50_000..62_500).contains(&summary.p99));
        assert_eq!(summary.longest, 90_000);
        Ok(())
    }
}

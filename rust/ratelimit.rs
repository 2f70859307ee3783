// SPDX-License-Identifier: GPL-2.0

//! Messages that do not flood the log, where the kernel crate has only those that are told once.

use crate::time::{jiffies64, ms};
use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed}, //
};

/// How often one place in the code may speak: as in C, ten times in five seconds. Each place has its
/// own, so that none is silent because another one, or somebody's packets, have much to say.
pub(crate) struct RateLimit {
    /// When the five seconds have begun, in jiffies.
    begin: Atomic<u64>,
    told: Atomic<u64>,
}

impl RateLimit {
    const INTERVAL_MS: u32 = 5000;
    const BURST: u64 = 10;

    pub(crate) const fn new() -> Self {
        Self {
            begin: Atomic::new(0),
            told: Atomic::new(0),
        }
    }

    /// Whether one more message may be told now. Can be called anywhere.
    pub(crate) fn allows(&self) -> bool {
        self.allows_at(jiffies64(), ms(Self::INTERVAL_MS))
    }

    fn allows_at(&self, now: u64, interval: u64) -> bool {
        let begin = self.begin.load(Relaxed);

        // If two come at once, one of them begins anew.
        if now >= begin + interval && self.begin.cmpxchg(begin, now, Relaxed).is_ok() {
            self.told.store(0, Relaxed);
        }
        self.told.fetch_add(1, Relaxed) < Self::BURST
    }
}

/// As `pr_warn_ratelimited()` in C.
macro_rules! pr_warn_ratelimited {
    ($($arg:tt)*) => {{
        static LIMIT: $crate::ratelimit::RateLimit = $crate::ratelimit::RateLimit::new();
        if LIMIT.allows() {
            ::kernel::pr_warn!($($arg)*);
        }
    }};
}
pub(crate) use pr_warn_ratelimited;

#[kunit_tests(nft_offload_ratelimit)]
mod tests {
    use super::RateLimit;

    #[test]
    fn so_many_are_told_in_each_interval() {
        const SECOND: u64 = 250;
        let limit = RateLimit::new();
        let told_at = |now| {
            (0..100)
                .filter(|_| limit.allows_at(now, 5 * SECOND))
                .count()
        };
        let start = 1 << 32;

        assert_eq!(told_at(start), 10);
        assert_eq!(told_at(start + 5 * SECOND - 1), 0);
        assert_eq!(told_at(start + 5 * SECOND), 10);
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Messages that do not flood the log, where the kernel crate has only those that are logged once.

use crate::time::{jiffies64, ms};
use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed}, //
};

/// How often one place in the code may log: ten times in five seconds, as `DEFINE_RATELIMIT_STATE` has
/// it. Each place has a limit of its own, so that none is silenced by another one.
pub(crate) struct RateLimit {
    /// When the five seconds have begun, in jiffies.
    begin: Atomic<u64>,
    logged: Atomic<u64>,
}

impl RateLimit {
    const INTERVAL_MS: u32 = 5000;
    const BURST: u64 = 10;

    pub(crate) const fn new() -> Self {
        Self {
            begin: Atomic::new(0),
            logged: Atomic::new(0),
        }
    }

    /// Returns whether one more message may be logged now. Can be called anywhere.
    pub(crate) fn allows(&self) -> bool {
        self.allows_at(jiffies64(), ms(Self::INTERVAL_MS))
    }

    fn allows_at(&self, now: u64, interval: u64) -> bool {
        let begin = self.begin.load(Relaxed);

        // If two come at once, one of them begins anew.
        if now >= begin + interval && self.begin.cmpxchg(begin, now, Relaxed).is_ok() {
            self.logged.store(0, Relaxed);
        }
        self.logged.fetch_add(1, Relaxed) < Self::BURST
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
    fn so_many_are_logged_in_each_interval() {
        const SECOND: u64 = 250;
        let limit = RateLimit::new();
        let logged_at = |now| {
            (0..100)
                .filter(|_| limit.allows_at(now, 5 * SECOND))
                .count()
        };
        let start = 1 << 32;

        assert_eq!(logged_at(start), 10);
        assert_eq!(logged_at(start + 5 * SECOND - 1), 0);
        assert_eq!(logged_at(start + 5 * SECOND), 10);
    }
}

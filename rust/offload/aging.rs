// SPDX-License-Identifier: GPL-2.0

//! When a flow expires.

/// Returns a time of the last 2^31 jiffies at full width, from its lower 32 bits.
pub(super) fn full_width(now: u64, past: u32) -> u64 {
    now.saturating_sub(u64::from((now as u32).wrapping_sub(past)))
}

/// The last use that C has to be told of, such that the flow lives as long as it should.
///
/// After each statistics request C sets (`flow_offload_work_stats()`)
///
/// ```text
/// timeout = (u32) max((u64) timeout, lastused + lifetime)
/// ```
///
/// where `timeout` has 32 bits. As soon as jiffies have more than that, five minutes after boot,
/// the maximum is the second one, however old the driver's `lastused` is: a flow of which only the
/// host sees packets would expire in use. So the answer is the later one of both ends of life, at full
/// width.
///
/// `now` is the time, `expires` the flow's `timeout`, `hit` when hardware saw the last packet, or
/// 0. All are in jiffies.
pub(super) fn lastused(now: u64, expires: u32, lifetime: u64, hit: u64) -> u64 {
    let left = expires.wrapping_sub(now as u32) as i32;
    let by_host = now.wrapping_add_signed(i64::from(left));
    let by_hardware = hit.saturating_add(lifetime);

    by_host.max(by_hardware).saturating_sub(lifetime)
}

#[kernel::macros::kunit_tests(nft_offload_aging)]
mod tests {
    use super::lastused;

    const HZ: u64 = 250;
    const LIFETIME: u64 = 30 * HZ;

    /// What C makes of the answer.
    fn timeout(now: u64, expires: u64, hit: u64) -> u64 {
        let answer = lastused(now, expires as u32, LIFETIME, hit);
        let timeout = u64::from(expires as u32).max(answer + LIFETIME) as u32;

        now.wrapping_add_signed(i64::from(timeout.wrapping_sub(now as u32) as i32))
    }

    /// Before, at and after the moment when jiffies need more than 32 bits.
    const TIMES: [u64; 6] = [
        (1 << 32) - 300 * HZ,
        (1 << 32) - LIFETIME - 1,
        (1 << 32) - 1,
        1 << 32,
        (1 << 32) + 300 * HZ,
        (7 << 32) - 10,
    ];

    #[test]
    fn packets_in_software_only_keep_a_flow_alive() {
        for now in TIMES {
            // Hardware saw its last packet long ago, or none at all.
            for hit in [0, now - 10 * LIFETIME] {
                for left in [1, LIFETIME / 2, LIFETIME] {
                    assert_eq!(timeout(now, now + left, hit), now + left);
                }
            }
        }
    }

    #[test]
    fn packets_in_hardware_only_keep_a_flow_alive() {
        for now in TIMES {
            for age in [0, 1, LIFETIME / 3] {
                for left in [1, LIFETIME / 2] {
                    let hit = now - age;
                    assert_eq!(
                        timeout(now, now + left, hit),
                        (now + left).max(hit + LIFETIME)
                    );
                }
            }
        }
    }

    #[test]
    fn an_idle_flow_expires() {
        for now in TIMES {
            assert_eq!(timeout(now, now - 1, 0), now - 1);
            assert_eq!(timeout(now, now - 1, now - 2 * LIFETIME), now - 1);
        }
    }
}

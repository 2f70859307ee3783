// SPDX-License-Identifier: GPL-2.0

//! When a flow expires, and what conntrack is told of it meanwhile.
//!
//! Packets of the fast path and of hardware pass conntrack by. So the core gives a connection with an entry
//! a day to live, again and again (`nf_flow_table_extend_ct_timeout()`), and shortens that when the
//! entry goes (`flow_offload_fixup_ct()`). Garbage collection comes before: it knows when the last
//! packet came, and from that what conntrack would have made of it ([`Age`]).

use crate::{
    net::flow_rule::{IPPROTO_GRE, IPPROTO_UDP},
    netfilter::{conntrack::Direction, flow::FlowOffload},
    offload::{left::LeftFlows, route},
    time::{jiffies64, ms},
    work::Worker,
};

/// What is below that, the core makes a day (`nf_flow_table_extend_ct_timeout()`): so conntrack itself has
/// set it, since garbage collection was last there.
fn extended() -> i32 {
    ms(5 * 60 * 1000) as i32
}

/// How long ago the last packet of a connection came, in the eyes of conntrack.
#[derive(Clone, Copy)]
pub(super) struct Age {
    /// When it came. All times are in jiffies, their lower 32 bits.
    pub(super) last: u32,
    /// For how long conntrack keeps the connection after it, if that is known.
    lifetime: Option<u32>,
}

impl Age {
    /// Finds it for a connection with an entry whose last packet that passed conntrack by came at `last`.
    /// Marks it as assured if it has come to that. Does not sleep.
    pub(super) fn of(entry: &FlowOffload, now: u32, last: u32) -> Self {
        let conntrack = entry.conntrack();
        let mut last = last;
        let left = conntrack.end().wrapping_sub(now) as i32;
        if (1..extended()).contains(&left) {
            // One that did not pass it by.
            let seen = conntrack
                .lifetime(now)
                .map(|lifetime| now.wrapping_sub(lifetime.saturating_sub(left as u32)));
            last = seen
                .filter(|seen| seen.wrapping_sub(last) as i32 > 0)
                .unwrap_or(last);
        }
        conntrack.assure(last);

        let lifetime = conntrack.lifetime(last);
        if let Some(lifetime) = lifetime {
            // The core's day is not to be the last.
            let (from, to) = (conntrack.end(), Self::end(last, lifetime));
            if to.wrapping_sub(from) as i32 > 0 && to.wrapping_sub(now) as i32 >= extended() {
                conntrack.set_end(from, to);
            }
        }
        Self { last, lifetime }
    }

    /// The fast path notes the time of a packet once in a second.
    fn end(last: u32, lifetime: u32) -> u32 {
        last.wrapping_add(lifetime).wrapping_add(ms(1000) as u32)
    }

    /// Returns whether conntrack would have forgotten the connection at `now`, or the lifetime of its
    /// entry was over then.
    pub(super) fn is_over(self, now: u32, lifetime: u32) -> bool {
        let idle = now.wrapping_sub(self.last) as i32;
        let is_gone = self
            .lifetime
            .is_some_and(|lifetime| Self::end(self.last, lifetime).wrapping_sub(now) as i32 <= 0);

        is_gone || idle >= lifetime as i32
    }

    /// Has the connection end when it would without a flowtable. The core is about to tear its entry down.
    ///
    /// The entry is not made to expire: whenever the core finds it expired it would take away
    /// `IPS_OFFLOAD`, which may be a newer entry's by then.
    pub(super) fn conclude(self, entry: &FlowOffload, now: u32) {
        let conntrack = entry.conntrack();
        let Some(lifetime) = self.lifetime else {
            return;
        };
        let (from, to) = (conntrack.end(), Self::end(self.last, lifetime));
        let left = from.wrapping_sub(now) as i32;

        // Conntrack gives no packet more than that: it is the core's day.
        let is_extended = (lifetime as i32) < extended() || left > lifetime as i32;
        if is_extended && from.wrapping_sub(to) as i32 > 0 {
            conntrack.set_end(from, to);
        }
    }
}

/// Leaves the answers to the host as long as conntrack has not seen any: it has to see the first one.
pub(super) fn keep_first_answer(entry: &FlowOffload) {
    if entry.l4proto() == IPPROTO_UDP
        && !entry.conntrack().has_seen_reply()
        && !entry.is_left_to_host(Direction::Reply)
    {
        entry.leave_to_host(Direction::Reply);
    }
}

/// Returns whether conntrack has seen the answer that it was to see: then the entry is to go, for one that
/// is made anew has both directions.
pub(super) fn is_answered(entry: &FlowOffload) -> bool {
    entry.l4proto() == IPPROTO_UDP
        && entry.conntrack().has_seen_reply()
        && entry.is_left_to_host(Direction::Reply)
}

/// Has the core see enough time left for a connection of GRE, whatever packets of it conntrack sees.
pub(super) fn hold_gre(entry: &FlowOffload, now: u32) {
    if entry.l4proto() == IPPROTO_GRE {
        entry.conntrack().hold_gre(true);
        extend_gre(entry, now);
    }
}

/// Has the core see enough time left this time for a connection of GRE with an entry. Does not sleep.
pub(super) fn extend_gre(entry: &FlowOffload, now: u32) {
    let conntrack = entry.conntrack();
    if entry.l4proto() == IPPROTO_GRE && conntrack.has_entry() {
        let from = conntrack.end();
        if (from.wrapping_sub(now) as i32) < 2 * extended() {
            conntrack.set_end(from, now.wrapping_add(4 * extended() as u32));
        }
    }
}

/// The entry of a connection of GRE is gone.
pub(super) fn release_gre(entry: &FlowOffload) {
    if entry.l4proto() == IPPROTO_GRE {
        entry.conntrack().hold_gre(false);
        let now = jiffies64() as u32;
        Age::of(entry, now, now).conclude(entry, now);
    }
}

/// Returns whether the entry is to go since the ruleset has changed; to be asked each second. There is no other one
/// until the ruleset has let packets of both directions pass. Does not sleep.
pub(super) fn is_outdated(left: Option<&Worker<LeftFlows>>, entry: &FlowOffload) -> bool {
    // The entry was being made when it was decided that there is to be none.
    entry.conntrack().makes_no_entry()
        || entry.is_of_old_ruleset()
            && left.is_none_or(|left| LeftFlows::add_until_passed(left, entry.conntrack()))
}

/// Looks at an entry once a second that has no rules. Returns whether it is to go. Does not sleep.
pub(super) fn gc_in_software(left: Option<&Worker<LeftFlows>>, entry: &FlowOffload) -> bool {
    let now = jiffies64() as u32;
    let lifetime = entry.lifetime() as u32;
    let last = last_by_software(entry);
    let age = Age::of(entry, now, last);

    // Before the core finds it expired.
    let early = (2 * ms(1000) as u32).min(lifetime / 4);
    if is_answered(entry) || age.is_over(now, lifetime - early) || is_outdated(left, entry) {
        age.conclude(entry, now);
        return true;
    }
    keep_first_answer(entry);
    if age.last != last {
        entry.set_expires(age.last.wrapping_add(lifetime));
    }
    // To look a route up is what a packet does that is forwarded: the next hop is in use.
    if now.wrapping_sub(age.last) <= 2 * ms(1000) as u32 && entry.net().has_resilient_groups() {
        route::choose_hops(entry);
    }
    false
}

/// Looks for the first time at an entry that may be one of a table without `flags offload`. Does not sleep.
pub(super) fn gc_new(entry: &FlowOffload) {
    entry.limit_mtu_by_route();
    keep_first_answer(entry);
    // Or the core would warn that it has too little time left.
    hold_gre(entry, jiffies64() as u32);
}

/// The table of an entry goes: conntrack has seen nothing since the packet at `last` that passed it by, in
/// jiffies, or one that came up to a second later. Does not sleep.
pub(super) fn end(entry: &FlowOffload, last: u32) {
    let now = jiffies64() as u32;
    let last = last.wrapping_add(now.wrapping_sub(last).min(ms(1000) as u32));
    if entry.l4proto() == IPPROTO_GRE {
        entry.conntrack().hold_gre(false);
    }
    Age::of(entry, now, last).conclude(entry, now);
}

/// When the last packet came through software, as the core notes it, in jiffies.
pub(super) fn last_by_software(entry: &FlowOffload) -> u32 {
    entry.expires().wrapping_sub(entry.lifetime() as u32)
}

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

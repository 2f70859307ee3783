// SPDX-License-Identifier: GPL-2.0

//! What is known of a flow: where its rules are, and why it has none.

use crate::{
    net::flow_block::RuleName,
    netfilter::{
        conntrack::Conntrack,
        flow::{Connection, Direction, FlowName, FlowOffload}, //
    },
    offload::{
        refusal::Refusal,
        way::Ways, //
    },
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        Arc,
        Mutex, //
    },
};

/// A flow that C has offered, from its first `FLOW_CLS_REPLACE` to its `FLOW_CLS_DESTROY`.
#[pin_data]
pub(super) struct Record {
    id: u64,
    name: FlowName,
    conntrack: ARef<Conntrack>,
    /// Held while drivers are called for the flow.
    #[pin]
    state: Mutex<State>,
}

impl Record {
    pub(super) fn new(flow: &FlowOffload) -> Result<Arc<Self>> {
        // Tables of several namespaces may share a driver, so ids are the whole module's.
        static LAST_ID: Atomic<u64> = Atomic::new(0);

        Arc::pin_init(
            pin_init!(Self {
                id: LAST_ID.fetch_add(1, Relaxed) + 1,
                name: flow.name(),
                conntrack: flow.conntrack().into(),
                state <- new_mutex!(State::default()),
            }),
            GFP_KERNEL,
        )
    }

    /// A number that no other record has or will have.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Finds the flow in its table.
    pub(super) fn name(&self) -> &FlowName {
        &self.name
    }

    /// What no flow has but those of the same connection. `None` if it is not IP.
    pub(super) fn connection(&self) -> Option<Connection> {
        self.name.connection(self.conntrack.zone())
    }

    pub(super) fn conntrack(&self) -> &Conntrack {
        &self.conntrack
    }

    pub(super) fn state(&self) -> &Mutex<State> {
        &self.state
    }

    /// The name of a direction's rule in a table of this priority. Unlike C's cookie, the address
    /// of the tuple, it is never used again for another flow.
    pub(super) fn rule_name(&self, dir: Direction, priority: i32) -> RuleName {
        RuleName {
            cookie: (self.id << 1) as usize | dir as usize,
            priority,
        }
    }
}

/// A rule that a driver has taken.
#[derive(Clone, Copy)]
pub(super) struct Installed {
    /// Index of the device whose driver has it.
    pub(super) ingress: u32,
}

/// The part of a record that changes.
#[derive(Default)]
pub(super) struct State {
    original: Option<Installed>,
    reply: Option<Installed>,
    /// The ways that packets take; set as long as the flow is in the table's index. A flow without
    /// has no rules.
    pub(super) ways: Option<KBox<Ways>>,
    /// Its packets would go another way now: it gets no rules any more.
    pub(super) evicted: bool,
    /// When its ways were last looked for, in jiffies; 0 before that.
    pub(super) looked: u64,
    /// When hardware last saw a packet of either direction, in jiffies; 0 or some time in the past
    /// if never.
    pub(super) hit: u64,
    /// Set as long as something is missing from hardware.
    pub(super) refusal: Option<KBox<Refusal>>,
    pub(super) backoff: Backoff,
}

impl State {
    pub(super) fn rule(&mut self, dir: Direction) -> &mut Option<Installed> {
        match dir {
            Direction::Original => &mut self.original,
            Direction::Reply => &mut self.reply,
        }
    }

    /// What C is told of a flow that lacks a rule: nothing is wrong as long as it has the other one.
    pub(super) fn outcome(&self) -> Result {
        if !self.is_empty() {
            return Ok(());
        }
        // There was no memory to keep a refusal.
        Err(self
            .refusal
            .as_ref()
            .map_or(ENOMEM, |refusal| refusal.errno()))
    }

    /// Whether neither direction has a rule.
    pub(super) fn is_empty(&self) -> bool {
        self.original.is_none() && self.reply.is_none()
    }
}

/// When a refused flow may be offered to the driver again.
///
/// C offers a flow again each second in which packets of it reach the host. A driver that had no
/// room a second ago hardly has any now, so each refusal doubles the time until the next try. A
/// device that joins the table, goes up or down changes everything.
#[derive(Default)]
pub(super) struct Backoff {
    refusals: u32,
    until: u64,
    devices: u64,
}

impl Backoff {
    /// No longer than 64 seconds: 1 << 6.
    const MAX_SHIFT: u32 = 6;

    /// Whether a try may be made at `now`, in jiffies, with the devices as they are (a number that
    /// is another one after each change).
    pub(super) fn is_over(&self, now: u64, devices: u64) -> bool {
        now >= self.until || devices != self.devices
    }

    /// A try has failed; `second` is one second in jiffies.
    pub(super) fn refused(&mut self, now: u64, second: u64, devices: u64) {
        self.devices = devices;
        self.until = now + (second << self.refusals.min(Self::MAX_SHIFT));
        self.refusals = self.refusals.saturating_add(1);
    }

    /// A try was successful.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[kunit_tests(nft_offload_record)]
mod tests {
    use super::*;

    #[test]
    fn a_record_takes_256_bytes_at_most() {
        // Locks are larger where they are checked.
        let lock = size_of::<Mutex<State>>() - size_of::<State>();
        let counted = size_of::<usize>() + size_of::<Record>();

        assert!(counted - lock + 32 <= 256);
    }

    #[test]
    fn a_refused_flow_waits_twice_as_long_each_time() {
        const SECOND: u64 = 250;
        let mut backoff = Backoff::default();
        let mut now = 1 << 32;
        let mut waits = [0; 9];

        assert!(backoff.is_over(now, 1));
        for wait in &mut waits {
            backoff.refused(now, SECOND, 1);
            assert!(!backoff.is_over(now, 1));
            assert!(backoff.is_over(now, 2));
            while !backoff.is_over(now, 1) {
                now += SECOND;
                *wait += 1;
            }
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 64, 64]);

        backoff.reset();
        backoff.refused(now, SECOND, 1);
        assert!(backoff.is_over(now + SECOND, 1));
    }
}

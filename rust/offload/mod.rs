// SPDX-License-Identifier: GPL-2.0

//! What this module decides: which flows are in hardware, as what rules, and why not.
//!
//! ```text
//! C worker ─▶ table ─▶ rules ─▶ translate ─▶ (FlowRule) ─▶ devices ─▶ driver
//!               │         └────▶ record: what is installed where, and the last refusal
//!               ├──────────────▶ refusal: why not, in words
//!               └─▶ way: how the host would send the packets; index: which flows take which way;
//!                   doubts: entries that are otherwise
//!                    ▲
//! notifiers ─▶ truth ┘ evicts the flows whose way is no longer the host's
//! ```
//!
//! # Lock order
//!
//! From the outermost inwards. Each may be missing; none is taken while a later one is held.
//!
//! | lock | held where |
//! |---|---|
//! | RTNL | nftables' notifier of devices calls; a worker waits for it with nothing else held, all others only try |
//! | `commit_mutex` (nftables) | tables come and go, devices join and leave; waits for who has [`Access`](crate::netfilter::tables::Access) |
//! | the flowtable's `flow_block_lock` | for reading: C's requests, one eviction; for writing: devices join and leave |
//! | [`devices::Registry`] | drivers are bound and unbound; orphans are tried again by the worker |
//! | a [`record::Record`]'s state | drivers are asked for rules of the flow |
//! | [`devices::Device`]'s orphans | a failed removal is tried again |
//! | [`index::Index`]; `xa_lock` of [`table::Table`]'s flows, which does not sleep; the list of [`Tables`](crate::netfilter::tables::Tables) | looked into, for a moment |
//! | `block_setup_lock` (shims_block.c) | drivers are bound and unbound |
//! | a block's own lock (shims_block.c) | for reading: drivers are asked for rules; for writing: callbacks come and go; before the core's `flow_indr_block_lock` |
//!
//! On the packet path runs only `Table::led_nowhere`, which takes none and allocates nothing; notifiers
//! only put events into a queue without locks.
//!
//! A driver that leaves ([`Binder::Indirect`](crate::net::flow_block::Binder::Indirect)) comes with
//! none of them held. First its block takes no new rules, under the block's lock; then the rules are
//! withdrawn, with the locks of any request; then its callback goes, under `block_setup_lock` and the
//! block's. The table may unbind the device at any moment of that.

#![forbid(unsafe_code)]

mod aging;
pub(crate) mod devices;
mod doubts;
mod index;
mod record;
mod refusal;
mod rules;
pub(crate) mod table;
pub(crate) mod translate;
pub(crate) mod truth;
mod way;

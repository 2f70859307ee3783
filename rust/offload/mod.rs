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
//! `commit_mutex` (nftables), the list of [`Tables`](crate::netfilter::flowtable::Tables), the
//! flowtable's `flow_block_lock`, [`devices::Registry`], one [`record::Record`]'s state,
//! [`index::Index`], `xa_lock` of [`table::Table`]'s flows. Drivers are bound with those up to the
//! registry held, then `block_setup_lock` and the block's own lock (shims_block.c), and get requests
//! with `flow_block_lock`, the record's state and the block's lock held, to which
//! [`devices::Device`]'s orphans come when a failed removal is tried again, for which a worker holds
//! the registry alone; no other lock of ours but the block's is taken under the orphans. All but
//! `xa_lock` may sleep. On the packet path runs only `Table::led_nowhere`, which takes none and allocates
//! nothing; notifiers only put events into a queue without locks.
//!
//! A driver that leaves ([`Binder::Indirect`](crate::net::flow_block::Binder::Indirect)) comes with
//! none of them held. First its block takes no new rules, under the block's lock; then the rules are
//! withdrawn, with the locks of any request; then its callback goes, under `block_setup_lock` and the
//! block's. The table may unbind the device at any moment of that.
//!
//! RTNL comes before `commit_mutex`: it is held where nftables' notifier of devices calls, taken by the
//! worker with nothing else held, and only tried for anywhere else.

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

// SPDX-License-Identifier: GPL-2.0

//! What this module decides: which flows are in hardware, as what rules, and why not.
//!
//! ```text
//! C worker ─▶ table ─▶ rules ─▶ translate ─▶ (FlowRule) ─▶ devices ─▶ driver
//!               │         └────▶ record: what is installed where, and the last refusal
//!               ├──────────────▶ refusal: why not, in words
//!               └─▶ way: how the host would send the packets; index: which flows take which way
//!                    ▲
//! notifiers ─▶ truth ┘ evicts the flows whose way is no longer the host's
//! ```
//!
//! # Lock order
//!
//! `commit_mutex` (nftables), the list of [`Tables`](crate::netfilter::flowtable::Tables), the
//! flowtable's `flow_block_lock`, [`devices::Registry`], [`record::Record`]'s state,
//! [`index::Index`], `xa_lock` of [`table::Table`]'s flows. Drivers are bound with those up to the
//! registry held and `block_setup_lock` (shims.c) innermost, and get requests with `flow_block_lock`
//! and the record's state held, to which [`devices::Device`]'s orphans come when a failed removal is
//! tried again; no other lock of ours is taken under the orphans. All but `xa_lock` may sleep; nothing
//! here runs on the packet path, and notifiers only put events into a queue without locks.
//!
//! RTNL comes before `commit_mutex`: it is held where nftables' notifier of devices calls, taken by the
//! worker with nothing else held, and only tried for anywhere else.

#![forbid(unsafe_code)]

mod aging;
pub(crate) mod devices;
mod index;
mod record;
mod refusal;
mod rules;
pub(crate) mod table;
pub(crate) mod translate;
pub(crate) mod truth;
mod way;

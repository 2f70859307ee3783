// SPDX-License-Identifier: GPL-2.0

//! What this module decides: which flows are in hardware, as what rules, and why not.
//!
//! ```text
//! C worker ─▶ table ─▶ translate ─▶ (FlowRule) ─▶ devices ─▶ driver
//!               │
//!               └─▶ record: what is installed where, and the last refusal
//! ```
//!
//! # Lock order
//!
//! `commit_mutex` (nftables), the flowtable's `flow_block_lock`, [`record::Record`]'s state,
//! [`index::Index`], `xa_lock` of [`table::Table`]'s flows. Drivers are called with the first
//! three held. All but the last may sleep; nothing here runs on the packet path.

#![forbid(unsafe_code)]

mod aging;
mod devices;
mod index;
mod record;
mod refusal;
pub(crate) mod table;
mod translate;

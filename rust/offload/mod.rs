// SPDX-License-Identifier: GPL-2.0

//! What this module decides: which flows are in hardware, as what rules, and why not.
//!
//! ```text
//! nf_flowtable_type::action ─▶ table ─▶ hw_flow ─▶ route ─▶ index
//!   (nf_flow_table's worker)              │ push
//!                                         ▼
//!                        device: queue ─▶ work ─▶ hw_flow ─▶ translate ─▶ (FlowRule) ─▶ driver
//!                                         ▲ push
//! notifiers ─▶ monitor: work ─▶ index ─▶ hw_flow: evict
//!
//! nf_flowtable_type::gc ─▶ table ─▶ hw_flow: aging
//!                            └────▶ plain: aging, queue ─▶ work ─▶ route     (tables without `flags offload`)
//! ```
//!
//! A driver is called by the works of its own device ([`device`]), and where it is bound or unbound
//! ([`registry`]). All else returns at once: nf_flow_table's workers, which a device that goes down anywhere waits
//! for with RTNL held; the work of a namespace ([`monitor`]); `nf_flowtable_type::gc`. Only a device
//! that leaves a flowtable, or is unregistered, waits for its own rules.
//!
//! # Glossary
//!
//! | term | |
//! |---|---|
//! | flow | [`HwFlow`](hw_flow::HwFlow): a `struct flow_offload` that was offered, and its rules |
//! | entry | the `struct flow_offload` itself |
//! | rule | what a driver has for one direction of a flow, by `FLOW_CLS_REPLACE` |
//! | device | [`OffloadDevice`](device::OffloadDevice): a `struct net_device` whose driver takes rules |
//! | port | [`Port`](device::Port): a device in one flowtable |
//! | path | [`ForwardPath`](route::ForwardPath): neighbour, headers and device by which packets leave |
//! | route | [`FlowRoute`](route::FlowRoute): both directions' paths, and the keys by which they were found |
//! | destination | [`Destination`](index::Destination): an address that gets packets by a path |
//! | tight | a device without room for rules, until no flow waits for it: [`Room`](backoff::Room) |
//! | to evict | to take the rules out of hardware and tear the entry down, as the host would do otherwise |
//! | to withdraw | to take the rules out of hardware; the entry goes on in software |
//! | to leave | to evict for as long as nothing changes ([`left`]): the connection is as one without a flowtable |
//! | stale rule | one that the driver failed to remove |
//! | stale entry | one that was made before a change and is offered after it |
//! | dialect | [`Dialect`](translate::Dialect): how a driver reads a rule |
//!
//! # Lock order
//!
//! From the outermost inwards. Each may be missing; none is taken while a later one is held.
//!
//! | lock | held where |
//! |---|---|
//! | RTNL | nftables' notifier of devices calls; [`registry::Binder`] waits for it with nothing else held, all others only try |
//! | `commit_mutex` (nftables) | devices join and leave tables; waits for the rules of a device that leaves, and those that send to it |
//! | `nl_cb_mutex` of a netlink socket, then that of a [`KnownTable`](crate::netfilter::known::KnownTable) | a dump looks at a few entries; nothing waits for memory or drivers meanwhile |
//! | `joined` of a [`table::Table`] | devices join and leave it, a dump names them |
//! | `bound` of [`registry::BoundDevices`] | drivers are bound and unbound |
//! | `ends` of a [`device::OffloadDevice`] | its works come to an end; held while its driver is called |
//! | `users` of a [`monitor::Monitor`], then `watch_lock` of a namespace (c/notifier.c) | tables come and go; a namespace's FIB notifier is registered |
//! | `flows` of [`left::LeftFlows`], then a namespace's [`NetRef`](crate::net::notifier::NetRef) | connections are left to the host and looked at |
//! | `block_setup_lock` (c/flow_block.c) | the same, and an indirect driver unregisters |
//! | a block's own lock (c/flow_block.c) | for reading: its driver is asked for rules; for writing: callbacks come and go; before the core's `flow_indr_block_lock` |
//! | `told` ([`members`]), `known` ([`shapers`]), `idle` ([`monitor::Reaper`]), a namespace's settings (c/settings.c) | looked into, for a moment |
//! | `rules` of a [`device::Port`] | rules are counted, for a moment |
//! | `inserting` of [`flow_hash::HashTable`], one shard of the first hash, one of the second, then [`index::Index`] | looked into, for a moment; memory may be asked for |
//! | a flow's state ([`Attached`](crate::netfilter::attach::Attached)) | spinlock; one at a time |
//! | a device's queue; its driver; `listed` of [`registry`], drivers' words ([`why`]), counters ([`flow_counters`]); the list of [`Tables`](crate::netfilter::flowtable::Tables); `xa_lock` of a table's ports | spinlocks, for a moment |
//!
//! A device's works hold none of them when they call a driver, but for the block's own lock. On the
//! packet path runs only `Table::ingress`, which takes none and allocates nothing; notifiers only put
//! events into queues without locks.

#![forbid(unsafe_code)]

mod aging;
mod backoff;
pub(crate) mod config;
mod device;
mod device_stats;
pub(crate) mod family;
mod flow_counters;
mod flow_hash;
mod hw_flow;
mod index;
mod left;
mod members;
mod monitor;
mod plain;
mod refusal;
mod registry;
mod report;
mod route;
mod shapers;
mod stale;
pub(crate) mod table;
pub(crate) mod translate;
mod why;

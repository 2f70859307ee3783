// SPDX-License-Identifier: GPL-2.0

//! Netfilter abstractions: conntrack entries, flows and flowtables.

pub(crate) mod attach;
pub(crate) mod conntrack;
pub(crate) mod flow;
pub(crate) mod flow_table_type;
pub(crate) mod flowtable;
pub(crate) mod hook;
pub(crate) mod known;
pub(crate) mod offload;

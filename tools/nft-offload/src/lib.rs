// SPDX-License-Identifier: GPL-2.0

//! What the program nft-offload is made of.

pub mod audit;
pub mod change;
pub mod cli;
pub mod conntrack;
pub mod doctor;
pub mod failure;
pub mod family;
pub mod flows;
pub mod links;
pub mod metrics;
pub mod netlink;
pub mod output;
pub mod ppe;
pub mod reasons;
pub mod report;
pub mod ruleset;
pub mod spec;
pub mod system;
pub mod tuple;
pub mod why;

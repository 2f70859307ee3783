// SPDX-License-Identifier: GPL-2.0

//! Flowtable offload for nftables, in the place of `nf_flow_table_inet`.
//!
//! The abstractions of C are in [`net`] and [`netfilter`], the module's own logic is in
//! [`offload`].

use kernel::{
    prelude::*,
    sync::Arc, //
};
use net::module::{c_module, CModule};
use netfilter::flow_table_type::Registration;
use offload::{
    config::Config,
    family,
    table::{Context, Table}, //
};

mod bindings;
mod compat;
mod lanes;
mod net;
mod netfilter;
mod offload;
mod time;
mod uapi;
mod work;

module! {
    type: NftOffload,
    name: "nft_offload",
    authors: ["kmod-nft-offload maintainers"],
    description: "Netfilter flowtable offload for inet, ip and ip6",
    license: "GPL",
    alias: ["nf-flowtable-1", "nf-flowtable-2", "nf-flowtable-10"],
    params: {
        bypass_qdisc: u8 {
            default: 1,
            description: "1: hardware sends past qdiscs that shape, with a warning (default), 0: flows by such devices stay in software",
        },
        incapable: u8 {
            default: 0,
            description: "0: a device that cannot offload fails the ruleset (default), 1: its flows stay in software, with a warning",
        },
        partial: u8 {
            default: 0,
            description: "0: offload both directions of a flow or none (default), 1: keep one if the other is refused",
        },
        report_ms: u32 {
            default: 10000,
            description: "the least time between two messages on flows that stay in software, in ms (10000), 0: each is logged",
        },
        ruleset_s: u16 {
            default: 30,
            description: "the least time between two times that flows are made anew, as the ruleset has changed, in seconds (30), 0: they never are",
        },
        ttl: u8 {
            default: 0,
            description: "what decrements the TTL. 0: find out for each device (default), 1: the rule, as in tc, 2: the hardware, unasked",
        },
    },
}

struct NftOffload {
    // In this order: nobody asks any more when tables go, and no table is left when the context is settled.
    _family: family::Registration,
    _types: Registration<Table>,
    _context: Settled,
}

/// The context, of which nothing is under way any more when this is dropped.
struct Settled(Arc<Context>);

impl Drop for Settled {
    fn drop(&mut self) {
        self.0.settle();
    }
}

impl kernel::Module for NftOffload {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let config = Config::new()?;
        if let Some(c_module) = c_module(module) {
            let (how, advice) = match c_module {
                CModule::Loaded => (
                    "loaded",
                    "Delete the flowtables and run \"modprobe -r nf_flow_table_inet\" first",
                ),
                CModule::BuiltIn => (
                    "built into this kernel",
                    "Use a kernel with CONFIG_NF_FLOW_TABLE_INET=m",
                ),
            };
            pr_err!("nf_flow_table_inet is {how}, and nftables would go on to use it. {advice}\n");
            return Err(EEXIST);
        }

        let context = Context::new(config)?;
        let settled = Settled(context.clone());
        let mut types = Registration::new(module, &context)?;
        // The last that may fail: a dump that has begun, or a flowtable, would not keep the module then.
        let family = family::register(module, &context)?;
        types.register();
        Ok(Self {
            _family: family,
            _types: types,
            _context: settled,
        })
    }
}

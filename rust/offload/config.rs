// SPDX-License-Identifier: GPL-2.0

//! The module's parameters.

use crate::{
    compat::param,
    module_parameters,
    offload::translate::Dialect,
    time::ms, //
};
use kernel::prelude::*;

/// The parameters of the module, parsed.
#[derive(Clone, Copy)]
pub(crate) struct Config {
    /// A device that cannot offload does not fail the user's ruleset.
    pub(super) tolerates_incapable: bool,
    /// One direction of a flow may be in hardware without the other.
    pub(super) keeps_partial: bool,
    /// Hardware may send past qdiscs that do more than to queue.
    pub(super) bypasses_qdisc: bool,
    /// The least time between two messages on flows that stay in software, in jiffies.
    pub(super) report: u64,
    /// The least time between two times that flows are made anew since the ruleset has changed, in seconds;
    /// 0: they never are.
    pub(super) ruleset_pause: u32,
    /// The dialect of drivers that are bound for flowtables, if it is not to be found out.
    pub(super) dialect: Option<Dialect>,
}

/// Fails with `EINVAL` unless a parameter's value is 0 to `max`.
fn in_range(name: &str, value: u8, max: u8) -> Result<u8> {
    if value > max {
        pr_err!("{name}={value} is out of range: it is 0 to {max}\n");
        return Err(EINVAL);
    }
    Ok(value)
}

impl Config {
    /// Parses the parameters. `EINVAL` if one is out of range.
    pub(crate) fn new() -> Result<Self> {
        let incapable = param(module_parameters::incapable.value());
        let partial = param(module_parameters::partial.value());
        let bypass_qdisc = param(module_parameters::bypass_qdisc.value());
        let ruleset_s: u16 = param(module_parameters::ruleset_s.value());
        let ttl = param(module_parameters::ttl.value());
        let report_ms = param(module_parameters::report_ms.value());

        Ok(Self {
            tolerates_incapable: in_range("incapable", incapable, 1)? != 0,
            keeps_partial: in_range("partial", partial, 1)? != 0,
            bypasses_qdisc: in_range("bypass_qdisc", bypass_qdisc, 1)? != 0,
            report: ms(report_ms),
            ruleset_pause: ruleset_s.into(),
            dialect: match in_range("ttl", ttl, 2)? {
                0 => None,
                1 => Some(Dialect::Tc),
                _ => Some(Dialect::Router),
            },
        })
    }
}

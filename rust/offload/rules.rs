// SPDX-License-Identifier: GPL-2.0

//! The rules of one flow, in hardware.

use crate::{
    net::{
        flow_block::{BoundBlock, FlowStats},
        flow_rule::FlowRule, //
    },
    netfilter::{
        flow::{Direction, Flow},
        flowtable::Flowtable, //
    },
    offload::{
        devices::{Device, Devices},
        index::Index,
        record::{Installed, Record, State},
        refusal::Cause,
        translate::{translate, Ttl}, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        lock::{mutex::MutexBackend, Guard},
        Arc, //
    },
};

/// A flow whose rules are being changed or asked for; no one else does meanwhile.
///
/// All methods call drivers and may sleep.
pub(super) struct Rules<'a> {
    table: &'a Flowtable,
    devices: &'a Devices,
    index: &'a Index,
    record: &'a Arc<Record>,
    pub(super) state: Guard<'a, State, MutexBackend>,
}

/// The hardware does not have a rule any more that it should have.
pub(super) struct Lost;

impl<'a> Rules<'a> {
    pub(super) fn new(
        table: &'a Flowtable,
        devices: &'a Devices,
        index: &'a Index,
        record: &'a Arc<Record>,
    ) -> Self {
        Self {
            table,
            devices,
            index,
            record,
            state: record.state().lock(),
        }
    }

    /// The driver that has the rule of a direction, if any has. (A device leaves the table only
    /// after its rules have left the device.)
    fn installed(&mut self, dir: Direction) -> Option<&'a BoundBlock> {
        let installed = (*self.state.rule(dir))?;
        Some(self.devices.get(installed.ingress)?.driver())
    }

    fn forget(&mut self, dir: Direction) {
        if let Some(installed) = self.state.rule(dir).take() {
            self.index.remove(installed, self.record, &self.state);
        }
    }

    fn account(&self, dir: Direction, stats: FlowStats) {
        if self.table.has_counter() {
            self.record
                .conntrack()
                .account(dir, stats.packets, stats.bytes);
        }
    }

    /// Installs the rule of a direction that has none.
    pub(super) fn install(&mut self, flow: &Flow, dir: Direction) -> Result<(), Cause> {
        let ingress = flow.tuple(dir).ingress;
        let device = self.devices.get(ingress).ok_or(Cause::NotBound(ingress))?;
        let mut result = Err(Cause::NotIp);

        for &ttl in device.ttl() {
            result = self.install_with(device, flow, dir, ttl);
            match result {
                Ok(()) => device.set_ttl(ttl),
                // Maybe it is the TTL that the driver does not take.
                Err(Cause::Driver(error)) if error.is_about_the_rule() => continue,
                Err(_) => {}
            }
            break;
        }
        result
    }

    fn install_with(
        &mut self,
        device: &Device,
        flow: &Flow,
        dir: Direction,
        ttl: Ttl,
    ) -> Result<(), Cause> {
        let rule = translate(flow, dir, ttl).map_err(Cause::Unsupported)?;
        let rule = FlowRule::new(&rule, self.table.net()).map_err(Cause::Prepare)?;
        let installed = Installed {
            ingress: flow.tuple(dir).ingress,
            egress: rule.egress().ifindex(),
        };

        // In the index first, for that may fail, and taking a rule back may not.
        *self.state.rule(dir) = Some(installed);
        let result = self
            .index
            .insert(installed, self.record)
            .map_err(Cause::Prepare)
            .and_then(|()| {
                let name = self.record.rule_name(dir, self.table.priority());
                device.driver().replace(name, &rule).map_err(Cause::Driver)
            });
        if result.is_err() {
            self.forget(dir);
        }
        result
    }

    /// Asks the driver what the rule of a direction has done since it was last asked; nothing if
    /// there is none. A rule that the hardware has lost is forgotten.
    pub(super) fn poll(&mut self, dir: Direction) -> Result<FlowStats, Lost> {
        let Some(driver) = self.installed(dir) else {
            return Ok(FlowStats::default());
        };

        match driver.stats(self.record.rule_name(dir, self.table.priority())) {
            Ok(stats) => {
                self.state.hit = self.state.hit.max(stats.lastused);
                Ok(stats)
            }
            Err(error) if error.errno == ENOENT => {
                self.forget(dir);
                Err(Lost)
            }
            Err(_) => Ok(FlowStats::default()),
        }
    }

    /// Packets of a flow that should be in hardware have reached the host. Most are exceptions,
    /// but maybe the hardware has lost a rule; then the other one is withdrawn.
    pub(super) fn verify(&mut self) {
        for dir in Direction::BOTH {
            match self.poll(dir) {
                Ok(stats) => self.account(dir, stats),
                Err(Lost) => self.withdraw_from(true),
            }
        }
    }

    /// Takes all rules of the flow out of hardware. With `counter`, what they did since they were
    /// last asked goes to conntrack, which C never does.
    pub(super) fn withdraw(&mut self) {
        self.withdraw_from(false);
    }

    /// As [`Self::withdraw`]. If the hardware is `lossy`, rules that it has lost too are not
    /// removed once more.
    pub(super) fn withdraw_from(&mut self, lossy: bool) {
        for dir in Direction::BOTH {
            if lossy || self.table.has_counter() {
                match self.poll(dir) {
                    Ok(stats) => self.account(dir, stats),
                    Err(Lost) => continue,
                }
            }

            if let Some(driver) = self.installed(dir) {
                let name = self.record.rule_name(dir, self.table.priority());
                if let Err(error) = driver.destroy(name) {
                    pr_warn!(
                        "{}: the driver did not remove a rule ({} direction): {}\n",
                        driver.device().name(),
                        dir,
                        error
                    );
                }
            }
            self.forget(dir);
        }
        self.record.conntrack().clear_hw_offload();
    }
}

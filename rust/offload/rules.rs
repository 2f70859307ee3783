// SPDX-License-Identifier: GPL-2.0

//! The rules of one flow, in hardware.

use crate::{
    net::{
        flow_block::FlowStats,
        flow_rule::FlowRule, //
    },
    netfilter::{
        flow::{Direction, Flow},
        flowtable::Flowtable, //
    },
    offload::{
        devices::{Device, Devices},
        record::{Installed, Record, State},
        refusal::Cause,
        translate::{probe, translate, Dialect}, //
    },
};
use kernel::{
    prelude::*,
    sync::lock::{mutex::MutexBackend, Guard}, //
};

/// A flow whose rules are being changed or asked for; no one else does meanwhile.
///
/// All methods call drivers and may sleep.
pub(super) struct Rules<'a> {
    table: &'a Flowtable,
    devices: &'a Devices,
    record: &'a Record,
    pub(super) state: Guard<'a, State, MutexBackend>,
}

/// The hardware does not have a rule any more that it should have.
pub(super) struct Lost;

impl<'a> Rules<'a> {
    pub(super) fn new(table: &'a Flowtable, devices: &'a Devices, record: &'a Record) -> Self {
        Self {
            table,
            devices,
            record,
            state: record.state().lock(),
        }
    }

    /// The device that has the rule of a direction, if any has. (A device leaves the table only
    /// after its rules have left the device.)
    fn installed(&mut self, dir: Direction) -> Option<&'a Device> {
        let installed = (*self.state.rule(dir))?;
        self.devices.get(installed.ingress)
    }

    fn account(&self, dir: Direction, stats: FlowStats) {
        if self.table.has_counter() {
            self.record
                .conntrack()
                .account(dir, stats.packets, stats.bytes);
        }
    }

    /// C adds the statistics that it is given to conntrack, but only 32 bits of them; this adds the
    /// rest, and returns what is left for C.
    pub(super) fn account_excess(&self, dir: Direction, stats: FlowStats) -> FlowStats {
        let excess = stats.bytes & !u64::from(u32::MAX);
        if excess > 0 {
            self.account(
                dir,
                FlowStats {
                    packets: 0,
                    bytes: excess,
                    ..stats
                },
            );
        }
        FlowStats {
            bytes: stats.bytes - excess,
            ..stats
        }
    }

    /// Whether a direction can be expressed as a rule for a driver that is there, in one of the
    /// dialects that the driver may speak.
    pub(super) fn check(&self, flow: &Flow, dir: Direction) -> Result<(), Cause> {
        let device = self.device(flow, dir)?;
        let mut result = Ok(());

        for &dialect in device.dialects() {
            result = translate(flow, dir, dialect)
                .map(drop)
                .map_err(Cause::Unsupported);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn device(&self, flow: &Flow, dir: Direction) -> Result<&'a Device, Cause> {
        let ingress = flow.tuple(dir).ingress;
        self.devices
            .get(ingress)
            .filter(|device| device.driver().takes_rules())
            .ok_or(Cause::NotBound(ingress))
    }

    /// Installs the rule of a direction that has none.
    pub(super) fn install(&mut self, flow: &Flow, dir: Direction) -> Result<(), Cause> {
        let device = self.device(flow, dir)?;
        let name = self.record.rule_name(dir, self.table.priority());
        if !device.is_free(name) {
            return Err(Cause::Orphan);
        }

        let mut dialects = device.dialects().iter().peekable();
        while let Some(&dialect) = dialects.next() {
            match self.install_as(device, flow, dir, dialect) {
                Ok(()) => {
                    device.learn(dialect);
                    break;
                }
                // Maybe it is the dialect that the driver does not understand.
                Err(Cause::Driver(error))
                    if error.is_not_supported() && dialects.peek().is_some() => {}
                // The next dialect is the right one only if the driver does not speak this one.
                Err(Cause::Unsupported(why)) if dialects.peek().is_some() => {
                    if self.speaks(device, flow, dir, dialect)? {
                        return Err(Cause::Unsupported(why));
                    }
                }
                Err(cause) => return Err(cause),
            }
        }
        Ok(())
    }

    /// Asks the driver whether it takes a rule in this dialect, by one that no packet hits.
    fn speaks(
        &self,
        device: &Device,
        flow: &Flow,
        dir: Direction,
        dialect: Dialect,
    ) -> Result<bool, Cause> {
        let rule = probe(flow, dir, dialect).map_err(Cause::Unsupported)?;
        let rule = FlowRule::new(&rule, self.table.net()).map_err(Cause::Prepare)?;
        let name = self.record.rule_name(dir, self.table.priority());

        match device.driver().replace(name, &rule) {
            Ok(()) => {
                self.devices.remove(device, name);
                device.learn(dialect);
                Ok(true)
            }
            Err(error) if error.is_not_supported() => Ok(false),
            Err(error) => Err(Cause::Driver(error)),
        }
    }

    fn install_as(
        &mut self,
        device: &Device,
        flow: &Flow,
        dir: Direction,
        dialect: Dialect,
    ) -> Result<(), Cause> {
        let rule = translate(flow, dir, dialect).map_err(Cause::Unsupported)?;
        let rule = FlowRule::new(&rule, self.table.net()).map_err(Cause::Prepare)?;
        let name = self.record.rule_name(dir, self.table.priority());

        device
            .driver()
            .replace(name, &rule)
            .map_err(Cause::Driver)?;
        *self.state.rule(dir) = Some(Installed {
            ingress: flow.tuple(dir).ingress,
        });
        Ok(())
    }

    /// Asks the driver what the rule of a direction has done since it was last asked; nothing if
    /// there is none. A rule that the hardware has lost is forgotten.
    pub(super) fn poll(&mut self, dir: Direction) -> Result<FlowStats, Lost> {
        let Some(device) = self.installed(dir) else {
            return Ok(FlowStats::default());
        };

        match device
            .driver()
            .stats(self.record.rule_name(dir, self.table.priority()))
        {
            Ok(stats) => {
                self.state.hit = self.state.hit.max(stats.lastused);
                Ok(stats)
            }
            Err(error) if error.errno == ENOENT => {
                *self.state.rule(dir) = None;
                Err(Lost)
            }
            // mlx5 says so of a rule that it does not know, others of a failure: then it goes now.
            Err(error) if error.errno == EINVAL => {
                self.remove(device, dir);
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
                Err(Lost) => self.withdraw_from_lossy(),
            }
        }
    }

    /// Takes all rules of the flow out of hardware. With `counter`, what they did since they were
    /// last asked goes to conntrack, which C never does.
    pub(super) fn withdraw(&mut self) {
        // A newer flow of the connection may have rules, and `[HW_OFFLOAD]`.
        if !self.state.is_empty() {
            self.withdraw_asking(self.table.has_counter());
        }
    }

    /// As [`Self::withdraw`], from hardware that has lost a rule of the flow: one that it has lost
    /// too is not removed once more.
    pub(super) fn withdraw_from_lossy(&mut self) {
        self.withdraw_asking(true);
    }

    fn withdraw_asking(&mut self, ask: bool) {
        for dir in Direction::BOTH {
            if ask {
                match self.poll(dir) {
                    Ok(stats) => self.account(dir, stats),
                    Err(Lost) => continue,
                }
            }

            if let Some(device) = self.installed(dir) {
                self.remove(device, dir);
            }
        }
        self.record.conntrack().clear_hw_offload();
    }

    fn remove(&mut self, device: &Device, dir: Direction) {
        self.devices
            .remove(device, self.record.rule_name(dir, self.table.priority()));
        *self.state.rule(dir) = None;
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The hardware side of a flowtable.
//!
//! C offers the two directions of a flow one after the other, in one go. The original direction is
//! held back, and with the reply direction both are installed or neither, unless the parameter
//! `partial` says that half a flow is good enough.

use crate::{
    module_parameters,
    net::{
        device::NetDevice,
        flow_block::{DriverError, FlowStats},
        flow_rule::FlowRule,
        namespace::Net, //
    },
    netfilter::{
        flow::{Direction, Flow, FlowOffload},
        flowtable::{Flowtable, Offload}, //
    },
    offload::{
        aging,
        devices::Devices,
        index::Index,
        record::{Installed, Record, State},
        refusal::{Cause, Refusal, Reporter},
        translate::translate, //
    },
    time::jiffies64,
};
use kernel::{
    prelude::*,
    sync::Arc,
    time::msecs_to_jiffies,
    xarray::{AllocKind, XArray}, //
};

/// The flows that C has offered for one flowtable.
#[pin_data]
pub(crate) struct Table {
    /// By [`FlowOffload::key`].
    #[pin]
    flows: XArray<Arc<Record>>,
    #[pin]
    index: Index,
    reporter: Reporter,
}

/// Both or one of a flow's directions.
fn directions(flow: &FlowOffload) -> &'static [Direction] {
    if flow.is_bidirectional() {
        &Direction::BOTH
    } else {
        &[Direction::Original]
    }
}

impl Table {
    fn record(&self, flow: &FlowOffload) -> Option<Arc<Record>> {
        self.flows.lock().get(flow.key()).map(Arc::from)
    }

    /// The record of `flow`, which is made if there is none. No two requests for a flow run at a
    /// time, so nobody else makes it meanwhile.
    fn record_or_new(&self, flow: &FlowOffload) -> Result<Arc<Record>> {
        if let Some(record) = self.record(flow) {
            return Ok(record);
        }

        let record = Record::new(flow.conntrack())?;
        self.flows
            .lock()
            .store(flow.key(), record.clone(), GFP_KERNEL)?;
        Ok(record)
    }

    /// Installs what is missing of `flow`, in the order of `directions`. On an error, what was
    /// installed stays.
    fn install(
        &self,
        net: &Net,
        devices: &Devices,
        record: &Arc<Record>,
        state: &mut State,
        flow: &Flow,
        directions: &[Direction],
    ) -> Result<(), Refusal> {
        let mut result = Ok(());

        for &dir in directions {
            if state.rule(dir).is_some() {
                continue;
            }
            if let Err(cause) = self.install_direction(net, devices, record, state, flow, dir) {
                result = Err(Refusal { dir, cause });
                if !keeps_partial() {
                    break;
                }
            }
        }
        result
    }

    fn install_direction(
        &self,
        net: &Net,
        devices: &Devices,
        record: &Arc<Record>,
        state: &mut State,
        flow: &Flow,
        dir: Direction,
    ) -> Result<(), Cause> {
        let rule = translate(flow, dir).map_err(Cause::Unsupported)?;
        let ingress = rule.matches.ingress;
        let device = devices.get(ingress).ok_or(Cause::NotBound(ingress))?;
        let rule = FlowRule::new(&rule, net).map_err(Cause::Prepare)?;
        let installed = Installed {
            ingress,
            egress: rule.egress().ifindex(),
        };

        // In the index first, for that may fail, and taking a rule back may not.
        let result = self
            .index
            .insert(installed, record)
            .map_err(Cause::Prepare)
            .and_then(|()| {
                device
                    .replace(record.cookie(dir), &rule)
                    .map_err(Cause::Driver)
            });
        match result {
            Ok(()) => *state.rule(dir) = Some(installed),
            Err(_) => self.index.remove(installed, record, state),
        }
        result
    }

    /// Takes all rules of a flow out of hardware. With `counter`, what they did since the last
    /// poll goes to conntrack, which C never does.
    fn withdraw(&self, table: &Flowtable, devices: &Devices, record: &Record, state: &mut State) {
        for dir in Direction::BOTH {
            let Some(installed) = state.rule(dir).take() else {
                continue;
            };

            // A device leaves only after its rules have, so it is there.
            if let Some(device) = devices.get(installed.ingress) {
                let cookie = record.cookie(dir);

                if table.has_counter() {
                    if let Ok(stats) = device.stats(cookie) {
                        record
                            .conntrack()
                            .account(dir, stats.packets, stats.bytes);
                    }
                }
                if let Err(error) = device.destroy(cookie) {
                    pr_warn!(
                        "{}: the driver did not remove a rule ({} direction): {}\n",
                        device.device().name(),
                        dir,
                        error
                    );
                }
            }
            self.index.remove(installed, record, state);
        }
        record.conntrack().clear_hw_offload();
    }
}

/// Whether one direction may be in hardware without the other.
fn keeps_partial() -> bool {
    *module_parameters::partial.value() != 0
}

impl Offload for Table {
    type Devices = Devices;

    fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            flows <- XArray::new(AllocKind::Alloc),
            index <- Index::new(),
            reporter: Reporter::new(),
        })
    }

    fn bind(&self, table: &Flowtable, devices: &mut Devices, dev: &NetDevice) -> Result {
        devices.bind(dev, table.priority()).map_err(|error| {
            pr_warn!(
                "{}: cannot offload, so the flowtable is refused: {}. Take the device or \"flags \
                 offload\" out of the flowtable\n",
                dev.name(),
                error
            );
            error.errno
        })
    }

    fn unbind(&self, table: &Flowtable, devices: &mut Devices, dev: &NetDevice) {
        while let Some(record) = self.index.first(dev.ifindex()) {
            let mut state = record.state().lock();
            self.withdraw(table, devices, &record, &mut state);
        }
        devices.unbind(dev);
    }

    fn replace(
        &self,
        table: &Flowtable,
        devices: &Devices,
        flow: &FlowOffload,
        dir: Direction,
    ) -> Result {
        let directions = directions(flow);
        if directions.last() != Some(&dir) {
            // Held back: the answer to the other direction decides.
            return Err(EAGAIN);
        }
        if flow.is_leaving() {
            return Err(ENOENT);
        }

        let record = self.record_or_new(flow)?;
        let mut state = record.state().lock();
        let now = jiffies64();

        if directions.iter().all(|&dir| state.rule(dir).is_some()) {
            return Ok(());
        }
        if !state.backoff.is_over(now) {
            return match &state.refusal {
                Some(refusal) if state.is_empty() => Err(refusal.errno()),
                _ => Ok(()),
            };
        }

        let described = flow.describe(table.net());
        let result = match &described {
            Some(flow) => {
                self.install(table.net(), devices, &record, &mut state, flow, directions)
            }
            None => Err(Refusal {
                dir,
                cause: Cause::NotIp,
            }),
        };

        match result {
            Ok(()) => {
                state.refusal = None;
                state.backoff.reset();
                Ok(())
            }
            Err(refusal) => {
                if !keeps_partial() {
                    self.withdraw(table, devices, &record, &mut state);
                }
                state.backoff.refused(now, msecs_to_jiffies(1000) as u64);
                state.refusal = Some(KBox::new(refusal, GFP_KERNEL)?);
                self.reporter
                    .refused(now, table.net(), described.as_ref(), &refusal);
                if state.is_empty() {
                    Err(refusal.errno())
                } else {
                    Ok(())
                }
            }
        }
    }

    fn destroy(&self, table: &Flowtable, devices: &Devices, flow: &FlowOffload, dir: Direction) {
        if dir != Direction::Original {
            // Done with the original direction, which C always asks for first.
            return;
        }
        let record = self.flows.lock().remove(flow.key());

        if let Some(record) = record {
            let mut state = record.state().lock();
            self.withdraw(table, devices, &record, &mut state);
        }
    }

    fn stats(
        &self,
        table: &Flowtable,
        devices: &Devices,
        flow: &FlowOffload,
        dir: Direction,
    ) -> FlowStats {
        let mut stats = FlowStats::default();
        let mut hit = 0;

        if let Some(record) = self.record(flow) {
            let mut state = record.state().lock();
            let device = state
                .rule(dir)
                .and_then(|installed| devices.get(installed.ingress));

            match device.map(|device| device.stats(record.cookie(dir))) {
                Some(Ok(new)) => {
                    stats = new;
                    state.hit = state.hit.max(new.lastused);
                }
                // The hardware has lost the rule. C offers the flow again when the host sees it.
                Some(Err(DriverError { errno, .. })) if errno == ENOENT => {
                    if let Some(lost) = state.rule(dir).take() {
                        self.index.remove(lost, &record, &state);
                    }
                    self.withdraw(table, devices, &record, &mut state);
                }
                _ => {}
            }
            hit = state.hit;
        }

        FlowStats {
            lastused: aging::lastused(jiffies64(), flow.expires(), flow.lifetime(), hit),
            ..stats
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The hardware side of a flowtable: which flows get rules, and when.
//!
//! C offers the two directions of a flow one after the other, in one go. The original direction is
//! held back, and with the reply direction both are installed or neither, unless the parameter
//! `partial` says that half a flow is good enough.

use crate::{
    module_parameters,
    net::{
        device::NetDevice,
        flow_block::FlowStats,
        ratelimit, //
    },
    netfilter::{
        flow::{Direction, Flow, FlowOffload},
        flowtable::{Flowtable, Offload}, //
    },
    offload::{
        aging,
        devices::{Devices, Registry},
        index::Index,
        record::Record,
        refusal::{report, Cause, Refusal},
        rules::{Lost, Rules}, //
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
}

/// The directions that C asks for.
fn directions(flow: &FlowOffload) -> &'static [Direction] {
    if flow.is_bidirectional() {
        &Direction::BOTH
    } else {
        &[Direction::Original]
    }
}

/// Whether one direction may be in hardware without the other.
fn keeps_partial() -> bool {
    *module_parameters::partial.value() != 0
}

impl Table {
    fn record(&self, flow: &FlowOffload) -> Option<Arc<Record>> {
        self.flows.lock().get(flow.key()).map(Arc::from)
    }

    /// The record of `flow`, which is made if there is none. No two requests for a flow run at a
    /// time, so nobody else makes it meanwhile.
    fn record_or_new(
        &self,
        table: &Flowtable,
        devices: &Devices,
        flow: &FlowOffload,
    ) -> Result<Arc<Record>> {
        if let Some(record) = self.record(flow) {
            if core::ptr::eq(record.conntrack(), flow.conntrack()) {
                return Ok(record);
            }
            // Of a flow that was here before and is gone without a DESTROY. C promises one; if it
            // ever fails to keep that, the new flow must not inherit anything.
            Rules::new(table, devices, &self.index, &record).withdraw();
        }

        let record = Record::new(flow.conntrack())?;
        self.flows
            .lock()
            .store(flow.key(), record.clone(), GFP_KERNEL)?;
        Ok(record)
    }

    /// Installs what is missing of `flow`.
    fn install(
        &self,
        table: &Flowtable,
        devices: &Devices,
        rules: &mut Rules<'_>,
        flow: &FlowOffload,
    ) -> Result {
        let now = jiffies64();
        let described = flow.describe(table.net());
        let result = match &described {
            Some(described) => Self::install_directions(rules, described, directions(flow)),
            None => Err(Refusal {
                dir: Direction::Original,
                cause: Cause::NotIp,
            }),
        };

        let Err(refusal) = result else {
            rules.state.refusal = None;
            rules.state.backoff.reset();
            return Ok(());
        };
        report(now, table.net(), described.as_ref(), &refusal);
        rules
            .state
            .backoff
            .refused(now, msecs_to_jiffies(1000) as u64, devices.changes());
        rules.state.refusal = Some(KBox::new(refusal, GFP_KERNEL)?);

        if rules.state.is_empty() {
            Err(refusal.errno())
        } else {
            Ok(())
        }
    }

    fn install_directions(
        rules: &mut Rules<'_>,
        flow: &Flow,
        directions: &[Direction],
    ) -> Result<(), Refusal> {
        let mut result = Ok(());
        let partial = keeps_partial();

        // No driver is bothered with one direction if there cannot be a rule for the other.
        if !partial {
            for &dir in directions {
                rules
                    .check(flow, dir)
                    .map_err(|cause| Refusal { dir, cause })?;
            }
        }
        for &dir in directions {
            if rules.state.rule(dir).is_some() {
                continue;
            }
            if let Err(cause) = rules.install(flow, dir) {
                result = Err(Refusal { dir, cause });
                if !partial {
                    rules.withdraw();
                    break;
                }
            }
        }
        result
    }

    /// C offers the whole of `flow`.
    fn offer(&self, table: &Flowtable, devices: &Devices, flow: &FlowOffload) -> Result {
        if flow.is_leaving() {
            return Err(ENOENT);
        }

        let record = self.record_or_new(table, devices, flow)?;
        let mut rules = Rules::new(table, devices, &self.index, &record);

        if !rules.state.is_empty() {
            rules.verify();
        }
        if directions(flow)
            .iter()
            .all(|&dir| rules.state.rule(dir).is_some())
        {
            return Ok(());
        }
        if !rules.state.backoff.is_over(jiffies64(), devices.changes()) {
            return match &rules.state.refusal {
                Some(refusal) if rules.state.is_empty() => Err(refusal.errno()),
                _ => Ok(()),
            };
        }
        self.install(table, devices, &mut rules, flow)
    }
}

impl Offload for Table {
    type Context = Registry;
    type Devices = Devices;

    fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            flows <- XArray::new(AllocKind::Alloc),
            index <- Index::new(),
        })
    }

    fn devices(registry: &Arc<Registry>) -> Devices {
        Devices::new(registry.clone())
    }

    fn bind(&self, _table: &Flowtable, devices: &mut Devices, dev: &NetDevice) -> Result {
        devices.bind(dev).map_err(|error| {
            if ratelimit() {
                pr_warn!(
                    "{}: cannot offload, so the flowtable is refused: {}. Take the device or \
                     \"flags offload\" out of the flowtable\n",
                    dev.name(),
                    error
                );
            }
            error.errno
        })
    }

    fn unbind(&self, table: &Flowtable, devices: &mut Devices, dev: &NetDevice) {
        // Another hook may have bound the device too; then the rules stay.
        if devices.is_last(dev) {
            // Ends, for withdrawing takes the flow out of the index whatever the driver says.
            while let Some(record) = self.index.first(dev.ifindex()) {
                Rules::new(table, devices, &self.index, &record).withdraw();
            }
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
        if directions(flow).last() != Some(&dir) {
            // Held back: the answer to the other direction decides.
            return Err(EAGAIN);
        }

        // A device may have left while C was about to set the bit for an earlier answer.
        self.offer(table, devices, flow)
            .inspect_err(|_| flow.conntrack().clear_hw_offload())
    }

    fn destroy(&self, table: &Flowtable, devices: &Devices, flow: &FlowOffload, dir: Direction) {
        if dir != Direction::Original {
            // Done with the original direction, which C always asks for first.
            return;
        }
        let record = self.flows.lock().remove(flow.key());

        if let Some(record) = record {
            Rules::new(table, devices, &self.index, &record).withdraw();
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
            let mut rules = Rules::new(table, devices, &self.index, &record);
            match rules.poll(dir) {
                Ok(new) => stats = rules.account_excess(dir, new),
                // C offers the flow again as soon as the host sees it.
                Err(Lost) => rules.withdraw_from_lossy(),
            }
            hit = rules.state.hit;
        }

        FlowStats {
            lastused: aging::lastused(jiffies64(), flow.expires(), flow.lifetime(), hit),
            ..stats
        }
    }
}

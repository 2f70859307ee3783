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
        flow_block::FlowStats, //
    },
    netfilter::{
        flow::{Direction, FlowOffload},
        flowtable::{Flowtable, Offload}, //
    },
    offload::{
        aging,
        devices::{Devices, Registry},
        index::Index,
        record::Record,
        refusal::{Cause, Refusal, Reporter},
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
    reporter: Reporter,
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

    /// Installs what is missing of `flow`.
    fn install(&self, table: &Flowtable, rules: &mut Rules<'_>, flow: &FlowOffload) -> Result {
        let now = jiffies64();
        let described = flow.describe(table.net());
        let mut result = Ok(());

        for &dir in directions(flow) {
            if rules.state.rule(dir).is_some() {
                continue;
            }
            let installed = match &described {
                Some(flow) => rules.install(flow, dir),
                None => Err(Cause::NotIp),
            };
            if let Err(cause) = installed {
                result = Err(Refusal { dir, cause });
                if !keeps_partial() {
                    rules.withdraw();
                    break;
                }
            }
        }

        let Err(refusal) = result else {
            rules.state.refusal = None;
            rules.state.backoff.reset();
            return Ok(());
        };
        self.reporter
            .refused(now, table.net(), described.as_ref(), &refusal);
        rules
            .state
            .backoff
            .refused(now, msecs_to_jiffies(1000) as u64);
        rules.state.refusal = Some(KBox::new(refusal, GFP_KERNEL)?);

        if rules.state.is_empty() {
            Err(refusal.errno())
        } else {
            Ok(())
        }
    }
}

impl Offload for Table {
    type Context = Registry;
    type Devices = Devices;

    fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            flows <- XArray::new(AllocKind::Alloc),
            index <- Index::new(),
            reporter: Reporter::new(),
        })
    }

    fn devices(registry: &Arc<Registry>) -> Devices {
        Devices::new(registry.clone())
    }

    fn bind(&self, _table: &Flowtable, devices: &mut Devices, dev: &NetDevice) -> Result {
        devices.bind(dev).map_err(|error| {
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
            Rules::new(table, devices, &self.index, &record).withdraw();
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
        let mut rules = Rules::new(table, devices, &self.index, &record);

        if !rules.state.is_empty() {
            rules.verify();
        }
        if directions
            .iter()
            .all(|&dir| rules.state.rule(dir).is_some())
        {
            return Ok(());
        }
        if !rules.state.backoff.is_over(jiffies64()) {
            return match &rules.state.refusal {
                Some(refusal) if rules.state.is_empty() => Err(refusal.errno()),
                _ => Ok(()),
            };
        }
        self.install(table, &mut rules, flow)
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
                Ok(new) => stats = new,
                // C offers the flow again as soon as the host sees it.
                Err(Lost) => rules.withdraw_from(true),
            }
            hit = rules.state.hit;
        }

        FlowStats {
            lastused: aging::lastused(jiffies64(), flow.expires(), flow.lifetime(), hit),
            ..stats
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Keeps hardware true to what the host would do.
//!
//! The kernel tells of changes in contexts in which nothing can be done about them. So they are
//! queued, and a worker has the flows checked that they may touch ([`Table::recheck`]). Under that
//! net is another one: each poll of a flow's statistics checks the flow too.

use crate::{
    net::{
        device::NetDevice,
        namespace::NetId,
        notifier::{self, Event, Listener}, //
    },
    netfilter::tables::Tables,
    offload::{
        devices::{Orphans, Registry},
        table::Table, //
    },
    ratelimit::pr_warn_ratelimited,
    time::{jiffies64, ms},
    work::{Queue, Work, Worker}, //
};
use core::net::IpAddr;
use kernel::{
    prelude::*,
    rbtree::RBTree,
    sync::Arc, //
};

/// What all tables share.
pub(crate) struct Context {
    registry: Arc<Registry>,
    worker: Arc<Worker<Truth>>,
    orphans: Arc<Worker<Orphans>>,
}

impl Context {
    /// Sleeps; fails with `ENOMEM`.
    pub(crate) fn new(tables: Arc<Tables<Table>>) -> Result<Arc<Self>> {
        let registry = Arc::pin_init(Registry::new(), GFP_KERNEL)?;
        let orphans = Worker::new(c"nft_offload", Orphans::new(registry.clone()))?;
        let truth = Truth {
            registry: registry.clone(),
            tables,
            told: Queue::new(),
            again: Queue::new(),
        };

        Ok(Arc::new(
            Self {
                registry,
                worker: Worker::new(c"nft_offload", truth)?,
                orphans,
            },
            GFP_KERNEL,
        )?)
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Has rules that a driver has failed to remove removed until they are gone. Does not sleep.
    pub(super) fn remove_orphans_later(&self) {
        Orphans::remove_later(&self.orphans);
    }

    /// Has [`Registry::unbind_unused`] called by the worker.
    pub(super) fn unbind_unused_later(&self) {
        self.worker.start();
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // The worker may not have come to it.
        self.registry.unbind_unused();
    }
}

impl Listener for Context {
    fn event(&self, event: Event) {
        self.worker.work().told.put(event);
        self.worker.start();
    }

    fn device_gone(&self, dev: &NetDevice) {
        self.registry.device_gone(dev);
    }

    fn driver_leaves(&self, dev: &NetDevice) {
        self.worker.work().tables.for_each(|offload, access| {
            offload.driver_leaves(access.table(), &access.devices(), dev)
        });
        pr_warn_ratelimited!(
            "{}: its driver takes no rules any more, so its flows go on in software. When the \
             driver is back, load the ruleset anew\n",
            dev.name()
        );
    }
}

/// What a table has to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// The ways to a neighbour behind a device.
    Neighbour { ifindex: u32, addr: IpAddr },
    /// The ways to an Ethernet address.
    Fdb([u8; 6]),
    /// Whether it has this device, which may take now what it has refused.
    Device(u32),
    /// All ways.
    Devices,
    /// The routes of flows to addresses that begin with `len` bits of `addr`.
    Route { addr: IpAddr, len: u8 },
    /// The routes of all flows.
    Routes,
    /// All of it, for events were lost.
    All,
}

impl What {
    /// Several devices change at a time, and ways are few, so all are looked at.
    fn of(event: notifier::What) -> [Option<Self>; 2] {
        let what = match event {
            notifier::What::Neighbour { ifindex, addr } => Self::Neighbour { ifindex, addr },
            notifier::What::Fdb(mac) => Self::Fdb(mac),
            notifier::What::Device(ifindex) => {
                return [Some(Self::Device(ifindex)), Some(Self::Devices)]
            }
            notifier::What::Route { addr, len } => Self::Route { addr, len },
            notifier::What::Routes => Self::Routes,
        };
        [Some(what), None]
    }
}

/// The events that are to be looked into.
pub(crate) struct Truth {
    registry: Arc<Registry>,
    tables: Arc<Tables<Table>>,
    told: Queue<Event>,
    /// Those which may have come too early, and when they have come, in jiffies.
    again: Queue<(u64, Event)>,
}

impl Truth {
    /// After this time, what was told early has happened.
    const AGAIN_MS: u32 = 20;

    fn recheck(&self, net: Option<NetId>, what: What) {
        self.tables.for_each(|offload, access| {
            if net.is_none_or(|net| net == access.table().net().id()) {
                offload.recheck(access, what);
            }
        });
    }

    /// Looks into events, of equal ones once, or into everything if some were lost.
    fn look_into(&self, events: impl Iterator<Item = Event>, lost: bool) {
        let mut todo = RBTree::new();

        for event in events {
            for what in What::of(event.what).into_iter().flatten() {
                let key = (event.net, what);
                if todo.try_create_and_insert(key, (), GFP_KERNEL).is_err() {
                    self.recheck(Some(event.net), what);
                }
            }
        }
        for &(net, what) in todo.keys() {
            self.recheck(Some(net), what);
        }
        if lost {
            self.recheck(None, What::All);
        }
    }
}

impl Work for Truth {
    fn run(&self, worker: &Worker<Self>) {
        let now = jiffies64();
        let (events, lost) = self.told.take();
        let events = events.inspect(|event| {
            if event.what.is_early() {
                self.again.put((now, *event));
                worker.start_later(ms(Self::AGAIN_MS));
            }
        });

        self.look_into(events, lost);
        if lost {
            self.again.lose();
            worker.start_later(ms(Self::AGAIN_MS));
        }
        self.registry.unbind_unused();
    }

    fn run_later(&self, worker: &Worker<Self>) {
        let now = jiffies64();
        let (events, lost) = self.again.take();
        let is_due = |&(told, event): &(u64, Event)| {
            let is_due = told + ms(Self::AGAIN_MS) <= now;
            if !is_due {
                self.again.put((told, event));
                worker.start_later(ms(Self::AGAIN_MS / 2));
            }
            is_due
        };

        self.look_into(events.filter(is_due).map(|(_, event)| event), lost);
    }
}

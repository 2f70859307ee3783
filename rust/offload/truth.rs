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
    netfilter::flowtable::Tables,
    offload::{
        devices::{Orphans, Registry},
        table::Table, //
    },
    ratelimit::pr_warn_ratelimited,
    work::{Queue, Work, Worker}, //
};
use core::net::IpAddr;
use kernel::{
    prelude::*,
    rbtree::RBTree,
    sync::Arc,
    time::msecs_to_jiffies, //
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

/// What a table has to look at, from the cheapest to the dearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// The ways to a neighbour behind a device.
    Neighbour { ifindex: u32, addr: IpAddr },
    /// The ways to an Ethernet address.
    Fdb([u8; 6]),
    /// All ways.
    Devices,
    /// The routes of flows to addresses that begin with `len` bits of `addr`.
    Route { addr: IpAddr, len: u8 },
    /// The routes of all flows.
    Routes,
}

impl What {
    /// Several devices change at a time, and ways are few, so all are looked at.
    fn of(event: notifier::What) -> Self {
        match event {
            notifier::What::Neighbour { ifindex, addr } => Self::Neighbour { ifindex, addr },
            notifier::What::Fdb(mac) => Self::Fdb(mac),
            notifier::What::Device => Self::Devices,
            notifier::What::Route { addr, len } => Self::Route { addr, len },
            notifier::What::Routes => Self::Routes,
        }
    }

    /// Whether events of this kind may come before the change can be seen.
    fn is_early(self) -> bool {
        matches!(self, Self::Route { .. } | Self::Routes)
    }
}

/// The events that are to be looked into.
pub(crate) struct Truth {
    registry: Arc<Registry>,
    tables: Arc<Tables<Table>>,
    told: Queue<Event>,
    /// Those which may have come too early.
    again: Queue<Event>,
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

    /// Looks into all events of a queue, of equal ones once. `each` is called for each of them.
    /// Returns whether some were lost, for which everything was looked at.
    fn look_into(&self, queue: &Queue<Event>, mut each: impl FnMut(Event, What)) -> bool {
        let (events, lost) = queue.take();
        let mut todo = RBTree::new();

        for event in events {
            let what = What::of(event.what);
            each(event, what);
            let key = (event.net, what);
            if todo.try_create_and_insert(key, (), GFP_KERNEL).is_err() {
                self.recheck(Some(event.net), what);
            }
        }
        for &(net, what) in todo.keys() {
            self.recheck(Some(net), what);
        }
        if lost {
            self.recheck(None, What::Devices);
            self.recheck(None, What::Routes);
        }
        lost
    }
}

impl Work for Truth {
    fn run(&self, worker: &Worker<Self>) {
        let again = || worker.start_later(msecs_to_jiffies(Self::AGAIN_MS) as usize);
        let lost = self.look_into(&self.told, |event, what| {
            if what.is_early() {
                self.again.put(event);
                again();
            }
        });
        if lost {
            self.again.lose();
            again();
        }
        self.registry.unbind_unused();
    }

    fn run_later(&self, _worker: &Worker<Self>) {
        self.look_into(&self.again, |_, _| {});
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Keeps the flows of a namespace true to what the host would do.
//!
//! Notifiers run in contexts in which nothing can be done about a change. So events are queued, and a
//! work has the flows checked that they may concern. What comes first are events of neighbours and
//! devices, of which each concerns few paths.

use crate::{
    net::{
        namespace::Net,
        notifier::{Event, NetHandler, NetRef, NetToken, Notifiers},
        route::Neighbour, //
    },
    netfilter::{
        conntrack::Direction,
        flowtable::Tables, //
    },
    offload::{
        config::Config,
        flow_counters::FlowCounters,
        flow_hash::HashTable,
        hw_flow::HwFlow,
        index::{Destination, Index, Path, Prefix},
        left::LeftFlows,
        members::MissingMembers,
        plain::PlainEntries,
        refusal::RefusalLog,
        registry::BoundDevices,
        route::ForwardPath,
        shapers::Shapers,
        stale::StaleEntryFilter,
        table::Table,
        why::Words, //
    },
    time::{jiffies64, ms},
    work::{cond_resched, Queue, Work, Worker, Workqueue}, //
};
use core::net::IpAddr;
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    new_mutex,
    prelude::*,
    rbtree::RBTree,
    static_lock_class,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed},
        Arc,
        LockClassKey,
        Mutex, //
    }, //
};

/// A namespace with flowtables that devices have joined.
#[pin_data]
pub(crate) struct Monitor {
    config: Config,
    net: Arc<NetRef>,
    tables: Arc<Tables<Table>>,
    #[pin]
    flows: HashTable<HwFlow>,
    #[pin]
    index: Index,
    stale: Arc<StaleEntryFilter>,
    plain: Arc<Worker<PlainEntries>>,
    left: Arc<Worker<LeftFlows>>,
    log: RefusalLog,
    #[pin]
    words: Words,
    #[pin]
    counters: FlowCounters,
    #[pin]
    missing: MissingMembers,
    #[pin]
    shapers: Shapers,
    /// Events of neighbours and devices.
    urgent: Queue<Event>,
    /// All other events.
    bulk: Queue<Event>,
    /// Those to be looked into once more, and when they have come, in jiffies.
    deferred: Queue<(u64, Event)>,
    /// Another one after each event.
    events: Atomic<u64>,
    /// Another one after each change that ends all back-offs.
    retries: Atomic<u32>,
    /// When a change has last evicted a flow, in jiffies.
    last_eviction: Atomic<u64>,
    /// [`Net::route_generation`] as of the last look, until routes are watched.
    routes: Atomic<u64>,
    watcher: Arc<Worker<Watcher>>,
    #[pin]
    users: Mutex<Users>,
}

/// The tables of a monitor.
struct Users {
    count: usize,
    /// There will be no more.
    is_retired: bool,
}

/// How a change is looked into.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    First,
    /// After [`Monitor::DEFER_MS`], or where the host would not ask by itself.
    Second,
}

impl Monitor {
    /// After this time, a change that a notifier announced is visible to look-ups, and a neighbour that
    /// is there has answered.
    const DEFER_MS: u32 = 20;
    /// How often routes are compared as long as they are not watched.
    const COMPARE_MS: u32 = 4;

    /// Makes the monitor of a namespace. Sleeps; fails with `ENOMEM`.
    pub(super) fn new(
        token: NetToken,
        config: Config,
        workqueue: &Arc<Workqueue>,
    ) -> Result<Arc<Worker<Self>>> {
        let net = Arc::pin_init(token.into_ref(), GFP_KERNEL_ACCOUNT)?;
        let watcher = Watcher {
            net: net.clone(),
            watches_routes: Atomic::new(false),
        };
        let left = LeftFlows::new(workqueue, &net)?;
        let watcher = Worker::new(workqueue, watcher)?;
        let stale = Arc::new(StaleEntryFilter::new()?, GFP_KERNEL_ACCOUNT)?;
        let tables = Arc::pin_init(Tables::new(), GFP_KERNEL_ACCOUNT)?;
        let plain = PlainEntries::new(workqueue, &net, &tables, &stale, &left)?;

        Worker::pin_init(
            workqueue,
            pin_init!(Self {
                config,
                net,
                tables,
                flows <- HashTable::new(),
                index <- Index::new(),
                stale,
                plain,
                left,
                log: RefusalLog::new(config.report),
                words <- Words::new(),
                counters <- FlowCounters::new(),
                missing <- MissingMembers::new(),
                shapers <- Shapers::new(config.bypasses_qdisc),
                urgent: Queue::new(),
                bulk: Queue::new(),
                deferred: Queue::new(),
                events: Atomic::new(0),
                retries: Atomic::new(0),
                last_eviction: Atomic::new(0),
                routes: Atomic::new(0),
                watcher,
                users <- new_mutex!(Users {
                    count: 0,
                    is_retired: false,
                }),
            }),
        )
    }

    /// Counts a table. Returns `false` if the monitor is retired. Sleeps.
    pub(super) fn add_user(&self) -> bool {
        let mut users = self.users.lock();
        if users.is_retired {
            return false;
        }
        users.count += 1;
        true
    }

    /// A table has gone. Returns whether it was the last one. Sleeps.
    pub(super) fn remove_user(&self) -> bool {
        let mut users = self.users.lock();
        users.count -= 1;
        if users.count == 0 {
            self.left.clear();
        }
        users.count == 0
    }

    /// Waits until a monitor that is being retired is no handler any more. Sleeps.
    pub(super) fn wait_retired(&self) {
        drop(self.users.lock());
    }

    /// Takes a monitor without tables away from its namespace. Sleeps.
    fn retire(&self, notifiers: &Notifiers<Worker<Self>, BoundDevices>) {
        let mut users = self.users.lock();
        if users.count == 0 && !users.is_retired {
            users.is_retired = true;
            self.net.end_with(|net| notifiers.detach(net));
        }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn tables(&self) -> &Tables<Table> {
        &self.tables
    }

    /// The newest flow of each connection.
    pub(super) fn flows(&self) -> &HashTable<HwFlow> {
        &self.flows
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    pub(super) fn stale(&self) -> &StaleEntryFilter {
        &self.stale
    }

    /// The entries of tables without `flags offload`.
    pub(super) fn plain(&self) -> &Worker<PlainEntries> {
        &self.plain
    }

    /// The connections that are left to the host.
    pub(super) fn left(&self) -> &Worker<LeftFlows> {
        &self.left
    }

    pub(super) fn log(&self) -> &RefusalLog {
        &self.log
    }

    /// What the rules of flows have forwarded.
    pub(super) fn counters(&self) -> &FlowCounters {
        &self.counters
    }

    /// What drivers have said.
    pub(super) fn words(&self) -> &Words {
        &self.words
    }

    pub(super) fn missing(&self) -> &MissingMembers {
        &self.missing
    }

    pub(super) fn shapers(&self) -> &Shapers {
        &self.shapers
    }

    /// Looks at the qdiscs that flows go by.
    fn check_shapers(&self, net: &Net) {
        if self.shapers.forget_gone(net) {
            self.device_changed();
        }
        for path in self.index.paths() {
            if self.shapers.check(net, &path.forward).is_err() {
                for (flow, _) in self.index.flows_by(&path) {
                    flow.withdraw();
                    cond_resched();
                }
            }
        }
    }

    /// Returns a number that is another one after each event, and after each path of which events would not have
    /// been counted.
    pub(super) fn event_generation(&self) -> u64 {
        self.events.load(Acquire) + self.index.mac_generation()
    }

    /// Returns a number that is another one after each change that ends all back-offs.
    pub(super) fn retry_generation(&self) -> u32 {
        self.retries.load(Relaxed)
    }

    /// A device takes rules now, or may take what it has refused.
    pub(super) fn device_changed(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// Returns when a change has last evicted a flow, in jiffies; 0 if none has.
    pub(super) fn last_eviction(&self) -> u64 {
        self.last_eviction.load(Relaxed)
    }

    pub(super) fn note_eviction(&self) {
        self.last_eviction.store(jiffies64(), Relaxed);
    }

    fn take(&self, queue: &Queue<Event>) -> (RBTree<Event, ()>, bool) {
        let (events, mut is_lost) = queue.take();
        let mut todo = RBTree::new();

        for event in events {
            is_lost |= todo.try_create_and_insert(event, (), GFP_KERNEL).is_err();
        }
        (todo, is_lost)
    }

    /// Looks into urgent events, of equal ones once.
    fn handle_urgent(&self, worker: &Worker<Self>, net: &Net) {
        let (events, is_lost) = self.take(&self.urgent);
        let mut has_device = false;

        for &event in events.keys() {
            match event {
                Event::Neighbour { ifindex, addr } => {
                    self.check_neighbour(worker, net, ifindex, addr, Look::First)
                }
                Event::NeighbourFailed { ifindex, addr } => {
                    self.check_neighbour(worker, net, ifindex, addr, Look::Second)
                }
                Event::Device(ifindex) => {
                    has_device = true;
                    if self.tables.any(|table| table.has_port(ifindex)) {
                        self.device_changed();
                    }
                }
                Event::Features(ifindex) => self.check_features(net, ifindex),
                // The device may be up again before this is looked into, without its rules.
                Event::Stop(ifindex) => self.withdraw_all(ifindex),
                _ => {}
            }
        }
        // Several devices change at a time, and paths are few, so all are looked at.
        if has_device || is_lost {
            self.check_paths(net, |_| true);
            // A bridge tells before it has changed.
            self.defer(worker, Event::Device(0));
        }
        if is_lost {
            // All the rest, when what is under way is done.
            self.bulk.lose();
            worker.queue();
        }
    }

    fn handle_bulk(&self, worker: &Worker<Self>, net: &Net) {
        let (events, is_lost) = self.take(&self.bulk);
        let mut macs = RBTree::new();

        for &event in events.keys() {
            if event.is_early() {
                self.defer(worker, event);
            }
            match event {
                Event::Fdb(mac) => {
                    if macs.try_create_and_insert(mac, (), GFP_KERNEL).is_err() {
                        self.check_paths(net, |path| path.dmac() == mac);
                    }
                }
                // Bridges do not tell all that changes with them, and qdiscs nothing.
                Event::Second => {
                    self.check_paths(net, ForwardPath::has_devices_below);
                    self.check_shapers(net);
                }
                Event::Forwarded {
                    iif,
                    ifindex,
                    src,
                    dst,
                } if self.tables.any(|table| table.is_offload()) => {
                    self.missing.check(net, iif, ifindex, src, dst)
                }
                event => self.check_routes(worker, net, event),
            }
        }
        if !macs.is_empty() {
            self.check_paths(net, |path| macs.get(&path.dmac()).is_some());
        }
        if is_lost {
            self.defer(worker, Event::Routes);
            self.check_paths(net, |_| true);
            self.check_all_routes(worker, net);
        }
    }

    /// Has entries of tables without `flags offload` looked at that an event may concern. Does not sleep.
    fn outdate_plain(&self, event: Event) {
        match event {
            Event::Neighbour { ifindex, addr } | Event::NeighbourFailed { ifindex, addr } => {
                self.plain.neighbour_changed(ifindex, addr)
            }
            Event::Fdb(mac) => self.plain.mac_changed(&mac),
            _ => self.plain.route_changed(),
        }
    }

    /// Has an event looked into once more later.
    fn defer(&self, worker: &Worker<Self>, event: Event) {
        self.deferred.put((jiffies64(), event));
        worker.queue_delayed(ms(Self::DEFER_MS));
    }

    fn check_routes(&self, worker: &Worker<Self>, net: &Net, event: Event) {
        match event {
            Event::Route { addr, len } => {
                for destination in self.index.destinations_in(Prefix { addr, len }) {
                    self.check_destination(worker, net, destination);
                }
            }
            Event::Routes | Event::Settings => self.check_all_routes(worker, net),
            Event::Address(addr) if self.index.has_nat(addr) => self.check_connections(worker, net),
            _ => {}
        }
    }

    /// Lets others, and urgent events, in between two flows of a large number.
    fn pause(&self, worker: &Worker<Self>, net: &Net) {
        cond_resched();
        if !self.urgent.is_empty() {
            self.handle_urgent(worker, net);
        }
    }

    /// Evicts the flows to a destination whose routes lead elsewhere.
    fn check_destination(&self, worker: &Worker<Self>, net: &Net, destination: Arc<Destination>) {
        for (flow, dir) in self.index.flows_to(destination) {
            self.check_route(net, &flow, dir);
            self.pause(worker, net);
        }
    }

    fn check_all_routes(&self, worker: &Worker<Self>, net: &Net) {
        for path in self.index.paths() {
            for (flow, dir) in self.index.flows_by(&path) {
                self.check_route(net, &flow, dir);
                self.pause(worker, net);
            }
        }
    }

    /// Evicts a flow if the route of one direction leads elsewhere.
    fn check_route(&self, net: &Net, flow: &Arc<HwFlow>, dir: Direction) {
        let Some(paths) = self.index.paths_of(flow) else {
            return;
        };
        let is_current = flow.with_route(&paths, |_, route| route.route_is_current(net, dir));

        if is_current == Some(false) {
            flow.follow(&paths);
        }
    }

    /// Evicts the flows whose connections have been killed.
    fn check_connections(&self, worker: &Worker<Self>, net: &Net) {
        for path in self.index.paths() {
            for (flow, _) in self.index.flows_by(&path) {
                if flow.conntrack().is_dying() {
                    flow.evict();
                }
                self.pause(worker, net);
            }
        }
    }

    /// Evicts the flows of a path.
    fn evict_all(&self, path: &Path) {
        for (flow, _) in self.index.flows_by(path) {
            flow.evict_changed();
            cond_resched();
        }
    }

    /// Takes the flows that a device forwards out of hardware.
    fn withdraw_all(&self, ifindex: u32) {
        for path in self.index.paths() {
            if path.forward.egress == ifindex {
                for (flow, _) in self.index.flows_by(&path) {
                    flow.withdraw();
                    cond_resched();
                }
            }
        }
    }

    /// `hw-tc-offload` may have been switched off, or on.
    fn check_features(&self, net: &Net, ifindex: u32) {
        let is_off = net.device(ifindex).is_some_and(|dev| dev.is_switched_off());
        if is_off {
            self.withdraw_all(ifindex);
            return;
        }
        self.device_changed();
        // Drivers that refuse everything as long as it is off have refused removals too.
        if let Some(port) = self
            .tables
            .find_map(|table| table.ports([ifindex; 2])[0].take())
        {
            port.device().retry_stale();
        }
    }

    /// Evicts the flows of those paths that packets do not take any more.
    fn check_paths(&self, net: &Net, mut which: impl FnMut(&ForwardPath) -> bool) {
        for path in self.index.paths() {
            if which(&path.forward) && !path.forward.is_current(net) {
                self.device_changed();
                self.evict_all(&path);
            }
        }
    }

    fn check_neighbour(
        &self,
        worker: &Worker<Self>,
        net: &Net,
        ifindex: u32,
        addr: IpAddr,
        look: Look,
    ) {
        let first = ForwardPath::first_to(ifindex, addr);
        let is_to =
            |path: &Arc<Path>| path.forward.ifindex == ifindex && path.forward.neighbour == addr;

        for path in self.index.paths_after(&first).take_while(is_to) {
            if path.forward.is_current(net) {
                continue;
            }
            // The neighbour table may have forgotten it to make room, though its packets come by
            // hardware. The host would ask for it with the next one.
            let is_forgotten = matches!(net.neighbour(ifindex, addr), Neighbour::Unknown);
            if look == Look::First && is_forgotten && net.resolve_neighbour(ifindex, addr) {
                self.defer(worker, Event::Neighbour { ifindex, addr });
                continue;
            }
            self.evict_all(&path);
        }
    }

    /// Compares routes as long as they are not watched.
    fn compare_routes(&self, worker: &Worker<Self>, net: &Net) {
        let is_watched = self.watcher.watches_routes.load(Relaxed);
        let now = net.route_generation();

        if self.routes.xchg(now, Relaxed) != now {
            self.events.fetch_add(1, Relaxed);
            self.plain.route_changed();
            self.check_all_routes(worker, net);
            self.defer(worker, Event::Routes);
        }
        if !is_watched {
            self.watcher.queue();
            self.watcher.queue_delayed(ms(Watcher::AGAIN_MS));
            worker.queue_delayed(ms(Self::COMPARE_MS));
        }
    }

    fn handle_deferred(&self, worker: &Worker<Self>, net: &Net) {
        let now = jiffies64();
        let (events, is_lost) = self.deferred.take();
        let mut todo = RBTree::new();

        // A flow that has looked up its route before this look, and is not in the index yet, looks again.
        self.events.fetch_add(1, Relaxed);
        if is_lost {
            self.plain.route_changed();
        }

        for (come, event) in events {
            self.outdate_plain(event);
            if come + ms(Self::DEFER_MS) > now {
                self.deferred.put((come, event));
                worker.queue_delayed(ms(Self::DEFER_MS / 2));
            } else if todo.try_create_and_insert(event, (), GFP_KERNEL).is_err() {
                self.check_again(worker, net, event);
            }
        }
        for &event in todo.keys() {
            self.check_again(worker, net, event);
        }
        if is_lost {
            self.check_paths(net, |_| true);
            self.check_all_routes(worker, net);
        }
    }

    fn check_again(&self, worker: &Worker<Self>, net: &Net, event: Event) {
        match event {
            Event::Neighbour { ifindex, addr } => {
                self.check_neighbour(worker, net, ifindex, addr, Look::Second)
            }
            Event::Device(_) => self.check_paths(net, |_| true),
            event => self.check_routes(worker, net, event),
        }
    }
}

impl Work for Monitor {
    fn lock_classes() -> [Pin<&'static LockClassKey>; 2] {
        [static_lock_class!(), static_lock_class!()]
    }

    fn run(&self, worker: &Worker<Self>) {
        self.net.with(|net| {
            self.handle_urgent(worker, net);
            self.handle_bulk(worker, net);
        });
    }

    fn run_delayed(&self, worker: &Worker<Self>) {
        self.net.with(|net| {
            self.handle_deferred(worker, net);
            if self.routes.load(Relaxed) != u64::MAX {
                // Once more after they are watched: what has changed just before.
                let is_watched = self.watcher.watches_routes.load(Relaxed);
                self.compare_routes(worker, net);
                if is_watched {
                    self.routes.store(u64::MAX, Relaxed);
                }
            }
        });
    }
}

impl NetHandler for Worker<Monitor> {
    fn event(&self, event: Event) {
        let queue = match event {
            Event::Fdb(mac) if !self.index.may_have_dmac(mac) => {
                self.outdate_plain(event);
                return;
            }
            Event::SocketClosed(portid) => return LeftFlows::socket_closed(&self.left, portid),
            Event::Neighbour { .. }
            | Event::NeighbourFailed { .. }
            | Event::Device(_)
            | Event::Features(_)
            | Event::Stop(_) => &self.urgent,
            _ => &self.bulk,
        };
        if !matches!(event, Event::Second | Event::Forwarded { .. }) {
            // First, so that what looks up a route after the event was looked into sees it.
            self.events.fetch_add(1, Full);
            self.outdate_plain(event);
            if !matches!(event, Event::Fdb(_)) {
                self.left.changed();
            }
        }
        queue.put(event);
        self.queue();
    }

    fn net(&self) -> &NetRef {
        &self.net
    }
}

/// Has the kernel tell of changes in a namespace, which may take long or fail again and again, and
/// compares what it does not tell of.
struct Watcher {
    net: Arc<NetRef>,
    watches_routes: Atomic<bool>,
}

impl Watcher {
    /// How often it is tried again, and settings are compared.
    const AGAIN_MS: u32 = 1000;
}

impl Work for Watcher {
    fn lock_classes() -> [Pin<&'static LockClassKey>; 2] {
        [static_lock_class!(), static_lock_class!()]
    }

    fn run(&self, _worker: &Worker<Self>) {
        // Again and again: some can be watched only when there are such.
        let _ = self.net.watch_settings();
        if !self.watches_routes.load(Relaxed) && self.net.watch_routes().is_ok() {
            self.watches_routes.store(true, Relaxed);
        }
    }

    /// Each second, however long the other one waits for the kernel.
    fn run_delayed(&self, worker: &Worker<Self>) {
        self.net.compare_settings();
        worker.queue_delayed(ms(Self::AGAIN_MS));
        worker.queue();
    }
}

/// A monitor without tables.
struct Idle {
    /// In jiffies.
    since: u64,
    monitor: Arc<Worker<Monitor>>,
}

/// Retires monitors that have had no table for a while.
pub(crate) struct Reaper {
    notifiers: Arc<Notifiers<Worker<Monitor>, BoundDevices>>,
    idle: Pin<KBox<Mutex<KVec<Idle>>>>,
}

impl Reaper {
    const LINGER_MS: u32 = 60_000;

    pub(super) fn new(notifiers: Arc<Notifiers<Worker<Monitor>, BoundDevices>>) -> Result<Self> {
        Ok(Self {
            notifiers,
            idle: KBox::pin_init(new_mutex!(KVec::new()), GFP_KERNEL)?,
        })
    }

    /// Has a monitor without tables retired, unless it gets one soon. Sleeps.
    pub(super) fn add(worker: &Worker<Self>, monitor: &Arc<Worker<Monitor>>) {
        // Without memory, it stays as long as its namespace.
        let idle = Idle {
            since: jiffies64(),
            monitor: monitor.clone(),
        };
        let _ = worker.idle.lock().push(idle, GFP_KERNEL);
        worker.queue_delayed(ms(Self::LINGER_MS));
    }
}

impl Work for Reaper {
    fn lock_classes() -> [Pin<&'static LockClassKey>; 2] {
        [static_lock_class!(), static_lock_class!()]
    }

    fn run(&self, _worker: &Worker<Self>) {}

    fn run_delayed(&self, worker: &Worker<Self>) {
        let now = jiffies64();
        let linger = ms(Self::LINGER_MS);
        let mut idle = core::mem::take(&mut *self.idle.lock());

        idle.retain(|idle| {
            let is_due = idle.since + linger <= now;
            if is_due {
                idle.monitor.retire(&self.notifiers);
            }
            !is_due
        });
        if let Some(first) = idle.first() {
            worker.queue_delayed((first.since + linger).saturating_sub(now) + 1);
        }
        let mut now_idle = self.idle.lock();
        for left in idle.drain_all() {
            let _ = now_idle.push(left, GFP_KERNEL);
        }
    }
}

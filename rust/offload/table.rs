// SPDX-License-Identifier: GPL-2.0

//! The hardware side of a flowtable.

use crate::{
    net::{
        device::NetDevice,
        flow_block::{BindError, FlowStats},
        log::dev_warn_ratelimited,
        namespace::Net,
        notifier::Notifiers,
        rtnl::Rtnl, //
    },
    netfilter::{
        attach::Attachment,
        conntrack::Direction,
        flow::FlowOffload,
        flowtable::{Flowtable, Tables},
        hook::{TCP_FIN, TCP_RST, TCP_SYN},
        known::KnownTables,
        offload::{Offload, TcpPacket, Verdict}, //
    },
    offload::{
        aging,
        config::Config,
        device::Port,
        flow_hash::HashTable,
        hw_flow::HwFlow,
        left::LeftFlows,
        members::Advice,
        monitor::{Monitor, Reaper},
        plain,
        refusal::{Cause, InSoftware, Refusal},
        registry::{Binder, BoundDevices},
        translate::Unsupported, //
    },
    time::jiffies64,
    work::{cond_resched, Worker, Workqueue}, //
};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        Arc,
        Mutex, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
    xarray::{AllocKind, XArray}, //
};

/// What all tables share.
pub(crate) struct Context {
    config: Config,
    // In this order: `Binder` unbinds what is left as long as there are notifiers.
    binder: Arc<Worker<Binder>>,
    reaper: Arc<Worker<Reaper>>,
    notifiers: Arc<Notifiers<Worker<Monitor>, BoundDevices>>,
    devices: Arc<BoundDevices>,
    known: Pin<KBox<KnownTables>>,
}

impl Context {
    /// Sleeps, takes RTNL; fails with `ENOMEM`.
    pub(crate) fn new(config: Config) -> Result<Arc<Self>> {
        Net::set_ruleset_pause(config.ruleset_pause);
        let workqueue = Workqueue::new(c"nft_offload")?;
        let devices = Arc::pin_init(BoundDevices::new(config, workqueue.clone()), GFP_KERNEL)?;
        let notifiers = Arc::pin_init(Notifiers::new(devices.clone()), GFP_KERNEL)?;
        let reaper = Worker::new(&workqueue, Reaper::new(notifiers.clone())?)?;
        let binder = Worker::new(&workqueue, Binder::new(devices.clone()))?;
        let known = KBox::pin_init(KnownTables::new(), GFP_KERNEL)?;

        Ok(Arc::new(
            Self {
                config,
                notifiers,
                reaper,
                binder,
                devices,
                known,
            },
            GFP_KERNEL,
        )?)
    }

    /// Unbinds what waits for that, and waits for all works: when there are no tables, no flow refers to
    /// the context any more. Sleeps, takes RTNL.
    pub(crate) fn settle(&self) {
        self.devices.run_with_rtnl();
        self.devices.workqueue().flush();
    }

    /// Returns the monitor of a namespace, if it has one. Does not sleep.
    pub(super) fn known_monitor(&self, net: &Net) -> Option<Arc<Worker<Monitor>>> {
        self.notifiers.handler(net)
    }

    pub(super) fn devices(&self) -> &BoundDevices {
        &self.devices
    }

    pub(super) fn known_tables(&self) -> &KnownTables {
        &self.known
    }

    /// Returns the monitor of a namespace, which now has one table more. Called with `commit_mutex` held;
    /// sleeps.
    fn monitor(&self, net: &Net, is_offload: bool) -> Result<Arc<Worker<Monitor>>> {
        let monitor = self.any_monitor(net)?;
        if is_offload {
            net.watch_forwarded();
        }
        Ok(monitor)
    }

    fn any_monitor(&self, net: &Net) -> Result<Arc<Worker<Monitor>>> {
        loop {
            if let Some(monitor) = self.notifiers.handler(net) {
                if monitor.add_user() {
                    return Ok(monitor);
                }
                // It is about to be taken away.
                monitor.wait_retired();
                continue;
            }
            net.see_packets()?;
            let make = |token| Monitor::new(token, self.config, self.devices.workqueue());
            match self.notifiers.attach(net, make) {
                Ok(monitor) => {
                    monitor.add_user();
                    monitor.queue_delayed(0);
                    return Ok(monitor);
                }
                Err(EBUSY) => continue,
                Err(error) => return Err(error),
            }
        }
    }
}

/// A device that was put into a table, bound or not.
struct Joined {
    dev: ARef<NetDevice>,
    /// The table's hooks of the device.
    hooks: usize,
    port: Option<Arc<Port>>,
}

/// What is kept for a flowtable that a device has joined: with `flags offload`, its hardware side.
#[pin_data]
pub(crate) struct Table {
    context: Arc<Context>,
    user: MonitorUser,
    /// By index of the device by which packets come in.
    #[pin]
    ports: XArray<Arc<Port>>,
    /// Devices join and leave with `commit_mutex` held: it is never waited for.
    #[pin]
    joined: Mutex<KVec<Joined>>,
    /// `counter`, as of the last time that it could be asked for.
    counter: Atomic<bool>,
    is_offload: bool,
}

impl Table {
    fn new(context: &Arc<Context>, flowtable: &Flowtable) -> Result<Arc<Self>> {
        let user = MonitorUser {
            monitor: context.monitor(flowtable.net(), flowtable.is_offload())?,
            reaper: context.reaper.clone(),
        };

        Arc::pin_init(
            pin_init!(Self {
                context: context.clone(),
                user,
                ports <- XArray::new(AllocKind::Alloc),
                joined <- new_mutex!(KVec::new()),
                counter: Atomic::new(flowtable.has_counter()),
                is_offload: flowtable.is_offload(),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Returns whether it has `flags offload`.
    pub(super) fn is_offload(&self) -> bool {
        self.is_offload
    }

    /// Returns the monitor of the table's namespace.
    pub(super) fn monitor(&self) -> &Monitor {
        &self.user.monitor
    }

    /// Returns whether packets are to be counted in conntrack (`counter`).
    pub(super) fn has_counter(&self) -> bool {
        self.counter.load(Relaxed)
    }

    /// Returns the ports of the devices with these indices. Does not sleep.
    pub(super) fn ports(&self, indices: [u32; 2]) -> [Option<Arc<Port>>; 2] {
        let ports = self.ports.lock();
        indices.map(|ifindex| ports.get(ifindex as usize).map(Arc::from))
    }

    /// Has all rules of a port removed. Does not wait for that; sleeps.
    pub(super) fn withdraw(&self, port: &Arc<Port>) {
        let ifindex = port.device().dev().ifindex();
        let index = self.monitor().index();

        // A rule takes packets from the device to which it sends those of the other direction.
        for path in index.paths() {
            if path.forward.egress == ifindex {
                for (flow, _) in index.flows_by(&path) {
                    flow.withdraw_from(port);
                }
            }
        }
    }

    /// Calls `f` with the device that has joined whose index is the next after this one, and with its port, if it
    /// has one. Returns what it returns. Sleeps.
    pub(super) fn joined_after<R>(
        &self,
        ifindex: u32,
        f: impl FnOnce(&NetDevice, Option<&Port>) -> R,
    ) -> Option<R> {
        let joined = self.joined.lock();
        let after = joined
            .iter()
            .filter(|joined| joined.dev.ifindex() > ifindex);
        let next = after.min_by_key(|joined| joined.dev.ifindex())?;
        Some(f(&next.dev, next.port.as_deref()))
    }

    /// Returns whether a device with this index has joined. Sleeps.
    pub(super) fn has_joined(&self, ifindex: u32) -> bool {
        let joined = self.joined.lock();
        joined.iter().any(|joined| joined.dev.ifindex() == ifindex)
    }

    /// A hook of a device that has joined already, or has not.
    fn join_again(&self, dev: &NetDevice) -> Option<Result<(), BindError>> {
        let position = |joined: &[Joined]| {
            joined
                .iter()
                .position(|joined| core::ptr::eq(&*joined.dev, dev))
        };
        let joined = self.joined.lock();
        let port = joined[position(&joined)?].port.clone();
        drop(joined);

        // Not with the lock held, as the driver may be slow.
        if let Some(port) = port {
            if let Err(error) = self.context.devices.rebind(&port) {
                return Some(Err(error));
            }
        }
        // It does not leave meanwhile.
        let mut joined = self.joined.lock();
        let index = position(&joined)?;
        joined[index].hooks += 1;
        Some(Ok(()))
    }

    fn join(&self, dev: &NetDevice, port: Option<Arc<Port>>) -> Result {
        if let Some(port) = &port {
            self.ports
                .lock()
                .store(dev.ifindex() as usize, port.clone(), GFP_KERNEL_ACCOUNT)?;
        }
        let new = Joined {
            dev: dev.into(),
            hooks: 1,
            port,
        };
        // A dump waits for the list, so the list does not wait for memory.
        loop {
            let len = self.joined.lock().len();
            let longer = KVec::with_capacity(len + 1, GFP_KERNEL_ACCOUNT)?;
            let mut joined = self.joined.lock();
            if joined.len() > len {
                continue;
            }
            let mut shorter = core::mem::replace(&mut *joined, longer);
            for joined_before in shorter.drain_all() {
                joined.push_within_capacity(joined_before)?;
            }
            joined.push_within_capacity(new)?;
            break;
        }
        self.monitor().missing().forget(dev.ifindex());
        self.monitor().device_changed();
        Ok(())
    }

    /// Waits until the rules of other devices are gone that send to a port whose rules are; those of flows that
    /// were evicted a moment ago, too. Sleeps.
    fn wait_for_others(&self, port: &Arc<Port>) {
        for part in HashTable::<HwFlow>::PARTS {
            // There must be memory for this, or rules would stay.
            let flows = loop {
                let flows = self.monitor().flows();
                if let Ok(flows) = flows.some(part, |flow| flow.may_be_leaving(port)) {
                    break flows;
                }
                cond_resched();
            };
            for flow in &flows {
                while flow.is_leaving(port) {
                    fsleep(Delta::from_micros(500));
                }
            }
        }
    }

    /// Takes a port whose device leaves out of the table, and waits until its rules are gone, and those that
    /// send to it.
    fn close(&self, port: &Arc<Port>) {
        port.close();
        port.device().retry_stale();
        self.withdraw(port);
        port.wait();
        self.wait_for_others(port);
        self.context.devices.unbind(&self.context.binder, port);
    }

    fn bind(
        context: &Arc<Context>,
        table: Option<&Arc<Self>>,
        flowtable: &Flowtable,
        dev: &NetDevice,
        rtnl: Option<&Rtnl>,
    ) -> Result<Arc<Self>, BindError> {
        if let Some(table) = table {
            if let Some(result) = table.join_again(dev) {
                return result.map(|()| table.clone());
            }
        }

        let devices = &context.devices;
        let priority = flowtable.priority();
        let (port, table) = devices.bind(&context.binder, dev, priority, rtnl, || match table {
            Some(table) => Ok(table.clone()),
            None => Self::new(context, flowtable),
        })?;
        if let Err(error) = table.join(dev, Some(port.clone())) {
            table.close(&port);
            return Err(error.into());
        }
        Ok(table)
    }

    /// A device that cannot offload joins all the same (parameter `incapable`).
    fn tolerate(
        context: &Arc<Context>,
        table: Option<&Arc<Self>>,
        flowtable: &Flowtable,
        dev: &NetDevice,
    ) -> Result<Arc<Self>> {
        let table = match table {
            Some(table) => table.clone(),
            None => Self::new(context, flowtable)?,
        };
        table.join(dev, None)?;
        Ok(table)
    }

    /// Returns whether a device that has joined the table has this index. Does not sleep.
    pub(super) fn has_port(&self, ifindex: u32) -> bool {
        self.ports.lock().get(ifindex as usize).is_some()
    }
}

/// A table's use of a monitor.
struct MonitorUser {
    monitor: Arc<Worker<Monitor>>,
    reaper: Arc<Worker<Reaper>>,
}

impl Drop for MonitorUser {
    fn drop(&mut self) {
        if self.monitor.remove_user() {
            Reaper::add(&self.reaper, &self.monitor);
        }
    }
}

impl Offload for Table {
    type Context = Context;
    type Namespace = Worker<Monitor>;
    type Devices = BoundDevices;
    type Flow = HwFlow;

    fn notifiers(context: &Context) -> &Arc<Notifiers<Worker<Monitor>, BoundDevices>> {
        &context.notifiers
    }

    fn known_tables(context: &Context) -> &KnownTables {
        &context.known
    }

    fn bind(
        context: &Arc<Context>,
        table: Option<&Arc<Self>>,
        flowtable: &Flowtable,
        dev: &NetDevice,
        rtnl: Option<&Rtnl>,
    ) -> Result<Arc<Self>> {
        let error = match Self::bind(context, table, flowtable, dev, rtnl) {
            Ok(table) => return Ok(table),
            Err(error) => error,
        };
        let is_late = rtnl.is_some();
        // With EAGAIN, nftables gives up `commit_mutex` and tries again.
        if error.errno() == EAGAIN && !is_late {
            fsleep(Delta::from_millis(1));
            return Err(EAGAIN);
        }
        let is_tolerated = context.config.tolerates_incapable;
        dev_warn_ratelimited!(
            dev,
            Bind,
            "cannot offload, so {}: {}.{}{}\n",
            if is_tolerated || is_late {
                "its flows stay in software"
            } else {
                "the flowtable is refused"
            },
            error,
            Advice(dev),
            match (is_tolerated, is_late) {
                (true, _) => "",
                (false, true) => {
                    " It came after the ruleset, which would be refused if it was loaded now: take \
                     the device or \"flags offload\" out of the flowtable, or load the module with \
                     incapable=1"
                }
                (false, false) => {
                    " Take the device or \"flags offload\" out of the flowtable, or load the module \
                     with incapable=1"
                }
            }
        );
        // What is late costs no monitor of its namespace.
        if is_tolerated || (is_late && table.is_some()) {
            return Self::tolerate(context, table, flowtable, dev);
        }
        Err(error.errno())
    }

    fn plain(context: &Arc<Context>, flowtable: &Flowtable) -> Result<Arc<Self>> {
        Self::new(context, flowtable)
    }

    fn unbind(self: &Arc<Self>, dev: &NetDevice) {
        let mut joined = self.joined.lock();
        let Some(index) = joined
            .iter()
            .position(|joined| core::ptr::eq(&*joined.dev, dev))
        else {
            return;
        };

        // Another hook may have bound the device too; then the rules stay.
        joined[index].hooks -= 1;
        if joined[index].hooks > 0 {
            return;
        }
        let left = joined.remove(index);
        drop(joined);
        if let Ok(Joined {
            port: Some(port), ..
        }) = left
        {
            let mut ports = self.ports.lock();
            let removed = ports.remove(dev.ifindex() as usize);
            drop(ports);
            drop(removed);
            self.close(&port);
        }
    }

    fn tables(namespace: &Worker<Monitor>) -> &Tables<Self> {
        namespace.tables()
    }

    fn namespace(&self) -> &Worker<Monitor> {
        &self.user.monitor
    }

    fn offer(
        self: &Arc<Self>,
        flowtable: &Flowtable,
        entry: &FlowOffload,
        attachment: &Attachment<'_, HwFlow>,
    ) {
        self.counter.store(flowtable.has_counter(), Relaxed);
        let flow = match attachment.get_arc() {
            Some(flow) => Ok(flow),
            None => attachment.attach(|link| HwFlow::new(link, self, entry)),
        };

        match flow {
            Ok(flow) => flow.offer(entry),
            // What cannot be followed, for lack of memory, must not go on.
            Err(_) => entry.teardown(),
        }
    }

    fn offer_unknown(namespace: &Worker<Monitor>, entry: &FlowOffload) {
        // While the hash table grows, an older entry may hide it, so that it cannot be followed. Other
        // tables of the namespace, whose entries no packets take, have no devices.
        let is_ours = Direction::BOTH.iter().any(|&dir| {
            namespace
                .tables()
                .any(|table| table.has_port(entry.iifidx(dir)))
        });
        if is_ours {
            // The next packet's entry would be hidden, too.
            LeftFlows::add_until_collected(namespace.left(), entry.conntrack());
            entry.teardown();
        }
    }

    fn destroy(entry: &FlowOffload, flow: Arc<HwFlow>) {
        flow.destroy();
        flow.release_gre(entry);
        if entry.is_closing() {
            // All its packets are conntrack's from now on.
            entry.teardown();
        }
    }

    fn stats(entry: &FlowOffload, flow: Option<Arc<HwFlow>>) -> FlowStats {
        match flow {
            Some(flow) => flow.stats(entry),
            None => HwFlow::stats_without(entry),
        }
    }

    fn gc(entry: &FlowOffload, attachment: &Attachment<'_, HwFlow>) -> bool {
        match attachment.get_arc() {
            Some(flow) => flow.gc(entry),
            None => {
                Self::extend(entry);
                entry.is_overlooked()
            }
        }
    }

    fn gc_new(entry: &FlowOffload) {
        aging::gc_new(entry);
    }

    fn gc_plain(namespace: Option<&Worker<Monitor>>, entry: &FlowOffload) -> bool {
        plain::gc(namespace.map(|monitor| &**monitor), entry)
    }

    fn extend(entry: &FlowOffload) {
        aging::extend_gre(entry, jiffies64() as u32);
    }

    fn end(entry: &FlowOffload, flow: Option<&HwFlow>) {
        let last = flow.map_or_else(
            || aging::last_by_software(entry),
            |flow| flow.last_packet(entry),
        );
        aging::end(entry, last);
    }

    fn ingress(
        namespace: Option<&Worker<Monitor>>,
        entry: &FlowOffload,
        dir: Direction,
        tcp: &TcpPacket,
    ) -> Verdict {
        if tcp.flags & TCP_RST != 0 {
            // The host drops one whose time is over, and so it ends nothing.
            entry.reset(dir, tcp.seq, tcp.ttl > 1 && !entry.is_closing());
            return Verdict::SlowPath;
        }
        if tcp.flags & TCP_FIN != 0 {
            entry.conntrack().reset_tcp_windows();
            // Its rules have to be gone before conntrack sees the ports used again.
            if entry.is_for_hardware() {
                entry.set_closing();
            } else {
                entry.teardown();
            }
            return Verdict::SlowPath;
        }
        // The ports are used again before the entry is gone.
        if tcp.flags & TCP_SYN != 0 && entry.is_closing() {
            return Verdict::SlowPath;
        }
        if entry.has_zero_dmac(dir) {
            let refusal = Refusal {
                dir,
                cause: Cause::Unsupported(Unsupported::Tunnel),
            };
            if let Some(monitor) = namespace {
                let original = entry.describe_packets(Direction::Original);
                monitor.log().reminded(
                    jiffies64(),
                    entry.net(),
                    original.as_ref(),
                    &refusal,
                    InSoftware::Both,
                );
            }
            return Verdict::SlowPath;
        }
        Verdict::FastPath
    }
}

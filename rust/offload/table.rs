// SPDX-License-Identifier: GPL-2.0

//! The hardware side of a flowtable.

use crate::{
    net::{
        device::NetDevice,
        flow_block::{BindError, FlowStats},
        log::dev_warn_ratelimited,
        namespace::Net,
        notifier::{self, Notifiers}, //
    },
    netfilter::{
        attach::Attachment,
        conntrack::Direction,
        flow::FlowOffload,
        flowtable::{Flowtable, Tables},
        hook::{TCP_FIN, TCP_RST, TCP_SYN},
        offload::{Offload, Verdict}, //
    },
    offload::{
        config::Config,
        device::Port,
        hw_flow::HwFlow,
        monitor::{Monitor, Reaper},
        refusal::{Cause, InSoftware, Refusal},
        registry::{Binder, BoundDevices},
        translate::Unsupported, //
    },
    time::jiffies64,
    work::{Worker, Workqueue}, //
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
}

impl Context {
    /// Sleeps, takes RTNL; fails with `ENOMEM`.
    pub(crate) fn new(config: Config) -> Result<Arc<Self>> {
        let workqueue = Workqueue::new(c"nft_offload")?;
        let devices = Arc::pin_init(BoundDevices::new(config, workqueue.clone()), GFP_KERNEL)?;
        let notifiers = Arc::pin_init(Notifiers::new(devices.clone()), GFP_KERNEL)?;
        let reaper = Worker::new(&workqueue, Reaper::new(notifiers.clone())?)?;
        let binder = Worker::new(&workqueue, Binder::new(devices.clone()))?;

        Ok(Arc::new(
            Self {
                config,
                notifiers,
                reaper,
                binder,
                devices,
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

    /// Returns the monitor of a namespace, which now has one table more. Sleeps.
    fn monitor(&self, net: &Net) -> Result<Arc<Worker<Monitor>>> {
        loop {
            if let Some(monitor) = self.notifiers.handler(net) {
                if monitor.add_user() {
                    return Ok(monitor);
                }
                // It is about to be taken away.
                monitor.wait_retired();
                continue;
            }
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

/// The hardware side of a flowtable with `flags offload` that a device has joined.
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
}

impl Table {
    fn new(context: &Arc<Context>, flowtable: &Flowtable) -> Result<Arc<Self>> {
        let user = MonitorUser {
            monitor: context.monitor(flowtable.net())?,
            reaper: context.reaper.clone(),
        };

        Arc::pin_init(
            pin_init!(Self {
                context: context.clone(),
                user,
                ports <- XArray::new(AllocKind::Alloc),
                joined <- new_mutex!(KVec::new()),
                counter: Atomic::new(flowtable.has_counter()),
            }),
            GFP_KERNEL_ACCOUNT,
        )
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

    /// A hook of a device that has joined already, or has not.
    fn join_again(&self, dev: &NetDevice) -> Option<Result<(), BindError>> {
        let mut joined = self.joined.lock();
        let known = joined
            .iter_mut()
            .find(|joined| core::ptr::eq(&*joined.dev, dev))?;

        if let Some(port) = &known.port {
            if let Err(error) = self.context.devices.rebind(port) {
                return Some(Err(error));
            }
        }
        known.hooks += 1;
        Some(Ok(()))
    }

    fn join(&self, dev: &NetDevice, port: Option<Arc<Port>>) -> Result {
        let mut joined = self.joined.lock();
        joined.reserve(1, GFP_KERNEL_ACCOUNT)?;
        if let Some(port) = &port {
            self.ports
                .lock()
                .store(dev.ifindex() as usize, port.clone(), GFP_KERNEL_ACCOUNT)?;
        }
        joined.push(
            Joined {
                dev: dev.into(),
                hooks: 1,
                port,
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        drop(joined);
        self.monitor().device_changed();
        Ok(())
    }

    /// Takes a port whose device leaves out of the table, and waits until its rules are gone.
    fn close(&self, port: &Arc<Port>) {
        port.close();
        port.device().retry_stale();
        self.withdraw(port);
        port.wait();
        self.context.devices.unbind(&self.context.binder, port);
    }

    fn bind(
        context: &Arc<Context>,
        table: Option<&Arc<Self>>,
        flowtable: &Flowtable,
        dev: &NetDevice,
    ) -> Result<Arc<Self>, BindError> {
        if let Some(table) = table {
            if let Some(result) = table.join_again(dev) {
                return result.map(|()| table.clone());
            }
        }

        let (port, table) =
            context
                .devices
                .bind(&context.binder, dev, flowtable.priority(), || match table {
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

    fn bind(
        context: &Arc<Context>,
        table: Option<&Arc<Self>>,
        flowtable: &Flowtable,
        dev: &NetDevice,
    ) -> Result<Arc<Self>> {
        let error = match Self::bind(context, table, flowtable, dev) {
            Ok(table) => return Ok(table),
            Err(error) => error,
        };
        // With EAGAIN, nftables gives up `commit_mutex` and tries again.
        if error.errno() == EAGAIN {
            fsleep(Delta::from_millis(1));
            return Err(EAGAIN);
        }
        let is_tolerated = context.config.tolerates_incapable;
        dev_warn_ratelimited!(
            dev,
            Bind,
            "cannot offload, so {}: {}.{}\n",
            if is_tolerated {
                "its flows stay in software"
            } else if notifier::is_in_device_notifier() {
                "what would put it into a flowtable is refused"
            } else {
                "the flowtable is refused"
            },
            error,
            if is_tolerated {
                ""
            } else {
                " Take the device or \"flags offload\" out of the flowtable, or load the module with \
                 incapable=1"
            }
        );
        if is_tolerated {
            return Self::tolerate(context, table, flowtable, dev);
        }
        notifier::refuses_device();
        Err(error.errno())
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
            entry.teardown();
        }
    }

    fn destroy(entry: &FlowOffload, flow: Arc<HwFlow>) {
        flow.destroy();
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
            None => entry.is_overlooked(),
        }
    }

    fn ingress(
        namespace: Option<&Worker<Monitor>>,
        entry: &FlowOffload,
        dir: Direction,
        tcp_flags: u8,
    ) -> Verdict {
        if tcp_flags & (TCP_FIN | TCP_RST) != 0 {
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
        if tcp_flags & TCP_SYN != 0 && entry.is_closing() {
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

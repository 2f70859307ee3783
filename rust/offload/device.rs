// SPDX-License-Identifier: GPL-2.0

//! A device that takes rules, and the queue of what its driver is asked for.
//!
//! No driver is called but by the works of its device's queue ([`DeviceWork`]), which may be slow without
//! holding up anything but the rules of this device.

use crate::{
    lanes::Lanes,
    net::{
        device::NetDevice,
        flow_block::{DriverError, FlowBlock, FlowStats, RuleId, SetupType},
        flow_rule::{Rule, RuleBuffer},
        log::dev_warn_ratelimited,
        namespace::Net, //
    },
    netfilter::{
        conntrack::Direction,
        flow::Flow, //
    },
    offload::{
        backoff::{Grant, Hope, Room},
        device_stats::{Call, DeviceStats},
        hw_flow::HwFlow,
        refusal::Cause,
        translate::{probe, translate, Dialect}, //
    },
    time::{jiffies64, ms},
    work::{cond_resched, num_online_cpus, Work, Worker, Workqueue}, //
};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    new_condvar,
    new_mutex,
    new_spinlock,
    prelude::*,
    static_lock_class,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        Arc,
        CondVar,
        LockClassKey,
        Mutex,
        SpinLock, //
    }, //
};

/// What a driver is to be asked for, the most urgent first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    Withdraw = 0,
    Add = 1,
    Poll = 2,
    /// Removals that failed, until they are tried again.
    Stale = 3,
}

impl Lane {
    const ALL: usize = 4;
}

/// What a work needs to hand a rule to a driver, made once for all its rules.
pub(super) struct RuleDraft {
    /// That the rule is for.
    pub(super) flow: Flow,
    rule: Rule,
    buffer: RuleBuffer,
}

impl RuleDraft {
    /// Allocates nothing: the first rule does.
    const fn new() -> Self {
        Self {
            flow: Flow::new(),
            rule: Rule::new(),
            buffer: RuleBuffer::new(),
        }
    }
}

/// The driver no longer has a rule that it should have.
pub(super) struct Lost;

/// A device that takes rules, and what has been learned about it.
#[pin_data]
pub(crate) struct OffloadDevice {
    dev: ARef<NetDevice>,
    /// `None` before the driver is bound, and after it is unbound.
    #[pin]
    driver: SpinLock<Option<Arc<FlowBlock>>>,
    /// What tc means where the driver is bound for tc, else the parameter `ttl` where it is not 0, else
    /// what a driver has taken first.
    dialect: Atomic<u32>,
    /// Whether the driver takes rules that match a MAC address, as far as is known.
    takes_dest: Atomic<u32>,
    room: Arc<Room>,
    stats: KBox<DeviceStats>,
    #[pin]
    queue: SpinLock<Queue>,
    /// How long until removals that failed are tried again, in seconds.
    pause: Atomic<u32>,
    /// Held while works that were stopped are waited for.
    #[pin]
    ends: Mutex<()>,
}

struct Queue {
    original: Lanes<HwFlow, 0, { Lane::ALL }>,
    reply: Lanes<HwFlow, 1, { Lane::ALL }>,
    /// A bit for each of the works that have nothing to do.
    idle: u32,
    /// What is to become of the driver is known.
    is_started: bool,
    works: KVec<Arc<Worker<DeviceWork>>>,
    /// Works that were stopped, and have not been waited for.
    ending: KVec<Arc<Worker<DeviceWork>>>,
    /// They are waited for.
    is_ending: bool,
    /// The driver is being unbound, for good: nothing is pushed any more.
    is_closed: bool,
}

impl Queue {
    fn push(&mut self, flow: Arc<HwFlow>, dir: Direction, lane: Lane) -> bool {
        match dir {
            Direction::Original => self.original.push(flow, lane as usize),
            Direction::Reply => self.reply.push(flow, lane as usize),
        }
    }

    /// Takes the next flow out of one lane. First those that have one direction in hardware already.
    fn pop(&mut self, lane: Lane) -> Option<(Arc<HwFlow>, Direction)> {
        let reply = self.reply.pop(lane as usize);
        if let Some(flow) = reply {
            return Some((flow, Direction::Reply));
        }
        let flow = self.original.pop(lane as usize)?;
        Some((flow, Direction::Original))
    }

    /// Returns how many rules are in one lane.
    fn len(&self, lane: Lane) -> usize {
        self.original.len(lane as usize) + self.reply.len(lane as usize)
    }

    /// Takes the next flow that is to be worked on.
    fn next(&mut self) -> Option<(Arc<HwFlow>, Direction)> {
        [Lane::Withdraw, Lane::Add, Lane::Poll]
            .into_iter()
            .find_map(|lane| self.pop(lane))
    }

    /// Has failed removals tried again in `pause` seconds, if not sooner.
    fn retry_later(&self, pause: u32) {
        if let Some(work) = self.works.first() {
            work.queue_delayed(ms(pause * 1000));
        }
    }

    /// None of the works has anything to do.
    fn set_idle(&mut self) {
        self.idle = (1 << self.works.len()) - 1;
    }

    /// Queues one more work, if one has nothing to do.
    fn wake(&mut self) {
        let index = self.idle.trailing_zeros();
        if let Some(work) = self.works.get(index as usize) {
            self.idle &= !(1 << index);
            work.queue();
        }
    }
}

impl OffloadDevice {
    const UNKNOWN: u32 = 0;
    const TC: u32 = 1;
    const ROUTER: u32 = 2;

    /// Of [`Self::takes_dest`].
    const YES: u32 = 1;
    const NO: u32 = 2;

    /// Longest time until failed removals are tried again, in seconds.
    const MAX_PAUSE: u32 = 64;

    /// Makes a device whose driver is not bound yet, and starts it. Sleeps; fails with `ENOMEM`.
    pub(super) fn new(dev: &NetDevice, workqueue: &Arc<Workqueue>) -> Result<Arc<Self>> {
        let queue = Queue {
            original: Lanes::new()?,
            reply: Lanes::new()?,
            idle: 0,
            is_started: false,
            works: KVec::new(),
            ending: KVec::new(),
            is_ending: false,
            is_closed: false,
        };
        let room = Arc::new(Room::new(), GFP_KERNEL_ACCOUNT)?;
        let stats = DeviceStats::new()?;
        let device = Arc::pin_init(
            pin_init!(Self {
                dev: dev.into(),
                driver <- new_spinlock!(None),
                dialect: Atomic::new(Self::UNKNOWN),
                takes_dest: Atomic::new(Self::UNKNOWN),
                room,
                stats,
                queue <- new_spinlock!(queue),
                pause: Atomic::new(1),
                ends <- new_mutex!(()),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;

        device.start(workqueue)?;
        Ok(device)
    }

    /// Starts the works, unless they are. They do nothing before [`Self::set_driver`]. The caller has
    /// taken turns with those of others. Sleeps; fails with `ENOMEM`.
    pub(super) fn start(self: &Arc<Self>, workqueue: &Arc<Workqueue>) -> Result {
        if !self.queue.lock().works.is_empty() {
            return Ok(());
        }
        // Drivers sleep while hardware works.
        let count = num_online_cpus().clamp(2, 8);
        let mut works = KVec::with_capacity(count as usize, GFP_KERNEL_ACCOUNT)?;
        for index in 0..count {
            let work = DeviceWork {
                device: self.clone(),
                index,
            };
            works.push(Worker::new(workqueue, work)?, GFP_KERNEL_ACCOUNT)?;
        }

        let mut queue = self.queue.lock();
        queue.works = works;
        if queue.is_started {
            queue.set_idle();
            queue.wake();
        }
        if queue.len(Lane::Stale) > 0 {
            queue.retry_later(self.pause.load(Relaxed));
        }
        Ok(())
    }

    /// Has the works come to an end: what is pushed waits for the next [`Self::start`] or
    /// [`Self::take_driver`], with which the caller has this take turns. Does not wait for the works,
    /// unless those of the stop before are still waited for.
    pub(super) fn stop(&self) {
        let mut queue = self.queue.lock();
        if queue.works.is_empty() {
            return;
        }
        let works = core::mem::take(&mut queue.works);
        let old = core::mem::replace(&mut queue.ending, works);
        queue.idle = 0;
        drop(queue);
        drop(old);
    }

    /// Waits for the works that were stopped. What was pushed is worked on before this returns, but for
    /// stale rules, and unless the device is started again. Sleeps, and calls the driver.
    pub(super) fn wait_stopped(self: &Arc<Self>) {
        let _turn = self.ends.lock();
        let mut queue = self.queue.lock();
        let ending = core::mem::take(&mut queue.ending);
        queue.is_ending = true;
        drop(queue);
        drop(ending);
        // What they have not come to.
        let mut draft = RuleDraft::new();
        loop {
            let mut queue = self.queue.lock();
            let popped = if queue.works.is_empty() {
                queue.next()
            } else {
                None
            };
            let Some((flow, dir)) = popped else {
                queue.is_ending = false;
                break;
            };
            drop(queue);
            flow.work(dir, self, &mut draft);
        }
    }

    /// The driver is bound from now on, or cannot be bound: what waited for that is worked on.
    pub(super) fn set_driver(&self, driver: Option<Arc<FlowBlock>>, dialect: Option<Dialect>) {
        if let Some(driver) = driver {
            self.set_bound(driver, dialect);
        }
        let mut queue = self.queue.lock();
        if !queue.is_started {
            queue.is_started = true;
            queue.set_idle();
        }
        queue.wake();
    }

    fn set_bound(&self, driver: Arc<FlowBlock>, dialect: Option<Dialect>) {
        let dialect = match (driver.setup_type(), dialect) {
            (SetupType::Block, _) | (_, Some(Dialect::Tc)) => Self::TC,
            (_, Some(Dialect::Router)) => Self::ROUTER,
            (_, None) => Self::UNKNOWN,
        };
        self.dialect.store(dialect, Relaxed);
        self.takes_dest.store(Self::UNKNOWN, Relaxed);
        *self.driver.lock() = Some(driver);
    }

    /// Stops the works, if they are not yet, and takes the driver for the caller to unbind it by dropping
    /// it. No rule is left but those that the driver failed to remove, which are given up. Sleeps.
    pub(super) fn take_driver(self: &Arc<Self>) -> Option<Arc<FlowBlock>> {
        self.stop();
        self.queue.lock().is_closed = true;
        self.wait_stopped();

        let mut left = 0;
        loop {
            let popped = self.queue.lock().pop(Lane::Stale);
            let Some((flow, dir)) = popped else {
                break;
            };
            flow.give_up(dir);
            left += 1;
        }
        if left > 0 {
            dev_warn_ratelimited!(
                &self.dev,
                Unbind,
                "rules that the driver did not remove stay and go on forwarding: {}. Reset the \
                 device to be rid of them\n",
                left
            );
        }
        self.driver.lock().take()
    }

    /// Returns whether the works are stopped, and no task waits for them. Does not sleep.
    pub(super) fn is_stopped(&self) -> bool {
        let queue = self.queue.lock();
        queue.works.is_empty() && queue.ending.is_empty() && !queue.is_ending
    }

    /// Returns the driver, if it is bound. Only for works, and with [`BoundDevices`] locked: else it may be unbound
    /// meanwhile, and then in the context of the caller, by dropping what is returned.
    ///
    /// [`BoundDevices`]: super::registry::BoundDevices
    fn driver(&self) -> Option<Arc<FlowBlock>> {
        self.driver.lock().clone()
    }

    /// Returns for what the driver is bound, if it is. Does not sleep.
    pub(super) fn setup_type(&self) -> Option<SetupType> {
        let driver = self.driver.lock();
        driver.as_ref().map(|driver| driver.setup_type())
    }

    /// Has the driver bound anew if it has unregistered. `None` if it is not bound. Only with
    /// [`BoundDevices`](super::registry::BoundDevices) locked; sleeps.
    pub(super) fn rebind(&self) -> Option<Result<(), DriverError>> {
        self.driver().map(|driver| driver.rebind())
    }

    /// Returns whether the driver takes rules, or may do so when it is bound.
    pub(super) fn may_take_rules(&self) -> bool {
        if self.dev.is_switched_off() {
            return false;
        }
        // No reference is taken, the last one of which would unbind the driver.
        let takes_rules = self
            .driver
            .lock()
            .as_ref()
            .map(|driver| driver.takes_rules());
        match takes_rules {
            Some(takes_rules) => takes_rules,
            None => {
                let queue = self.queue.lock();
                !queue.is_started && !queue.is_closed
            }
        }
    }

    /// Returns the network device.
    pub(super) fn dev(&self) -> &NetDevice {
        &self.dev
    }

    /// Returns what is counted of the driver's calls.
    pub(super) fn stats(&self) -> &DeviceStats {
        &self.stats
    }

    /// Returns how many rules are to be removed, to be added, to be asked for their statistics, and are
    /// stale.
    pub(super) fn queued(&self) -> [u32; 4] {
        let queue = self.queue.lock();
        [Lane::Withdraw, Lane::Add, Lane::Poll, Lane::Stale].map(|lane| queue.len(lane) as u32)
    }

    /// Returns the dialect that the driver is known to speak.
    pub(super) fn dialect(&self) -> Option<Dialect> {
        match *self.dialects() {
            [dialect] => Some(dialect),
            _ => None,
        }
    }

    /// The driver does not have a rule any more.
    pub(super) fn rule_gone(&self) {
        self.room.freed();
        self.stats.gone();
    }

    /// Returns what is known of the room for rules.
    pub(super) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Returns whether this is the device of `dev`.
    pub(super) fn is(&self, dev: &NetDevice) -> bool {
        core::ptr::eq(&*self.dev, dev)
    }

    /// Returns how the driver may read rules, in the order in which to try.
    pub(super) fn dialects(&self) -> &'static [Dialect] {
        match self.dialect.load(Relaxed) {
            Self::TC => &[Dialect::Tc],
            Self::ROUTER => &[Dialect::Router],
            _ => &[Dialect::Tc, Dialect::Router],
        }
    }

    /// The driver has taken a rule in this dialect.
    fn learn(&self, dialect: Dialect) {
        let dialect = match dialect {
            Dialect::Tc => Self::TC,
            Dialect::Router => Self::ROUTER,
        };
        // If two flows have found out at once, they have found out the same.
        let _ = self.dialect.cmpxchg(Self::UNKNOWN, dialect, Relaxed);
    }

    /// Returns whether a direction can be expressed as a rule, in one of the dialects that the driver
    /// may speak. If it is checked later, by [`Self::add_rule`], that is not asked as long as it does not
    /// take a call of the driver to know the dialect.
    pub(super) fn check(
        &self,
        flow: &Flow,
        dir: Direction,
        is_checked_later: bool,
    ) -> Result<(), Cause> {
        if is_checked_later && self.dialects().len() == 1 {
            return Ok(());
        }
        // As what it will be bound is not known yet: then the work finds out.
        if !self.queue.lock().is_started {
            return Ok(());
        }
        let mut rule = Rule::new();
        let mut result = Ok(());
        for &dialect in self.dialects() {
            result = translate(flow, dir, dialect, &mut rule);
            if result.is_ok() {
                break;
            }
        }
        result.map_err(Cause::Unsupported)
    }

    /// Has the driver install the rule of a direction of the draft's flow, unless it has no room, and none
    /// was granted. Sleeps.
    pub(super) fn add_rule(
        &self,
        id: RuleId,
        dir: Direction,
        net: &Net,
        draft: &mut RuleDraft,
        grant: Option<Grant>,
    ) -> Result<(), Cause> {
        if grant.is_none() {
            self.check_room()?;
        }
        let result = self.try_rule(id, dir, net, draft);
        match result {
            Ok(()) => self.room.taken(grant),
            Err(Cause::Driver(error)) => self.room.refused(jiffies64(), Hope::of(error.errno)),
            Err(_) => {}
        }
        result
    }

    /// Fails unless a rule that has to wait for no other may be tried.
    pub(super) fn check_room(&self) -> Result<(), Cause> {
        if !self.room.is_tight(jiffies64()) {
            return Ok(());
        }
        let ifindex = self.dev.ifindex();
        Err(if self.room.is_failing() {
            Cause::Failing(ifindex)
        } else {
            Cause::NoRoom(ifindex)
        })
    }

    fn try_rule(
        &self,
        id: RuleId,
        dir: Direction,
        net: &Net,
        draft: &mut RuleDraft,
    ) -> Result<(), Cause> {
        let ingress = draft.flow.tuple(dir).ingress;
        // Rules that were there when it was switched off have been found and withdrawn since.
        if self.dev.is_switched_off() {
            return Err(Cause::SwitchedOff(ingress));
        }
        let driver = self.driver().ok_or(Cause::NotBound(ingress))?;
        let mut dialects = self.dialects().iter().peekable();

        while let Some(&dialect) = dialects.next() {
            let result = translate(&draft.flow, dir, dialect, &mut draft.rule)
                .map_err(Cause::Unsupported)
                .and_then(|()| self.hand_over(&driver, id, net, draft));
            match result {
                Ok(()) => {
                    self.learn(dialect);
                    break;
                }
                // Maybe it is the dialect that the driver does not understand.
                Err(Cause::Driver(error))
                    if error.is_not_supported() && dialects.peek().is_some() => {}
                // The next dialect is the right one only if the driver does not speak this one.
                Err(Cause::Unsupported(why)) if dialects.peek().is_some() => {
                    if self.speaks(&driver, id, dir, dialect, net, draft)? {
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
        driver: &FlowBlock,
        id: RuleId,
        dir: Direction,
        dialect: Dialect,
        net: &Net,
        draft: &mut RuleDraft,
    ) -> Result<bool, Cause> {
        probe(&draft.flow, dir, dialect, &mut draft.rule).map_err(Cause::Unsupported)?;

        match self.hand_over(driver, id, net, draft) {
            Ok(()) => {
                self.learn(dialect);
                // No packet hits it, should it stay.
                if driver.del_rule(id).is_ok() {
                    self.stats.gone();
                }
                Ok(true)
            }
            Err(Cause::Driver(error)) if error.is_not_supported() => Ok(false),
            Err(cause) => Err(cause),
        }
    }

    /// Has the driver install the draft's rule; without the MAC address to which frames are to be, if that
    /// is what it does not take.
    fn hand_over(
        &self,
        driver: &FlowBlock,
        id: RuleId,
        net: &Net,
        draft: &mut RuleDraft,
    ) -> Result<(), Cause> {
        let RuleDraft { rule, buffer, .. } = draft;
        let mut add = |rule: &Rule| {
            let rule = buffer.write(rule, net).map_err(Cause::Prepare)?;
            let call = Call::begin();
            let result = driver.add_rule(id, &rule);
            let errno = result.as_ref().err().map(|error| error.errno);
            self.stats.added(&call, errno);
            result.map_err(Cause::Driver)
        };
        let takes_dest = self.takes_dest.load(Relaxed);
        if takes_dest == Self::NO {
            rule.matches.dest = None;
        }

        let result = add(rule);
        if rule.matches.dest.is_none() || takes_dest == Self::YES {
            return result;
        }
        match result {
            Ok(()) => self.takes_dest.store(Self::YES, Relaxed),
            Err(Cause::Driver(error)) if error.is_not_supported() => {
                rule.matches.dest = None;
                add(rule)?;
                // Others may find it out at the same time.
                if self.takes_dest.xchg(Self::NO, Relaxed) != Self::NO {
                    dev_warn_ratelimited!(
                        &self.dev,
                        Rules,
                        "the driver does not match MAC addresses: frames for others that come in here, \
                         and look like packets of a flow, are forwarded\n"
                    );
                }
            }
            Err(cause) => return Err(cause),
        }
        Ok(())
    }

    /// Has the driver remove a rule. Fails if it is still there. Sleeps.
    pub(super) fn del_rule(&self, id: RuleId) -> Result<(), DriverError> {
        let Some(driver) = self.driver() else {
            return Ok(());
        };

        let call = Call::begin();
        let result = driver.del_rule(id);
        let errno = result.as_ref().err().map(|error| error.errno);
        self.stats.removed(&call, errno);
        result.or_else(|error| {
            let is_gone = match error.errno {
                ENOENT => true,
                // What mlx5 says of a rule that it does not know, and others of a failure.
                EINVAL => driver.rule_stats(id).is_err(),
                _ => false,
            };
            if is_gone {
                Ok(())
            } else {
                Err(error)
            }
        })
    }

    /// Returns whether the driver says that the hardware has no such rule any more. Sleeps.
    pub(super) fn has_lost(&self, id: RuleId) -> bool {
        self.driver().is_some_and(|driver| {
            driver
                .rule_stats(id)
                .is_err_and(|error| error.errno == ENOENT)
        })
    }

    /// Asks the driver what a rule has done since it was last asked; nothing if it does not say. Sleeps.
    pub(super) fn rule_stats(&self, id: RuleId) -> Result<FlowStats, Lost> {
        let Some(driver) = self.driver() else {
            return Ok(FlowStats::default());
        };

        match driver.rule_stats(id) {
            Ok(stats) => Ok(stats),
            Err(error) if error.errno == ENOENT => Err(Lost),
            // mlx5 says so of a rule that it does not know, others of a failure: then it goes now.
            Err(error) if error.errno == EINVAL => match self.del_rule(id) {
                Ok(()) => Err(Lost),
                Err(_) => Ok(FlowStats::default()),
            },
            Err(_) => Ok(FlowStats::default()),
        }
    }

    /// Has [`HwFlow::work`] called for a direction of a flow, sooner the more urgent `lane` is. Returns
    /// `false` if the device is being unbound, or is unbound, and nothing is done for it any more. Does
    /// not sleep.
    pub(super) fn push(&self, flow: &Arc<HwFlow>, dir: Direction, lane: Lane) -> bool {
        let mut queue = self.queue.lock();

        if queue.is_closed {
            return false;
        }

        // Where it is being taken out of a queue, it is about to be worked on.
        if queue.push(flow.clone(), dir, lane) {
            queue.wake();
        }
        true
    }

    /// Keeps a flow whose rule could not be removed, to be tried again.
    pub(super) fn push_stale(&self, flow: &Arc<HwFlow>, dir: Direction) {
        let pause = self.pause.load(Relaxed);
        let mut queue = self.queue.lock();

        // If it is in an earlier lane, it comes back from there.
        queue.push(flow.clone(), dir, Lane::Stale);
        queue.retry_later(pause);
    }

    /// Has removals that failed tried again now; those that fail again, after twice the time. Does not
    /// sleep.
    pub(super) fn retry_stale(&self) {
        // Those that fail again meanwhile wait for the next time.
        let count = self.queue.lock().len(Lane::Stale);
        let pause = self.pause.load(Relaxed);
        self.pause.store((pause * 2).min(Self::MAX_PAUSE), Relaxed);
        for _ in 0..count {
            let popped = self.queue.lock().pop(Lane::Stale);
            let Some((flow, dir)) = popped else {
                break;
            };
            flow.retry_stale(dir);
        }
    }

    /// A removal that had failed has not failed again.
    pub(super) fn stale_removed(&self) {
        self.pause.store(1, Relaxed);
    }

    /// Takes the next flow to be worked on by the work `index`, which has nothing to do if there is
    /// none.
    fn pop(&self, index: u32) -> Option<(Arc<HwFlow>, Direction)> {
        let mut queue = self.queue.lock();
        let next = queue.next();

        if next.is_none() {
            queue.idle |= 1 << index;
        }
        next
    }
}

/// One of the works of a device.
pub(super) struct DeviceWork {
    device: Arc<OffloadDevice>,
    index: u32,
}

impl Work for DeviceWork {
    fn lock_classes() -> [Pin<&'static LockClassKey>; 2] {
        [static_lock_class!(), static_lock_class!()]
    }

    fn run(&self, _worker: &Worker<Self>) {
        let mut draft = RuleDraft::new();
        while let Some((flow, dir)) = self.device.pop(self.index) {
            flow.work(dir, &self.device, &mut draft);
            cond_resched();
        }
    }

    fn run_delayed(&self, _worker: &Worker<Self>) {
        self.device.retry_stale();
    }
}

/// A device in a table: what the rules of the table's flows in this device have in common.
#[pin_data]
pub(super) struct Port {
    device: Arc<OffloadDevice>,
    priority: i32,
    /// The device leaves the table.
    is_leaving: Atomic<bool>,
    #[pin]
    rules: Mutex<PortRules>,
    /// A rule has gone, or could not be removed.
    #[pin]
    settled: CondVar,
}

#[derive(Default)]
struct PortRules {
    /// In the driver, or being handed to it.
    count: usize,
    /// Of these, those whose removal has failed.
    stale: usize,
    /// Calls of [`Port::wait`].
    waiters: usize,
}

impl Port {
    /// Sleeps; fails with `ENOMEM`.
    pub(super) fn new(device: Arc<OffloadDevice>, priority: i32) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                device,
                priority,
                is_leaving: Atomic::new(false),
                rules <- new_mutex!(PortRules::default()),
                settled <- new_condvar!(),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    pub(super) fn device(&self) -> &Arc<OffloadDevice> {
        &self.device
    }

    /// Returns the hook priority of the table.
    pub(super) fn priority(&self) -> i32 {
        self.priority
    }

    /// Counts a rule that is about to be installed. Fails if the device leaves the table. Sleeps.
    pub(super) fn reserve(&self) -> Result {
        let mut rules = self.rules.lock();
        if self.is_leaving() {
            return Err(ENODEV);
        }
        rules.count += 1;
        Ok(())
    }

    /// A rule that was counted is not there, or no more. Sleeps.
    pub(super) fn release(&self) {
        let mut rules = self.rules.lock();
        rules.count -= 1;
        if rules.waiters > 0 {
            self.settled.notify_all();
        }
    }

    /// The removal of a rule has failed, or is tried again. Sleeps.
    pub(super) fn set_stale(&self, is_stale: bool) {
        let mut rules = self.rules.lock();
        if is_stale {
            rules.stale += 1;
        } else {
            rules.stale -= 1;
        }
        if rules.waiters > 0 {
            self.settled.notify_all();
        }
    }

    /// Returns how many rules of the table there are, and how many of these are stale. Sleeps.
    pub(super) fn rules(&self) -> [u32; 2] {
        let rules = self.rules.lock();
        [rules.count, rules.stale].map(|count| count as u32)
    }

    /// No rule is installed any more. Sleeps.
    pub(super) fn close(&self) {
        let rules = self.rules.lock();
        self.is_leaving.store(true, Relaxed);
        drop(rules);
    }

    /// Returns whether no rule is installed any more. Does not sleep.
    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Relaxed)
    }

    /// Waits until all rules are gone, but for those that the driver fails to remove; there are no new
    /// ones, as the port is closed or its driver takes none. Sleeps.
    pub(super) fn wait(&self) {
        let mut rules = self.rules.lock();

        rules.waiters += 1;
        while rules.count > rules.stale {
            self.settled.wait(&mut rules);
        }
        rules.waiters -= 1;
    }
}

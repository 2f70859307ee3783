// SPDX-License-Identifier: GPL-2.0

//! Drivers that take rules, bound into a block.
//!
//! C header: [`include/net/flow_offload.h`](srctree/include/net/flow_offload.h)

use crate::{
    bindings,
    net::{
        device::{write_c_chars, NetDevice},
        eopnotsupp,
        extack::{Extack, ExtackMsg},
        flow_rule::FlowRule,
        log::dev_warn_ratelimited, //
    },
    time::jiffies64,
};
use kernel::{
    alloc::AllocError,
    fmt,
    prelude::*,
    sync::{aref::ARef, Arc},
    types::Opaque, //
};

/// Why a driver refused a request: its errno and its msg.
#[derive(Clone, Copy)]
pub(crate) struct DriverError {
    pub(crate) errno: Error,
    pub(crate) msg: ExtackMsg,
}

impl DriverError {
    /// Whether the driver does not support what it was asked for.
    pub(crate) fn is_not_supported(&self) -> bool {
        self.errno == eopnotsupp()
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_errno(f, self.errno)?;
        if !self.msg.is_empty() {
            f.write_str(" \"")?;
            fmt::Display::fmt(&self.msg, f)?;
            f.write_str("\"")?;
        }
        Ok(())
    }
}

/// Writes an errno as the kernel's `%pe` does: by name, if this kernel has the names.
pub(crate) fn write_errno(f: &mut fmt::Formatter<'_>, errno: Error) -> fmt::Result {
    use kernel::fmt::Write;

    match errno.name() {
        Some(name) => {
            f.write_char('-')?;
            write_c_chars(f, name.to_bytes())
        }
        None => write!(f, "{}", errno.to_errno()),
    }
}

impl From<Error> for DriverError {
    fn from(errno: Error) -> Self {
        Self {
            errno,
            msg: ExtackMsg::NONE,
        }
    }
}

impl From<(Error, ExtackMsg)> for DriverError {
    fn from((errno, msg): (Error, ExtackMsg)) -> Self {
        Self { errno, msg }
    }
}

impl From<AllocError> for DriverError {
    fn from(error: AllocError) -> Self {
        Error::from(error).into()
    }
}

/// Why a driver is not bound.
#[derive(Clone, Copy)]
pub(crate) enum BindError {
    /// It refused, or there is none.
    Driver(DriverError),
    /// It takes rules for tc only ([`SetupType::Block`]), and only with RTNL held.
    NeedsRtnl,
}

impl BindError {
    /// The errno for nftables: as of nf_flow_table for a driver that takes rules for tc only.
    pub(crate) fn errno(&self) -> Error {
        match self {
            Self::Driver(error) => error.errno,
            Self::NeedsRtnl => eopnotsupp(),
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver(error) => fmt::Display::fmt(error, f),
            Self::NeedsRtnl => f.write_str(
                "its driver takes rules for tc only, and not without RTNL (no unlocked_driver_cb). \
                 Such drivers may say yes to rules that they do not understand: packets would go \
                 astray, or the host would be cut off",
            ),
        }
    }
}

impl<E: Into<DriverError>> From<E> for BindError {
    fn from(error: E) -> Self {
        Self::Driver(error.into())
    }
}

/// What a rule has done since it was last asked, `struct flow_stats`.
#[derive(Clone, Copy, Default)]
pub(crate) struct FlowStats {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// When the last packet hit, in jiffies. Some time in the past, or 0, if none ever did.
    pub(crate) lastused: u64,
}

/// Drivers say when in `jiffies`, an `unsigned long`: on 32 bits, the lower half of the time.
fn full_width(now: u64, jiffies: u64) -> u64 {
    if cfg!(CONFIG_64BIT) || jiffies == 0 {
        jiffies
    } else {
        now.wrapping_sub(u64::from((now as u32).wrapping_sub(jiffies as u32)))
    }
}

/// The name of a rule in a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RuleId {
    /// Must not be used for two rules of a driver at a time.
    pub(crate) cookie: usize,
    /// The same in all requests for a rule. What it means is up to a driver that is bound for
    /// flowtables; others are given the first of tc.
    pub(crate) priority: i32,
}

/// The setup request that binds the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetupType {
    /// For flowtables, `TC_SETUP_FT`. C makes its requests without RTNL too.
    Ft,
    /// For tc, `TC_SETUP_BLOCK`, at clsact's ingress. The two exclude each other for a device.
    ///
    /// Drivers keep lists of such bindings under RTNL, so it has to be held to bind and unbind. Only
    /// drivers that take requests without it (`unlocked_driver_cb`) are bound.
    Block,
    /// As [`Self::Ft`], for a device without a driver that takes requests (`ndo_setup_tc`): the
    /// drivers that asked for such devices are offered it. The one that takes it may unregister at any
    /// time: [`DeviceHandler::indr_cleanup`](crate::net::notifier::DeviceHandler::indr_cleanup).
    Indirect,
}

impl SetupType {
    fn as_raw(self) -> bindings::tc_setup_type {
        match self {
            Self::Ft | Self::Indirect => bindings::tc_setup_type_TC_SETUP_FT,
            Self::Block => bindings::tc_setup_type_TC_SETUP_BLOCK,
        }
    }

    /// A priority of nftables, as drivers take it in this role.
    fn priority(self, priority: i32) -> u32 {
        match self {
            Self::Ft | Self::Indirect => priority as u32,
            Self::Block => 1,
        }
    }
}

/// A device whose driver takes rules, in a `struct flow_block` of its own.
///
/// Drivers look up their callback by block, so no two devices share one: each rule goes to the
/// driver of the device at which its packets come in and to no other.
///
/// The driver is bound by [`FlowBlock::bind`] and unbound when the last reference is dropped. Unbinding
/// does not take rules out of the hardware; the owner does that before.
///
/// # Invariants
///
/// - `block` is initialised and holds the callbacks that the driver of `dev` gave, until that driver
///   leaves.
/// - The block's list changes only in `bind`, `rebind` and `drop` and when the driver leaves, which
///   take turns with those of all other blocks (`block_setup_lock`), and with requests (the block's
///   own lock).
/// - `dev` is registered: nftables has the devices of a flowtable leave it, by dropping this, when
///   they are unregistered.
#[pin_data(PinnedDrop)]
pub(crate) struct FlowBlock {
    #[pin]
    block: Opaque<bindings::shim_block>,
    dev: ARef<NetDevice>,
    setup_type: SetupType,
}

// SAFETY: A block is a list of callbacks; drivers take requests from any thread.
unsafe impl Send for FlowBlock {}

// SAFETY: By the type invariant the list is locked, and drivers serialise the requests that they
// get.
unsafe impl Sync for FlowBlock {}

impl FlowBlock {
    /// Binds the driver of `dev`. Most drivers refuse a second block.
    ///
    /// Sleeps. `EOPNOTSUPP` if no driver takes rules at all, or the driver's own error.
    /// C: `nf_flow_table_offload_cmd()`, `nf_flow_table_indr_offload_cmd()`.
    pub(crate) fn bind(dev: &NetDevice, setup_type: SetupType) -> Result<Arc<Self>, BindError> {
        let indirect = setup_type == SetupType::Indirect;
        if !indirect && !dev.has_setup_tc() {
            return Err(eopnotsupp().into());
        }

        // INVARIANT: The block is initialised, and empty as long as no driver is bound.
        let bound = Arc::pin_init(
            pin_init!(Self {
                // SAFETY: The slot is valid for writes and pinned; the device is kept beside it.
                block <- Opaque::ffi_init(|slot| unsafe {
                    bindings::shim_block_init(slot, dev.as_raw(), setup_type.as_raw(), indirect)
                }),
                dev: dev.into(),
                setup_type,
            }),
            GFP_KERNEL,
        )?;

        match bound.ask_driver() {
            // Drivers say it even if tc has them already, and it is no use to take them from there.
            Err(error) if error.errno != EBUSY => Err(error.into()),
            _ if setup_type == SetupType::Block && !bound.is_unlocked() => {
                Err(BindError::NeedsRtnl)
            }
            result => Ok(result.map(|()| bound)?),
        }
    }

    /// If the driver has left ([`SetupType::Indirect`]), binds the one that there is now. Sleeps.
    /// `EAGAIN` if the driver is just about to leave, else errors as of [`Self::bind`].
    pub(crate) fn rebind(&self) -> Result<(), DriverError> {
        match self.setup_type {
            SetupType::Indirect => self.ask_driver(),
            SetupType::Ft | SetupType::Block => Ok(()),
        }
    }

    fn ask_driver(&self) -> Result<(), DriverError> {
        Extack::with(|extack| {
            // SAFETY: nftables binds registered devices, this one takes requests if it is asked for
            // them (checked in `bind`), and the block is pinned and initialised. A driver that
            // refuses puts nothing into the block.
            unsafe { bindings::shim_block_bind(self.block.get(), extack) }
        })
        .map_err(DriverError::from)
    }

    /// Whether the driver said when it was asked that it takes requests without RTNL.
    fn is_unlocked(&self) -> bool {
        // SAFETY: By the type invariant; it changes only when the driver is asked.
        unsafe { bindings::shim_block_is_unlocked(self.block.get()) }
    }

    /// In which role the driver is bound.
    pub(crate) fn setup_type(&self) -> SetupType {
        self.setup_type
    }

    /// `false` if the driver agreed to be bound and gave no callback (netdevsim), or leaves or has
    /// left. Does not sleep.
    pub(crate) fn takes_rules(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::shim_block_takes_rules(self.block.get()) }
    }

    /// Has the driver install `rule` as `id`. Sleeps. `EOPNOTSUPP` without
    /// [`Self::takes_rules`], or the driver's own error.
    pub(crate) fn add_rule(&self, id: RuleId, rule: &FlowRule<'_>) -> Result<(), DriverError> {
        self.call(
            bindings::flow_cls_command_FLOW_CLS_REPLACE,
            id,
            rule.as_raw(),
        )?;
        Ok(())
    }

    /// Has the driver remove the rule `id`. Sleeps.
    pub(crate) fn del_rule(&self, id: RuleId) -> Result<(), DriverError> {
        self.call(
            bindings::flow_cls_command_FLOW_CLS_DESTROY,
            id,
            core::ptr::null_mut(),
        )?;
        Ok(())
    }

    /// Asks the driver what the rule `id` has done since the last time. Sleeps.
    pub(crate) fn rule_stats(&self, id: RuleId) -> Result<FlowStats, DriverError> {
        let stats = self.call(
            bindings::flow_cls_command_FLOW_CLS_STATS,
            id,
            core::ptr::null_mut(),
        )?;

        // Where the counters of the hardware start anew (airoha_ppe, when it has forgotten the entry
        // meanwhile), the driver's difference is below zero.
        let new = |count: u64| if count > u64::MAX / 2 { 0 } else { count };
        Ok(FlowStats {
            packets: new(stats.pkts),
            bytes: new(stats.bytes),
            lastused: full_width(jiffies64(), stats.lastused),
        })
    }

    fn call(
        &self,
        command: bindings::flow_cls_command,
        id: RuleId,
        rule: *mut bindings::flow_rule,
    ) -> Result<bindings::flow_stats, DriverError> {
        let mut cls: bindings::flow_cls_offload = pin_init::zeroed();

        // As C does it (nf_flow_offload_init()), the protocol is not in network byte order:
        // drivers compare it with nothing, but print it.
        cls.common.protocol = bindings::ETH_P_ALL as u16;
        cls.common.prio = self.setup_type.priority(id.priority);
        cls.command = command;
        cls.cookie = id.cookie;
        cls.rule = rule;

        let result = Extack::with(|extack| {
            cls.common.extack = extack;
            // SAFETY: By the type invariant; `cls` is complete, and a rule is borrowed by the
            // caller for the whole call.
            unsafe { bindings::shim_block_call(self.block.get(), &mut cls) }
        });

        match result {
            Ok(()) => Ok(cls.stats),
            Err(error) => Err(error.into()),
        }
    }
}

#[pinned_drop]
impl PinnedDrop for FlowBlock {
    fn drop(self: Pin<&mut Self>) {
        let result = Extack::with(|extack| {
            // SAFETY: By the type invariants the device is registered and the block initialised;
            // `bind` has checked that the device takes requests. Nothing else uses the block any
            // more but `block_cleanup()`, with which `shim_block_unbind` takes turns.
            unsafe { bindings::shim_block_unbind(self.block.get(), extack) }
        });

        if let Err(error) = result {
            dev_warn_ratelimited!(
                &self.dev,
                Unbind,
                "the driver refused to be unbound: {}\n",
                DriverError::from(error)
            );
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The hardware side of flowtables, as a flowtable type asks for it.

use crate::{
    net::{
        device::NetDevice,
        flow_block::FlowStats,
        notifier::{DeviceHandler, NetHandler, Notifiers},
        rtnl::Rtnl, //
    },
    netfilter::{
        attach::{Attachment, HwObject},
        conntrack::Direction,
        flow::FlowOffload,
        flowtable::{Flowtable, Tables},
        known::KnownTables, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// What becomes of a packet that has an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The core's hook forwards it.
    FastPath,
    /// The host forwards it.
    SlowPath,
}

/// What a TCP packet says, or all 0 for others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TcpPacket {
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    /// Or the hop limit.
    pub(crate) ttl: u8,
}

/// What a type keeps of its flowtables: for those with `flags offload`, the hardware side. A value is made
/// when the first device joins a table, and lives as long as the table.
///
/// No method but [`Offload::bind`] and [`Offload::unbind`] may wait for a driver: the core's workers
/// call them, and a device that goes down anywhere waits for these with RTNL held.
pub(crate) trait Offload: Send + Sync + Sized + 'static {
    /// What all tables of a [`Registration`](super::flow_table_type::Registration) share.
    type Context: Send + Sync;

    /// What all tables of a namespace share.
    type Namespace: NetHandler;

    /// What is notified of devices.
    type Devices: DeviceHandler;

    /// What is kept for an entry.
    type Flow: HwObject;

    /// Returns the notifiers, which live as long as a type is registered.
    fn notifiers(context: &Self::Context) -> &Arc<Notifiers<Self::Namespace, Self::Devices>>;

    /// Returns all tables of the types, with `flags offload` or without.
    fn known_tables(context: &Self::Context) -> &KnownTables;

    /// A device joins a table, whose hardware side is `table` if it has one already. Returns the
    /// hardware side; an error fails the user's request.
    ///
    /// With `rtnl` the device is late: it has come, or got its name, after the ruleset. An error only
    /// leaves it out of hardware.
    ///
    /// Called with `commit_mutex` held, and with RTNL if there is `rtnl`; may sleep, but not take RTNL.
    fn bind(
        context: &Arc<Self::Context>,
        table: Option<&Arc<Self>>,
        flowtable: &Flowtable,
        dev: &NetDevice,
        rtnl: Option<&Rtnl>,
    ) -> Result<Arc<Self>>;

    /// Returns what is kept for a table without `flags offload`, which a device joins. Called as
    /// [`Offload::bind`].
    fn plain(context: &Arc<Self::Context>, flowtable: &Flowtable) -> Result<Arc<Self>>;

    /// A device leaves the table: when this returns, no rule of the table is left in it. The device may
    /// be one that never joined.
    ///
    /// Called with `commit_mutex` held, and maybe RTNL. May wait for the device's driver.
    fn unbind(self: &Arc<Self>, dev: &NetDevice);

    /// Returns the tables of a namespace.
    fn tables(namespace: &Self::Namespace) -> &Tables<Self>;

    /// Returns the namespace of the table, in whose [`Offload::tables`] it is.
    fn namespace(&self) -> &Self::Namespace;

    /// The core offers the entry of a flow: for the first time, and then at most once per second in
    /// which packets of it come through software.
    ///
    /// Called in the core's worker; may sleep.
    fn offer(
        self: &Arc<Self>,
        flowtable: &Flowtable,
        entry: &FlowOffload,
        attachment: &Attachment<'_, Self::Flow>,
    );

    /// As [`Offload::offer`] for an entry that is in none of the namespace's tables, or hidden in one.
    fn offer_unknown(namespace: &Self::Namespace, entry: &FlowOffload);

    /// The entry leaves the hardware side; `flow` has been detached from it. Called in the core's worker,
    /// or while the table is freed; may sleep.
    fn destroy(entry: &FlowOffload, flow: Arc<Self::Flow>);

    /// Returns what a direction has done since the last call. The core sets the entry's timeout to
    /// [`FlowStats::lastused`] plus its lifetime, so this has to be right even if no rule is installed.
    ///
    /// Called in the core's worker; may sleep.
    fn stats(entry: &FlowOffload, flow: Option<Arc<Self::Flow>>) -> FlowStats;

    /// Looks at an entry, once a second. Returns whether the core is to tear it down. Called under
    /// `rcu_read_lock()`; must not sleep.
    fn gc(entry: &FlowOffload, attachment: &Attachment<'_, Self::Flow>) -> bool;

    /// Looks for the first time at an entry that is not for hardware, and may become one that is. Called as
    /// [`Offload::gc`].
    fn gc_new(entry: &FlowOffload);

    /// As [`Offload::gc`] for an entry that is not for hardware.
    fn gc_plain(namespace: Option<&Self::Namespace>, entry: &FlowOffload) -> bool;

    /// The core may take an entry that leaves for one that is there: it is to see enough time left for the
    /// connection. Called as [`Offload::gc`].
    fn extend(entry: &FlowOffload);

    /// The table of an entry goes, or itself, and conntrack takes over. Called before [`Offload::destroy`] of `flow`,
    /// maybe under `rcu_read_lock()`; must not sleep.
    fn end(entry: &FlowOffload, flow: Option<&Self::Flow>);

    /// Decides on a packet of an entry. Called in softirq, for packets with FIN, SYN or RST, and in
    /// namespaces with IP tunnels for all of tables with `flags offload`.
    fn ingress(
        namespace: Option<&Self::Namespace>,
        entry: &FlowOffload,
        dir: Direction,
        tcp: &TcpPacket,
    ) -> Verdict;
}

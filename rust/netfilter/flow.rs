// SPDX-License-Identifier: GPL-2.0

//! The entries of a flowtable.
//!
//! [`FlowOffload`] is the kernel's entry; [`Flow`] is a plain description of what it says about
//! the packets, which is read once and then worked with.
//!
//! C header: [`include/net/netfilter/nf_flow_table.h`](srctree/include/net/netfilter/nf_flow_table.h)

use crate::{
    bindings,
    net::{
        device::{MacAddress, ETH_ALEN},
        flow_rule::{Addresses, Ports, Tunnel, IPPROTO_TCP, IPPROTO_UDP},
        namespace::Net, //
    },
    netfilter::conntrack::{
        Conntrack,
        Direction, //
    },
};
use core::{
    mem::{offset_of, MaybeUninit},
    ptr::{addr_of, addr_of_mut, NonNull}, //
};
use kernel::{
    fmt,
    prelude::*,
    sync::aref::ARef,
    types::Opaque, //
};

/// A tag or session header that a tuple's packets carry when they come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Encap {
    /// `ETH_P_8021Q`, `ETH_P_8021AD` or `ETH_P_PPP_SES`.
    pub(crate) proto: u16,
    /// VLAN or PPPoE session.
    pub(crate) id: u16,
    /// The switch behind the device takes the tag off and puts it on by itself
    /// (`in_vlan_ingress`), so that the device's own packets do not have it.
    pub(crate) ingress_vlan: bool,
}

/// How packets of a tuple leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Xmit {
    /// As Ethernet frames between these addresses, by this device.
    Ethernet {
        ifindex: u32,
        source: MacAddress,
        dest: MacAddress,
    },
    /// As Ethernet frames to a neighbour that is not resolved at present.
    Unresolved,
    /// Through IPsec, `FLOW_OFFLOAD_XMIT_XFRM`.
    Ipsec,
    /// By another way (`enum flow_offload_xmit_type`).
    Other,
}

impl Xmit {
    /// Returns the MAC address from which they leave, if it is known.
    pub(crate) fn source(&self) -> Option<MacAddress> {
        match *self {
            Self::Ethernet { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// What the route of packets puts around them, `struct lwtunnel_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LwTunnel {
    /// An IP tunnel.
    Ip(Tunnel),
    /// An IP tunnel with options (VXLAN's group policy, GENEVE's, ERSPAN's).
    Options,
    /// Anything else, `enum lwtunnel_encap_types`.
    Other(u16),
}

/// One direction of a flow, `struct flow_offload_tuple`: its packets as they come in, and where
/// they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuple {
    pub(crate) addresses: Addresses,
    /// 0 where the protocol has none.
    pub(crate) ports: Ports,
    pub(crate) l4proto: u8,
    /// Index of the device by which packets come in.
    pub(crate) ingress: u32,
    /// To which MAC address they come in, if it is not the one from which those of the other direction leave.
    /// The entry does not say.
    pub(crate) dest: Option<MacAddress>,
    /// From the outermost header inwards.
    pub(crate) encaps: [Option<Encap>; ENCAP_MAX],
    /// The priority (PCP) that packets of the other direction get with these tags. The entry does not say.
    pub(crate) priorities: [u8; ENCAP_MAX],
    /// Within an IP tunnel, which the flowtable terminates (`tun_num`).
    pub(crate) tunnel: bool,
    pub(crate) xmit: Xmit,
    /// What is put around the packets when they leave.
    pub(crate) lwtunnel: Option<LwTunnel>,
}

impl Tuple {
    /// A tuple to be read into.
    const fn new() -> Self {
        Self {
            addresses: Addresses::V4 {
                src: [0; 4],
                dst: [0; 4],
            },
            ports: Ports { src: 0, dst: 0 },
            l4proto: 0,
            ingress: 0,
            dest: None,
            encaps: [None; ENCAP_MAX],
            priorities: [0; ENCAP_MAX],
            tunnel: false,
            xmit: Xmit::Other,
            lwtunnel: None,
        }
    }
}

/// `NF_FLOW_TABLE_ENCAP_MAX`
pub(crate) const ENCAP_MAX: usize = bindings::NF_FLOW_TABLE_ENCAP_MAX as usize;

/// What a flowtable entry says about the packets of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) tuples: [Tuple; 2],
    /// The connection's source is translated, `NF_FLOW_SNAT`.
    pub(crate) snat: bool,
    /// The connection's destination is translated, `NF_FLOW_DNAT`.
    pub(crate) dnat: bool,
}

impl Flow {
    /// A flow to be read into.
    pub(crate) const fn new() -> Self {
        Self {
            tuples: [Tuple::new(); 2],
            snat: false,
            dnat: false,
        }
    }

    pub(crate) fn tuple(&self, dir: Direction) -> &Tuple {
        match dir {
            Direction::Original => &self.tuples[0],
            Direction::Reply => &self.tuples[1],
        }
    }
}

/// What garbage collection finds at an entry that is not for hardware.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Visit {
    First,
    Same,
    /// The connection has another mark than at the last visit.
    OtherMark,
}

/// By what an entry is found in its table: the original direction's tuple, of which the hashed part is used.
#[derive(Clone, Copy)]
pub(crate) struct EntryKey(pub(super) bindings::flow_offload_tuple);

// SAFETY: No pointer in it is used.
unsafe impl Send for EntryKey {}

/// An entry of a flowtable, `struct flow_offload`.
///
/// # Invariants
///
/// - The entry is not freed while it is borrowed, and holds a reference to its conntrack entry.
/// - The tuples do not change after the entry has been added to its table, but for `mtu`. (act_ct changes
///   those in its own tables, which have another type.)
#[repr(transparent)]
pub(crate) struct FlowOffload(Opaque<bindings::flow_offload>);

impl FlowOffload {
    /// The entry and direction that belong to a cookie of C, which is the address of a tuple
    /// (`nf_flow_offload_init()`).
    ///
    /// # Safety
    ///
    /// `cookie` must be the address of a tuple of an entry which is in a flowtable, and which is
    /// not freed during `'a`.
    pub(super) unsafe fn from_cookie<'a>(cookie: usize) -> (&'a Self, Direction) {
        let tuple = cookie as *mut bindings::flow_offload_tuple;
        // SAFETY: The address of a tuple, by the function's requirements.
        let (dir, index) = match unsafe { (*tuple).dir() } {
            0 => (Direction::Original, 0),
            _ => (Direction::Reply, 1),
        };
        let offset = offset_of!(bindings::flow_offload, tuplehash)
            + index * size_of::<bindings::flow_offload_tuple_rhash>()
            + offset_of!(bindings::flow_offload_tuple_rhash, tuple);
        // SAFETY: The tuple is that member of an entry, by the function's requirements.
        let flow = unsafe { tuple.byte_sub(offset).cast::<Self>() };

        // SAFETY: By the function's requirements.
        (unsafe { &*flow }, dir)
    }

    /// # Safety
    ///
    /// `flow` must point to an entry of a flowtable that is not freed during `'a`.
    pub(super) unsafe fn from_raw<'a>(flow: *const bindings::flow_offload) -> &'a Self {
        // SAFETY: By the function's requirements; the type is transparent.
        unsafe { &*flow.cast() }
    }

    fn raw_tuple(&self, dir: Direction) -> &bindings::flow_offload_tuple {
        // SAFETY: By the type invariants the tuples are there and do not change.
        unsafe { &(*self.0.get()).tuplehash[dir as usize].tuple }
    }

    fn flag(&self, bit: bindings::nf_flow_flags) -> bool {
        // SAFETY: The entry is valid; C changes the flags atomically.
        let flags = unsafe { addr_of!((*self.0.get()).flags).read_volatile() };
        flags & (1 << bit) != 0
    }

    /// Returns a number that all tuples of the same packets have, of either direction, and hardly any
    /// other one.
    pub(crate) fn tuple_hash(&self, dir: Direction) -> u64 {
        // SAFETY: The entry is valid.
        unsafe { bindings::shim_flow_hash(self.0.get(), dir.as_raw()) }
    }

    /// Returns the namespace of the entry's table.
    pub(crate) fn net(&self) -> &Net {
        // SAFETY: The entry holds a reference to its connection, is freed before its table, and
        // tables are freed before their namespace.
        unsafe { Net::from_raw(bindings::shim_ct_net((*self.0.get()).ct)) }
    }

    /// A number that no other entry has at the time, to compare it.
    pub(crate) fn address(&self) -> usize {
        self.0.get() as usize
    }

    /// Returns a reference to the connection of an entry that only RCU keeps, unless the entry is about to be
    /// freed. Without it, nothing of the connection may be asked for, [`Self::tuple_hash`] and [`Self::net`]
    /// included. Called under `rcu_read_lock()`.
    pub(crate) fn get_conntrack(&self) -> Option<ARef<Conntrack>> {
        // SAFETY: The entry is valid, and conntrack entries are reused for their like only under RCU.
        let raw = NonNull::new(unsafe { bindings::shim_flow_get_ct(self.0.get()) })?;
        // SAFETY: The reference is the `ARef`'s.
        Some(unsafe { ARef::from_raw(raw.cast()) })
    }

    /// Since when the reply direction of an entry that has been offered has been what it is, in the lower 32
    /// bits of jiffies; 0 if that is not known.
    pub(crate) fn reply_since(&self) -> u32 {
        // SAFETY: The entry is valid; the place is read atomically.
        unsafe { bindings::shim_flow_since(self.0.get()) }
    }

    /// Sets [`Self::reply_since`].
    pub(crate) fn set_reply_since(&self, when: u32) {
        // SAFETY: The entry is valid; the place is written atomically.
        unsafe { bindings::shim_flow_set_since(self.0.get(), when) }
    }

    /// How often an entry that has been offered was offered, up to 32767.
    pub(crate) fn offers(&self) -> u32 {
        // SAFETY: The entry is valid; the place is read atomically.
        unsafe { bindings::shim_flow_offers(self.0.get()) }
    }

    /// Whether the entry has come to the hardware side.
    pub(crate) fn is_offered(&self) -> bool {
        self.flag(bindings::SHIM_FLOW_OFFERED)
    }

    /// The address of the entry, to compare it.
    pub(super) fn as_raw(&self) -> *mut bindings::flow_offload {
        self.0.get()
    }

    /// By what the entry is found in its table.
    pub(crate) fn key(&self) -> EntryKey {
        EntryKey(*self.raw_tuple(Direction::Original))
    }

    /// Returns the index of the device by which packets of a direction come in.
    pub(crate) fn iifidx(&self, dir: Direction) -> u32 {
        self.raw_tuple(dir).iifidx as u32
    }

    /// Whether hardware may have rules for it, or may get some.
    pub(crate) fn is_for_hardware(&self) -> bool {
        self.flag(bindings::nf_flow_flags_NF_FLOW_HW)
    }

    /// Returns whether it has been torn down.
    pub(super) fn is_torn_down(&self) -> bool {
        self.flag(bindings::nf_flow_flags_NF_FLOW_TEARDOWN)
    }

    /// Has the connection known as one with an entry (`IPS_OFFLOAD`), which the end of an older entry of it may
    /// have taken away. Called again and again as long as the entry is there; does not sleep.
    pub(super) fn mark(&self) {
        // SAFETY: The entry is valid, and holds a reference to its connection; bits are changed atomically.
        unsafe { bindings::shim_flow_mark(self.0.get()) }
    }

    /// Takes back what [`Self::mark`] may have done while the entry was being torn down, and returns whether it
    /// may have: then the core may have given the connection a day since. Called again and again; does not sleep.
    pub(super) fn unmark(&self) -> bool {
        let is_marked = self.flag(bindings::SHIM_FLOW_MARKED);
        if is_marked {
            // SAFETY: As for `mark`.
            unsafe { bindings::shim_flow_unmark(self.0.get()) }
        }
        is_marked
    }

    /// A number that few others have.
    pub(crate) fn number(&self) -> u32 {
        // Entries are 256 bytes long, or a little less.
        (core::ptr::from_ref(self) as usize >> 8) as u32
    }

    /// Notes that the entry is one of a table without `flags offload`, so that nothing is ever attached to it. Called
    /// by garbage collection.
    pub(super) fn set_plain(&self) {
        // SAFETY: The entry is valid, and is not freed before garbage collection is over, which calls.
        unsafe { bindings::shim_flow_set_plain(self.0.get()) }
    }

    /// Returns whether the entry is known to be one of a table without `flags offload`.
    pub(crate) fn is_plain(&self) -> bool {
        self.flag(bindings::SHIM_FLOW_PLAIN)
    }

    /// What [`Self::set_stamp`] has put there, or `usize::MAX`. `None` if the entry is not known to be plain, or is being
    /// freed.
    pub(crate) fn stamp(&self) -> Option<usize> {
        if !self.is_plain() {
            return None;
        }
        // SAFETY: The entry is valid, and nothing is attached to it.
        let stamp = unsafe { bindings::shim_flow_data(self.0.get()) } as usize;
        (stamp & 1 != 0).then_some(stamp)
    }

    /// Keeps an odd number with the entry instead of `last`, which [`Self::stamp`] has returned, unless the entry
    /// is being freed.
    pub(crate) fn set_stamp(&self, last: usize, stamp: usize) {
        debug_assert!(last & stamp & 1 != 0);
        // SAFETY: The entry is valid under RCU. If it is being freed, RCU uses the place, but not for an odd number.
        unsafe { bindings::shim_flow_change_data(self.0.get(), last, stamp) }
    }

    /// Notes that the entry has come to the hardware side. Called by one task at a time.
    pub(super) fn set_offered(&self) {
        let ruleset = self.net().ruleset() as u16;
        // SAFETY: The entry is valid; the flag is changed atomically.
        unsafe {
            bindings::shim_flow_set_offered(self.0.get(), ruleset);
            bindings::shim_flow_count_offer(self.0.get());
        }
    }

    /// Whether C had no memory to offer the entry to the hardware side, which therefore does not
    /// keep an eye on it. (One that is just being added may look like that too.)
    pub(crate) fn is_overlooked(&self) -> bool {
        self.is_for_hardware()
            && !self.flag(bindings::nf_flow_flags_NF_FLOW_PENDING)
            && !self.flag(bindings::SHIM_FLOW_OFFERED)
            && !self.is_leaving()
    }

    /// Whether the connection has begun to end: a FIN or a RST was seen.
    pub(crate) fn is_closing(&self) -> bool {
        self.flag(bindings::nf_flow_flags_NF_FLOW_CLOSING)
    }

    /// Has the garbage collector take the rules of an ending connection out of hardware.
    pub(crate) fn set_closing(&self) {
        // SAFETY: The entry is valid; the flag is changed atomically.
        unsafe { bindings::shim_flow_set_closing(self.0.get(), true) }
    }

    /// A RST with this number comes in, which neither the fast path nor conntrack can judge, as it has not
    /// seen the packets before: conntrack goes on with the connection as with one whose RST it doubts. If
    /// the flow `leaves` the table, it is torn down, and what follows is conntrack's. Does not sleep.
    pub(crate) fn reset(&self, dir: Direction, seq: u32, leaves: bool) {
        if leaves {
            // SAFETY: The entry is valid; the flag is changed atomically.
            unsafe { bindings::shim_flow_set_closing(self.0.get(), false) };
        }
        // SAFETY: The entry is valid; C changes it from any thread. It is one of TCP.
        unsafe { bindings::shim_flow_reset(self.0.get(), dir.as_raw(), seq, leaves) }
    }

    /// Has conntrack believe no RST that the entry is not found for (as [`Self::reset`] does for others). Called
    /// again and again; does not sleep.
    pub(super) fn await_reset(&self) {
        // SAFETY: The entry is valid, and holds a reference to its connection, whose lock is taken.
        unsafe { bindings::shim_flow_await_reset(self.0.get()) }
    }

    /// The entry has left its table. If for a RST, conntrack, which has seen that by now, goes on as if it
    /// knew nothing of windows. Called again and again; does not sleep.
    pub(super) fn after_reset(&self) {
        if self.flag(bindings::SHIM_FLOW_RESET) {
            // SAFETY: The entry is valid, and one of TCP; the flag is changed atomically.
            unsafe { bindings::shim_flow_after_reset(self.0.get()) }
        }
    }

    /// Returns whether a frame of this direction to `dest` is one to the host, at the device that has its IP
    /// addresses, which is perhaps a bridge or a VLAN device. Called under `rcu_read_lock()`.
    pub(super) fn is_to_router(&self, dir: Direction, dest: &MacAddress) -> bool {
        // SAFETY: The entry is valid, and RCU protects the device of its route.
        unsafe { bindings::shim_flow_is_to_router(self.0.get(), dir.as_raw(), dest.as_ptr()) }
    }

    /// Returns whether the neighbours are known to which the fast path sends the packets, where it asks for
    /// them; if packets come, has the host keep an eye on these neighbours. Does not sleep.
    pub(super) fn can_send(&self) -> bool {
        Direction::BOTH.iter().all(|dir| {
            // SAFETY: The entry is valid, and holds a reference to its route.
            unsafe { bindings::shim_flow_can_send(self.0.get(), dir.as_raw()) }
        })
    }

    /// Returns whether the packets of the connection may have several receivers, of which an entry knows
    /// one.
    pub(super) fn is_multicast(&self) -> bool {
        // SAFETY: The entry is valid.
        unsafe { bindings::shim_flow_is_multicast(self.0.get()) }
    }

    /// Returns whether the fast path would send packets of a direction past an IP tunnel that they are routed
    /// to, or into one of another kind.
    pub(super) fn mistakes_tunnel(&self, dir: Direction) -> bool {
        // SAFETY: The entry is valid.
        unsafe { bindings::shim_flow_mistakes_tunnel(self.0.get(), dir.as_raw()) }
    }

    /// As [`Self::teardown`], and the connection gets no other entry. Does not sleep.
    pub(super) fn keep_out(&self) {
        self.conntrack().set_no_entry(true);
        self.teardown();
    }

    /// Returns whether the fast path would transmit packets of this direction to the zero MAC address:
    /// those that go into an IP tunnel, in tables with `flags offload` (`nft_dev_fill_forward_path()`
    /// has no address, `nft_dev_path_info()` has it used all the same).
    pub(crate) fn has_zero_dmac(&self, dir: Direction) -> bool {
        self.direct_dest(dir) == Some([0; ETH_ALEN])
    }

    /// Returns the MAC address to which the fast path transmits packets of this direction, where that was fixed
    /// when the entry was made ([`Self::is_xmit_direct`]).
    pub(crate) fn direct_dest(&self, dir: Direction) -> Option<MacAddress> {
        self.is_xmit_direct(dir)
            // SAFETY: The member that is in use with this type of transmission.
            .then(|| unsafe { self.raw_tuple(dir).__bindgen_anon_4.out.h_dest })
    }

    /// Returns whether the fast path transmits packets of this direction between the addresses that
    /// the entry was made with (`FLOW_OFFLOAD_XMIT_DIRECT`), and does not ask for those of the moment.
    pub(crate) fn is_xmit_direct(&self, dir: Direction) -> bool {
        u32::from(self.raw_tuple(dir).xmit_type())
            == bindings::flow_offload_xmit_type_FLOW_OFFLOAD_XMIT_DIRECT
    }

    /// Whether the flow is about to leave hardware: nothing may be installed for it any more.
    ///
    /// A packet that was looked up before the teardown may ask for a refresh after the last
    /// `FLOW_CLS_DESTROY`, and C would carry it out.
    pub(crate) fn is_leaving(&self) -> bool {
        self.flag(bindings::nf_flow_flags_NF_FLOW_TEARDOWN)
            || self.flag(bindings::nf_flow_flags_NF_FLOW_CLOSING)
            || self.flag(bindings::nf_flow_flags_NF_FLOW_HW_DYING)
    }

    /// When the entry expires, in the lower 32 bits of jiffies.
    pub(crate) fn expires(&self) -> u32 {
        // SAFETY: The entry is valid; C reads and writes the member without locks.
        unsafe { addr_of!((*self.0.get()).timeout).read_volatile() }
    }

    /// For how long the entry lives after a packet, in jiffies (`flow_offload_get_timeout()`).
    pub(crate) fn lifetime(&self) -> u64 {
        // SAFETY: The entry is valid.
        unsafe { bindings::shim_flow_timeout(self.0.get()) as u64 }
    }

    /// Has the flow leave the table: its next packets take the slow path, which may make a new
    /// entry for them. The garbage collector withdraws it from hardware and frees it. Conntrack
    /// goes on with the state that it is in, and closes nothing. Does not sleep. C:
    /// `flow_offload_teardown()`.
    pub(crate) fn teardown(&self) {
        // By now the connection may have another entry, which is not to be taken for gone.
        if self.flag(bindings::nf_flow_flags_NF_FLOW_TEARDOWN) {
            return;
        }
        // SAFETY: The entry is valid; C changes it from any thread.
        unsafe {
            bindings::shim_flow_set_closing(self.0.get(), false);
            bindings::flow_offload_teardown(self.0.get());
        }
    }

    /// Has the entry expire at `expires`, in the lower 32 bits of jiffies, unless a packet comes
    /// through software.
    pub(crate) fn set_expires(&self, expires: u32) {
        // SAFETY: The entry is valid; C reads and writes the member without locks.
        unsafe { addr_of_mut!((*self.0.get()).timeout).write_volatile(expires) }
    }

    /// Returns the protocol above IP.
    pub(crate) fn l4proto(&self) -> u8 {
        self.raw_tuple(Direction::Original).l4proto
    }

    fn mtu(&self, dir: Direction) -> *mut u16 {
        // SAFETY: The entry is valid.
        unsafe { addr_of_mut!((*self.0.get()).tuplehash[dir as usize].tuple.mtu) }
    }

    /// Has the fast path leave all packets of a direction to the host, as too long ones: that costs it
    /// nothing. Packets that it is to send into a tunnel cannot be left
    /// (`nf_flow_offload_forward()` subtracts the tunnel's header from the MTU).
    pub(crate) fn leave_to_host(&self, dir: Direction) {
        if self.raw_tuple(dir.reverse()).tun_num() == 0 {
            // SAFETY: The member is valid; C reads it without locks.
            unsafe { self.mtu(dir).write_volatile(0) }
        }
    }

    /// Has the fast path leave packets to the host that are longer than `mtu`, as IPv6 routes may ask for.
    pub(crate) fn limit_mtu(&self, dir: Direction, mtu: u32) {
        let ptr = self.mtu(dir);

        // SAFETY: The member is valid; C reads it without locks.
        unsafe {
            if mtu < u32::from(ptr.read_volatile()) {
                ptr.write_volatile(mtu as u16);
            }
        }
    }

    /// As [`Self::limit_mtu`] with the MTUs of the routes that the entry holds.
    pub(crate) fn limit_mtu_by_route(&self) {
        // SAFETY: The entry is valid, and holds references to its routes.
        unsafe { bindings::shim_flow_limit_mtu(self.0.get()) }
    }

    /// Returns whether the fast path leaves all packets of a direction to the host.
    pub(crate) fn is_left_to_host(&self, dir: Direction) -> bool {
        // SAFETY: The member is valid.
        unsafe { self.mtu(dir).read_volatile() == 0 }
    }

    /// Notes that garbage collection looks at an entry that is not for hardware, with which the connection's
    /// mark is compared. At the first visit, the core may be about to make it one for hardware
    /// (`nf_flow_offload_add()`): then it must not go.
    pub(super) fn visit(&self) -> Visit {
        let (mark, ruleset) = (self.conntrack().mark(), self.net().ruleset() as u16);
        // SAFETY: The entry is valid, and is not freed before garbage collection is over, which calls.
        match unsafe { bindings::shim_flow_visit(self.0.get(), mark, ruleset) } {
            bindings::shim_visit_SHIM_VISIT_FIRST => Visit::First,
            bindings::shim_visit_SHIM_VISIT_SAME => Visit::Same,
            _ => Visit::OtherMark,
        }
    }

    /// Notes that the entry is of a table that `ruleset` has brought. Called as [`Self::set_offered`] or
    /// [`Self::visit`], and after it.
    pub(super) fn raise_ruleset(&self, ruleset: u32) {
        // Of one that has been there for long, nothing of that can be said after the numbers have begun anew.
        let ahead = ruleset.wrapping_sub(self.net().ruleset());
        if (1..0x1000).contains(&ahead) {
            // SAFETY: The entry is valid.
            unsafe { bindings::shim_flow_set_ruleset(self.0.get(), ruleset as u16) }
        }
    }

    /// Returns whether the entry is to be made anew, since the ruleset has changed; to be asked each second for
    /// an entry that has been offered or visited. Does not sleep.
    pub(crate) fn is_of_old_ruleset(&self) -> bool {
        // SAFETY: The entry is valid.
        let ruleset = unsafe { bindings::shim_flow_ruleset(self.0.get()) };

        self.net().outdates(ruleset)
    }

    /// Returns whether packets of a direction leave through IPsec, as the core knows.
    pub(crate) fn is_ipsec(&self, dir: Direction) -> bool {
        u32::from(self.raw_tuple(dir).xmit_type())
            == bindings::flow_offload_xmit_type_FLOW_OFFLOAD_XMIT_XFRM
    }

    /// The connection that the flow belongs to.
    pub(crate) fn conntrack(&self) -> &Conntrack {
        // SAFETY: By the type invariants the entry holds a reference.
        unsafe { Conntrack::from_raw((*self.0.get()).ct) }
    }

    /// Reads the entry into `flow`. Looks up the neighbour where the entry has none. Does not sleep.
    ///
    /// `None` if it is not IP: then not all is read.
    pub(crate) fn describe(&self, net: &Net, flow: &mut Flow) -> Option<()> {
        for (dir, tuple) in Direction::BOTH.into_iter().zip(&mut flow.tuples) {
            self.read_packets(dir, tuple)?;
            tuple.xmit = self.xmit(dir, net);
            tuple.lwtunnel = self.lwtunnel(dir);
        }
        flow.snat = self.flag(bindings::nf_flow_flags_NF_FLOW_SNAT);
        flow.dnat = self.flag(bindings::nf_flow_flags_NF_FLOW_DNAT);
        Some(())
    }

    /// As [`Self::describe`], but for where the packets go, and for their translation.
    pub(crate) fn describe_packets_of_both(&self, flow: &mut Flow) -> Option<()> {
        let [original, reply] = &mut flow.tuples;

        self.read_packets(Direction::Original, original)?;
        self.read_packets(Direction::Reply, reply)
    }

    /// The packets of a direction as they come in; not where they go. Does not sleep.
    pub(crate) fn describe_packets(&self, dir: Direction) -> Option<Tuple> {
        let mut tuple = Tuple::new();
        self.read_packets(dir, &mut tuple).map(|()| tuple)
    }

    fn read_packets(&self, dir: Direction, to: &mut Tuple) -> Option<()> {
        let tuple = self.raw_tuple(dir);

        (to.addresses, to.ports) = addresses_and_ports(tuple)?;
        to.l4proto = tuple.l4proto;
        to.ingress = tuple.iifidx as u32;
        to.tunnel = tuple.tun_num() != 0;
        let count = tuple.encap_num() as usize;
        for (i, (to, from)) in to.encaps.iter_mut().zip(&tuple.encap).enumerate() {
            *to = (i < count).then(|| Encap {
                proto: u16::from_be(from.proto),
                id: from.id,
                ingress_vlan: tuple.in_vlan_ingress() & (1 << i) != 0,
            });
        }
        Some(())
    }

    fn lwtunnel(&self, dir: Direction) -> Option<LwTunnel> {
        let mut raw = MaybeUninit::<bindings::shim_lwtunnel>::uninit();
        // SAFETY: The entry is valid, and holds a reference to its route, which to its tunnel.
        let found =
            unsafe { bindings::shim_flow_lwtunnel(self.0.get(), dir.as_raw(), raw.as_mut_ptr()) };

        if !found {
            return None;
        }
        // SAFETY: What is found is written, all of it.
        let raw = unsafe { raw.assume_init() };
        if !raw.transmits {
            return Some(LwTunnel::Other(raw.type_));
        }
        if raw.options_len > 0 {
            return Some(LwTunnel::Options);
        }
        // SAFETY: All variants of the union are valid for all bit patterns.
        let addresses = unsafe {
            if raw.is_ipv6 {
                Addresses::V6 {
                    src: raw.src.in6_u.u6_addr8,
                    dst: raw.dst.in6_u.u6_addr8,
                }
            } else {
                Addresses::V4 {
                    src: raw.src.in6_u.u6_addr32[0].to_ne_bytes(),
                    dst: raw.dst.in6_u.u6_addr32[0].to_ne_bytes(),
                }
            }
        };
        Some(LwTunnel::Ip(Tunnel {
            id: raw.id,
            addresses,
            tos: raw.tos,
            ttl: raw.ttl,
            flags: raw.flags,
        }))
    }

    fn xmit(&self, dir: Direction, net: &Net) -> Xmit {
        let tuple = self.raw_tuple(dir);

        match u32::from(tuple.xmit_type()) {
            bindings::flow_offload_xmit_type_FLOW_OFFLOAD_XMIT_DIRECT => {
                // SAFETY: The member that is in use with this type of transmission.
                let out = unsafe { &tuple.__bindgen_anon_4.out };
                Xmit::Ethernet {
                    ifindex: out.ifidx,
                    source: out.h_source,
                    dest: out.h_dest,
                }
            }
            // The packets leave by the device at which the other direction's come in.
            bindings::flow_offload_xmit_type_FLOW_OFFLOAD_XMIT_NEIGH => {
                let ifindex = self.raw_tuple(dir.reverse()).iifidx as u32;
                let mut dest = [0; ETH_ALEN];

                // SAFETY: The entry is valid, and `dest` has room for an address.
                let resolved = unsafe {
                    bindings::shim_flow_neighbour(self.0.get(), dir.as_raw(), dest.as_mut_ptr())
                };
                match (resolved, net.device(ifindex)) {
                    (true, Some(dev)) => Xmit::Ethernet {
                        ifindex,
                        source: dev.address(),
                        dest,
                    },
                    _ => Xmit::Unresolved,
                }
            }
            bindings::flow_offload_xmit_type_FLOW_OFFLOAD_XMIT_XFRM => Xmit::Ipsec,
            _ => Xmit::Other,
        }
    }
}

/// `None` if it is not IP.
fn addresses_and_ports(tuple: &bindings::flow_offload_tuple) -> Option<(Addresses, Ports)> {
    // SAFETY: Which member of the unions is in use is said by `l3proto`; ports are always set.
    unsafe {
        let addresses = match u32::from(tuple.l3proto) {
            bindings::AF_INET => Addresses::V4 {
                src: tuple.__bindgen_anon_1.src_v4.s_addr.to_ne_bytes(),
                dst: tuple.__bindgen_anon_2.dst_v4.s_addr.to_ne_bytes(),
            },
            bindings::AF_INET6 => Addresses::V6 {
                src: tuple.__bindgen_anon_1.src_v6.in6_u.u6_addr8,
                dst: tuple.__bindgen_anon_2.dst_v6.in6_u.u6_addr8,
            },
            _ => return None,
        };
        let ports = Ports {
            src: u16::from_be(tuple.__bindgen_anon_3.src_port),
            dst: u16::from_be(tuple.__bindgen_anon_3.dst_port),
        };
        Some((addresses, ports))
    }
}

// SAFETY: C works with an entry from any thread, and so do the methods above.
unsafe impl Sync for FlowOffload {}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use core::net::{Ipv4Addr, Ipv6Addr};

        let Ports {
            src: sport,
            dst: dport,
        } = self.ports;
        match self.l4proto {
            IPPROTO_TCP => f.write_str("tcp ")?,
            IPPROTO_UDP => f.write_str("udp ")?,
            proto => write!(f, "protocol {proto} ")?,
        }
        match self.addresses {
            Addresses::V4 { src, dst } => {
                let (src, dst) = (Ipv4Addr::from(src), Ipv4Addr::from(dst));
                write!(f, "{src}:{sport} -> {dst}:{dport}")
            }
            Addresses::V6 { src, dst } => {
                let (src, dst) = (Ipv6Addr::from(src), Ipv6Addr::from(dst));
                write!(f, "[{src}]:{sport} -> [{dst}]:{dport}")
            }
        }
    }
}

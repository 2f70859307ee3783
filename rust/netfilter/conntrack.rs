// SPDX-License-Identifier: GPL-2.0

//! Conntrack entries.
//!
//! C header: [`include/net/netfilter/nf_conntrack.h`](srctree/include/net/netfilter/nf_conntrack.h)

use crate::{
    bindings,
    net::{
        device::{MacAddress, ETH_ALEN},
        flow_rule::{Addresses, Ports},
        namespace::Net, //
    },
};
use core::{mem::MaybeUninit, ptr::NonNull};
use kernel::{
    fmt,
    sync::aref::{ARef, AlwaysRefCounted},
    types::Opaque, //
};

/// One of the two directions of a flow, `enum flow_offload_tuple_dir`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Original = 0,
    Reply = 1,
}

impl Direction {
    /// Both directions, original first.
    pub(crate) const BOTH: [Self; 2] = [Self::Original, Self::Reply];

    pub(super) fn as_raw(self) -> bindings::flow_offload_tuple_dir {
        match self {
            Self::Original => bindings::flow_offload_tuple_dir_FLOW_OFFLOAD_DIR_ORIGINAL,
            Self::Reply => bindings::flow_offload_tuple_dir_FLOW_OFFLOAD_DIR_REPLY,
        }
    }

    /// The opposite direction.
    pub(crate) fn reverse(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Original => "original",
            Self::Reply => "reply",
        })
    }
}

/// A tracked connection, `struct nf_conn`.
///
/// # Invariants
///
/// Instances are always reference counted (`ct_general`).
#[repr(transparent)]
pub(crate) struct Conntrack(Opaque<bindings::nf_conn>);

impl Conntrack {
    /// # Safety
    ///
    /// `ptr` must point to an entry to which a reference is held during `'a`.
    pub(super) unsafe fn from_raw<'a>(ptr: *mut bindings::nf_conn) -> &'a Self {
        // SAFETY: By the function's requirements; the type is transparent.
        unsafe { &*ptr.cast() }
    }

    /// Sets or clears `[HW_OFFLOAD]`, `IPS_HW_OFFLOAD_BIT`.
    pub(crate) fn set_hw_offload(&self, is_set: bool) {
        // SAFETY: The type invariant keeps the entry alive; the bit is changed atomically.
        unsafe {
            if is_set {
                bindings::shim_ct_set_hw_offload(self.0.get())
            } else {
                bindings::shim_ct_clear_hw_offload(self.0.get())
            }
        }
    }

    /// Has the connection make no entry, or lets it make entries again (`IPS_NAT_CLASH`, which
    /// `nft_flow_offload_eval()` asks for). Conntrack itself does no more with it than not to assure
    /// connections of protocols without states, see [`Self::assure_left`].
    pub(crate) fn set_no_entry(&self, is_set: bool) {
        // SAFETY: The type invariant keeps the entry alive; the bit is changed atomically.
        unsafe { bindings::shim_ct_set_no_entry(self.0.get(), is_set) }
    }

    /// Returns whether [`Self::set_no_entry`] is set.
    pub(crate) fn makes_no_entry(&self) -> bool {
        self.status(bindings::ip_conntrack_status_IPS_NAT_CLASH_BIT)
    }

    /// Finds the connection of which a direction has these packets. C: `nf_conntrack_find_get()`.
    pub(crate) fn find(
        net: &Net,
        zone: u16,
        (addresses, ports, l4proto): &(Addresses, Ports, u8),
    ) -> Option<ARef<Self>> {
        let long = |addr: &[u8; 4]| {
            let mut long = [0; 16];
            long[..4].copy_from_slice(addr);
            long
        };
        let (family, src, dst) = match addresses {
            Addresses::V4 { src, dst } => (bindings::AF_INET, long(src), long(dst)),
            Addresses::V6 { src, dst } => (bindings::AF_INET6, *src, *dst),
        };
        let tuple = bindings::shim_ct_tuple {
            family: family as u8,
            l4proto: *l4proto,
            sport: ports.src,
            dport: ports.dst,
            src,
            dst,
        };
        // SAFETY: The namespace is there, and the tuple is only read.
        let raw = unsafe { bindings::shim_ct_find(net.as_raw(), zone, &tuple) };
        // SAFETY: The reference is the `ARef`'s.
        Some(unsafe { ARef::from_raw(NonNull::new(raw)?.cast()) })
    }

    /// Has a connection with [`Self::set_no_entry`] assured (`IPS_ASSURED`) if its packets would have
    /// done that.
    ///
    /// C: `nf_conntrack_udp_packet()`, `nf_conntrack_gre_packet()`.
    pub(crate) fn assure_left(&self) {
        // SAFETY: The type invariant keeps the entry alive; the bit is changed atomically.
        unsafe { bindings::shim_ct_assure_left(self.0.get()) }
    }

    /// Has conntrack be as strict about TCP windows as before the connection had an entry. C has made it
    /// liberal, `flow_offload_ct_tcp()`; where the ends do not scale windows, a connection that conntrack
    /// has picked up looks the same, and stays so.
    pub(crate) fn end_liberal(&self) {
        // SAFETY: The type invariant keeps the entry alive; its lock is taken.
        unsafe { bindings::shim_ct_end_liberal(self.0.get()) }
    }

    /// Returns the connection's namespace, which waits for its connections when it ends.
    pub(crate) fn net(&self) -> &Net {
        // SAFETY: The type invariant keeps the entry, and that the namespace, alive.
        unsafe { Net::from_raw(bindings::shim_ct_net(self.0.get())) }
    }

    /// Returns whether the connection has been killed.
    ///
    /// C: `nf_ct_is_dying()`.
    pub(crate) fn is_dying(&self) -> bool {
        // SAFETY: The type invariant keeps the entry alive.
        unsafe { bindings::shim_ct_is_dying(self.0.get()) }
    }

    /// Resets TCP window tracking, as packets of the connection have passed conntrack by: else it may
    /// take a RST for an invalid one.
    ///
    /// C: `flow_offload_fixup_tcp()`.
    pub(crate) fn reset_tcp_windows(&self) {
        // SAFETY: The type invariant keeps the entry alive; its lock is taken.
        unsafe { bindings::shim_ct_forget_windows(self.0.get()) }
    }

    /// Returns what the last packet of a direction was routed by that the host has forwarded, if that was
    /// a short time ago and is known: its mark, its DSCP, and whether it had a hash. Does not sleep.
    pub(crate) fn last_packet(&self, dir: Direction) -> Option<(u32, u8, bool)> {
        let mut marks: bindings::shim_marks = pin_init::zeroed();

        // SAFETY: The type invariant keeps the entry alive.
        let is_known =
            unsafe { bindings::shim_net_seen_packet(self.0.get(), dir as u32, &mut marks) };
        is_known.then_some((marks.mark, marks.dscp, marks.hashed))
    }

    /// Has [`Self::has_passed`] speak of packets that come from now on. Does not sleep.
    pub(crate) fn watch_passing(&self) {
        // SAFETY: The type invariant keeps the entry alive.
        unsafe { bindings::shim_net_seen_begin(self.0.get()) }
    }

    /// Returns whether chains at forward and later have let packets of a direction pass since
    /// [`Self::watch_passing`]; `None` if there was none, or it is not known. Does not sleep.
    pub(crate) fn has_passed(&self, dir: Direction) -> Option<bool> {
        // SAFETY: The type invariant keeps the entry alive.
        let passed = unsafe { bindings::shim_net_seen_passed(self.0.get(), dir as u32) };
        (passed >= 0).then_some(passed != 0)
    }

    /// Has [`Self::last_packet`] know nothing: the connection has another mark by now. Does not sleep.
    pub(crate) fn forget_packets(&self) {
        // SAFETY: The type invariant keeps the entry alive.
        unsafe { bindings::shim_net_forget_packets(self.0.get()) }
    }

    /// Returns the MAC address to which the last frame of a direction was that the host has received, if
    /// that was a short time ago and is known. Does not sleep.
    pub(crate) fn last_frame(&self, dir: Direction) -> Option<MacAddress> {
        let mut dest = [0; ETH_ALEN];

        // SAFETY: The type invariant keeps the entry alive, and there is room for an address.
        unsafe { bindings::shim_net_seen_frame(self.0.get(), dir as u32, dest.as_mut_ptr()) }
            .then_some(dest)
    }

    /// Returns the packets of a direction as they come in: addresses, ports, and the protocol above IP.
    /// `None` if it is not IP.
    pub(crate) fn packets(&self, dir: Direction) -> Option<(Addresses, Ports, u8)> {
        let mut raw = MaybeUninit::<bindings::shim_ct_tuple>::uninit();
        // SAFETY: The type invariant keeps the entry alive; all of the tuple is written.
        let raw = unsafe {
            bindings::shim_ct_tuple(self.0.get(), dir as u32, raw.as_mut_ptr());
            raw.assume_init()
        };
        let v4 = |addr: [u8; 16]| [addr[0], addr[1], addr[2], addr[3]];
        let addresses = match raw.family.into() {
            bindings::AF_INET => Addresses::V4 {
                src: v4(raw.src),
                dst: v4(raw.dst),
            },
            bindings::AF_INET6 => Addresses::V6 {
                src: raw.src,
                dst: raw.dst,
            },
            _ => return None,
        };
        let ports = Ports {
            src: raw.sport,
            dst: raw.dport,
        };
        Some((addresses, ports, raw.l4proto))
    }

    /// Returns the packets and bytes that conntrack has counted of a direction, if it counts.
    pub(crate) fn counters(&self, dir: Direction) -> Option<(u64, u64)> {
        let (mut packets, mut bytes) = (0, 0);
        // SAFETY: The type invariant keeps the entry alive; the counters are read atomically.
        let counts = unsafe {
            bindings::shim_ct_counters(self.0.get(), dir as u32, &mut packets, &mut bytes)
        };
        counts.then_some((packets, bytes))
    }

    /// Returns whether an address of the source or of the destination is translated.
    pub(crate) fn has_nat(&self) -> [bool; 2] {
        [
            self.status(bindings::ip_conntrack_status_IPS_SRC_NAT_BIT),
            self.status(bindings::ip_conntrack_status_IPS_DST_NAT_BIT),
        ]
    }

    /// Returns the connection's zone.
    pub(crate) fn zone(&self) -> u16 {
        // SAFETY: The type invariant keeps the entry alive.
        unsafe { bindings::shim_ct_zone(self.0.get()) }
    }

    /// The connection's mark, 0 if this kernel has none.
    pub(crate) fn mark(&self) -> u32 {
        // SAFETY: The type invariant keeps the entry alive.
        unsafe { bindings::shim_ct_mark(self.0.get()) }
    }

    fn status(&self, bit: bindings::ip_conntrack_status) -> bool {
        // SAFETY: The type invariant keeps the entry alive.
        unsafe { bindings::shim_ct_status(self.0.get(), bit) }
    }

    /// Returns whether conntrack itself has seen a packet of the reply direction.
    pub(crate) fn has_seen_reply(&self) -> bool {
        self.status(bindings::ip_conntrack_status_IPS_SEEN_REPLY_BIT)
    }

    /// Returns whether it has an entry of a flowtable, `IPS_OFFLOAD_BIT`.
    pub(crate) fn has_entry(&self) -> bool {
        self.status(bindings::ip_conntrack_status_IPS_OFFLOAD_BIT)
    }

    /// Returns whether it has `[HW_OFFLOAD]`, `IPS_HW_OFFLOAD_BIT`.
    pub(crate) fn is_in_hardware(&self) -> bool {
        self.status(bindings::ip_conntrack_status_IPS_HW_OFFLOAD_BIT)
    }

    /// Returns whether the connection is spared when the table of connections is full.
    pub(crate) fn is_assured(&self) -> bool {
        self.status(bindings::ip_conntrack_status_IPS_ASSURED_BIT)
    }

    /// Returns for how long conntrack would keep the connection after a last packet at `last`, both in
    /// jiffies, if that is known.
    pub(crate) fn lifetime(&self, last: u32) -> Option<u32> {
        // SAFETY: The type invariant keeps the entry alive.
        let lifetime = unsafe { bindings::shim_ct_lifetime(self.0.get(), last) };

        (1..=i32::MAX as u32)
            .contains(&lifetime)
            .then_some(lifetime)
    }

    /// Returns when the connection ends without further packets, in the lower 32 bits of jiffies.
    pub(crate) fn end(&self) -> u32 {
        // SAFETY: The type invariant keeps the entry alive.
        unsafe { bindings::shim_ct_end(self.0.get()) }
    }

    /// Has the connection end at `to` if that was at `from` until now, in the lower 32 bits of jiffies.
    pub(crate) fn set_end(&self, from: u32, to: u32) {
        // SAFETY: The type invariant keeps the entry alive; the member is changed atomically.
        unsafe { bindings::shim_ct_set_end(self.0.get(), from, to) }
    }

    /// Marks the connection as assured if conntrack would do that on a packet at `last`, in jiffies.
    /// Does not sleep.
    pub(crate) fn assure(&self, last: u32) {
        // SAFETY: The type invariant keeps the entry alive; the bit is changed atomically.
        unsafe { bindings::shim_ct_assure(self.0.get(), last) }
    }

    /// Has packets that conntrack sees set a timeout of a day, or no longer, if it is GRE.
    pub(crate) fn hold_gre(&self, hold: bool) {
        // SAFETY: The type invariant keeps the entry alive.
        unsafe { bindings::shim_ct_hold_gre(self.0.get(), hold) }
    }

    /// Adds to the counters of one direction, if the entry has any (`nf_ct_acct_add`, whose bytes have
    /// 32 bits).
    pub(crate) fn account(&self, dir: Direction, packets: u64, bytes: u64) {
        // SAFETY: The type invariant keeps the entry alive; the counters are atomic.
        unsafe { bindings::shim_ct_account(self.0.get(), dir as u32, packets, bytes) }
    }
}

// SAFETY: `struct nf_conn` is reference counted and used from any thread.
unsafe impl Send for Conntrack {}

// SAFETY: The methods above are atomic.
unsafe impl Sync for Conntrack {}

// SAFETY: `nf_conntrack_get` and `nf_ct_put` count references to the entry.
unsafe impl AlwaysRefCounted for Conntrack {
    fn inc_ref(&self) {
        // SAFETY: The type invariant keeps the entry alive.
        unsafe { bindings::shim_ct_get(self.0.get()) }
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up a reference that it owns.
        unsafe { bindings::shim_ct_put(obj.as_ref().0.get()) }
    }
}

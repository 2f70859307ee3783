// SPDX-License-Identifier: GPL-2.0

//! Where the kernel would send packets: routes, neighbours, and the devices below a device.
//!
//! C headers: [`include/net/ip_fib.h`](srctree/include/net/ip_fib.h),
//! [`include/net/neighbour.h`](srctree/include/net/neighbour.h)

use crate::{
    bindings,
    net::{
        device::{MacAddress, ETH_ALEN},
        namespace::Net, //
    },
};
use core::{
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr}, //
};
use kernel::prelude::*;

/// What a packet is routed by, beside its addresses and ports.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) mark: u32,
    pub(crate) dscp: u8,
    /// Packets come, or may come, with a hash of their own (`skb->l4_hash`), which chooses among several
    /// next hops and is not known.
    pub(crate) is_hashed: bool,
}

impl Marks {
    /// Those of a packet of which nothing is known, but that it has this mark.
    pub(crate) const fn only(mark: u32) -> Self {
        Self {
            mark,
            dscp: 0,
            is_hashed: true,
        }
    }
}

/// A packet that is to be forwarded: what its route and the IPsec policies are looked up for.
#[derive(Clone, Copy)]
pub(crate) struct FlowKey {
    /// Index of the device by which the packet has come in, in the eyes of IP.
    pub(crate) iif: u32,
    pub(crate) marks: Marks,
    pub(crate) l4proto: u8,
    /// From whom and to whom it is forwarded: with its destination translated, and not its source.
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    /// The destination that it comes in with.
    pub(crate) in_dst: IpAddr,
    pub(crate) in_dport: u16,
    /// The source that it leaves with.
    pub(crate) out_src: IpAddr,
    pub(crate) out_sport: u16,
}

impl FlowKey {
    fn as_raw(&self) -> bindings::shim_route_query {
        let (family, src) = to_raw(self.src);
        let (_, dst) = to_raw(self.dst);
        let (_, in_dst) = to_raw(self.in_dst);
        let (_, out_src) = to_raw(self.out_src);

        bindings::shim_route_query {
            iif: self.iif,
            marks: bindings::shim_marks {
                mark: self.marks.mark,
                dscp: self.marks.dscp,
                hashed: self.marks.is_hashed,
            },
            family,
            l4proto: self.l4proto,
            sport: self.sport.to_be(),
            dport: self.dport.to_be(),
            in_dport: self.in_dport.to_be(),
            out_sport: self.out_sport.to_be(),
            src,
            dst,
            in_dst,
            out_src,
        }
    }

    /// A packet of no protocol, from nowhere to nowhere.
    pub(crate) const NONE: Self = {
        const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

        Self {
            iif: 0,
            marks: Marks::only(0),
            l4proto: 0,
            src: NOWHERE,
            dst: NOWHERE,
            sport: 0,
            dport: 0,
            in_dst: NOWHERE,
            in_dport: 0,
            out_src: NOWHERE,
            out_sport: 0,
        }
    };
}

/// A next hop of a route.
#[derive(Clone, Copy)]
pub(crate) struct NextHop {
    /// Index of the device that leads there.
    pub(crate) ifindex: u32,
    /// The neighbour that gets the packets, unless it is the receiver itself.
    pub(crate) gateway: Option<IpAddr>,
    /// How long packets may be.
    pub(crate) mtu: u32,
}

impl NextHop {
    fn from_raw(hop: &bindings::shim_hop) -> Self {
        Self {
            ifindex: hop.ifindex,
            gateway: from_raw(hop.family, &hop.gateway),
            mtu: hop.mtu,
        }
    }
}

/// The next hops among which the kernel chooses.
///
/// # Invariants
///
/// The first `len` are initialised.
pub(crate) struct NextHops {
    raw: [MaybeUninit<bindings::shim_hop>; Self::MAX],
    len: usize,
}

impl NextHops {
    /// Those of a route with more of them are not seen.
    const MAX: usize = 16;

    /// Room for next hops, without any.
    pub(crate) const fn new() -> Self {
        // INVARIANT: Nothing is said to be initialised.
        Self {
            raw: [MaybeUninit::uninit(); Self::MAX],
            len: 0,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = NextHop> + '_ {
        self.raw.iter().take(self.len).map(|hop| {
            // SAFETY: By the type invariant.
            NextHop::from_raw(unsafe { hop.assume_init_ref() })
        })
    }
}

/// A device that a frame passes on its way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DevPath {
    /// Index of the device.
    pub(crate) ifindex: u32,
    /// The device's own address.
    pub(crate) source: MacAddress,
    pub(crate) kind: DevPathType,
    /// How long packets may be that the device sends by itself.
    pub(crate) mtu: u32,
    /// That of the VLAN tag.
    pub(crate) pcp: Pcp,
}

/// The priority (PCP) that a VLAN device gives to the packets that it tags (`egress-qos-map`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pcp {
    /// This one to all.
    All(u8),
    /// Not the same to all.
    Varies,
}

/// What a device does to a frame, `enum net_device_path_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DevPathType {
    /// Sends it. To C a Wi-Fi device (`DEV_PATH_IEEE80211`) is no other than this.
    Ethernet,
    /// Hands it to a switch, by this conduit.
    Dsa,
    /// Puts a VLAN tag on it.
    Vlan { proto: u16, id: u16 },
    /// Puts it into a PPPoE session with a peer.
    Pppoe { session: u16, peer: MacAddress },
    /// Bridges it, and puts this tag on it.
    BridgeTag { proto: u16, id: u16 },
    /// Bridges it, and takes a tag off.
    BridgeUntag,
    /// Bridges it, and has the port take a tag off.
    BridgeUntagByPort,
    /// Bridges it as it is.
    Bridge,
    /// Anything else.
    Other,
}

/// The devices that a frame passes, from the top down.
///
/// # Invariants
///
/// The first `len` are initialised.
pub(crate) struct DevPathStack {
    /// The frame's destination; zero where the uppermost device is not Ethernet's.
    pub(crate) dest: MacAddress,
    raw: [MaybeUninit<bindings::shim_path_step>; Self::MAX],
    len: usize,
}

impl DevPathStack {
    /// `NET_DEVICE_PATH_STACK_MAX`
    const MAX: usize = 5;

    pub(crate) fn iter(&self) -> impl Iterator<Item = DevPath> + '_ {
        self.raw.iter().take(self.len).map(|step| {
            // SAFETY: By the type invariant.
            let step = unsafe { step.assume_init_ref() };
            DevPath {
                ifindex: step.ifindex,
                source: step.source,
                kind: Self::kind(step),
                mtu: step.mtu,
                pcp: if step.pcp_varies {
                    Pcp::Varies
                } else {
                    Pcp::All(step.pcp)
                },
            }
        })
    }

    fn kind(step: &bindings::shim_path_step) -> DevPathType {
        match step.type_ {
            bindings::net_device_path_type_DEV_PATH_ETHERNET => DevPathType::Ethernet,
            bindings::net_device_path_type_DEV_PATH_DSA => DevPathType::Dsa,
            bindings::net_device_path_type_DEV_PATH_VLAN => DevPathType::Vlan {
                proto: step.proto,
                id: step.id,
            },
            bindings::net_device_path_type_DEV_PATH_PPPOE => DevPathType::Pppoe {
                session: step.id,
                peer: step.dest,
            },
            bindings::net_device_path_type_DEV_PATH_BRIDGE => match step.bridge_tag {
                bindings::shim_bridge_tag_SHIM_BRIDGE_TAG => DevPathType::BridgeTag {
                    proto: step.proto,
                    id: step.id,
                },
                bindings::shim_bridge_tag_SHIM_BRIDGE_UNTAG => DevPathType::BridgeUntag,
                bindings::shim_bridge_tag_SHIM_BRIDGE_UNTAG_HW => DevPathType::BridgeUntagByPort,
                _ => DevPathType::Bridge,
            },
            _ => DevPathType::Other,
        }
    }
}

/// What a neighbour table has for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Neighbour {
    /// A MAC address.
    Valid,
    /// It did not answer, or has not yet.
    Invalid,
    /// Nothing.
    Unknown,
}

/// An address as C has it: family and bytes, IPv4 in the first four.
fn to_raw(addr: IpAddr) -> (u8, [u8; 16]) {
    match addr {
        IpAddr::V4(addr) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&addr.octets());
            (bindings::AF_INET as u8, bytes)
        }
        IpAddr::V6(addr) => (bindings::AF_INET6 as u8, addr.octets()),
    }
}

/// The inverse of [`to_raw`]; `None` if the family is neither.
pub(super) fn from_raw(family: u8, bytes: &[u8; 16]) -> Option<IpAddr> {
    match u32::from(family) {
        bindings::AF_INET => {
            let [a, b, c, d, ..] = *bytes;
            Some(IpAddr::from([a, b, c, d]))
        }
        bindings::AF_INET6 => Some(IpAddr::from(*bytes)),
        _ => None,
    }
}

impl Net {
    /// Puts the next hops among which the host chooses for a packet into `hops`. Fails with `EPERM` if an
    /// IPsec policy does not let it pass in the clear, and with another error if the host does not forward
    /// it, for what reason ever: routes, rules, `forwarding`, `rp_filter`. Does not sleep.
    ///
    /// C: `ip_route_input_noref()`, `ip6_route_input()`, `ip_forward()`, `ip6_forward()`.
    pub(crate) fn next_hops(&self, query: &FlowKey, hops: &mut NextHops) -> Result {
        let raw = query.as_raw();

        // INVARIANT: Nothing is said to be initialised.
        hops.len = 0;
        // SAFETY: The namespace is valid, and there is room for `NextHops::MAX`.
        let count = unsafe {
            bindings::shim_route_hops(
                self.as_raw(),
                &raw,
                hops.raw.as_mut_ptr().cast(),
                NextHops::MAX as u32,
            )
        };
        kernel::error::to_result(count.min(0))?;
        // INVARIANT: `shim_route_hops()` has written `count` hops; it was told how many there is room for.
        hops.len = (count as usize).min(NextHops::MAX);
        Ok(())
    }

    /// The next hop that the core will guess for these packets when it makes an entry for one of the other
    /// direction, which has come in by `oif`, the `key` having that one's marks. Does not sleep.
    ///
    /// C: `nft_flow_route()`.
    pub(crate) fn guessed_hop(&self, key: &FlowKey, oif: u32) -> Result<NextHop> {
        let raw = key.as_raw();
        let mut hop: bindings::shim_hop = pin_init::zeroed();

        // SAFETY: The namespace is valid.
        let result = unsafe { bindings::shim_route_guess(self.as_raw(), &raw, oif, &mut hop) };
        kernel::error::to_result(result)?;
        Ok(NextHop::from_raw(&hop))
    }

    /// Returns what the neighbour table has for an address. Does not sleep.
    ///
    /// C: `neigh_lookup()`.
    pub(crate) fn neighbour(&self, ifindex: u32, addr: IpAddr) -> Neighbour {
        let (family, addr) = to_raw(addr);

        // SAFETY: The namespace is valid.
        let found =
            unsafe { bindings::shim_neighbour(self.as_raw(), ifindex, family, addr.as_ptr()) };
        match found {
            bindings::shim_neighbour_state_SHIM_NEIGHBOUR_VALID => Neighbour::Valid,
            bindings::shim_neighbour_state_SHIM_NEIGHBOUR_INVALID => Neighbour::Invalid,
            _ => Neighbour::Unknown,
        }
    }

    /// Has the host ask for a neighbour that its table does not have. Returns `false` if it cannot. Does
    /// not sleep.
    ///
    /// C: `neigh_create()`, `neigh_event_send()`.
    pub(crate) fn resolve_neighbour(&self, ifindex: u32, addr: IpAddr) -> bool {
        let (family, addr) = to_raw(addr);

        // SAFETY: The namespace is valid.
        unsafe { bindings::shim_neighbour_resolve(self.as_raw(), ifindex, family, addr.as_ptr()) }
    }

    /// Does to the neighbour's entry what sending a packet does: one that has not been heard of for
    /// long is asked whether it is still there. Does not sleep. C: `neigh_event_send()`.
    pub(crate) fn confirm_neighbour(&self, ifindex: u32, addr: IpAddr) {
        let (family, addr) = to_raw(addr);

        // SAFETY: The namespace is valid.
        unsafe { bindings::shim_neighbour_use(self.as_raw(), ifindex, family, addr.as_ptr()) }
    }

    /// The device that gets what comes in by the device `ifindex` with a VLAN tag, if there is one: a
    /// VLAN device, or a bridge that knows the tag itself. Does not sleep. C: `__vlan_find_dev_deep_rcu()`.
    pub(crate) fn device_of_tag(&self, ifindex: u32, proto: u16, id: u16) -> Option<u32> {
        // SAFETY: The namespace is valid.
        let found = unsafe { bindings::shim_dev_of_tag(self.as_raw(), ifindex, proto, id) };
        (found != 0).then_some(found)
    }

    /// The device as whose packets those of the device `ifindex` reach IP: a bridge, if it is a port
    /// of one. Does not sleep. C: `netdev_master_upper_dev_get_rcu()`.
    pub(crate) fn device_of_ip(&self, ifindex: u32) -> Option<u32> {
        // SAFETY: The namespace is valid.
        let found = unsafe { bindings::shim_dev_of_ip(self.as_raw(), ifindex) };
        (found != 0).then_some(found)
    }

    /// Returns whether a macvlan device on top of the device `ifindex` gets its frames to `mac`: those with a
    /// tag of `vlan`, or with none. Does not sleep. C: `macvlan_handle_frame()`.
    pub(crate) fn has_macvlan(&self, ifindex: u32, vlan: Option<u16>, mac: MacAddress) -> bool {
        let vlan = vlan.unwrap_or(0);

        // SAFETY: The namespace is valid.
        unsafe { bindings::shim_dev_has_macvlan(self.as_raw(), ifindex, vlan, mac.as_ptr()) }
    }

    /// The devices that a frame to `neighbour` with a packet of `ether_type` passes from the device
    /// `ifindex` on. Fails if the neighbour has no address (`EHOSTUNREACH`), one of the devices is down
    /// (`ENETDOWN`), or it cannot be told. Does not sleep. C: `neigh_lookup()`,
    /// `dev_fill_forward_path()`.
    pub(crate) fn forward_path(
        &self,
        ifindex: u32,
        neighbour: IpAddr,
        ether_type: u16,
    ) -> Result<DevPathStack> {
        let (family, addr) = to_raw(neighbour);
        let mut steps = DevPathStack {
            dest: [0; ETH_ALEN],
            raw: [MaybeUninit::uninit(); DevPathStack::MAX],
            len: 0,
        };

        // SAFETY: The namespace is valid, and there is room for an address and `DevPathStack::MAX`.
        let count = unsafe {
            bindings::shim_forward_path(
                self.as_raw(),
                ifindex,
                family,
                addr.as_ptr(),
                ether_type,
                steps.dest.as_mut_ptr(),
                steps.raw.as_mut_ptr().cast(),
                DevPathStack::MAX as u32,
            )
        };
        // INVARIANT: So many were written.
        steps.len = kernel::error::to_result(count.min(0)).map(|()| count as usize)?;
        Ok(steps)
    }
}

impl Net {
    /// Returns a number that is another one after a change of routes or rules, as far as can be told:
    /// an IPv6 route that comes and goes again between two calls may be missed. Does not sleep.
    ///
    /// C: `rt_genid_ipv4()`, `fib6_sernum`.
    pub(crate) fn route_generation(&self) -> u64 {
        // SAFETY: The namespace is valid.
        unsafe { bindings::shim_net_route_generation(self.as_raw()) }
    }

    /// Returns whether it may depend on a packet's mark where the packet goes: by rules or IPsec policies.
    /// Does not sleep.
    pub(crate) fn has_policies(&self) -> bool {
        // SAFETY: The namespace is valid.
        unsafe { bindings::shim_net_has_policies(self.as_raw()) }
    }

    /// Returns whether the namespace has or had a resilient group of next hops, which is to know of packets.
    /// Does not sleep. C: `nh_res_bucket_set_busy()`.
    pub(crate) fn has_resilient_groups(&self) -> bool {
        // SAFETY: The namespace is valid.
        unsafe { bindings::shim_net_has_resilient(self.as_raw()) }
    }

    /// Returns whether any namespace has or had a device of an IP tunnel since the module was loaded.
    pub(crate) fn any_has_ip_tunnels() -> bool {
        // SAFETY: C writes the variable atomically.
        unsafe { (&raw const bindings::shim_ip_tunnels).read_volatile() }
    }

    /// Returns whether the namespace has or had a device of an IP tunnel since the module was loaded.
    /// Does not sleep.
    pub(crate) fn has_ip_tunnels(&self) -> bool {
        // SAFETY: The namespace is valid.
        unsafe { bindings::shim_net_has_ip_tunnels(self.as_raw()) }
    }
}

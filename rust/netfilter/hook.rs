// SPDX-License-Identifier: GPL-2.0

//! The ingress hooks: which packets the software fast path gets.
//!
//! The fast path itself stays in C. Packets with which a connection ends pass it by, so that conntrack sees
//! them; and so do frames that the host would not forward, for they are others', in tables with
//! `flags offload` packets that it would send nowhere, and those that it would put into the wrong tunnel.

use crate::{
    bindings,
    net::{
        flow_rule::{
            ETH_P_8021Q,
            ETH_P_IP,
            ETH_P_IPV6,
            ETH_P_PPP_SES,
            IPPROTO_GRE,
            IPPROTO_TCP,
            IPPROTO_UDP,
            PPP_IP,
            PPP_IPV6, //
        },
        namespace::Net,
        notifier,
        skbuff::SkBuff, //
    },
    netfilter::{
        flowtable::Flowtable,
        offload::{Offload, TcpPacket, Verdict}, //
    },
};
use kernel::prelude::*;

const VLAN_HLEN: usize = 4;
const VLAN_VID_MASK: u16 = bindings::VLAN_VID_MASK as u16;
const PPPOE_SES_HLEN: usize = 8;
const IPV4_HLEN: usize = 20;
const IPV6_HLEN: usize = 40;
/// As much of a TCP header as is before the flags.
const TCP_FLAGS: usize = 13;
const TCP_SEQ: usize = 4;
pub(crate) const TCP_FIN: u8 = 1 << 0;
pub(crate) const TCP_SYN: u8 = 1 << 1;
pub(crate) const TCP_RST: u8 = 1 << 2;

fn be16(bytes: &[u8], offset: usize) -> Option<u16> {
    let bytes = bytes.get(offset..offset + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

fn be32(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// A header around IP that is still in the packet.
struct Outer {
    id: u16,
    len: usize,
}

/// The protocol of the packet, behind one VLAN tag or PPPoE header. `None` if the packet is too
/// short to tell.
fn inner_protocol(skb: &mut SkBuff) -> Option<(u16, Option<Outer>)> {
    match skb.protocol() {
        ETH_P_8021Q => {
            let bytes = skb.network_bytes(VLAN_HLEN)?;
            let outer = Outer {
                id: be16(bytes, 0)? & VLAN_VID_MASK,
                len: VLAN_HLEN,
            };
            Some((be16(bytes, 2)?, Some(outer)))
        }
        ETH_P_PPP_SES => {
            let bytes = skb.network_bytes(PPPOE_SES_HLEN)?;
            let outer = Outer {
                id: be16(bytes, 2)?,
                len: PPPOE_SES_HLEN,
            };
            let proto = match be16(bytes, 6)? {
                PPP_IP => ETH_P_IP,
                PPP_IPV6 => ETH_P_IPV6,
                _ => 0,
            };
            Some((proto, Some(outer)))
        }
        proto => Some((proto, None)),
    }
}

/// What a flowtable knows a packet by, and what it says if it is TCP.
struct Packet {
    tuple: bindings::flow_offload_tuple,
    tcp: TcpPacket,
}

impl Packet {
    /// `None` for packets that the fast path leaves alone anyway, and for those in an IP tunnel
    /// that ends here. A packet with a priority in its tag is one of its VLAN, and without a VLAN one
    /// without a tag, though the fast path takes none of these. C: `nf_flow_tuple_ip()`,
    /// `nf_flow_tuple_ipv6()`.
    fn parse(skb: &mut SkBuff) -> Option<Self> {
        // SAFETY: All members are numbers, unions of them, or a pointer that may be NULL.
        let mut tuple: bindings::flow_offload_tuple = unsafe { core::mem::zeroed() };
        let mut encaps = tuple.encap.iter_mut();
        let mut encap = |id, proto: u16| {
            if id == 0 && proto != ETH_P_PPP_SES {
                return Some(());
            }
            let to = encaps.next()?;
            to.id = id;
            to.proto = proto.to_be();
            Some(())
        };

        if let Some((proto, tci)) = skb.vlan_tag() {
            encap(tci & VLAN_VID_MASK, proto)?;
        }
        let outer_proto = skb.protocol();
        let (proto, outer) = inner_protocol(skb)?;
        let mut offset = 0;
        if let Some(Outer { id, len }) = outer {
            encap(id, outer_proto)?;
            offset += len;
        }
        tuple.iifidx = skb.ifindex() as c_int;

        let ttl;
        match proto {
            ETH_P_IP => {
                let ip = skb.network_bytes(offset + IPV4_HLEN)?.get(offset..)?;
                let is_fragment = be16(ip, 6)? & 0x3fff != 0;
                if ip[0] != 0x45 || is_fragment {
                    return None;
                }
                let word = |at| Some(u32::from_ne_bytes(ip.get(at..at + 4)?.try_into().ok()?));
                tuple.__bindgen_anon_1.src_v4.s_addr = word(12)?;
                tuple.__bindgen_anon_2.dst_v4.s_addr = word(16)?;
                tuple.l3proto = bindings::AF_INET as u8;
                tuple.l4proto = ip[9];
                ttl = ip[8];
                offset += IPV4_HLEN;
            }
            ETH_P_IPV6 => {
                let ip = skb.network_bytes(offset + IPV6_HLEN)?.get(offset..)?;
                tuple.__bindgen_anon_1.src_v6.in6_u.u6_addr8 = ip.get(8..24)?.try_into().ok()?;
                tuple.__bindgen_anon_2.dst_v6.in6_u.u6_addr8 = ip.get(24..40)?.try_into().ok()?;
                tuple.l3proto = bindings::AF_INET6 as u8;
                tuple.l4proto = ip[6];
                ttl = ip[7];
                offset += IPV6_HLEN;
            }
            _ => return None,
        }

        let tcp = match tuple.l4proto {
            IPPROTO_TCP => {
                let tcp = skb.network_bytes(offset + TCP_FLAGS + 1)?.get(offset..)?;
                TcpPacket {
                    flags: tcp[TCP_FLAGS],
                    seq: be32(tcp, TCP_SEQ)?,
                    ttl,
                }
            }
            IPPROTO_UDP | IPPROTO_GRE => TcpPacket::default(),
            _ => return None,
        };
        if tuple.l4proto != IPPROTO_GRE {
            let ports = skb.network_bytes(offset + 4)?.get(offset..)?;
            tuple.__bindgen_anon_3.src_port = be16(ports, 0)?.to_be();
            tuple.__bindgen_anon_3.dst_port = be16(ports, 2)?.to_be();
        }

        Some(Self { tuple, tcp })
    }
}

/// Which fast path is a packet's.
#[derive(Clone, Copy)]
enum Version {
    V4,
    V6,
}

impl Version {
    fn fast_path(self) -> HookFn {
        match self {
            Self::V4 => bindings::nf_flow_offload_ip_hook,
            Self::V6 => bindings::nf_flow_offload_ipv6_hook,
        }
    }
}

/// Returns whether a packet, whose IP header begins at `offset`, may be one with which a TCP connection
/// begins or ends: most that are not are told from their first bytes.
#[inline(always)]
fn may_end(skb: &SkBuff, version: Version, offset: usize) -> bool {
    let (proto, flags) = match version {
        Version::V4 => (offset + 9, offset + IPV4_HLEN + TCP_FLAGS),
        Version::V6 => (offset + 6, offset + IPV6_HLEN + TCP_FLAGS),
    };
    if skb.linear_len() <= flags {
        return true;
    }

    // SAFETY: Both are in the linear part.
    let (proto, flags) = unsafe { (skb.linear_byte(proto), skb.linear_byte(flags)) };
    proto == IPPROTO_TCP && flags & (TCP_FIN | TCP_SYN | TCP_RST) != 0
}

/// The core's fast path does not send packets into some IP tunnels that they are routed to.
const MISTAKES_TUNNELS: bool = bindings::SHIM_MISTAKES_TUNNELS != 0;

/// Returns whether the host is to forward a packet.
fn is_for_host<T: Offload>(table: &Flowtable, skb: &mut SkBuff, may_end: bool) -> bool {
    let net = table.net();
    let is_to_host = skb.is_to_host();
    let is_tunnel = (table.is_offload() || MISTAKES_TUNNELS) && net.has_ip_tunnels();
    if is_to_host && !may_end && !is_tunnel {
        return false;
    }
    let Some(Packet { tuple, tcp }) = Packet::parse(skb) else {
        return !is_to_host;
    };
    // Whose address the frame has is for the device to say on which the host would receive it, which may be
    // a bridge or a VLAN device on top of this one.
    let other = match is_to_host {
        true => None,
        // The host forwards neither broadcasts nor multicasts as the fast path would.
        false => match skb.other_dest() {
            Some(dest) => Some(dest),
            None => return true,
        },
    };
    let is_common = tcp.flags & (TCP_FIN | TCP_SYN | TCP_RST) == 0 && !is_tunnel;
    if is_common && other.is_none() {
        return false;
    }

    let verdict = table.with_entry(tuple, |entry, dir| {
        if other.is_some_and(|dest| !entry.is_to_router(dir, &dest)) {
            return Verdict::SlowPath;
        }
        if is_common {
            return Verdict::FastPath;
        }
        if MISTAKES_TUNNELS && entry.mistakes_tunnel(dir) {
            return Verdict::SlowPath;
        }
        // SAFETY: `Registration::new` has seen the notifiers, which outlive it.
        unsafe {
            notifier::with_handler::<T::Namespace, _>(net, |namespace| {
                T::ingress(namespace, entry, dir, &tcp)
            })
        }
    });
    verdict == Some(Verdict::SlowPath)
}

/// What a hook is called with.
type HookFn = unsafe extern "C" fn(
    *mut c_void,
    *mut bindings::sk_buff,
    *const bindings::nf_hook_state,
) -> c_uint;

/// # Safety
///
/// As for every netfilter hook at ingress: `skb` is owned by the caller and has a MAC header,
/// `priv_` is the flowtable that the hook was registered with, and RCU is read-locked.
#[inline(always)]
unsafe fn hook<T: Offload>(
    priv_: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
    version: Version,
    offset: usize,
) -> c_uint {
    // SAFETY: By the function's requirements.
    let packet = unsafe { SkBuff::from_raw(skb) };
    let may_end = may_end(packet, version, offset);
    // SAFETY: By the function's requirements.
    let is_offload = || unsafe { Flowtable::from_raw(priv_.cast()) }.is_offload();

    let may_be_tunnel = || Net::any_has_ip_tunnels() && (MISTAKES_TUNNELS || is_offload());

    if may_end || !packet.is_to_host() || may_be_tunnel() {
        // SAFETY: By the function's requirements.
        return unsafe { choosing_hook::<T>(priv_, skb, state, version, may_end) };
    }

    // SAFETY: By the function's requirements.
    unsafe { version.fast_path()(priv_, skb, state) }
}

/// [`hook`] for the packets that are looked at more closely.
///
/// # Safety
///
/// As for [`hook`].
#[cold]
#[inline(never)]
unsafe fn choosing_hook<T: Offload>(
    priv_: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
    version: Version,
    may_end: bool,
) -> c_uint {
    // SAFETY: By the function's requirements.
    let table = unsafe { Flowtable::from_raw(priv_.cast()) };
    // SAFETY: By the function's requirements.
    if is_for_host::<T>(table, unsafe { SkBuff::from_raw(skb) }, may_end) {
        return bindings::NF_ACCEPT;
    }

    // SAFETY: By the function's requirements.
    unsafe { version.fast_path()(priv_, skb, state) }
}

/// `nf_flow_offload_ip_hook()`
///
/// # Safety
///
/// As for [`hook`].
pub(super) unsafe extern "C" fn ip_hook<T: Offload>(
    priv_: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> c_uint {
    // SAFETY: By the function's requirements.
    match unsafe { SkBuff::from_raw(skb) }.protocol() {
        // SAFETY: By the function's requirements.
        ETH_P_IP => unsafe { hook::<T>(priv_, skb, state, Version::V4, 0) },
        // In a table of this family, IPv6 has no entries.
        // SAFETY: By the function's requirements.
        _ => unsafe { tagged_hook::<T>(priv_, skb, state) },
    }
}

/// `nf_flow_offload_ipv6_hook()`
///
/// # Safety
///
/// As for [`hook`].
pub(super) unsafe extern "C" fn ipv6_hook<T: Offload>(
    priv_: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> c_uint {
    // SAFETY: By the function's requirements.
    match unsafe { SkBuff::from_raw(skb) }.protocol() {
        // SAFETY: By the function's requirements.
        ETH_P_IPV6 => unsafe { hook::<T>(priv_, skb, state, Version::V6, 0) },
        // In a table of this family, IPv4 has no entries.
        // SAFETY: By the function's requirements.
        _ => unsafe { tagged_hook::<T>(priv_, skb, state) },
    }
}

/// `nf_flow_offload_inet_hook()`: which IP is it?
///
/// # Safety
///
/// As for [`hook`].
pub(super) unsafe extern "C" fn inet_hook<T: Offload>(
    priv_: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> c_uint {
    // SAFETY: By the function's requirements.
    match unsafe { SkBuff::from_raw(skb) }.protocol() {
        // SAFETY: By the function's requirements.
        ETH_P_IP => unsafe { hook::<T>(priv_, skb, state, Version::V4, 0) },
        // SAFETY: By the function's requirements.
        ETH_P_IPV6 => unsafe { hook::<T>(priv_, skb, state, Version::V6, 0) },
        // SAFETY: By the function's requirements.
        _ => unsafe { tagged_hook::<T>(priv_, skb, state) },
    }
}

/// The hooks for packets that do not begin with IP.
///
/// # Safety
///
/// As for [`hook`].
#[inline(never)]
unsafe fn tagged_hook<T: Offload>(
    priv_: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> c_uint {
    // SAFETY: By the function's requirements.
    let Some((proto, outer)) = inner_protocol(unsafe { SkBuff::from_raw(skb) }) else {
        return bindings::NF_ACCEPT;
    };
    let offset = outer.map_or(0, |outer| outer.len);

    match proto {
        // SAFETY: By the function's requirements.
        ETH_P_IP => unsafe { hook::<T>(priv_, skb, state, Version::V4, offset) },
        // SAFETY: By the function's requirements.
        ETH_P_IPV6 => unsafe { hook::<T>(priv_, skb, state, Version::V6, offset) },
        _ => bindings::NF_ACCEPT,
    }
}

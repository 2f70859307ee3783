// SPDX-License-Identifier: GPL-2.0

//! The ingress hooks: which packets the software fast path gets.
//!
//! The fast path itself stays in C. In tables with `flags offload`, packets with which a connection
//! ends pass it by, so that conntrack sees them; and so do packets that it would send nowhere.

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
        offload::{Offload, Verdict}, //
    },
};
use kernel::prelude::*;

const VLAN_HLEN: usize = 4;
const PPPOE_SES_HLEN: usize = 8;
const IPV4_HLEN: usize = 20;
const IPV6_HLEN: usize = 40;
/// As much of a TCP header as has the ports and the flags.
const TCP_FLAGS: usize = 13;
pub(crate) const TCP_FIN: u8 = 1 << 0;
pub(crate) const TCP_SYN: u8 = 1 << 1;
pub(crate) const TCP_RST: u8 = 1 << 2;

fn be16(bytes: &[u8], offset: usize) -> Option<u16> {
    let bytes = bytes.get(offset..offset + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
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
                id: be16(bytes, 0)?,
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

/// What a flowtable knows a packet by, and its TCP flags (0 if it is not TCP).
struct Packet {
    tuple: bindings::flow_offload_tuple,
    flags: u8,
}

impl Packet {
    /// `None` for packets that the fast path leaves alone anyway, and for those in an IP tunnel
    /// that ends here. C: `nf_flow_tuple_ip()`, `nf_flow_tuple_ipv6()`.
    fn parse(skb: &mut SkBuff) -> Option<Self> {
        // SAFETY: All members are numbers, unions of them, or a pointer that may be NULL.
        let mut tuple: bindings::flow_offload_tuple = unsafe { core::mem::zeroed() };
        let mut encaps = tuple.encap.iter_mut();
        let mut encap = |id, proto: u16| {
            let to = encaps.next()?;
            to.id = id;
            to.proto = proto.to_be();
            Some(())
        };

        if let Some((proto, tci)) = skb.vlan_tag() {
            encap(tci, proto)?;
        }
        let outer_proto = skb.protocol();
        let (proto, outer) = inner_protocol(skb)?;
        let mut offset = 0;
        if let Some(Outer { id, len }) = outer {
            encap(id, outer_proto)?;
            offset += len;
        }
        tuple.iifidx = skb.ifindex() as c_int;

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
                offset += IPV4_HLEN;
            }
            ETH_P_IPV6 => {
                let ip = skb.network_bytes(offset + IPV6_HLEN)?.get(offset..)?;
                tuple.__bindgen_anon_1.src_v6.in6_u.u6_addr8 = ip.get(8..24)?.try_into().ok()?;
                tuple.__bindgen_anon_2.dst_v6.in6_u.u6_addr8 = ip.get(24..40)?.try_into().ok()?;
                tuple.l3proto = bindings::AF_INET6 as u8;
                tuple.l4proto = ip[6];
                offset += IPV6_HLEN;
            }
            _ => return None,
        }

        let flags = match tuple.l4proto {
            IPPROTO_TCP => *skb.network_bytes(offset + TCP_FLAGS + 1)?.last()?,
            IPPROTO_UDP | IPPROTO_GRE => 0,
            _ => return None,
        };
        if tuple.l4proto != IPPROTO_GRE {
            let ports = skb.network_bytes(offset + 4)?.get(offset..)?;
            tuple.__bindgen_anon_3.src_port = be16(ports, 0)?.to_be();
            tuple.__bindgen_anon_3.dst_port = be16(ports, 2)?.to_be();
        }

        Some(Self { tuple, flags })
    }
}

/// Returns whether a packet may be one with which a TCP connection begins or ends: most that are not
/// are told from their first bytes.
fn may_end(skb: &SkBuff) -> bool {
    // Behind tags and headers it is for `Packet::parse` to tell.
    let (proto, flags) = match skb.protocol() {
        ETH_P_IP => (9, IPV4_HLEN + TCP_FLAGS),
        ETH_P_IPV6 => (6, IPV6_HLEN + TCP_FLAGS),
        _ => return true,
    };
    let Some(ip) = skb.linear_bytes(flags + 1) else {
        return true;
    };

    match ip[proto] {
        IPPROTO_TCP => ip[flags] & (TCP_FIN | TCP_SYN | TCP_RST) != 0,
        _ => false,
    }
}

/// Returns whether the host is to forward a packet of a table with `flags offload`.
fn is_for_host<T: Offload>(table: &Flowtable, skb: &mut SkBuff, may_end: bool) -> bool {
    let net = table.net();
    if !may_end && !net.has_ip_tunnels() {
        return false;
    }
    let Some(Packet { tuple, flags }) = Packet::parse(skb) else {
        return false;
    };
    if flags & (TCP_FIN | TCP_SYN | TCP_RST) == 0 && !net.has_ip_tunnels() {
        return false;
    }

    let verdict = table.with_entry(tuple, |entry, dir| {
        // SAFETY: `Registration::new` has seen the notifiers, which outlive it.
        unsafe {
            notifier::with_handler::<T::Namespace, _>(net, |namespace| {
                T::ingress(namespace, entry, dir, flags)
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
    fast_path: HookFn,
) -> c_uint {
    // SAFETY: By the function's requirements.
    let table = unsafe { Flowtable::from_raw(priv_.cast()) };

    if table.is_offload() {
        // SAFETY: By the function's requirements.
        let may_end = may_end(unsafe { SkBuff::from_raw(skb) });
        if may_end || Net::any_has_ip_tunnels() {
            // SAFETY: By the function's requirements.
            return unsafe { choosing_hook::<T>(priv_, skb, state, fast_path, may_end) };
        }
    }

    // SAFETY: By the function's requirements.
    unsafe { fast_path(priv_, skb, state) }
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
    fast_path: HookFn,
    may_end: bool,
) -> c_uint {
    // SAFETY: By the function's requirements.
    let table = unsafe { Flowtable::from_raw(priv_.cast()) };
    // SAFETY: By the function's requirements.
    if is_for_host::<T>(table, unsafe { SkBuff::from_raw(skb) }, may_end) {
        return bindings::NF_ACCEPT;
    }

    // SAFETY: By the function's requirements.
    unsafe { fast_path(priv_, skb, state) }
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
    unsafe { hook::<T>(priv_, skb, state, bindings::nf_flow_offload_ip_hook) }
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
    unsafe { hook::<T>(priv_, skb, state, bindings::nf_flow_offload_ipv6_hook) }
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
        ETH_P_IP => unsafe { ip_hook::<T>(priv_, skb, state) },
        // SAFETY: By the function's requirements.
        ETH_P_IPV6 => unsafe { ipv6_hook::<T>(priv_, skb, state) },
        // SAFETY: By the function's requirements.
        _ => unsafe { tagged_hook::<T>(priv_, skb, state) },
    }
}

/// [`inet_hook`] for packets that do not begin with IP.
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
    let proto = inner_protocol(unsafe { SkBuff::from_raw(skb) }).map(|(proto, _)| proto);

    match proto {
        // SAFETY: By the function's requirements.
        Some(ETH_P_IP) => unsafe { ip_hook::<T>(priv_, skb, state) },
        // SAFETY: By the function's requirements.
        Some(ETH_P_IPV6) => unsafe { ipv6_hook::<T>(priv_, skb, state) },
        _ => bindings::NF_ACCEPT,
    }
}

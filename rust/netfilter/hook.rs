// SPDX-License-Identifier: GPL-2.0

//! The ingress hook of the inet family: which IP is it?
//!
//! The software fast path itself stays in C; the families ip and ip6 call it directly.

use crate::{
    bindings,
    net::{
        flow_rule::{
            ETH_P_8021Q,
            ETH_P_IP,
            ETH_P_IPV6,
            ETH_P_PPP_SES,
            PPP_IP,
            PPP_IPV6, //
        },
        skbuff::SkBuff,
    },
};
use kernel::prelude::*;

/// Offset of what is behind the Ethernet header.
const ETH_HLEN: usize = bindings::ETH_HLEN as usize;
/// Offset of the protocol in a VLAN tag, behind the tag's TCI.
const VLAN_PROTO: usize = ETH_HLEN + 2;
/// Offset of the protocol within PPPoE, behind version, code, session and length.
const PPP_PROTO: usize = ETH_HLEN + 6;

fn be16(bytes: &[u8], offset: usize) -> Option<u16> {
    let bytes = bytes.get(offset..offset + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

/// The protocol of the packet, behind one VLAN tag or PPPoE header. `None` if the packet is too
/// short to tell.
fn inner_protocol(skb: &mut SkBuff) -> Option<u16> {
    match skb.protocol() {
        ETH_P_8021Q => be16(skb.mac_bytes::<{ VLAN_PROTO + 2 }>()?, VLAN_PROTO),
        ETH_P_PPP_SES => match be16(skb.mac_bytes::<{ PPP_PROTO + 2 }>()?, PPP_PROTO)? {
            PPP_IP => Some(ETH_P_IP),
            PPP_IPV6 => Some(ETH_P_IPV6),
            _ => None,
        },
        proto => Some(proto),
    }
}

/// `nf_flow_offload_inet_hook()`
///
/// # Safety
///
/// As for every netfilter hook at ingress: `skb` is owned by the caller and has a MAC header,
/// `priv_` is the flowtable that the hook was registered with, and RCU is read-locked.
pub(super) unsafe extern "C" fn inet_hook(
    priv_: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> c_uint {
    // SAFETY: By the function's requirements.
    let proto = inner_protocol(unsafe { SkBuff::from_raw(skb) });

    match proto {
        // SAFETY: By the function's requirements.
        Some(ETH_P_IP) => unsafe { bindings::nf_flow_offload_ip_hook(priv_, skb, state) },
        // SAFETY: By the function's requirements.
        Some(ETH_P_IPV6) => unsafe { bindings::nf_flow_offload_ipv6_hook(priv_, skb, state) },
        _ => bindings::NF_ACCEPT,
    }
}

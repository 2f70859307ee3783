// SPDX-License-Identifier: GPL-2.0

//! Rules for hardware: what to match and what to do with it.
//!
//! [`Rule`] is a plain description that is made, compared and printed without the kernel.
//! [`FlowRule`] is its form for drivers, `struct flow_rule`, written into a [`RuleBuffer`].
//!
//! C headers: [`include/net/flow_offload.h`](srctree/include/net/flow_offload.h),
//! [`include/net/flow_dissector.h`](srctree/include/net/flow_dissector.h)

use crate::{
    bindings,
    net::{
        device::{MacAddress, NetDevice, ETH_ALEN},
        namespace::Net, //
    },
};
use core::net::IpAddr;
use core::{
    marker::PhantomData,
    mem::offset_of,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::aref::ARef, //
};

/// `ETH_P_8021Q`: a customer's VLAN tag.
pub(crate) const ETH_P_8021Q: u16 = bindings::ETH_P_8021Q as u16;
/// `ETH_P_8021AD`: a provider's VLAN tag.
pub(crate) const ETH_P_8021AD: u16 = bindings::ETH_P_8021AD as u16;
/// `ETH_P_PPP_SES`: a packet of a PPPoE session.
pub(crate) const ETH_P_PPP_SES: u16 = bindings::ETH_P_PPP_SES as u16;
/// `ETH_P_IP`
pub(crate) const ETH_P_IP: u16 = bindings::ETH_P_IP as u16;
/// `ETH_P_IPV6`
pub(crate) const ETH_P_IPV6: u16 = bindings::ETH_P_IPV6 as u16;
/// `PPP_IP`: IPv4 within PPP.
pub(crate) const PPP_IP: u16 = bindings::PPP_IP as u16;
/// `PPP_IPV6`: IPv6 within PPP.
pub(crate) const PPP_IPV6: u16 = bindings::PPP_IPV6 as u16;
/// `IPPROTO_TCP`
pub(crate) const IPPROTO_TCP: u8 = bindings::IPPROTO_TCP as u8;
/// `IPPROTO_UDP`
pub(crate) const IPPROTO_UDP: u8 = bindings::IPPROTO_UDP as u8;
/// `IPPROTO_GRE`
pub(crate) const IPPROTO_GRE: u8 = bindings::IPPROTO_GRE as u8;

/// Source and destination, in network byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Addresses {
    V4 { src: [u8; 4], dst: [u8; 4] },
    V6 { src: [u8; 16], dst: [u8; 16] },
}

impl Addresses {
    /// Returns the source.
    pub(crate) fn src(&self) -> IpAddr {
        match *self {
            Self::V4 { src, .. } => src.into(),
            Self::V6 { src, .. } => src.into(),
        }
    }

    /// Returns the destination.
    pub(crate) fn dst(&self) -> IpAddr {
        match *self {
            Self::V4 { dst, .. } => dst.into(),
            Self::V6 { dst, .. } => dst.into(),
        }
    }
}

/// Source and destination port, in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ports {
    pub(crate) src: u16,
    pub(crate) dst: u16,
}

/// A VLAN tag: its TPID, in host byte order, and VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vlan {
    pub(crate) proto: u16,
    pub(crate) id: u16,
}

/// What a lwtunnel IP tunnel puts around packets: the parts of `struct ip_tunnel_info` that a
/// route can set, but for options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tunnel {
    /// The key or virtual network.
    pub(crate) id: u64,
    /// The tunnel's ends: this host's, which may be left to the tunnel, and the other one's.
    pub(crate) addresses: Addresses,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    /// Bits `IP_TUNNEL_*_BIT`.
    pub(crate) flags: u64,
}

impl Tunnel {
    fn to_raw(self) -> bindings::shim_lwtunnel {
        let mut raw: bindings::shim_lwtunnel = pin_init::zeroed();

        raw.id = self.id;
        raw.tos = self.tos;
        raw.ttl = self.ttl;
        raw.flags = self.flags;
        match self.addresses {
            Addresses::V4 { src, dst } => {
                raw.src.in6_u.u6_addr32 = [u32::from_ne_bytes(src), 0, 0, 0];
                raw.dst.in6_u.u6_addr32 = [u32::from_ne_bytes(dst), 0, 0, 0];
            }
            Addresses::V6 { src, dst } => {
                raw.is_ipv6 = true;
                raw.src.in6_u.u6_addr8 = src;
                raw.dst.in6_u.u6_addr8 = dst;
            }
        }
        raw
    }
}

/// The outer header of a packet that comes in through a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outer {
    /// The key or virtual network.
    pub(crate) key: u32,
    /// An address that is not specified, all zero, may be any.
    pub(crate) addresses: Addresses,
}

/// What a packet has to be for a rule to hit. Every value is matched exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    /// The index of the device by which it comes in.
    pub(crate) ingress: u32,
    /// To which MAC address it comes; none means that it may be any.
    pub(crate) dest: Option<MacAddress>,
    /// The outermost VLAN tag; none means that the packet is not tagged.
    pub(crate) vlan: Option<Vlan>,
    /// The tag behind that one.
    pub(crate) cvlan: Option<Vlan>,
    /// The PPPoE session that the packet belongs to; none means plain IP.
    pub(crate) pppoe: Option<u16>,
    /// The tunnel that the packet comes through, which is taken off.
    pub(crate) outer: Option<Outer>,
    pub(crate) addresses: Addresses,
    pub(crate) l4proto: u8,
    pub(crate) ports: Option<Ports>,
    /// TCP only: neither FIN nor RST, for conntrack has to see these.
    pub(crate) tcp_goes_on: bool,
}

/// The header that a rewrite applies to, `enum flow_action_mangle_base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    Eth,
    Ip4,
    Ip6,
    Tcp,
    Udp,
}

/// One step of what is done with a packet, `struct flow_action_entry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Takes off the tunnel that is matched.
    TunnelDecap,
    /// Puts on [`Rule::tunnel`].
    TunnelEncap,
    /// Rewrites the 32-bit word at `offset` of a header: the bits of `keep` stay. Both words are
    /// as in memory, that is in the packet's byte order.
    Mangle {
        header: Header,
        offset: u32,
        keep: u32,
        value: u32,
    },
    /// Takes one off the TTL or hop limit.
    DecrementTtl(Header),
    VlanPop,
    /// With this priority (PCP).
    VlanPush(Vlan, u8),
    PppoePush {
        session: u16,
    },
    /// Corrects checksums, `TCA_CSUM_UPDATE_FLAG_*`.
    Csum {
        flags: u32,
    },
    /// Sends the packet out by the device with this index.
    Redirect {
        ifindex: u32,
    },
}

/// `TCA_CSUM_UPDATE_FLAG_IPV4HDR`
pub(crate) const CSUM_IPV4: u32 = bindings::TCA_CSUM_UPDATE_FLAG_IPV4HDR;
/// `TCA_CSUM_UPDATE_FLAG_TCP`
pub(crate) const CSUM_TCP: u32 = bindings::TCA_CSUM_UPDATE_FLAG_TCP;
/// `TCA_CSUM_UPDATE_FLAG_UDP`
pub(crate) const CSUM_UDP: u32 = bindings::TCA_CSUM_UPDATE_FLAG_UDP;

/// A list of actions, in order, without allocation.
#[derive(Clone, Copy)]
pub(crate) struct Actions {
    len: usize,
    list: [Action; Self::MAX],
}

impl Actions {
    /// `NF_FLOW_RULE_ACTION_MAX`. IPv6 with both kinds of NAT, a tunnel and two tags taken off and
    /// as many put on needs 2 + 4 + 2 + 2 + 5 + 5 + 1 + 1 = 22.
    pub(crate) const MAX: usize = 24;

    pub(crate) const fn new() -> Self {
        Self {
            len: 0,
            list: [Action::VlanPop; Self::MAX],
        }
    }

    /// Takes all actions out.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends `action`; fails if the list is full.
    pub(crate) fn push(&mut self, action: Action) -> Result<(), Full> {
        *self.list.get_mut(self.len).ok_or(Full)? = action;
        self.len += 1;
        Ok(())
    }

    pub(crate) fn as_slice(&self) -> &[Action] {
        self.list.get(..self.len).unwrap_or(&[])
    }
}

/// More than [`Actions::MAX`] actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// One direction of a flow, for one device.
#[derive(Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) matches: Match,
    /// Goes with [`Action::TunnelEncap`].
    pub(crate) tunnel: Option<Tunnel>,
    pub(crate) actions: Actions,
}

impl Rule {
    /// A rule without actions.
    pub(crate) const fn new() -> Self {
        Self {
            matches: Match {
                ingress: 0,
                dest: None,
                vlan: None,
                cvlan: None,
                pppoe: None,
                outer: None,
                addresses: Addresses::V4 {
                    src: [0; 4],
                    dst: [0; 4],
                },
                l4proto: 0,
                ports: None,
                tcp_goes_on: false,
            },
            tunnel: None,
            actions: Actions::new(),
        }
    }

    /// The index of the device by which packets leave.
    pub(crate) fn egress(&self) -> Option<u32> {
        // Mostly the last action.
        self.actions
            .as_slice()
            .iter()
            .rev()
            .find_map(|action| match action {
                Action::Redirect { ifindex } => Some(*ifindex),
                _ => None,
            })
    }
}

/// Where the keys of a match are; drivers find them by the offsets in the dissector.
#[repr(C, align(8))]
struct Key {
    meta: bindings::flow_dissector_key_meta,
    control: bindings::flow_dissector_key_control,
    basic: bindings::flow_dissector_key_basic,
    eth: bindings::flow_dissector_key_eth_addrs,
    vlan: bindings::flow_dissector_key_vlan,
    cvlan: bindings::flow_dissector_key_vlan,
    pppoe: bindings::flow_dissector_key_pppoe,
    ipv4: bindings::flow_dissector_key_ipv4_addrs,
    ipv6: bindings::flow_dissector_key_ipv6_addrs,
    ports: bindings::flow_dissector_key_ports,
    tcp: bindings::flow_dissector_key_tcp,
    enc_control: bindings::flow_dissector_key_control,
    enc_key: bindings::flow_dissector_key_keyid,
    enc_ipv4: bindings::flow_dissector_key_ipv4_addrs,
    enc_ipv6: bindings::flow_dissector_key_ipv6_addrs,
}

// SAFETY: All members are plain integers, arrays and unions of these.
unsafe impl Zeroable for Key {}

#[repr(C)]
struct MatchStorage {
    dissector: bindings::flow_dissector,
    key: Key,
    mask: Key,
}

// SAFETY: All members are `Zeroable`, or plain integers and arrays of these.
unsafe impl Zeroable for MatchStorage {}

impl MatchStorage {
    /// Matches nothing.
    fn clear(&mut self) {
        self.dissector.used_keys = 0;
        self.key = pin_init::zeroed();
        self.mask = pin_init::zeroed();
    }

    /// Says that the match uses the key `id`, which is at `offset` of [`Key`].
    fn uses(&mut self, id: bindings::flow_dissector_key_id, offset: usize) {
        self.dissector.used_keys |= 1 << id;
        self.dissector.offset[id as usize] = offset as u16;
    }

    fn write_vlan(
        key: &mut bindings::flow_dissector_key_vlan,
        mask: &mut bindings::flow_dissector_key_vlan,
        vlan: Vlan,
    ) {
        // SAFETY: Both variants of the union are valid for all bit patterns.
        unsafe {
            let tag = &mut key.__bindgen_anon_1.__bindgen_anon_1;
            tag.set_vlan_id(vlan.id);
            let tag = &mut mask.__bindgen_anon_1.__bindgen_anon_1;
            tag.set_vlan_id(bindings::VLAN_VID_MASK as u16);
        }
        key.vlan_tpid = vlan.proto.to_be();
        mask.vlan_tpid = u16::MAX;
    }

    fn write_outer(&mut self, outer: &Outer) {
        self.uses(
            bindings::flow_dissector_key_id_FLOW_DISSECTOR_KEY_ENC_KEYID,
            offset_of!(Key, enc_key),
        );
        self.key.enc_key.keyid = outer.key.to_be();
        self.mask.enc_key.keyid = u32::MAX;

        let addr_type = match outer.addresses {
            Addresses::V4 { src, dst } => {
                self.uses(
                    bindings::flow_dissector_key_id_FLOW_DISSECTOR_KEY_ENC_IPV4_ADDRS,
                    offset_of!(Key, enc_ipv4),
                );
                self.key.enc_ipv4.src = u32::from_ne_bytes(src);
                self.key.enc_ipv4.dst = u32::from_ne_bytes(dst);
                self.mask.enc_ipv4.src = if src == [0; 4] { 0 } else { u32::MAX };
                self.mask.enc_ipv4.dst = if dst == [0; 4] { 0 } else { u32::MAX };
                bindings::flow_dissector_key_id_FLOW_DISSECTOR_KEY_IPV4_ADDRS
            }
            Addresses::V6 { src, dst } => {
                let mask = |addr| if addr == [0; 16] { [0; 16] } else { [0xff; 16] };

                self.uses(
                    bindings::flow_dissector_key_id_FLOW_DISSECTOR_KEY_ENC_IPV6_ADDRS,
                    offset_of!(Key, enc_ipv6),
                );
                self.key.enc_ipv6.src.in6_u.u6_addr8 = src;
                self.key.enc_ipv6.dst.in6_u.u6_addr8 = dst;
                self.mask.enc_ipv6.src.in6_u.u6_addr8 = mask(src);
                self.mask.enc_ipv6.dst.in6_u.u6_addr8 = mask(dst);
                bindings::flow_dissector_key_id_FLOW_DISSECTOR_KEY_IPV6_ADDRS
            }
        };

        self.uses(
            bindings::flow_dissector_key_id_FLOW_DISSECTOR_KEY_ENC_CONTROL,
            offset_of!(Key, enc_control),
        );
        self.key.enc_control.addr_type = addr_type as u16;
        self.mask.enc_control.addr_type = u16::MAX;
    }

    fn write(&mut self, matches: &Match) {
        self.uses(
            bindings::flow_dissector_key_id_FLOW_DISSECTOR_KEY_META,
            offset_of!(Key, meta),
        );
        self.key.meta.ingress_ifindex = matches.ingress as i32;
        self.mask.meta.ingress_ifindex = -1;

        if let Some(dest) = matches.dest {
            self.uses(
                bindings::flow_dissector_key_id_FLOW_DISSECTOR_KEY_ETH_ADDRS,
                offset_of!(Key, eth),
            );
            self.key.eth.dst = dest;
            self.mask.eth.dst = [0xff; ETH_ALEN];
        }
        if let Some(vlan) = matches.vlan {
            self.uses(
                bindings::flow_dissector_key_id_FLOW_DISSECTOR_KEY_VLAN,
                offset_of!(Key, vlan),
            );
            Self::write_vlan(&mut self.key.vlan, &mut self.mask.vlan, vlan);
        }
        if let Some(vlan) = matches.cvlan {
            self.uses(
                bindings::flow_dissector_key_id_FLOW_DISSECTOR_KEY_CVLAN,
                offset_of!(Key, cvlan),
            );
            Self::write_vlan(&mut self.key.cvlan, &mut self.mask.cvlan, vlan);
        }

        let (addr_type, n_proto, ppp_proto) = match matches.addresses {
            Addresses::V4 { src, dst } => {
                self.uses(
                    bindings::flow_dissector_key_id_FLOW_DISSECTOR_KEY_IPV4_ADDRS,
                    offset_of!(Key, ipv4),
                );
                self.key.ipv4.src = u32::from_ne_bytes(src);
                self.key.ipv4.dst = u32::from_ne_bytes(dst);
                self.mask.ipv4.src = u32::MAX;
                self.mask.ipv4.dst = u32::MAX;
                (
                    bindings::flow_dissector_key_id_FLOW_DISSECTOR_KEY_IPV4_ADDRS,
                    ETH_P_IP,
                    PPP_IP,
                )
            }
            Addresses::V6 { src, dst } => {
                self.uses(
                    bindings::flow_dissector_key_id_FLOW_DISSECTOR_KEY_IPV6_ADDRS,
                    offset_of!(Key, ipv6),
                );
                self.key.ipv6.src.in6_u.u6_addr8 = src;
                self.key.ipv6.dst.in6_u.u6_addr8 = dst;
                self.mask.ipv6.src.in6_u.u6_addr8 = [0xff; 16];
                self.mask.ipv6.dst.in6_u.u6_addr8 = [0xff; 16];
                (
                    bindings::flow_dissector_key_id_FLOW_DISSECTOR_KEY_IPV6_ADDRS,
                    ETH_P_IPV6,
                    PPP_IPV6,
                )
            }
        };

        self.uses(
            bindings::flow_dissector_key_id_FLOW_DISSECTOR_KEY_CONTROL,
            offset_of!(Key, control),
        );
        self.key.control.addr_type = addr_type as u16;
        self.mask.control.addr_type = u16::MAX;

        self.uses(
            bindings::flow_dissector_key_id_FLOW_DISSECTOR_KEY_BASIC,
            offset_of!(Key, basic),
        );
        self.key.basic.n_proto = n_proto.to_be();
        self.mask.basic.n_proto = u16::MAX;
        self.key.basic.ip_proto = matches.l4proto;
        self.mask.basic.ip_proto = u8::MAX;

        if let Some(session) = matches.pppoe {
            self.uses(
                bindings::flow_dissector_key_id_FLOW_DISSECTOR_KEY_PPPOE,
                offset_of!(Key, pppoe),
            );
            self.key.pppoe.session_id = session.to_be();
            self.key.pppoe.ppp_proto = ppp_proto.to_be();
            self.key.pppoe.type_ = ETH_P_PPP_SES.to_be();
            self.mask.pppoe.session_id = u16::MAX;
            self.mask.pppoe.ppp_proto = u16::MAX;
            self.mask.pppoe.type_ = u16::MAX;
        }

        if let Some(outer) = &matches.outer {
            self.write_outer(outer);
        }

        if let Some(ports) = matches.ports {
            self.uses(
                bindings::flow_dissector_key_id_FLOW_DISSECTOR_KEY_PORTS,
                offset_of!(Key, ports),
            );
            self.key.ports.__bindgen_anon_1.__bindgen_anon_1.src = ports.src.to_be();
            self.key.ports.__bindgen_anon_1.__bindgen_anon_1.dst = ports.dst.to_be();
            self.mask.ports.__bindgen_anon_1.ports = u32::MAX;
        }

        if matches.tcp_goes_on {
            /// FIN and RST, as in the low byte of the flags.
            const FIN_RST: u16 = 0x01 | 0x04;

            self.uses(
                bindings::flow_dissector_key_id_FLOW_DISSECTOR_KEY_TCP,
                offset_of!(Key, tcp),
            );
            self.mask.tcp.flags = FIN_RST.to_be();
        }
    }
}

/// Where rules are written for drivers, one after the other.
#[repr(C)]
struct RuleStorage {
    matches: MatchStorage,
    rule: bindings::flow_rule,
    /// The room behind `rule.action.entries`.
    entries: [bindings::flow_action_entry; Actions::MAX],
}

const _: () = {
    let entries =
        offset_of!(bindings::flow_rule, action) + offset_of!(bindings::flow_action, entries);
    assert!(offset_of!(RuleStorage, rule) + entries == offset_of!(RuleStorage, entries));
};

// SAFETY: All members are `Zeroable`, or plain integers, pointers that may be NULL, unions and arrays
// of these.
unsafe impl Zeroable for RuleStorage {}

/// Memory in which rules get the form that drivers take, one at a time.
pub(crate) struct RuleBuffer(Option<KBox<RuleStorage>>);

impl RuleBuffer {
    /// Allocates nothing: the first rule does.
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    fn storage(&mut self) -> Result<&mut RuleStorage> {
        let storage = match self.0.take() {
            Some(storage) => storage,
            None => {
                let mut new = KBox::init(pin_init::init_zeroed::<RuleStorage>(), GFP_KERNEL)?;
                for entry in &mut new.entries {
                    entry.hw_stats = bindings::flow_action_hw_stats_FLOW_ACTION_HW_STATS_DONT_CARE;
                }
                new
            }
        };
        Ok(self.0.insert(storage))
    }

    /// Writes `rule` for drivers. The device that it redirects to is looked up in `net`.
    ///
    /// Sleeps. Fails with `ENODEV` if that device is gone, `EINVAL` if there is no redirect,
    /// `ENOMEM`.
    pub(crate) fn write(&mut self, rule: &Rule, net: &Net) -> Result<FlowRule<'_>> {
        let egress = net.device(rule.egress().ok_or(EINVAL)?).ok_or(ENODEV)?;
        let storage = self.storage()?;
        let tunnel = match rule.tunnel {
            // SAFETY: A plain allocation, of a copy of what it is given.
            Some(tunnel) => unsafe { bindings::shim_tunnel_info_alloc(&tunnel.to_raw()) },
            None => core::ptr::null_mut(),
        };
        if rule.tunnel.is_some() && tunnel.is_null() {
            return Err(ENOMEM);
        }

        storage.matches.clear();
        storage.matches.write(&rule.matches);
        let actions = rule.actions.as_slice();
        for (entry, action) in storage.entries.iter_mut().zip(actions) {
            write_action(entry, action, &egress, tunnel);
        }
        storage.rule.action.num_entries = actions.len() as u32;

        let storage = NonNull::from(storage);
        // SAFETY: The storage is borrowed mutably; what is made here are pointers into it, all from the
        // one to the whole.
        let rule = unsafe {
            let matches = &raw mut (*storage.as_ptr()).matches;
            let rule = &raw mut (*storage.as_ptr()).rule;

            (*rule).match_ = bindings::flow_match {
                dissector: &raw mut (*matches).dissector,
                mask: (&raw mut (*matches).mask).cast(),
                key: (&raw mut (*matches).key).cast(),
            };
            NonNull::new_unchecked(rule)
        };
        // INVARIANT: Just set up so.
        Ok(FlowRule {
            rule,
            tunnel,
            _egress: egress,
            _buffer: PhantomData,
        })
    }
}

/// A rule in the form that drivers take, `struct flow_rule`. (C frees it after the call: none keeps it.)
///
/// # Invariants
///
/// - `rule` and what its match points to are in the buffer that is borrowed; its entries are
///   initialised up to `num_entries`.
/// - The device of a redirect is the one that `_egress` holds a reference to.
/// - `tunnel` is NULL or a `struct ip_tunnel_info` that is owned by this value; the entry that puts
///   on a tunnel points to it. (C points into the route. Drivers that keep it make a copy.)
pub(crate) struct FlowRule<'a> {
    rule: NonNull<bindings::flow_rule>,
    tunnel: *mut bindings::ip_tunnel_info,
    _egress: ARef<NetDevice>,
    _buffer: PhantomData<&'a mut RuleStorage>,
}

impl FlowRule<'_> {
    pub(super) fn as_raw(&self) -> *mut bindings::flow_rule {
        self.rule.as_ptr()
    }
}

impl Drop for FlowRule<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants; it is allocated with kmalloc, and kfree takes NULL.
        unsafe { bindings::kfree(self.tunnel.cast()) };
    }
}

fn htype(header: Header) -> bindings::flow_action_mangle_base {
    match header {
        Header::Eth => bindings::flow_action_mangle_base_FLOW_ACT_MANGLE_HDR_TYPE_ETH,
        Header::Ip4 => bindings::flow_action_mangle_base_FLOW_ACT_MANGLE_HDR_TYPE_IP4,
        Header::Ip6 => bindings::flow_action_mangle_base_FLOW_ACT_MANGLE_HDR_TYPE_IP6,
        Header::Tcp => bindings::flow_action_mangle_base_FLOW_ACT_MANGLE_HDR_TYPE_TCP,
        Header::Udp => bindings::flow_action_mangle_base_FLOW_ACT_MANGLE_HDR_TYPE_UDP,
    }
}

fn write_action(
    entry: &mut bindings::flow_action_entry,
    action: &Action,
    egress: &NetDevice,
    tunnel: *mut bindings::ip_tunnel_info,
) {
    let args = &mut entry.__bindgen_anon_1;

    // All that is ever written of the arguments.
    args.mangle = pin_init::zeroed();
    entry.id = match *action {
        Action::TunnelDecap => bindings::flow_action_id_FLOW_ACTION_TUNNEL_DECAP,
        Action::TunnelEncap => {
            args.tunnel = tunnel;
            bindings::flow_action_id_FLOW_ACTION_TUNNEL_ENCAP
        }
        Action::Mangle {
            header,
            offset,
            keep,
            value,
        } => {
            args.mangle.htype = htype(header);
            args.mangle.offset = offset;
            args.mangle.mask = keep;
            args.mangle.val = value;
            bindings::flow_action_id_FLOW_ACTION_MANGLE
        }
        // TTL and hop limit are the first and the last byte of their words; the addition of 255 is
        // what `pedit ... ttl dec` makes of it.
        Action::DecrementTtl(header) => {
            let (offset, byte) = match header {
                Header::Ip6 => (4, 3),
                _ => (8, 0),
            };
            let mut field = [0; 4];
            field[byte] = 0xff;
            args.mangle.htype = htype(header);
            args.mangle.offset = offset;
            args.mangle.mask = !u32::from_ne_bytes(field);
            args.mangle.val = u32::from_ne_bytes(field);
            bindings::flow_action_id_FLOW_ACTION_ADD
        }
        Action::VlanPop => bindings::flow_action_id_FLOW_ACTION_VLAN_POP,
        Action::VlanPush(tag, priority) => {
            args.vlan.vid = tag.id;
            args.vlan.proto = tag.proto.to_be();
            args.vlan.prio = priority;
            bindings::flow_action_id_FLOW_ACTION_VLAN_PUSH
        }
        Action::PppoePush { session } => {
            args.pppoe.sid = session;
            bindings::flow_action_id_FLOW_ACTION_PPPOE_PUSH
        }
        Action::Csum { flags } => {
            args.csum_flags = flags;
            bindings::flow_action_id_FLOW_ACTION_CSUM
        }
        Action::Redirect { .. } => {
            args.dev = egress.as_raw();
            bindings::flow_action_id_FLOW_ACTION_REDIRECT
        }
    };
}

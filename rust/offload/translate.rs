// SPDX-License-Identifier: GPL-2.0

//! From a flow to the rule of one of its directions. Pure: no kernel behind it.
//!
//! The order of the actions is the one of `nf_flow_rule_route_ipv4()` and `_ipv6()`, which drivers
//! are used to: tunnel off, tunnel on, addresses of the frame, tags off, tags on, source and destination translation,
//! checksums, way out. The TTL, which C leaves out, comes before the checksums. Where drivers
//! differ in what they understand, see [`Dialect`].

use crate::{
    net::{
        device::MacAddress,
        flow_rule::{
            Action,
            Actions,
            Addresses,
            Full,
            Header,
            Match,
            Outer,
            Ports,
            Rule,
            Tunnel,
            Vlan,
            CSUM_IPV4,
            CSUM_TCP,
            CSUM_UDP,
            ETH_P_8021AD,
            ETH_P_8021Q,
            ETH_P_PPP_SES,
            IPPROTO_GRE,
            IPPROTO_TCP,
            IPPROTO_UDP, //
        },
    },
    netfilter::{
        conntrack::Direction,
        flow::{Encap, Flow, LwTunnel, Tuple, Xmit, ENCAP_MAX}, //
    },
};

/// Why no rule can express a direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsupported {
    /// Neither TCP nor UDP nor GRE.
    Protocol(u8),
    /// Translation of addresses of two families, or of ports of a protocol without any.
    Nat,
    /// A tag or header for which there is no key or action.
    Encapsulation(u16),
    /// A tag of what comes in that the driver would not look at.
    IngressTag(u16),
    /// Tags in the place of others, of another kind or number.
    VlanRewrite,
    /// The priority of a tag that is put on.
    Priority,
    /// Terminated IP tunnel.
    Tunnel,
    /// A lightweight tunnel that is not an IP tunnel, `enum lwtunnel_encap_types`.
    LwTunnel(u16),
    /// A lightweight IP tunnel with options.
    TunnelOptions,
    /// IPsec.
    Ipsec,
    /// The next hop has no address at present.
    Unresolved,
    /// A way out that is not Ethernet.
    Xmit,
    /// More actions than a rule can have.
    TooLong,
}

impl From<Full> for Unsupported {
    fn from(_: Full) -> Self {
        Self::TooLong
    }
}

/// How drivers read a rule, where they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// As tc means it (mlx5): the TTL is decremented if the rule says so and not otherwise, each tag that
    /// is pushed goes outside the one before it, and frames may be to any MAC address if none is said.
    Tc,
    /// As C's flowtables write it (mtk_ppe, airoha_ppe): hardware that routes decrements the TTL
    /// unasked and refuses to be told, the outermost tag is pushed first, and no MAC address is matched.
    Router,
}

/// Makes `rule` the one for the packets of `flow` in direction `dir`. What fails leaves it as it may be.
pub(super) fn translate(
    flow: &Flow,
    dir: Direction,
    dialect: Dialect,
    rule: &mut Rule,
) -> Result<(), Unsupported> {
    let this = flow.tuple(dir);
    let other = flow.tuple(dir.reverse());

    if this.tunnel || other.tunnel {
        return Err(Unsupported::Tunnel);
    }
    rule.tunnel = tunnel(this)?.copied();
    let other_tunnel = tunnel(other)?;
    let (egress, source, dest) = match this.xmit {
        Xmit::Ethernet {
            ifindex,
            source,
            dest,
        } => (ifindex, source, dest),
        Xmit::Unresolved => return Err(Unsupported::Unresolved),
        Xmit::Ipsec => return Err(Unsupported::Ipsec),
        Xmit::Other => return Err(Unsupported::Xmit),
    };
    // What comes in has gone through what packets of the other direction are put into.
    if other_tunnel.is_some() && other.xmit == Xmit::Ipsec {
        return Err(Unsupported::Ipsec);
    }

    set_matches(&mut rule.matches, this, other_tunnel, dialect)?;
    // Behind a tunnel, it is the one of the outer frame.
    if dialect == Dialect::Tc && other_tunnel.is_none() {
        rule.matches.dest = this.dest.or(other.xmit.source());
    }
    if dialect == Dialect::Tc && !is_rewritable(&rule.matches, other) {
        return Err(Unsupported::VlanRewrite);
    }
    let actions = &mut rule.actions;

    actions.clear();
    if other_tunnel.is_some() {
        actions.push(Action::TunnelDecap)?;
    }
    if rule.tunnel.is_some() {
        actions.push(Action::TunnelEncap)?;
    }
    ethernet(actions, source, dest)?;
    for _ in [rule.matches.vlan, rule.matches.cvlan].iter().flatten() {
        actions.push(Action::VlanPop)?;
    }
    match dialect {
        Dialect::Tc => pushed(other)
            .rev()
            .try_for_each(|(encap, priority)| push(actions, encap, priority))?,
        // These drivers do not look at the priority.
        Dialect::Router if pushed(other).any(|(_, priority)| priority != 0) => {
            return Err(Unsupported::Priority);
        }
        Dialect::Router => {
            pushed(other).try_for_each(|(encap, priority)| push(actions, encap, priority))?
        }
    }
    if flow.snat {
        let field = match dir {
            Direction::Original => Field::Source,
            Direction::Reply => Field::Destination,
        };
        nat(actions, this, other, field)?;
    }
    if flow.dnat {
        let field = match dir {
            Direction::Original => Field::Destination,
            Direction::Reply => Field::Source,
        };
        nat(actions, this, other, field)?;
    }
    let is_ipv4 = matches!(this.addresses, Addresses::V4 { .. });
    if dialect == Dialect::Tc {
        let header = if is_ipv4 { Header::Ip4 } else { Header::Ip6 };
        actions.push(Action::DecrementTtl(header))?;
    }
    let translated = flow.snat || flow.dnat;
    if is_ipv4 && (translated || dialect == Dialect::Tc) {
        let l4 = match this.l4proto {
            IPPROTO_TCP if translated => CSUM_TCP,
            IPPROTO_UDP if translated => CSUM_UDP,
            _ => 0,
        };
        actions.push(Action::Csum {
            flags: CSUM_IPV4 | l4,
        })?;
    }
    Ok(actions.push(Action::Redirect { ifindex: egress })?)
}

/// The tunnel that packets of `tuple` are put into.
fn tunnel(tuple: &Tuple) -> Result<Option<&Tunnel>, Unsupported> {
    match &tuple.lwtunnel {
        None => Ok(None),
        Some(LwTunnel::Ip(tunnel)) => Ok(Some(tunnel)),
        Some(LwTunnel::Options) => Err(Unsupported::TunnelOptions),
        Some(LwTunnel::Other(kind)) => Err(Unsupported::LwTunnel(*kind)),
    }
}

/// Makes `rule` one for packets like those of `flow`, but without tags and from the address 0, so that
/// no packet hits it.
///
/// Whether the driver takes it shows if it speaks the dialect, when `flow` itself cannot be said in
/// it.
pub(super) fn probe(
    flow: &Flow,
    dir: Direction,
    dialect: Dialect,
    rule: &mut Rule,
) -> Result<(), Unsupported> {
    let mut flow = *flow;
    for tuple in &mut flow.tuples {
        tuple.encaps = [None; ENCAP_MAX];
        tuple.lwtunnel = None;
    }

    translate(&flow, dir, dialect, rule)?;
    match &mut rule.matches.addresses {
        Addresses::V4 { src, .. } => *src = [0; 4],
        Addresses::V6 { src, .. } => *src = [0; 16],
    }
    Ok(())
}

/// The headers that the device sees between Ethernet and IP, from the outermost inwards.
fn carried(tuple: &Tuple) -> impl DoubleEndedIterator<Item = &Encap> {
    tuple
        .encaps
        .iter()
        .flatten()
        .filter(|encap| !encap.ingress_vlan)
}

/// The same with the priorities of the tags that are put on.
fn pushed(tuple: &Tuple) -> impl DoubleEndedIterator<Item = (&Encap, u8)> {
    let all = tuple.encaps.iter().zip(tuple.priorities);
    all.filter_map(|(encap, priority)| Some((encap.as_ref()?, priority)))
        .filter(|(encap, _)| !encap.ingress_vlan)
}

/// Whether the tags of `other` can be put on in the place of those that are taken off.
///
/// mlx5 makes one rewrite of taking a tag off and putting one on, which leaves the kind of the tag
/// and its priority as they were. Where there are two tags on one of the sides, the second one gets lost.
fn is_rewritable(matches: &Match, other: &Tuple) -> bool {
    let mut on = pushed(other).filter(|(encap, _)| encap.proto != ETH_P_PPP_SES);

    match (matches.vlan, matches.cvlan, on.next(), on.next()) {
        (None, ..) | (_, _, None, _) => true,
        (Some(off), None, Some((on, priority)), None) => off.proto == on.proto && priority == 0,
        _ => false,
    }
}

fn push(actions: &mut Actions, encap: &Encap, priority: u8) -> Result<(), Unsupported> {
    let action = match encap.proto {
        ETH_P_8021Q | ETH_P_8021AD => {
            let tag = Vlan {
                proto: encap.proto,
                id: encap.id,
            };
            Action::VlanPush(tag, priority)
        }
        ETH_P_PPP_SES => Action::PppoePush { session: encap.id },
        proto => return Err(Unsupported::Encapsulation(proto)),
    };
    Ok(actions.push(action)?)
}

fn set_matches(
    to: &mut Match,
    tuple: &Tuple,
    through: Option<&Tunnel>,
    dialect: Dialect,
) -> Result<(), Unsupported> {
    let has_ports = match tuple.l4proto {
        IPPROTO_TCP | IPPROTO_UDP => true,
        IPPROTO_GRE => false,
        proto => return Err(Unsupported::Protocol(proto)),
    };
    // Member by member, so that none is copied.
    let Match {
        ingress,
        dest,
        vlan,
        cvlan,
        pppoe,
        outer,
        addresses,
        l4proto,
        ports,
        tcp_goes_on,
    } = to;
    *ingress = tuple.ingress;
    *dest = None;
    *vlan = None;
    *cvlan = None;
    *pppoe = None;
    *outer = through.map(|tunnel| Outer {
        // Where this host's packets have their destination, and the other way round.
        addresses: match tunnel.addresses {
            Addresses::V4 { src, dst } => Addresses::V4 { src: dst, dst: src },
            Addresses::V6 { src, dst } => Addresses::V6 { src: dst, dst: src },
        },
        key: tunnel.id as u32,
    });
    *addresses = tuple.addresses;
    *l4proto = tuple.l4proto;
    *ports = has_ports.then_some(tuple.ports);
    *tcp_goes_on = tuple.l4proto == IPPROTO_TCP;

    for encap in carried(tuple) {
        match (encap.proto, *pppoe) {
            // These take any match of a tag and look up addresses and ports only, which the
            // hardware finds behind 802.1Q and PPPoE; nothing says that it does behind 802.1ad.
            (ETH_P_8021AD, None) if dialect == Dialect::Router => {
                return Err(Unsupported::IngressTag(encap.proto));
            }
            (ETH_P_8021Q | ETH_P_8021AD, None) => {
                let tag = if vlan.is_none() {
                    &mut *vlan
                } else {
                    &mut *cvlan
                };
                *tag = Some(Vlan {
                    proto: encap.proto,
                    id: encap.id,
                });
            }
            (ETH_P_PPP_SES, None) => *pppoe = Some(encap.id),
            (proto, _) => return Err(Unsupported::Encapsulation(proto)),
        }
    }

    Ok(())
}

/// Rewrites the addresses of the frame: four words of the Ethernet header, of which the middle one
/// has two bytes of either address. The halves of a word are put together as the host sees them.
fn ethernet(actions: &mut Actions, source: MacAddress, dest: MacAddress) -> Result<(), Full> {
    let [s0, s1, s2, s3, s4, s5] = source;
    let [d0, d1, d2, d3, d4, d5] = dest;
    let mut mangle = |offset, keep, value| {
        actions.push(Action::Mangle {
            header: Header::Eth,
            offset,
            keep,
            value,
        })
    };

    mangle(
        4,
        0x0000_ffff,
        u32::from(u16::from_ne_bytes([s0, s1])) << 16,
    )?;
    mangle(8, 0, u32::from_ne_bytes([s2, s3, s4, s5]))?;
    mangle(0, 0, u32::from_ne_bytes([d0, d1, d2, d3]))?;
    mangle(4, 0xffff_0000, u32::from(u16::from_ne_bytes([d4, d5])))
}

/// Which end of a packet is rewritten.
#[derive(Clone, Copy)]
enum Field {
    Source,
    Destination,
}

/// Rewrites address and port of one end of `this` direction's packets, to what packets of the
/// `other` direction have at the opposite end.
fn nat(
    actions: &mut Actions,
    this: &Tuple,
    other: &Tuple,
    field: Field,
) -> Result<(), Unsupported> {
    match (this.addresses, other.addresses) {
        (Addresses::V4 { .. }, Addresses::V4 { src, dst }) => {
            let (offset, addr) = match field {
                Field::Source => (12, dst),
                Field::Destination => (16, src),
            };
            actions.push(Action::Mangle {
                header: Header::Ip4,
                offset,
                keep: 0,
                value: u32::from_ne_bytes(addr),
            })?;
        }
        (Addresses::V6 { .. }, Addresses::V6 { src, dst }) => {
            let (offsets, addr) = match field {
                Field::Source => ([8, 12, 16, 20], dst),
                Field::Destination => ([24, 28, 32, 36], src),
            };
            for (offset, word) in offsets.into_iter().zip(addr.chunks_exact(4)) {
                actions.push(Action::Mangle {
                    header: Header::Ip6,
                    offset,
                    keep: 0,
                    value: word.try_into().map_or(0, u32::from_ne_bytes),
                })?;
            }
        }
        _ => return Err(Unsupported::Nat),
    }

    let header = match this.l4proto {
        IPPROTO_TCP => Header::Tcp,
        IPPROTO_UDP => Header::Udp,
        _ => return Err(Unsupported::Nat),
    };
    let Ports { src, dst } = other.ports;
    // Both ports are one word, the first of the header.
    let (keep, value) = match field {
        Field::Source => (0x0000_ffff, u32::from(dst) << 16),
        Field::Destination => (0xffff_0000, u32::from(src)),
    };
    actions.push(Action::Mangle {
        header,
        offset: 0,
        keep: u32::to_be(keep),
        value: u32::to_be(value),
    })?;
    Ok(())
}

#[kernel::macros::kunit_tests(nft_offload_translate)]
mod tests {
    use super::*;

    const CLIENT_MAC: MacAddress = [0x02, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5];
    const SERVER_MAC: MacAddress = [0x02, 0x51, 0x52, 0x53, 0x54, 0x55];
    const LAN_MAC: MacAddress = [0x02, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5];
    const WAN_MAC: MacAddress = [0x02, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5];
    const LAN: u32 = 5;
    const WAN: u32 = 7;

    const CLIENT: [u8; 4] = [192, 168, 1, 2];
    const ROUTER: [u8; 4] = [203, 0, 113, 1];
    const SERVER: [u8; 4] = [198, 51, 100, 9];

    fn tuple(addresses: Addresses, sport: u16, dport: u16, l4proto: u8) -> Tuple {
        Tuple {
            addresses,
            ports: Ports {
                src: sport,
                dst: dport,
            },
            l4proto,
            ingress: LAN,
            dest: None,
            encaps: [None; 2],
            priorities: [0; 2],
            tunnel: false,
            xmit: Xmit::Ethernet {
                ifindex: WAN,
                source: WAN_MAC,
                dest: SERVER_MAC,
            },
            lwtunnel: None,
        }
    }

    /// From the LAN to the WAN and back: `reply` is what the answers are when they come in.
    fn flow(original: Tuple, reply: Tuple) -> Flow {
        Flow {
            tuples: [
                original,
                Tuple {
                    ingress: WAN,
                    xmit: Xmit::Ethernet {
                        ifindex: LAN,
                        source: LAN_MAC,
                        dest: CLIENT_MAC,
                    },
                    ..reply
                },
            ],
            snat: false,
            dnat: false,
        }
    }

    fn v4(src: [u8; 4], dst: [u8; 4]) -> Addresses {
        Addresses::V4 { src, dst }
    }

    fn v6(src: u8, dst: u8) -> Addresses {
        Addresses::V6 {
            src: core::array::from_fn(|i| src + i as u8),
            dst: core::array::from_fn(|i| dst + i as u8),
        }
    }

    fn routed(l4proto: u8) -> Flow {
        flow(
            tuple(v4(CLIENT, SERVER), 40000, 443, l4proto),
            tuple(v4(SERVER, CLIENT), 443, 40000, l4proto),
        )
    }

    fn masqueraded(l4proto: u8) -> Flow {
        Flow {
            snat: true,
            ..flow(
                tuple(v4(CLIENT, SERVER), 40000, 443, l4proto),
                tuple(v4(SERVER, ROUTER), 443, 1025, l4proto),
            )
        }
    }

    fn tag(proto: u16, id: u16) -> Option<Encap> {
        Some(Encap {
            proto,
            id,
            ingress_vlan: false,
        })
    }

    fn vlan(id: u16) -> Option<Encap> {
        tag(ETH_P_8021Q, id)
    }

    /// What the mangles of `rule` write into `header`: bytes, and which of them.
    fn written(rule: &Rule, header: Header) -> ([u8; 40], [bool; 40]) {
        let mut bytes = [0; 40];
        let mut touched = [false; 40];

        for action in rule.actions.as_slice() {
            let Action::Mangle {
                header: in_header,
                offset,
                keep,
                value,
            } = *action
            else {
                continue;
            };
            if in_header != header {
                continue;
            }
            // Ethernet words are as the host sees them, the rest as they are in the packet; on a
            // little-endian host that is the same.
            let (keep, value) = (keep.to_ne_bytes(), value.to_ne_bytes());
            for i in 0..4 {
                if keep[i] == 0 {
                    assert!(!touched[offset as usize + i]);
                    bytes[offset as usize + i] = value[i];
                    touched[offset as usize + i] = true;
                } else {
                    assert_eq!(value[i], 0);
                }
            }
        }
        (bytes, touched)
    }

    fn rule_of(flow: &Flow, dir: Direction, dialect: Dialect) -> Result<Rule, Unsupported> {
        let mut rule = Rule::new();
        translate(flow, dir, dialect, &mut rule).map(|()| rule)
    }

    fn translated(flow: &Flow, dir: Direction) -> Option<Rule> {
        let rule = rule_of(flow, dir, Dialect::Router).ok();
        assert!(rule.is_some());
        rule
    }

    #[test]
    fn a_routed_flow_gets_new_frame_addresses_and_nothing_else() {
        for (dir, source, dest, ingress, egress) in [
            (Direction::Original, WAN_MAC, SERVER_MAC, LAN, WAN),
            (Direction::Reply, LAN_MAC, CLIENT_MAC, WAN, LAN),
        ] {
            let Some(rule) = translated(&routed(IPPROTO_TCP), dir) else {
                return;
            };
            let (bytes, touched) = written(&rule, Header::Eth);

            assert_eq!(rule.matches.ingress, ingress);
            assert_eq!(
                rule.matches.addresses,
                routed(IPPROTO_TCP).tuple(dir).addresses
            );
            assert_eq!(
                rule.matches.ports,
                Some(routed(IPPROTO_TCP).tuple(dir).ports)
            );
            assert_eq!(bytes[..6], dest);
            assert_eq!(bytes[6..12], source);
            assert!(touched[..12].iter().all(|&touched| touched));
            assert_eq!(rule.actions.as_slice().len(), 5);
            assert_eq!(rule.egress(), Some(egress));
        }
    }

    #[test]
    fn the_ttl_is_decremented_by_the_rule_if_told_so() {
        for (flow, csum) in [
            (routed(IPPROTO_UDP), CSUM_IPV4),
            (masqueraded(IPPROTO_UDP), CSUM_IPV4 | CSUM_UDP),
        ] {
            let (Ok(with), Ok(without)) = (
                rule_of(&flow, Direction::Original, Dialect::Tc),
                rule_of(&flow, Direction::Original, Dialect::Router),
            ) else {
                return assert!(false);
            };
            let actions = with.actions.as_slice();
            let [.., ttl, sum, _] = actions else {
                return assert!(false);
            };

            assert_eq!(*ttl, Action::DecrementTtl(Header::Ip4));
            assert_eq!(*sum, Action::Csum { flags: csum });
            assert!(!without.actions.as_slice().contains(ttl));
        }
    }

    #[test]
    fn frames_are_to_the_address_that_the_host_has_there() {
        let mut flow = routed(IPPROTO_UDP);
        let dest = |flow: &Flow, dialect| {
            Direction::BOTH.map(|dir| {
                let rule = rule_of(flow, dir, dialect);
                rule.ok().and_then(|rule| rule.matches.dest)
            })
        };

        assert_eq!(dest(&flow, Dialect::Tc), [Some(LAN_MAC), Some(WAN_MAC)]);
        assert_eq!(dest(&flow, Dialect::Router), [None; 2]);
        // That of VRRP.
        let vmac = [0x00, 0x00, 0x5e, 0x00, 0x01, 0x33];
        flow.tuples[0].dest = Some(vmac);
        assert_eq!(dest(&flow, Dialect::Tc), [Some(vmac), Some(WAN_MAC)]);
        // Nothing is known of the other direction.
        flow.tuples[1].xmit = Xmit::Unresolved;
        flow.tuples[0].dest = None;
        assert_eq!(dest(&flow, Dialect::Tc), [None; 2]);
    }

    #[test]
    fn only_tcp_is_watched_for_its_end() {
        for (l4proto, watched) in [(IPPROTO_TCP, true), (IPPROTO_UDP, false)] {
            let Some(rule) = translated(&routed(l4proto), Direction::Original) else {
                return;
            };
            assert_eq!(rule.matches.tcp_goes_on, watched);
        }
    }

    #[test]
    fn masquerading_rewrites_the_source_and_back() {
        for (l4proto, header, l4) in [
            (IPPROTO_TCP, Header::Tcp, CSUM_TCP),
            (IPPROTO_UDP, Header::Udp, CSUM_UDP),
        ] {
            for (dir, addr_at, addr, port_at, port) in [
                (Direction::Original, 12, ROUTER, 0, 1025u16),
                (Direction::Reply, 16, CLIENT, 2, 40000),
            ] {
                let Some(rule) = translated(&masqueraded(l4proto), dir) else {
                    return;
                };
                let (bytes, touched) = written(&rule, Header::Ip4);
                assert_eq!(bytes[addr_at..addr_at + 4], addr);
                assert_eq!(touched.iter().filter(|&&touched| touched).count(), 4);

                let (bytes, touched) = written(&rule, header);
                assert_eq!(bytes[port_at..port_at + 2], port.to_be_bytes());
                assert_eq!(touched.iter().filter(|&&touched| touched).count(), 2);

                let actions = rule.actions.as_slice();
                assert_eq!(
                    actions[actions.len() - 2],
                    Action::Csum {
                        flags: CSUM_IPV4 | l4
                    }
                );
            }
        }
    }

    #[test]
    fn destination_nat_rewrites_the_destination_and_back() {
        let flow = Flow {
            dnat: true,
            ..flow(
                tuple(v4(CLIENT, ROUTER), 40000, 80, IPPROTO_UDP),
                tuple(v4(SERVER, CLIENT), 8080, 40000, IPPROTO_UDP),
            )
        };
        for (dir, addr_at, addr, port_at, port) in [
            (Direction::Original, 16, SERVER, 2, 8080u16),
            (Direction::Reply, 12, ROUTER, 0, 80),
        ] {
            let Some(rule) = translated(&flow, dir) else {
                return;
            };
            assert_eq!(written(&rule, Header::Ip4).0[addr_at..addr_at + 4], addr);
            assert_eq!(
                written(&rule, Header::Udp).0[port_at..port_at + 2],
                port.to_be_bytes()
            );
        }
    }

    #[test]
    fn ipv6_with_everything_fits() {
        let mut flow = Flow {
            snat: true,
            dnat: true,
            ..flow(
                tuple(v6(0x10, 0x30), 40000, 80, IPPROTO_TCP),
                tuple(v6(0x50, 0x70), 8080, 1025, IPPROTO_TCP),
            )
        };
        flow.tuples[0].encaps = [vlan(10), vlan(11)];
        flow.tuples[1].encaps = [vlan(20), vlan(21)];

        let Some(rule) = translated(&flow, Direction::Original) else {
            return;
        };
        let (bytes, touched) = written(&rule, Header::Ip6);
        let Addresses::V6 { src, dst } = flow.tuples[1].addresses else {
            return;
        };

        assert_eq!(bytes[8..24], dst);
        assert_eq!(bytes[24..40], src);
        assert!(touched[8..40].iter().all(|&touched| touched));
        assert_eq!(rule.actions.as_slice().len(), 19);
        assert!(!rule
            .actions
            .as_slice()
            .iter()
            .any(|action| matches!(action, Action::Csum { .. })));
    }

    #[test]
    fn tags_are_matched_and_taken_off_then_put_on() {
        let mut flow = routed(IPPROTO_UDP);
        flow.tuples[0].encaps = [vlan(10), vlan(11)];
        flow.tuples[1].encaps[0] = vlan(20);

        let Some(rule) = translated(&flow, Direction::Original) else {
            return;
        };
        assert_eq!(rule.matches.vlan.map(|tag| tag.id), Some(10));
        assert_eq!(rule.matches.cvlan.map(|tag| tag.id), Some(11));
        assert_eq!(
            rule.actions.as_slice()[4..7],
            [
                Action::VlanPop,
                Action::VlanPop,
                Action::VlanPush(
                    Vlan {
                        proto: ETH_P_8021Q,
                        id: 20
                    },
                    0
                )
            ]
        );
    }

    #[test]
    fn two_tags_are_pushed_in_the_order_that_the_driver_expects() {
        let mut flow = routed(IPPROTO_UDP);
        flow.tuples[1].encaps = [vlan(20), vlan(21)];

        for (dialect, ids) in [(Dialect::Router, [20, 21]), (Dialect::Tc, [21, 20])] {
            let rule = rule_of(&flow, Direction::Original, dialect).ok();
            let mut pushed = [0; 2];
            let mut to = pushed.iter_mut();

            for action in rule.iter().flat_map(|rule| rule.actions.as_slice()) {
                if let Action::VlanPush(tag, _) = action {
                    to.next().into_iter().for_each(|to| *to = tag.id);
                }
            }
            assert_eq!(pushed, ids);
        }
    }

    #[test]
    fn a_service_tag_is_matched_and_taken_off_or_put_on() {
        let mut flow = routed(IPPROTO_TCP);
        flow.tuples[1].encaps = [tag(ETH_P_8021AD, 100), vlan(7)];
        let service = Vlan {
            proto: ETH_P_8021AD,
            id: 100,
        };
        let customer = Vlan {
            proto: ETH_P_8021Q,
            id: 7,
        };

        for (dialect, first, second) in [
            (Dialect::Router, service, customer),
            (Dialect::Tc, customer, service),
        ] {
            let Ok(rule) = rule_of(&flow, Direction::Original, dialect) else {
                return assert!(false);
            };
            assert_eq!(rule.matches.vlan, None);
            assert_eq!(
                rule.actions.as_slice()[4..6],
                [Action::VlanPush(first, 0), Action::VlanPush(second, 0)]
            );
        }

        let Ok(rule) = rule_of(&flow, Direction::Reply, Dialect::Tc) else {
            return assert!(false);
        };
        assert_eq!(rule.matches.vlan, Some(service));
        assert_eq!(rule.matches.cvlan, Some(customer));
        assert_eq!(
            rule.actions.as_slice()[4..6],
            [Action::VlanPop, Action::VlanPop]
        );
    }

    #[test]
    fn tc_drivers_replace_one_tag_by_one_of_its_kind() {
        let none = [None; 2];
        let one = [vlan(5), None];
        let two = [vlan(5), vlan(6)];
        let service = [tag(ETH_P_8021AD, 5), None];
        let session = [vlan(5), tag(ETH_P_PPP_SES, 6)];

        for (off, on, possible) in [
            (two, none, true),
            (none, two, true),
            (one, one, true),
            (one, session, true),
            (service, service, true),
            (one, service, false),
            (service, one, false),
            (one, two, false),
            (two, one, false),
            (two, two, false),
        ] {
            let mut flow = routed(IPPROTO_UDP);
            flow.tuples[0].encaps = off;
            flow.tuples[1].encaps = on;
            assert_eq!(
                rule_of(&flow, Direction::Original, Dialect::Tc).err(),
                (!possible).then_some(Unsupported::VlanRewrite)
            );
            if off != service {
                assert!(rule_of(&flow, Direction::Original, Dialect::Router).is_ok());
            }
        }
    }

    #[test]
    fn a_probe_is_for_no_packet_and_has_no_tags() {
        let mut flow = masqueraded(IPPROTO_TCP);
        flow.tuples[0].encaps[0] = vlan(5);
        flow.tuples[1].encaps = [vlan(6), vlan(7)];

        let mut rule = Rule::new();

        assert_eq!(
            rule_of(&flow, Direction::Original, Dialect::Tc).err(),
            Some(Unsupported::VlanRewrite)
        );
        assert_eq!(
            probe(&flow, Direction::Original, Dialect::Tc, &mut rule),
            Ok(())
        );
        assert_eq!(rule.matches.addresses, v4([0; 4], SERVER));
        assert_eq!(rule.matches.vlan, None);
        assert!(rule
            .actions
            .as_slice()
            .contains(&Action::DecrementTtl(Header::Ip4)));
        assert!(!rule
            .actions
            .as_slice()
            .iter()
            .any(|action| matches!(action, Action::VlanPop | Action::VlanPush(..))));
    }

    #[test]
    fn priorities_are_those_that_the_host_gives_or_there_is_no_rule() {
        let pushed = |flow: &Flow, dialect| {
            let rule = rule_of(flow, Direction::Original, dialect)?;
            let mut found = [None; 2];
            let tags = rule
                .actions
                .as_slice()
                .iter()
                .filter_map(|action| match action {
                    Action::VlanPush(tag, priority) => Some((tag.id, *priority)),
                    _ => None,
                });
            for (to, tag) in found.iter_mut().zip(tags) {
                *to = Some(tag);
            }
            Ok::<_, Unsupported>(found)
        };
        let mut flow = routed(IPPROTO_TCP);
        flow.tuples[1].encaps = [vlan(20), vlan(21)];
        flow.tuples[1].priorities = [5, 3];

        // The inner one first.
        assert_eq!(
            pushed(&flow, Dialect::Tc),
            Ok([Some((21, 3)), Some((20, 5))])
        );
        assert_eq!(pushed(&flow, Dialect::Router), Err(Unsupported::Priority));
        // One that takes the place of another keeps that one's.
        flow.tuples[0].encaps[0] = vlan(10);
        flow.tuples[1].encaps[1] = None;
        assert_eq!(pushed(&flow, Dialect::Tc), Err(Unsupported::VlanRewrite));
        flow.tuples[1].priorities = [0; 2];
        assert_eq!(pushed(&flow, Dialect::Tc), Ok([Some((20, 0)), None]));
    }

    #[test]
    fn tags_that_the_switch_handles_are_left_to_it() {
        let mut flow = routed(IPPROTO_UDP);
        for tuple in &mut flow.tuples {
            tuple.encaps[0] = Some(Encap {
                proto: ETH_P_8021Q,
                id: 3,
                ingress_vlan: true,
            });
        }
        let Some(rule) = translated(&flow, Direction::Original) else {
            return;
        };
        assert_eq!(rule.matches.vlan, None);
        assert_eq!(rule.actions.as_slice().len(), 5);
    }

    #[test]
    fn a_pppoe_session_is_matched_or_put_on() {
        let mut flow = masqueraded(IPPROTO_TCP);
        flow.tuples[1].encaps = [vlan(7), tag(ETH_P_PPP_SES, 0x1234)];

        let (Some(up), Some(down)) = (
            translated(&flow, Direction::Original),
            translated(&flow, Direction::Reply),
        ) else {
            return;
        };
        assert_eq!(up.matches.pppoe, None);
        assert_eq!(
            up.actions.as_slice()[4..6],
            [
                Action::VlanPush(
                    Vlan {
                        proto: ETH_P_8021Q,
                        id: 7
                    },
                    0
                ),
                Action::PppoePush { session: 0x1234 }
            ]
        );
        assert_eq!(down.matches.pppoe, Some(0x1234));
        assert_eq!(down.matches.vlan.map(|tag| tag.id), Some(7));
    }

    #[test]
    fn a_lightweight_tunnel_is_put_on_or_matched_and_taken_off() {
        let here = [192, 0, 2, 1];
        let there = [192, 0, 2, 9];
        let tunnel = Tunnel {
            id: 0x1_0000_002a,
            addresses: v4(here, there),
            tos: 4,
            ttl: 64,
            flags: 0,
        };
        let mut flow = routed(IPPROTO_TCP);
        flow.tuples[0].lwtunnel = Some(LwTunnel::Ip(tunnel));

        let (Some(out), Some(back)) = (
            translated(&flow, Direction::Original),
            translated(&flow, Direction::Reply),
        ) else {
            return;
        };
        assert_eq!(out.tunnel, Some(tunnel));
        assert_eq!(out.matches.outer, None);
        assert_eq!(out.actions.as_slice()[0], Action::TunnelEncap);
        assert_eq!(back.tunnel, None);
        assert_eq!(
            back.matches.outer,
            Some(Outer {
                key: 42,
                addresses: v4(there, here)
            })
        );
        assert_eq!(back.actions.as_slice()[0], Action::TunnelDecap);
    }

    #[test]
    fn what_no_rule_expresses_is_refused_with_the_reason() {
        let refusal = |change: fn(&mut Flow)| {
            let mut flow = routed(IPPROTO_UDP);
            change(&mut flow);
            rule_of(&flow, Direction::Original, Dialect::Router).err()
        };

        assert_eq!(
            refusal(|flow| flow.tuples[0].l4proto = 132),
            Some(Unsupported::Protocol(132))
        );
        assert_eq!(
            refusal(|flow| flow.tuples[0].encaps[0] = tag(ETH_P_8021AD, 5)),
            Some(Unsupported::IngressTag(ETH_P_8021AD))
        );
        assert_eq!(
            refusal(|flow| flow.tuples[0].encaps = [tag(ETH_P_PPP_SES, 7), vlan(5)]),
            Some(Unsupported::Encapsulation(ETH_P_8021Q))
        );
        assert_eq!(
            refusal(|flow| flow.tuples[1].tunnel = true),
            Some(Unsupported::Tunnel)
        );
        assert_eq!(
            refusal(|flow| flow.tuples[0].xmit = Xmit::Ipsec),
            Some(Unsupported::Ipsec)
        );
        for tuple in [0, 1] {
            let mut flow = routed(IPPROTO_UDP);
            flow.tuples[tuple].lwtunnel = Some(LwTunnel::Other(1));
            assert_eq!(
                rule_of(&flow, Direction::Original, Dialect::Router).err(),
                Some(Unsupported::LwTunnel(1))
            );
            flow.tuples[tuple].lwtunnel = Some(LwTunnel::Options);
            assert_eq!(
                rule_of(&flow, Direction::Original, Dialect::Router).err(),
                Some(Unsupported::TunnelOptions)
            );
        }
        assert_eq!(
            refusal(|flow| flow.tuples[0].xmit = Xmit::Unresolved),
            Some(Unsupported::Unresolved)
        );
        assert_eq!(
            refusal(|flow| {
                flow.snat = true;
                for tuple in &mut flow.tuples {
                    tuple.l4proto = IPPROTO_GRE;
                }
            }),
            Some(Unsupported::Nat)
        );
    }

    #[test]
    fn a_full_list_takes_no_more() {
        let mut actions = Actions::new();

        for _ in 0..Actions::MAX {
            assert_eq!(actions.push(Action::VlanPop), Ok(()));
        }
        assert_eq!(actions.push(Action::VlanPop), Err(Full));
        assert_eq!(actions.as_slice().len(), Actions::MAX);
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The route of a flow, as the host would take it now.
//!
//! A flowtable entry keeps the frame's addresses and the device from the time when it was made, and
//! so does a rule in hardware. What the host would do is found here in the same steps as in
//! nf_flow_table_path.c: route, neighbour, devices from the top down.

use crate::{
    net::{
        device::MacAddress,
        flow_rule::{
            Addresses,
            ETH_P_IP,
            ETH_P_IPV6,
            ETH_P_PPP_SES,
            IPPROTO_TCP,
            IPPROTO_UDP, //
        },
        namespace::Net,
        route::{DevPath, DevPathType, FlowKey, NextHop}, //
    },
    netfilter::{
        conntrack::Direction,
        flow::{Encap, Flow, Tuple, Xmit, ENCAP_MAX}, //
    },
};
use core::net::{IpAddr, Ipv4Addr};

/// How packets reach a neighbour.
///
/// Ordered by neighbour first: [`ForwardPath::first_to`] is before all others to the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ForwardPath {
    /// Index of the device that the route leads to.
    pub(super) ifindex: u32,
    /// The gateway, or the receiver itself.
    pub(super) neighbour: IpAddr,
    /// Of the packets: a gateway may be of the other family.
    ether_type: u16,
    /// Index of the device at the info, which is the hardware's.
    pub(super) egress: u32,
    source: MacAddress,
    dest: MacAddress,
    /// From the outermost header inwards.
    encaps: [Option<Encap>; ENCAP_MAX],
    /// How long the route lets packets be.
    mtu: u32,
}

/// What is below a device, `struct nft_forward_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ForwardInfo {
    egress: u32,
    source: MacAddress,
    dest: MacAddress,
    encaps: [Option<Encap>; ENCAP_MAX],
}

impl ForwardInfo {
    /// Follows a frame to `dest` down to the device that sends it. `None` if a flowtable cannot.
    /// C: `nft_dev_path_info()`.
    fn from_stack(dest: MacAddress, steps: impl Iterator<Item = DevPath>) -> Option<Self> {
        let mut info = Self {
            egress: 0,
            source: [0; 6],
            dest,
            encaps: [None; ENCAP_MAX],
        };
        // From the innermost header outwards.
        let mut encaps = [None; ENCAP_MAX];
        let mut count = 0;

        for step in steps {
            if info.source == [0; 6] {
                info.source = step.source;
            }
            let tag = match step.kind {
                DevPathType::Vlan { proto, id } | DevPathType::BridgeTag { proto, id } => {
                    Some((proto, id))
                }
                DevPathType::Pppoe { session, peer } => {
                    info.dest = peer;
                    Some((ETH_P_PPP_SES, session))
                }
                DevPathType::BridgeUntag => {
                    count = usize::checked_sub(count, 1)?;
                    encaps[count] = None;
                    None
                }
                DevPathType::BridgeUntagByPort => {
                    encaps
                        .get_mut(usize::checked_sub(count, 1)?)?
                        .as_mut()
                        .map(|encap: &mut Encap| encap.ingress_vlan = true)?;
                    None
                }
                DevPathType::Ethernet | DevPathType::Dsa | DevPathType::Bridge => None,
                DevPathType::Other => return None,
            };
            if let Some((proto, id)) = tag {
                *encaps.get_mut(count)? = Some(Encap {
                    proto,
                    id,
                    ingress_vlan: false,
                });
                count += 1;
            }
            if !matches!(
                step.kind,
                DevPathType::Bridge
                    | DevPathType::BridgeTag { .. }
                    | DevPathType::BridgeUntag
                    | DevPathType::BridgeUntagByPort
            ) {
                info.egress = step.ifindex;
            }
            if step.kind == DevPathType::Dsa {
                break;
            }
        }

        for (to, from) in info.encaps.iter_mut().zip(encaps[..count].iter().rev()) {
            *to = *from;
        }
        Some(info)
    }
}

impl ForwardPath {
    /// Returns a path that is not after any path to this neighbour.
    pub(super) const fn first_to(ifindex: u32, neighbour: IpAddr) -> Self {
        Self {
            ifindex,
            neighbour,
            ether_type: 0,
            egress: 0,
            source: [0; 6],
            dest: [0; 6],
            encaps: [None; ENCAP_MAX],
            mtu: 0,
        }
    }

    /// How packets reach the neighbour now; `None` if they do not.
    fn find(net: &Net, ifindex: u32, neighbour: IpAddr, ether_type: u16, mtu: u32) -> Option<Self> {
        let steps = net.forward_path(ifindex, neighbour, ether_type).ok()?;
        let info = ForwardInfo::from_stack(steps.dest, steps.iter())?;

        Some(Self {
            ifindex,
            neighbour,
            ether_type,
            egress: info.egress,
            source: info.source,
            dest: info.dest,
            encaps: info.encaps,
            mtu,
        })
    }

    fn by(net: &Net, hop: NextHop, receiver: IpAddr) -> Option<Self> {
        let ether_type = match receiver {
            IpAddr::V4(_) => ETH_P_IP,
            IpAddr::V6(_) => ETH_P_IPV6,
        };
        let neighbour = hop.gateway.unwrap_or(receiver);

        Self::find(net, hop.ifindex, neighbour, ether_type, hop.mtu)
    }

    /// Returns whether packets still reach the neighbour by this path. Does not sleep.
    pub(super) fn is_current(&self, net: &Net) -> bool {
        let now = Self::find(net, self.ifindex, self.neighbour, self.ether_type, self.mtu);
        now.as_ref() == Some(self)
    }

    /// Returns whether packets with this key, and those with the other mark if there is one, are routed
    /// to the path. Does not sleep.
    fn is_routed_to(&self, net: &Net, key: &FlowKey, other_mark: Option<u32>) -> bool {
        let is_hop = |hop: NextHop| {
            hop.ifindex == self.ifindex
                && hop.gateway.unwrap_or(key.dst) == self.neighbour
                && hop.mtu == self.mtu
        };
        let leads_here =
            |key: &FlowKey| net.next_hops(key).is_ok_and(|hops| hops.iter().any(is_hop));

        leads_here(key) && other_mark.is_none_or(|mark| leads_here(&FlowKey { mark, ..*key }))
    }

    /// Does to the neighbour's entry what sending a packet does, so that the host asks a neighbour that
    /// has not been heard of for long whether it is still there. Does not sleep.
    ///
    /// C: `neigh_event_send()`.
    pub(super) fn confirm_neighbour(&self, net: &Net) {
        net.confirm_neighbour(self.ifindex, self.neighbour);
    }

    /// Returns the MAC address to which frames are sent.
    pub(super) fn dmac(&self) -> MacAddress {
        self.dest
    }

    /// Returns whether `flow` sends packets of direction `dir` by this path.
    fn is_of(&self, flow: &Flow, dir: Direction) -> bool {
        let back = flow.tuple(dir.reverse());

        flow.tuple(dir).xmit
            == Xmit::Ethernet {
                ifindex: self.egress,
                source: self.source,
                dest: self.dest,
            }
            && back.ingress == self.egress
            && back.encaps == self.encaps
    }
}

/// One direction of a [`FlowRoute`].
#[derive(Clone, Copy)]
struct DirRoute {
    key: FlowKey,
    /// Another mark with which the same route is found.
    other_mark: Option<u32>,
    /// Packets with the connection's mark would go elsewhere.
    is_odd: bool,
    path: ForwardPath,
}

/// The route of both directions of a flow, `struct nf_flow_route`.
#[derive(Clone, Copy)]
pub(super) struct FlowRoute([DirRoute; 2]);

/// With which marks the routes of a flow are found, one for each direction: all that is to be kept of
/// a route beside its paths.
#[derive(Clone, Copy, Default)]
pub(super) struct Marks {
    /// The connection's mark when the route was found.
    pub(super) mark: u32,
    pub(super) with: [MarkUse; 2],
}

/// What a direction's route has to do with the connection's mark.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum MarkUse {
    /// It is found without the mark.
    #[default]
    Without,
    /// It is found with the mark, and not without.
    With,
    /// It is found both ways.
    Both,
}

/// The route of a packet of direction `dir`, between the translations of its destination and of its
/// source.
fn flow_key(flow: &Flow, dir: Direction, iif: u32, mark: u32) -> FlowKey {
    let (this, back) = (flow.tuple(dir), flow.tuple(dir.reverse()));
    let src = |addresses| match addresses {
        Addresses::V4 { src, .. } => IpAddr::from(src),
        Addresses::V6 { src, .. } => IpAddr::from(src),
    };
    let (sport, dport) = match this.l4proto {
        IPPROTO_TCP | IPPROTO_UDP => (this.ports.src, back.ports.src),
        _ => (0, 0),
    };

    FlowKey {
        iif,
        mark,
        l4proto: this.l4proto,
        src: src(this.addresses),
        dst: src(back.addresses),
        sport,
        dport,
    }
}

/// The device by which packets of a tuple come in, in the eyes of IP, if its tags tell.
fn input(net: &Net, tuple: &Tuple) -> Option<u32> {
    let tags = tuple.encaps.iter().flatten();
    let tagged = tags.copied().try_fold(tuple.ingress, |ifindex, tag| {
        net.device_of_tag(ifindex, tag.proto, tag.id)
    })?;

    net.device_of_ip(tagged)
}

/// Finds both directions, the original one first, each with the device by which the other one
/// `leaves`: by `find` from a direction and the device by which its packets come in. Begins with `dir`
/// and `iif`. Returns `None` if it comes to no end.
fn settle<T>(
    dir: Direction,
    iif: u32,
    found: &mut [T; 2],
    find: impl Fn(&mut T, Direction, u32) -> Option<()>,
    leaves: impl Fn(&T) -> u32,
) -> Option<()> {
    const ROUNDS: usize = 4;
    let [this, back] = found;
    let (this, back) = match dir {
        Direction::Original => (this, back),
        Direction::Reply => (back, this),
    };
    let mut came_by = iif;
    find(this, dir, iif)?;

    for _ in 0..ROUNDS {
        let left_by = leaves(this);
        find(back, dir.reverse(), left_by)?;
        if leaves(back) == came_by {
            return Some(());
        }
        came_by = leaves(back);
        find(this, dir, came_by)?;
        if leaves(this) == left_by {
            return Some(());
        }
    }
    None
}

impl DirRoute {
    /// A route to be found.
    const fn new() -> Self {
        const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

        Self {
            key: FlowKey {
                iif: 0,
                mark: 0,
                l4proto: 0,
                src: NOWHERE,
                dst: NOWHERE,
                sport: 0,
                dport: 0,
            },
            other_mark: None,
            is_odd: false,
            path: ForwardPath::first_to(0, NOWHERE),
        }
    }

    /// The path of `flow`, if it is among those of packets of direction `dir` with this key. `None` if
    /// these are not forwarded.
    fn path_of(
        net: &Net,
        flow: &Flow,
        dir: Direction,
        key: &FlowKey,
    ) -> Option<Option<ForwardPath>> {
        let hops = net.next_hops(key).ok()?;
        let path = hops
            .iter()
            .filter_map(|hop| ForwardPath::by(net, hop, key.dst))
            .find(|path| path.is_of(flow, dir));
        Some(path)
    }

    /// Finds the route of packets of direction `dir` that come in by the device `iif`, if it is what
    /// `flow` does with them.
    fn find(&mut self, net: &Net, flow: &Flow, dir: Direction, iif: u32, mark: u32) -> Option<()> {
        self.key = flow_key(flow, dir, iif, mark);
        self.other_mark = None;
        self.is_odd = false;
        if mark != 0 {
            let marked = Self::path_of(net, flow, dir, &self.key);
            self.key.mark = 0;
            if let Some(Some(path)) = marked {
                let unmarked = Self::path_of(net, flow, dir, &self.key).flatten();
                self.key.mark = mark;
                self.other_mark = (unmarked == Some(path)).then_some(0);
                self.path = path;
                return Some(());
            }
            self.is_odd = marked.is_some();
        }
        self.path = Self::path_of(net, flow, dir, &self.key)??;
        Some(())
    }

    fn mark_use(&self) -> MarkUse {
        match (self.key.mark, self.other_mark) {
            (0, _) => MarkUse::Without,
            (_, None) => MarkUse::With,
            (_, Some(_)) => MarkUse::Both,
        }
    }
}

impl FlowRoute {
    /// Finds the route that `flow` takes, if the host would take it now. Does not sleep.
    ///
    /// Packets come in by the device at which the other direction leaves, and rules may ask for
    /// that; so either direction's route is the one that is found with the device of the other
    /// ([`settle`]). Where to begin is guessed.
    pub(super) fn find(net: &Net, flow: &Flow, mark: u32) -> Option<Self> {
        let guesses = [
            (Direction::Reply, true),
            (Direction::Original, true),
            (Direction::Reply, false),
        ];
        let mut route = Self([const { DirRoute::new() }; 2]);
        let is_found = guesses.into_iter().any(|(dir, has_input)| {
            let iif = if has_input {
                input(net, flow.tuple(dir))
            } else {
                Some(0)
            };
            let found = iif.and_then(|iif| {
                settle(
                    dir,
                    iif,
                    &mut route.0,
                    |route, dir, iif| route.find(net, flow, dir, iif, mark),
                    |route| route.path.ifindex,
                )
            });
            found.is_some() && route.is_sure()
        });
        is_found.then_some(route)
    }

    /// Packets may have been routed by their mark, which is not kept anywhere: only those without
    /// one, and with that of the connection, are found again. If both lead to the same path, the flow
    /// is evicted as soon as one of them leads elsewhere.
    ///
    /// If the connection's mark selects another route, it is unknown whether this direction's packets
    /// carry it: `nft_flow_route()` looks up both directions with the mark of one packet. But if the
    /// other direction's route needs the mark, the entry is from a packet with the mark, and
    /// `nft_flow_route()` has seen that it would come back.
    fn is_sure(&self) -> bool {
        let [original, reply] = &self.0;
        let needs_mark = |route: &DirRoute| route.mark_use() == MarkUse::With;

        (!original.is_odd || needs_mark(reply)) && (!reply.is_odd || needs_mark(original))
    }

    /// Returns with which marks the route was found.
    pub(super) fn marks(&self) -> Marks {
        let [original, reply] = &self.0;

        Marks {
            mark: original.key.mark | reply.key.mark,
            with: [original.mark_use(), reply.mark_use()],
        }
    }

    /// Returns the path and the destination of each direction, the original one first.
    pub(super) fn hops(&self) -> [(&ForwardPath, IpAddr); 2] {
        let [original, reply] = &self.0;
        [
            (&original.path, original.key.dst),
            (&reply.path, reply.key.dst),
        ]
    }

    /// Returns whether the host would still send packets of both directions by the same paths. Does
    /// not sleep.
    pub(super) fn is_current(&self, net: &Net) -> bool {
        self.0.iter().all(|route| {
            route.path.is_routed_to(net, &route.key, route.other_mark) && route.path.is_current(net)
        })
    }
}

/// The route of a flow that was found before.
pub(super) struct KnownRoute<'a> {
    pub(super) flow: &'a Flow,
    pub(super) paths: [&'a ForwardPath; 2],
    pub(super) marks: Marks,
}

impl KnownRoute<'_> {
    /// Returns whether the route of direction `dir` still leads to its path; whether that still exists
    /// is not asked. Does not sleep.
    pub(super) fn route_is_current(&self, net: &Net, dir: Direction) -> bool {
        // Packets come in by the device at which those of the other direction leave.
        let iif = self.paths[dir.reverse() as usize].ifindex;
        let (mark, other_mark) = match self.marks.with[dir as usize] {
            MarkUse::Without => (0, None),
            MarkUse::With => (self.marks.mark, None),
            MarkUse::Both => (self.marks.mark, Some(0)),
        };
        let key = flow_key(self.flow, dir, iif, mark);

        self.paths[dir as usize].is_routed_to(net, &key, other_mark)
    }

    /// Returns whether the host would still send packets of direction `dir` by the same path. Does not
    /// sleep.
    pub(super) fn dir_is_current(&self, net: &Net, dir: Direction) -> bool {
        self.route_is_current(net, dir) && self.paths[dir as usize].is_current(net)
    }
}

#[kernel::macros::kunit_tests(nft_offload_route)]
mod tests {
    use super::*;
    use crate::net::flow_rule::ETH_P_8021Q;

    const PEER: MacAddress = [2, 0, 0, 0, 0, 9];

    fn step(ifindex: u32, kind: DevPathType) -> DevPath {
        DevPath {
            ifindex,
            source: [2, 0, 0, 0, 1, ifindex as u8],
            kind,
        }
    }

    fn vlan(id: u16) -> DevPathType {
        DevPathType::Vlan {
            proto: ETH_P_8021Q,
            id,
        }
    }

    fn tag(proto: u16, id: u16, ingress_vlan: bool) -> Option<Encap> {
        Some(Encap {
            proto,
            id,
            ingress_vlan,
        })
    }

    #[test]
    fn a_device_without_others_below_sends_by_itself() {
        let info = ForwardInfo::from_stack(PEER, [step(3, DevPathType::Ethernet)].into_iter());

        assert_eq!(
            info,
            Some(ForwardInfo {
                egress: 3,
                source: [2, 0, 0, 0, 1, 3],
                dest: PEER,
                encaps: [None; 2],
            })
        );
    }

    #[test]
    fn headers_are_those_of_the_devices_on_the_way_outermost_first() {
        let steps = [
            step(9, vlan(20)),
            step(8, vlan(10)),
            step(3, DevPathType::Ethernet),
        ];
        let Some(info) = ForwardInfo::from_stack(PEER, steps.into_iter()) else {
            return assert!(false);
        };

        assert_eq!(info.egress, 3);
        // As the uppermost device has it.
        assert_eq!(info.source, [2, 0, 0, 0, 1, 9]);
        assert_eq!(
            info.encaps,
            [tag(ETH_P_8021Q, 10, false), tag(ETH_P_8021Q, 20, false)]
        );
    }

    #[test]
    fn a_session_has_its_own_peer() {
        let steps = [
            step(
                9,
                DevPathType::Pppoe {
                    session: 7,
                    peer: PEER,
                },
            ),
            step(3, DevPathType::Ethernet),
        ];
        let Some(info) = ForwardInfo::from_stack([0; 6], steps.into_iter()) else {
            return assert!(false);
        };

        assert_eq!(info.dest, PEER);
        assert_eq!(info.encaps, [tag(ETH_P_PPP_SES, 7, false), None]);
    }

    #[test]
    fn bridges_put_tags_on_and_take_them_off() {
        let port = step(3, DevPathType::Ethernet);
        let encaps = |steps: &[DevPath]| {
            ForwardInfo::from_stack(PEER, steps.iter().copied())
                .map(|info| (info.egress, info.encaps))
        };
        let tagged = DevPathType::BridgeTag {
            proto: ETH_P_8021Q,
            id: 5,
        };

        assert_eq!(
            encaps(&[step(9, tagged), port]),
            Some((3, [tag(ETH_P_8021Q, 5, false), None]))
        );
        assert_eq!(
            encaps(&[step(10, vlan(5)), step(9, DevPathType::BridgeUntag), port]),
            Some((3, [None; 2]))
        );
        assert_eq!(
            encaps(&[
                step(10, vlan(5)),
                step(9, DevPathType::BridgeUntagByPort),
                port
            ]),
            Some((3, [tag(ETH_P_8021Q, 5, true), None]))
        );
        assert_eq!(encaps(&[step(9, DevPathType::BridgeUntag), port]), None);
        assert_eq!(
            encaps(&[step(9, DevPathType::BridgeUntagByPort), port]),
            None
        );
    }

    #[test]
    fn what_a_flowtable_cannot_do_has_no_path() {
        assert!(ForwardInfo::from_stack(PEER, [step(3, DevPathType::Other)].into_iter()).is_none());
        let three = [
            step(9, vlan(1)),
            step(8, vlan(2)),
            step(7, vlan(3)),
            step(3, DevPathType::Ethernet),
        ];
        assert!(ForwardInfo::from_stack(PEER, three.into_iter()).is_none());
    }

    /// A network in which packets of either direction leave by a device that depends on how they
    /// have come in.
    fn found(dir: Direction, iif: u32, net: impl Fn(Direction, u32) -> u32) -> Option<[u32; 2]> {
        let mut found = [0; 2];
        let find = |to: &mut u32, dir, iif| {
            *to = net(dir, iif);
            (*to != 0).then_some(())
        };
        settle(dir, iif, &mut found, find, |&device| device).map(|()| found)
    }

    #[test]
    fn each_direction_is_found_with_the_device_of_the_other() {
        // By 1 and 2, but replies that come in by no device, or by 2, leave by 3 and by 1.
        let net = |dir, iif| match (dir, iif) {
            (Direction::Original, 1) => 2,
            (Direction::Reply, 2) => 1,
            (Direction::Original, 3) => 2,
            (Direction::Reply, 0) => 3,
            _ => 0,
        };

        assert_eq!(found(Direction::Reply, 2, net), Some([2, 1]));
        assert_eq!(found(Direction::Original, 1, net), Some([2, 1]));
        // The first guess decides nothing.
        assert_eq!(found(Direction::Reply, 0, net), Some([2, 1]));
        assert_eq!(found(Direction::Original, 0, net), None);
    }

    #[test]
    fn what_comes_to_no_end_is_not_found() {
        let net = |dir, iif| match (dir, iif) {
            (Direction::Original, iif) => iif,
            (Direction::Reply, 1) => 2,
            (Direction::Reply, _) => 1,
        };

        assert_eq!(found(Direction::Reply, 1, net), None);
        assert_eq!(found(Direction::Original, 1, net), None);
    }
}

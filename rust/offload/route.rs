// SPDX-License-Identifier: GPL-2.0

//! The route of a flow, as the host would take it now.
//!
//! A flowtable entry keeps the frame's addresses and the device from the time when it was made, and
//! so does a rule in hardware. What the host would do is found here in the same steps as in
//! nf_flow_table_path.c: route, neighbour, devices from the top down.

use crate::{
    net::{
        device::MacAddress,
        enetunreach,
        flow_rule::{
            ETH_P_IP,
            ETH_P_IPV6,
            ETH_P_PPP_SES,
            IPPROTO_TCP,
            IPPROTO_UDP, //
        },
        namespace::Net,
        route::{DevPath, DevPathType, FlowKey, Marks, NextHop, NextHops, Pcp}, //
    },
    netfilter::{
        conntrack::{Conntrack, Direction},
        flow::{Encap, Flow, FlowOffload, Tuple, Xmit, ENCAP_MAX}, //
    },
};
use core::net::{IpAddr, Ipv4Addr};
use kernel::{
    alloc::flags::__GFP_NOWARN,
    prelude::*, //
};

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
    /// To which address frames come back: `source`, or that of a macvlan device.
    receiver: MacAddress,
    /// From the outermost header inwards.
    encaps: [Option<Encap>; ENCAP_MAX],
    /// Of the VLAN tags among these.
    pcps: [Pcp; ENCAP_MAX],
    /// How long the route lets packets be.
    mtu: u32,
    /// How long the hardware's device lets them be, with their headers but for VLAN tags.
    egress_mtu: u32,
}

/// What is below a device, `struct nft_forward_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ForwardInfo {
    egress: u32,
    source: MacAddress,
    dest: MacAddress,
    encaps: [Option<Encap>; ENCAP_MAX],
    pcps: [Pcp; ENCAP_MAX],
    egress_mtu: u32,
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
            pcps: [Pcp::All(0); ENCAP_MAX],
            egress_mtu: 0,
        };
        // From the innermost header outwards.
        let mut encaps = [None; ENCAP_MAX];
        let mut pcps = [Pcp::All(0); ENCAP_MAX];
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
                    pcps[count] = Pcp::All(0);
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
                // A bridge gives none of its own.
                if let DevPathType::Vlan { .. } = step.kind {
                    pcps[count] = step.pcp;
                }
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
                info.egress_mtu = step.mtu;
            }
            if step.kind == DevPathType::Dsa {
                break;
            }
        }

        for (to, from) in info.encaps.iter_mut().zip(encaps[..count].iter().rev()) {
            *to = *from;
        }
        for (to, from) in info.pcps.iter_mut().zip(pcps[..count].iter().rev()) {
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
            receiver: [0; 6],
            encaps: [None; ENCAP_MAX],
            pcps: [Pcp::All(0); ENCAP_MAX],
            mtu: 0,
            egress_mtu: 0,
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
            receiver: info.source,
            encaps: info.encaps,
            pcps: info.pcps,
            mtu,
            egress_mtu: info.egress_mtu,
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
        let now = now.map(|now| now.received_at(net, self.receiver));
        now.as_ref() == Some(self)
    }

    /// Returns the path by which frames come back to `receiver`, if the host has this address there.
    fn received_at(self, net: &Net, receiver: MacAddress) -> Self {
        let mut tags = self.encaps.iter().flatten().filter(|tag| !tag.ingress_vlan);
        let vlan = tags
            .rfind(|tag| tag.proto != ETH_P_PPP_SES)
            .map(|tag| tag.id);
        let is_there = receiver != self.source && net.has_macvlan(self.egress, vlan, receiver);

        Self {
            receiver: if is_there { receiver } else { self.source },
            ..self
        }
    }

    /// Returns whether it is by this path that frames come back to `receiver`, as far as the host has this
    /// address there. Does not sleep.
    pub(super) fn is_received_at(&self, net: &Net, receiver: MacAddress) -> bool {
        self.receiver == receiver || self.received_at(net, receiver) == *self
    }

    /// Returns the address to which frames come back, if it is not the one that packets leave from.
    pub(super) fn other_receiver(&self) -> Option<MacAddress> {
        (self.receiver != self.source).then_some(self.receiver)
    }

    /// Returns whether packets with this key are routed to the path. Does not sleep.
    fn is_routed_to(&self, net: &Net, key: &FlowKey) -> bool {
        let is_hop = |hop: NextHop| self.is_to(hop, key.dst) && hop.mtu == self.mtu;

        let mut hops = NextHops::new();
        net.next_hops(key, &mut hops).is_ok() && hops.iter().any(is_hop)
    }

    /// Returns whether the path leads to the next hop of packets to `receiver`.
    fn is_to(&self, hop: NextHop, receiver: IpAddr) -> bool {
        hop.ifindex == self.ifindex && hop.gateway.unwrap_or(receiver) == self.neighbour
    }

    /// Does to the neighbour's entry what sending a packet does, so that the host asks a neighbour that
    /// has not been heard of for long whether it is still there. Does not sleep.
    ///
    /// C: `neigh_event_send()`.
    pub(super) fn confirm_neighbour(&self, net: &Net) {
        net.confirm_neighbour(self.ifindex, self.neighbour);
    }

    /// Returns whether the route leads to a device that has others below it: a bridge, a VLAN.
    pub(super) fn has_devices_below(&self) -> bool {
        self.ifindex != self.egress
    }

    /// Returns how long the route lets packets be.
    pub(super) fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Returns whether packets that are too long for the way are too long for the device, which hardware
    /// looks at: no rule can ask for a packet's length.
    pub(super) fn is_limited_by_device(&self) -> bool {
        const PPPOE_HEADERS: u32 = 8;
        let sessions = self.encaps.iter().flatten();
        let sessions = sessions
            .filter(|encap| encap.proto == ETH_P_PPP_SES)
            .count() as u32;

        self.mtu.saturating_add(PPPOE_HEADERS * sessions) >= self.egress_mtu
    }

    /// Returns the priorities of the VLAN tags that packets get, in the order of their headers. `None` if
    /// not all packets get the same ones.
    pub(super) fn priorities(&self) -> Option<[u8; ENCAP_MAX]> {
        let mut to = [0; ENCAP_MAX];
        for (to, pcp) in to.iter_mut().zip(self.pcps) {
            match pcp {
                Pcp::All(pcp) => *to = pcp,
                Pcp::Varies => return None,
            }
        }
        Some(to)
    }

    /// Returns the MAC address from which frames are sent.
    pub(super) fn smac(&self) -> MacAddress {
        self.source
    }

    /// Returns the headers around the packets, from the outermost inwards.
    pub(super) fn encaps(&self) -> &[Option<Encap>; ENCAP_MAX] {
        &self.encaps
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

/// Returns the index of the device at the cable by which packets with this key leave by `ifindex`, if
/// that is a way for them. Does not sleep.
pub(super) fn egress(net: &Net, key: &FlowKey, ifindex: u32) -> Option<u32> {
    let mut hops = NextHops::new();
    net.next_hops(key, &mut hops).ok()?;
    let hop = hops.iter().find(|hop| hop.ifindex == ifindex)?;

    Some(ForwardPath::by(net, hop, key.dst)?.egress)
}

/// One direction of a [`FlowRoute`].
#[derive(Clone, Copy)]
struct DirRoute {
    key: FlowKey,
    path: ForwardPath,
}

/// The route of both directions of a flow, `struct nf_flow_route`.
#[derive(Clone, Copy)]
pub(super) struct FlowRoute([DirRoute; 2]);

/// Why the route of a flow was not found.
#[derive(Default)]
pub(super) struct NoRoute {
    /// The first direction whose packets the host would not forward, or not in the clear; `None` if it
    /// would send them another way.
    pub(super) refused: Option<(Direction, Error)>,
    /// `None` if there is no memory for it.
    pub(super) view: Option<KBox<HostView>>,
}

impl NoRoute {
    /// Looks up packets that come in by the devices with these indices. Does not sleep.
    fn find(net: &Net, flow: &Flow, iifs: [u32; 2], marks: [Marks; 2]) -> Self {
        let mut view = HostView {
            keys: Direction::BOTH.map(|dir| flow_key(flow, dir, iifs[dir as usize], marks)),
            paths: [None; 2],
        };
        // Where there is no route, the core makes no entry either.
        let refused = view
            .look(net)
            .err()
            .filter(|&(_, error)| error != enetunreach());

        Self {
            refused,
            view: KBox::new(view, GFP_ATOMIC | __GFP_NOWARN).ok(),
        }
    }
}

/// What the last packets of each direction of a connection were routed by, as far as that is known. Does
/// not sleep.
pub(super) fn last_marks(conntrack: &Conntrack) -> [Option<Marks>; 2] {
    Direction::BOTH.map(|dir| {
        let (mark, dscp, is_hashed) = conntrack.last_packet(dir)?;
        Some(Marks {
            mark,
            dscp,
            is_hashed,
        })
    })
}

/// What the packets of each direction of a connection are routed by. Does not sleep.
pub(super) enum LastPackets {
    /// So the last ones were, as far as it makes a difference.
    Known([Marks; 2]),
    /// That is not known, and may make a difference.
    Unknown,
}

impl LastPackets {
    pub(super) fn of(conntrack: &Conntrack, net: &Net) -> Self {
        let has_policies = net.has_policies();
        let [original, reply] = last_marks(conntrack);
        let or_any =
            |last: Option<Marks>, is_any: bool| last.or_else(|| is_any.then(|| Marks::only(0)));

        match (
            or_any(original, !has_policies),
            or_any(reply, !has_policies || !conntrack.has_seen_reply()),
        ) {
            (Some(original), Some(reply)) => Self::Known([original, reply]),
            _ => Self::Unknown,
        }
    }
}

/// Has the host choose next hops for packets of an entry as for one of each direction that it forwards. Does
/// not sleep.
pub(super) fn choose_hops(entry: &FlowOffload) {
    let (net, conntrack) = (entry.net(), entry.conntrack());
    let mut flow = Flow::new();
    if entry.describe_packets_of_both(&mut flow).is_none() {
        return;
    }
    let unknown = Marks::only(conntrack.mark());
    let marks = last_marks(conntrack).map(|marks| marks.unwrap_or(unknown));

    for dir in Direction::BOTH {
        if let Some(iif) = input(net, flow.tuple(dir)) {
            let _ = net.next_hops(&flow_key(&flow, dir, iif, marks), &mut NextHops::new());
        }
    }
}

/// What the host does with the packets of a flow.
pub(super) struct HostView {
    keys: [FlowKey; 2],
    paths: [Option<ForwardPath>; 2],
}

impl HostView {
    fn look(&mut self, net: &Net) -> Result<(), (Direction, Error)> {
        let mut result = Ok(());
        let mut hops = NextHops::new();

        for dir in Direction::BOTH {
            let key = &self.keys[dir as usize];
            let path = &mut self.paths[dir as usize];
            match net.next_hops(key, &mut hops) {
                Ok(()) => {
                    let hop = hops.iter().next();
                    *path = hop.and_then(|hop| ForwardPath::by(net, hop, key.dst));
                }
                Err(error) => {
                    *path = None;
                    result = result.and(Err((dir, error)));
                }
            }
        }
        result
    }

    /// Returns whether packets have other marks by now.
    pub(super) fn is_marked_otherwise(&self, marks: [Option<Marks>; 2]) -> bool {
        let is_other =
            |(key, marks): (&FlowKey, Option<Marks>)| marks.is_some_and(|marks| marks != key.marks);
        self.keys.iter().zip(marks).any(is_other)
    }

    /// Returns whether the host sends the packets of both directions, and not as when this was asked for
    /// the last time. `marks` are those of the packets, as far as they are known. Does not sleep.
    pub(super) fn has_changed(&mut self, net: &Net, marks: [Option<Marks>; 2]) -> bool {
        let old = self.paths;

        for (key, marks) in self.keys.iter_mut().zip(marks) {
            key.marks = marks.unwrap_or(key.marks);
        }
        let _ = self.look(net);
        self.paths.iter().all(Option::is_some) && self.paths != old
    }

    /// Returns whether the core would guess the way of a direction wrong when it makes an entry for a packet
    /// of the other one. Does not sleep.
    pub(super) fn is_guessed_wrong(&self, net: &Net) -> bool {
        let [original, reply] = &self.keys;
        let is_wrong = |key: &FlowKey, other: &FlowKey, path: &Option<ForwardPath>| {
            let Some(path) = path else {
                return false;
            };
            let key = FlowKey {
                marks: other.marks,
                ..*key
            };
            !net.guessed_hop(&key, path.ifindex)
                .is_ok_and(|hop| path.is_to(hop, key.dst))
        };

        is_wrong(original, reply, &self.paths[0]) || is_wrong(reply, original, &self.paths[1])
    }
}

/// A packet of direction `dir` that comes in by the device `iif`.
fn flow_key(flow: &Flow, dir: Direction, iif: u32, marks: [Marks; 2]) -> FlowKey {
    let (this, back) = (flow.tuple(dir), flow.tuple(dir.reverse()));
    let has_ports = matches!(this.l4proto, IPPROTO_TCP | IPPROTO_UDP);
    let port = |port| if has_ports { port } else { 0 };

    FlowKey {
        iif,
        marks: marks[dir as usize],
        l4proto: this.l4proto,
        src: this.addresses.src(),
        dst: back.addresses.src(),
        sport: port(this.ports.src),
        dport: port(back.ports.src),
        in_dst: this.addresses.dst(),
        in_dport: port(this.ports.dst),
        out_src: back.addresses.dst(),
        out_sport: port(back.ports.dst),
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
            key: FlowKey::NONE,
            path: ForwardPath::first_to(0, NOWHERE),
        }
    }

    /// Finds the route of packets of direction `dir` that come in by the device `iif`, if it is what
    /// `flow` does with them.
    fn find(
        &mut self,
        net: &Net,
        flow: &Flow,
        dir: Direction,
        iif: u32,
        marks: [Marks; 2],
    ) -> Option<()> {
        self.key = flow_key(flow, dir, iif, marks);
        let mut hops = NextHops::new();
        net.next_hops(&self.key, &mut hops).ok()?;

        self.path = hops
            .iter()
            .filter_map(|hop| ForwardPath::by(net, hop, self.key.dst))
            .find(|path| path.is_of(flow, dir))?;
        Some(())
    }
}

impl FlowRoute {
    /// Finds the route that `flow` takes, if the host would take it now with packets with these `marks`,
    /// one for each direction. Does not sleep.
    ///
    /// Packets come in by the device at which the other direction leaves, and rules may ask for
    /// that; so either direction's route is the one that is found with the device of the other
    /// ([`settle`]). Where to begin is guessed.
    pub(super) fn find(net: &Net, flow: &Flow, marks: [Marks; 2]) -> Result<Self, NoRoute> {
        let mut route = Self([const { DirRoute::new() }; 2]);
        let is_found = [Direction::Reply, Direction::Original]
            .into_iter()
            .any(|dir| {
                let found = input(net, flow.tuple(dir)).and_then(|iif| {
                    settle(
                        dir,
                        iif,
                        &mut route.0,
                        |route, dir, iif| route.find(net, flow, dir, iif, marks),
                        |route| route.path.ifindex,
                    )
                });
                found.is_some()
            });
        if is_found {
            return Ok(route);
        }

        let iifs = Direction::BOTH.map(|dir| input(net, flow.tuple(dir)).unwrap_or(0));
        Err(NoRoute::find(net, flow, iifs, marks))
    }

    /// Finds the paths of a flow of which packets of at least one direction leave through IPsec, for which the
    /// core asks by itself: that of the other one, if the host forwards its packets in the clear. Fails if the
    /// host would not forward those of both, or those of the other one in another way than `flow` does. Does
    /// not sleep.
    pub(super) fn find_beside_ipsec(
        net: &Net,
        flow: &Flow,
        is_ipsec: [bool; 2],
        marks: [Marks; 2],
    ) -> Result<[Option<ForwardPath>; 2], NoRoute> {
        let iifs = Direction::BOTH.map(|dir| input(net, flow.tuple(dir)).unwrap_or(0));
        let mut found = [None; 2];
        let mut hops = NextHops::new();
        let fault = Direction::BOTH.into_iter().find_map(|dir| {
            let key = flow_key(flow, dir, iifs[dir as usize], marks);
            let mut paths = match net.next_hops(&key, &mut hops) {
                Ok(()) if is_ipsec[dir as usize] => return None,
                Ok(()) => hops
                    .iter()
                    .filter_map(|hop| ForwardPath::by(net, hop, key.dst)),
                // Packets that have come through IPsec may leave in the clear.
                Err(error) if error == EPERM => return None,
                Err(error) => return Some(Some((dir, error))),
            };
            found[dir as usize] = paths.find(|path| path.is_of(flow, dir));
            found[dir as usize].is_none().then_some(None)
        });

        fault.map_or(Ok(found), |refused| {
            Err(NoRoute {
                refused,
                ..NoRoute::find(net, flow, iifs, marks)
            })
        })
    }

    /// Takes for granted that frames of each direction come in to these addresses, where the host has them
    /// and they are known. Does not sleep.
    pub(super) fn received_at(&mut self, net: &Net, dests: [Option<MacAddress>; 2]) {
        // They come in where the other direction leaves.
        for (route, dest) in self.0.iter_mut().rev().zip(dests) {
            if let Some(dest) = dest {
                route.path = route.path.received_at(net, dest);
            }
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

    /// Returns what the host does with the packets; `None` if there is no memory for it. Does not sleep.
    pub(super) fn view(&self) -> Option<KBox<HostView>> {
        let [original, reply] = &self.0;
        let view = HostView {
            keys: [original.key, reply.key],
            paths: [Some(original.path), Some(reply.path)],
        };
        KBox::new(view, GFP_ATOMIC | __GFP_NOWARN).ok()
    }

    /// Returns whether the host would still send packets of both directions by the same paths. Does
    /// not sleep.
    pub(super) fn is_current(&self, net: &Net) -> bool {
        self.0
            .iter()
            .all(|route| route.path.is_routed_to(net, &route.key) && route.path.is_current(net))
    }
}

/// The route of a flow that was found before.
pub(super) struct KnownRoute<'a> {
    pub(super) flow: &'a Flow,
    pub(super) paths: [&'a ForwardPath; 2],
    pub(super) marks: [Marks; 2],
}

impl KnownRoute<'_> {
    /// Returns whether the route of direction `dir` still leads to its path; whether that still exists
    /// is not asked. Does not sleep.
    pub(super) fn route_is_current(&self, net: &Net, dir: Direction) -> bool {
        // Packets come in by the device at which those of the other direction leave.
        let iif = self.paths[dir.reverse() as usize].ifindex;
        let key = flow_key(self.flow, dir, iif, self.marks);

        self.paths[dir as usize].is_routed_to(net, &key)
    }

    /// Returns what the host does now with the packets of a flow whose route leads elsewhere. Does not
    /// sleep.
    pub(super) fn look_again(&self, net: &Net) -> NoRoute {
        let [original, reply] = self.paths;

        NoRoute::find(
            net,
            self.flow,
            [reply.ifindex, original.ifindex],
            self.marks,
        )
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
            mtu: 1500,
            pcp: Pcp::All(0),
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
                pcps: [Pcp::All(0); 2],
                egress_mtu: 1500,
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
    fn tags_have_the_priorities_of_their_own_devices() {
        let with = |pcp, step: DevPath| DevPath { pcp, ..step };
        let path = |steps: &[DevPath]| {
            let info = ForwardInfo::from_stack(PEER, steps.iter().copied())?;
            let mut path = ForwardPath::first_to(9, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            path.pcps = info.pcps;
            Some(path)
        };
        let (inner, outer) = (step(9, vlan(20)), step(8, vlan(10)));
        let port = step(3, DevPathType::Ethernet);

        let both = path(&[with(Pcp::All(3), inner), with(Pcp::All(5), outer), port]);
        assert_eq!(both.and_then(|path| path.priorities()), Some([5, 3]));
        let one = path(&[with(Pcp::All(3), inner), port]);
        assert_eq!(one.and_then(|path| path.priorities()), Some([3, 0]));
        let varies = path(&[inner, with(Pcp::Varies, outer), port]);
        assert!(varies.is_some_and(|path| path.priorities().is_none()));
    }

    #[test]
    fn a_way_that_takes_less_than_its_device_needs_the_host() {
        let is_limited = |mtu, egress_mtu, encap: Option<Encap>| {
            let mut path = ForwardPath::first_to(9, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            (path.mtu, path.egress_mtu, path.encaps[0]) = (mtu, egress_mtu, encap);
            path.is_limited_by_device()
        };
        let session = tag(ETH_P_PPP_SES, 7, false);
        let vlan = tag(ETH_P_8021Q, 7, false);

        assert!(is_limited(1500, 1500, None) && !is_limited(1300, 1500, None));
        assert!(is_limited(1492, 1500, session) && !is_limited(1452, 1500, session));
        assert!(is_limited(1500, 1500, vlan) && !is_limited(1300, 1500, vlan));
        assert!(is_limited(9000, 1500, None));
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

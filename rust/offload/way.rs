// SPDX-License-Identifier: GPL-2.0

//! The way that packets take, as the host would send them now.
//!
//! A flowtable entry keeps the frame's addresses and the device from the time when it was made, and
//! so does a rule in hardware. What the host would do is found here in the same steps as C took
//! (nf_flow_table_path.c): route, neighbour, devices from the top down.

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
        route::{Hop, Query, Step, StepKind}, //
    },
    netfilter::flow::{Direction, Encap, Flow, Path, Tuple, ENCAP_MAX},
};
use core::net::IpAddr;

/// How packets reach a neighbour.
///
/// Ordered by neighbour first: [`Way::first_to`] is before all others to the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    /// Index of the device that the route leads to.
    pub(super) ifindex: u32,
    /// The gateway, or the receiver itself.
    pub(super) neighbour: IpAddr,
    /// Of the packets: a gateway may be of the other family.
    ether_type: u16,
    /// Index of the device at the bottom, which is the hardware's.
    pub(super) egress: u32,
    source: MacAddress,
    dest: MacAddress,
    /// From the outermost header inwards.
    encaps: [Option<Encap>; ENCAP_MAX],
    /// How long the route lets packets be.
    mtu: u32,
}

/// What is below a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bottom {
    egress: u32,
    source: MacAddress,
    dest: MacAddress,
    encaps: [Option<Encap>; ENCAP_MAX],
}

/// Follows a frame to `dest` down to the device that sends it. `None` if a flowtable cannot.
/// C: `nft_dev_path_info()`.
fn descend(dest: MacAddress, steps: impl Iterator<Item = Step>) -> Option<Bottom> {
    let mut bottom = Bottom {
        egress: 0,
        source: [0; 6],
        dest,
        encaps: [None; ENCAP_MAX],
    };
    // From the innermost header outwards.
    let mut encaps = [None; ENCAP_MAX];
    let mut count = 0;

    for step in steps {
        if bottom.source == [0; 6] {
            bottom.source = step.source;
        }
        let tag = match step.kind {
            StepKind::Vlan { proto, id } | StepKind::BridgeTag { proto, id } => Some((proto, id)),
            StepKind::Pppoe { session, peer } => {
                bottom.dest = peer;
                Some((ETH_P_PPP_SES, session))
            }
            StepKind::BridgeUntag => {
                count = usize::checked_sub(count, 1)?;
                encaps[count] = None;
                None
            }
            StepKind::BridgeUntagByPort => {
                encaps
                    .get_mut(usize::checked_sub(count, 1)?)?
                    .as_mut()
                    .map(|encap: &mut Encap| encap.by_switch = true)?;
                None
            }
            StepKind::Ethernet | StepKind::Dsa | StepKind::Bridge => None,
            StepKind::Other => return None,
        };
        if let Some((proto, id)) = tag {
            *encaps.get_mut(count)? = Some(Encap {
                proto,
                id,
                by_switch: false,
            });
            count += 1;
        }
        if !matches!(
            step.kind,
            StepKind::Bridge
                | StepKind::BridgeTag { .. }
                | StepKind::BridgeUntag
                | StepKind::BridgeUntagByPort
        ) {
            bottom.egress = step.ifindex;
        }
        if step.kind == StepKind::Dsa {
            break;
        }
    }

    for (to, from) in bottom.encaps.iter_mut().zip(encaps[..count].iter().rev()) {
        *to = *from;
    }
    Some(bottom)
}

impl Way {
    /// Not after any way to this neighbour.
    pub(super) fn first_to(ifindex: u32, neighbour: IpAddr) -> Self {
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
        let dest = if net.is_ethernet(ifindex) {
            net.neighbour(ifindex, neighbour)?
        } else {
            [0; 6]
        };
        let steps = net.forward_path(ifindex, dest, ether_type).ok()?;
        let bottom = descend(dest, steps.iter())?;

        Some(Self {
            ifindex,
            neighbour,
            ether_type,
            egress: bottom.egress,
            source: bottom.source,
            dest: bottom.dest,
            encaps: bottom.encaps,
            mtu,
        })
    }

    fn by(net: &Net, hop: Hop, receiver: IpAddr) -> Option<Self> {
        let ether_type = match receiver {
            IpAddr::V4(_) => ETH_P_IP,
            IpAddr::V6(_) => ETH_P_IPV6,
        };
        let neighbour = hop.gateway.unwrap_or(receiver);

        Self::find(net, hop.ifindex, neighbour, ether_type, hop.mtu)
    }

    /// Whether packets still reach the neighbour in this way.
    pub(super) fn is_live(&self, net: &Net) -> bool {
        let now = Self::find(net, self.ifindex, self.neighbour, self.ether_type, self.mtu);
        now.as_ref() == Some(self)
    }

    /// Has the host ask the neighbour whether it is still there if it has not been heard of for
    /// long, as sending a packet would.
    pub(super) fn use_neighbour(&self, net: &Net) {
        net.use_neighbour(self.ifindex, self.neighbour);
    }

    /// Whether frames are sent to this address.
    pub(super) fn leads_to(&self, mac: MacAddress) -> bool {
        self.dest == mac
    }

    /// Whether this is what `flow` does with packets of direction `dir`.
    fn is_of(&self, flow: &Flow, dir: Direction) -> bool {
        let back = flow.tuple(dir.reverse());

        flow.tuple(dir).path
            == Path::Ethernet {
                ifindex: self.egress,
                source: self.source,
                dest: self.dest,
            }
            && back.ingress == self.egress
            && back.encaps == self.encaps
    }
}

/// The way of one direction of a flow, and how it was found.
#[derive(Clone, Copy)]
struct Routed {
    query: Query,
    /// Another mark with which it was found.
    other_mark: Option<u32>,
    way: Way,
}

/// The ways of both directions of a flow.
#[derive(Clone, Copy)]
pub(super) struct Ways([Routed; 2]);

/// The route of a packet of direction `dir`, between the translations of its destination and of its
/// source.
fn query(flow: &Flow, dir: Direction, iif: u32, mark: u32) -> Query {
    let (this, back) = (flow.tuple(dir), flow.tuple(dir.reverse()));
    let src = |addresses| match addresses {
        Addresses::V4 { src, .. } => IpAddr::from(src),
        Addresses::V6 { src, .. } => IpAddr::from(src),
    };
    let (sport, dport) = match this.l4proto {
        IPPROTO_TCP | IPPROTO_UDP => (this.ports.src, back.ports.src),
        _ => (0, 0),
    };

    Query {
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

/// What is found for both directions, the original one first, each with the device by which the other
/// one `leaves`: by `find` from a direction and the device by which its packets come in. Begins with
/// `dir` and `iif`, and `None` if it comes to no end.
fn settle<T>(
    dir: Direction,
    iif: u32,
    find: impl Fn(Direction, u32) -> Option<T>,
    leaves: impl Fn(&T) -> u32,
) -> Option<[T; 2]> {
    const ROUNDS: usize = 4;
    let mut this = find(dir, iif)?;

    for _ in 0..ROUNDS {
        let back = find(dir.reverse(), leaves(&this))?;
        let again = find(dir, leaves(&back))?;
        if leaves(&again) == leaves(&this) {
            return Some(match dir {
                Direction::Original => [again, back],
                Direction::Reply => [back, again],
            });
        }
        this = again;
    }
    None
}

impl Routed {
    /// The way of packets of direction `dir` that come in by the device `iif`, if it is what `flow`
    /// does with them, and whether those with the connection's mark would go elsewhere.
    fn find(net: &Net, flow: &Flow, dir: Direction, iif: u32, mark: u32) -> Option<(Self, bool)> {
        let look = |mark| {
            let query = query(flow, dir, iif, mark);
            let hops = net.next_hops(&query).ok()?;
            let way = hops
                .iter()
                .filter_map(|hop| Way::by(net, hop, query.dst))
                .find(|way| way.is_of(flow, dir));
            Some((query, way))
        };
        let marked = if mark == 0 { None } else { look(mark) };

        let unmarked = look(0);
        if let Some((query, Some(way))) = marked {
            let other_mark = unmarked.and_then(|(_, found)| (found? == way).then_some(0));
            let routed = Self {
                query,
                other_mark,
                way,
            };
            return Some((routed, false));
        }

        let (query, way) = unmarked?;
        let routed = Self {
            query,
            other_mark: None,
            way: way?,
        };
        Some((routed, marked.is_some()))
    }

    /// Whether only packets with a mark go this way.
    fn needs_mark(&self) -> bool {
        self.query.mark != 0 && self.other_mark.is_none()
    }

    /// Whether the routes still lead this way; whether it still exists is not asked.
    fn is_routed(&self, net: &Net) -> bool {
        let other = self.other_mark.map(|mark| Query { mark, ..self.query });

        core::iter::once(self.query).chain(other).all(|query| {
            net.next_hops(&query).is_ok_and(|hops| {
                hops.iter().any(|hop| {
                    hop.ifindex == self.way.ifindex
                        && hop.gateway.unwrap_or(query.dst) == self.way.neighbour
                        && hop.mtu == self.way.mtu
                })
            })
        })
    }
}

impl Ways {
    /// The ways that `flow` takes, if the host would take them now.
    ///
    /// Packets come in by the device at which the other direction leaves, and rules may ask for
    /// that; so either way is the one that is found with the device of the other ([`settle`]). Where
    /// to begin is guessed.
    pub(super) fn find(net: &Net, flow: &Flow, mark: u32) -> Option<Self> {
        let guesses = [
            (Direction::Reply, input(net, flow.tuple(Direction::Reply))),
            (
                Direction::Original,
                input(net, flow.tuple(Direction::Original)),
            ),
            (Direction::Reply, Some(0)),
        ];

        guesses.into_iter().find_map(|(dir, iif)| {
            let found = settle(
                dir,
                iif?,
                |dir, iif| Routed::find(net, flow, dir, iif, mark),
                |(routed, _)| routed.way.ifindex,
            )?;
            Self::if_sure(found)
        })
    }

    /// Packets may have been routed by their mark, which is not kept anywhere: only those without
    /// one, and with that of the connection, are found again. If both lead the same way, the flow
    /// leaves as soon as one of them leads elsewhere.
    ///
    /// If packets with the mark would go elsewhere from the start, those of this direction may have it
    /// or not. That C made the entry so is no sign: it has looked up the way of one direction with the
    /// mark of a packet of the other (`nft_flow_route()`). But if the other direction's way needs the
    /// mark, the entry is from a packet with the mark, and C has seen that it would come back.
    fn if_sure(found: [(Routed, bool); 2]) -> Option<Self> {
        let [(original, is_odd), (reply, is_odd_back)] = found;

        let is_sure = (!is_odd || reply.needs_mark()) && (!is_odd_back || original.needs_mark());
        is_sure.then_some(Self([original, reply]))
    }

    fn routed(&self, dir: Direction) -> &Routed {
        match dir {
            Direction::Original => &self.0[0],
            Direction::Reply => &self.0[1],
        }
    }

    pub(super) fn way(&self, dir: Direction) -> &Way {
        &self.routed(dir).way
    }

    pub(super) fn both(&self) -> [&Way; 2] {
        Direction::BOTH.map(|dir| self.way(dir))
    }

    /// Where packets are sent to, one for each direction.
    pub(super) fn receivers(&self) -> [IpAddr; 2] {
        Direction::BOTH.map(|dir| self.routed(dir).query.dst)
    }

    /// Whether the routes still lead those ways that are `meant`, by themselves and their receivers;
    /// whether these still exist is not asked.
    pub(super) fn are_routed(&self, net: &Net, meant: &dyn Fn(&Way, IpAddr) -> bool) -> bool {
        self.0
            .iter()
            .filter(|routed| meant(&routed.way, routed.query.dst))
            .all(|routed| routed.is_routed(net))
    }

    /// Whether the host would still send packets of both directions these ways.
    pub(super) fn are_live(&self, net: &Net) -> bool {
        Direction::BOTH.iter().all(|&dir| self.is_live(net, dir))
    }

    /// Whether the host would still send packets of direction `dir` this way.
    pub(super) fn is_live(&self, net: &Net, dir: Direction) -> bool {
        self.routed(dir).is_routed(net) && self.way(dir).is_live(net)
    }
}

#[kernel::macros::kunit_tests(nft_offload_way)]
mod tests {
    use super::*;
    use crate::net::flow_rule::ETH_P_8021Q;

    const PEER: MacAddress = [2, 0, 0, 0, 0, 9];

    fn step(ifindex: u32, kind: StepKind) -> Step {
        Step {
            ifindex,
            source: [2, 0, 0, 0, 1, ifindex as u8],
            kind,
        }
    }

    fn vlan(id: u16) -> StepKind {
        StepKind::Vlan {
            proto: ETH_P_8021Q,
            id,
        }
    }

    fn tag(proto: u16, id: u16, by_switch: bool) -> Option<Encap> {
        Some(Encap {
            proto,
            id,
            by_switch,
        })
    }

    #[test]
    fn a_device_without_others_below_sends_by_itself() {
        let bottom = descend(PEER, [step(3, StepKind::Ethernet)].into_iter());

        assert_eq!(
            bottom,
            Some(Bottom {
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
            step(3, StepKind::Ethernet),
        ];
        let Some(bottom) = descend(PEER, steps.into_iter()) else {
            return assert!(false);
        };

        assert_eq!(bottom.egress, 3);
        // As the uppermost device has it.
        assert_eq!(bottom.source, [2, 0, 0, 0, 1, 9]);
        assert_eq!(
            bottom.encaps,
            [tag(ETH_P_8021Q, 10, false), tag(ETH_P_8021Q, 20, false)]
        );
    }

    #[test]
    fn a_session_has_its_own_peer() {
        let steps = [
            step(
                9,
                StepKind::Pppoe {
                    session: 7,
                    peer: PEER,
                },
            ),
            step(3, StepKind::Ethernet),
        ];
        let Some(bottom) = descend([0; 6], steps.into_iter()) else {
            return assert!(false);
        };

        assert_eq!(bottom.dest, PEER);
        assert_eq!(bottom.encaps, [tag(ETH_P_PPP_SES, 7, false), None]);
    }

    #[test]
    fn bridges_put_tags_on_and_take_them_off() {
        let port = step(3, StepKind::Ethernet);
        let encaps = |steps: &[Step]| {
            descend(PEER, steps.iter().copied()).map(|bottom| (bottom.egress, bottom.encaps))
        };
        let tagged = StepKind::BridgeTag {
            proto: ETH_P_8021Q,
            id: 5,
        };

        assert_eq!(
            encaps(&[step(9, tagged), port]),
            Some((3, [tag(ETH_P_8021Q, 5, false), None]))
        );
        assert_eq!(
            encaps(&[step(10, vlan(5)), step(9, StepKind::BridgeUntag), port]),
            Some((3, [None; 2]))
        );
        assert_eq!(
            encaps(&[
                step(10, vlan(5)),
                step(9, StepKind::BridgeUntagByPort),
                port
            ]),
            Some((3, [tag(ETH_P_8021Q, 5, true), None]))
        );
        assert_eq!(encaps(&[step(9, StepKind::BridgeUntag), port]), None);
        assert_eq!(encaps(&[step(9, StepKind::BridgeUntagByPort), port]), None);
    }

    #[test]
    fn what_a_flowtable_cannot_do_is_no_way() {
        assert!(descend(PEER, [step(3, StepKind::Other)].into_iter()).is_none());
        let three = [
            step(9, vlan(1)),
            step(8, vlan(2)),
            step(7, vlan(3)),
            step(3, StepKind::Ethernet),
        ];
        assert!(descend(PEER, three.into_iter()).is_none());
    }

    /// A network in which packets of either direction leave by a device that depends on how they
    /// have come in.
    fn found(dir: Direction, iif: u32, net: impl Fn(Direction, u32) -> u32) -> Option<[u32; 2]> {
        let find = |dir, iif| Some(net(dir, iif)).filter(|&device| device != 0);
        settle(dir, iif, find, |&device| device)
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

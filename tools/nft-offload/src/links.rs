// SPDX-License-Identifier: GPL-2.0

//! Devices of the network namespace: what they are, what is above and below them, their qdiscs, `hw-tc-offload`,
//! and which one a packet would leave by.

use crate::{
    family::Client,
    netlink::{self, attribute, Attributes, Error, Socket, NETLINK_ROUTE},
    system,
};
use std::{collections::BTreeMap, net::IpAddr};

const RTM_GETLINK: u16 = 18;
const RTM_GETROUTE: u16 = 26;
const RTM_GETNEIGH: u16 = 30;
const RTM_GETQDISC: u16 = 38;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// "vlan", "bridge", …; empty for physical devices.
    pub kind: String,
    /// ARPHRD_PPP.
    pub is_ppp: bool,
    /// ARPHRD_ETHER.
    pub is_ethernet: bool,
    pub is_up: bool,
    /// The device below, if it is in this namespace.
    pub link: Option<u32>,
    pub master: Option<u32>,
    pub vlan: Option<u16>,
    /// All qdiscs of the device, the root's first.
    pub qdiscs: Vec<String>,
    pub has_ingress_filters: bool,
}

/// All devices by index.
#[derive(Clone, Debug, Default)]
pub struct Links(pub BTreeMap<u32, Link>);

/// What belongs into a flowtable in the place of a device.
#[derive(Debug, PartialEq)]
pub enum Instead {
    /// It is right there.
    Itself,
    /// The ports of a bridge.
    Ports(Vec<String>),
    /// The device below a VLAN device.
    Below(String),
    /// The device below a PPPoE session, which the kernel does not name.
    BelowSession,
    /// Nothing by a bond can be offloaded.
    Nothing,
}

/// Qdiscs that only queue; see rust/c/qdisc.c.
const QUEUES: &[&str] = &[
    "noqueue",
    "noop",
    "pfifo_fast",
    "pfifo",
    "bfifo",
    "pfifo_head_drop",
    "fq",
    "fq_codel",
    "fq_pie",
    "codel",
    "pie",
    "dualpi2",
    "sfq",
    "hhf",
    "red",
    "gred",
    "choke",
    "sfb",
    "mq",
    "multiq",
];

impl Links {
    pub fn get() -> Result<Self, Error> {
        let mut socket = Socket::open(NETLINK_ROUTE)?;
        let mut links = Self::default();
        socket.dump(RTM_GETLINK, &[0; 16], |message| {
            links.add(message);
            Ok(())
        })?;
        socket.dump(RTM_GETQDISC, &[0; 20], |message| {
            links.add_qdisc(message);
            Ok(())
        })?;
        Ok(links)
    }

    fn add(&mut self, message: &[u8]) -> Option<()> {
        const IFF_UP: u32 = 1;
        const ARPHRD_PPP: u16 = 512;
        const ARPHRD_ETHER: u16 = 1;
        let (header, attributes) = message.split_at_checked(16)?;
        let is_type = |kind| u16::from_ne_bytes([header[2], header[3]]) == kind;
        let number = |kind| Some(u32::from_ne_bytes(attribute(attributes, kind)?.try_into().ok()?));
        let info = attribute(attributes, 18).unwrap_or(&[]);
        let foreign = attribute(attributes, 37).is_some();
        let link = Link {
            index: u32::from_ne_bytes(header[4..8].try_into().unwrap()),
            name: text(attribute(attributes, 3)?),
            kind: attribute(info, 1).map(text).unwrap_or_default(),
            is_ppp: is_type(ARPHRD_PPP),
            is_ethernet: is_type(ARPHRD_ETHER),
            is_up: u32::from_ne_bytes(header[8..12].try_into().unwrap()) & IFF_UP != 0,
            link: number(5).filter(|_| !foreign),
            master: number(10),
            vlan: attribute(attribute(info, 2).unwrap_or(&[]), 1)
                .and_then(|id| Some(u16::from_ne_bytes(id.try_into().ok()?))),
            qdiscs: vec![],
            has_ingress_filters: false,
        };
        self.0.insert(link.index, link);
        Some(())
    }

    fn add_qdisc(&mut self, message: &[u8]) -> Option<()> {
        let (header, attributes) = message.split_at_checked(20)?;
        let link = self.0.get_mut(&u32::from_ne_bytes(header[4..8].try_into().unwrap()))?;
        match text(attribute(attributes, 1)?) {
            kind if kind == "ingress" || kind == "clsact" => link.has_ingress_filters = true,
            kind => link.qdiscs.push(kind),
        }
        Some(())
    }

    pub fn name(&self, index: u32) -> String {
        self.0.get(&index).map_or_else(|| format!("device {index} (gone)"), |link| link.name.clone())
    }

    pub fn named(&self, name: &str) -> Option<&Link> {
        self.0.values().find(|link| link.name == name)
    }

    /// Those whose name matches one of a flowtable, which may end in `*`.
    pub fn matching<'a>(&'a self, pattern: &'a str) -> impl Iterator<Item = &'a Link> {
        self.0.values().filter(move |link| matches_name(pattern, &link.name))
    }

    pub fn is_kind(&self, index: Option<u32>, kind: &str) -> bool {
        index.and_then(|index| self.0.get(&index)).is_some_and(|link| link.kind == kind)
    }

    pub fn is_ethernet(&self, index: u32) -> bool {
        self.0.get(&index).is_some_and(|link| link.is_ethernet)
    }

    fn ports(&self, master: u32) -> impl Iterator<Item = &Link> {
        self.0.values().filter(move |link| link.master == Some(master))
    }

    /// The kernel makes entries for devices only that send and receive frames.
    pub fn instead(&self, link: &Link) -> Instead {
        let is_lag = |kind: &str| matches!(kind, "bond" | "team");
        if is_lag(&link.kind) || link.master.and_then(|m| self.0.get(&m)).is_some_and(|m| is_lag(&m.kind)) {
            return Instead::Nothing;
        }
        match link.kind.as_str() {
            "bridge" => Instead::Ports(self.ports(link.index).map(|port| port.name.clone()).collect()),
            "vlan" => match link.link.and_then(|index| self.0.get(&index)) {
                Some(below) => match self.instead(below) {
                    Instead::Itself => Instead::Below(below.name.clone()),
                    other => other,
                },
                None => Instead::Itself,
            },
            _ if link.is_ppp => Instead::BelowSession,
            _ => Instead::Itself,
        }
    }

    /// The devices that send frames for this one, as far as is known without the frames.
    pub fn bottoms(&self, index: u32) -> Vec<String> {
        let Some(link) = self.0.get(&index) else { return vec![] };
        match self.instead(link) {
            Instead::Itself => vec![link.name.clone()],
            Instead::Ports(ports) => ports,
            Instead::Below(below) => vec![below],
            Instead::BelowSession | Instead::Nothing => vec![],
        }
    }
}

impl Link {
    /// The qdisc that does more than to queue, if there is one.
    pub fn shaper(&self, default: &str) -> Option<&str> {
        self.qdiscs.iter().map(String::as_str).find(|kind| !QUEUES.contains(kind) && *kind != default)
    }
}

pub fn matches_name(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_string()
}

/// `hw-tc-offload` of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TcOffload {
    pub on: bool,
    pub can_change: bool,
}

/// Asked by netlink, or of the program ethtool where the kernel has no CONFIG_ETHTOOL_NETLINK.
pub fn tc_offload(link: &Link) -> Option<TcOffload> {
    match Client::open("ethtool") {
        Ok(client) => ask_features(client, link.index).ok(),
        Err(_) => parse_features(&system::run("ethtool", &["-k", &link.name]).ok()?),
    }
}

/// `hw-tc-offload: off [fixed]`.
fn parse_features(text: &str) -> Option<TcOffload> {
    let said = text.lines().find_map(|line| line.trim().strip_prefix("hw-tc-offload: "))?;
    Some(TcOffload { on: said.starts_with("on"), can_change: !said.contains("[fixed]") })
}

fn ask_features(mut client: Client, index: u32) -> Result<TcOffload, Error> {
    const FEATURES_GET: u8 = 11;
    const HEADER: u16 = 1;
    const HARDWARE: u16 = 2;
    const ACTIVE: u16 = 4;
    let (mut header, mut request) = (Attributes::default(), Attributes::default());
    header.put(1, &index.to_ne_bytes());
    request.put_nest(HEADER, &header);
    let mut found = TcOffload { on: false, can_change: false };
    client.ask(FEATURES_GET, &request, |answer| {
        found.on = has_feature(attribute(answer, ACTIVE).unwrap_or(&[]));
        found.can_change = has_feature(attribute(answer, HARDWARE).unwrap_or(&[]));
        Ok(())
    })?;
    Ok(found)
}

/// Is it among the bits of a set?
fn has_feature(set: &[u8]) -> bool {
    let no_mask = attribute(set, 1).is_some();
    let bits = attribute(set, 3).unwrap_or(&[]);
    let found = netlink::attributes(bits).map_while(Result::ok).any(|(_, bit)| {
        attribute(bit, 2).is_some_and(|name| text(name) == "hw-tc-offload") && (no_mask || attribute(bit, 3).is_some())
    });
    found
}

#[derive(Debug, PartialEq)]
pub struct Route {
    /// RTN_LOCAL: the packets are for this host.
    pub is_local: bool,
    pub device: Option<u32>,
    pub gateway: Option<IpAddr>,
}

/// What the host routes a packet by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RouteKey {
    pub src: Option<IpAddr>,
    pub dst: IpAddr,
    /// The device by which it comes in; none if this host sends it.
    pub iif: Option<u32>,
    pub mark: u32,
    pub dscp: u8,
    /// Protocol, source and destination port.
    pub l4: Option<(u8, u16, u16)>,
}

impl RouteKey {
    /// Of packets of this host.
    pub fn to(dst: IpAddr, mark: u32) -> Self {
        Self { src: None, dst, iif: None, mark, dscp: 0, l4: None }
    }
}

/// Asks where packets would go.
pub struct Router(Socket);

impl Router {
    pub fn open() -> Result<Self, Error> {
        Socket::open(NETLINK_ROUTE).map(Self)
    }

    /// Where a packet would go; where there are several next hops, by one of them.
    pub fn route(&mut self, key: &RouteKey) -> Result<Route, Error> {
        const RTN_LOCAL: u8 = 2;
        let mut found = Route { is_local: false, device: None, gateway: None };
        self.ask(key, 0, |kind, attributes| {
            found = Route { is_local: kind == RTN_LOCAL, ..Route::read(None, attributes) };
        })?;
        Ok(found)
    }

    /// All next hops of the route that a packet would take.
    pub fn hops(&mut self, key: &RouteKey) -> Result<Vec<Route>, Error> {
        const RTM_F_FIB_MATCH: u32 = 0x2000;
        let mut found = vec![];
        self.ask(key, RTM_F_FIB_MATCH, |_, attributes| {
            found = Route::all(attribute(attributes, 9).unwrap_or(&[]));
        })?;
        Ok(found)
    }

    /// Hands the type and the attributes of the answer over.
    fn ask(&mut self, key: &RouteKey, flags: u32, mut answered: impl FnMut(u8, &[u8])) -> Result<(), Error> {
        let (family, bits) = if key.dst.is_ipv4() { (2, 32) } else { (10, 128) };
        let src_len = key.src.map_or(0, |_| bits);
        let [a, b, c, d] = flags.to_ne_bytes();
        let mut request = Attributes::after(&[family, bits, src_len, key.dscp << 2, 0, 0, 0, 0, a, b, c, d]);
        request.put(1, &octets(key.dst));
        if let Some(src) = key.src {
            request.put(2, &octets(src));
        }
        if let Some(iif) = key.iif {
            request.put(3, &iif.to_ne_bytes());
        }
        if key.mark != 0 {
            request.put(16, &key.mark.to_ne_bytes());
        }
        if let Some((protocol, sport, dport)) = key.l4 {
            request.put(27, &[protocol]);
            request.put(28, &sport.to_be_bytes());
            request.put(29, &dport.to_be_bytes());
        }
        self.0.ask(RTM_GETROUTE, request.bytes(), |answer| {
            let (header, attributes) =
                answer.split_at_checked(12).ok_or_else(|| Error::Malformed("a short route".into()))?;
            answered(header[7], attributes);
            Ok(())
        })
    }
}

impl Route {
    /// Reads RTA_OIF, if the device is not known, RTA_GATEWAY and RTA_VIA.
    fn read(device: Option<u32>, attributes: &[u8]) -> Self {
        let number = |bytes: &[u8]| Some(u32::from_ne_bytes(bytes.try_into().ok()?));
        let via = attribute(attributes, 18).and_then(|via| via.get(2..));
        Self {
            is_local: false,
            device: device.or_else(|| attribute(attributes, 4).and_then(number)),
            gateway: attribute(attributes, 5).or(via).and_then(address),
        }
    }

    /// Reads RTA_MULTIPATH: `struct rtnexthop`, each with its attributes.
    fn all(mut hops: &[u8]) -> Vec<Self> {
        let mut found = vec![];
        while let Some((header, _)) = hops.split_first_chunk::<8>() {
            let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
            let Some(attributes) = hops.get(8..len) else { break };
            let device = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
            found.push(Self::read(Some(device), attributes));
            hops = hops.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        }
        found
    }
}

/// The addresses of next hops, as the host has them now.
pub struct Neighbours(BTreeMap<(u32, IpAddr), String>);

impl Neighbours {
    pub fn get() -> Result<Self, Error> {
        let mut neighbours = Self(BTreeMap::new());
        Socket::open(NETLINK_ROUTE)?.dump(RTM_GETNEIGH, &[0; 12], |message| {
            neighbours.add(message);
            Ok(())
        })?;
        Ok(neighbours)
    }

    fn add(&mut self, message: &[u8]) -> Option<()> {
        /// NUD_PERMANENT, NUD_NOARP, NUD_REACHABLE, NUD_PROBE, NUD_STALE and NUD_DELAY.
        const NUD_VALID: u16 = 0x80 | 0x40 | 0x02 | 0x10 | 0x04 | 0x08;
        let (header, attributes) = message.split_at_checked(12)?;
        let state = u16::from_ne_bytes([header[8], header[9]]);
        let mac: Vec<_> = attribute(attributes, 2)?.iter().map(|byte| format!("{byte:02x}")).collect();
        if state & NUD_VALID != 0 {
            let index = u32::from_ne_bytes(header[4..8].try_into().unwrap());
            self.0.insert((index, attribute(attributes, 1).and_then(address)?), mac.join(":"));
        }
        Some(())
    }

    pub fn mac(&self, device: u32, address: IpAddr) -> Option<&str> {
        self.0.get(&(device, address)).map(String::as_str)
    }
}

pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// eth0, eth1 (in br0), eth2, eth2.5, bond0 over eth3, bond0.7, ppp0.
    pub fn some() -> Links {
        let mut links = Links::default();
        for (index, name, kind, link, master) in [
            (1, "eth0", "", None, None),
            (2, "eth1", "", None, Some(4)),
            (3, "eth2", "", None, None),
            (4, "br0", "bridge", None, None),
            (5, "eth2.5", "vlan", Some(3), None),
            (6, "eth3", "", None, Some(7)),
            (7, "bond0", "bond", None, None),
            (8, "bond0.7", "vlan", Some(7), None),
            (9, "ppp0", "", None, None),
            (10, "br0.3", "vlan", Some(4), None),
        ] {
            let link = Link {
                index,
                link,
                master,
                name: name.into(),
                kind: kind.into(),
                is_up: true,
                is_ppp: name == "ppp0",
                qdiscs: vec!["fq_codel".into()],
                ..Link::default()
            };
            links.0.insert(index, link);
        }
        links
    }

    #[test]
    fn what_belongs_into_a_flowtable() {
        let links = some();
        let instead = |name| links.instead(links.named(name).unwrap());
        assert_eq!(instead("eth0"), Instead::Itself);
        assert_eq!(instead("eth1"), Instead::Itself);
        assert_eq!(instead("br0"), Instead::Ports(vec!["eth1".into()]));
        assert_eq!(instead("eth2.5"), Instead::Below("eth2".into()));
        assert_eq!(instead("br0.3"), Instead::Ports(vec!["eth1".into()]));
        for name in ["bond0", "eth3", "bond0.7"] {
            assert_eq!(instead(name), Instead::Nothing);
        }
        assert_eq!(instead("ppp0"), Instead::BelowSession);
        assert_eq!(links.matching("eth*").count(), 5);
        assert_eq!(links.matching("eth").count(), 0);
    }

    #[test]
    fn what_ethtool_prints() {
        let parse = |text| parse_features(text).map(|found| (found.on, found.can_change));
        assert_eq!(
            parse("Features for x:\nrx-checksumming: on\nhw-tc-offload: on\nl2-fwd-offload: off [fixed]\n"),
            Some((true, true))
        );
        assert_eq!(parse("hw-tc-offload: off [fixed]"), Some((false, false)));
        assert_eq!(parse("hw-tc-offload: off"), Some((false, true)));
        assert_eq!(parse("rx-checksumming: on"), None);
    }

    #[test]
    fn next_hops() {
        // By device 3 via 192.0.2.1, and by device 5.
        let mut bytes = vec![16, 0, 0, 0, 3, 0, 0, 0, 8, 0, 5, 0, 192, 0, 2, 1];
        bytes.extend([8, 0, 0, 0, 5, 0, 0, 0]);
        let hop = |device, gateway| Route { is_local: false, device: Some(device), gateway };
        assert_eq!(Route::all(&bytes), [hop(3, "192.0.2.1".parse().ok()), hop(5, None)]);
        assert_eq!(Route::all(&bytes[..20]), [hop(3, "192.0.2.1".parse().ok())]);
        assert_eq!(Route::all(&[0; 8]), []);
    }

    #[test]
    fn qdiscs_that_shape() {
        let link = |kinds: &[&str]| Link { qdiscs: kinds.iter().map(|k| k.to_string()).collect(), ..Link::default() };
        assert_eq!(link(&["mq", "fq_codel", "fq"]).shaper("fq"), None);
        assert_eq!(link(&["mq", "fq_codel", "cake"]).shaper("fq"), Some("cake"));
        assert_eq!(link(&["mq", "cake"]).shaper("cake"), None);
        assert_eq!(link(&["htb", "fq_codel"]).shaper(""), Some("htb"));
    }

    /// The machine that this runs on has the one device that all have.
    #[test]
    fn the_kernel_lists_its_devices() {
        let links = Links::get().unwrap();
        let lo = links.named("lo").unwrap();
        assert_eq!(links.name(lo.index), "lo");
        assert_eq!(tc_offload(lo), Some(TcOffload { on: false, can_change: false }));
        let key = RouteKey::to("127.0.0.1".parse().unwrap(), 0);
        let route = Router::open().unwrap().route(&key).unwrap();
        assert_eq!((route.is_local, route.device), (true, Some(lo.index)));
    }
}

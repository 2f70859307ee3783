// SPDX-License-Identifier: GPL-2.0

//! What conntrack knows of a connection.

use crate::{
    links::address,
    netlink::{attribute, Error, Outcome, Socket, NETLINK_NETFILTER},
    tuple::{Query, Tuple},
};

#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    pub original: Tuple,
    pub reply: Tuple,
    pub status: u32,
    /// Of TCP; see [`TCP_STATES`].
    pub tcp_state: Option<u8>,
    pub mark: u32,
    pub zone: u16,
    pub helper: Option<String>,
    /// Packets and bytes are counted.
    pub counts: bool,
}

pub const TCP_STATES: &[&str] = &[
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
];
const TCP_ESTABLISHED: u8 = 3;

/// Bits of the status.
pub const SEEN_REPLY: u32 = 1 << 1;
pub const CONFIRMED: u32 = 1 << 3;
pub const SRC_NAT: u32 = 1 << 4;
pub const DST_NAT: u32 = 1 << 5;
pub const SEQ_ADJUST: u32 = 1 << 6;
pub const DYING: u32 = 1 << 9;
pub const NAT_CLASH: u32 = 1 << 12;
pub const OFFLOAD: u32 = 1 << 14;
pub const HW_OFFLOAD: u32 = 1 << 15;

impl Connection {
    pub fn has(&self, bits: u32) -> bool {
        self.status & bits != 0
    }

    pub fn is_nat(&self) -> bool {
        self.has(SRC_NAT | DST_NAT)
    }

    /// In the words of `conntrack -L`.
    pub fn state(&self) -> Option<&'static str> {
        TCP_STATES.get(usize::from(self.tcp_state?)).copied()
    }

    pub fn is_tcp_established(&self) -> bool {
        self.tcp_state == Some(TCP_ESTABLISHED)
    }

    fn parse(message: &[u8]) -> Option<Self> {
        let attributes = message.get(4..)?;
        let number = |kind| Some(u32::from_be_bytes(attribute(attributes, kind)?.try_into().ok()?));
        let zone = attribute(attributes, 18).and_then(be16);
        let mut original = tuple(attribute(attributes, 1)?)?;
        let mut reply = tuple(attribute(attributes, 2)?)?;
        original.zone = original.zone.or(zone);
        reply.zone = reply.zone.or(zone);
        let tcp = attribute(attributes, 4).and_then(|info| attribute(info, 1));
        let helper = attribute(attributes, 5).and_then(|help| attribute(help, 1));
        Some(Self {
            original,
            reply,
            status: number(3).unwrap_or(0),
            tcp_state: tcp.and_then(|tcp| attribute(tcp, 1)?.first().copied()),
            mark: number(8).unwrap_or(0),
            zone: zone.unwrap_or(0),
            helper: helper.map(|name| String::from_utf8_lossy(name).trim_end_matches('\0').to_string()),
            counts: attribute(attributes, 9).is_some(),
        })
    }
}

fn be16(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (ip, proto) = (attribute(bytes, 1)?, attribute(bytes, 2)?);
    Some(Tuple {
        l4proto: *attribute(proto, 1)?.first()?,
        src: address(attribute(ip, 1).or_else(|| attribute(ip, 3))?)?,
        dst: address(attribute(ip, 2).or_else(|| attribute(ip, 4))?)?,
        sport: attribute(proto, 2).and_then(be16),
        dport: attribute(proto, 3).and_then(be16),
        zone: attribute(bytes, 3).and_then(be16),
    })
}

/// Calls `each` for the connections that are meant.
pub fn find(query: &Query, mut each: impl FnMut(Connection)) -> Result<Outcome, Error> {
    const NFNL_SUBSYS_CTNETLINK: u16 = 1;
    const IPCTNL_MSG_CT_GET: u16 = 1;
    Socket::open(NETLINK_NETFILTER)?.dump((NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET, &[0; 4], |message| {
        if let Some(connection) = Connection::parse(message) {
            if query.matches(&[connection.original, connection.reply]) {
                each(connection);
            }
        }
        Ok(())
    })
}

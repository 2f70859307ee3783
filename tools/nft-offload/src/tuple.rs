// SPDX-License-Identifier: GPL-2.0

//! Connections by their addresses and ports, and what people type or paste to name some.

use crate::spec::key;
use serde_json::{json, Map, Value};
use std::{fmt, net::IpAddr};

/// Packets of one direction as they come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    pub l4proto: u8,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub sport: Option<u16>,
    pub dport: Option<u16>,
    pub zone: Option<u16>,
}

const PROTOCOLS: &[(u8, &str)] =
    &[(1, "icmp"), (6, "tcp"), (17, "udp"), (33, "dccp"), (47, "gre"), (58, "icmpv6"), (132, "sctp"), (136, "udplite")];

pub fn protocol_name(number: u8) -> String {
    let known = PROTOCOLS.iter().find(|(n, _)| *n == number);
    known.map_or_else(|| format!("protocol {number}"), |(_, name)| name.to_string())
}

/// A protocol by its name or number.
pub fn protocol(word: &str) -> Option<u8> {
    let known = PROTOCOLS.iter().find(|(_, name)| *name == word);
    known.map(|(number, _)| *number).or_else(|| word.parse().ok())
}

impl Tuple {
    /// From what a message has.
    pub fn from_value(value: &Value) -> Option<Self> {
        let port = |key| value[key].as_u64().map(|port| port as u16);
        Some(Self {
            l4proto: value[key::L4PROTO].as_u64()? as u8,
            src: value[key::SRC].as_str()?.parse().ok()?,
            dst: value[key::DST].as_str()?.parse().ok()?,
            sport: port(key::SPORT),
            dport: port(key::DPORT),
            zone: port(key::ZONE),
        })
    }

    /// For a request.
    pub fn to_value(self) -> Value {
        let mut object = Map::new();
        object.insert("l4proto".into(), json!(self.l4proto));
        object.insert("src".into(), json!(self.src.to_string()));
        object.insert("dst".into(), json!(self.dst.to_string()));
        for (key, number) in [("sport", self.sport), ("dport", self.dport), ("zone", self.zone)] {
            if let Some(number) = number {
                object.insert(key.into(), json!(number));
            }
        }
        Value::Object(object)
    }

    /// The same packets' ends the other way round.
    fn swapped(self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, ..self }
    }
}

/// An address with a port, if there is one.
pub fn end(address: IpAddr, port: Option<u16>) -> String {
    match (address, port) {
        (_, None) => address.to_string(),
        (IpAddr::V4(_), Some(port)) => format!("{address}:{port}"),
        (IpAddr::V6(_), Some(port)) => format!("[{address}]:{port}"),
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = protocol_name(self.l4proto);
        write!(f, "{name} {} -> {}", end(self.src, self.sport), end(self.dst, self.dport))?;
        self.zone.map_or(Ok(()), |zone| write!(f, " (zone {zone})"))
    }
}

/// Which connections are meant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    pub l4proto: Option<u8>,
    /// One end, or both in either order.
    pub ends: Vec<End>,
    /// A whole tuple, as it was pasted.
    pub exact: Option<Tuple>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct End {
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
}

impl End {
    fn is(self, address: IpAddr, port: Option<u16>) -> bool {
        self.address.is_none_or(|a| a == address) && self.port.is_none_or(|p| Some(p) == port)
    }

    /// `ADDRESS`, `ADDRESS:PORT`, `[ADDRESS]:PORT`, `:PORT`.
    fn parse(word: &str) -> Option<Self> {
        if let Ok(address) = word.trim_start_matches('[').trim_end_matches(']').parse() {
            return Some(Self { address: Some(address), port: None });
        }
        let (address, port) = word.rsplit_once(':')?;
        let port = Some(port.parse().ok()?);
        match address {
            "" | "*" => Some(Self { address: None, port }),
            _ => {
                let is_v6 = address.starts_with('[') && address.ends_with(']');
                let address: IpAddr = address.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
                (is_v6 == address.is_ipv6()).then_some(Self { address: Some(address), port })
            }
        }
    }
}

impl Query {
    /// From arguments: addresses with or without a port, a protocol, or a line of `conntrack -L`.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let text = arguments.join(" ");
        if text.contains("src=") {
            return Self::parse_conntrack(&text);
        }
        let mut query = Self::default();
        for word in text.split([' ', ',']).filter(|word| !matches!(*word, "" | "->" | "<->" | "and" | "to" | "from")) {
            if let Some(end) = End::parse(word) {
                query.ends.push(end);
            } else if let Some(number) = protocol(word) {
                query.l4proto = Some(number);
            } else {
                return Err(format!(
                    "'{word}' is neither an address (192.0.2.1, 192.0.2.1:443, [2001:db8::1]:443, :443) nor a protocol"
                ));
            }
        }
        match query.ends.len() {
            0 => {
                Err("which connection? Name one or both of its ends: 192.0.2.1:443, or paste a line of 'conntrack -L'"
                    .into())
            }
            1 | 2 => Ok(query),
            _ => Err("a connection has two ends".into()),
        }
    }

    /// `tcp 6 431 ESTABLISHED src=192.0.2.1 dst=… sport=… dport=… src=… …`: the first of each.
    fn parse_conntrack(text: &str) -> Result<Self, String> {
        let field = |key: &str| text.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let l4proto = text.split_whitespace().find_map(|word| PROTOCOLS.iter().find(|(_, name)| *name == word));
        let address = |key| {
            let word = field(key).ok_or(format!("the line has no {key}="))?;
            word.parse().map_err(|_| format!("{key}={word} is no address"))
        };
        let number = |key| field(key).and_then(|word| word.parse().ok());
        let tuple = Tuple {
            l4proto: l4proto.ok_or("the line names no protocol that is known")?.0,
            src: address("src")?,
            dst: address("dst")?,
            sport: number("sport"),
            dport: number("dport"),
            zone: number("zone").or_else(|| number("zone-orig")),
        };
        Ok(Self { l4proto: Some(tuple.l4proto), exact: Some(tuple), ends: vec![] })
    }

    pub fn matches(&self, tuples: &[Tuple]) -> bool {
        tuples.iter().any(|tuple| {
            if let Some(exact) = self.exact {
                return Tuple { zone: exact.zone.and(tuple.zone), ..*tuple } == exact;
            }
            self.l4proto.is_none_or(|number| number == tuple.l4proto)
                && [*tuple, tuple.swapped()].iter().any(|tuple| {
                    let have = [(tuple.src, tuple.sport), (tuple.dst, tuple.dport)];
                    self.ends.iter().zip(have).all(|(end, (address, port))| end.is(address, port))
                })
        })
    }

    /// What of it the kernel can look for.
    pub fn filter(&self) -> Map<String, Value> {
        let mut filter = Map::new();
        let exact = self.exact.map(|tuple| End { address: Some(tuple.src), port: tuple.sport });
        let end = exact.or(self.ends.first().copied()).unwrap_or_default();
        if let Some(address) = end.address {
            filter.insert("address".into(), json!(address.to_string()));
        }
        if let Some(port) = end.port {
            filter.insert("port".into(), json!(port));
        }
        if let Some(number) = self.l4proto {
            filter.insert("l4proto".into(), json!(number));
        }
        filter
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tuple) = self.exact {
            return tuple.fmt(f);
        }
        let mut words: Vec<_> = self.l4proto.map(protocol_name).into_iter().collect();
        words.extend(self.ends.iter().map(|at| match at.address {
            Some(address) => end(address, at.port),
            None => format!(":{}", at.port.unwrap_or(0)),
        }));
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(&[text.to_string()]).unwrap()
    }

    fn tuple(src: &str, sport: u16, dst: &str, dport: u16) -> Tuple {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        Tuple { l4proto: 6, src, dst, sport: Some(sport), dport: Some(dport), zone: None }
    }

    #[test]
    fn ends_of_connections() {
        let tuples = [tuple("192.168.1.2", 40000, "10.0.2.2", 443), tuple("10.0.2.2", 443, "10.0.2.1", 1024)];
        for yes in [
            "192.168.1.2",
            "10.0.2.2:443",
            ":443",
            "tcp 10.0.2.2",
            "10.0.2.2 192.168.1.2",
            "192.168.1.2:40000 -> 10.0.2.2:443",
            "10.0.2.1:1024",
            "6 10.0.2.1",
            "*:443, 10.0.2.1",
        ] {
            assert!(query(yes).matches(&tuples), "{yes}");
        }
        // Each end is another one, and both are of one direction.
        for no in ["10.0.2.2:80", "udp 10.0.2.2", "10.0.2.2 10.0.2.2", "192.168.1.2 10.0.2.1", ":443 :443"] {
            assert!(!query(no).matches(&tuples), "{no}");
        }
        let six = [tuple("fd00::1", 1, "fd00::2", 2)];
        assert!(query("[fd00::1]:1 fd00::2").matches(&six));
        assert!(!query("[fd00::1]:2").matches(&six));
        // It is an address, whatever it looks like.
        assert_eq!(query("fd00::1").ends[0].port, None);
    }

    #[test]
    fn nonsense_is_told_of() {
        for bad in ["", "x.example", "1.2.3.4:99999", "1.1.1.1 2.2.2.2 3.3.3.3", "tcp", "[1.2.3.4]:5", "fd00::1 src=x"]
        {
            assert!(Query::parse(&[bad.into()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines_of_conntrack() {
        let lines = [
            "tcp      6 src=192.168.1.2 dst=10.0.2.2 sport=40000 dport=443 packets=1 bytes=2 src=10.0.2.2 dst=10.0.2.1 \
             sport=443 dport=1024 [HW_OFFLOAD] mark=0 use=3",
            "ipv4     2 tcp      6 431999 ESTABLISHED src=192.168.1.2 dst=10.0.2.2 sport=40000 dport=443 src=10.0.2.2 \
             dst=10.0.2.1 sport=443 dport=1024 [ASSURED] mark=0 use=1",
        ];
        for line in lines {
            let query = query(line);
            assert_eq!(query.exact, Some(tuple("192.168.1.2", 40000, "10.0.2.2", 443)));
            assert!(query.matches(&[tuple("192.168.1.2", 40000, "10.0.2.2", 443)]));
            assert!(!query.matches(&[tuple("192.168.1.2", 40001, "10.0.2.2", 443)]));
            assert_eq!(query.to_string(), "tcp 192.168.1.2:40000 -> 10.0.2.2:443");
        }
        let zoned = query("udp 17 29 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 src=2.2.2.2 dst=1.1.1.1 zone=7");
        assert_eq!(zoned.exact.unwrap().zone, Some(7));
        assert_eq!(Tuple::from_value(&zoned.exact.unwrap().to_value()), zoned.exact);
    }

    #[test]
    fn requests_are_of_the_specification() {
        for text in ["tcp 192.0.2.1:443", "tcp 6 1 src=fd00::1 dst=fd00::2 sport=1 dport=2", ":1", "gre 192.0.2.1"] {
            let query = query(text);
            crate::spec::encode(&crate::spec::FILTER, &Value::Object(query.filter()));
            if let Some(tuple) = query.exact {
                crate::spec::encode(&crate::spec::TUPLE, &tuple.to_value());
            }
        }
    }
}

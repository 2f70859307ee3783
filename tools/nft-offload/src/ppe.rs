// SPDX-License-Identifier: GPL-2.0

//! The tables of hardware that drivers show in debugfs: mtk_eth_soc (mtk_ppe_debugfs.c) and airoha
//! (airoha_ppe_debugfs.c), which print the same, line by line.

use crate::{system, tuple::Tuple};
use std::{fs, net::IpAddr};

#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Packets match it; else the driver has yet to bind it.
    pub is_bound: bool,
    /// Protocol, source and destination of packets as they come in. Ports are 0 where the hardware looks at none.
    pub ends: (u8, IpAddr, u16, IpAddr, u16),
    /// Source and destination as they leave, where they can be translated.
    pub new: Option<(IpAddr, u16, IpAddr, u16)>,
    /// Airoha's hardware takes it from elsewhere for IPv6.
    pub smac: Option<String>,
    pub dmac: String,
    /// The first two that the hardware puts on. Behind them, older mtk_eth_soc keep what belongs to Wi-Fi.
    pub vlans: Vec<u16>,
}

impl Rule {
    pub fn tuple(&self) -> Tuple {
        let (l4proto, src, sport, dst, dport) = self.ends;
        let has_ports = l4proto != IPPROTO_GRE;
        Tuple { l4proto, src, dst, sport: has_ports.then_some(sport), dport: has_ports.then_some(dport), zone: None }
    }
}

const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
/// What offloaded packets without ports are.
const IPPROTO_GRE: u8 = 47;
/// MTK_FOE_IB1_UDP, AIROHA_FOE_IB1_BIND_UDP.
const IB1_UDP: u32 = 1 << 30;

/// `192.0.2.1:80` or `2001:0db8:…:0001:80`, or without the port.
fn end(text: &str, has_port: bool) -> Option<(IpAddr, u16)> {
    if !has_port {
        return Some((text.parse().ok()?, 0));
    }
    let (address, port) = text.rsplit_once(':')?;
    Some((address.parse().ok()?, port.parse().ok()?))
}

fn both_ends(text: &str, has_ports: bool) -> Option<(IpAddr, u16, IpAddr, u16)> {
    let (src, dst) = text.split_once("->")?;
    let ((src, sport), (dst, dport)) = (end(src, has_ports)?, end(dst, has_ports)?);
    Some((src, sport, dst, dport))
}

/// A line of the table; nothing if it is about something else than flows of flowtables.
fn parse(line: &str) -> Option<Rule> {
    let value = |name: &str| {
        let start = line.find(&format!(" {name}="))? + name.len() + 2;
        line[start..].split(' ').next()
    };
    // "IPv4 5T", "IPv6 3T": by how many of addresses, ports and protocol the hardware matches.
    let has_ports = match line.split(" orig=").next()?.split_whitespace().last()? {
        "5T" => true,
        "3T" => false,
        _ => return None,
    };
    let ib1 = u32::from_str_radix(value("ib1")?, 16).ok()?;
    let l4proto = match (has_ports, ib1 & IB1_UDP) {
        (false, _) => IPPROTO_GRE,
        (true, 0) => IPPROTO_TCP,
        (true, _) => IPPROTO_UDP,
    };
    let (src, sport, dst, dport) = both_ends(value("orig")?, has_ports)?;
    let (smac, dmac) = value("eth")?.split_once("->")?;
    let vlans = value("vlan")?.split(',').filter_map(|id| id.parse().ok());
    let is_airoha = value("data").is_some();
    Some(Rule {
        is_bound: line.split(' ').nth(1) == Some("BND"),
        ends: (l4proto, src, sport, dst, dport),
        new: value("new").and_then(|text| both_ends(text, has_ports)),
        smac: Some(smac.into()).filter(|_| !(is_airoha && src.is_ipv6())),
        dmac: dmac.into(),
        vlans: vlans.take_while(|id| *id != 0).collect(),
    })
}

/// All tables that this machine shows, with the names of their directories.
pub fn tables() -> Vec<(String, Vec<Rule>)> {
    const DEBUGFS: &str = "/sys/kernel/debug";
    let names = fs::read_dir(DEBUGFS).into_iter().flatten().flatten();
    let mut names: Vec<_> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.strip_prefix("ppe").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit())));
    names.sort();
    let read = |name: String| {
        let text = system::read(&format!("{DEBUGFS}/{name}/entries"))?;
        Some((name, text.lines().filter_map(parse).collect()))
    };
    names.into_iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_mtk_eth_soc_prints() {
        let line = "00c1a BND IPv4 5T orig=192.168.1.2:40000->192.0.2.1:443 new=198.51.100.1:40001->192.0.2.1:443 \
                    eth=02:00:00:00:00:01->02:00:00:00:00:02 etype=0800 vlan=7,0 ib1=61800000 ib2=007fa020 packets=5 bytes=300";
        let rule = parse(line).unwrap();
        assert!(rule.is_bound);
        assert_eq!(rule.ends, (17, ip("192.168.1.2"), 40000, ip("192.0.2.1"), 443));
        assert_eq!(rule.new, Some((ip("198.51.100.1"), 40001, ip("192.0.2.1"), 443)));
        assert_eq!((rule.smac.as_deref(), rule.dmac.as_str()), (Some("02:00:00:00:00:01"), "02:00:00:00:00:02"));
        assert_eq!(rule.vlans, [7]);
    }

    #[test]
    fn what_airoha_prints() {
        let line = "00001 UNB IPv6 5T orig=2001:0db8:0000:0000:0000:0000:0000:0001:5000->2001:0db8:0000:0000:0000:0000:0000:0002:80 \
                    eth=02:00:00:00:00:01->02:00:00:00:00:02 etype=86dd data=00000000 vlan=0,0 ib1=1a000000 ib2=00000000 packets=0 bytes=0";
        let rule = parse(line).unwrap();
        assert!(!rule.is_bound);
        assert_eq!(rule.ends, (6, ip("2001:db8::1"), 5000, ip("2001:db8::2"), 80));
        assert_eq!((rule.new, rule.smac, rule.vlans), (None, None, vec![]));
    }

    #[test]
    fn what_is_none_of_ours() {
        assert_eq!(parse("00002 BND     L2B eth=02:00:00:00:00:01->02:00:00:00:00:02 etype=0800 data=0 vlan=0,0 ib1=0 ib2=0 packets=0 bytes=0"), None);
        let line = "00003 BND IPv4 3T orig=192.0.2.1->192.0.2.2 new=192.0.2.1->192.0.2.2 eth=02:00:00:00:00:01->02:00:00:00:00:02 \
                    etype=0800 vlan=0,0 ib1=22000000 ib2=0 packets=0 bytes=0";
        assert_eq!(parse(line).unwrap().tuple().to_string(), "gre 192.0.2.1 -> 192.0.2.2");
        assert_eq!(parse(""), None);
    }
}

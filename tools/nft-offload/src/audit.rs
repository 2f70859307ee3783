// SPDX-License-Identifier: GPL-2.0

//! `audit`: is what hardware does what the host would do?
//!
//! Three levels, each with what it compares:
//!
//! - host: what the module follows, against the host's routes, neighbours, devices and connections as they are now;
//! - driver: what the drivers have failed to remove, and entries that should have rules and have none;
//! - table: the hardware's own table, where the driver shows it in debugfs, as mtk_eth_soc and airoha do.
//!
//! Connections come and go meanwhile. What is found is looked at once more, from the beginning, and told of only if it
//! is found both times.

use crate::{
    conntrack::{self, Connection},
    failure::{Failure, COULD_BE_BETTER},
    family::Offload,
    flows::{names, DIRECTIONS},
    links::{self, Neighbours, Route, RouteKey, Router},
    output::{many, thousands, wrap, Output, Tone},
    ppe::{self, Rule},
    spec::{key, op},
    system,
    tuple::Tuple,
};
use serde_json::{json, Value};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    thread,
    time::Duration,
};

/// The levels by their names.
const HOST: &str = "host";
const DRIVER: &str = "driver";
const TABLE: &str = "table";

const WIDTH: usize = 100;

/// One thing that is not as it should be. Two are the same if they say the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    level: &'static str,
    /// The packets of one direction, or a device.
    about: String,
    what: String,
}

/// Two addresses and ports, as hardware knows packets.
type Ends = (u8, IpAddr, u16, IpAddr, u16);

fn ends(tuple: &Tuple) -> Ends {
    (tuple.l4proto, tuple.src, tuple.sport.unwrap_or(0), tuple.dst, tuple.dport.unwrap_or(0))
}

/// One direction of a flow, and the other one.
struct Direction<'a> {
    value: &'a Value,
    other: &'a Value,
    tuple: Tuple,
    other_tuple: Tuple,
}

impl<'a> Direction<'a> {
    fn both(flow: &'a Value) -> impl Iterator<Item = Self> + 'a {
        [(0, 1), (1, 0)].into_iter().filter_map(move |(this, other)| {
            let (value, other) = (&flow[DIRECTIONS[this]], &flow[DIRECTIONS[other]]);
            let tuple = Tuple::from_value(&value[key::TUPLE])?;
            let other_tuple = Tuple::from_value(&other[key::TUPLE])?;
            Some(Self { value, other, tuple, other_tuple })
        })
    }

    fn is_in_hardware(&self) -> bool {
        self.value[key::STATE] == "hardware"
    }

    /// As the packets leave: what the answers come in with, the other way round.
    fn translated(&self) -> Ends {
        let back = &self.other_tuple;
        (self.tuple.l4proto, back.dst, back.dport.unwrap_or(0), back.src, back.sport.unwrap_or(0))
    }

    /// What the host routes by: the destination is translated before that, the source after it.
    fn route_key(&self) -> RouteKey {
        let (route, back) = (&self.value[key::ROUTE], &self.other_tuple);
        let number = |value: &Value| value.as_u64().map(|number| number as u32);
        RouteKey {
            src: Some(self.tuple.src),
            dst: back.src,
            iif: number(&self.other[key::ROUTE][key::IFINDEX]).or(number(&self.value[key::INGRESS])),
            mark: number(&route[key::MARK]).unwrap_or(0),
            dscp: route[key::DSCP].as_u64().unwrap_or(0) as u8,
            l4: self.tuple.sport.zip(back.sport).map(|(sport, dport)| (self.tuple.l4proto, sport, dport)),
        }
    }

    /// VLANs that the hardware puts on, not a switch behind it.
    fn vlans(&self) -> Vec<u16> {
        const ETH_P_PPP_SES: u64 = 0x8864;
        let tags = self.value[key::ROUTE][key::ENCAP].as_array().into_iter().flatten();
        let own = tags.filter(|tag| tag[key::BY_SWITCH].is_null() && tag[key::PROTO] != ETH_P_PPP_SES);
        own.filter_map(|tag| Some(tag[key::ID].as_u64()? as u16)).collect()
    }
}

/// What the host knows now.
struct Host {
    links: links::Links,
    neighbours: Neighbours,
    router: Router,
    /// By the original direction and the zone.
    connections: HashMap<(Ends, u64), Tuple>,
}

impl Host {
    fn get() -> Result<Self, Failure> {
        let mut connections = HashMap::new();
        conntrack::find(&Default::default(), |connection: Connection| {
            if !connection.has(conntrack::DYING) {
                let zone = connection.original.zone.unwrap_or(0).into();
                connections.insert((ends(&connection.original), zone), connection.reply);
            }
        })
        .map_err(|error| Failure::about("conntrack's connections", &error))?;
        Ok(Self {
            links: names(),
            neighbours: Neighbours::get().map_err(|error| Failure::about("the neighbours", &error))?,
            router: Router::open().map_err(|error| Failure::about("the routes", &error))?,
            connections,
        })
    }

    /// What is otherwise than the module has it.
    fn differences(&mut self, dir: &Direction) -> Vec<String> {
        let mut found = vec![];
        let route = &dir.value[key::ROUTE];
        let Some(device) = route[key::IFINDEX].as_u64().map(|index| index as u32) else { return found };
        let neighbour = route[key::NEIGHBOUR].as_str().and_then(|text| text.parse::<IpAddr>().ok());
        let name = |index| self.links.name(index);

        let next = |hop: &Route| hop.gateway.unwrap_or(dir.other_tuple.src);
        let is_it =
            |hop: &Route| hop.device == Some(device) && neighbour.is_none_or(|neighbour| neighbour == next(hop));
        let key = dir.route_key();
        match self.router.route(&key) {
            Ok(now) if !now.is_local && is_it(&now) => (),
            // By which of several a packet goes is for the host to choose, by more than can be asked for.
            Ok(now) if !now.is_local && self.router.hops(&key).is_ok_and(|hops| hops.iter().any(is_it)) => (),
            Ok(now) if now.is_local || now.device != Some(device) => {
                let to = now.device.map_or("nowhere".into(), name);
                found.push(format!("is followed by {}, and the host would route it by {to}", name(device)));
            }
            Ok(now) => {
                let known = neighbour.map_or_else(|| "none".into(), |neighbour| neighbour.to_string());
                found.push(format!("is followed by {known}, and the host would route it by {}", next(&now)));
            }
            Err(error) => {
                found.push(format!("is followed by {}, and the host would not route it: {error}", name(device)))
            }
        }

        let dmac = route[key::DMAC].as_str();
        if let (Some(neighbour), Some(dmac), true) = (neighbour, dmac, self.links.is_ethernet(device)) {
            match self.neighbours.mac(device, neighbour) {
                Some(now) if now != dmac => {
                    found.push(format!("goes to {dmac}, and the address of {neighbour} is {now}"));
                }
                None => found.push(format!("goes to {dmac}, and the host has no address of {neighbour} now")),
                _ => (),
            }
        }
        found
    }

    /// The connection, if the flow is not what conntrack has.
    fn unknown(&self, flow: &Value) -> Option<String> {
        let original = Tuple::from_value(&flow[key::ORIGINAL][key::TUPLE])?;
        let reply = Tuple::from_value(&flow[key::REPLY][key::TUPLE])?;
        let zone = flow[key::ZONE].as_u64().unwrap_or(0);
        match self.connections.get(&(ends(&original), zone)) {
            None => Some("has an entry, and conntrack has no such connection".into()),
            Some(now) if ends(now) != ends(&reply) => {
                Some(format!("is translated so that answers are {reply}, and conntrack has {now}"))
            }
            _ => None,
        }
    }
}

/// The core offers an entry anew with the next packet: packets have come since, and there is no rule, nor a reason.
fn lacks_a_rule(flow: &Value, dir: &Value) -> bool {
    const GRACE: u64 = 1000;
    let times = dir[key::SINCE].as_u64().zip(flow[key::LAST_USE].as_u64());
    dir[key::STATE] == "software"
        && dir[key::WHY].is_null()
        && times.is_some_and(|(since, last_use)| last_use + GRACE < since)
}

/// Where the table has it otherwise than the module.
fn rule_differences(dir: &Direction, rule: &Rule) -> Vec<String> {
    let mut found = vec![];
    let route = &dir.value[key::ROUTE];
    if let Some(new) = rule.new {
        let (_, src, sport, dst, dport) = dir.translated();
        if new != (src, sport, dst, dport) {
            let text = |(src, sport, dst, dport): (IpAddr, u16, IpAddr, u16)| format!("{src}:{sport} -> {dst}:{dport}");
            found.push(format!("is translated to {}, not to {}", text(new), text((src, sport, dst, dport))));
        }
    }
    for (what, mac, key) in [("to", Some(&rule.dmac), key::DMAC), ("from", rule.smac.as_ref(), key::SMAC)] {
        if let Some((right, mac)) = route[key].as_str().zip(mac).filter(|(right, mac)| right != mac) {
            found.push(format!("goes {what} {mac}, not {what} {right}"));
        }
    }
    let right = BTreeSet::from_iter(dir.vlans());
    // The second place holds something else where there is one tag and the way is to Wi-Fi.
    let tags: BTreeSet<_> = rule.vlans.iter().take(right.len().max(1)).collect();
    if !tags.iter().copied().eq(&right) {
        found.push(format!("leaves in VLANs {tags:?}, not in {right:?}"));
    }
    found
}

/// All that one look has found, and how much was looked at.
#[derive(Default)]
struct Look {
    findings: BTreeSet<Finding>,
    flows: u64,
    directions: u64,
    rules: u64,
    tables: usize,
    /// Why it is not known which rules other namespaces have.
    unknown: Option<String>,
}

impl Look {
    fn found(&mut self, level: &'static str, about: impl ToString, what: impl Into<String>) {
        self.findings.insert(Finding { level, about: about.to_string(), what: what.into() });
    }

    fn take() -> Result<Self, Failure> {
        let mut look = Self::default();
        let tables = ppe::tables();
        look.tables = tables.len();
        let rules: Vec<_> = tables.into_iter().flat_map(|(_, rules)| rules).collect();
        look.rules = rules.iter().filter(|rule| rule.is_bound).count() as u64;
        let by_ends: HashMap<Ends, &Rule> =
            rules.iter().filter(|rule| rule.is_bound).map(|rule| (rule.ends, rule)).collect();

        let mut offload = Offload::open()?;
        let devices = offload.devices()?;
        let mut flows = vec![];
        offload.dump("the flows", op::FLOW_GET, &json!({}), "flow", |flow| {
            flows.push(flow);
            Ok(())
        })?;
        let mut host = Host::get()?;

        let mut wanted = HashSet::new();
        for flow in &flows {
            look.flows += 1;
            let mut is_in_hardware = false;
            for dir in Direction::both(flow) {
                let differences = if dir.value[key::STATE] == "left" { vec![] } else { host.differences(&dir) };
                for what in differences {
                    look.found(HOST, dir.tuple, what);
                }
                if lacks_a_rule(flow, dir.value) {
                    look.found(DRIVER, dir.tuple, "has no rule, though packets come, and nothing is said against one");
                } else if dir.value[key::STATE] == "stale" {
                    look.found(DRIVER, dir.tuple, "has a rule that the driver has failed to remove");
                }
                if matches!(dir.value[key::STATE].as_str(), Some("hardware" | "queued" | "withdrawing" | "stale")) {
                    wanted.insert(ends(&dir.tuple));
                }
                if dir.is_in_hardware() {
                    is_in_hardware = true;
                    look.directions += 1;
                    match by_ends.get(&ends(&dir.tuple)) {
                        Some(rule) => {
                            for what in rule_differences(&dir, rule) {
                                look.found(TABLE, dir.tuple, what);
                            }
                        }
                        None if look.tables > 0 => {
                            look.found(TABLE, dir.tuple, "has a rule, as the driver says, and is not in the table");
                        }
                        None => (),
                    }
                }
            }
            if is_in_hardware {
                if let (Some(what), Some(tuple)) =
                    (host.unknown(flow), Tuple::from_value(&flow[key::ORIGINAL][key::TUPLE]))
                {
                    look.found(HOST, tuple, what);
                }
            }
        }
        for device in &devices {
            if let Some(rules) = device[key::STALE_RULES].as_u64().filter(|rules| *rules > 0) {
                let name = device[key::NAME].as_str().unwrap_or("?");
                look.found(DRIVER, name, format!("has {} that its driver has failed to remove", many(rules, "rule")));
            }
        }
        if by_ends.keys().any(|ends| !wanted.contains(ends)) {
            match of_others() {
                Ok(others) => wanted.extend(others),
                Err(why) => {
                    look.unknown = Some(why);
                    return Ok(look);
                }
            }
            for (ends, rule) in &by_ends {
                if !wanted.contains(ends) {
                    look.found(TABLE, rule.tuple(), "is in the table, and no flowtable has it there");
                }
            }
        }
        Ok(look)
    }
}

/// What flows of other network namespaces have in hardware: a table is one for all. Fails if that is not known of one.
fn of_others() -> Result<HashSet<Ends>, String> {
    let inode = |path: &str| fs::metadata(path).ok().map(|file| file.ino());
    let own = inode("/proc/self/ns/net");
    let names = |dir: &str, end: &str| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| format!("{dir}/{}{end}", entry.file_name().to_string_lossy())).collect()
    };
    let mut paths = HashMap::new();
    for path in names("/run/netns", "").into_iter().chain(names("/proc", "/ns/net")) {
        if let Some(inode) = inode(&path).filter(|inode| Some(*inode) != own) {
            paths.entry(inode).or_insert(path);
        }
    }
    let program = std::env::current_exe().unwrap_or_default();
    let mut found = HashSet::new();
    for path in paths.values() {
        let net = format!("--net={path}");
        let text = match system::run("nsenter", &[&net, &program.to_string_lossy(), "flows", "--json-lines"]) {
            Ok(text) => text,
            // The namespace has gone.
            Err(_) if inode(path).is_none() => continue,
            Err(why) => return Err(why),
        };
        for flow in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            found.extend(Direction::both(&flow).map(|dir| ends(&dir.tuple)));
        }
    }
    Ok(found)
}

pub fn audit(out: &mut Output) -> Result<u8, Failure> {
    let mut look = Look::take()?;
    if !look.findings.is_empty() {
        // The core collects entries once a second.
        thread::sleep(Duration::from_millis(1500));
        let again = Look::take()?;
        let both = look.findings.intersection(&again.findings).cloned().collect();
        look = Look { findings: both, ..again };
    }
    let status = if look.findings.is_empty() { 0 } else { COULD_BE_BETTER };
    if out.json {
        let findings = look
            .findings
            .iter()
            .map(|finding| json!({ "level": finding.level, "about": finding.about, "what": finding.what }));
        out.object(&json!({
            "findings": findings.collect::<Vec<_>>(),
            "flows": look.flows,
            "directions-in-hardware": look.directions,
            "hardware-tables": look.tables,
            "rules-in-tables": look.rules,
            "unknown": look.unknown,
        }))?;
        return Ok(status);
    }

    let count = |level: &str| look.findings.iter().filter(|finding| finding.level == level).count();
    let shown = match look.tables {
        0 => "no driver here shows the table of its hardware, as mtk_eth_soc and airoha do".into(),
        n => format!("{} in {}", many(look.rules, "rule"), many(n as u64, "table")),
    };
    for (level, what) in [
        (HOST, format!("{} against routes, neighbours and conntrack", many(look.flows, "flow"))),
        (DRIVER, format!("{} that drivers say they have", many(look.directions, "rule"))),
        (TABLE, shown),
    ] {
        let (tone, said) = match count(level) {
            0 if level == TABLE && look.tables == 0 => (Tone::Plain, "not looked at".into()),
            0 if level == TABLE && look.unknown.is_some() => (Tone::Plain, "not all looked at".into()),
            0 => (Tone::Good, "as it should be".into()),
            n => (Tone::Bad, format!("{} not as it should be", thousands(n as u64))),
        };
        let said = out.paint(tone, &said);
        out.line(format!("{level:<8}{said}: {what}"))?;
        if let (TABLE, Some(why)) = (level, &look.unknown) {
            out.line(wrap(&format!("which rules other namespaces have is not known: {why}"), 8, WIDTH))?;
        }
        for finding in look.findings.iter().filter(|finding| finding.level == level) {
            out.line(wrap(&format!("{} {}", finding.about, finding.what), 8, WIDTH))?;
        }
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TCP connection whose source is translated to 198.51.100.1:40001, out by VLAN 7.
    fn flow() -> Value {
        json!({
            "last-use": 100,
            "original": {
                "tuple": { "l4proto": 6, "src": "192.168.1.2", "dst": "192.0.2.1", "sport": 40000, "dport": 443 },
                "ingress": 1,
                "state": "hardware",
                "route": {
                    "ifindex": 2, "neighbour": "198.51.100.254", "mark": 5, "dscp": 8,
                    "smac": "02:00:00:00:00:01", "dmac": "02:00:00:00:00:02",
                    "encap": [{ "proto": 0x8100, "id": 7 }, { "proto": 0x8100, "id": 9, "by-switch": true }],
                },
            },
            "reply": {
                "tuple": { "l4proto": 6, "src": "192.0.2.1", "dst": "198.51.100.1", "sport": 443, "dport": 40001 },
                "ingress": 2,
                "state": "software",
                "since": 5000,
            },
        })
    }

    fn rule() -> Rule {
        let ip = |text: &str| text.parse().unwrap();
        Rule {
            is_bound: true,
            ends: (6, ip("192.168.1.2"), 40000, ip("192.0.2.1"), 443),
            new: Some((ip("198.51.100.1"), 40001, ip("192.0.2.1"), 443)),
            smac: Some("02:00:00:00:00:01".into()),
            dmac: "02:00:00:00:00:02".into(),
            vlans: vec![7],
        }
    }

    fn differences(rule: &Rule) -> Vec<String> {
        rule_differences(&Direction::both(&flow()).next().unwrap(), rule)
    }

    #[test]
    fn what_hardware_does_otherwise() {
        assert_eq!(differences(&rule()), [""; 0]);
        let wrong_mac = Rule { dmac: "02:00:00:00:00:03".into(), ..rule() };
        assert_eq!(differences(&wrong_mac), ["goes to 02:00:00:00:00:03, not to 02:00:00:00:00:02"]);
        let untranslated = Rule { new: Some((rule().ends.1, 40000, rule().ends.3, 443)), ..rule() };
        assert_eq!(
            differences(&untranslated),
            ["is translated to 192.168.1.2:40000 -> 192.0.2.1:443, not to 198.51.100.1:40001 -> 192.0.2.1:443"]
        );
        let untagged = Rule { vlans: vec![], ..rule() };
        assert_eq!(differences(&untagged), ["leaves in VLANs {}, not in {7}"]);
    }

    #[test]
    fn what_the_host_routes_by() {
        let flow = flow();
        let keys: Vec<_> = Direction::both(&flow).map(|dir| dir.route_key()).collect();
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        assert_eq!((keys[0].src, keys[0].dst), (Some(ip("192.168.1.2")), ip("192.0.2.1")));
        assert_eq!((keys[0].iif, keys[0].mark, keys[0].dscp), (Some(1), 5, 8));
        assert_eq!(keys[0].l4, Some((6, 40000, 443)));
        // The destination is the client's again before it is routed, and the source still the server's.
        assert_eq!((keys[1].src, keys[1].dst), (Some(ip("192.0.2.1")), ip("192.168.1.2")));
        assert_eq!((keys[1].iif, keys[1].l4), (Some(2), Some((6, 443, 40000))));
    }

    #[test]
    fn who_lacks_a_rule() {
        let flow = flow();
        assert!(!lacks_a_rule(&flow, &flow["original"]));
        assert!(lacks_a_rule(&flow, &flow["reply"]));
        let mut idle = flow.clone();
        idle["last-use"] = json!(4500);
        assert!(!lacks_a_rule(&idle, &idle["reply"]));
        let mut refused = flow.clone();
        refused["reply"]["why"] = json!([{ "reason": "refused" }]);
        assert!(!lacks_a_rule(&refused, &refused["reply"]));
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The ruleset as nft shows it: its flowtables, and whether a packet of a connection gets to a `flow add`, as far as what
//! is known of it decides.

use crate::{links::matches_name, system, tuple::protocol};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flowtable {
    pub family: String,
    pub table: String,
    pub name: String,
    /// As they are written, which may be with a `*` at the end.
    pub devices: Vec<String>,
    pub offload: bool,
    pub counter: bool,
}

impl Flowtable {
    /// `inet fw ft`.
    pub fn full_name(&self) -> String {
        format!("{} {} {}", self.family, self.table, self.name)
    }

    pub fn has(&self, device: &str) -> bool {
        self.devices.iter().any(|pattern| matches_name(pattern, device))
    }
}

#[derive(Debug, Default)]
pub struct Ruleset {
    pub flowtables: Vec<Flowtable>,
    objects: Vec<Value>,
    /// What `nft -a` shows of a rule, by table and handle.
    texts: BTreeMap<(String, u64), String>,
}

/// A rule, as an operator finds it again.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleName {
    /// `inet fw forward`.
    pub chain: String,
    pub text: String,
}

impl RuleName {
    pub fn words(&self) -> String {
        format!("the rule '{}' in chain {}", self.text, self.chain)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It gets to a `flow add` to this flowtable.
    Added {
        rule: RuleName,
        flowtable: String,
    },
    /// A rule ends it before; or the policy of a chain, or none does: nothing is there to add it.
    Dropped(Option<RuleName>),
    Accepted(RuleName),
    NotMet,
    /// What the rule asks for is not known here.
    Undecided {
        rule: RuleName,
        because: String,
    },
}

/// What is known of a packet at the forward hook.
#[derive(Clone, Debug)]
pub struct Packet {
    pub l4proto: u8,
    pub saddr: IpAddr,
    pub daddr: IpAddr,
    pub sport: Option<u16>,
    pub dport: Option<u16>,
    pub iif: Option<String>,
    pub oif: Option<String>,
    pub ct_state: &'static str,
    pub ct_direction: &'static str,
    pub ct_mark: u32,
    pub ct_zone: u16,
    pub ct_status: Vec<&'static str>,
}

impl Ruleset {
    pub fn get() -> Result<Self, String> {
        let text = system::run("nft", &["-a", "list", "ruleset"])?;
        Self::parse(&text, &system::run("nft", &["-j", "list", "ruleset"])?)
    }

    pub fn parse(text: &str, json: &str) -> Result<Self, String> {
        let json: Value = serde_json::from_str(json).map_err(|error| format!("nft -j list ruleset: {error}"))?;
        let mut ruleset = Self { objects: json["nftables"].as_array().cloned().unwrap_or_default(), ..Self::default() };
        ruleset.read_text(text);
        Ok(ruleset)
    }

    /// What JSON does not have: the flags of flowtables, and rules in the words of their authors.
    fn read_text(&mut self, text: &str) {
        let (mut table, mut in_flowtable) = ((String::new(), String::new()), false);
        for line in text.lines().map(str::trim) {
            let (line, handle) = match line.rsplit_once(" # handle ") {
                Some((line, handle)) => (line, handle.parse::<u64>().ok()),
                None => (line, None),
            };
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                ["table", family, name, "{"] => table = (family.into(), name.into()),
                ["flowtable", name, "{"] => {
                    in_flowtable = true;
                    self.flowtables.push(Flowtable {
                        family: table.0.clone(),
                        table: table.1.clone(),
                        name: name.into(),
                        ..Flowtable::default()
                    });
                }
                ["}"] => in_flowtable = false,
                _ if in_flowtable => {
                    let flowtable = self.flowtables.last_mut().unwrap();
                    match words[..] {
                        ["devices", "=", "{", ref names @ .., "}"] => {
                            let clean = |name: &&str| name.trim_matches([',', '"']).to_string();
                            flowtable.devices = names.iter().map(clean).collect();
                        }
                        ["flags", ref flags @ ..] => flowtable.offload = flags.iter().any(|f| f.contains("offload")),
                        ["counter"] => flowtable.counter = true,
                        _ => {}
                    }
                }
                _ => {
                    if let Some(handle) = handle {
                        self.texts.insert((format!("{} {}", table.0, table.1), handle), line.into());
                    }
                }
            }
        }
    }

    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().map(move |object| &object[kind]).filter(|object| !object.is_null())
    }

    fn rules<'a>(&'a self, table: &'a str, chain: &'a str) -> impl Iterator<Item = &'a Value> {
        self.of_kind("rule").filter(move |rule| table_of(rule) == table && rule["chain"] == chain)
    }

    fn name(&self, rule: &Value) -> RuleName {
        let table = table_of(rule);
        let text = self.texts.get(&(table.clone(), rule["handle"].as_u64().unwrap_or(0)));
        RuleName {
            chain: format!("{table} {}", rule["chain"].as_str().unwrap_or("?")),
            text: text.cloned().unwrap_or_else(|| format!("handle {}", rule["handle"])),
        }
    }

    /// All rules with `flow add`: themselves, and the flowtable.
    pub fn flow_adds(&self) -> Vec<(RuleName, String)> {
        let adds = self.of_kind("rule").filter_map(|rule| {
            let add = expressions(rule).find_map(|e| e["flow"]["flowtable"].as_str())?;
            Some((self.name(rule), format!("{} {}", table_of(rule), add.trim_start_matches('@'))))
        });
        adds.collect()
    }

    /// Rules that let all packets of known connections pass, with a `flow add` behind them in the same chain.
    pub fn accepts_before_flow_add(&self) -> Vec<(RuleName, RuleName)> {
        let mut found = vec![];
        for chain in self.of_kind("chain") {
            let (table, name) = (table_of(chain), chain["name"].as_str().unwrap_or(""));
            let mut accept = None;
            for rule in self.rules(&table, name) {
                if expressions(rule).any(|e| !e["flow"].is_null()) {
                    if let Some(accept) = &accept {
                        found.push((self.name(accept), self.name(rule)));
                    }
                } else if accept.is_none() && accepts_established(rule) {
                    accept = Some(rule.clone());
                }
            }
        }
        found
    }

    /// Those with `flow add` that do not ask for the connection's state.
    pub fn flow_adds_without_state(&self) -> Vec<RuleName> {
        let rules = self.of_kind("rule").filter(|rule| {
            expressions(rule).any(|e| !e["flow"].is_null())
                && !expressions(rule).any(|e| e["match"]["left"]["ct"]["key"] == "state")
        });
        rules.map(|rule| self.name(rule)).collect()
    }

    /// Helpers that rules give to connections: name and rule.
    pub fn helpers(&self) -> Vec<(String, RuleName)> {
        let rules = self.of_kind("rule").filter_map(|rule| {
            let helper = expressions(rule).find_map(|e| e["ct helper"].as_str())?;
            Some((helper.to_string(), self.name(rule)))
        });
        rules.collect()
    }

    /// What becomes of a packet in all chains at the forward hook.
    pub fn forward(&self, packet: &Packet) -> Verdict {
        let families = if packet.saddr.is_ipv4() { ["inet", "ip"] } else { ["inet", "ip6"] };
        let mut chains: Vec<_> = self
            .of_kind("chain")
            .filter(|chain| chain["hook"] == "forward" && families.iter().any(|family| chain["family"] == **family))
            .collect();
        chains.sort_by_key(|chain| chain["prio"].as_i64().unwrap_or(0));

        let mut accepted = None;
        for chain in chains {
            let mut walk = Walk { ruleset: self, packet, marks_known: true, depth: 0 };
            match walk.chain(&table_of(chain), chain["name"].as_str().unwrap_or("")) {
                Step::End(Verdict::Accepted(rule)) => accepted = accepted.or(Some(rule)),
                Step::End(verdict) => return verdict,
                Step::Continue | Step::Return if chain["policy"] == "drop" => return Verdict::Dropped(None),
                Step::Continue | Step::Return => {}
            }
        }
        // The rule that has accepted it may have done so before a 'flow add'.
        accepted.map_or(Verdict::NotMet, Verdict::Accepted)
    }
}

fn table_of(object: &Value) -> String {
    format!("{} {}", object["family"].as_str().unwrap_or("?"), object["table"].as_str().unwrap_or("?"))
}

fn expressions(rule: &Value) -> impl Iterator<Item = &Value> {
    rule["expr"].as_array().into_iter().flatten()
}

/// Does it accept whatever belongs to an established connection?
fn accepts_established(rule: &Value) -> bool {
    let mut accepts = false;
    for expression in expressions(rule) {
        let established = |value: &Value| {
            value == "established" || value.as_array().is_some_and(|l| l.contains(&"established".into()))
        };
        let is_state = |left: &Value| left["ct"]["key"] == "state";
        let (matches, map) = (&expression["match"], &expression["vmap"]);
        if !matches.is_null() {
            let right = match matches["right"]["set"].is_null() {
                true => &matches["right"],
                false => &matches["right"]["set"],
            };
            if !(is_state(&matches["left"]) && matches["op"] != "!=" && established(right)) {
                return false;
            }
        } else if !map.is_null() {
            let entries = map["data"]["set"].as_array().into_iter().flatten();
            accepts |= is_state(&map["key"])
                && entries.into_iter().any(|entry| established(&entry[0]) && entry[1].get("accept").is_some());
        } else if expression.get("accept").is_some() {
            accepts = true;
        } else if expression.get("counter").is_none() && expression.get("log").is_none() {
            return false;
        }
    }
    accepts
}

enum Step {
    Continue,
    Return,
    End(Verdict),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Truth {
    Yes,
    No,
    Unknown,
}

/// What is known at the left of a match.
#[derive(Clone, Debug)]
enum Known {
    Number(u64),
    Address(IpAddr),
    Name(String),
    Names(Vec<&'static str>),
    List(Vec<Known>),
    /// The packet does not have it: the match fails.
    Absent,
    Unknown,
}

struct Walk<'a> {
    ruleset: &'a Ruleset,
    packet: &'a Packet,
    /// No rule has set the packet's mark or the connection's.
    marks_known: bool,
    depth: u32,
}

impl Walk<'_> {
    fn chain(&mut self, table: &str, name: &str) -> Step {
        self.depth += 1;
        if self.depth > 64 {
            return Step::Continue;
        }
        for rule in self.ruleset.rules(table, name) {
            match self.rule(table, rule) {
                Step::Continue => {}
                Step::Return => return Step::Return,
                end => return end,
            }
        }
        Step::Continue
    }

    fn rule(&mut self, table: &str, rule: &Value) -> Step {
        let mut doubt: Option<String> = None;
        for expression in expressions(rule) {
            let Some((kind, what)) = expression.as_object().and_then(|object| object.iter().next()) else {
                continue;
            };
            match kind.as_str() {
                "match" => match self.matches(table, what) {
                    Truth::Yes => {}
                    Truth::No => return Step::Continue,
                    Truth::Unknown => doubt = doubt.or(Some(describe(&what["left"]))),
                },
                "limit" | "quota" | "ct count" | "xt" | "meter" => doubt = doubt.or(Some(kind.clone())),
                "mangle" if what["key"]["meta"]["key"] == "mark" || what["key"]["ct"]["key"] == "mark" => {
                    self.marks_known = false;
                }
                "vmap" => match self.map(table, &what["key"], &what["data"]) {
                    Ok(Some(verdict)) => return self.verdict(table, rule, &verdict, doubt),
                    Ok(None) => {}
                    Err(()) => return self.undecided(rule, describe(&what["key"])),
                },
                "flow" => {
                    if let Some(because) = doubt {
                        return self.undecided(rule, because);
                    }
                    let flowtable = what["flowtable"].as_str().unwrap_or("?").trim_start_matches('@');
                    return Step::End(Verdict::Added {
                        rule: self.ruleset.name(rule),
                        flowtable: format!("{table} {flowtable}"),
                    });
                }
                "accept" | "drop" | "reject" | "return" | "jump" | "goto" | "queue" | "continue" => {
                    return self.verdict(table, rule, expression, doubt);
                }
                _ => {}
            }
        }
        Step::Continue
    }

    fn undecided(&self, rule: &Value, because: String) -> Step {
        Step::End(Verdict::Undecided { rule: self.ruleset.name(rule), because })
    }

    fn verdict(&mut self, table: &str, rule: &Value, verdict: &Value, doubt: Option<String>) -> Step {
        let Some((kind, what)) = verdict.as_object().and_then(|object| object.iter().next()) else {
            return Step::Continue;
        };
        if kind == "continue" {
            return Step::Continue;
        }
        if let Some(because) = doubt {
            return self.undecided(rule, because);
        }
        match kind.as_str() {
            "accept" => Step::End(Verdict::Accepted(self.ruleset.name(rule))),
            "drop" | "reject" => Step::End(Verdict::Dropped(Some(self.ruleset.name(rule)))),
            "return" => Step::Return,
            "jump" | "goto" => match self.chain(table, what["target"].as_str().unwrap_or("")) {
                Step::Continue | Step::Return if kind == "goto" => Step::Return,
                Step::Continue | Step::Return => Step::Continue,
                end => end,
            },
            _ => self.undecided(rule, kind.clone()),
        }
    }

    fn matches(&self, table: &str, what: &Value) -> Truth {
        let left = self.known(&what["left"]);
        let right = &what["right"];
        let op = what["op"].as_str().unwrap_or("==");
        match (&left, op) {
            (Known::Absent, _) => Truth::No,
            (_, "==" | "in") => self.is(table, &left, right),
            (_, "!=") => match self.is(table, &left, right) {
                Truth::Yes => Truth::No,
                Truth::No => Truth::Yes,
                Truth::Unknown => Truth::Unknown,
            },
            (Known::Number(number), "<" | ">" | "<=" | ">=") => match right.as_u64() {
                Some(right) => truth(match op {
                    "<" => *number < right,
                    ">" => *number > right,
                    "<=" => *number <= right,
                    _ => *number >= right,
                }),
                None => Truth::Unknown,
            },
            _ => Truth::Unknown,
        }
    }

    fn known(&self, left: &Value) -> Known {
        let packet = self.packet;
        if let Some(list) = left["concat"].as_array() {
            let list: Vec<_> = list.iter().map(|part| self.known(part)).collect();
            return match list.iter().any(|part| matches!(part, Known::Absent)) {
                true => Known::Absent,
                false => Known::List(list),
            };
        }
        if let Some([inner, mask]) = left["&"].as_array().map(Vec::as_slice) {
            return match (self.known(inner), mask.as_u64()) {
                (Known::Number(number), Some(mask)) => Known::Number(number & mask),
                (Known::Absent, _) => Known::Absent,
                _ => Known::Unknown,
            };
        }
        let name = |name: &Option<String>| name.clone().map_or(Known::Unknown, Known::Name);
        if let Some(key) = left["meta"]["key"].as_str() {
            return match key {
                "iif" | "iifname" => name(&packet.iif),
                "oif" | "oifname" => name(&packet.oif),
                "l4proto" => Known::Number(packet.l4proto.into()),
                "nfproto" => Known::Name(if packet.saddr.is_ipv4() { "ipv4" } else { "ipv6" }.into()),
                "protocol" => Known::Name(if packet.saddr.is_ipv4() { "ip" } else { "ip6" }.into()),
                _ => Known::Unknown,
            };
        }
        if left["ct"]["dir"].is_null() {
            if let Some(key) = left["ct"]["key"].as_str() {
                return match key {
                    "state" => Known::Names(vec![packet.ct_state]),
                    "direction" => Known::Names(vec![packet.ct_direction]),
                    "status" => Known::Names(packet.ct_status.clone()),
                    "mark" if self.marks_known => Known::Number(packet.ct_mark.into()),
                    "zone" => Known::Number(packet.ct_zone.into()),
                    _ => Known::Unknown,
                };
            }
        }
        let port = |port: Option<u16>| port.map_or(Known::Absent, |port| Known::Number(port.into()));
        match (left["payload"]["protocol"].as_str(), left["payload"]["field"].as_str()) {
            (Some(family @ ("ip" | "ip6")), Some(field)) => match field {
                _ if (family == "ip") != packet.saddr.is_ipv4() => Known::Absent,
                "saddr" => Known::Address(packet.saddr),
                "daddr" => Known::Address(packet.daddr),
                "protocol" | "nexthdr" => Known::Number(packet.l4proto.into()),
                _ => Known::Unknown,
            },
            (Some(transport), Some(field)) => match field {
                _ if transport != "th" && protocol(transport) != Some(packet.l4proto) => Known::Absent,
                "sport" => port(packet.sport),
                "dport" => port(packet.dport),
                _ => Known::Unknown,
            },
            _ => Known::Unknown,
        }
    }

    fn is(&self, table: &str, left: &Known, right: &Value) -> Truth {
        if let Some(set) = right.as_str().and_then(|name| name.strip_prefix('@')) {
            return match self.ruleset.of_kind("set").find(|s| table_of(s) == table && s["name"] == set) {
                Some(set) => {
                    any(set["elem"].as_array().into_iter().flatten().map(|element| self.is(table, left, element)))
                }
                None => Truth::Unknown,
            };
        }
        if let Some(set) = right["set"].as_array() {
            return any(set.iter().map(|element| self.is(table, left, element)));
        }
        if !right["elem"].is_null() {
            return self.is(table, left, &right["elem"]["val"]);
        }
        if let (Known::List(parts), Some(values)) = (left, right["concat"].as_array()) {
            let all: Vec<_> = parts.iter().zip(values).map(|(part, value)| self.is(table, part, value)).collect();
            return match () {
                () if all.contains(&Truth::No) => Truth::No,
                () if all.contains(&Truth::Unknown) => Truth::Unknown,
                () => Truth::Yes,
            };
        }
        if let Some([from, to]) = right["range"].as_array().map(Vec::as_slice) {
            return match left {
                Known::Number(number) => match (number_of(from), number_of(to)) {
                    (Some(from), Some(to)) => truth((from..=to).contains(number)),
                    _ => Truth::Unknown,
                },
                Known::Address(address) => match (parse(from), parse(to)) {
                    (Some(from), Some(to)) => truth(from <= *address && *address <= to),
                    _ => Truth::Unknown,
                },
                _ => Truth::Unknown,
            };
        }
        if let (Known::Address(address), Some(prefix)) = (left, parse(&right["prefix"]["addr"])) {
            return match right["prefix"]["len"].as_u64() {
                Some(length) => truth(in_prefix(*address, prefix, length as u32)),
                None => Truth::Unknown,
            };
        }
        match (left, right) {
            (Known::Names(names), Value::Array(list)) => {
                truth(list.iter().any(|name| names.iter().any(|have| name == have)))
            }
            (Known::Names(names), Value::String(name)) => truth(names.contains(&name.as_str())),
            (Known::Name(have), Value::String(name)) => truth(matches_name(name, have)),
            (Known::Number(number), _) => number_of(right).map_or(Truth::Unknown, |right| truth(right == *number)),
            (Known::Address(address), _) => parse(right).map_or(Truth::Unknown, |right| truth(right == *address)),
            _ => Truth::Unknown,
        }
    }

    /// The verdict of a map for a key; nothing if it has none.
    fn map(&self, table: &str, key: &Value, data: &Value) -> Result<Option<Value>, ()> {
        let key = self.known(key);
        let name = data.as_str().map(|name| name.trim_start_matches('@'));
        let elements = match name {
            Some(name) => {
                let map = self.ruleset.of_kind("map").find(|map| table_of(map) == table && map["name"] == name);
                map.map(|map| &map["elem"]).ok_or(())?
            }
            None => &data["set"],
        };
        if matches!(key, Known::Absent) {
            return Ok(None);
        }
        for element in elements.as_array().into_iter().flatten() {
            match self.is(table, &key, &element[0]) {
                Truth::Yes => return Ok(Some(element[1].clone())),
                Truth::No => {}
                Truth::Unknown => return Err(()),
            }
        }
        Ok(None)
    }
}

fn truth(is: bool) -> Truth {
    if is {
        Truth::Yes
    } else {
        Truth::No
    }
}

fn any(truths: impl Iterator<Item = Truth>) -> Truth {
    let all: BTreeSet<_> = truths.map(|truth| truth as u8).collect();
    match () {
        () if all.contains(&(Truth::Yes as u8)) => Truth::Yes,
        () if all.contains(&(Truth::Unknown as u8)) => Truth::Unknown,
        () => Truth::No,
    }
}

fn number_of(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str().and_then(protocol).map(u64::from))
}

fn parse(value: &Value) -> Option<IpAddr> {
    value.as_str()?.parse().ok()
}

fn in_prefix(address: IpAddr, prefix: IpAddr, length: u32) -> bool {
    match (address, prefix) {
        (IpAddr::V4(a), IpAddr::V4(p)) => (a.to_bits() ^ p.to_bits()).leading_zeros() >= length,
        (IpAddr::V6(a), IpAddr::V6(p)) => (a.to_bits() ^ p.to_bits()).leading_zeros() >= length,
        _ => false,
    }
}

/// What a match asks for, as nft writes it.
fn describe(left: &Value) -> String {
    for kind in ["meta", "ct"] {
        if let Some(key) = left[kind]["key"].as_str() {
            return format!("{kind} {key}");
        }
    }
    match (left["payload"]["protocol"].as_str(), left["payload"]["field"].as_str()) {
        (Some(protocol), Some(field)) => format!("{protocol} {field}"),
        _ => match left["&"].as_array() {
            Some(list) => describe(&list[0]),
            None => "something that is not looked at here".into(),
        },
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A ruleset as nft 1.1.3 shows it.
    pub fn recorded() -> Ruleset {
        Ruleset::parse(include_str!("../tests/ruleset.nft"), include_str!("../tests/ruleset.json")).unwrap()
    }

    fn packet() -> Packet {
        Packet {
            l4proto: 6,
            saddr: "192.168.9.2".parse().unwrap(),
            daddr: "203.0.113.5".parse().unwrap(),
            sport: Some(40000),
            dport: Some(443),
            iif: Some("lan0".into()),
            oif: Some("wan0".into()),
            ct_state: "established",
            ct_direction: "original",
            ct_mark: 0,
            ct_zone: 0,
            ct_status: vec!["seen-reply", "assured", "confirmed"],
        }
    }

    /// The text of the rule that decides.
    fn decides(packet: &Packet) -> (String, &'static str) {
        match recorded().forward(packet) {
            Verdict::Added { rule, flowtable } => {
                assert_eq!(flowtable, "inet fw ft");
                (rule.text, "added")
            }
            Verdict::Accepted(rule) => (rule.text, "accepted"),
            Verdict::Dropped(rule) => (rule.map_or("policy".into(), |rule| rule.text), "dropped"),
            Verdict::Undecided { rule, because } => (format!("{}: {because}", rule.text), "undecided"),
            Verdict::NotMet => (String::new(), "not met"),
        }
    }

    #[test]
    fn flowtables() {
        let ruleset = recorded();
        let names: Vec<_> = ruleset.flowtables.iter().map(Flowtable::full_name).collect();
        assert_eq!(names, ["inet fw ft", "inet fw hw"]);
        let ft = &ruleset.flowtables[0];
        assert!(!ft.offload && ft.counter && ft.has("lan0") && ft.has("wan0") && !ft.has("lan1"));
        let hw = &ruleset.flowtables[1];
        assert!(hw.offload && !hw.counter && hw.has("port7") && !hw.has("lan0"));
        assert_eq!(ruleset.flow_adds().len(), 1);
        assert_eq!(ruleset.helpers()[0].0, "ftp-std");
        assert!(ruleset.flow_adds_without_state().is_empty());
    }

    #[test]
    fn which_rule_decides() {
        let base = packet();
        assert_eq!(decides(&base).1, "added");
        let with = |change: &dyn Fn(&mut Packet)| {
            let mut packet = base.clone();
            change(&mut packet);
            decides(&packet)
        };
        // A set of names and one of addresses, with a prefix and a range in it.
        assert_eq!(
            with(&|p| {
                p.iif = Some("wan0".into());
                p.saddr = "10.1.2.3".parse().unwrap()
            })
            .1,
            "accepted"
        );
        assert_eq!(
            with(&|p| {
                p.iif = Some("wan0".into());
                p.saddr = "192.168.1.8".parse().unwrap()
            })
            .1,
            "added"
        );
        assert_eq!(
            with(&|p| {
                p.iif = Some("wan0".into());
                p.saddr = "192.168.1.7".parse().unwrap()
            })
            .1,
            "accepted"
        );
        // Without the device that it comes in by nobody knows.
        let (why, what) = with(&|p| {
            p.iif = None;
            p.saddr = "10.1.2.3".parse().unwrap()
        });
        assert_eq!(what, "undecided");
        assert!(why.ends_with(": meta iifname"), "{why}");
        // Maps, by a name and in the rule; the chain that it jumps to accepts.
        assert_eq!(with(&|p| p.dport = Some(22)).1, "accepted");
        assert_eq!(with(&|p| p.dport = Some(80)).0, "accept");
        assert_eq!(with(&|p| p.ct_state = "invalid").1, "dropped");
        assert_eq!(
            with(&|p| {
                p.ct_state = "new";
                p.dport = Some(443)
            })
            .1,
            "undecided"
        );
        // Ranges, what is not in a set, masks.
        assert_eq!(
            with(&|p| {
                p.daddr = "10.0.0.1".parse().unwrap();
                p.dport = Some(1500)
            })
            .0,
            "accept"
        );
        assert_eq!(
            with(&|p| {
                p.daddr = "10.0.0.1".parse().unwrap();
                p.saddr = "5.6.7.9".parse().unwrap();
                p.dport = Some(1500)
            })
            .1,
            "added"
        );
        assert_eq!(with(&|p| p.ct_mark = 0x10).1, "dropped");
        assert_eq!(with(&|p| p.ct_mark = 0x20).1, "added");
        // SCTP is not added: the rest is a limit, of which nobody knows whether it is over.
        assert_eq!(with(&|p| p.l4proto = 132).1, "undecided");
    }

    #[test]
    fn accepts_that_come_first() {
        let json = |rule: &str| {
            format!(
                r#"{{"nftables":[{{"chain":{{"family":"inet","table":"t","name":"f","hook":"forward","prio":0}}}},
                {{"rule":{{"family":"inet","table":"t","chain":"f","handle":5,"expr":{rule}}}}},
                {{"rule":{{"family":"inet","table":"t","chain":"f","handle":6,"expr":[{{"flow":{{"op":"add","flowtable":"@ft"}}}}]}}}}]}}"#
            )
        };
        let state = |op: &str, states: &str| {
            format!(r#"{{"match":{{"op":"{op}","left":{{"ct":{{"key":"state"}}}},"right":{states}}}}}"#)
        };
        let first = |rule: String| !Ruleset::parse("", &json(&rule)).unwrap().accepts_before_flow_add().is_empty();
        assert!(first(format!(
            r#"[{},{{"counter":{{"packets":1,"bytes":2}}}},{{"accept":null}}]"#,
            state("in", r#"["established","related"]"#)
        )));
        assert!(first(format!(r#"[{},{{"accept":null}}]"#, state("in", r#""established""#))));
        assert!(first(r#"[{"accept":null}]"#.into()));
        assert!(!first(format!(r#"[{},{{"accept":null}}]"#, state("in", r#""related""#))));
        assert!(!first(format!(r#"[{},{{"drop":null}}]"#, state("in", r#""established""#))));
        assert!(!first(
            r#"[{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"a"}},{"accept":null}]"#.into()
        ));
        assert!(first(
            r#"[{"vmap":{"key":{"ct":{"key":"state"}},"data":{"set":[["invalid",{"drop":null}],["established",{"accept":null}]]}}}]"#.into()
        ));
    }
}

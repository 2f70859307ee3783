// SPDX-License-Identifier: GPL-2.0

//! `doctor`: is this machine able to have connections in hardware, and what is in the way? Needs no module.

use crate::{
    conntrack,
    failure::{Failure, COULD_BE_BETTER, STANDS_IN_THE_WAY},
    family::Offload,
    flows::should_be_zero,
    links::{self, Instead, Link, Links, TcOffload},
    output::{Output, Tone},
    ruleset::{Flowtable, Ruleset},
    spec::key,
    system,
    tuple::Query,
};
use serde_json::{json, Value};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Good,
    /// To be known, and right as it is in many places.
    Note,
    /// Could be better.
    Warning,
    /// Stands in the way.
    Bad,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

#[derive(Debug)]
pub struct Finding {
    pub level: Level,
    /// A word by which scripts know it again.
    pub check: &'static str,
    pub what: String,
    pub why: &'static str,
    pub remedy: String,
}

/// What the machine says.
#[derive(Default)]
pub struct Facts {
    pub release: String,
    /// The kernel takes modules in Rust, if that can be found out.
    pub takes_rust: Option<bool>,
    pub is_loaded: bool,
    pub c_is_loaded: bool,
    pub is_installed: bool,
    /// The devices as the module has them; or why it cannot be asked.
    pub module_devices: Option<Result<Vec<Value>, String>>,
    pub links: Links,
    pub tc_offload: BTreeMap<u32, TcOffload>,
    pub ruleset: Option<Result<Ruleset, String>>,
    /// Settings in /proc/sys.
    pub settings: BTreeMap<String, String>,
    pub bypasses_qdisc: Option<bool>,
    /// The tables that drivers show, and how many entries in use each has.
    pub driver_tables: Vec<(String, usize)>,
    /// Of all connections, how many are in a flowtable, and in hardware.
    pub connections: Option<[usize; 3]>,
}

const SETTINGS: &[&str] = &[
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv4/conf/all/rp_filter",
    "net/netfilter/nf_conntrack_acct",
    "net/netfilter/nf_flowtable_tcp_timeout",
    "net/netfilter/nf_flowtable_udp_timeout",
    "net/core/default_qdisc",
];

impl Facts {
    pub fn get() -> Self {
        let release = system::kernel_release();
        let is_loaded = system::is_loaded(system::MODULE);
        let links = Links::get().unwrap_or_default();
        let ruleset = Ruleset::get();
        let mut settings: BTreeMap<_, _> =
            SETTINGS.iter().filter_map(|name| Some((name.to_string(), system::sysctl(name)?))).collect();
        let mut tc_offload = BTreeMap::new();
        for flowtable in ruleset.as_ref().map_or(&[][..], |ruleset| &ruleset.flowtables) {
            for link in flowtable.devices.iter().flat_map(|pattern| links.matching(pattern)) {
                if let Some(feature) = links::tc_offload(link) {
                    tc_offload.insert(link.index, feature);
                }
                let name = format!("net/ipv4/conf/{}/rp_filter", link.name);
                if let Some(value) = system::sysctl(&name) {
                    settings.insert(name, value);
                }
            }
        }
        let mut connections = [0; 3];
        let counted = conntrack::find(&Query::default(), |connection| {
            connections[0] += 1;
            connections[1] += usize::from(connection.has(conntrack::OFFLOAD | conntrack::HW_OFFLOAD));
            connections[2] += usize::from(connection.has(conntrack::HW_OFFLOAD));
        });
        Self {
            takes_rust: takes_rust(&release),
            is_loaded,
            c_is_loaded: system::is_loaded(system::C_MODULE),
            is_installed: system::is_installed(&release),
            module_devices: is_loaded
                .then(|| Offload::open().and_then(|mut offload| offload.devices()).map_err(|failure| failure.text)),
            links,
            tc_offload,
            ruleset: Some(ruleset),
            settings,
            bypasses_qdisc: system::parameter("bypass_qdisc").map(|value| value != "0" && value != "N"),
            driver_tables: driver_tables(),
            connections: counted.is_ok().then_some(connections),
            release,
        }
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.settings.get(name)?.parse().ok()
    }
}

/// Those of MediaTek's and Airoha's drivers.
fn driver_tables() -> Vec<(String, usize)> {
    let files = ["ppe", "ppe0", "ppe1", "ppe2"].iter().map(|dir| format!("/sys/kernel/debug/{dir}/bind"));
    files.filter_map(|file| system::read(&file).map(|text| (file, text.lines().count()))).collect()
}

fn takes_rust(release: &str) -> Option<bool> {
    let config = system::read(&format!("/boot/config-{release}"))
        .or_else(|| system::run("zcat", &["/proc/config.gz"]).ok())
        .or_else(|| system::read(&format!("/lib/modules/{release}/build/.config")))?;
    Some(config.lines().any(|line| line == "CONFIG_RUST=y"))
}

/// All that is to be said, in the order in which things depend on each other.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut doctor = Doctor { facts, findings: vec![] };
    doctor.kernel();
    doctor.module();
    doctor.ruleset();
    doctor.settings();
    doctor.devices();
    doctor.connections();
    doctor.findings
}

struct Doctor<'a> {
    facts: &'a Facts,
    findings: Vec<Finding>,
}

impl Doctor<'_> {
    fn say(
        &mut self,
        level: Level,
        check: &'static str,
        what: impl Into<String>,
        why: &'static str,
        remedy: impl Into<String>,
    ) {
        self.findings.push(Finding { level, check, what: what.into(), why, remedy: remedy.into() });
    }

    fn good(&mut self, check: &'static str, what: impl Into<String>) {
        self.say(Level::Good, check, what, "", "");
    }

    fn kernel(&mut self) {
        let release = &self.facts.release;
        let what = format!("kernel {release}");
        if self.facts.is_loaded {
            self.good("kernel", what);
        } else if system::kernel_series(release).is_some_and(|series| series < (7, 2)) {
            let remedy = "Boot a kernel of 7.2 or later with CONFIG_RUST=y (Debian's of backports, for example)";
            self.say(Level::Bad, "kernel", what, "the module cannot be built for it", remedy);
        } else if self.facts.takes_rust == Some(false) {
            let remedy = "Boot a kernel with CONFIG_RUST=y (Debian's of backports, for example)";
            self.say(
                Level::Bad,
                "kernel",
                format!("{what} has no CONFIG_RUST"),
                "the module cannot be built for it",
                remedy,
            );
        } else {
            self.good("kernel", what);
        }
    }

    fn module(&mut self) {
        let facts = self.facts;
        match &facts.module_devices {
            Some(Ok(_)) => self.good("module", "nft_offload is loaded"),
            Some(Err(why)) => {
                let why = why.clone();
                let remedy = "See the message; doctor says what can be known without";
                self.say(
                    Level::Warning,
                    "module",
                    format!("nft_offload is loaded, but: {why}"),
                    "what it knows is not here",
                    remedy,
                );
            }
            None if facts.c_is_loaded => {
                let remedy = match facts.is_installed {
                    true => "Delete the flowtables, run 'modprobe -r nf_flow_table_inet' and load the ruleset again, or reboot",
                    false => "Install nft_offload for this kernel (package nft-offload-dkms), then reboot",
                };
                let why = "the kernel's own module has the place of nft_offload, which can do what it does, and more";
                self.say(Level::Bad, "module", "nf_flow_table_inet is loaded", why, remedy);
            }
            None if facts.is_installed => {
                let remedy = "Load a ruleset with a flowtable, or run 'modprobe nft_offload'";
                self.say(
                    Level::Bad,
                    "module",
                    "nft_offload is not loaded",
                    "nftables loads it with the first flowtable",
                    remedy,
                );
            }
            None => {
                let remedy = "Install the package nft-offload-dkms, or run 'make' and 'make install' in its source";
                let what = "nft_offload is not installed for this kernel";
                self.say(Level::Bad, "module", what, "without it flowtables are the C module's", remedy);
            }
        }
    }

    fn ruleset(&mut self) {
        let ruleset = match &self.facts.ruleset {
            None => return,
            Some(Err(why)) => {
                let remedy = "Install nftables, and run this as root";
                self.say(
                    Level::Bad,
                    "ruleset",
                    why.clone(),
                    "the ruleset decides which connections are offloaded",
                    remedy,
                );
                return;
            }
            Some(Ok(ruleset)) => ruleset,
        };
        if ruleset.flowtables.is_empty() {
            let remedy = "Add a flowtable with 'flags offload' and a rule with 'flow add', as in README.md";
            let why = "only connections in a flowtable can be in hardware";
            self.say(Level::Bad, "flowtable", "the ruleset has no flowtable", why, remedy);
        }
        let adds = ruleset.flow_adds();
        for flowtable in &ruleset.flowtables {
            let name = flowtable.full_name();
            if !flowtable.offload {
                let why = "its connections take the fast path in software only";
                self.say(
                    Level::Bad,
                    "flags",
                    format!("flowtable {name} has no 'flags offload'"),
                    why,
                    "Add 'flags offload' to it",
                );
            } else {
                self.good("flags", format!("flowtable {name} has 'flags offload'"));
            }
            if !adds.iter().any(|(_, to)| *to == name) {
                let remedy =
                    format!("Add 'ct state established flow add @{}' to the chain that forwards", flowtable.name);
                let what = format!("no rule has 'flow add @{}'", flowtable.name);
                self.say(Level::Bad, "flow-add", what, "nothing gets into the flowtable", remedy);
            }
            if flowtable.counter && self.facts.number("net/netfilter/nf_conntrack_acct") == Some(0) {
                let what = format!("flowtable {name} has 'counter', but net.netfilter.nf_conntrack_acct is 0");
                let why = "conntrack counts nothing of connections that began so, neither in software nor in hardware";
                self.say(Level::Warning, "counter", what, why, "sysctl -w net.netfilter.nf_conntrack_acct=1");
            } else if !flowtable.counter {
                let what = format!("flowtable {name} has no 'counter'");
                let why = "'conntrack -L' and 'ct bytes' do not see what goes by it";
                self.say(Level::Note, "counter", what, why, "Add 'counter' to it, if that is wanted");
            }
        }
        for (accept, add) in ruleset.accepts_before_flow_add() {
            let what = format!("{} comes before '{}'", accept.words(), add.text);
            let why = "it accepts all that is established, so that nothing gets to the 'flow add'";
            self.say(Level::Bad, "order", what, why, "Put the rule with 'flow add' first");
        }
        for rule in ruleset.flow_adds_without_state() {
            let what = format!("{} does not ask for 'ct state'", rule.words());
            let why = "the flowtable is asked for each packet, of new and ending connections too, in vain";
            self.say(Level::Note, "ct-state", what, why, "Begin the rule with 'ct state established'");
        }
        for (helper, rule) in ruleset.helpers() {
            let what = format!("{} gives connections the helper {helper}", rule.words());
            let why = "connections with a helper are never in a flowtable: the helper reads their packets";
            self.say(Level::Note, "helper", what, why, "Nothing, if they need it; else narrow the rule");
        }
    }

    fn settings(&mut self) {
        let facts = self.facts;
        let (four, six) = (facts.number("net/ipv4/ip_forward"), facts.number("net/ipv6/conf/all/forwarding"));
        match (four, six) {
            (Some(0), Some(0) | None) => {
                let remedy = "sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1";
                self.say(
                    Level::Bad,
                    "forwarding",
                    "this host forwards nothing",
                    "only what is forwarded can be offloaded",
                    remedy,
                );
            }
            (Some(0), _) => {
                let what = "IPv4 is not forwarded (net.ipv4.ip_forward)";
                self.say(
                    Level::Note,
                    "forwarding",
                    what,
                    "no connection of it can be offloaded",
                    "sysctl -w net.ipv4.ip_forward=1",
                );
            }
            (_, Some(0)) => {
                let what = "IPv6 is not forwarded (net.ipv6.conf.all.forwarding)";
                let remedy = "sysctl -w net.ipv6.conf.all.forwarding=1";
                self.say(Level::Note, "forwarding", what, "no connection of it can be offloaded", remedy);
            }
            (Some(_), _) => self.good("forwarding", "forwarding is on"),
            (None, _) => {}
        }
        for proto in ["tcp", "udp"] {
            let name = format!("net/netfilter/nf_flowtable_{proto}_timeout");
            if let Some(seconds) = facts.number(&name).filter(|seconds| *seconds < 10) {
                let what = format!("{} is {seconds}", name.replace('/', "."));
                let why = "a connection that is idle for so many seconds leaves hardware, and has to get in again";
                self.say(Level::Warning, "timeout", what, why, format!("sysctl -w {}=30", name.replace('/', ".")));
            }
        }
    }

    fn devices(&mut self) {
        let facts = self.facts;
        let flowtables: &[Flowtable] = match &facts.ruleset {
            Some(Ok(ruleset)) => &ruleset.flowtables,
            _ => &[],
        };
        let mut seen = BTreeSet::new();
        for flowtable in flowtables {
            for pattern in &flowtable.devices {
                let members: Vec<_> = facts.links.matching(pattern).collect();
                if members.is_empty() {
                    let what = format!("flowtable {} names {pattern}, which is not there", flowtable.full_name());
                    let why = "connections by it are not in the flowtable until it comes";
                    self.say(Level::Note, "missing", what, why, "Mend the name, if it will not come");
                }
                for link in members {
                    if seen.insert((flowtable.full_name(), link.index)) {
                        self.member(flowtable, link);
                    }
                }
            }
            self.missing_ports(flowtable);
        }
        if let Some(Ok(devices)) = &facts.module_devices {
            for what in should_be_zero(devices) {
                let why = "what the NIC does may not be what the host would do";
                self.say(Level::Bad, "driver", what, why, "See the kernel log; reload the driver if it does not end");
            }
            for device in devices {
                let name = device[key::NAME].as_str().unwrap_or("?");
                match device[key::BIND_TYPE].as_str() {
                    Some(kind) => self.good("bound", format!("{name} takes rules (bound for {kind})")),
                    None => self.say(
                        Level::Warning,
                        "bound",
                        format!("{name} takes no rules yet"),
                        "what comes in by it stays in software",
                        "It is tried again; the kernel log says what its driver has answered",
                    ),
                }
            }
            for device in devices.iter().filter(|device| !device[key::FULL_FOR].is_null()) {
                let what = format!("{} has no room for more rules", device[key::NAME].as_str().unwrap_or("?"));
                let remedy = crate::reasons::advice(crate::spec::Reason::NoRoom).remedy;
                self.say(Level::Warning, "full", what, "further connections stay in software", remedy);
            }
        }
    }

    fn member(&mut self, flowtable: &Flowtable, link: &Link) {
        let facts = self.facts;
        let (name, table) = (&link.name, flowtable.full_name());
        let never = match facts.links.instead(link) {
            Instead::Itself => None,
            Instead::Ports(ports) if ports.is_empty() => {
                Some((format!("{name} is or leads to a bridge"), "Put the ports of the bridge there instead".into()))
            }
            Instead::Ports(ports) => Some((
                format!("{name} is or leads to a bridge"),
                format!("Put its ports there instead: {}", ports.join(", ")),
            )),
            Instead::Below(below) => {
                Some((format!("{name} is a VLAN device"), format!("Put {below} there instead, which sends for it")))
            }
            Instead::BelowSession => Some((
                format!("{name} is a PPP session"),
                "Put the Ethernet device below the session there instead".into(),
            )),
            Instead::Nothing => Some((
                format!("{name} is a bond, or belongs to one"),
                "Nothing by a bond can be offloaded: take it out".into(),
            )),
        };
        if let Some((what, remedy)) = never {
            let what = format!("{what}, and in flowtable {table}");
            let why = "no connection is ever matched there: the kernel knows those devices only that send and receive the frames";
            self.say(Level::Bad, "member", what, why, remedy);
            return;
        }

        if flowtable.offload {
            match facts.tc_offload.get(&link.index) {
                Some(TcOffload { on: true, .. }) => self.good("hw-tc-offload", format!("{name} has hw-tc-offload on")),
                Some(TcOffload { can_change: true, .. }) => self.say(
                    Level::Bad,
                    "hw-tc-offload",
                    format!("{name} has hw-tc-offload off"),
                    "what comes in by it stays in software",
                    format!("ethtool -K {name} hw-tc-offload on"),
                ),
                Some(_) => self.say(
                    Level::Bad,
                    "hw-tc-offload",
                    format!("{name} cannot hw-tc-offload"),
                    "its driver takes no rules, so that what comes in by it stays in software",
                    "Use a port whose driver can, as in drivers.md; with incapable=1 it may be in the flowtable all the same",
                ),
                None => {}
            }
        }
        if !link.is_up {
            self.say(
                Level::Note,
                "down",
                format!("{name} is down"),
                "nothing goes by it",
                format!("ip link set {name} up"),
            );
        }
        // Past the qdisc of the device, and of what is on top of it.
        let default = facts.settings.get("net/core/default_qdisc").map_or("", String::as_str);
        let above = facts.links.0.values().filter(|other| {
            other.index == link.index || (matches!(facts.links.instead(other), Instead::Below(below) if below == *name))
        });
        let shapers: Vec<_> =
            above.filter_map(|other| Some((other.name.clone(), other.shaper(default)?.to_string()))).collect();
        for (device, qdisc) in shapers.into_iter().filter(|_| flowtable.offload) {
            let (why, remedy) = match facts.bypasses_qdisc {
                Some(false) => (
                    "connections that leave by it stay in software (bypass_qdisc=0)",
                    format!("Nothing, if the shaper is wanted; else: tc qdisc replace dev {device} root fq_codel"),
                ),
                _ => (
                    "hardware sends past it, so that it shapes nothing of what is offloaded",
                    "If it is wanted, load the module with bypass_qdisc=0, so that such connections stay in software"
                        .into(),
                ),
            };
            self.say(Level::Warning, "qdisc", format!("{device} has the qdisc {qdisc}"), why, remedy);
        }
        if link.has_ingress_filters && flowtable.offload {
            let why = "its filters and policers see no packet that hardware forwards";
            self.say(
                Level::Note,
                "ingress",
                format!("{name} has a qdisc at its ingress"),
                why,
                "Nothing, if they do not matter",
            );
        }
        let strict = |name: &str| facts.number(&format!("net/ipv4/conf/{name}/rp_filter"));
        if strict("all").max(strict(name)) == Some(1) {
            let why = "with more than one way out, what comes in by another way than it would go back is dropped, offloaded or not";
            let what = format!("rp_filter is strict at {name}");
            self.say(
                Level::Note,
                "rp_filter",
                what,
                why,
                format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2, with more than one way out"),
            );
        }
    }

    /// Of a bridge with some ports in a flowtable, those that are not.
    fn missing_ports(&mut self, flowtable: &Flowtable) {
        let links = &self.facts.links;
        let members: Vec<_> = links.0.values().filter(|link| flowtable.has(&link.name)).collect();
        let mut missing = vec![];
        for link in links.0.values().filter(|link| links.is_kind(link.master, "bridge") && !flowtable.has(&link.name)) {
            if members.iter().any(|member| member.master == link.master) {
                missing.push((link.name.clone(), links.name(link.master.unwrap_or(0))));
            }
        }
        for (port, bridge) in missing {
            let what = format!(
                "{port} is a port of {bridge}, and not in flowtable {} as others of it are",
                flowtable.full_name()
            );
            let why = "connections by it are not in the flowtable";
            self.say(Level::Warning, "missing", what, why, format!("Add {port} to its devices"));
        }
    }

    fn connections(&mut self) {
        let facts = self.facts;
        for (file, entries) in &facts.driver_tables {
            self.good("driver-table", format!("the driver's own table {file} has {entries} entries in use"));
        }
        if let Some([all, offloaded, hardware]) = self.facts.connections {
            self.good(
                "connections",
                format!("conntrack has {all} connections, {offloaded} in a flowtable, {hardware} of these in hardware ([HW_OFFLOAD])"),
            );
        }
    }
}

pub fn worst(findings: &[Finding]) -> u8 {
    match findings.iter().map(|finding| finding.level).max() {
        Some(Level::Bad) => STANDS_IN_THE_WAY,
        Some(Level::Warning) => COULD_BE_BETTER,
        _ => 0,
    }
}

/// Findings as objects, for JSON.
pub fn to_json(findings: &[Finding]) -> Value {
    let list = findings.iter().map(|finding| {
        let mut object = json!({ "level": finding.level.name(), "check": finding.check, "what": finding.what });
        if !finding.why.is_empty() {
            object[key::WHY] = json!(finding.why);
            object["remedy"] = json!(finding.remedy);
        }
        object
    });
    json!({ "findings": list.collect::<Vec<_>>() })
}

pub fn render(findings: &[Finding], quiet: bool, out: &mut Output) -> Result<(), Failure> {
    for finding in findings.iter().filter(|finding| !quiet || finding.level > Level::Good) {
        let tone = match finding.level {
            Level::Good => Tone::Good,
            Level::Note => Tone::Bold,
            Level::Warning => Tone::Warning,
            Level::Bad => Tone::Bad,
        };
        let level = out.paint(tone, &format!("{:<8}", finding.level.name()));
        let rest = match finding.why {
            "" => String::new(),
            why => format!(": {why}. {}", finding.remedy),
        };
        out.line(format!("{level}{}{rest}", finding.what))?;
    }
    Ok(())
}

pub fn doctor(quiet: bool, out: &mut Output) -> Result<u8, Failure> {
    let findings = examine(&Facts::get());
    if out.json {
        out.object(&to_json(&findings))?;
    } else {
        render(&findings, quiet, out)?;
    }
    Ok(worst(&findings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::tests::some;

    fn healthy() -> Facts {
        let text = "table inet fw { # handle 1\n flowtable ft { # handle 2\n devices = { eth0, eth1, eth2 }\n flags offload\n counter\n }\n \
                    chain forward { # handle 3\n ct state established flow add @ft # handle 4\n }\n}\n";
        let json = r#"{"nftables":[{"rule":{"family":"inet","table":"fw","chain":"forward","handle":4,"expr":[
            {"match":{"op":"in","left":{"ct":{"key":"state"}},"right":"established"}},{"flow":{"op":"add","flowtable":"@ft"}}]}}]}"#;
        let settings = [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/netfilter/nf_conntrack_acct", "1"),
            ("net/netfilter/nf_flowtable_tcp_timeout", "30"),
            ("net/netfilter/nf_flowtable_udp_timeout", "30"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/eth0/rp_filter", "2"),
            ("net/core/default_qdisc", "fq_codel"),
        ];
        Facts {
            release: "7.3.4".into(),
            is_loaded: true,
            module_devices: Some(Ok(vec![])),
            links: some(),
            tc_offload: [1, 2, 3].map(|index| (index, TcOffload { on: true, can_change: true })).into(),
            ruleset: Some(Ruleset::parse(text, json)),
            settings: settings.map(|(name, value)| (name.to_string(), value.to_string())).into(),
            bypasses_qdisc: Some(true),
            ..Facts::default()
        }
    }

    /// The findings that are not good, as `check: what`.
    fn complaints(facts: &Facts) -> Vec<String> {
        let findings = examine(facts);
        for finding in &findings {
            assert_eq!(finding.level == Level::Good, finding.why.is_empty(), "{finding:?}");
            assert_eq!(finding.level == Level::Good, finding.remedy.is_empty(), "{finding:?}");
        }
        findings.iter().filter(|f| f.level > Level::Good).map(|f| format!("{} {}", f.level.name(), f.check)).collect()
    }

    fn with(change: impl FnOnce(&mut Facts)) -> Vec<String> {
        let mut facts = healthy();
        change(&mut facts);
        complaints(&facts)
    }

    fn set(facts: &mut Facts, name: &str, value: &str) {
        facts.settings.insert(name.into(), value.into());
    }

    fn devices(facts: &mut Facts, names: &str) {
        let Some(Ok(ruleset)) = &mut facts.ruleset else { panic!() };
        ruleset.flowtables[0].devices = names.split(' ').map(String::from).collect();
    }

    #[test]
    fn nothing_is_wrong_with_a_healthy_machine() {
        let facts = healthy();
        assert_eq!(complaints(&facts), Vec::<String>::new());
        assert_eq!(worst(&examine(&facts)), 0);
    }

    #[test]
    fn what_is_in_the_way_is_found() {
        let no_module = |facts: &mut Facts| (facts.is_loaded, facts.module_devices) = (false, None);
        assert_eq!(with(no_module), ["bad module"]);
        assert_eq!(
            with(|f| {
                no_module(f);
                f.release = "6.12.1".into()
            }),
            ["bad kernel", "bad module"]
        );
        assert_eq!(
            with(|f| {
                no_module(f);
                f.takes_rust = Some(false)
            }),
            ["bad kernel", "bad module"]
        );
        assert_eq!(
            with(|f| {
                no_module(f);
                f.c_is_loaded = true
            }),
            ["bad module"]
        );
        assert_eq!(with(|f| f.module_devices = Some(Err("no".into()))), ["warning module"]);
        assert_eq!(with(|f| f.ruleset = Some(Err("nft is not installed".into()))), ["bad ruleset"]);
        assert_eq!(with(|f| f.ruleset = Some(Ok(Ruleset::default()))), ["bad flowtable"]);
        assert_eq!(with(|f| set(f, "net/netfilter/nf_conntrack_acct", "0")), ["warning counter"]);
        assert_eq!(with(|f| set(f, "net/ipv6/conf/all/forwarding", "0")), ["note forwarding"]);
        assert_eq!(
            with(|f| {
                set(f, "net/ipv6/conf/all/forwarding", "0");
                set(f, "net/ipv4/ip_forward", "0")
            }),
            ["bad forwarding"]
        );
        assert_eq!(with(|f| set(f, "net/netfilter/nf_flowtable_udp_timeout", "3")), ["warning timeout"]);
        assert_eq!(with(|f| set(f, "net/ipv4/conf/all/rp_filter", "1")), ["note rp_filter"; 2]);
        assert_eq!(with(|f| f.links.0.get_mut(&1).unwrap().qdiscs = vec!["cake".into()]), ["warning qdisc"]);
        // On top of eth2 is a VLAN device.
        assert_eq!(with(|f| f.links.0.get_mut(&5).unwrap().qdiscs = vec!["htb".into()]), ["warning qdisc"]);
        assert_eq!(with(|f| f.links.0.get_mut(&8).unwrap().qdiscs = vec!["htb".into()]), Vec::<String>::new());
        for can_change in [true, false] {
            let off = TcOffload { on: false, can_change };
            assert_eq!(with(|f| _ = f.tc_offload.insert(1, off)), ["bad hw-tc-offload"]);
        }
        assert_eq!(with(|f| f.module_devices = Some(Ok(vec![json!({"name": "eth0"})]))), ["warning bound"]);
        let full = json!({"name": "eth0", "bind-type": "tc", "full-for": 5, "stale-rules": 1});
        assert_eq!(with(|f| f.module_devices = Some(Ok(vec![full]))), ["bad driver", "warning full"]);
    }

    #[test]
    fn members_that_never_match() {
        for (name, says) in [
            ("br0", "Put its ports there instead: eth1"),
            ("eth2.5", "Put eth2 there instead"),
            ("bond0", "take it out"),
            ("eth3", "take it out"),
            ("ppp0", "below the session"),
        ] {
            let mut facts = healthy();
            devices(&mut facts, name);
            let findings = examine(&facts);
            let finding = findings.iter().find(|f| f.check == "member").unwrap();
            assert!(finding.remedy.contains(says), "{finding:?}");
            assert_eq!(worst(&findings), STANDS_IN_THE_WAY);
        }
        // Another port of the same bridge.
        let another = |facts: &mut Facts| facts.links.0.get_mut(&3).unwrap().master = Some(4);
        assert_eq!(
            with(|f| {
                another(f);
                devices(f, "eth0 eth1")
            }),
            ["warning missing"]
        );
        assert_eq!(with(|f| devices(f, "eth0 eth1 eth9")), ["note missing"]);
    }
}

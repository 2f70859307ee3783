// SPDX-License-Identifier: GPL-2.0

//! `flows`, `devices`, `tables`, `reasons`, `status`.

use crate::{
    failure::{Failure, COULD_BE_BETTER, NOT_FOUND, USAGE},
    family::Offload,
    links::Links,
    output::{bytes, duration, many, nanoseconds, percent, thousands, wrap, Output, Tone},
    reasons::{advice, origin, words},
    spec::{self, key, op, Reason},
    system,
    tuple::{protocol, Tuple},
};
use clap::ArgMatches;
use serde_json::{json, Map, Value};
use std::{cmp::Reverse, io};

pub const DIRECTIONS: [&str; 2] = ["original", "reply"];

pub const SORT_KEYS: [&str; 5] = ["bytes", "packets", "idle", "since", "offers"];

/// Said when a dump was disturbed.
const INTERRUPTED: &str = "flows have come and gone meanwhile: some may be missing, or here twice";

/// The devices' names, where they can be had: nothing depends on them.
pub fn names() -> Links {
    Links::get().unwrap_or_default()
}

/// The index of a device of this network namespace.
pub fn ifindex(links: &Links, name: &str) -> Result<u32, Failure> {
    links.named(name).map(|link| link.index).ok_or_else(|| {
        Failure::new(NOT_FOUND, format!("there is no device {name} in this network namespace: see 'ip link'"))
    })
}

fn one_of(what: &str, name: &str, names: &[&str]) -> Result<Value, Failure> {
    match names.contains(&name) {
        true => Ok(json!(name)),
        false => Err(Failure::new(USAGE, format!("there is no {what} '{name}'; there are: {}", names.join(" ")))),
    }
}

/// The conditions of the command line, for the kernel.
pub fn filter(arguments: &ArgMatches, links: &Links) -> Result<Value, Failure> {
    let get = |name| arguments.get_one::<String>(name).map(String::as_str);
    let mut filter = Map::new();
    if let Some(name) = get("device") {
        filter.insert("ifindex".into(), json!(ifindex(links, name)?));
    }
    if let Some(name) = get("state") {
        filter.insert("state".into(), one_of("state", name, spec::FlowState::NAMES)?);
    }
    if let Some(name) = get("reason") {
        filter.insert("reason".into(), one_of("reason", name, Reason::NAMES)?);
    }
    if let Some(text) = get("address") {
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let wrong = || Failure::new(USAGE, format!("'{text}' is neither an address nor a prefix"));
        let address: std::net::IpAddr = address.parse().map_err(|_| wrong())?;
        filter.insert("address".into(), json!(address.to_string()));
        if let Some(length) = length {
            let length: u8 = length.parse().map_err(|_| wrong())?;
            if length > if address.is_ipv4() { 32 } else { 128 } {
                return Err(wrong());
            }
            filter.insert("prefix-len".into(), json!(length));
        }
    }
    if let Some(port) = arguments.get_one::<u16>("port") {
        filter.insert("port".into(), json!(port));
    }
    if let Some(word) = get("protocol") {
        let number = protocol(word)
            .ok_or_else(|| Failure::new(USAGE, format!("'{word}' is no protocol: tcp, udp, gre, or a number")))?;
        filter.insert("l4proto".into(), json!(number));
    }
    Ok(match filter.is_empty() {
        true => json!({}),
        false => json!({ "filter": filter }),
    })
}

/// What hardware has forwarded of both directions, as far as the driver says that.
fn in_hardware(flow: &Value, what: &str) -> Option<u64> {
    let counts: Vec<_> = DIRECTIONS.iter().filter_map(|dir| flow[dir][key::HARDWARE][what].as_u64()).collect();
    (!counts.is_empty()).then(|| counts.iter().sum())
}

fn sort_key(flow: &Value, key: &str) -> u64 {
    match key {
        "bytes" | "packets" => in_hardware(flow, key).unwrap_or(0),
        "since" => DIRECTIONS.iter().filter_map(|dir| flow[dir][key::SINCE].as_u64()).max().unwrap_or(0),
        "idle" => flow[key::LAST_USE].as_u64().unwrap_or(0),
        _ => flow[key::OFFERS].as_u64().unwrap_or(0),
    }
}

fn state(flow: &Value) -> String {
    let states = DIRECTIONS.map(|dir| match &flow[dir][key::STATE] {
        Value::String(name) => name.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    });
    match &states {
        [original, reply] if original == reply => original.clone(),
        [original, reply] => format!("{original}/{reply}"),
    }
}

fn flow_line(flow: &Value, links: &Links, out: &Output) -> String {
    let tuple = Tuple::from_value(&flow[key::ORIGINAL][key::TUPLE]).map_or("?".into(), |tuple| tuple.to_string());
    let state = state(flow);
    let tone = match state.as_str() {
        "hardware" => Tone::Good,
        "software" | "left" => Tone::Plain,
        _ => Tone::Warning,
    };
    let mut line = format!("{tuple:<58} {}", out.paint(tone, &format!("{state:<18}")));
    line += &format!(" {:<12}", flow[key::FLOWTABLE].as_str().unwrap_or("-"));
    let nat = match (flow[key::SNAT].is_null(), flow[key::DNAT].is_null()) {
        (true, true) => "",
        (false, true) => "snat",
        (true, false) => "dnat",
        _ => "nat",
    };
    line += &format!(" {nat:<4}");
    line += &format!(" {:>7}", flow[key::LAST_USE].as_u64().map_or("-".into(), duration));
    line += &format!(" {:>9}", in_hardware(flow, key::BYTES).map_or("-".into(), bytes));
    let mut said = vec![];
    for dir in DIRECTIONS {
        for why in flow[dir][key::WHY].as_array().into_iter().flatten() {
            let name = why[key::REASON].as_str().map_or_else(|| why[key::REASON].to_string(), String::from);
            let mut text = name;
            if let Some(index) = why[key::IFINDEX].as_u64() {
                text += &format!(" {}", links.name(index as u32));
            }
            if let Some(errno) = why[key::ERRNO].as_u64() {
                text += &format!(" {}", crate::reasons::errno_name(errno));
            }
            if !said.contains(&text) {
                said.push(text);
            }
        }
    }
    line += &format!("  {}", said.join(", "));
    line.trim_end().into()
}

fn flow_head() -> String {
    format!(
        "{:<58} {:<18} {:<12} {:<4} {:>7} {:>9}  why not",
        "connection", "state", "flowtable", "NAT", "idle", "hardware"
    )
}

pub fn flows(arguments: &ArgMatches, out: &mut Output) -> Result<u8, Failure> {
    let links = names();
    let request = filter(arguments, &links)?;
    let limit = arguments.get_one::<usize>("limit").copied().unwrap_or(usize::MAX);
    let lines = arguments.get_flag("json-lines");
    let mut offload = Offload::open()?;

    if !out.json && !lines {
        let head = flow_head();
        let head = out.paint(Tone::Bold, &head);
        out.line(head)?;
    }
    let mut shown = 0;
    let mut show = |flow: &Value, out: &mut Output| -> io::Result<()> {
        shown += 1;
        if shown > limit {
            return Ok(());
        }
        if lines {
            serde_json::to_writer(&mut *out.to, flow)?;
            writeln!(out.to)
        } else if out.json {
            write!(out.to, "{}", if shown == 1 { "" } else { "," })?;
            serde_json::to_writer(&mut *out.to, flow).map_err(io::Error::from)
        } else {
            writeln!(out.to, "{}", flow_line(flow, &links, out))
        }
    };
    if out.json && !lines {
        write!(out.to, "{{\"flows\":[")?;
    }
    let outcome = if let Some(key) = arguments.get_one::<String>("sort") {
        let mut all = vec![];
        let outcome = offload.dump("the flows", op::FLOW_GET, &request, "flow", |flow| {
            all.push(flow);
            Ok(())
        })?;
        all.sort_by_key(|flow| Reverse(sort_key(flow, key)));
        if arguments.get_flag("reverse") {
            all.reverse();
        }
        for flow in &all {
            show(flow, out)?;
        }
        outcome
    } else {
        // Each as it comes: there may be millions.
        offload.dump("the flows", op::FLOW_GET, &request, "flow", |flow| show(&flow, out))?
    };
    if out.json && !lines {
        writeln!(out.to, "],\"interrupted\":{}}}", outcome.interrupted)?;
    }
    if outcome.interrupted {
        out.to.flush()?;
        eprintln!("nft-offload: {INTERRUPTED}");
        return Ok(COULD_BE_BETTER);
    }
    Ok(0)
}

fn latency(value: &Value) -> String {
    let of = |key: &str| value[key].as_u64().map_or("-".into(), nanoseconds);
    match value[key::COUNT].as_u64() {
        None => "-".into(),
        Some(_) => format!("{}/{}/{}", of(key::P50), of(key::P99), of(key::LONGEST)),
    }
}

fn device_notes(device: &Value) -> Vec<String> {
    let mut notes = vec![];
    if !device[key::SWITCHED_OFF].is_null() {
        notes.push("hw-tc-offload is off".into());
    }
    if !device[key::FAILING].is_null() {
        notes.push("failing: left alone but for a try now and then".into());
    }
    if let Some(since) = device[key::FULL_FOR].as_u64() {
        notes.push(format!("full for {}", duration(since)));
    }
    if let Some(rules) = device[key::STALE_RULES].as_u64().filter(|n| *n > 0) {
        notes.push(format!("{} stale rules", thousands(rules)));
    }
    if let Some(rules) = device[key::LOST_RULES].as_u64() {
        notes.push(format!("has lost {} rules", thousands(rules)));
    }
    for (key, what) in [(key::ADD_ERRORS, "refused"), (key::WITHDRAW_ERRORS, "not removed")] {
        for error in device[key].as_array().into_iter().flatten() {
            let name = crate::reasons::errno_name(error[key::ERRNO].as_u64().unwrap_or(0));
            notes.push(format!("{what} {name}: {}", thousands(error[key::COUNT].as_u64().unwrap_or(0))));
        }
    }
    notes
}

pub fn devices(out: &mut Output) -> Result<u8, Failure> {
    let devices = Offload::open()?.devices()?;
    if out.json {
        out.object(&json!({ "devices": devices }))?;
        return Ok(0);
    }
    if devices.is_empty() {
        out.line("no device is in a flowtable with 'flags offload'")?;
        return Ok(0);
    }
    let number = |value: &Value| value.as_u64().map_or("-".into(), thousands);
    let word = |value: &Value| value.as_str().unwrap_or("-").to_string();
    let rows: Vec<_> = devices
        .iter()
        .map(|device| {
            vec![
                word(&device[key::NAME]),
                word(&device[key::BIND_TYPE]),
                word(&device[key::DIALECT]),
                number(&device[key::RULES]),
                number(&device[key::RULES_MAX]),
                number(&device[key::QUEUED_ADDS]),
                number(&device[key::QUEUED_WITHDRAWALS]),
                latency(&device[key::ADD_LATENCY]),
                latency(&device[key::WITHDRAW_LATENCY]),
                device[key::FORWARDED][key::BYTES].as_u64().map_or("-".into(), bytes),
                device_notes(device).join("; "),
            ]
        })
        .collect();
    out.table(
        &[
            "device",
            "bound",
            "dialect",
            "rules",
            "most",
            "to add",
            "to remove",
            "add p50/p99/max",
            "remove p50/p99/max",
            "forwarded",
            "notes",
        ],
        &rows,
    )?;
    Ok(0)
}

fn table_name(table: &Value) -> String {
    let family = match table[key::FAMILY].as_u64() {
        Some(1) => "inet",
        Some(2) => "ip",
        Some(10) => "ip6",
        _ => "?",
    };
    format!("{family} {} {}", table[key::TABLE].as_str().unwrap_or("?"), table[key::FLOWTABLE].as_str().unwrap_or("?"))
}

pub fn tables(out: &mut Output) -> Result<u8, Failure> {
    let tables = Offload::open()?.tables()?;
    if out.json {
        out.object(&json!({ "tables": tables }))?;
        return Ok(0);
    }
    if tables.is_empty() {
        out.line("there is no flowtable in this network namespace")?;
        return Ok(0);
    }
    for table in &tables {
        let flag = |key: &str, yes: &'static str, no: &'static str| if table[key].is_null() { no } else { yes };
        let name = out.paint(Tone::Bold, &table_name(table));
        out.line(format!(
            "{name}  priority {}  {}  {}  {} entries",
            table[key::PRIORITY],
            flag(key::OFFLOAD, "flags offload", "no flags offload: software only"),
            flag(key::COUNTER, "counter", "no counter"),
            thousands(table[key::ENTRIES].as_u64().unwrap_or(0)),
        ))?;
        for port in table[key::PORT].as_array().into_iter().flatten() {
            let bound = match port[key::BOUND].is_null() {
                true => out.paint(Tone::Warning, "takes no rules"),
                false => many(port[key::RULES].as_u64().unwrap_or(0), "rule"),
            };
            let stale = match port[key::STALE_RULES].as_u64() {
                Some(rules) if rules > 0 => out.paint(Tone::Bad, &format!(", {rules} stale")),
                _ => String::new(),
            };
            out.line(format!("    {:<16} {bound}{stale}", port[key::NAME].as_str().unwrap_or("?")))?;
        }
    }
    Ok(0)
}

/// Those of the module by number, the most frequent first.
fn counted(offload: &mut Offload) -> Result<Vec<Value>, Failure> {
    let mut reasons = offload.reasons()?;
    reasons.sort_by_key(|reason| Reverse(reason[key::FLOWS].as_u64()));
    Ok(reasons)
}

pub fn reasons(arguments: &ArgMatches, out: &mut Output) -> Result<u8, Failure> {
    let explain: Vec<Reason> = match arguments.get_one::<String>("reason") {
        Some(name) => {
            one_of("reason", name, Reason::NAMES)?;
            Reason::named(name).into_iter().collect()
        }
        None if arguments.get_flag("all") => Reason::ALL.to_vec(),
        None => vec![],
    };
    if !explain.is_empty() {
        let list: Vec<_> = explain
            .iter()
            .map(|reason| {
                let advice = advice(*reason);
                json!({ "reason": reason.name(), "doc": reason.doc(), "why": advice.why, "remedy": advice.remedy })
            })
            .collect();
        if out.json {
            out.object(&json!({ "reasons": list }))?;
            return Ok(0);
        }
        for reason in list {
            let name = out.paint(Tone::Bold, reason[key::REASON].as_str().unwrap());
            out.line(name)?;
            out.line(wrap(&format!("Why: {}.", reason[key::WHY].as_str().unwrap()), 4, 100))?;
            out.line(wrap(&format!("Remedy: {}", reason["remedy"].as_str().unwrap()), 4, 100))?;
        }
        return Ok(0);
    }

    let reasons = counted(&mut Offload::open()?)?;
    if out.json {
        out.object(&json!({ "reasons": reasons }))?;
        return Ok(0);
    }
    if reasons.is_empty() {
        out.line("no connection has a reason not to be in hardware")?;
        return Ok(0);
    }
    reason_table(&reasons, out)?;
    out.line(
        "\n'nft-offload reasons NAME' says what to change, 'nft-offload flows --reason NAME' which connections have it",
    )?;
    Ok(0)
}

fn reason_table(reasons: &[Value], out: &mut Output) -> Result<(), Failure> {
    let rows: Vec<_> = reasons
        .iter()
        .map(|reason| {
            vec![
                thousands(reason[key::FLOWS].as_u64().unwrap_or(0)),
                reason[key::REASON].as_str().map_or_else(|| reason[key::REASON].to_string(), String::from),
                origin(reason[key::BY].as_str().unwrap_or("?")).to_string(),
                words(reason, &Links::default()),
            ]
        })
        .collect();
    out.table(&["flows", "reason", "by", "why"], &rows)
}

pub fn status(out: &mut Output) -> Result<u8, Failure> {
    let mut offload = Offload::open()?;
    let (totals, devices, tables, reasons) =
        (offload.totals()?, offload.devices()?, offload.tables()?, counted(&mut offload)?);
    let odd = should_be_zero(&devices);
    if out.json {
        out.object(&json!({
            "kernel": system::kernel_release(),
            "module": { "name": system::MODULE, "version": system::read("/sys/module/nft_offload/version"),
                        "srcversion": system::read("/sys/module/nft_offload/srcversion") },
            "total": totals, "devices": devices, "tables": tables, "reasons": reasons, "should-be-zero": odd,
        }))?;
        return Ok(if odd.is_empty() { 0 } else { COULD_BE_BETTER });
    }
    out.line(format!(
        "{}  kernel {}  {} flowtable{} in this network namespace",
        out.paint(Tone::Bold, system::MODULE),
        system::kernel_release(),
        tables.len(),
        if tables.len() == 1 { "" } else { "s" }
    ))?;
    let count = |key: &str| totals[key].as_u64().unwrap_or(0);
    let flows = count(key::FLOWS);
    out.line(format!(
        "connections: {} in flowtables, {} ({}) in hardware in both directions, {} in one, {} left to the host",
        thousands(flows),
        thousands(count(key::IN_HARDWARE)),
        percent(count(key::IN_HARDWARE), flows),
        thousands(count(key::HALF_IN_HARDWARE)),
        thousands(count(key::LEFT)),
    ))?;
    for table in &tables {
        let offload =
            if table[key::OFFLOAD].is_null() { out.paint(Tone::Warning, "software only") } else { "offload".into() };
        let ports: Vec<_> = table[key::PORT]
            .as_array()
            .into_iter()
            .flatten()
            .map(|port| {
                let name = port[key::NAME].as_str().unwrap_or("?");
                match port[key::BOUND].is_null() {
                    true => out.paint(Tone::Warning, &format!("{name} (no rules)")),
                    false => name.to_string(),
                }
            })
            .collect();
        out.line(format!(
            "flowtable:   {}  {offload}  {} entries  {}",
            table_name(table),
            thousands(table[key::ENTRIES].as_u64().unwrap_or(0)),
            ports.join(" ")
        ))?;
    }
    for device in &devices {
        let rules = device[key::RULES].as_u64().unwrap_or(0);
        out.line(format!(
            "device:      {:<10} {} rules (most {})  to add {}  to remove {}  add {}  {}",
            device[key::NAME].as_str().unwrap_or("?"),
            thousands(rules),
            thousands(device[key::RULES_MAX].as_u64().unwrap_or(rules)),
            thousands(device[key::QUEUED_ADDS].as_u64().unwrap_or(0)),
            thousands(device[key::QUEUED_WITHDRAWALS].as_u64().unwrap_or(0)),
            latency(&device[key::ADD_LATENCY]),
            device[key::BIND_TYPE]
                .as_str()
                .map_or_else(|| out.paint(Tone::Warning, "not bound"), |kind| format!("bound for {kind}")),
        ))?;
    }
    if !reasons.is_empty() {
        out.line("\nnot in hardware:")?;
        reason_table(&reasons[..reasons.len().min(12)], out)?;
    }
    if !odd.is_empty() {
        let head = out.paint(Tone::Bad, "should be zero, and is not:");
        out.line(format!("\n{head}"))?;
        for what in &odd {
            out.line(format!("  {what}"))?;
        }
        return Ok(COULD_BE_BETTER);
    }
    Ok(0)
}

/// What a healthy device does not have.
pub fn should_be_zero(devices: &[Value]) -> Vec<String> {
    let mut odd = vec![];
    for device in devices {
        let name = device[key::NAME].as_str().unwrap_or("?");
        if let Some(rules) = device[key::STALE_RULES].as_u64().filter(|n| *n > 0) {
            odd.push(format!(
                "{name}: {} rules that the driver has failed to remove go on forwarding",
                thousands(rules)
            ));
        }
        if let Some(rules) = device[key::LOST_RULES].as_u64().filter(|n| *n > 0) {
            odd.push(format!("{name}: the driver has lost {} rules", thousands(rules)));
        }
        if !device[key::FAILING].is_null() {
            odd.push(format!("{name}: the driver fails one rule after the other"));
        }
        let failed = device[key::WITHDRAW_ERRORS].as_array().into_iter().flatten();
        let failed: u64 = failed.filter_map(|error| error[key::COUNT].as_u64()).sum();
        if failed > 0 {
            odd.push(format!("{name}: {} withdrawals have failed", thousands(failed)));
        }
    }
    odd
}

// SPDX-License-Identifier: GPL-2.0

//! `metrics`: OpenMetrics text, of which the older Prometheus text format can read all, for node_exporter's textfiles.

use crate::{
    failure::{Failure, FAILED},
    family::Offload,
    flows::should_be_zero,
    output::Output,
    reasons::errno_name,
    spec::key,
    system,
};
use serde_json::Value;
use std::{fmt::Write, fs, path::Path};

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# TYPE nft_offload_{name} {kind}\n# HELP nft_offload_{name} {help}").unwrap();
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        writeln!(self.0, "nft_offload_{name}{labels} {value}").unwrap();
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What was not measured is absent.
pub fn render(totals: &Value, devices: &[Value], tables: &[Value], reasons: &[Value]) -> String {
    let mut text = Text::default();
    let number = |value: &Value| value.as_f64();

    text.family("info", "gauge", "Which module is loaded on which kernel.");
    let version = system::read("/sys/module/nft_offload/version").unwrap_or_default();
    text.sample("info", &[("version", &version), ("kernel", &system::kernel_release())], 1.0);

    for (name, key, help) in [
        ("flows", key::FLOWS, "Connections in flowtables."),
        ("flows_in_hardware", key::IN_HARDWARE, "Connections of which both directions are in hardware."),
        ("flows_half_in_hardware", key::HALF_IN_HARDWARE, "Connections of which one direction is in hardware."),
        ("connections_left", key::LEFT, "Connections that are left to the host."),
    ] {
        if let Some(value) = number(&totals[key]) {
            text.family(name, "gauge", help);
            text.sample(name, &[], value);
        }
    }

    text.family("table_entries", "gauge", "Connections in a flowtable.");
    for table in tables {
        let word = |key: &str| table[key].as_str().unwrap_or("");
        let family = match table[key::FAMILY].as_u64() {
            Some(2) => "ip",
            Some(10) => "ip6",
            _ => "inet",
        };
        if let Some(value) = number(&table[key::ENTRIES]) {
            let labels = [("family", family), ("table", word(key::TABLE)), ("flowtable", word(key::FLOWTABLE))];
            text.sample("table_entries", &labels, value);
        }
    }

    for (name, key, help) in [
        ("device_rules", key::RULES, "Rules that the driver has."),
        ("device_rules_max", key::RULES_MAX, "The most rules that the driver ever had at a time."),
        ("device_stale_rules", key::STALE_RULES, "Rules that the driver has failed to remove."),
        ("device_queued_adds", key::QUEUED_ADDS, "Rules that the driver is to be asked for."),
        ("device_queued_withdrawals", key::QUEUED_WITHDRAWALS, "Rules that the driver is to remove."),
        ("device_queued_polls", key::QUEUED_POLLS, "Rules of which the driver is to be asked for statistics."),
    ] {
        text.family(name, "gauge", help);
        for device in devices {
            if let Some(value) = number(&device[key]) {
                text.sample(name, &[("device", device[key::NAME].as_str().unwrap_or(""))], value);
            }
        }
    }
    for (name, help, is) in [
        ("device_bound", "The driver takes rules.", (|device| !device[key::BIND_TYPE].is_null()) as fn(&Value) -> bool),
        ("device_full", "The device has no room for more rules.", |device| !device[key::FULL_FOR].is_null()),
        ("device_failing", "The driver fails one rule after the other.", |device| !device[key::FAILING].is_null()),
        ("device_switched_off", "hw-tc-offload is off.", |device| !device[key::SWITCHED_OFF].is_null()),
    ] {
        text.family(name, "gauge", help);
        for device in devices {
            text.sample(name, &[("device", device[key::NAME].as_str().unwrap_or(""))], f64::from(u8::from(is(device))));
        }
    }

    for (name, key, help) in [
        ("device_forwarded_packets", key::PACKETS, "Packets that the rules of the device have forwarded."),
        ("device_forwarded_bytes", key::BYTES, "Bytes of layer 3 that the rules of the device have forwarded."),
    ] {
        text.family(name, "counter", help);
        for device in devices {
            if let Some(value) = number(&device[key::FORWARDED][key]) {
                text.sample(&format!("{name}_total"), &[("device", device[key::NAME].as_str().unwrap_or(""))], value);
            }
        }
    }
    text.family("device_lost_rules", "counter", "Rules that the driver no longer knew.");
    for device in devices {
        let lost = number(&device[key::LOST_RULES]).unwrap_or(0.0);
        text.sample("device_lost_rules_total", &[("device", device[key::NAME].as_str().unwrap_or(""))], lost);
    }
    text.family("device_errors", "counter", "Calls that the driver has answered with an error.");
    for device in devices {
        for (key, operation) in [(key::ADD_ERRORS, "add"), (key::WITHDRAW_ERRORS, "withdraw")] {
            for error in device[key].as_array().into_iter().flatten() {
                let errno = errno_name(error[key::ERRNO].as_u64().unwrap_or(0));
                let labels = [
                    ("device", device[key::NAME].as_str().unwrap_or("")),
                    ("operation", operation),
                    ("errno", errno.trim_start_matches('-')),
                ];
                text.sample("device_errors_total", &labels, number(&error[key::COUNT]).unwrap_or(0.0));
            }
        }
    }
    text.family("device_call_seconds", "summary", "How long the driver took for calls that have succeeded.");
    for device in devices {
        let name = device[key::NAME].as_str().unwrap_or("");
        for (key, operation) in [(key::ADD_LATENCY, "add"), (key::WITHDRAW_LATENCY, "withdraw")] {
            let latency = &device[key];
            let (Some(count), Some(mean)) = (number(&latency[key::COUNT]), number(&latency[key::MEAN])) else {
                continue;
            };
            for (quantile, key) in [("0.5", key::P50), ("0.99", key::P99), ("1", key::LONGEST)] {
                if let Some(value) = number(&latency[key]) {
                    let labels = [("device", name), ("operation", operation), ("quantile", quantile)];
                    text.sample("device_call_seconds", &labels, value / 1e9);
                }
            }
            let labels = [("device", name), ("operation", operation)];
            text.sample("device_call_seconds_sum", &labels, mean * count / 1e9);
            text.sample("device_call_seconds_count", &labels, count);
        }
    }

    text.family("reason_flows", "gauge", "Connections that are not in hardware for this reason, in either direction.");
    for reason in reasons {
        let name = reason[key::REASON].as_str().map_or_else(|| reason[key::REASON].to_string(), String::from);
        let labels = [("reason", name.as_str()), ("by", reason[key::BY].as_str().unwrap_or(""))];
        text.sample("reason_flows", &labels, number(&reason[key::FLOWS]).unwrap_or(0.0));
    }
    text.family(
        "should_be_zero",
        "gauge",
        "How many things are not as they should be: 'nft-offload status' names them.",
    );
    text.sample("should_be_zero", &[], should_be_zero(devices).len() as f64);
    text.0 + "# EOF\n"
}

pub fn metrics(file: Option<&String>, out: &mut Output) -> Result<u8, Failure> {
    let mut offload = Offload::open()?;
    let text = render(&offload.totals()?, &offload.devices()?, &offload.tables()?, &offload.reasons()?);
    match file {
        None => write!(out.to, "{text}")?,
        Some(file) => replace(Path::new(file), &text)?,
    }
    Ok(0)
}

/// Who reads the file sees the old one or the new one.
pub fn replace(file: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error| Failure::new(FAILED, format!("{} cannot be written: {error}", file.display()));
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = Path::new(&name);
    fs::write(new, text).map_err(failed)?;
    fs::rename(new, file).map_err(|error| {
        let _ = fs::remove_file(new);
        failed(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[test]
    fn the_text_is_well_formed() {
        let devices = [json!({
            "name": "eth\"0", "bind-type": "tc", "rules": 3, "full-for": 10, "lost-rules": 2, "forwarded": { "packets": 6, "bytes": 600 },
            "add-errors": [{ "errno": 28, "count": 7 }],
            "add-latency": { "count": 4, "mean": 1000, "p50": 900, "p99": 2000, "longest": 3000 },
        })];
        let tables = [json!({ "family": 1, "table": "fw", "flowtable": "ft", "entries": 5 })];
        let reasons = [json!({ "reason": "no-room", "by": "driver", "flows": 9 })];
        let text = render(&json!({ "flows": 5, "in-hardware": 2 }), &devices, &tables, &reasons);

        // Samples follow the family that they belong to, none is there twice, and the end is marked.
        let (mut kinds, mut seen, mut family) = (BTreeMap::new(), BTreeMap::new(), String::new());
        let (body, end) = text.split_at(text.len() - 6);
        assert_eq!(end, "# EOF\n");
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(kinds.insert(name.to_string(), kind.to_string()).is_none(), "{name} is there twice");
                family = name.into();
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                assert!(rest.starts_with(&family));
            } else {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                value.parse::<f64>().unwrap();
                let name = sample.split('{').next().unwrap();
                let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{name} is not of {family}"));
                match kinds[&family].as_str() {
                    "gauge" => assert_eq!(suffix, ""),
                    "counter" => assert_eq!(suffix, "_total"),
                    _ => assert!(["", "_sum", "_count"].contains(&suffix)),
                }
                assert!(seen.insert(sample.to_string(), value.to_string()).is_none(), "{sample}");
            }
        }
        assert_eq!(seen["nft_offload_device_rules{device=\"eth\\\"0\"}"], "3");
        assert_eq!(
            seen["nft_offload_device_errors_total{device=\"eth\\\"0\",operation=\"add\",errno=\"ENOSPC\"}"],
            "7"
        );
        assert_eq!(seen["nft_offload_device_call_seconds_sum{device=\"eth\\\"0\",operation=\"add\"}"], "0.000004");
        assert_eq!(seen["nft_offload_device_forwarded_bytes_total{device=\"eth\\\"0\"}"], "600");
        assert_eq!(seen["nft_offload_should_be_zero"], "1");
        // Not measured: absent.
        assert!(!text.contains("nft_offload_device_rules_max{") && !text.contains("flows_half_in_hardware"));
    }
}

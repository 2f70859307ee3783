// SPDX-License-Identifier: GPL-2.0

//! `report`: one text for support, with addresses masked if that is wanted.

use crate::{
    doctor::{examine, render, Facts},
    failure::Failure,
    family::Offload,
    flows,
    metrics::replace,
    output::Output,
    spec::op,
    system::{self, read, run},
};
use serde_json::json;
use std::{collections::BTreeMap, net::IpAddr, path::Path};

/// No more flows than this: a report is read by people.
const FLOWS: usize = 200;

fn section(text: &mut String, title: &str, body: Result<String, String>) {
    let body = body.unwrap_or_else(|why| format!("({why})"));
    *text += &format!("==== {title}\n{}\n\n", body.trim_end());
}

fn shown(show: impl FnOnce(&mut Output) -> Result<u8, Failure>) -> Result<String, String> {
    let mut bytes = vec![];
    let mut out = Output { to: &mut bytes, json: false, color: false };
    show(&mut out).map_err(|failure| failure.text)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn collect() -> String {
    let mut text = String::new();
    let versions = format!(
        "nft-offload {}\nkernel {}\n{}\nmodule nft_offload: {}",
        env!("CARGO_PKG_VERSION"),
        read("/proc/version").unwrap_or_default(),
        run("nft", &["--version"]).unwrap_or_else(|why| why).trim_end(),
        if system::is_loaded(system::MODULE) {
            let known = ["version", "srcversion"]
                .into_iter()
                .filter_map(|name| Some(format!(", {name} {}", read(&format!("/sys/module/nft_offload/{name}"))?)));
            format!("loaded{}", known.collect::<Vec<_>>().concat())
        } else {
            "not loaded".into()
        }
    );
    section(&mut text, "versions", Ok(versions));
    section(&mut text, "parameters", parameters());
    section(&mut text, "doctor", shown(|out| render(&examine(&Facts::get()), false, out).map(|()| 0)));
    section(&mut text, "status", shown(flows::status));
    section(&mut text, "devices", shown(flows::devices));
    section(&mut text, "tables", shown(flows::tables));
    section(&mut text, &format!("flows, the first {FLOWS}"), some_flows());
    section(&mut text, "nft list ruleset", run("nft", &["list", "ruleset"]));
    section(&mut text, "ip -d link", run("ip", &["-d", "link"]));
    section(&mut text, "ip address", run("ip", &["address"]));
    for family in ["-4", "-6"] {
        section(
            &mut text,
            &format!("ip {family} rule; route"),
            run("ip", &[family, "rule"])
                .and_then(|rules| Ok(rules + &run("ip", &[family, "route", "show", "table", "all"])?)),
        );
    }
    section(&mut text, "tc qdisc", run("tc", &["qdisc"]));
    section(
        &mut text,
        "kernel log",
        run("dmesg", &[]).map(|log| {
            let lines: Vec<_> =
                log.lines().filter(|line| line.contains("nft_offload") || line.contains("nf_flow")).collect();
            lines[lines.len().saturating_sub(500)..].join("\n")
        }),
    );
    text
}

fn parameters() -> Result<String, String> {
    let dir = format!("/sys/module/{}/parameters", system::MODULE);
    let list = std::fs::read_dir(&dir).map_err(|error| format!("{dir}: {error}"))?;
    let mut lines: Vec<_> = list
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            Some(format!("{name}={}", system::parameter(&name)?))
        })
        .collect();
    lines.sort();
    Ok(lines.join("\n"))
}

fn some_flows() -> Result<String, String> {
    let mut lines = vec![];
    let mut left_out = 0;
    let mut offload = Offload::open().map_err(|failure| failure.text)?;
    offload
        .dump("the flows", op::FLOW_GET, &json!({}), "flow", |flow| {
            match lines.len() < FLOWS {
                true => lines.push(flow.to_string()),
                false => left_out += 1,
            }
            Ok(())
        })
        .map_err(|failure| failure.text)?;
    lines.push(format!("({left_out} more)"));
    Ok(lines.join("\n"))
}

/// Addresses by numbers, the same one by the same number, so that the story can still be followed.
#[derive(Default)]
struct Mask(BTreeMap<String, String>);

impl Mask {
    fn text(&mut self, text: &str) -> String {
        let is_part = |c: char| c.is_ascii_hexdigit() || c == ':' || c == '.';
        let mut masked = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let at = rest.find(is_part).unwrap_or(rest.len());
            masked += &rest[..at];
            rest = &rest[at..];
            let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            // Letters around it make it a word.
            let in_word = masked.ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let word = &rest[..length];
            rest = &rest[length..];
            let in_word = in_word || rest.starts_with(|c: char| c.is_alphabetic() || c == '_');
            masked += &if in_word { word.to_string() } else { self.word(word) };
        }
        masked
    }

    fn word(&mut self, word: &str) -> String {
        let core = word.trim_end_matches(['.', ':']);
        // `::` at the end belongs to it.
        for candidate in [word, core] {
            if let Some(masked) = self.address(candidate) {
                return masked + &word[candidate.len()..];
            }
        }
        // A bridge's name: its priority, and a MAC address.
        if let Some((priority, Some(mac))) = word.split_once('.').map(|(left, right)| (left, self.mac(right))) {
            return format!("{priority}.{mac}");
        }
        if word.contains('.') && word.contains(':') {
            let parts: Vec<_> = word.split(':').map(|part| self.address(part).unwrap_or(part.into())).collect();
            return parts.join(":");
        }
        word.into()
    }

    fn address(&mut self, word: &str) -> Option<String> {
        match word.parse::<IpAddr>() {
            Ok(address) if address.is_loopback() || address.is_unspecified() => None,
            Ok(IpAddr::V4(_)) => Some(self.number("ipv4", word)),
            Ok(IpAddr::V6(_)) => Some(self.number("ipv6", word)),
            Err(_) => self.mac(word),
        }
    }

    /// As `02:00:00:00:00:0a` or `2:0:0:0:0:a`.
    fn mac(&mut self, word: &str) -> Option<String> {
        let parts = word.split(':').map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() <= 2));
        let bytes: Vec<_> = parts.collect::<Option<_>>()?;
        match bytes[..] {
            [0, 0, 0, 0, 0, 0] | [255, 255, 255, 255, 255, 255] => None,
            [_, _, _, _, _, _] => Some(self.number("mac", &format!("{bytes:02x?}"))),
            _ => None,
        }
    }

    fn number(&mut self, kind: &str, word: &str) -> String {
        let number = self.0.values().filter(|masked| masked.starts_with(kind)).count() + 1;
        self.0.entry(word.to_string()).or_insert_with(|| format!("{kind}-{number}")).clone()
    }
}

pub fn report(mask: bool, file: Option<&String>, out: &mut Output) -> Result<u8, Failure> {
    let mut text = collect();
    if mask {
        text = Mask::default().text(&text);
    }
    if out.json {
        let sections = text.split("==== ").skip(1).filter_map(|section| section.split_once('\n'));
        let object: serde_json::Map<_, _> =
            sections.map(|(title, body)| (title.to_string(), json!(body.trim_end()))).collect();
        text = format!("{:#}\n", json!(object));
    }
    match file {
        Some(file) => replace(Path::new(file), &text)?,
        None => write!(out.to, "{text}")?,
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_masked_and_nothing_else() {
        let mut mask = Mask::default();
        let text =
            "tcp 192.0.2.1:443 -> [2001:db8::1]:80 by 02:00:00:ab:cd:ef at 12:34:56, 192.0.2.1/24 src=192.0.2.9. \
                    fd00::/64 127.0.0.1 :: kernel 7.3.4 dead beef face::feed 2001:db8::1: ok 00:00:00:00:00:00 bridge_id 8000.2:0:0:ab:cd:ef";
        assert_eq!(
            mask.text(text),
            "tcp ipv4-1:443 -> [ipv6-1]:80 by mac-1 at 12:34:56, ipv4-1/24 src=ipv4-2. \
             ipv6-2/64 127.0.0.1 :: kernel 7.3.4 dead beef ipv6-3 ipv6-1: ok 00:00:00:00:00:00 bridge_id 8000.mac-1"
        );
    }
}

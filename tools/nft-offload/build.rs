// SPDX-License-Identifier: GPL-2.0

//! Makes tables of Rust from the family's specification, so that names, numbers and descriptions are in one place.

use std::{collections::BTreeSet, env, fmt::Write, fs, path::Path};
use yaml_rust2::{Yaml, YamlLoader};

const SPEC: &str = "../../Documentation/netlink/specs/nft_offload.yaml";

fn main() {
    println!("cargo::rerun-if-changed={SPEC}");
    let text = fs::read_to_string(SPEC).unwrap_or_else(|error| panic!("{SPEC}: {error}"));
    let spec = &YamlLoader::load_from_str(&text).expect(SPEC)[0];

    let mut out = format!("pub const FAMILY: &str = {:?};\n", word(spec, "name"));
    enums(&mut out, spec);
    sets(&mut out, spec);
    operations(&mut out, spec);
    let file = Path::new(&env::var("OUT_DIR").unwrap()).join("spec.rs");
    fs::write(file, out).unwrap();
}

fn list<'a>(yaml: &'a Yaml, key: &str) -> &'a [Yaml] {
    yaml[key].as_vec().map_or(&[], |list| list)
}

fn word<'a>(yaml: &'a Yaml, key: &str) -> &'a str {
    yaml[key].as_str().unwrap_or_else(|| panic!("{key} is missing in {yaml:?}"))
}

/// A description, in one line.
fn doc(yaml: &Yaml) -> String {
    let text = yaml["doc"].as_str().unwrap_or("");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A line of documentation, if there is any.
fn comment(indent: &str, doc: &str) -> String {
    match doc {
        "" => String::new(),
        doc => format!("{indent}/// {doc}\n"),
    }
}

/// `flow-state` to `FlowState`.
fn camel(name: &str) -> String {
    let capital = |part: &str| part[..1].to_uppercase() + &part[1..];
    name.split('-').map(capital).collect()
}

/// `flow-state` to `FLOW_STATE`.
fn upper(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

/// For each an enum, its members in the order of their numbers, and all their names.
fn enums(out: &mut String, spec: &Yaml) {
    for definition in list(spec, "definitions") {
        let name = camel(word(definition, "name"));
        let entries: Vec<_> = list(definition, "entries")
            .iter()
            .map(|entry| match entry.as_str() {
                Some(name) => (name, String::new()),
                None => (word(entry, "name"), doc(entry)),
            })
            .collect();
        out.push_str(&comment("", &doc(definition)));
        writeln!(out, "#[derive(Clone, Copy, Debug, PartialEq, Eq)]\npub enum {name} {{").unwrap();
        for (entry, doc) in &entries {
            writeln!(out, "{}    {},", comment("    ", doc), camel(entry)).unwrap();
        }
        writeln!(out, "}}\nimpl {name} {{").unwrap();
        writeln!(out, "    pub const ALL: &'static [Self] = &[").unwrap();
        for (entry, _) in &entries {
            writeln!(out, "        Self::{},", camel(entry)).unwrap();
        }
        writeln!(out, "    ];\n    pub const NAMES: &'static [&'static str] = &[").unwrap();
        for (entry, _) in &entries {
            writeln!(out, "        {entry:?},").unwrap();
        }
        writeln!(out, "    ];\n    pub const DOCS: &'static [&'static str] = &[").unwrap();
        for (_, doc) in &entries {
            writeln!(out, "        {doc:?},").unwrap();
        }
        writeln!(
            out,
            "    ];\n    pub fn name(self) -> &'static str {{ Self::NAMES[self as usize] }}\n    \
             pub fn doc(self) -> &'static str {{ Self::DOCS[self as usize] }}\n    \
             pub fn named(name: &str) -> Option<Self> {{ \
             Self::NAMES.iter().position(|n| *n == name).map(|n| Self::ALL[n]) }}\n}}"
        )
        .unwrap();
    }
}

fn sets(out: &mut String, spec: &Yaml) {
    for set in list(spec, "attribute-sets") {
        let name = word(set, "name");
        out.push_str(&comment("", &doc(set)));
        writeln!(out, "pub static {}: Set = Set {{ name: {name:?}, attributes: &[", upper(name)).unwrap();
        for (at, attribute) in list(set, "attributes").iter().enumerate() {
            let kind = match word(attribute, "type") {
                "nest" => format!("Nest(&{})", upper(word(attribute, "nested-attributes"))),
                "u32" if !attribute["enum"].is_badvalue() => {
                    format!("Enum({}::NAMES)", camel(word(attribute, "enum")))
                }
                "binary" => match attribute["display-hint"].as_str() {
                    Some("ipv4-or-v6") => "Address".into(),
                    Some("mac") => "Mac".into(),
                    _ => "Bytes".into(),
                },
                number => camel(number),
            };
            // Numbers are given, or follow the one before; the first is 1.
            assert!(attribute["value"].is_badvalue(), "numbers by hand are not understood: {attribute:?}");
            writeln!(
                out,
                "    Attribute {{ id: {}, name: {:?}, kind: Kind::{kind}, many: {}, doc: {:?} }},",
                at + 1,
                word(attribute, "name"),
                attribute["multi-attr"].as_bool().unwrap_or(false),
                doc(attribute)
            )
            .unwrap();
        }
        writeln!(out, "] }};").unwrap();
    }
    // Names of attributes, so that the compiler finds one that the specification does not have.
    let sets = list(spec, "attribute-sets").iter();
    let names: BTreeSet<_> = sets.flat_map(|set| list(set, "attributes")).map(|a| word(a, "name")).collect();
    writeln!(out, "/// The attributes' names.\npub mod key {{").unwrap();
    for name in names {
        writeln!(out, "    pub const {}: &str = {name:?};", upper(name)).unwrap();
    }
    writeln!(out, "}}").unwrap();
}

/// With `enum-model: unified` all messages are numbered in one row, beginning with 1.
fn operations(out: &mut String, spec: &Yaml) {
    let operations = &spec["operations"];
    assert_eq!(word(operations, "enum-model"), "unified");
    writeln!(out, "/// The operations' numbers.\npub mod op {{").unwrap();
    for (at, operation) in list(operations, "list").iter().enumerate() {
        assert!(operation["value"].is_badvalue(), "numbers by hand are not understood: {operation:?}");
        out.push_str(&comment("    ", &doc(operation)));
        writeln!(out, "    pub const {}: u8 = {};", upper(word(operation, "name")), at + 1).unwrap();
    }
    writeln!(out, "}}").unwrap();
}

// SPDX-License-Identifier: GPL-2.0

//! The family's attributes: how bytes become values by the names of the specification, and back.

use crate::netlink::{self, Attributes};
use serde_json::{json, Map, Value};
use std::net::IpAddr;

/// How an attribute's bytes are read.
pub enum Kind {
    U8,
    U16,
    U32,
    S32,
    /// Four or eight bytes.
    Uint,
    String,
    Flag,
    /// A `u32` that stands for one of these names.
    Enum(&'static [&'static str]),
    Address,
    Mac,
    Bytes,
    Nest(&'static Set),
}

pub struct Attribute {
    pub id: u16,
    pub name: &'static str,
    pub kind: Kind,
    /// It may be there more than once.
    pub many: bool,
    pub doc: &'static str,
}

pub struct Set {
    pub name: &'static str,
    pub attributes: &'static [Attribute],
}

include!(concat!(env!("OUT_DIR"), "/spec.rs"));

/// What bytes of a message say. Attributes of a newer kernel are passed over, and a number that has no name stays a
/// number.
pub fn decode(set: &Set, bytes: &[u8]) -> Result<Value, netlink::Error> {
    let mut object = Map::new();
    for attribute in netlink::attributes(bytes) {
        let (id, bytes) = attribute?;
        let Some(attribute) = set.attributes.iter().find(|a| a.id == id) else {
            continue;
        };
        let value = decode_one(&attribute.kind, bytes).map_err(|error| match error {
            netlink::Error::Malformed(what) => netlink::Error::Malformed(format!("{}/{what}", attribute.name)),
            other => other,
        })?;
        if attribute.many {
            match object.entry(attribute.name).or_insert(json!([])) {
                Value::Array(list) => list.push(value),
                _ => unreachable!(),
            }
        } else {
            object.insert(attribute.name.into(), value);
        }
    }
    Ok(Value::Object(object))
}

fn decode_one(kind: &Kind, bytes: &[u8]) -> Result<Value, netlink::Error> {
    Ok(match kind {
        Kind::U8 => json!(u8::from_ne_bytes(fixed(bytes)?)),
        Kind::U16 => json!(u16::from_ne_bytes(fixed(bytes)?)),
        Kind::U32 => json!(u32::from_ne_bytes(fixed(bytes)?)),
        Kind::S32 => json!(i32::from_ne_bytes(fixed(bytes)?)),
        Kind::Uint if bytes.len() == 4 => json!(u32::from_ne_bytes(fixed(bytes)?)),
        Kind::Uint => json!(u64::from_ne_bytes(fixed(bytes)?)),
        Kind::Flag => json!(true),
        Kind::String => {
            let text = bytes.split(|byte| *byte == 0).next().unwrap_or(&[]);
            json!(String::from_utf8_lossy(text))
        }
        Kind::Enum(names) => {
            let number = u32::from_ne_bytes(fixed(bytes)?);
            match names.get(number as usize) {
                Some(name) => json!(name),
                None => json!(number),
            }
        }
        Kind::Address => match bytes.len() {
            4 => json!(IpAddr::from(fixed::<4>(bytes)?).to_string()),
            16 => json!(IpAddr::from(fixed::<16>(bytes)?).to_string()),
            _ => return Err(wrong_size(bytes)),
        },
        Kind::Mac | Kind::Bytes => {
            let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!(hex.join(":"))
        }
        Kind::Nest(set) => decode(set, bytes)?,
    })
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], netlink::Error> {
    bytes.try_into().map_err(|_| wrong_size(bytes))
}

fn wrong_size(bytes: &[u8]) -> netlink::Error {
    netlink::Error::Malformed(format!(": {} bytes are not what it has", bytes.len()))
}

/// The bytes of an object with the names of `set`. Panics where `value` is not of the specification: it is our own.
pub fn encode(set: &Set, value: &Value) -> Attributes {
    let mut out = Attributes::default();
    for (name, value) in value.as_object().expect("an object") {
        let attribute =
            set.attributes.iter().find(|a| a.name == name).unwrap_or_else(|| panic!("{} has no {name}", set.name));
        if attribute.many {
            for value in value.as_array().expect("a list") {
                encode_one(&mut out, attribute, value);
            }
        } else {
            encode_one(&mut out, attribute, value);
        }
    }
    out
}

fn encode_one(out: &mut Attributes, attribute: &Attribute, value: &Value) {
    let (id, name) = (attribute.id, attribute.name);
    let number = || value.as_i64().unwrap_or_else(|| panic!("{name} is a number, not {value}"));
    match &attribute.kind {
        Kind::U8 => out.put(id, &(number() as u8).to_ne_bytes()),
        Kind::U16 => out.put(id, &(number() as u16).to_ne_bytes()),
        Kind::U32 => out.put(id, &(number() as u32).to_ne_bytes()),
        Kind::S32 => out.put(id, &(number() as i32).to_ne_bytes()),
        Kind::Uint => match value.as_u64().expect(name) {
            small @ ..=0xffff_ffff => out.put(id, &(small as u32).to_ne_bytes()),
            large => out.put(id, &large.to_ne_bytes()),
        },
        Kind::Flag => out.put(id, &[]),
        Kind::String => out.put_str(id, value.as_str().expect(name)),
        Kind::Enum(names) => {
            let at = names.iter().position(|n| value == n).expect(name);
            out.put(id, &(at as u32).to_ne_bytes());
        }
        Kind::Address => match value.as_str().expect(name).parse().expect(name) {
            IpAddr::V4(address) => out.put(id, &address.octets()),
            IpAddr::V6(address) => out.put(id, &address.octets()),
        },
        Kind::Mac | Kind::Bytes => {
            let hex = value.as_str().expect(name).split(':');
            let bytes: Vec<_> = hex.map(|two| u8::from_str_radix(two, 16).expect(name)).collect();
            out.put(id, &bytes);
        }
        Kind::Nest(set) => out.put_nest(id, &encode(set, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel's own encoder makes of all attributes (tests/record.py) is read and written here in the same way.
    #[test]
    fn messages_of_the_kernels_encoder() {
        let recorded: Value = serde_json::from_str(include_str!("../tests/messages.json")).unwrap();
        let mut count = 0;
        for message in recorded.as_array().unwrap() {
            let hex = message["bytes"].as_str().unwrap();
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            let bytes: Vec<_> = (0..hex.len()).step_by(2).map(byte).collect();
            assert_eq!(decode(&MESSAGE, &bytes).unwrap(), message["value"]);
            assert_eq!(encode(&MESSAGE, &message["value"]).bytes(), bytes);
            count += 1;
        }
        assert!(count >= MESSAGE.attributes.len());
        // Whatever the specification has is in there.
        for attribute in MESSAGE.attributes {
            whole(attribute, &recorded[MESSAGE.attributes.iter().position(|a| a.id == attribute.id).unwrap()]["value"]);
        }
    }

    fn whole(attribute: &Attribute, object: &Value) {
        let value = match &object[attribute.name] {
            Value::Array(list) => &list[0],
            value => value,
        };
        assert!(!value.is_null(), "{} is not recorded: run tests/record.py", attribute.name);
        if let Kind::Nest(set) = attribute.kind {
            set.attributes.iter().for_each(|inner| whole(inner, value));
        }
    }

    #[test]
    fn what_is_new_or_broken() {
        let mut bytes = Attributes::default();
        bytes.put(999, &[1, 2, 3]);
        bytes.put_nest(MESSAGE.attributes[0].id, &Attributes::default());
        assert_eq!(decode(&MESSAGE, bytes.bytes()).unwrap(), json!({ MESSAGE.attributes[0].name: {} }));

        // A reason that this program has no name for.
        let mut why = Attributes::default();
        why.put(WHY.attributes[0].id, &9999u32.to_ne_bytes());
        assert_eq!(decode(&WHY, why.bytes()).unwrap(), json!({ "reason": 9999 }));

        let mut short = Attributes::default();
        short.put(WHY.attributes[0].id, &[1]);
        assert!(
            matches!(decode(&WHY, short.bytes()), Err(netlink::Error::Malformed(what)) if what.starts_with("reason"))
        );
        // Cut off anywhere, it is an error or less, and never a panic.
        let recorded: Value = serde_json::from_str(include_str!("../tests/messages.json")).unwrap();
        for message in recorded.as_array().unwrap() {
            let bytes = encode(&MESSAGE, &message["value"]);
            for length in 0..bytes.bytes().len() {
                let _ = decode(&MESSAGE, &bytes.bytes()[..length]);
            }
        }
    }
}

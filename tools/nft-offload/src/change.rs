// SPDX-License-Identifier: GPL-2.0

//! `evict` and `flush`: what changes something.

use crate::{
    failure::{Failure, NOT_FOUND, USAGE},
    family::Offload,
    flows::{ifindex, names},
    output::{many, Output},
    spec::{key, op},
    tuple::{Query, Tuple},
    why::{find_flows, is_ending},
};
use serde_json::json;

pub fn evict(arguments: &[String], all: bool, out: &mut Output) -> Result<u8, Failure> {
    let query = Query::parse(arguments).map_err(|text| Failure::new(USAGE, text))?;
    let mut offload = Offload::open()?;
    let mut tuples = vec![];
    find_flows(&mut offload, &query, |flow| {
        if let Some(tuple) = Tuple::from_value(&flow[key::ORIGINAL][key::TUPLE]).filter(|_| !is_ending(&flow)) {
            if !tuples.contains(&tuple) {
                tuples.push(tuple);
            }
        }
    })?;
    match tuples.len() {
        0 => {
            return Err(Failure::new(
                NOT_FOUND,
                format!("no flowtable has a connection '{query}': see 'nft-offload flows'"),
            ))
        }
        2.. if !all => {
            let text = format!("'{query}' means {} connections: say more of the one, or --all", tuples.len());
            return Err(Failure::new(USAGE, text));
        }
        _ => {}
    }
    let mut evicted = 0;
    for tuple in tuples {
        match offload.take_out(&tuple.to_string(), op::EVICT, &json!({ "tuple": tuple.to_value() })) {
            Ok(_) => evicted += 1,
            // It has gone by itself.
            Err(failure) if failure.status == NOT_FOUND => {}
            Err(failure) => return Err(failure),
        }
    }
    if out.json {
        out.object(&json!({ "count": evicted }))?;
    } else {
        out.line(format!("{} evicted; what goes on sending comes back", many(evicted, "connection")))?;
    }
    Ok(0)
}

pub fn flush(device: &str, out: &mut Output) -> Result<u8, Failure> {
    let mut offload = Offload::open()?;
    let index = ifindex(&names(), device)?;
    let count = offload.take_out(device, op::FLUSH_DEVICE, &json!({ "ifindex": index }))?;
    if out.json {
        out.object(&json!({ "count": count }))?;
    } else {
        out.line(format!("{device}: {} taken out; what goes on sending comes back", many(count, "connection")))?;
    }
    Ok(0)
}

// SPDX-License-Identifier: GPL-2.0

//! `evict`, `flush`, `pin`, `unpin` and `capture`: what changes something.

use crate::{
    conntrack,
    failure::{Failure, NOT_FOUND, USAGE},
    family::Offload,
    flows::{ifindex, names},
    output::{many, Output},
    spec::{key, op},
    tuple::{Query, Tuple},
    why::{find_flows, is_ending},
};
use serde_json::{json, Value};
use std::{os::unix::process::ExitStatusExt, process::Command};

/// One connection, or all that are meant.
fn the_one(query: &Query, tuples: Vec<Tuple>, all: bool, none: &str) -> Result<Vec<Tuple>, Failure> {
    match tuples.len() {
        0 => Err(Failure::new(NOT_FOUND, none)),
        2.. if !all => {
            let text = format!("'{query}' means {} connections: say more of the one, or --all", tuples.len());
            Err(Failure::new(USAGE, text))
        }
        _ => Ok(tuples),
    }
}

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
    let none = format!("no flowtable has a connection '{query}': see 'nft-offload flows'");
    let tuples = the_one(&query, tuples, all, &none)?;
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

/// The connections of conntrack that are meant.
fn connections(arguments: &[String], all: bool) -> Result<Vec<Tuple>, Failure> {
    let query = Query::parse(arguments).map_err(|text| Failure::new(USAGE, text))?;
    let mut tuples = vec![];
    conntrack::find(&query, |connection| tuples.push(connection.original))
        .map_err(|error| Failure::about("conntrack's connections", &error))?;
    the_one(&query, tuples, all, &format!("conntrack has no connection '{query}': see 'conntrack -L'"))
}

/// Asks for each of these; returns how many of them there still were.
fn ask_for(offload: &mut Offload, tuples: &[Tuple], operation: u8, with: &Value) -> Result<u64, Failure> {
    let (mut met, mut none) = (0, None);
    for tuple in tuples {
        let mut request = with.clone();
        request["tuple"] = tuple.to_value();
        match offload.take_out(&tuple.to_string(), operation, &request) {
            Ok(_) => met += 1,
            Err(failure) if failure.status == NOT_FOUND => none = Some(failure),
            Err(failure) if met > 0 => {
                let text = format!("{failure} (after {})", many(met, "connection"));
                return Err(Failure::new(failure.status, text));
            }
            Err(failure) => return Err(failure),
        }
    }
    match none {
        Some(failure) if met == 0 => Err(failure),
        _ => Ok(met),
    }
}

pub fn pin(arguments: &[String], all: bool, seconds: u32, out: &mut Output) -> Result<u8, Failure> {
    let mut offload = Offload::open()?;
    let tuples = connections(arguments, all)?;
    let pinned = ask_for(&mut offload, &tuples, op::PIN, &json!({ "timeout": seconds }))?;
    if out.json {
        out.object(&json!({ "count": pinned }))?;
    } else {
        let what = many(pinned, "connection");
        out.line(format!("{what} kept in software for {seconds} s, or until 'nft-offload unpin'"))?;
    }
    Ok(0)
}

pub fn unpin(arguments: &[String], all: bool, out: &mut Output) -> Result<u8, Failure> {
    let mut offload = Offload::open()?;
    let tuples = connections(arguments, all)?;
    let unpinned = ask_for(&mut offload, &tuples, op::UNPIN, &json!({}))?;
    if out.json {
        out.object(&json!({ "count": unpinned }))?;
    } else {
        out.line(format!("{} may get into hardware again", many(unpinned, "connection")))?;
    }
    Ok(0)
}

/// Runs a command; as long as it runs, the connections are in software. Returns the command's status.
pub fn capture(arguments: &[String], all: bool, command: &[String]) -> Result<u8, Failure> {
    // Without a time, pins end with its socket.
    let mut offload = Offload::open()?;
    let tuples = connections(arguments, all)?;
    let pinned = ask_for(&mut offload, &tuples, op::PIN, &json!({}))?;
    eprintln!("nft-offload: {} in software until '{}' ends", many(pinned, "connection"), command.join(" "));
    let status = Command::new(&command[0])
        .args(&command[1..])
        .status()
        .map_err(|error| Failure::new(NOT_FOUND, format!("{} cannot be run: {error}", command[0])))?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

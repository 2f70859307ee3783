// SPDX-License-Identifier: GPL-2.0

//! `why`: what there is to say of a connection, per direction, and what to change.

use crate::{
    conntrack::{self, Connection},
    failure::{Failure, NOT_FOUND, NO_MODULE, USAGE},
    family::Offload,
    flows::{names, DIRECTIONS},
    links::{self, Instead, Links, RouteKey, Router},
    output::{bytes, duration, many, wrap, Output, Tone},
    reasons::{origin, remedy, words},
    ruleset::{Packet, Ruleset, Verdict},
    spec::{key, op, Reason},
    tuple::{Query, Tuple},
};
use serde_json::{json, Value};
use std::net::IpAddr;

/// More are not told of in full.
const MANY: usize = 5;
const WIDTH: usize = 100;

pub fn why(arguments: &[String], out: &mut Output) -> Result<u8, Failure> {
    let query = Query::parse(arguments).map_err(|text| Failure::new(USAGE, text))?;
    let links = names();

    let mut flows = vec![];
    let module = match Offload::open() {
        Ok(mut offload) => {
            find_flows(&mut offload, &query, |flow| flows.push(flow))?;
            true
        }
        Err(failure) if failure.status == NO_MODULE => {
            if !out.json {
                out.line(wrap(&format!("({}. What follows is what else can be known.)", failure.text), 0, WIDTH))?;
            }
            false
        }
        Err(failure) => return Err(failure),
    };
    if flows.iter().any(|flow| !is_ending(flow)) {
        flows.retain(|flow| !is_ending(flow));
    }
    if !flows.is_empty() {
        if out.json {
            let stories = flows.iter().map(|flow| flow_to_json(flow, &links)).collect::<Vec<_>>();
            out.object(&json!({ "flows": stories }))?;
            return Ok(0);
        }
        for flow in flows.iter().take(MANY) {
            tell_flow(flow, &links, out)?;
        }
        if flows.len() > MANY {
            out.line(format!("{} more are meant by '{query}': say more of the connection", flows.len() - MANY))?;
        }
        return Ok(0);
    }

    let mut connections = vec![];
    conntrack::find(&query, |connection| connections.push(connection))
        .map_err(|error| Failure::about("conntrack's connections", &error))?;
    if connections.is_empty() {
        return Err(Failure::new(
            NOT_FOUND,
            format!(
                "conntrack has no connection '{query}': it is over, goes another way than by this machine and network \
                 namespace, or a rule has 'notrack' for it"
            ),
        ));
    }
    let ruleset = Ruleset::get();
    let stories: Vec<_> = connections
        .iter()
        .take(MANY)
        .map(|connection| {
            (connection, without_entry(connection, &links, ruleset.as_ref(), &Ways::of(connection), module))
        })
        .collect();
    if out.json {
        let list = stories.iter().map(|(connection, points)| {
            let points = points
                .iter()
                .map(|point| json!({ "what": point.what, "remedy": point.remedy, "certain": point.certain }));
            json!({ "tuple": connection.original.to_value(), "points": points.collect::<Vec<_>>() })
        });
        out.object(&json!({ "connections": list.collect::<Vec<_>>() }))?;
        return Ok(0);
    }
    for (connection, points) in &stories {
        let head = out.paint(Tone::Bold, &connection.original.to_string());
        let state = connection.state().map(|state| format!(", {state}")).unwrap_or_default();
        out.line(format!("{head}  known to conntrack{state}"))?;
        for point in points {
            let text = wrap(&point.what, 4, WIDTH);
            out.line(text)?;
            if !point.remedy.is_empty() {
                out.line(wrap(&format!("=> {}", point.remedy), 8, WIDTH))?;
            }
        }
    }
    if connections.len() > MANY {
        out.line(format!("{} more are meant by '{query}': say more of the connection", connections.len() - MANY))?;
    }
    Ok(0)
}

/// The connection has begun to end, or another entry of it takes the place of this one.
pub fn is_ending(flow: &Value) -> bool {
    let whys = DIRECTIONS.iter().flat_map(|dir| flow[dir][key::WHY].as_array().into_iter().flatten());
    whys.into_iter().any(|why| why[key::REASON] == Reason::Ending.name())
}

/// The module's flows that are meant.
pub fn find_flows(offload: &mut Offload, query: &Query, mut each: impl FnMut(Value)) -> Result<(), Failure> {
    let request = match query.filter() {
        filter if filter.is_empty() => json!({}),
        filter => json!({ "filter": filter }),
    };
    offload.dump("the flows", op::FLOW_GET, &request, "flow", |flow| {
        let tuples: Vec<_> = DIRECTIONS.iter().filter_map(|dir| Tuple::from_value(&flow[dir][key::TUPLE])).collect();
        if query.matches(&tuples) {
            each(flow);
        }
        Ok(())
    })?;
    Ok(())
}

// --- a flow with an entry

fn state_words(state: &Value) -> &str {
    match state.as_str() {
        Some("software") => "in software",
        Some("queued") => "waiting for the driver to take its rule",
        Some("hardware") => "in hardware",
        Some("withdrawing") => "in hardware, with the rule on its way out",
        Some("stale") => "in hardware, though it should not be: the driver has failed to remove the rule",
        Some("left") => "left to the host, with no entry in the flowtable",
        _ => "in a state that this program does not know",
    }
}

/// `comes in by nic0 with 802.1Q 5, goes to 10.0.2.2 by nic1`.
fn way(direction: &Value, links: &Links) -> String {
    let name = |value: &Value| value.as_u64().map(|index| links.name(index as u32));
    let tags = |list: &Value| -> String {
        let tags = list.as_array().into_iter().flatten().map(|tag| match tag[key::PROTO].as_u64() {
            Some(0x8100) => format!("VLAN {}", tag[key::ID]),
            Some(0x88a8) => format!("802.1ad VLAN {}", tag[key::ID]),
            Some(0x8864) => format!("PPPoE session {}", tag[key::ID]),
            _ => format!("tag {}", tag[key::PROTO]),
        });
        let tags: Vec<_> = tags.collect();
        if tags.is_empty() {
            String::new()
        } else {
            format!(" with {}", tags.join(" in "))
        }
    };
    let mut parts = vec![];
    if let Some(ingress) = name(&direction[key::INGRESS]) {
        let tunnel = if direction[key::TUNNEL].is_null() { "" } else { " in a tunnel that ends here" };
        parts.push(format!("comes in by {ingress}{}{tunnel}", tags(&direction[key::ENCAP])));
    }
    let route = &direction[key::ROUTE];
    if let Some(egress) = name(&route[key::EGRESS]).or_else(|| name(&route[key::IFINDEX])) {
        let to = route[key::NEIGHBOUR].as_str().map(|to| format!(" to {to}")).unwrap_or_default();
        let top = match (name(&route[key::IFINDEX]), &egress) {
            (Some(top), bottom) if top != *bottom => format!(" (the route says {top})"),
            _ => String::new(),
        };
        parts.push(format!("goes{to} by {egress}{}{top}", tags(&route[key::ENCAP])));
    }
    parts.join(", ")
}

fn counters(direction: &Value) -> String {
    let counted = |name: &str, who: &str| {
        let counters = &direction[name];
        let packets = counters[key::PACKETS].as_u64()?;
        let size = counters[key::BYTES].as_u64().map(|n| format!(", {}", bytes(n))).unwrap_or_default();
        Some(format!("{who} {}{size}", many(packets, "packet")))
    };
    let list = [counted(key::HARDWARE, "hardware has forwarded"), counted(key::CONNECTION, "conntrack has counted")];
    list.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn tell_flow(flow: &Value, links: &Links, out: &mut Output) -> Result<(), Failure> {
    let tuple = Tuple::from_value(&flow[key::ORIGINAL][key::TUPLE]).map_or("?".into(), |tuple| tuple.to_string());
    let head = out.paint(Tone::Bold, &tuple);
    out.line(head)?;
    let mut about = vec![match flow[key::FLOWTABLE].as_str() {
        Some(name) => format!("in flowtable {} of table {}", name, flow[key::TABLE].as_str().unwrap_or("?")),
        None => "in no flowtable: it is left to the host".into(),
    }];
    for (key, what) in [(key::SNAT, "its source is translated"), (key::DNAT, "its destination is translated")] {
        if !flow[key].is_null() {
            about.push(what.into());
        }
    }
    if let Some(mark) = flow[key::MARK].as_u64().filter(|mark| *mark != 0) {
        about.push(format!("conntrack's mark is {mark:#x}"));
    }
    if let Some(offers) = flow[key::OFFERS].as_u64() {
        about.push(format!("offered {}", many(offers, "time")));
    }
    if let Some(times) = flow[key::TIMES_LEFT].as_u64().filter(|times| *times > 0) {
        about.push(format!("left to the host {}", many(times, "time")));
    }
    if let Some(ago) = flow[key::LAST_USE].as_u64() {
        about.push(format!("last packet {} ago", duration(ago)));
    }
    out.line(wrap(&about.join("; "), 4, WIDTH))?;

    for name in DIRECTIONS {
        let direction = &flow[name];
        if direction.is_null() {
            continue;
        }
        let since = direction[key::SINCE].as_u64().map(|ms| format!(" for {}", duration(ms))).unwrap_or_default();
        let state = format!("{}{since}", state_words(&direction[key::STATE]));
        let tone = if direction[key::STATE] == "hardware" { Tone::Good } else { Tone::Warning };
        let state = out.paint(tone, &state);
        out.line(format!("  {name}: {state}"))?;
        for text in [way(direction, links), counters(direction)].iter().filter(|text| !text.is_empty()) {
            out.line(wrap(text, 6, WIDTH))?;
        }
        for why in direction[key::WHY].as_array().into_iter().flatten() {
            let by = origin(why[key::BY].as_str().unwrap_or("?"));
            let name = why[key::REASON].as_str().unwrap_or("?");
            out.line(wrap(&format!("- {name}, by {by}: {}", words(why, links)), 6, WIDTH))?;
            out.line(wrap(&format!("=> {}", remedy(why, links)), 8, WIDTH))?;
        }
    }
    Ok(())
}

/// The flow as the kernel has it, with words and remedies beside its reasons.
fn flow_to_json(flow: &Value, links: &Links) -> Value {
    let mut flow = flow.clone();
    for name in DIRECTIONS {
        for why in flow[name][key::WHY].as_array_mut().into_iter().flatten() {
            let (words, remedy) = (words(why, links), remedy(why, links));
            why[key::WHY] = json!(words);
            why["remedy"] = json!(remedy);
        }
    }
    flow
}

// --- a connection without an entry

#[derive(Debug, PartialEq)]
pub struct Point {
    pub what: String,
    pub remedy: String,
    /// What is known decides it.
    pub certain: bool,
}

fn point(what: impl Into<String>, remedy: impl Into<String>) -> Point {
    Point { what: what.into(), remedy: remedy.into(), certain: true }
}

/// Where the host would send the packets of both directions; nothing where that cannot be found out.
#[derive(Debug, Default)]
pub struct Ways {
    pub to_sender: Option<links::Route>,
    pub to_receiver: Option<links::Route>,
}

impl Ways {
    fn of(connection: &Connection) -> Self {
        let (sender, receiver) = (connection.original.src, connection.reply.src);
        // Without a device of arrival, as the core's own look-up for the other direction.
        let route = |to: IpAddr| Router::open().ok()?.route(&RouteKey::to(to, connection.mark)).ok();
        Self { to_sender: route(sender), to_receiver: route(receiver) }
    }
}

/// Why a connection that conntrack knows has no entry, as far as can be said without asking its packets.
pub fn without_entry(
    connection: &Connection,
    links: &Links,
    ruleset: Result<&Ruleset, &String>,
    ways: &Ways,
    module: bool,
) -> Vec<Point> {
    if let Some(point) = in_flowtable(connection, module) {
        return vec![point];
    }
    let mut points = conntrack_points(connection);
    let is_local = |route: &Option<links::Route>| route.as_ref().is_some_and(|route| route.is_local);
    if is_local(&ways.to_sender) || is_local(&ways.to_receiver) {
        points.push(point(
            "One end is this host itself: only what is forwarded can be in a flowtable.",
            "Nothing. To measure, put both ends on other hosts.",
        ));
        return points;
    }
    for (route, end) in [(&ways.to_sender, connection.original.src), (&ways.to_receiver, connection.reply.src)] {
        if route.is_none() {
            points.push(point(format!("This host has no route to {end}."), format!("See 'ip route get {end}'.")));
        }
    }
    let ruleset = match ruleset {
        Ok(ruleset) => ruleset,
        Err(why) => {
            let what = format!("The ruleset cannot be looked at: {why}.");
            points.push(Point { certain: false, ..point(what, "Install nftables, and run this as root.") });
            return points;
        }
    };
    let devices = [&ways.to_sender, &ways.to_receiver].map(|route| route.as_ref().and_then(|route| route.device));
    device_points(&mut points, ruleset, links, devices);
    ruleset_points(&mut points, ruleset, connection, links, devices);
    if points.is_empty() {
        points.push(Point {
            what: "Nothing that is known here stands against an entry.".into(),
            remedy: "Look again in a moment: an entry is made by the next packet, and may have just timed out \
                     (net.netfilter.nf_flowtable_tcp_timeout). Packets with IP options, and FIN and RST, make none."
                .into(),
            certain: false,
        });
    }
    points
}

/// What conntrack says of one that has an entry after all.
fn in_flowtable(connection: &Connection, module: bool) -> Option<Point> {
    let what = match () {
        () if connection.has(conntrack::HW_OFFLOAD) => {
            "conntrack has it as [HW_OFFLOAD]: it is in a flowtable, and was put into hardware."
        }
        () if connection.has(conntrack::OFFLOAD) => {
            "conntrack has it as [OFFLOAD]: it is in a flowtable, and not known to be in hardware."
        }
        () => return None,
    };
    let remedy = match module {
        true => "Ask again: it has just got its entry, or is losing it.",
        false => "Why, and how much of it, only nft_offload tells, by this program.",
    };
    Some(point(what, remedy))
}

fn conntrack_points(connection: &Connection) -> Vec<Point> {
    let mut points = vec![];
    let tuple = connection.original;
    if connection.has(conntrack::DYING) {
        points.push(point("It is just ending.", ""));
    }
    match tuple.l4proto {
        6 if !connection.is_tcp_established() => points.push(point(
            format!(
                "It is {}: 'flow add' takes TCP connections that are ESTABLISHED only.",
                connection.state().unwrap_or("in no state")
            ),
            "Nothing: before and after, the packets are conntrack's.",
        )),
        6 | 17 => {}
        47 if connection.is_nat() => {
            points.push(point(
                "It is GRE with NAT, which 'flow add' does not take.",
                "Nothing; or route it without NAT.",
            ));
        }
        47 => {}
        number => points.push(point(
            format!("'flow add' takes TCP, UDP and GRE, and not {}.", crate::tuple::protocol_name(number)),
            "Nothing.",
        )),
    }
    if let Some(helper) = &connection.helper {
        points.push(point(
            format!("It has the helper {helper}, which reads its packets: 'flow add' does not take it."),
            "Nothing, if the helper is needed; else give it to fewer connections ('ct helper set').",
        ));
    }
    if connection.has(conntrack::SEQ_ADJUST) {
        points.push(point(
            "Its sequence numbers are rewritten (a helper did that): 'flow add' does not take it.",
            "Nothing.",
        ));
    }
    if connection.has(conntrack::NAT_CLASH) {
        points.push(point(
            "It is barred from flowtables: it is left to the host, or two packets have made it at once.",
            "See the kernel log for this connection: what the host does with its packets is not what an entry would do.",
        ));
    }
    points
}

fn device_points(points: &mut Vec<Point>, ruleset: &Ruleset, links: &Links, devices: [Option<u32>; 2]) {
    if ruleset.flowtables.is_empty() {
        points.push(point("The ruleset has no flowtable.", "Add one, and a rule with 'flow add', as in README.md."));
        return;
    }
    if ruleset.flow_adds().is_empty() {
        points.push(point(
            "No rule has 'flow add'.",
            "Add 'ct state established flow add @NAME' to the chain that forwards.",
        ));
    }
    if let [Some(one), Some(other)] = devices {
        if one == other {
            points.push(Point {
                certain: false,
                ..point(
                    format!("Both ends are reached by {}: its packets turn round here.", links.name(one)),
                    "Nothing, if they are on the same network; have them speak directly.",
                )
            });
        }
    }
    for index in devices.into_iter().flatten() {
        let Some(link) = links.0.get(&index) else { continue };
        let bottoms = links.bottoms(index);
        let name = &link.name;
        match links.instead(link) {
            Instead::Nothing => {
                points.push(point(
                    format!("It goes by {name}, which is a bond or belongs to one: nothing by that can be offloaded."),
                    "Nothing.",
                ));
                continue;
            }
            Instead::BelowSession => continue,
            _ => {}
        }
        let members: Vec<_> =
            bottoms.iter().filter(|bottom| ruleset.flowtables.iter().any(|table| table.has(bottom))).collect();
        let flowtable = &ruleset.flowtables[0].name;
        if bottoms.is_empty() {
            points.push(point(format!("It goes by {name}, below which there is no device."), ""));
        } else if members.is_empty() {
            let through = if bottoms == [name.clone()] {
                String::new()
            } else {
                format!(", for which {} sends", bottoms.join(" or "))
            };
            points.push(point(
                format!("It goes by {name}{through}, and that is in no flowtable."),
                format!("Add {} to the devices of flowtable {flowtable}.", bottoms.join(", ")),
            ));
        } else if members.len() < bottoms.len() {
            let missing: Vec<_> = bottoms.iter().filter(|bottom| !members.contains(bottom)).cloned().collect();
            points.push(Point {
                certain: false,
                ..point(
                    format!("It goes by {name}; of its ports {} are in no flowtable.", missing.join(", ")),
                    format!("If it goes by one of these, add that to the devices of flowtable {flowtable}."),
                )
            });
        }
    }
}

fn ruleset_points(
    points: &mut Vec<Point>,
    ruleset: &Ruleset,
    connection: &Connection,
    links: &Links,
    devices: [Option<u32>; 2],
) {
    if ruleset.flow_adds().is_empty() {
        return;
    }
    let answered = connection.has(conntrack::SEEN_REPLY);
    let name = |device: Option<u32>| device.and_then(|index| links.0.get(&index)).map(|link| link.name.clone());
    let [client, server] = devices.map(name);
    let mut status = vec![];
    for (bit, name) in [
        (conntrack::SEEN_REPLY, "seen-reply"),
        (1 << 2, "assured"),
        (conntrack::CONFIRMED, "confirmed"),
        (conntrack::SRC_NAT, "snat"),
        (conntrack::DST_NAT, "dnat"),
    ] {
        if connection.has(bit) {
            status.push(name);
        }
    }
    // Destinations are translated before the forward hook, sources behind it; of answers it is the other way round.
    let (original, reply) = (connection.original, connection.reply);
    let of = |state,
              ct_direction,
              from: (IpAddr, Option<u16>),
              to: (IpAddr, Option<u16>),
              iif: &Option<String>,
              oif: &Option<String>| Packet {
        l4proto: original.l4proto,
        saddr: from.0,
        daddr: to.0,
        sport: from.1,
        dport: to.1,
        iif: iif.clone(),
        oif: oif.clone(),
        ct_state: state,
        ct_direction,
        ct_mark: connection.mark,
        ct_zone: connection.zone,
        ct_status: status.clone(),
    };
    let (a, b) = ((original.src, original.sport), (reply.src, reply.sport));
    let mut packets = vec![of(if answered { "established" } else { "new" }, "original", a, b, &client, &server)];
    if answered {
        packets.push(of("established", "reply", b, a, &server, &client));
    }

    let mut stories = vec![];
    for packet in &packets {
        let direction = packet.ct_direction;
        stories.push(match ruleset.forward(packet) {
            // Either direction's packet makes the entry for both.
            Verdict::Added { .. } => return,
            Verdict::Accepted(rule) => point(
                format!("Packets of the {direction} direction get to no 'flow add': {} accepts them before.", rule.words()),
                "Put the rule with 'flow add' before it, or do without the rule.",
            ),
            Verdict::Dropped(Some(rule)) => {
                point(format!("Packets of the {direction} direction are dropped: by {}.", rule.words()), "Change that rule, if they should pass.")
            }
            Verdict::Dropped(None) => point(
                format!("Packets of the {direction} direction are dropped: by the policy of a chain at the forward hook."),
                "Add a rule that accepts them, behind the one with 'flow add'.",
            ),
            Verdict::NotMet => point(
                format!("Packets of the {direction} direction meet no rule with 'flow add'."),
                "Widen the rule with 'flow add', so that it takes this connection.",
            ),
            Verdict::Undecided { rule, because } => Point {
                certain: false,
                ..point(
                    format!("Whether packets of the {direction} direction get to a 'flow add' cannot be said: {} depends on {because}.", rule.words()),
                    format!("See it with 'meta nftrace set 1' and 'nft monitor trace' for {}.", original),
                )
            },
        });
    }
    if !answered {
        points.push(point(
            "It has no answer yet: its packets are 'ct state new'.",
            "Nothing: with 'ct state established' in the rule, an entry is made when both directions have sent.",
        ));
    }
    points.extend(stories);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{links::tests::some, ruleset};

    fn connection() -> Connection {
        let tuple = |src: &str, sport, dst: &str, dport| Tuple {
            l4proto: 6,
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            sport: Some(sport),
            dport: Some(dport),
            zone: None,
        };
        Connection {
            original: tuple("192.168.9.2", 40000, "203.0.113.5", 443),
            reply: tuple("203.0.113.5", 443, "198.51.100.1", 40000),
            status: conntrack::SEEN_REPLY | conntrack::CONFIRMED | conntrack::SRC_NAT,
            tcp_state: Some(3),
            mark: 0,
            zone: 0,
            helper: None,
            counts: false,
        }
    }

    fn to(device: u32) -> Option<links::Route> {
        Some(links::Route { is_local: false, device: Some(device), gateway: None })
    }

    /// lan0 and wan0 of the recorded ruleset are eth0 and eth1 of some links.
    fn lan_and_wan() -> Links {
        let mut links = some();
        links.0.get_mut(&1).unwrap().name = "lan0".into();
        links.0.get_mut(&3).unwrap().name = "wan0".into();
        links
    }

    fn points(change: impl FnOnce(&mut Connection, &mut Ways)) -> String {
        let (mut connection, mut ways) = (connection(), Ways { to_sender: to(1), to_receiver: to(3) });
        change(&mut connection, &mut ways);
        let ruleset = ruleset::tests::recorded();
        let points = without_entry(&connection, &lan_and_wan(), Ok(&ruleset), &ways, true);
        let lines: Vec<_> = points.iter().map(|point| format!("{} => {}", point.what, point.remedy)).collect();
        lines.join("\n")
    }

    #[test]
    fn what_stands_against_an_entry() {
        assert!(points(|_, _| ()).starts_with("Nothing that is known"), "{}", points(|_, _| ()));
        type Change<'a> = &'a dyn Fn(&mut Connection, &mut Ways);
        let cases: &[(&str, Change)] = &[
            ("conntrack has it as [OFFLOAD]", &|c, _| c.status |= conntrack::OFFLOAD),
            ("It is SYN_SENT", &|c, _| c.tcp_state = Some(1)),
            ("helper ftp", &|c, _| c.helper = Some("ftp".into())),
            ("and not icmp", &|c, _| c.original.l4proto = 1),
            ("GRE with NAT", &|c, _| c.original.l4proto = 47),
            ("barred from flowtables", &|c, _| c.status |= conntrack::NAT_CLASH),
            ("this host itself", &|_, w| w.to_receiver.as_mut().unwrap().is_local = true),
            ("no route to 203.0.113.5", &|_, w| w.to_receiver = None),
            ("It goes by eth3, which is a bond or belongs to one", &|_, w| w.to_sender = to(6)),
            ("is a bond or belongs to one", &|_, w| w.to_receiver = to(8)),
            ("Add eth1 to the devices of flowtable ft", &|_, w| w.to_receiver = to(4)),
            ("no answer yet", &|c, _| c.status = conntrack::CONFIRMED),
            ("the rule 'ct mark & 0x000000f0 == 0x00000010 drop' in chain inet fw forward", &|c, _| c.mark = 0x10),
            ("direction get to no 'flow add': the rule 'accept' in chain inet fw x", &|c, _| {
                c.original.dport = Some(80);
                c.reply.sport = Some(80);
                c.reply.src = "10.0.0.1".parse().unwrap();
                c.original.sport = Some(1500);
                c.original.src = "10.0.0.2".parse().unwrap();
            }),
        ];
        for (says, change) in cases {
            let said = points(change);
            assert!(said.contains(says), "{says}: {said}");
        }
        // The flowtable has the device below that VLAN device.
        assert_eq!(points(|_, w| w.to_receiver = to(5)), points(|_, _| ()));
    }

    #[test]
    fn the_story_of_a_flow() {
        let flow = json!({
            "table": "fw", "flowtable": "ft", "snat": true, "offers": 2, "last-use": 400,
            "original": {
                "tuple": connection().original.to_value(), "ingress": 1, "state": "software", "since": 12000,
                "route": { "ifindex": 5, "egress": 3, "neighbour": "203.0.113.1", "encap": [{ "proto": 0x8100, "id": 5 }] },
                "why": [{ "reason": "refused", "by": "driver", "errno": 28, "ifindex": 3, "words": "table full" }],
            },
            "reply": { "state": "hardware", "since": 500, "hardware": { "packets": 1234, "bytes": 1200000 } },
        });
        let links = some();
        let mut text = vec![];
        tell_flow(&flow, &links, &mut Output { to: &mut text, json: false, color: false }).unwrap();
        let text = String::from_utf8(text).unwrap();
        for says in [
            "tcp 192.168.9.2:40000 -> 203.0.113.5:443\n",
            "in flowtable ft of table fw; its source is translated; offered 2 times; last packet 0.4 s ago\n",
            "  original: in software for 12 s\n",
            "comes in by eth0, goes to 203.0.113.1 by eth2 with VLAN 5 (the route says eth2.5)\n",
            "- refused, by the driver: the driver refused the rule (eth2, -ENOSPC, \"table full\")\n",
            "  reply: in hardware for 0.5 s\n      hardware has forwarded 1,234 packets, 1.20 MB\n",
        ] {
            assert!(text.contains(says), "{says}\n{text}");
        }
        let json = flow_to_json(&flow, &links);
        assert!(json["original"]["why"][0]["remedy"].as_str().unwrap().contains("places that become free"));
    }
}

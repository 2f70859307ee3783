// SPDX-License-Identifier: GPL-2.0

//! What each reason means to an operator, and what to change. The only place: the tool's answers and the list in
//! Documentation/operator.md are made of it, and the compiler finds a reason of the specification that is missing.

use crate::{links::Links, spec::Reason, tuple::protocol_name};
use serde_json::Value;

pub struct Advice {
    /// Why, in plain words, as the end of "is not in hardware: …".
    pub why: &'static str,
    /// What to change, or that there is nothing.
    pub remedy: &'static str,
}

pub fn advice(reason: Reason) -> Advice {
    let (why, remedy) = match reason {
        Reason::NoFlag => (
            "the flowtable is for software only",
            "Add 'flags offload;' to the flowtable in the ruleset, and load it again.",
        ),
        Reason::NotOffered => (
            "the kernel has not offered the connection to the module yet",
            "Wait a second. If that does not change, the host is short of memory, or the connection sends nothing.",
        ),
        Reason::NotBound => (
            "packets come in by a device that takes no rules for this flowtable",
            "See 'nft-offload doctor' and the kernel log for that device: its driver cannot offload (nothing to change: use \
             another port), 'hw-tc-offload' was off when the ruleset was loaded (ethtool -K DEVICE hw-tc-offload on), or \
             it belongs to the devices of the flowtable and is not among them.",
        ),
        Reason::SwitchedOff => (
            "hw-tc-offload is off at the device by which packets come in",
            "ethtool -K DEVICE hw-tc-offload on",
        ),
        Reason::NotIp => (
            "the packets are not IP",
            "Nothing: only IPv4 and IPv6 can be in hardware.",
        ),
        Reason::Protocol => (
            "there are no rules for its protocol",
            "Nothing: TCP, UDP and GRE can be in hardware. Leave others out of 'flow add' (meta l4proto { tcp, udp }).",
        ),
        Reason::Nat => (
            "its address translation cannot be said in a rule: between IPv4 and IPv6, or of a protocol without ports",
            "Route such connections without NAT, if that is possible; else nothing.",
        ),
        Reason::Encapsulation => (
            "there are no rules for one of its tags or headers",
            "Have the traffic come with 802.1Q or 802.1ad tags or PPPoE only; a driver may take fewer of these, see \
             drivers.md.",
        ),
        Reason::IngressTag => (
            "the driver would not look at a VLAN tag of what comes in, so that a rule would take packets of other VLANs too",
            "Use 802.1Q (0x8100) in the place of 802.1ad (0x88a8) on that side, or give the VLAN a port of its own.",
        ),
        Reason::VlanRewrite => (
            "packets leave with another type or number of VLAN tags than they come with, and the driver cannot do that",
            "Have as many tags, and of the same type, on both sides, or end the VLANs in a switch before the router.",
        ),
        Reason::VlanPriority => (
            "the VLAN device sets a priority in its tag, which the driver does not",
            "Take the map away if nobody needs it: ip link set DEVICE type vlan egress 0:0; else nothing.",
        ),
        Reason::VaryingPriority => (
            "the VLAN device gives priorities that depend on the packet, so that no rule says which",
            "Map all priorities to one, or take the map away: ip link set DEVICE type vlan egress 0:0.",
        ),
        Reason::Tunnel => (
            "an IP tunnel ends here",
            "Nothing: what comes in a tunnel of the router is unpacked by the host.",
        ),
        Reason::Lwtunnel => (
            "the route puts a header around packets for which there are no rules",
            "Nothing, as long as the route has that encapsulation ('ip route get ADDRESS' shows it).",
        ),
        Reason::TunnelOptions => (
            "the route's tunnel has options, which no rule can have",
            "Take the options out of the route, if nobody needs them; else nothing.",
        ),
        Reason::Ipsec => (
            "IPsec applies to its packets",
            "Nothing: they are encrypted by the host. If they should not be, change the policy ('ip xfrm policy').",
        ),
        Reason::Unresolved => (
            "the next hop has not answered, so that its MAC address is not known",
            "See 'ip neigh' for the next hop: it has to answer ARP or neighbour discovery. The connection comes back by \
             itself.",
        ),
        Reason::Xmit => (
            "the way out is no Ethernet",
            "Nothing: a rule needs a MAC header on the way out.",
        ),
        Reason::TooLong => (
            "its rule would need more actions than a rule can have",
            "Have fewer tags, or NAT of fewer things, on its way.",
        ),
        Reason::Mtu => (
            "a route, VLAN or PPPoE device lets packets be less long than the port does, and hardware would not look",
            "Give the port the MTU of the narrowest device on top of it (ip link set PORT mtu N), or widen that one; a \
             PPPoE session of 1492 on a port of 1500 is right.",
        ),
        Reason::Shaped => (
            "the device has a qdisc that does more than to queue, past which hardware would send",
            "Take the shaper away (tc qdisc replace dev DEVICE root fq_codel), or have hardware send past it: load the module \
             with bypass_qdisc=1.",
        ),
        Reason::RouteMismatch => (
            "the host would not send the packets as the flowtable's entry does",
            "If the route depends on the packet's mark, keep it in conntrack (ct mark set meta mark) and give it to the \
             packets of both directions (meta mark set ct mark). If it depends on the device by which packets come in (ip \
             rule iif), let only packets that come in there make entries (iifname before 'flow add').",
        ),
        Reason::RouteTunnel => (
            "its route has a tunnel, and changes of that could not be followed",
            "Nothing.",
        ),
        Reason::NotForwarded => (
            "the host does not forward its packets",
            "See 'sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding', rp_filter, blackhole routes and 'ip route get \
             ADDRESS from ADDRESS iif DEVICE'.",
        ),
        Reason::Prepare => (
            "its rule could not be prepared",
            "The host is short of memory, or the way out has just gone: it is tried again by itself.",
        ),
        Reason::StaleRule => (
            "an earlier rule of the same packets could not be removed from the hardware yet",
            "It is tried again by itself. If that goes on, the driver is sick: see the kernel log, and 'withdraw-errors' in \
             'nft-offload devices'.",
        ),
        Reason::Refused => (
            "the driver refused the rule",
            "The driver's words and errno say why: see drivers.md for what it takes. -EOPNOTSUPP is final; other errors are \
             tried again, less and less often.",
        ),
        Reason::NoRoom => (
            "the device has no room for more rules",
            "Connections that go on sending get the places that become free. Let fewer connections into the flowtable, those \
             that last: 'ct original packets > 100' or 'ct bytes > 1000000' before 'flow add' (with nf_conntrack_acct=1).",
        ),
        Reason::Failing => (
            "the device's driver has failed one rule after the other, and is left alone but for a try now and then",
            "See the kernel log and 'nft-offload devices' for its errors: firmware, a reset, or a driver to be reloaded.",
        ),
        Reason::OtherDirection => (
            "the other direction cannot be in hardware, and one alone is not wanted",
            "Mend the other direction's reason, or load the module with partial=1 to have one direction in hardware.",
        ),
        Reason::Ending => (
            "the connection has begun to end, or its entry is being made anew",
            "Nothing: it is over, or comes back by itself.",
        ),
        Reason::LeftToHost => (
            "all packets of the direction are the host's, whatever the entry says",
            "Nothing while that is so: answers to a first packet of UDP, and what the host answers itself, are conntrack's.",
        ),
        Reason::NewRuleset => (
            "the ruleset has changed, and has yet to let packets of both directions pass",
            "Nothing: it comes back within seconds, if the ruleset lets it.",
        ),
        Reason::Pinned => (
            "the connection is kept in software on request, 'nft-offload pin' or 'capture'",
            "Nothing: it comes back when the time is over. 'nft-offload unpin' ends it now.",
        ),
    };
    Advice { why, remedy }
}

/// Who, in plain words.
pub fn origin(by: &str) -> &str {
    match by {
        "nftables" => "the ruleset",
        "kernel" => "the host",
        "module" => "the module",
        "driver" => "the driver",
        other => other,
    }
}

const ERRNOS: &[(u64, &str)] = &[
    (1, "EPERM"),
    (2, "ENOENT"),
    (5, "EIO"),
    (6, "ENXIO"),
    (7, "E2BIG"),
    (11, "EAGAIN"),
    (12, "ENOMEM"),
    (13, "EACCES"),
    (16, "EBUSY"),
    (17, "EEXIST"),
    (18, "EXDEV"),
    (19, "ENODEV"),
    (22, "EINVAL"),
    (28, "ENOSPC"),
    (34, "ERANGE"),
    (75, "EOVERFLOW"),
    (95, "EOPNOTSUPP"),
    (100, "ENETDOWN"),
    (101, "ENETUNREACH"),
    (110, "ETIMEDOUT"),
    (113, "EHOSTUNREACH"),
];

pub fn errno_name(errno: u64) -> String {
    match ERRNOS.iter().find(|(number, _)| *number == errno) {
        Some((_, name)) => format!("-{name}"),
        None => format!("-{errno}"),
    }
}

/// A reason as a message has it, in a few words with all its details: `no room for more rules in nic0`.
pub fn words(why: &Value, links: &Links) -> String {
    let Some(reason) = why["reason"].as_str() else {
        return format!("reason {} (of a newer kernel)", why["reason"]);
    };
    let mut text = Reason::named(reason).map_or_else(|| reason.to_string(), |reason| advice(reason).why.to_string());
    let mut details = vec![];
    if let Some(index) = why["ifindex"].as_u64() {
        details.push(links.name(index as u32));
    }
    if let Some(detail) = why["detail"].as_u64() {
        details.push(match Reason::named(reason) {
            Some(Reason::Protocol) => protocol_name(detail as u8),
            Some(Reason::Encapsulation | Reason::IngressTag) => ethertype(detail),
            _ => format!("type {detail}"),
        });
    }
    if let Some(errno) = why["errno"].as_u64() {
        details.push(errno_name(errno));
    }
    if let Some(words) = why["words"].as_str() {
        details.push(format!("\"{words}\""));
    }
    if !details.is_empty() {
        text += &format!(" ({})", details.join(", "));
    }
    text
}

/// The remedy, with the device's name where there is one.
pub fn remedy(why: &Value, links: &Links) -> String {
    let Some(reason) = why["reason"].as_str().and_then(Reason::named) else {
        return "Install the version of this program that belongs to the module.".into();
    };
    const ENOSPC: u64 = 28;
    let reason = match (reason, why["errno"].as_u64()) {
        // In other words.
        (Reason::Refused, Some(ENOSPC)) => Reason::NoRoom,
        _ => reason,
    };
    let text = advice(reason).remedy.to_string();
    match why["ifindex"].as_u64() {
        Some(index) => text.replace("DEVICE", &links.name(index as u32)),
        None => text,
    }
}

fn ethertype(number: u64) -> String {
    match number {
        0x8100 => "802.1Q".into(),
        0x88a8 => "802.1ad".into(),
        0x8864 => "PPPoE".into(),
        _ => format!("{number:#06x}"),
    }
}

/// The list for Documentation/operator.md.
pub fn document() -> String {
    let mut text =
        String::from("| reason | the connection is not in hardware because | what to change |\n|---|---|---|\n");
    for reason in Reason::ALL {
        let Advice { why, remedy } = advice(*reason);
        text += &format!("| `{}` | {} | {} |\n", reason.name(), why, remedy.replace('|', "\\|"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links;
    use serde_json::json;

    #[test]
    fn each_reason_has_a_remedy() {
        // That none is missing is the compiler's affair; here, that each says something of its own.
        let mut seen = std::collections::BTreeSet::new();
        for reason in Reason::ALL {
            let advice = advice(*reason);
            assert!(seen.insert(advice.why), "{}: {}", reason.name(), advice.why);
            assert!(advice.remedy.len() >= 8, "{}", reason.name());
            assert!(!advice.why.ends_with('.'), "{}", reason.name());
        }
        assert_eq!(Reason::ALL.len(), Reason::NAMES.len());
    }

    #[test]
    fn the_guide_has_the_list() {
        let guide = include_str!("../../../Documentation/operator.md");
        assert!(guide.contains(&document()), "run: make reasons-table");
    }

    #[test]
    fn details_are_told() {
        let links = links::tests::some();
        let say = |why: Value| words(&why, &links);
        assert_eq!(
            say(json!({"reason": "refused", "by": "driver", "errno": 28, "ifindex": 1, "words": "table full"})),
            "the driver refused the rule (eth0, -ENOSPC, \"table full\")"
        );
        assert_eq!(
            say(json!({"reason": "encapsulation", "detail": 0x88a8})),
            "there are no rules for one of its tags or headers (802.1ad)"
        );
        assert_eq!(say(json!({"reason": "protocol", "detail": 132})), "there are no rules for its protocol (sctp)");
        assert!(say(json!({"reason": 99})).starts_with("reason 99"));
        assert_eq!(
            remedy(&json!({"reason": "switched-off", "ifindex": 3}), &links),
            "ethtool -K eth2 hw-tc-offload on"
        );
        assert_eq!(
            remedy(&json!({"reason": "refused", "errno": 28}), &links),
            remedy(&json!({"reason": "no-room"}), &links)
        );
        assert!(say(json!({"reason": "no-room", "ifindex": 77})).contains("device 77 (gone)"));
    }
}

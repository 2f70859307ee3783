// SPDX-License-Identifier: GPL-2.0

//! The command line.

use crate::{
    failure::STATUSES,
    flows::SORT_KEYS,
    spec::{FlowState, Reason},
};
use clap::{builder::PossibleValuesParser, value_parser, Arg, ArgAction, Command};

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

fn value(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn statuses() -> String {
    let lines = STATUSES.iter().map(|(status, what)| format!("  {status}  {what}"));
    format!("Exit status:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

fn connection() -> Arg {
    Arg::new("connection")
        .value_name("CONNECTION")
        .required(true)
        .num_args(1..)
        .help("One or both of its ends (192.0.2.1, 192.0.2.1:443, [2001:db8::1]:443, :443), a protocol, or a line of 'conntrack -L'")
}

pub fn command() -> Command {
    Command::new("nft-offload")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Shows what nftables flowtables have in hardware, and why not the rest")
        .long_about(
            "Shows what nftables flowtables have in hardware, and why not the rest.\n\n\
             All but doctor and why is asked of the kernel module nft_offload, about the network namespace that the program \
             runs in ('ip netns exec NAME nft-offload …'), and needs CAP_NET_ADMIN there.\n\n\
             With --json, what is printed has the names of the module's netlink family, as \
             Documentation/netlink/specs/nft_offload.yaml describes them: what was not measured is absent, never 0; times are \
             in milliseconds, those of 'latency' in nanoseconds; devices are given by index.",
        )
        .after_help(statuses())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .arg(flag("json", "Prints JSON").global(true))
        .subcommand(Command::new("status").about("One screen: devices, flowtables, how many connections are in hardware, why not the rest"))
        .subcommand(
            Command::new("flows")
                .about("The connections in flowtables, one a line: where each direction is, since when, and why not in hardware")
                .arg(value("device", "NAME", "Packets of either direction come in by this device").short('d'))
                .arg(
                    value("state", "STATE", "Either direction is in this state")
                        .short('s')
                        .value_parser(PossibleValuesParser::new(FlowState::NAMES)),
                )
                .arg(
                    value("reason", "REASON", "Either direction is not in hardware for this reason")
                        .short('r')
                        .value_parser(PossibleValuesParser::new(Reason::NAMES))
                        .hide_possible_values(true),
                )
                .arg(value("address", "ADDRESS[/LENGTH]", "Any address of the connection is this one, or in this prefix").short('a'))
                .arg(value("port", "PORT", "Any port of the connection").short('p').value_parser(value_parser!(u16)))
                .arg(value("protocol", "PROTOCOL", "tcp, udp, gre, or a number").short('P'))
                .arg(
                    value("sort", "KEY", "Largest first: by what hardware has forwarded, by time, by how often it was offered")
                        .value_parser(PossibleValuesParser::new(SORT_KEYS)),
                )
                .arg(flag("reverse", "Smallest first").requires("sort"))
                .arg(value("limit", "N", "No more than so many").short('n').value_parser(value_parser!(usize)))
                .arg(flag("json-lines", "Prints a JSON object a line, each as it comes, however many there are").conflicts_with("json")),
        )
        .subcommand(Command::new("devices").about("The devices that take rules: how bound, how many rules, how long the driver takes, its errors"))
        .subcommand(Command::new("tables").about("The flowtables and their devices"))
        .subcommand(
            Command::new("reasons")
                .about("Why connections are not in hardware, by number; with a reason's name, what to change")
                .arg(
                    Arg::new("reason")
                        .value_name("REASON")
                        .help("Explains this one; needs no module")
                        .value_parser(PossibleValuesParser::new(Reason::NAMES))
                        .hide_possible_values(true),
                )
                .arg(flag("all", "Explains all").conflicts_with("reason")),
        )
        .subcommand(
            Command::new("doctor")
                .about("Is this machine able to have connections in hardware, and what is in the way? Needs no module")
                .arg(flag("quiet", "Says nothing of what is right").short('q')),
        )
        .subcommand(
            Command::new("why")
                .about("What there is to say of a connection, per direction, and what to change")
                .long_about(
                    "What there is to say of a connection, per direction, and what to change.\n\nOf one without an entry in a \
                     flowtable it says what conntrack, the devices and the ruleset have against it, as far as that can be \
                     known; it changes nothing.",
                )
                .arg(connection()),
        )
        .subcommand(
            Command::new("audit")
                .about("Does hardware what the host would do? Compares the module's flows with the host and with hardware's own table")
                .long_about(
                    "Does hardware what the host would do? In three levels:\n\n\
                     host: what the module follows, against routes, neighbours and conntrack, as they are now;\n\
                     driver: rules that drivers have failed to remove, entries that should have rules and have none;\n\
                     table: translations, MAC addresses and VLANs in the hardware's own table, where the driver shows it in \
                     debugfs (mtk_eth_soc, airoha), and what is there that no flowtable of any network namespace has put there.\n\n\
                     What is found is looked for a second time, as connections come and go meanwhile, and told of if it is still so.",
                ),
        )
        .subcommand(
            Command::new("evict")
                .about("Tears a connection's entry down: the next packets are the host's, which may make a new one")
                .arg(flag("all", "All that are meant, if they are several"))
                .arg(connection()),
        )
        .subcommand(
            Command::new("pin")
                .about("Keeps a connection in software, where tcpdump and the ruleset see all of its packets")
                .arg(
                    value("for", "SECONDS", "For how long")
                        .default_value("300")
                        .value_parser(value_parser!(u32).range(1..=32767)),
                )
                .arg(flag("all", "All that are meant, if they are several"))
                .arg(connection()),
        )
        .subcommand(
            Command::new("unpin")
                .about("Lets a connection get into hardware again that was pinned")
                .arg(flag("all", "All that are meant, if they are several"))
                .arg(connection()),
        )
        .subcommand(
            Command::new("capture")
                .about("Runs a command, such as tcpdump, and keeps a connection in software as long as that runs")
                .long_about(
                    "Runs a command, such as tcpdump, and keeps a connection in software as long as that runs, however it \
                     ends:\n\n  nft-offload capture 192.0.2.1:443 -- tcpdump -ni eth0 port 443\n\n\
                     Exits with the command's status, or 128 and the signal's number.",
                )
                .arg(flag("all", "All that are meant, if they are several"))
                .arg(connection())
                .arg(
                    Arg::new("command")
                        .value_name("COMMAND")
                        .required(true)
                        .num_args(1..)
                        .last(true)
                        .help("What to run, with its arguments"),
                ),
        )
        .subcommand(
            Command::new("flush")
                .about("Takes all rules out of a device; connections that go on sending come back")
                .arg(Arg::new("device").value_name("DEVICE").required(true).help("Its name")),
        )
        .subcommand(
            Command::new("metrics")
                .about("OpenMetrics text for Prometheus")
                .arg(value("output", "FILE", "Into a file, which is replaced at once, as node_exporter wants it").short('o')),
        )
        .subcommand(
            Command::new("report")
                .about("One text for support: versions, doctor, status, ruleset, devices, routes, the kernel log")
                .arg(flag("mask", "Addresses are replaced by numbers, the same one by the same number"))
                .arg(value("output", "FILE", "Into a file").short('o')),
        )
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_sound() {
        super::command().debug_assert();
    }
}

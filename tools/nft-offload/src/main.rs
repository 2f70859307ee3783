// SPDX-License-Identifier: GPL-2.0

use nft_offload::{
    audit, change, cli, doctor,
    failure::{Failure, USAGE},
    flows, metrics,
    output::{wants_color, Output},
    report, why,
};
use std::{
    io::{self, BufWriter, Write},
    process::ExitCode,
};

fn main() -> ExitCode {
    let arguments = match cli::command().try_get_matches() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let mut stdout = BufWriter::new(io::stdout().lock());
    let mut out = Output { to: &mut stdout, json: arguments.get_flag("json"), color: wants_color() };
    let ended = run(&arguments, &mut out).and_then(|status| {
        out.to.flush()?;
        Ok(status)
    });
    match ended {
        Ok(status) => ExitCode::from(status),
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            // What was said so far comes before it.
            let _ = stdout.flush();
            eprintln!("nft-offload: {failure}");
            ExitCode::from(failure.status)
        }
    }
}

fn run(arguments: &clap::ArgMatches, out: &mut Output) -> Result<u8, Failure> {
    match arguments.subcommand() {
        Some(("status", _)) => flows::status(out),
        Some(("flows", arguments)) => flows::flows(arguments, out),
        Some(("devices", _)) => flows::devices(out),
        Some(("tables", _)) => flows::tables(out),
        Some(("reasons", arguments)) => flows::reasons(arguments, out),
        Some(("doctor", arguments)) => doctor::doctor(arguments.get_flag("quiet"), out),
        Some(("why", arguments)) => why::why(&words(arguments, "connection"), out),
        Some(("audit", _)) => audit::audit(out),
        Some(("evict", arguments)) => change::evict(&words(arguments, "connection"), arguments.get_flag("all"), out),
        Some(("pin", arguments)) => {
            let seconds = *arguments.get_one("for").unwrap_or(&300);
            change::pin(&words(arguments, "connection"), arguments.get_flag("all"), seconds, out)
        }
        Some(("unpin", arguments)) => change::unpin(&words(arguments, "connection"), arguments.get_flag("all"), out),
        Some(("capture", arguments)) => {
            change::capture(&words(arguments, "connection"), arguments.get_flag("all"), &words(arguments, "command"))
        }
        Some(("flush", arguments)) => change::flush(&words(arguments, "device")[0], out),
        Some(("metrics", arguments)) => metrics::metrics(arguments.get_one("output"), out),
        Some(("report", arguments)) => report::report(arguments.get_flag("mask"), arguments.get_one("output"), out),
        _ => unreachable!("clap knows the commands"),
    }
}

fn words(arguments: &clap::ArgMatches, name: &str) -> Vec<String> {
    arguments.get_many(name).into_iter().flatten().cloned().collect()
}

// SPDX-License-Identifier: GPL-2.0

//! generate files DIR | reasons: man pages and completions into DIR; the list of reasons for the operator's guide.

use clap_complete::Shell;
use nft_offload::{cli, reasons};
use std::{env, fs, io, path::Path};

fn main() -> io::Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["files", dir] => {
            let (man, completions) = (Path::new(dir).join("man"), Path::new(dir).join("completions"));
            fs::create_dir_all(&man)?;
            fs::create_dir_all(&completions)?;
            clap_mangen::generate_to(cli::command(), man)?;
            for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
                clap_complete::generate_to(shell, &mut cli::command(), "nft-offload", &completions)?;
            }
            Ok(())
        }
        ["reasons"] => {
            print!("{}", reasons::document());
            Ok(())
        }
        _ => panic!("usage: generate files DIR | reasons"),
    }
}

// SPDX-License-Identifier: GPL-2.0

//! How it ends: exit status, and one line that says what to do.

use crate::netlink;
use std::{fmt, io};

/// The exit statuses, as the man page has them.
pub const STATUSES: &[(u8, &str)] = &[
    (0, "done; nothing is wrong"),
    (1, "doctor: something could be better; status: something that should be zero is not; audit: something is not as it should be; flows, why: the answer may lack what has changed meanwhile"),
    (2, "the command line is wrong"),
    (3, "doctor: something keeps connections out of hardware, or makes counters wrong"),
    (4, "the module nft_offload is not loaded, or too old to be asked"),
    (5, "not permitted"),
    (6, "there is no such connection, flow or device"),
    (7, "anything else has failed"),
];

pub const COULD_BE_BETTER: u8 = 1;
pub const USAGE: u8 = 2;
pub const STANDS_IN_THE_WAY: u8 = 3;
pub const NO_MODULE: u8 = 4;
pub const NOT_PERMITTED: u8 = 5;
pub const NOT_FOUND: u8 = 6;
pub const FAILED: u8 = 7;

const EPERM: i32 = 1;
const ENOENT: i32 = 2;

#[derive(Debug)]
pub struct Failure {
    pub status: u8,
    pub text: String,
}

impl Failure {
    pub fn new(status: u8, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// Who reads our output does not want more of it: that is no failure.
    pub fn is_broken_pipe(&self) -> bool {
        self.status == 0
    }

    /// An answer of the kernel to a request `about` something.
    pub fn about(about: &str, error: &netlink::Error) -> Self {
        match error {
            netlink::Error::Consumer(error) => Self::output(error),
            _ if error.errno() == Some(EPERM) => Self::new(
                NOT_PERMITTED,
                format!("{about}: {error}: this needs CAP_NET_ADMIN in the network namespace: run it as root"),
            ),
            _ if error.errno() == Some(ENOENT) => Self::new(NOT_FOUND, format!("{about}: {error}")),
            _ => Self::new(FAILED, format!("{about}: {error}")),
        }
    }

    /// Writing has failed.
    pub fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(0, ""),
            _ => Self::new(FAILED, format!("the output cannot be written: {error}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::output(&error)
    }
}

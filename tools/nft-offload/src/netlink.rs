// SPDX-License-Identifier: GPL-2.0

//! Requests to the kernel by netlink, and its answers, message by message.

use netlink_packet_core::{
    DoneBuffer, Emitable, ErrorBuffer, NetlinkBuffer, NetlinkHeader, NlaBuffer, NlasIterator, NLA_F_NESTED,
    NLA_HEADER_SIZE, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP,
    NLM_F_DUMP_INTR, NLM_F_REQUEST,
};
use std::{fmt, io};

/// recv(2) tells how long a datagram was that did not fit.
const MSG_TRUNC: i32 = 0x20;

pub use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE};

#[derive(Debug)]
pub enum Error {
    /// The kernel's answer: an errno, and its words if it had any.
    Kernel { errno: i32, words: Option<String> },
    /// Sending or receiving has failed.
    Socket(io::Error),
    /// A message is not as it has to be.
    Malformed(String),
    /// What is done with the answers has failed.
    Consumer(io::Error),
}

impl Error {
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            Self::Socket(error) => error.raw_os_error(),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel { errno, words } => {
                write!(f, "{}", io::Error::from_raw_os_error(*errno))?;
                words.as_ref().map_or(Ok(()), |words| write!(f, ": {words}"))
            }
            Self::Socket(error) | Self::Consumer(error) => error.fmt(f),
            Self::Malformed(what) => write!(f, "the kernel's message is malformed: {what}"),
        }
    }
}

impl From<netlink_packet_core::DecodeError> for Error {
    fn from(error: netlink_packet_core::DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Attributes in the making.
#[derive(Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// After what a protocol has before its attributes.
    pub fn after(header: &[u8]) -> Self {
        Self(header.to_vec())
    }

    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let length = NLA_HEADER_SIZE + value.len();
        let length = u16::try_from(length).expect("an attribute of less than 64 KiB");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    pub fn put_str(&mut self, kind: u16, value: &str) {
        self.put(kind, &[value.as_bytes(), &[0]].concat());
    }

    pub fn put_nest(&mut self, kind: u16, value: &Self) {
        self.put(kind | NLA_F_NESTED, &value.0);
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The attributes in `bytes`, by their number without flags.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Error>> {
    NlasIterator::new(bytes).map(|attribute| {
        let attribute: NlaBuffer<&[u8]> = attribute?;
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        Ok((kind, &attribute.into_inner()[NLA_HEADER_SIZE..length]))
    })
}

/// One attribute of `bytes`; nothing if there is none, or they are malformed before it.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).map_while(Result::ok).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// What is worth knowing of an answer when all of it has come.
#[derive(Default, Debug, PartialEq)]
pub struct Outcome {
    /// Things have changed during a dump: it may lack something, or have it twice.
    pub interrupted: bool,
}

pub struct Socket {
    socket: netlink_sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    pub fn open(protocol: isize) -> Result<Self, Error> {
        let mut socket = netlink_sys::Socket::new(protocol).map_err(Error::Socket)?;
        socket.bind_auto().map_err(Error::Socket)?;
        socket.set_ext_ack(true).map_err(Error::Socket)?;
        socket.set_cap_ack(true).map_err(Error::Socket)?;
        // For rtnetlink and generic families: what is not understood is refused.
        socket.set_netlink_get_strict_chk(true).map_err(Error::Socket)?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(1 << 18) })
    }

    /// One answer or several, and an acknowledgement.
    pub fn ask(
        &mut self,
        kind: u16,
        payload: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.transact(kind, NLM_F_ACK, payload, &mut each).map(|_| ())
    }

    /// All objects that there are.
    pub fn dump(
        &mut self,
        kind: u16,
        payload: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<Outcome, Error> {
        self.transact(kind, NLM_F_DUMP, payload, &mut each)
    }

    fn transact(
        &mut self,
        kind: u16,
        flags: u16,
        payload: &[u8],
        each: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<Outcome, Error> {
        self.sequence += 1;
        self.socket.send(&request(kind, flags, self.sequence, payload), 0).map_err(Error::Socket)?;
        let mut outcome = Outcome::default();
        loop {
            self.buffer.clear();
            let length = self.socket.recv(&mut self.buffer, MSG_TRUNC).map_err(Error::Socket)?;
            if length > self.buffer.len() {
                return Err(Error::Malformed(format!("{length} bytes at once")));
            }
            if take(&self.buffer, self.sequence, &mut outcome, each)? {
                return Ok(outcome);
            }
        }
    }
}

/// Goes through the messages of one datagram that answer `sequence`; returns whether the answer has ended.
fn take(
    mut bytes: &[u8],
    sequence: u32,
    outcome: &mut Outcome,
    each: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<bool, Error> {
    while !bytes.is_empty() {
        let message = NetlinkBuffer::new_checked(bytes)?;
        let length = message.length() as usize;
        let payload = &bytes[NetlinkHeader::default().buffer_len()..length];
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        if message.sequence_number() != sequence {
            continue;
        }
        outcome.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
        match message.message_type() {
            NLMSG_NOOP => {}
            NLMSG_ERROR => {
                let error = ErrorBuffer::new_checked(payload)?;
                let code = error.code().map_or(0, |code| code.get());
                return answer(code, words(message.flags(), behind_request(message.flags(), error.payload())))
                    .map(|()| true);
            }
            NLMSG_DONE if payload.is_empty() => return Ok(true),
            NLMSG_DONE => {
                let done = DoneBuffer::new_checked(payload)?;
                return answer(done.code(), words(message.flags(), Some(done.extended_ack()))).map(|()| true);
            }
            _ => each(payload)?,
        }
    }
    Ok(false)
}

fn answer(code: i32, words: Option<String>) -> Result<(), Error> {
    match code {
        0.. => Ok(()),
        errno => Err(Error::Kernel { errno: -errno, words }),
    }
}

/// What the kernel says beside the errno.
fn words(flags: u16, attributes: Option<&[u8]>) -> Option<String> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let text = attribute(attributes?, NLMSGERR_ATTR_MSG)?;
    Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_string())
}

/// What comes behind the request that an error begins with: the header of that, and all of it if it is not capped.
fn behind_request(flags: u16, bytes: &[u8]) -> Option<&[u8]> {
    let length = match flags & NLM_F_CAPPED {
        0 => NetlinkBuffer::new_checked(bytes).ok()?.length() as usize,
        _ => NetlinkHeader::default().buffer_len(),
    };
    bytes.get(length.next_multiple_of(4)..)
}

fn request(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    let mut bytes = vec![0; header.buffer_len()];
    header.length = (bytes.len() + payload.len()) as u32;
    header.message_type = kind;
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    header.emit(&mut bytes);
    bytes.extend(payload);
    bytes
}

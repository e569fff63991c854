//! What a peer made of a case, in words that can be compared.

use core::fmt::Write;

use vhost_tests::dialog::Received;
use vhost_tests::wire::REPLY;

use crate::case::Said;

/// How a connection stood after the last message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The next request was answered.
    GoesOn,
    /// It was not: the peer had closed the connection.
    Closed,
    /// The peer's process had ended.
    Died,
    /// The peer said nothing and did not close either.
    Silent,
}

/// What a peer made of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What the device was told, or that something was refused.
    pub(crate) told: Vec<String>,
    /// The replies, each in words.
    pub(crate) replies: Vec<String>,
    pub(crate) end: End,
    /// Replies whose flags were those of the request and not the 5 that they should be.
    pub(crate) echoes: usize,
}

impl Outcome {
    /// One line: what the device was told, the replies, the end.
    pub(crate) fn line(&self) -> String {
        let mut parts = Vec::new();
        if !self.told.is_empty() {
            parts.push(format!("[{}]", self.told.join("; ")));
        }
        parts.extend(self.replies.iter().cloned());
        parts.push(
            match self.end {
                End::GoesOn => "goes on",
                End::Closed => "closes",
                End::Died => "dies",
                End::Silent => "is silent",
            }
            .to_owned(),
        );
        parts.join(", ")
    }
}

/// Whether what a reply tells of the device is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// The devices are the same.
    Compared,
    /// They are not: their features, their slots and their configuration space differ.
    OfTheDevice,
}

/// Whether the flags of a reply are those of its request, with the one that says that it is a reply.
pub(crate) fn is_echo(request: Option<&Said>, reply: &Received) -> bool {
    let flags = reply.header().flags;
    flags != REPLY && request.is_some_and(|request| flags == request.flags | REPLY)
}

/// A reply in words: 8 bytes as a number, else their size and the bytes up to the last that is not zero.
pub(crate) fn words(request: Option<&Said>, reply: &Received, contents: Contents) -> String {
    let mut payload = reply.payload().to_vec();
    match (reply.id(), contents) {
        // The last four bytes of an inflight record's description are padding, in which rust-vmm sends what was in its memory.
        (31, _) => payload.iter_mut().skip(20).for_each(|byte| *byte = 0),
        (1 | 15 | 36, Contents::OfTheDevice) => payload.fill(0),
        (24, Contents::OfTheDevice) => payload.iter_mut().skip(12).for_each(|byte| *byte = 0),
        _ => {}
    }
    let mut text = match <[u8; 8]>::try_from(&payload[..]) {
        Ok(number) => format!("answers {:#x}", u64::from_ne_bytes(number)),
        Err(_) => {
            let shown = payload.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let mut text = format!("answers {} bytes", payload.len());
            for (at, byte) in payload[..shown].iter().enumerate() {
                // Writing to a string does not fail.
                let _ = write!(text, "{}{byte:02x}", if at == 0 { ": " } else { "" });
            }
            text
        }
    };
    if reply.header().flags != REPLY && !is_echo(request, reply) {
        let _ = write!(text, " with flags {:#x}", reply.header().flags);
    }
    if request.is_none_or(|request| request.id != reply.id()) {
        let _ = write!(text, " as {}", reply.id());
    }
    if !reply.descriptors.is_empty() {
        let _ = write!(text, " + {} fd", reply.descriptors.len());
    }
    text
}

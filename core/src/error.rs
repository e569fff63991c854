//! The three kinds of fault: the bytes, the peer, the caller.

use core::fmt;

use crate::{
    memory_map::RegionExtent,
    rules::Violation,
    wire::{
        payload::PayloadFault,
        row::{Channel, HandleCount, MessageName},
    },
};

/// The bytes or the descriptors do not make a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DecodeError {
    /// The header has a version other than 1.
    Version {
        /// The message.
        message: MessageName,
        /// The version, 0 to 3.
        found: u32,
    },
    /// The header of a GPU message has other flags than such a message has.
    Flags {
        /// The message.
        message: MessageName,
        /// The flags it should have.
        expected: u32,
        /// The flags that came.
        found: u32,
    },
    /// The header announces more payload than the receiver takes.
    PayloadTooLarge {
        /// The message.
        message: MessageName,
        /// Bytes announced.
        found: u32,
        /// Bytes allowed.
        limit: usize,
    },
    /// Descriptors came after the first byte of a message.
    HandlesAfterStart {
        /// The channel.
        channel: Channel,
    },
    /// More descriptors came than any message has.
    TooManyHandles {
        /// The channel.
        channel: Channel,
        /// The most there can be.
        limit: usize,
    },
    /// A reply came where a request was expected.
    ReplyInsteadOfRequest {
        /// The message.
        message: MessageName,
    },
    /// A request came where a reply was expected.
    RequestInsteadOfReply {
        /// The message.
        message: MessageName,
    },
    /// Nobody knows this request.
    UnknownRequest {
        /// The message.
        message: MessageName,
    },
    /// Too few or too many descriptors.
    HandleCount {
        /// The message.
        message: MessageName,
        /// How many the message takes.
        expected: HandleCount,
        /// How many came.
        found: usize,
    },
    /// The payload is wrong.
    Payload {
        /// The message.
        message: MessageName,
        /// What is wrong with it.
        fault: PayloadFault,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { message, found } => write!(f, "{message}: expected protocol version 1, found {found}"),
            Self::Flags { message, expected, found } => {
                write!(f, "{message}: expected the flags {expected:#x}, found {found:#x}")
            }
            Self::PayloadTooLarge { message, found, limit } => {
                write!(f, "{message}: expected at most {limit} payload bytes, found {found} announced")
            }
            Self::HandlesAfterStart { channel } => {
                write!(f, "descriptors came after the first byte of a message on the {channel:?} channel")
            }
            Self::TooManyHandles { channel, limit } => {
                write!(f, "more than {limit} descriptors came with a message on the {channel:?} channel")
            }
            Self::ReplyInsteadOfRequest { message } => write!(f, "{message}: expected a request, found the reply flag"),
            Self::RequestInsteadOfReply { message } => write!(f, "{message}: expected a reply, found no reply flag"),
            Self::UnknownRequest { message } => write!(f, "{message} is unknown"),
            Self::HandleCount { message, expected, found } => {
                write!(f, "{message}: expected {expected} descriptors, found {found}")
            }
            Self::Payload { message, fault } => write!(f, "{message}: {fault}"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// The peer sent a well-formed message that it should not have sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// A request breaks a rule of the session.
    Violation {
        /// The request.
        message: MessageName,
        /// The rule.
        violation: Violation,
    },
    /// A reply came although nothing was asked.
    UnsolicitedReply {
        /// The reply.
        message: MessageName,
    },
    /// A reply came to something else than what was asked first.
    WrongReply {
        /// What was asked.
        expected: MessageName,
        /// What came.
        found: MessageName,
    },
    /// A reply has another number of memory regions than the request.
    WrongRegionCount {
        /// The message.
        message: MessageName,
        /// How many regions were shared.
        expected: usize,
        /// How many the reply has.
        found: usize,
    },
    /// A reply during postcopy speaks of another memory region than the request.
    WrongRegion {
        /// The message.
        message: MessageName,
        /// The region that was shared.
        expected: RegionExtent,
        /// The one in its place, with an address of the back-end's.
        found: RegionExtent,
    },
    /// A reply speaks of another ring than the request.
    WrongRing {
        /// The message.
        message: MessageName,
        /// The ring asked for.
        expected: u32,
        /// The ring in the reply.
        found: u32,
    },
}

impl fmt::Display for PeerMisbehaved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation { message, violation } => write!(f, "{message}: {violation}"),
            Self::UnsolicitedReply { message } => write!(f, "{message}: a reply came, but nothing was asked"),
            Self::WrongRing { message, expected, found } => {
                write!(f, "{message}: expected a reply about ring {expected}, found one about {found}")
            }
            Self::WrongRegionCount { message, expected, found } => {
                write!(f, "{message}: expected a reply with {expected} memory regions, found {found}")
            }
            Self::WrongRegion { message, expected, found } => {
                write!(f, "{message}: expected a reply about {expected}, found one about {found}")
            }
            Self::WrongReply { expected, found } => write!(f, "expected the reply to {expected}, found one to {found}"),
        }
    }
}

impl core::error::Error for PeerMisbehaved {}

/// The caller used a machine in a way that makes no sense. The machine is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ApiMisuse {
    /// A request breaks a rule of the session.
    Violation {
        /// The request.
        message: MessageName,
        /// The rule.
        violation: Violation,
    },
    /// The request or the answer takes another number of descriptors.
    HandleCount {
        /// The message.
        message: MessageName,
        /// How many it takes.
        expected: HandleCount,
        /// How many were given.
        found: usize,
    },
    /// The message does not fit into the caller's buffer, or into any message.
    BufferTooSmall {
        /// The message.
        message: MessageName,
        /// The size of the buffer in bytes.
        given: usize,
    },
    /// As many requests are outstanding as the machine can remember.
    TooManyOutstanding {
        /// How many that is.
        limit: usize,
    },
    /// Memory is outstanding and must be answered first: another table, or everything that was
    /// shared during postcopy before its addresses are acknowledged.
    MemoryOutstanding,
    /// An image is not sent yet; nothing may go before it.
    ImageOutstanding {
        /// Bytes left of it.
        left: u32,
    },
    /// More of an image was sent than there is.
    ImageTooLong {
        /// Bytes left of it.
        left: u32,
        /// Bytes sent.
        found: usize,
    },
    /// There is no request to answer.
    NothingToAnswer,
    /// A request is not answered yet; requests are answered in order.
    AnswerOutstanding {
        /// The request.
        message: MessageName,
    },
    /// The answer belongs to another request.
    AnswerDoesNotFit {
        /// The request that is to be answered.
        expected: MessageName,
        /// The request that this would answer; `None` for a mere success or refusal where
        /// a reply with content is due.
        found: Option<MessageName>,
    },
    /// The answer does not match the request.
    AnswerDiffers {
        /// The request.
        message: MessageName,
        /// Where they differ.
        field: &'static str,
        /// What the request says.
        expected: u64,
        /// What the answer says.
        found: u64,
    },
    /// The session failed or was closed before.
    SessionFailed,
}

impl ApiMisuse {
    /// A request that must not be made now.
    #[cold]
    #[inline(never)]
    pub(crate) fn violation(message: MessageName, violation: &Violation) -> Self {
        Self::Violation { message, violation: *violation }
    }
}

impl fmt::Display for ApiMisuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation { message, violation } => write!(f, "{message} must not be sent: {violation}"),
            Self::HandleCount { message, expected, found } => {
                write!(f, "{message} takes {expected} descriptors, not {found}")
            }
            Self::BufferTooSmall { message, given } => {
                write!(f, "{message} does not fit into a buffer of {given} bytes")
            }
            Self::TooManyOutstanding { limit } => write!(f, "{limit} requests are outstanding, which is the limit"),
            Self::MemoryOutstanding => f.write_str("memory is outstanding that must be answered first"),
            Self::ImageOutstanding { left } => write!(f, "{left} bytes of an image must be sent first"),
            Self::ImageTooLong { left, found } => {
                write!(f, "expected at most {left} bytes of an image to be sent, found {found}")
            }
            Self::NothingToAnswer => f.write_str("there is no request to answer"),
            Self::AnswerOutstanding { message } => write!(f, "{message} must be answered first"),
            Self::AnswerDoesNotFit { expected, found: Some(found) } => {
                write!(f, "expected an answer to {expected}, found one to {found}")
            }
            Self::AnswerDoesNotFit { expected, found: None } => write!(f, "{expected} needs a reply with content"),
            Self::AnswerDiffers { message, field, expected, found } => {
                write!(f, "{message}: expected an answer with {field} {expected}, found {found}")
            }
            Self::SessionFailed => f.write_str("the session has failed"),
        }
    }
}

impl core::error::Error for ApiMisuse {}

/// Any of the three faults, where more than one can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The bytes.
    Bytes(DecodeError),
    /// The peer.
    Peer(PeerMisbehaved),
    /// The caller.
    Caller(ApiMisuse),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(error) => error.fmt(f),
            Self::Peer(error) => error.fmt(f),
            Self::Caller(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Fault {}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Self::Bytes(error)
    }
}

impl From<PeerMisbehaved> for Fault {
    fn from(error: PeerMisbehaved) -> Self {
        Self::Peer(error)
    }
}

impl From<ApiMisuse> for Fault {
    fn from(error: ApiMisuse) -> Self {
        Self::Caller(error)
    }
}

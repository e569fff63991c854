//! Bytes: why they do not make a message, before it is known which one it was to be.

use super::{
    payload::{PayloadFault, PayloadKind, SizeRule},
    row::{HandleCount, MessageName},
};
use crate::error::DecodeError;

/// Why a part of a message could not be made of its bytes and descriptors.
#[derive(Debug)]
pub(crate) enum Misfit {
    /// The payload has none of the sizes that its kind can have.
    Size,
    /// The payload has not this size, in bytes, which follows from the session or from the payload itself.
    Exactly(usize),
    /// The payload is wrong in some other way.
    Payload(PayloadFault),
    /// The one descriptor is missing.
    Handle,
    /// There is no such message.
    Unknown,
}

impl From<PayloadFault> for Misfit {
    fn from(fault: PayloadFault) -> Self {
        Self::Payload(fault)
    }
}

impl Misfit {
    /// The same as an error of `message`, whose payload is of this kind and has `found` bytes.
    #[cold]
    pub(crate) fn of(self, message: MessageName, kind: PayloadKind, found: usize) -> DecodeError {
        let fault = match self {
            Self::Size => PayloadFault::Size { expected: kind.size(), found },
            Self::Exactly(size) => PayloadFault::Size { expected: SizeRule::Exactly(size), found },
            Self::Payload(fault) => fault,
            Self::Handle => {
                let expected = HandleCount { least: 1, most: 1 };
                return DecodeError::HandleCount { message, expected, found: 0 };
            }
            Self::Unknown => return DecodeError::UnknownRequest { message },
        };
        DecodeError::Payload { message, fault }
    }
}

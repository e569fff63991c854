//! What can go wrong on a socket.

use core::fmt;

use super::MAX_HANDLES;
use crate::system_error::SystemError;

/// A send or a receive that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocketError {
    /// A system call failed.
    System(SystemError),
    /// The deadline passed before anything was moved. The call may be repeated.
    TimedOut,
    /// The deadline passed in the middle of a message. Nothing more can be sent.
    TimedOutPartWay {
        /// Bytes that were sent, with all descriptors.
        sent: usize,
        /// Bytes that the message has.
        length: usize,
    },
    /// An earlier message was sent in part only, so nothing more can be sent.
    SendingBroken,
    /// Bytes were lost by an earlier call, so nothing more can be received.
    ReceivingBroken,
    /// The peer sent more than [`MAX_HANDLES`] descriptors at once. All of them were closed, the
    /// bytes are lost and nothing more can be received.
    TooManyReceived {
        /// Descriptors that were counted. The kernel may have discarded more.
        received: usize,
    },
    /// Some of the descriptors that were sent did not arrive, most often because this process has
    /// as many open files as it may. The others were closed, the bytes are lost and nothing more
    /// can be received.
    HandlesLost {
        /// Descriptors that arrived.
        received: usize,
    },
    /// The caller gave more than [`MAX_HANDLES`] descriptors to send. Nothing was sent.
    TooManyGiven {
        /// Descriptors that were given.
        given: usize,
    },
    /// The caller gave no bytes to send, but a stream carries descriptors only with a byte.
    NothingToSend,
    /// The caller gave no room to receive to, where no data would look like the end of the stream.
    NoRoom,
}

impl fmt::Display for SocketError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => error.fmt(formatter),
            Self::TimedOut => formatter.write_str("the deadline passed"),
            Self::TimedOutPartWay { sent, length } => {
                write!(formatter, "the deadline passed when {sent} of {length} bytes of a message were sent")
            }
            Self::SendingBroken => formatter.write_str("an earlier message was sent only in part: cannot send more"),
            Self::ReceivingBroken => formatter.write_str("an earlier message was lost: cannot receive more"),
            Self::TooManyReceived { received } => {
                write!(formatter, "at least {received} descriptors came at once, at most {MAX_HANDLES} may")
            }
            Self::HandlesLost { received } => write!(
                formatter,
                "only {received} of the descriptors that were sent arrived \
                 (is the limit of open files reached?)"
            ),
            Self::TooManyGiven { given } => {
                write!(formatter, "{given} descriptors were given to send, at most {MAX_HANDLES} may be")
            }
            Self::NothingToSend => formatter.write_str("no bytes were given to send"),
            Self::NoRoom => formatter.write_str("an empty buffer was given to receive to"),
        }
    }
}

impl core::error::Error for SocketError {}

impl From<SystemError> for SocketError {
    fn from(error: SystemError) -> Self {
        Self::System(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_hold_the_numbers() {
        let text = SocketError::TooManyReceived { received: 9 }.to_string();
        assert!(text.contains('9') && text.contains('8'), "{text}");
        let part_way = SocketError::TimedOutPartWay { sent: 5, length: 12 };
        assert!(part_way.to_string().contains("5 of 12"));
    }
}

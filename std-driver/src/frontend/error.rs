//! What can go wrong with a front-end's call.

use core::{fmt, num::NonZeroU64};

use vhost_core::{ApiMisuse, DecodeError, Fault, MessageName, PeerMisbehaved};

use crate::{endpoint::EndpointError, socket::SocketError, system_error::SystemError};

/// A call of the front-end that failed.
///
/// After [`Misuse`](Self::Misuse), [`Refused`](Self::Refused), [`TooManyRegions`](Self::TooManyRegions) and
/// [`System`](Self::System) the session goes on. After anything else it is over, and every later call fails with
/// [`Ended`](Self::Ended): see [`ends_session`](Self::ends_session).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrontendError {
    /// The request makes no sense now. Nothing was sent.
    Misuse(ApiMisuse),
    /// The memory has more regions than the back-end has room for. Nothing was sent.
    TooManyRegions {
        /// Regions there are.
        found: usize,
        /// Regions the back-end takes: its slots, or eight without slots.
        limit: usize,
    },
    /// A descriptor for the call could not be made, or its socket not be looked at. Nothing was sent.
    System(SystemError),
    /// The back-end refused the request.
    Refused {
        /// The request.
        request: MessageName,
        /// What it answered; back-ends do not agree on what the number means.
        number: NonZeroU64,
    },
    /// The back-end sent something that it should not have sent.
    Peer {
        /// The request that waited for its answer; `None` if nothing waited.
        waiting_for: Option<MessageName>,
        /// What came.
        fault: PeerMisbehaved,
    },
    /// The back-end sent bytes or descriptors that are no answer.
    Bytes {
        /// The request that waited for its answer; `None` if nothing waited.
        waiting_for: Option<MessageName>,
        /// What came.
        fault: DecodeError,
    },
    /// The socket failed.
    Socket {
        /// The request that was sent or waited for its answer; `None` if nothing was under way.
        waiting_for: Option<MessageName>,
        /// How.
        error: SocketError,
    },
    /// The back-end closed the connection.
    Closed(Closed),
    /// The time for the call was over. The answer may still come, so nothing else can be asked on this connection.
    TimedOut {
        /// The request that waited for its answer.
        waiting_for: MessageName,
    },
    /// An earlier call ended the session.
    Ended {
        /// The request of that call; `None` if nothing was under way.
        during: Option<MessageName>,
        /// How it ended.
        end: SessionEnd,
    },
}

/// Where the back-end stood when it closed the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// The request that was sent or waited for its answer; `None` if nothing was under way.
    pub waiting_for: Option<MessageName>,
    /// The last request before that one. It seemed to succeed, but it is the likely culprit: where no acknowledgement
    /// was asked for, closing is the only way to refuse it, and libvhost-user even acknowledges first what makes it close.
    pub previous: Option<MessageName>,
    /// Whether a part of an answer had come.
    pub within_message: bool,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEnd {
    /// The back-end misbehaved.
    Peer,
    /// The bytes made no answer.
    Bytes,
    /// The socket failed.
    Socket,
    /// The back-end closed the connection.
    Closed,
    /// An answer came too late, or not at all.
    TimedOut,
}

impl FrontendError {
    /// How the session ended by this error, if it did.
    #[must_use]
    pub fn ends_session(&self) -> Option<SessionEnd> {
        match self {
            Self::Peer { .. } => Some(SessionEnd::Peer),
            Self::Bytes { .. } => Some(SessionEnd::Bytes),
            Self::Socket { .. } => Some(SessionEnd::Socket),
            Self::Closed(_) => Some(SessionEnd::Closed),
            Self::TimedOut { .. } => Some(SessionEnd::TimedOut),
            Self::Ended { end, .. } => Some(*end),
            Self::Misuse(_) | Self::TooManyRegions { .. } | Self::System(_) | Self::Refused { .. } => None,
        }
    }

    /// The request that the failed call was about, if there was one.
    #[must_use]
    pub fn request(&self) -> Option<MessageName> {
        match self {
            Self::Refused { request, .. } => Some(*request),
            Self::Peer { waiting_for, .. } | Self::Bytes { waiting_for, .. } | Self::Socket { waiting_for, .. } => {
                *waiting_for
            }
            Self::Closed(closed) => closed.waiting_for,
            Self::TimedOut { waiting_for } => Some(*waiting_for),
            Self::Ended { during, .. } => *during,
            Self::Misuse(_) | Self::TooManyRegions { .. } | Self::System(_) => None,
        }
    }

    // Out of line, so that no call that goes well is made slower by what it would be otherwise.
    #[cold]
    #[inline(never)]
    pub(super) fn of_fault(waiting_for: Option<MessageName>, fault: Fault) -> Self {
        match fault {
            Fault::Bytes(fault) => Self::Bytes { waiting_for, fault },
            Fault::Peer(fault) => Self::Peer { waiting_for, fault },
            Fault::Caller(misuse) => Self::Misuse(misuse),
        }
    }

    /// `previous` is the last request that seemed to succeed.
    #[cold]
    #[inline(never)]
    pub(super) fn of_endpoint(
        waiting_for: Option<MessageName>,
        previous: Option<MessageName>,
        error: EndpointError,
    ) -> Self {
        match error {
            EndpointError::Bytes(fault) => Self::Bytes { waiting_for, fault },
            EndpointError::Truncated => Self::Closed(Closed { waiting_for, previous, within_message: true }),
            EndpointError::Socket(error) => Self::of_socket(waiting_for, previous, error),
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn of_socket(
        waiting_for: Option<MessageName>,
        previous: Option<MessageName>,
        error: SocketError,
    ) -> Self {
        use rustix::io::Errno;
        match (error, waiting_for) {
            (SocketError::System(SystemError { errno: Errno::PIPE | Errno::CONNRESET, .. }), _) => {
                Self::Closed(Closed { waiting_for, previous, within_message: false })
            }
            (SocketError::TimedOut, Some(waiting_for)) => Self::TimedOut { waiting_for },
            _ => Self::Socket { waiting_for, error },
        }
    }
}

/// A request by name, or the time between requests.
struct During(Option<MessageName>);

impl fmt::Display for During {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(message) => write!(f, "during {message}"),
            None => f.write_str("while nothing was asked"),
        }
    }
}

impl fmt::Display for FrontendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misuse(misuse) => misuse.fmt(f),
            Self::TooManyRegions { found, limit } => {
                write!(f, "{found} memory regions, but the back-end takes at most {limit}")
            }
            Self::System(error) => error.fmt(f),
            Self::Refused { request, number } => write!(f, "the back-end refused {request} with {:#x}", number.get()),
            Self::Peer { waiting_for, fault } => {
                write!(f, "the back-end misbehaved {}: {fault}", During(*waiting_for))
            }
            Self::Bytes { waiting_for, fault } => write!(f, "no valid answer came {}: {fault}", During(*waiting_for)),
            Self::Socket { waiting_for, error } => write!(f, "the socket failed {}: {error}", During(*waiting_for)),
            Self::Closed(closed) => closed.fmt(f),
            Self::TimedOut { waiting_for } => write!(f, "{waiting_for} was not answered in time"),
            Self::Ended { during, end } => write!(f, "the session ended earlier, {}: {end}", During(*during)),
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.within_message { " in the middle of a message" } else { "" };
        write!(f, "the back-end closed the connection{place} {}", During(self.waiting_for))?;
        match self.previous {
            Some(previous) => write!(f, ", perhaps because of {previous} before"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peer => "the back-end misbehaved",
            Self::Bytes => "the bytes made no answer",
            Self::Socket => "the socket failed",
            Self::Closed => "the back-end closed the connection",
            Self::TimedOut => "an answer did not come in time",
        })
    }
}

impl core::error::Error for FrontendError {}

impl From<ApiMisuse> for FrontendError {
    fn from(misuse: ApiMisuse) -> Self {
        Self::Misuse(misuse)
    }
}

impl From<SystemError> for FrontendError {
    fn from(error: SystemError) -> Self {
        Self::System(error)
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;
    use vhost_core::FrontendCode;

    use super::*;

    const ASKED: Option<MessageName> = Some(FrontendCode::SET_VRING_ADDR.message());
    const BEFORE: Option<MessageName> = Some(FrontendCode::SET_MEM_TABLE.message());

    fn system(call: &'static str, errno: Errno) -> SocketError {
        SocketError::System(SystemError { call, errno })
    }

    #[test]
    fn a_peer_that_is_gone_is_told_apart_from_a_socket_that_fails() {
        for errno in [Errno::PIPE, Errno::CONNRESET] {
            let error = FrontendError::of_socket(ASKED, BEFORE, system("send", errno));
            assert_eq!(error.ends_session(), Some(SessionEnd::Closed));
            let text = error.to_string();
            assert!(text.contains("SET_VRING_ADDR (9)") && text.contains("SET_MEM_TABLE (5)"), "{text}");
        }
        let error = FrontendError::of_socket(ASKED, BEFORE, system("recvmsg", Errno::NOTSOCK));
        assert_eq!(error.ends_session(), Some(SessionEnd::Socket));
        assert!(error.to_string().contains("recvmsg"), "{error}");
    }

    #[test]
    fn only_what_leaves_both_sides_in_step_lets_the_session_go_on() {
        let request = FrontendCode::SET_OWNER.message();
        let refused = FrontendError::Refused { request, number: NonZeroU64::MIN };
        assert_eq!(refused.ends_session(), None);
        assert_eq!(FrontendError::Misuse(ApiMisuse::NothingToAnswer).ends_session(), None);
        let late = FrontendError::of_socket(ASKED, None, SocketError::TimedOut);
        assert_eq!(late, FrontendError::TimedOut { waiting_for: FrontendCode::SET_VRING_ADDR.message() });
        assert_eq!(late.ends_session(), Some(SessionEnd::TimedOut));
    }
}

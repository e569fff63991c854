//! What cannot be a network device.

use core::fmt;

use crate::system_error::SystemError;

/// A network device that cannot be made so.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetError {
    /// A system call failed, for example `open` of `/dev/net/tun` with `EACCES`, or `TUNSETIFF` with `EINVAL` for an
    /// interface that exists with another number of queues.
    System(SystemError),
    /// No pair of queues, or too many.
    Pairs {
        /// How many were wanted.
        found: usize,
        /// The most there can be.
        most: usize,
    },
    /// No interface can have this name.
    Name {
        /// The name; 1 to 15 bytes are possible.
        found: String,
    },
    /// The descriptor is no datagram socket.
    NotADatagramSocket,
    /// No network has packets that small.
    Mtu {
        /// The MTU that was wanted.
        found: u16,
        /// The least that is possible.
        least: u16,
    },
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => error.fmt(f),
            Self::Pairs { found, most } => write!(f, "expected 1 to {most} pairs of queues, found {found}"),
            Self::Name { found } => write!(f, "expected the name of an interface, 1 to 15 bytes, found {found:?}"),
            Self::NotADatagramSocket => f.write_str("expected a datagram socket, found something else"),
            Self::Mtu { found, least } => write!(f, "expected an MTU of {least} or more, found {found}"),
        }
    }
}

impl core::error::Error for NetError {}

impl From<SystemError> for NetError {
    fn from(error: SystemError) -> Self {
        Self::System(error)
    }
}

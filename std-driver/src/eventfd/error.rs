//! Why a descriptor cannot serve as an event counter.

use core::fmt;

use crate::system_error::SystemError;

/// A descriptor that was not taken for an eventfd. It has been closed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventFdError {
    /// It is something else.
    WrongKind {
        /// What it is, as the kernel calls it: `pipe:[1234]`, a path, `anon_inode:[eventpoll]`.
        found: String,
    },
    /// A system call failed.
    System(SystemError),
}

impl fmt::Display for EventFdError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongKind { found } => write!(formatter, "expected an eventfd, got {found}"),
            Self::System(error) => error.fmt(formatter),
        }
    }
}

impl core::error::Error for EventFdError {}

impl From<SystemError> for EventFdError {
    fn from(error: SystemError) -> Self {
        Self::System(error)
    }
}

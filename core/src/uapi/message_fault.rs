//! What can be wrong with a message of the kernel's interfaces.

use core::fmt;

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MessageFault {
    /// There are too few bytes.
    TooShort {
        /// Bytes that a message has at least.
        expected: usize,
        /// Bytes that came.
        found: usize,
    },
    /// A field has a value that it cannot have.
    Field {
        /// The field.
        name: &'static str,
        /// What was expected.
        expected: &'static str,
        /// What came.
        found: u64,
    },
}

impl fmt::Display for MessageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { expected, found } => {
                write!(f, "a message of the kernel has {expected} bytes or more, {found} came")
            }
            Self::Field { name, expected, found } => write!(f, "{name} must be {expected}, {found} came"),
        }
    }
}

impl core::error::Error for MessageFault {}

//! What can be wrong with an inflight record.

use core::fmt;

use crate::memory::MemoryError;

/// An inflight record that cannot be made or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InflightError {
    /// Nobody has so many rings, or rings of that size.
    Shape {
        /// Rings to cover, 1 or more.
        queues: u16,
        /// Descriptors of each, 1 to 32768.
        queue_size: u16,
    },
    /// The record has fewer bytes than its rings need.
    TooSmall {
        /// Bytes that they need.
        needed: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// The record does not begin at a multiple of eight bytes.
    Misaligned {
        /// Where it begins in its file.
        offset: u64,
    },
    /// The file cannot be made or mapped.
    Memory(MemoryError),
}

impl fmt::Display for InflightError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape { queues, queue_size } => {
                write!(f, "an inflight record of {queues} rings of {queue_size}, expected some of 1 to 32768")
            }
            Self::TooSmall { needed, found } => {
                write!(f, "an inflight record of {found} bytes, its rings need {needed}")
            }
            Self::Misaligned { offset } => {
                write!(f, "an inflight record at offset {offset}, expected a multiple of 8")
            }
            Self::Memory(error) => write!(f, "the inflight record: {error}"),
        }
    }
}

impl core::error::Error for InflightError {}

impl From<MemoryError> for InflightError {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

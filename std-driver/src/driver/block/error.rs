//! What can go wrong with a disk.

use core::fmt;

use crate::{driver::DriverError, frontend::FrontendError, memory::MemoryError, system_error::SystemError};

/// A client of a disk that cannot go on, or a request that it cannot make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockClientError {
    /// The connection.
    Frontend(FrontendError),
    /// A ring.
    Ring(DriverError),
    /// The memory to be shared.
    Memory(MemoryError),
    /// A system call.
    System(SystemError),
    /// The back-end does not give its configuration space, or only a part of it.
    NoConfig {
        /// Bytes that came.
        found: usize,
    },
    /// There are fewer queues than wanted.
    TooFewQueues {
        /// Queues wanted, at least one.
        wanted: u16,
        /// Queues there are.
        found: u64,
    },
    /// A back-end that takes over does not offer what was agreed on with the one before.
    OtherDevice,
    /// There is no such queue.
    NoSuchQueue {
        /// The queue asked for.
        found: usize,
    },
    /// All slots of the queue are taken: completions must be taken first.
    Busy,
    /// The request has more data than a slot.
    TooMuchData {
        /// Bytes of the request.
        found: usize,
        /// Bytes of a slot.
        limit: u32,
    },
    /// The disk did not do a request in time.
    TimedOut,
}

impl fmt::Display for BlockClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frontend(error) => error.fmt(f),
            Self::Ring(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
            Self::System(error) => error.fmt(f),
            Self::NoConfig { found } => {
                let size = super::limits::CONFIG_SIZE;
                write!(f, "expected {size} bytes of configuration space, found {found}")
            }
            Self::TooFewQueues { wanted, found } => write!(f, "{wanted} queues were wanted, the disk has {found}"),
            Self::OtherDevice => f.write_str("the disk does not offer the features that were agreed on before"),
            Self::NoSuchQueue { found } => write!(f, "there is no queue {found}"),
            Self::Busy => f.write_str("all slots of the queue are taken"),
            Self::TooMuchData { found, limit } => write!(f, "a request takes at most {limit} bytes, not {found}"),
            Self::TimedOut => f.write_str("the disk did not do a request in time"),
        }
    }
}

impl core::error::Error for BlockClientError {}

macro_rules! from {
    ($($error:ty => $variant:ident),*) => {$(
        impl From<$error> for BlockClientError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }
    )*};
}

from! { FrontendError => Frontend, DriverError => Ring, MemoryError => Memory, SystemError => System }

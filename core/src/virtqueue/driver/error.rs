//! What can be wrong when a driver adds a chain, or gets one back.

use core::fmt;

use crate::virtqueue::fault::RingFault;

/// Why a chain was not added. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddError {
    /// Not enough descriptors are free. There are more when the device gives some back.
    Full {
        /// Descriptors the chain needs.
        needed: u16,
        /// Descriptors that are free.
        free: u16,
    },
    /// A chain needs one buffer at least, and each one byte at least.
    Empty,
    /// More descriptors than a chain on this ring may have.
    TooManyDescriptors {
        /// Descriptors of the chain; of more than 16 bits count the largest number.
        count: u16,
        /// The most there may be.
        limit: u16,
    },
    /// More than 2^32 - 1 bytes in all.
    TooLong,
    /// Indirect tables were not negotiated.
    IndirectNotNegotiated,
    /// The indirect table is too small for the chain.
    TableTooSmall {
        /// Descriptors of the chain.
        needed: u16,
        /// Descriptors that the table has room for.
        found: u16,
    },
    /// The ring cannot be written any more.
    Ring(RingFault),
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { needed, free } => write!(f, "{needed} descriptors needed, {free} free"),
            Self::Empty => f.write_str("a chain without bytes, or with a buffer without"),
            Self::TooManyDescriptors { count, limit } => write!(f, "chain of {count} descriptors, at most {limit}"),
            Self::TooLong => f.write_str("chain of more than 2^32 - 1 bytes"),
            Self::IndirectNotNegotiated => f.write_str("indirect tables were not negotiated"),
            Self::TableTooSmall { needed, found } => {
                write!(f, "indirect table of {found} descriptors, expected {needed}")
            }
            Self::Ring(fault) => write!(f, "{fault}"),
        }
    }
}

const _: () = assert!(size_of::<AddError>() == 8);

impl core::error::Error for AddError {}

impl From<RingFault> for AddError {
    fn from(fault: RingFault) -> Self {
        Self::Ring(fault)
    }
}

/// The device broke the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DriverFault {
    /// Split: the device's index tells of more chains than are out.
    UsedAhead {
        /// The device's index.
        used: u16,
        /// The driver's index.
        next: u16,
        /// Chains that are out.
        outstanding: u16,
    },
    /// A used entry names no chain that is out.
    UnknownToken {
        /// The entry: in a split ring its free-running index, in a packed one its slot.
        position: u16,
        /// What it names.
        token: u32,
    },
    /// On an in-order ring, a used entry stands for more chains than the index tells of.
    UnfinishedBatch {
        /// The last chain of the batch.
        token: u16,
    },
    /// The ring cannot be used any more.
    Ring(RingFault),
}

impl fmt::Display for DriverFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UsedAhead { used, next, outstanding } => {
                write!(f, "used index {used} is more than {outstanding} ahead of {next}")
            }
            Self::UnknownToken { position, token } => write!(f, "used entry {position} names chain {token}"),
            Self::UnfinishedBatch { token } => write!(f, "the used index ends before chain {token} of its batch"),
            Self::Ring(fault) => write!(f, "{fault}"),
        }
    }
}

impl core::error::Error for DriverFault {}

impl From<RingFault> for DriverFault {
    fn from(fault: RingFault) -> Self {
        Self::Ring(fault)
    }
}

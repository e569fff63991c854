//! What can go wrong with a ring on the driver's side.

use core::fmt;

use vhost_core::GuestAddress;

/// A ring that cannot be made or used so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DriverError {
    /// The ring has a size that a split ring cannot have.
    RingSize {
        /// Descriptors; a power of two from 1 to 32768 is possible.
        found: u16,
    },
    /// A range ends behind the area, or wraps around.
    OutsideArea {
        /// Where it begins in the area.
        offset: u64,
        /// Its length in bytes.
        length: u64,
        /// Bytes of the area.
        available: u64,
    },
    /// The ring does not begin where it must.
    Misaligned {
        /// Where it begins; a multiple of 16 is possible.
        address: GuestAddress,
    },
    /// A chain of no buffer.
    EmptyChain,
    /// There is no room for the chain now.
    Full {
        /// Descriptors it needs.
        needed: usize,
        /// Descriptors that are free.
        free: usize,
    },
    /// There is no room for the chain ever.
    ChainTooLong {
        /// Buffers it has.
        found: usize,
        /// Buffers it can have.
        limit: usize,
    },
    /// A ring cannot be rebuilt before all used buffers are taken from it.
    UsedNotTaken,
    /// The device broke the ring. It is of no use until it is reset.
    Device(DeviceFault),
}

/// What a device did that it must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceFault {
    /// It says that it used more chains than it was given.
    UsedTooMany {
        /// Chains that it says to have used since the last look.
        found: u16,
        /// Chains that it had.
        given: u16,
    },
    /// It says that it used a chain that it was not given.
    UnknownChain {
        /// The chain's first descriptor.
        found: u32,
    },
    /// It says that it wrote more than there was room for.
    WroteTooMuch {
        /// Bytes that it says to have written.
        found: u32,
        /// Bytes there was room for.
        room: u64,
    },
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RingSize { found } => write!(f, "expected a ring of 1 to 32768, a power of two, found {found}"),
            Self::OutsideArea { offset, length, available } => {
                write!(f, "{length:#x} bytes at {offset:#x} exceed an area of {available:#x} bytes")
            }
            Self::Misaligned { address } => write!(f, "expected a ring at a multiple of 16, found {address}"),
            Self::EmptyChain => f.write_str("a chain needs at least one buffer"),
            Self::Full { needed, free } => write!(f, "the ring has {free} free descriptors, the chain needs {needed}"),
            Self::ChainTooLong { found, limit } => write!(f, "a chain has at most {limit} buffers, not {found}"),
            Self::UsedNotTaken => f.write_str("used buffers must be taken from the ring before it is rebuilt"),
            Self::Device(fault) => write!(f, "the device broke the ring: {fault}"),
        }
    }
}

impl fmt::Display for DeviceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UsedTooMany { found, given } => write!(f, "it used {found} chains, but was given {given}"),
            Self::UnknownChain { found } => write!(f, "it used chain {found}, which it was not given"),
            Self::WroteTooMuch { found, room } => write!(f, "it wrote {found} bytes where there was room for {room}"),
        }
    }
}

impl core::error::Error for DriverError {}

impl From<DeviceFault> for DriverError {
    fn from(fault: DeviceFault) -> Self {
        Self::Device(fault)
    }
}

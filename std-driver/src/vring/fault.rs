//! What a driver can do wrong: in one chain, which costs that chain, or in the ring itself, which stops the ring.

use core::fmt;

use crate::system_error::SystemError;

/// A descriptor chain is malformed. It went back to the driver with length 0, and the ring goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainFault {
    /// Index of the ring.
    pub ring: u16,
    /// First descriptor of the chain, as the available ring names it.
    pub head: u16,
    /// What is wrong.
    pub kind: ChainFaultKind,
}

/// What is wrong with a descriptor chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChainFaultKind {
    /// The head is no descriptor of this ring, so that the chain cannot even go back to the driver.
    HeadBeyondRing {
        /// Descriptors of the ring.
        size: u16,
    },
    /// A `next` field points behind the descriptor table.
    NextBeyondTable {
        /// The field.
        next: u16,
        /// Descriptors of the table.
        size: u16,
    },
    /// More descriptors than a chain may have: it loops, or is longer than anything honest.
    TooManyDescriptors {
        /// The most there may be.
        limit: u16,
    },
    /// A descriptor of no bytes.
    Empty {
        /// Where it points.
        address: u64,
    },
    /// A buffer that does not lie within guest memory as a whole.
    OutsideMemory {
        /// Where it begins.
        address: u64,
        /// Its bytes.
        length: u32,
    },
    /// A readable descriptor behind a writable one.
    ReadableAfterWritable {
        /// Where the readable one points.
        address: u64,
    },
    /// An indirect table whose length is zero or not a multiple of 16.
    IndirectTableLength {
        /// The length.
        length: u32,
    },
    /// A descriptor table that does not lie within guest memory.
    TableOutsideMemory {
        /// Where the unreadable descriptor should be.
        address: u64,
    },
    /// An indirect descriptor in an indirect table.
    NestedIndirect,
    /// An indirect descriptor that has a `next`.
    IndirectWithNext,
    /// More than 2^32 - 1 bytes in all.
    TooLong,
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ring {}, chain {}: ", self.ring, self.head)?;
        match self.kind {
            ChainFaultKind::HeadBeyondRing { size } => {
                write!(f, "head beyond the {size} descriptors of the ring")
            }
            ChainFaultKind::NextBeyondTable { next, size } => {
                write!(f, "next descriptor {next} beyond a table of {size}")
            }
            ChainFaultKind::TooManyDescriptors { limit } => {
                write!(f, "more than {limit} descriptors, so the chain loops")
            }
            ChainFaultKind::Empty { address } => {
                write!(f, "descriptor of no bytes at {address:#x}")
            }
            ChainFaultKind::OutsideMemory { address, length } => {
                write!(f, "buffer of {length} bytes at {address:#x} is outside guest memory")
            }
            ChainFaultKind::ReadableAfterWritable { address } => {
                write!(f, "readable descriptor at {address:#x} behind a writable one")
            }
            ChainFaultKind::IndirectTableLength { length } => {
                write!(f, "indirect table of {length} bytes, expected a positive multiple of 16")
            }
            ChainFaultKind::TableOutsideMemory { address } => {
                write!(f, "descriptor at {address:#x} is outside guest memory")
            }
            ChainFaultKind::NestedIndirect => f.write_str("indirect descriptor in an indirect table"),
            ChainFaultKind::IndirectWithNext => f.write_str("indirect descriptor with a next descriptor"),
            ChainFaultKind::TooLong => f.write_str("more than 2^32 - 1 bytes"),
        }
    }
}

impl core::error::Error for ChainFault {}

/// The ring itself cannot be used. It is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingFault {
    /// The ring was started before it had a size and addresses.
    NotConfigured,
    /// One of its three parts is misaligned.
    Misaligned {
        /// Which part.
        part: RingPart,
        /// Where it should begin.
        address: u64,
    },
    /// One of its three parts is not in guest memory as a whole.
    OutsideMemory {
        /// Which part.
        part: RingPart,
        /// Where it begins.
        address: u64,
        /// Its bytes.
        length: u64,
    },
    /// The driver claims to have made more chains available than the ring holds.
    AvailableAhead {
        /// The driver's index.
        available: u16,
        /// The device's index: the next chain to take.
        next: u16,
        /// Entries of the ring.
        size: u16,
    },
    /// The ring's memory, checked at the start, cannot be accessed any more.
    Access,
}

/// One of the three parts of a split ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingPart {
    /// The descriptor table.
    Descriptor,
    /// The available ring.
    Available,
    /// The used ring.
    Used,
}

impl fmt::Display for RingPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Descriptor => "descriptor table",
            Self::Available => "available ring",
            Self::Used => "used ring",
        })
    }
}

impl fmt::Display for RingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConfigured => f.write_str("ring started without a size and addresses"),
            Self::Misaligned { part, address } => write!(f, "{part} at {address:#x} is misaligned"),
            Self::OutsideMemory { part, address, length } => {
                write!(f, "{part} of {length} bytes at {address:#x} is outside guest memory")
            }
            Self::AvailableAhead { available, next, size } => {
                write!(f, "available index {available} is more than {size} ahead of {next}")
            }
            Self::Access => f.write_str("ring memory cannot be accessed"),
        }
    }
}

impl core::error::Error for RingFault {}

/// The caller asked for what the ring cannot do now. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingMisuse {
    /// The size is not a power of two from 1 to 32768.
    Size(u32),
    /// The ring is running; this can only be set while it is stopped.
    Running,
}

impl fmt::Display for RingMisuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "ring size {size}, expected a power of two from 1 to 32768"),
            Self::Running => f.write_str("the ring is running and has to be stopped first"),
        }
    }
}

impl core::error::Error for RingMisuse {}

/// What went wrong on a ring since it exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFaults {
    /// Malformed chains.
    pub chains: u64,
    /// The last malformed chain.
    pub last_chain: Option<ChainFault>,
    /// Chains that the device took and did not complete.
    pub abandoned: u64,
    /// The fault that stopped the ring last.
    pub last_ring: Option<RingFault>,
    /// The last failure to signal the driver.
    pub last_call: Option<SystemError>,
}

impl RingFaults {
    pub(super) fn record(&mut self, fault: ChainFault) {
        self.chains = self.chains.saturating_add(1);
        self.last_chain = Some(fault);
    }
}

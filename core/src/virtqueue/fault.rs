//! What can be wrong: with one chain, which costs that chain, or with the ring itself, which ends it.

use core::fmt;

use super::{chain::Chain, layout::RingLayout};
use crate::{
    dirty_log::LogFault,
    guest_memory::{Miss, Unmapped},
    inflight::InflightFault,
    wire::vring::VringBase,
};

/// A part of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RingPart {
    /// Split: the descriptor table.
    DescriptorTable,
    /// Split: the available ring, written by the driver.
    AvailableRing,
    /// Split: the used ring, written by the device.
    UsedRing,
    /// Packed: the descriptors.
    DescriptorRing,
    /// Packed: what the driver wants to be notified of.
    DriverEvent,
    /// Packed: what the device wants to be notified of.
    DeviceEvent,
    /// A table of descriptors outside the ring.
    IndirectTable,
}

impl RingPart {
    /// What the virtio specification calls it.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::DescriptorTable => "descriptor table",
            Self::AvailableRing => "available ring",
            Self::UsedRing => "used ring",
            Self::DescriptorRing => "descriptor ring",
            Self::DriverEvent => "driver event suppression area",
            Self::DeviceEvent => "device event suppression area",
            Self::IndirectTable => "indirect table",
        }
    }
}

impl fmt::Display for RingPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The ring itself cannot be used, or not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RingFault {
    /// No ring of this layout has this size.
    Size {
        /// The layout.
        layout: RingLayout,
        /// The size.
        size: u32,
    },
    /// The ring is larger than its user has room for.
    Capacity {
        /// Descriptors of the ring.
        size: u16,
        /// Descriptors there is room for.
        capacity: usize,
    },
    /// A part begins at an address where it may not.
    Misaligned {
        /// The part.
        part: RingPart,
        /// Where it begins.
        address: u64,
        /// What the address should be a multiple of.
        alignment: u64,
    },
    /// A part is not in memory, or not in one piece.
    Unmapped {
        /// The part.
        part: RingPart,
        /// Where it begins.
        address: u64,
        /// Its bytes.
        length: u64,
        /// Why not.
        cause: Unmapped,
    },
    /// Memory that was translated cannot be accessed.
    Access {
        /// The part.
        part: RingPart,
        /// The first byte of the access, from the start of the part.
        offset: usize,
    },
    /// The base is of the other layout, or is no place in this ring.
    Base {
        /// The layout of the ring.
        layout: RingLayout,
        /// Its descriptors.
        size: u16,
        /// The base.
        base: VringBase,
    },
    /// Split: the driver's index is more than a ring ahead of the device's.
    AvailableAhead {
        /// The driver's index.
        available: u16,
        /// The device's index.
        next: u16,
        /// Entries of the ring.
        size: u16,
    },
    /// Split: an entry of the available ring names no descriptor.
    HeadBeyondTable {
        /// The entry, by its free-running index.
        position: u16,
        /// What it names.
        head: u16,
        /// Descriptors of the table.
        size: u16,
    },
    /// Packed: a chain has no end.
    EndlessChain {
        /// The descriptor where it begins.
        index: u16,
        /// Descriptors of the ring.
        size: u16,
    },
    /// The driver made descriptors available again that it has not got back.
    Overcommitted {
        /// Descriptors that the device holds: chains in a split ring.
        held: u16,
        /// Descriptors of the ring.
        size: u16,
    },
    /// The inflight record cannot be used.
    Inflight(InflightFault),
    /// The write could not be logged.
    Log(LogFault),
}

impl fmt::Display for RingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { layout, size } => {
                let kind = if *layout == RingLayout::Split { "a power of two" } else { "a number" };
                write!(f, "size {size} of a {layout} ring, expected {kind} from 1 to 32768")
            }
            Self::Capacity { size, capacity } => write!(f, "ring of {size} descriptors, room for {capacity}"),
            Self::Misaligned { part, address, alignment } => {
                write!(f, "{part} at {address:#x}, expected a multiple of {alignment}")
            }
            Self::Unmapped { part, address, length, cause } => {
                write!(f, "{part} of {length} bytes at {address:#x}: {cause}")
            }
            Self::Access { part, offset } => write!(f, "{part} cannot be accessed at its byte {offset}"),
            Self::Base { layout, size, base } => write!(f, "{base:?} is no base of a {layout} ring of {size}"),
            Self::AvailableAhead { available, next, size } => {
                write!(f, "available index {available} is more than {size} ahead of {next}")
            }
            Self::HeadBeyondTable { position, head, size } => {
                write!(f, "available entry {position} names descriptor {head} of a table of {size}")
            }
            Self::EndlessChain { index, size } => {
                write!(f, "the chain at descriptor {index} has no end within a ring of {size}")
            }
            Self::Overcommitted { held, size } => {
                write!(f, "more made available while the device holds {held} of {size}")
            }
            Self::Inflight(fault) => write!(f, "{fault}"),
            Self::Log(fault) => write!(f, "{fault}"),
        }
    }
}

impl core::error::Error for RingFault {}

impl From<InflightFault> for RingFault {
    fn from(fault: InflightFault) -> Self {
        Self::Inflight(fault)
    }
}

impl From<LogFault> for RingFault {
    fn from(fault: LogFault) -> Self {
        Self::Log(fault)
    }
}

/// A descriptor makes its chain unusable. The ring goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChainFault {
    /// Where the descriptor is: the table or ring, or an indirect table.
    pub part: RingPart,
    /// Its index there.
    pub index: u16,
    /// What is wrong with it.
    pub kind: ChainFaultKind,
}

/// What is wrong with a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChainFaultKind {
    /// Its `next` is no descriptor of the table.
    NextBeyondTable {
        /// The field.
        next: u16,
        /// Descriptors of the table.
        size: u16,
    },
    /// It is one more than a chain may have: the chain loops, or is longer than anything honest.
    TooManyDescriptors {
        /// The most there may be.
        limit: u16,
    },
    /// It has no byte.
    Empty {
        /// Where it points.
        address: u64,
    },
    /// Its buffer is not in memory as a whole.
    Unmapped {
        /// Where the buffer begins.
        address: u64,
        /// Its bytes.
        length: u32,
    },
    /// It is readable and stands behind a writable one.
    ReadableAfterWritable {
        /// Where it points.
        address: u64,
    },
    /// The bytes of all descriptors of the chain are more than 32 bits count.
    TooLong,
    /// The chain has more pieces than the caller has room for.
    TooManyPieces,
    /// It points to an indirect table, and these were not negotiated.
    IndirectNotNegotiated,
    /// It points to an indirect table and stands in one.
    NestedIndirect,
    /// It points to an indirect table and goes on.
    IndirectWithNext,
    /// Its indirect table is empty or ends within a descriptor.
    IndirectLength {
        /// Bytes of the table.
        length: u32,
    },
    /// Its indirect table is not in memory, or not in one piece.
    IndirectUnmapped {
        /// Where the table begins.
        address: u64,
        /// Its bytes.
        length: u32,
    },
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, index, kind } = self;
        write!(f, "descriptor {index} of the {part} ")?;
        match kind {
            ChainFaultKind::NextBeyondTable { next, size } => {
                write!(f, "goes on at descriptor {next} of a table of {size}")
            }
            ChainFaultKind::TooManyDescriptors { limit } => {
                write!(f, "is in a chain of more than {limit} descriptors")
            }
            ChainFaultKind::Empty { address } => write!(f, "has no byte at {address:#x}"),
            ChainFaultKind::Unmapped { address, length } => {
                write!(f, "has {length} bytes at {address:#x}, outside guest memory")
            }
            ChainFaultKind::ReadableAfterWritable { address } => {
                write!(f, "is readable at {address:#x} behind a writable one")
            }
            ChainFaultKind::TooLong => f.write_str("makes the chain longer than 2^32 - 1 bytes"),
            ChainFaultKind::TooManyPieces => f.write_str("is one piece more than there is room for"),
            ChainFaultKind::IndirectNotNegotiated => f.write_str("is indirect, which was not negotiated"),
            ChainFaultKind::NestedIndirect => f.write_str("is indirect in an indirect table"),
            ChainFaultKind::IndirectWithNext => f.write_str("is indirect and goes on"),
            ChainFaultKind::IndirectLength { length } => {
                write!(f, "has an indirect table of {length} bytes, expected a positive multiple of 16")
            }
            ChainFaultKind::IndirectUnmapped { address, length } => {
                write!(f, "has an indirect table of {length} bytes at {address:#x}, outside guest memory")
            }
        }
    }
}

impl core::error::Error for ChainFault {}

/// Why no chain could be taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PopError {
    /// A chain was taken and is malformed. Give it back with length 0; the ring goes on.
    Malformed {
        /// The chain, without readable and writable bytes.
        chain: Chain,
        /// What is wrong with it.
        fault: ChainFault,
    },
    /// The IOTLB has no translation for a buffer. Nothing was taken: ask for it, and try again.
    Miss(Miss),
    /// The ring cannot be used any more.
    Ring(RingFault),
}

impl fmt::Display for PopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { chain, fault } => write!(f, "chain {}: {fault}", chain.id()),
            Self::Miss(miss) => write!(f, "{}", Unmapped::Miss(*miss)),
            Self::Ring(fault) => write!(f, "{fault}"),
        }
    }
}

impl core::error::Error for PopError {}

impl From<RingFault> for PopError {
    fn from(fault: RingFault) -> Self {
        Self::Ring(fault)
    }
}

/// Why a chain could not be given back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PushError {
    /// Buffers are used in order, and another chain was taken before this one. Nothing changed.
    NotInOrder {
        /// The chain, to be given back later.
        chain: Chain,
    },
    /// No chain is out: this one is from another ring, or from before a reset. Nothing changed.
    NotTaken {
        /// The chain.
        chain: Chain,
    },
    /// The ring cannot be used any more.
    Ring(RingFault),
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInOrder { chain } => write!(f, "chain {} is not the oldest of an in-order ring", chain.id()),
            Self::NotTaken { chain } => write!(f, "chain {} was not taken from this ring", chain.id()),
            Self::Ring(fault) => write!(f, "{fault}"),
        }
    }
}

impl core::error::Error for PushError {}

impl From<RingFault> for PushError {
    fn from(fault: RingFault) -> Self {
        Self::Ring(fault)
    }
}

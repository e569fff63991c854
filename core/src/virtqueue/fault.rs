//! What can be wrong: with one chain, which costs that chain, or with the ring itself, which ends it.

use core::fmt;

use super::{chain::Chain, layout::RingLayout};
use crate::{
    guest_memory::{Miss, Unmapped},
    inflight::size_for,
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
    /// The inflight record, outside the ring.
    InflightRecord,
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
            Self::InflightRecord => "inflight record",
        }
    }
}

impl fmt::Display for RingPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The ring itself cannot be used, or not any more.
///
/// It fits into one register, because every access to a ring can fail with it.
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
        capacity: u32,
    },
    /// Memory that was translated cannot be accessed.
    Access {
        /// The part.
        part: RingPart,
        /// The first byte of the access, from the start of the part.
        offset: u32,
    },
    /// The base is of the other layout, or is no place in this ring.
    Base {
        /// The layout of the ring.
        layout: RingLayout,
        /// Its descriptors.
        size: u16,
        /// The base, as the number of `SET_VRING_BASE`.
        base: u32,
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
    /// The inflight record is too small for the ring.
    InflightTooShort {
        /// The layout of the ring.
        layout: RingLayout,
        /// Descriptors of the ring.
        size: u16,
        /// Bytes of the record.
        found: u32,
    },
    /// The inflight record's version is neither 0 nor 1.
    InflightVersion {
        /// The version.
        found: u16,
    },
    /// The inflight record has fewer entries than the ring has descriptors, or more than there is room for.
    InflightSize {
        /// Descriptors of the ring.
        expected: u16,
        /// Entries of the record.
        found: u16,
    },
    /// The last batch of the inflight record has more chains than the ring.
    InflightBatch {
        /// Its chains.
        count: u16,
        /// Descriptors of the ring.
        size: u16,
    },
    /// A field of the inflight record that should hold the number of an entry holds something else.
    InflightLink {
        /// Where the field is, in bytes from the start of the record.
        offset: u32,
        /// What it holds.
        found: u16,
    },
    /// A field of the inflight record that should hold a place in the ring holds something else.
    InflightPlace {
        /// Where the field is, in bytes from the start of the record.
        offset: u32,
        /// What it holds.
        found: u16,
    },
    /// A chain is in flight that begins at a descriptor that a split ring does not have.
    InflightEntry {
        /// The descriptor.
        found: u16,
        /// Descriptors of the ring.
        size: u16,
    },
    /// The chains in flight have more descriptors than the ring.
    InflightTooManyDescriptors {
        /// Descriptors of the ring.
        size: u16,
    },
    /// There are more chains in flight than the caller has room for.
    InflightNoRoom {
        /// Chains there is room for.
        room: u16,
    },
    /// The ring has no inflight record.
    NoInflight,
    /// The write could not be logged: the dirty log has no bit for its page.
    Log {
        /// The part.
        part: RingPart,
        /// The first byte of the write, from the start of the part.
        offset: u32,
    },
}

const _: () = assert!(size_of::<RingFault>() == 8);

impl fmt::Display for RingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { layout, size } => {
                let kind = if *layout == RingLayout::Split { "a power of two" } else { "a number" };
                write!(f, "size {size} of a {layout} ring, expected {kind} from 1 to 32768")
            }
            Self::Capacity { size, capacity } => write!(f, "ring of {size} descriptors, room for {capacity}"),
            Self::Access { part, offset } => write!(f, "{part} cannot be accessed at its byte {offset}"),
            Self::Base { layout, size, base } => write!(f, "{base:#x} is no base of a {layout} ring of {size}"),
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
            Self::InflightTooShort { layout, size, found } => {
                write!(f, "inflight record of {found} bytes, expected {}", size_for(*layout, *size))
            }
            Self::InflightVersion { found } => write!(f, "inflight record of version {found}, expected 0 or 1"),
            Self::InflightSize { expected, found } => {
                write!(f, "inflight record of {found} entries, expected {expected} or as many more as it has room for")
            }
            Self::InflightBatch { count, size } => {
                write!(f, "inflight record with a last batch of {count} chains on a ring of {size}")
            }
            Self::InflightLink { offset, found } => {
                write!(f, "inflight record names entry {found} at byte {offset}, behind its last one")
            }
            Self::InflightPlace { offset, found } => {
                write!(f, "inflight record holds place {found} at byte {offset}, behind the end of the ring")
            }
            Self::InflightEntry { found, size } => write!(f, "chain {found} in flight on a ring of {size}"),
            Self::InflightTooManyDescriptors { size } => {
                write!(f, "more descriptors in flight than the {size} of the ring")
            }
            Self::InflightNoRoom { room } => write!(f, "more than {room} chains in flight"),
            Self::NoInflight => f.write_str("the ring has no inflight record"),
            Self::Log { part, offset } => {
                write!(f, "a write to the {part} at its byte {offset} is beyond the dirty log")
            }
        }
    }
}

impl core::error::Error for RingFault {}

/// The parts of a ring cannot be where they are said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PartFault {
    /// There is no such ring.
    Ring(RingFault),
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
}

impl fmt::Display for PartFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(fault) => write!(f, "{fault}"),
            Self::Misaligned { part, address, alignment } => {
                write!(f, "{part} at {address:#x}, expected a multiple of {alignment}")
            }
            Self::Unmapped { part, address, length, cause } => {
                write!(f, "{part} of {length} bytes at {address:#x}: {cause}")
            }
        }
    }
}

impl core::error::Error for PartFault {}

impl From<RingFault> for PartFault {
    fn from(fault: RingFault) -> Self {
        Self::Ring(fault)
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

//! What can be wrong with memory that a peer shares.

use core::fmt;

use super::{MAX_REGIONS, MemoryRegion};
use crate::system_error::SystemError;

/// The address space that a number belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressSpace {
    /// Guest physical addresses.
    Guest,
    /// Addresses in the front-end's process.
    User,
    /// Offsets in the file of a region.
    File,
}

/// Memory that cannot be mapped, or an address that is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryError {
    /// A system call failed, for example `mmap` with `EACCES` if the descriptor is read-only.
    System(SystemError),
    /// The region has no bytes.
    EmptyRegion(MemoryRegion),
    /// The end of the region does not fit in 64 bits.
    RegionWraps {
        /// Where it wraps around.
        space: AddressSpace,
        /// The region.
        region: MemoryRegion,
    },
    /// The descriptor is not a file with a size, so nothing tells how much of it can be touched.
    NotAFile {
        /// What it is.
        found: &'static str,
    },
    /// The file ends before the region does. Touching what is behind its end would be a `SIGBUS`.
    FileTooShort {
        /// Bytes that the file must have: offset and size of the region.
        needed: u64,
        /// Bytes that it has.
        actual: u64,
    },
    /// The region is larger than this process can address.
    TooLarge {
        /// Bytes to map.
        size: u64,
    },
    /// Two regions of a table overlap.
    Overlap {
        /// The addresses that they share: [`Guest`](AddressSpace::Guest) or
        /// [`User`](AddressSpace::User).
        space: AddressSpace,
        /// The one that begins first.
        first: MemoryRegion,
        /// The other.
        second: MemoryRegion,
    },
    /// A table would have more than [`MAX_REGIONS`] regions.
    TooManyRegions {
        /// Regions that it would have.
        count: usize,
    },
    /// The dirty log ends before the memory, or the ring, that is to be logged there.
    LogTooShort {
        /// Bytes that it must have.
        needed: u64,
        /// Bytes that it has.
        actual: u64,
    },
    /// The table has no region with this guest address, size and user address.
    UnknownRegion(MemoryRegion),
    /// No region holds the address.
    NotMapped {
        /// What kind of address it is.
        space: AddressSpace,
        /// The address.
        address: u64,
    },
    /// A range begins in a region and ends behind it.
    PastRegionEnd {
        /// What kind of address it is.
        space: AddressSpace,
        /// Where the range begins.
        address: u64,
        /// Its length in bytes.
        length: u64,
        /// Bytes of the region from `address` on.
        available: u64,
    },
}

impl fmt::Display for AddressSpace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Guest => "guest address",
            Self::User => "user address",
            Self::File => "file offset",
        })
    }
}

impl fmt::Display for MemoryError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => error.fmt(formatter),
            Self::EmptyRegion(region) => write!(formatter, "{region} is empty"),
            Self::RegionWraps { space, region } => {
                write!(formatter, "{region} wraps around: {space} and size exceed 64 bits")
            }
            Self::NotAFile { found } => {
                write!(formatter, "expected a file or a memfd to map, got {found}")
            }
            Self::FileTooShort { needed, actual } => {
                write!(formatter, "the file of a region has {actual} bytes, offset and size need {needed}")
            }
            Self::TooLarge { size } => {
                write!(formatter, "{size} bytes are more than this process can map")
            }
            Self::Overlap { space, first, second } => write!(formatter, "{first} and {second} overlap by {space}"),
            Self::TooManyRegions { count } => {
                write!(formatter, "{count} regions, at most {MAX_REGIONS} may be")
            }
            Self::LogTooShort { needed, actual } => {
                write!(formatter, "a dirty log of {needed} bytes or more was expected, one of {actual} came")
            }
            Self::UnknownRegion(region) => write!(formatter, "there is no {region}"),
            Self::NotMapped { space, address } => {
                write!(formatter, "{space} {address:#x} is in no region")
            }
            Self::PastRegionEnd { space, address, length, available } => write!(
                formatter,
                "{length:#x} bytes at {space} {address:#x} exceed the region, \
                 which has {available:#x} left there"
            ),
        }
    }
}

impl core::error::Error for MemoryError {}

impl From<SystemError> for MemoryError {
    fn from(error: SystemError) -> Self {
        Self::System(error)
    }
}

#[cfg(test)]
mod tests {
    use vhost_core::{GuestAddress, UserAddress};

    use super::*;

    #[test]
    fn texts_hold_both_numbers_and_both_regions() {
        let short = MemoryError::FileTooShort { needed: 8192, actual: 4095 };
        let text = short.to_string();
        assert!(text.contains("8192") && text.contains("4095"), "{text}");
        let region = |guest_address| MemoryRegion::new(GuestAddress(guest_address), 0x2000, UserAddress(0x7000), 0);
        let overlap =
            MemoryError::Overlap { space: AddressSpace::Guest, first: region(0x1000), second: region(0x2000) };
        let text = overlap.to_string();
        assert!(text.contains("guest 0x1000"), "{text}");
        assert!(text.contains("guest 0x2000"), "{text}");
        assert!(text.contains("by guest address"), "{text}");
    }
}

//! What can be wrong with a mapping in a shared memory region.

use core::fmt;

use rustix::io::Errno;
use vhost_core::CacheAccess;

use crate::{frontend::Refusal, system_error::SystemError};

/// Why a back-end's mapping was not made or removed. Nothing has changed then, see [`SharedRegions::apply`] for the exception.
///
/// [`SharedRegions::apply`]: super::SharedRegions::apply
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WindowError {
    /// There is no region of this id.
    NoSuchRegion {
        /// The id asked for.
        found: u8,
    },
    /// A mapping without bytes.
    Empty,
    /// A part of it lies outside of the region.
    OutOfBounds {
        /// Where it begins.
        offset: u64,
        /// Its bytes.
        length: u64,
        /// Bytes of the region.
        size: u64,
    },
    /// An offset or a length is no whole number of pages.
    Misaligned {
        /// The offset or length.
        found: u64,
        /// Bytes of a page: of a huge one where the file consists of such.
        page: u64,
    },
    /// Something is mapped there already.
    Occupied {
        /// Where what is mapped begins.
        offset: u64,
        /// Its bytes.
        length: u64,
    },
    /// Nothing is mapped exactly there.
    NotMapped {
        /// Where it would begin.
        offset: u64,
        /// Its bytes.
        length: u64,
    },
    /// The region has as many mappings as it may have.
    TooMany {
        /// How many that are.
        limit: usize,
    },
    /// No descriptor came.
    NoDescriptor,
    /// The descriptor is of a kind that is not mapped.
    NotMappable {
        /// What it is.
        found: &'static str,
    },
    /// Neither reading nor writing is wanted.
    NoAccess {
        /// What is wanted.
        found: CacheAccess,
    },
    /// Guest memory is not where a file should be read to or written from.
    NoGuestMemory {
        /// The guest address.
        address: u64,
        /// Bytes from there on.
        length: u64,
    },
    /// A change that is none of the known ones.
    Unknown,
    /// A system call failed.
    System(SystemError),
}

impl WindowError {
    /// The errno that says it best, for the back-end.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::Occupied { .. } => Errno::EXIST,
            Self::TooMany { .. } => Errno::NOSPC,
            Self::NoDescriptor => Errno::BADF,
            Self::NotMappable { .. } => Errno::NODEV,
            Self::NoGuestMemory { .. } => Errno::FAULT,
            Self::System(error) => error.errno,
            _ => Errno::INVAL,
        }
    }
}

impl fmt::Display for WindowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchRegion { found } => write!(f, "the device has no shared memory region {found}"),
            Self::Empty => f.write_str("expected a mapping of at least one byte, found none"),
            Self::OutOfBounds { offset, length, size } => {
                write!(f, "expected a mapping within {size:#x} bytes, found {length:#x} at {offset:#x}")
            }
            Self::Misaligned { found, page } => write!(f, "expected whole pages of {page:#x} bytes, found {found:#x}"),
            Self::Occupied { offset, length } => write!(f, "{length:#x} bytes at {offset:#x} are mapped already"),
            Self::NotMapped { offset, length } => {
                write!(f, "no mapping of exactly {length:#x} bytes at {offset:#x} was made")
            }
            Self::TooMany { limit } => write!(f, "expected at most {limit} mappings in a region"),
            Self::NoDescriptor => f.write_str("expected a descriptor to be mapped, found none"),
            Self::NotMappable { found } => write!(f, "expected a file to be mapped, found {found}"),
            Self::NoAccess { found } => {
                write!(f, "expected access to read or write, found {:#x}", found.bits())
            }
            Self::NoGuestMemory { address, length } => {
                write!(f, "guest memory does not have {length:#x} bytes at {address:#x}")
            }
            Self::Unknown => f.write_str("a change of mappings that is not known here"),
            Self::System(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for WindowError {}

impl From<SystemError> for WindowError {
    fn from(error: SystemError) -> Self {
        Self::System(error)
    }
}

impl From<WindowError> for Refusal {
    fn from(error: WindowError) -> Self {
        Self::from(error.errno())
    }
}

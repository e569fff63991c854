//! Guest memory, mapped from the descriptors that a front-end shares.
//!
//! A [`MappedRegion`] is one region in this process, a [`MemoryTable`] is all of them at one moment,
//! and a [`MemoryFile`] is memory to be shared by a front-end. What reads and writes goes through
//! vm-memory: [`MappedMemory`] is one of its `GuestMemory`s.

mod dirty_log;
mod error;
mod file;
mod guest_memory;
mod mapping;
mod owned_range;
mod region;
mod table;
mod translated;
mod userfault;

pub(crate) use self::dirty_log::{LogFile, WriteLog};
pub use self::error::{AddressSpace, MemoryError};
pub use self::file::MemoryFile;
pub(crate) use self::file::sealed;
pub use self::guest_memory::{Borrowed, BorrowedRange};
pub(crate) use self::guest_memory::{copy_in, copy_out, read_u128};
pub(crate) use self::mapping::granularity;
pub use self::owned_range::OwnedRange;
pub use self::region::{MappedMemory, MappedRegion};
pub use self::table::{MAX_REGIONS, MemoryTable};
pub(crate) use self::translated::{ScatteredMemory, Targets};
pub(crate) use self::userfault::Userfault;

pub use vhost_core::MemoryRegion;

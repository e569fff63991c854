//! A piece of a file in the memory of this process.
//!
//! The only file of guest memory with `unsafe` code: mapping, unmapping and the way to the bytes.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, fstat, fstatfs};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vm_memory::VolatileSlice;

use super::MemoryError;
use crate::file_kind;
use crate::system_error::SystemError;

/// `f_type` of hugetlbfs, where mappings begin and end at huge pages (linux/magic.h).
const HUGETLBFS_MAGIC: u32 = 0x9584_58f6;

/// `size` bytes of a file from an offset on, shared, readable and writable.
///
/// Invariant: `start` and `length` are a mapping of our own, which nobody else changes or removes,
/// and `lead + size <= length`.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<c_void>,
    length: usize,
    /// Bytes of the mapping before the first one that was asked for.
    lead: usize,
    size: usize,
}

// SAFETY: a mapping belongs to the process and not to a thread; `Mapping` has no state but the
// address, and only the thread that drops the last reference unmaps it.
unsafe impl Send for Mapping {}

// SAFETY: `&Mapping` gives access to the bytes only by `VolatileSlice`, which is made for memory
// that others change at the same time.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `size` bytes of `file` from `offset` on. The mapping does not need `file` afterwards.
    ///
    /// The size of the file is checked once. A peer that makes its file shorter afterwards can
    /// raise a `SIGBUS` here, unless it was sealed against that; see `F_SEAL_SHRINK`.
    pub(super) fn new(file: BorrowedFd<'_>, offset: u64, size: u64) -> Result<Self, MemoryError> {
        let stat = fstat(file).map_err(SystemError::of("fstat"))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::RegularFile {
            let found = file_kind::name_of(kind);
            return Err(MemoryError::NotAFile { found });
        }
        let too_large = MemoryError::TooLarge { size };
        let needed = offset.checked_add(size).ok_or(too_large)?;
        let actual = u64::try_from(stat.st_size).unwrap_or(0);
        if needed > actual {
            return Err(MemoryError::FileTooShort { needed, actual });
        }
        Self::of_kernel(file, offset, size)
    }

    /// The same, without a look at the kind and the size of the file.
    pub(super) fn of_kernel(file: BorrowedFd<'_>, offset: u64, size: u64) -> Result<Self, MemoryError> {
        let too_large = MemoryError::TooLarge { size };
        let granularity = granularity(file)?;
        let lead = offset % granularity;
        // Huge pages are unmapped only as a whole, so the length is rounded up here already.
        let length = (lead.checked_add(size))
            .and_then(|length| length.checked_next_multiple_of(granularity))
            .ok_or(too_large)?;
        let to_usize = |number: u64| usize::try_from(number).map_err(|_| too_large);
        let (lead, size, length) = (to_usize(lead)?, to_usize(size)?, to_usize(length)?);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: without MAP_FIXED and with no address wished for, the kernel takes addresses that
        // nothing uses, so no memory that Rust knows of changes.
        let start = unsafe { mmap(ptr::null_mut(), length, protection, flags, file, offset - offset % granularity) };
        let start = start.map_err(SystemError::of("mmap"))?;
        // The kernel gives address zero only to those who ask for it.
        let start = NonNull::new(start).ok_or(SystemError::of("mmap")(Errno::FAULT))?;
        Ok(Self { start, length, lead, size })
    }

    /// Bytes that were asked for.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The address of the first byte that was asked for. Valid as long as the mapping is.
    pub(super) fn address(&self) -> *mut u8 {
        self.start.as_ptr().cast::<u8>().wrapping_add(self.lead)
    }

    /// `count` bytes from `offset` on; `None` if they are not all within the mapping.
    pub(super) fn slice(&self, offset: usize, count: usize) -> Option<VolatileSlice<'_>> {
        if offset.checked_add(count)? > self.size {
            return None;
        }
        let address = self.address().wrapping_add(offset);
        // SAFETY: `lead + offset + count <= lead + size <= length`, so the bytes are in the
        // mapping, which lives as long as the borrow of `self` does, as only dropping it unmaps.
        // Nobody in this process has references to them: the mapping is ours and gives out only
        // volatile slices and raw pointers.
        Some(unsafe { VolatileSlice::new(address, count) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: start and length are a whole mapping of our own (the invariant), and whatever
        // was borrowed from it has ended before it is dropped.
        let outcome = unsafe { munmap(self.start.as_ptr(), self.length) };
        // A drop cannot report; with a start and a length that mmap has taken it does not fail.
        debug_assert!(outcome.is_ok(), "munmap: {outcome:?}");
    }
}

/// What offsets and lengths of mappings of `file` are multiples of.
pub(crate) fn granularity(file: BorrowedFd<'_>) -> Result<u64, SystemError> {
    let page = rustix::param::page_size() as u64;
    let system = fstatfs(file).map_err(SystemError::of("fstatfs"))?;
    // Signed and of different width on different machines; the magic number has 32 bits.
    if system.f_type as u32 == HUGETLBFS_MAGIC {
        let huge_page = u64::try_from(system.f_bsize).unwrap_or(page);
        return Ok(huge_page.max(page));
    }
    Ok(page)
}

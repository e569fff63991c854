//! `FS_IO`: files read into guest memory or written from it, for a back-end that cannot reach that memory.

use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, fstat};
use vhost_core::{CacheAccess, wire::fs_cache::CacheEntry};
use vm_memory::VolatileSlice;

use super::WindowError;
use crate::{
    chain::{Readable, Writable},
    file_kind, guest_io,
    memory::{AddressSpace, MemoryTable},
    system_error::SystemError,
};

/// Reads and writes one entry after another, up to the first that is not transferred whole; how many bytes were.
///
/// An error after some bytes is told as these bytes: the next try meets it again.
pub(super) fn carry_out(
    memory: &MemoryTable,
    file: BorrowedFd<'_>,
    entries: impl Iterator<Item = CacheEntry>,
) -> Result<u64, WindowError> {
    let stat = fstat(file).map_err(SystemError::of("fstat"))?;
    match FileType::from_raw_mode(stat.st_mode) {
        // Everything else could keep its reader waiting.
        FileType::RegularFile => {}
        kind => return Err(WindowError::NotMappable { found: file_kind::name_of(kind) }),
    }
    let mut total: u64 = 0;
    for entry in entries {
        match transfer(memory, file, entry) {
            Ok(count) => {
                total = total.saturating_add(count);
                if count < entry.length {
                    break;
                }
            }
            Err(_) if total > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

fn transfer(memory: &MemoryTable, file: BorrowedFd<'_>, entry: CacheEntry) -> Result<u64, WindowError> {
    let CacheEntry { file_offset, cache_offset, length, access } = entry;
    let slices = slices(memory, cache_offset, length)?;
    let (call, outcome) = match access {
        CacheAccess::READ => ("preadv", guest_io::read_at(file, file_offset, Writable::new(&slices, length))),
        CacheAccess::WRITE => ("pwritev", guest_io::write_at(file, file_offset, Readable::new(&slices, length))),
        found => return Err(WindowError::NoAccess { found }),
    };
    outcome.map_err(|errno| SystemError { call, errno }.into())
}

/// Guest memory from an address on, which may go on from one region into the next.
fn slices(memory: &MemoryTable, address: u64, length: u64) -> Result<Vec<VolatileSlice<'_>>, WindowError> {
    let missing = WindowError::NoGuestMemory { address, length };
    let mut slices = Vec::new();
    let (mut at, mut left) = (address, length);
    while left > 0 {
        let (region, offset) = memory.region_at(AddressSpace::Guest, at).ok_or(missing)?;
        let here = left.min(region.region().size.saturating_sub(offset));
        let bytes = usize::try_from(here).map_err(|_| missing)?;
        slices.push(memory.guest_slice(at, bytes).map_err(|_| missing)?);
        left = left.saturating_sub(here);
        at = at.checked_add(here).filter(|_| here > 0).ok_or(missing)?;
    }
    Ok(slices)
}

//! The dirty log of a front-end: mapped from its file, and marked for what this process writes to guest memory.

use core::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vhost_core::{Access, DirtyLog, GuestAddress, GuestMemory as _, LogFault, MemoryRegion, Unmapped, UserAddress};
use vm_memory::VolatileSlice;

use super::{MappedRegion, MemoryError, MemoryTable, OwnedRange};
use crate::eventfd::EventFd;

/// A front-end's dirty log in this process. It is unmapped with the last clone; whoever still marks in it harms nobody.
#[derive(Clone, Debug)]
pub(crate) struct LogFile {
    pages: DirtyLog<OwnedRange>,
    size: u64,
    /// What tells the front-end that pages were marked (`SET_LOG_FD`).
    changed: Option<Arc<EventFd>>,
}

impl LogFile {
    /// Maps `size` bytes of `file` from `offset` on, as `SET_LOG_BASE` tells them.
    ///
    /// # Errors
    /// As [`MappedRegion::new`].
    pub(crate) fn map(size: u64, offset: u64, file: OwnedFd) -> Result<Self, MemoryError> {
        // The log is in nobody's address space; as a region of its own, what marks it checks every byte.
        let region = MemoryRegion::new(GuestAddress(0), size, UserAddress(0), offset);
        let mapped = MemoryTable::new([MappedRegion::new(region, file)?])?;
        let range = mapped.range(GuestAddress(0), size, Access::ReadWrite);
        let range = range.map_err(|_: Unmapped| MemoryError::EmptyRegion(region))?;
        Ok(Self { pages: DirtyLog::new(range), size, changed: None })
    }

    /// The same log; `changed` is signalled when pages were marked.
    pub(crate) fn signalling(self, changed: Option<Arc<EventFd>>) -> Self {
        Self { changed, ..self }
    }

    /// The pages, for what marks writes to a ring.
    pub(crate) fn pages(&self) -> &DirtyLog<OwnedRange> {
        &self.pages
    }

    /// Whether there is a bit for every page of `memory`.
    ///
    /// # Errors
    /// [`LogTooShort`](MemoryError::LogTooShort).
    pub(crate) fn check_covers(&self, memory: &MemoryTable) -> Result<(), MemoryError> {
        memory.regions().last().map_or(Ok(()), |last| {
            let region = last.region();
            self.check_holds(region.guest_address, region.size)
        })
    }

    /// Whether there is a bit for every page of `length` bytes from `start` on.
    ///
    /// # Errors
    /// [`LogTooShort`](MemoryError::LogTooShort).
    pub(crate) fn check_holds(&self, start: GuestAddress, length: u64) -> Result<(), MemoryError> {
        let last = GuestAddress(start.0.saturating_add(length.saturating_sub(1)));
        let needed = DirtyLog::<OwnedRange>::size_for(last);
        if needed <= self.size { Ok(()) } else { Err(MemoryError::LogTooShort { needed, actual: self.size }) }
    }

    /// Tells the front-end that pages were marked, if it wants to know.
    pub(crate) fn announce(&self) {
        if let Some(changed) = &self.changed {
            // It looks at the log in any case before it stops the rings.
            let _ = changed.signal();
        }
    }
}

/// The log of one ring's turn: marks what is written to guest memory, and keeps what could not be marked.
#[derive(Debug)]
pub(crate) struct WriteLog<'t> {
    pages: &'t DirtyLog<OwnedRange>,
    memory: &'t MemoryTable,
    outcome: Cell<Result<(), LogFault>>,
}

impl<'t> WriteLog<'t> {
    /// Marks in `log` what is written to `memory`.
    pub(crate) fn new(log: &'t LogFile, memory: &'t MemoryTable) -> Self {
        Self { pages: &log.pages, memory, outcome: Cell::new(Ok(())) }
    }

    /// Marks the pages of `written`, a piece of this memory that was written to.
    #[cold]
    pub(crate) fn mark(&self, written: &VolatileSlice<'_>) {
        let (host, length) = (written.ptr_guard().as_ptr().addr(), written.len() as u64);
        let place = self.memory.regions().iter().find_map(|mapped| {
            let offset = host.checked_sub(mapped.host_address().addr())? as u64;
            let region = mapped.region();
            (offset < region.size).then(|| GuestAddress(region.guest_address.0.wrapping_add(offset)))
        });
        // What is in no region is not the guest's: a test's own bytes.
        let marked = place.map_or(Ok(()), |place| self.pages.mark(place, length));
        if marked.is_err() {
            self.outcome.set(marked);
        }
    }

    /// What happened since the log was made.
    ///
    /// # Errors
    /// The last write that is not in the log: the guest would lose it.
    pub(crate) fn outcome(&self) -> Result<(), LogFault> {
        self.outcome.get()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::fd::AsFd;

    use vhost_core::LOG_PAGE;
    use vm_memory::{Bytes, MemoryRegionAddress};

    use super::*;
    use crate::memory::MemoryFile;

    fn memory(guest_address: u64, size: u64) -> MemoryFile {
        MemoryFile::create("memory", guest_address, size).unwrap()
    }

    fn log(file: &MemoryFile, size: u64, offset: u64) -> Result<LogFile, MemoryError> {
        LogFile::map(size, offset, file.as_fd().try_clone_to_owned().unwrap())
    }

    fn marked(file: &MemoryFile) -> BTreeSet<u64> {
        let mut bytes = vec![0; usize::try_from(file.region().size).unwrap()];
        file.mapped().read_slice(&mut bytes, MemoryRegionAddress(0)).unwrap();
        (0..)
            .zip(bytes)
            .flat_map(|(at, byte)| (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at * 8 + bit))
            .collect()
    }

    #[test]
    fn a_write_is_marked_by_its_guest_address_at_the_log_s_offset() {
        let (low, high) = (memory(0, 0x4000), memory(0x10_0000, 0x3000));
        let table = MemoryTable::new([low.mapped().clone(), high.mapped().clone()]).unwrap();
        let file = memory(0, 0x2000);
        let log = log(&file, 0x100, 0x40).unwrap();
        log.check_covers(&table).unwrap();
        let writes = WriteLog::new(&log, &table);
        for (address, length) in [(0x1fff, 2), (0x10_2000, 0x1000), (0x3000, 1)] {
            writes.mark(&table.guest_slice(address, length).unwrap());
        }
        assert_eq!(writes.outcome(), Ok(()));
        let pages = [0x1, 0x2, 0x102, 0x3].map(|page| page + 8 * 0x40);
        assert_eq!(marked(&file), BTreeSet::from(pages));
    }

    #[test]
    fn a_log_that_is_not_there_or_too_short_for_the_memory_is_refused() {
        let file = memory(0, 0x1000);
        assert!(matches!(log(&file, 0, 0), Err(MemoryError::EmptyRegion(_))));
        assert_eq!(log(&file, 0x1000, 1).unwrap_err(), MemoryError::FileTooShort { needed: 0x1001, actual: 0x1000 });
        // CVE-2020-10722 of others: the sum of size and offset wraps to something small.
        assert!(matches!(log(&file, u64::MAX - 0xfff, 0x2000), Err(MemoryError::RegionWraps { .. })));
        assert!(matches!(log(&file, 1 << 62, 0), Err(MemoryError::FileTooShort { .. })));

        let table = MemoryTable::new([memory(7 * LOG_PAGE, 2 * LOG_PAGE).mapped().clone()]).unwrap();
        let short = MemoryError::LogTooShort { needed: 2, actual: 1 };
        assert_eq!(log(&file, 1, 0).unwrap().check_covers(&table), Err(short));
        assert_eq!(log(&file, 2, 0).unwrap().check_covers(&table), Ok(()));
        assert_eq!(log(&file, 1, 0).unwrap().check_covers(&MemoryTable::default()), Ok(()));
    }

    #[test]
    fn a_write_beyond_the_log_is_kept_as_a_fault() {
        let guest = memory(7 * LOG_PAGE, 2 * LOG_PAGE);
        let table = MemoryTable::new([guest.mapped().clone()]).unwrap();
        let file = memory(0, 0x1000);
        let log = log(&file, 1, 0).unwrap();
        let writes = WriteLog::new(&log, &table);
        writes.mark(&table.guest_slice(8 * LOG_PAGE, 5).unwrap());
        writes.mark(&table.guest_slice(7 * LOG_PAGE, 5).unwrap());
        assert_eq!(writes.outcome(), Err(LogFault { address: GuestAddress(8 * LOG_PAGE), length: 5 }));
        assert_eq!(marked(&file), BTreeSet::from([7]));
    }
}

//! Requests about guest memory and its dirty log.

use std::os::fd::BorrowedFd;

use vhost_core::{
    FrontendCode, Handles, MAX_HANDLES, MemoryRegion, MemoryTable, Postcopy, RegionExtent,
    wire::log::{Log, LogBase},
};

use super::{
    Frontend, FrontendError,
    call::{Reply, Request},
};

/// The regions of a table as a back-end in postcopy has mapped them: the user addresses are its own.
pub type MappedRegions = heapless::Vec<MemoryRegion, MAX_HANDLES>;

/// Which part of which file a region that was shared is.
///
/// The addresses of a region do not tell: memory that is freed and taken anew often comes to lie at the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SharedFile {
    pub(super) extent: RegionExtent,
    mmap_offset: u64,
    device: u64,
    inode: u64,
}

impl SharedFile {
    /// `None` if the descriptor does not tell: then no region is the same.
    pub(super) fn new(region: &MemoryRegion, file: BorrowedFd<'_>) -> Option<Self> {
        let stat = rustix::fs::fstat(file).ok()?;
        let extent = RegionExtent::from(region);
        Some(Self { extent, mmap_offset: region.mmap_offset, device: stat.st_dev, inode: stat.st_ino })
    }
}

impl Frontend {
    /// `SET_MEM_TABLE`: replaces all memory that is shared with the back-end by up to eight regions.
    ///
    /// Gives back the regions as the back-end has mapped them if postcopy listens: they are to be registered with
    /// userfaultfd and then [acknowledged](Self::acknowledge_postcopy_memory). Else it gives back nothing.
    ///
    /// # Errors
    /// [`Misuse`](FrontendError::Misuse) also for regions that overlap.
    #[doc(alias = "SET_MEM_TABLE")]
    pub fn set_mem_table(
        &mut self,
        regions: &[(MemoryRegion, BorrowedFd<'_>)],
    ) -> Result<MappedRegions, FrontendError> {
        let (table, descriptors) = table(regions)?;
        let request = Request::SetMemTable(MemoryTable::new(&table), descriptors);
        let mapped = if self.postcopy() == Postcopy::Off {
            self.order(request).map(|()| MappedRegions::new())
        } else {
            self.ask(request, |reply| match reply {
                Reply::SetMemTable(mapped) => Some(mapped.iter().collect()),
                _ => Some(MappedRegions::new()),
            })
        }?;
        self.remember_table(regions);
        Ok(mapped)
    }

    /// `GET_MAX_MEM_SLOTS`: how many memory regions the back-end can hold.
    ///
    /// # Errors
    /// See [`FrontendError`]. Needs the protocol feature `CONFIGURE_MEM_SLOTS`.
    #[doc(alias = "GET_MAX_MEM_SLOTS")]
    pub fn get_max_mem_slots(&mut self) -> Result<u64, FrontendError> {
        self.ask(Request::GetMaxMemSlots, |reply| match reply {
            Reply::GetMaxMemSlots(slots) => Some(slots),
            _ => None,
        })
    }

    /// `ADD_MEM_REG`: shares one more memory region.
    ///
    /// Gives back the region as the back-end has mapped it if postcopy listens, as [`set_mem_table`](Self::set_mem_table).
    ///
    /// # Errors
    /// [`Misuse`](FrontendError::Misuse) also for a region that overlaps another. Needs the protocol feature
    /// `CONFIGURE_MEM_SLOTS`.
    #[doc(alias = "ADD_MEM_REG")]
    pub fn add_mem_reg(
        &mut self,
        region: &MemoryRegion,
        descriptor: BorrowedFd<'_>,
    ) -> Result<Option<MemoryRegion>, FrontendError> {
        let request = Request::AddMemReg(*region, descriptor);
        let mapped = if self.postcopy() == Postcopy::Off {
            self.order(request).map(|()| None)
        } else {
            self.ask(request, |reply| match reply {
                Reply::AddMemReg(mapped) => Some(Some(mapped)),
                _ => Some(None),
            })
        }?;
        self.remember_added(region, descriptor);
        Ok(mapped)
    }

    /// `REM_MEM_REG`: takes a memory region back; guest address, size and user address say which.
    ///
    /// # Errors
    /// [`Misuse`](FrontendError::Misuse) also for a region that is not shared. Needs the protocol feature
    /// `CONFIGURE_MEM_SLOTS`.
    #[doc(alias = "REM_MEM_REG")]
    pub fn rem_mem_reg(&mut self, region: &MemoryRegion) -> Result<(), FrontendError> {
        self.order(Request::RemMemReg(*region))?;
        self.remember_removed(region);
        Ok(())
    }

    pub(super) fn remember_table(&mut self, regions: &[(MemoryRegion, BorrowedFd<'_>)]) {
        self.files = regions.iter().filter_map(|(region, file)| SharedFile::new(region, *file)).collect();
    }

    pub(super) fn remember_added(&mut self, region: &MemoryRegion, descriptor: BorrowedFd<'_>) {
        self.files.extend(SharedFile::new(region, descriptor));
    }

    pub(super) fn remember_removed(&mut self, region: &MemoryRegion) {
        self.files.retain(|file| file.extent != RegionExtent::from(region));
    }

    /// Tells that the regions which the back-end has mapped are registered with userfaultfd. `request` is the one that
    /// brought them last: `SET_MEM_TABLE` or `ADD_MEM_REG`. No answer comes.
    ///
    /// # Errors
    /// [`Misuse`](FrontendError::Misuse) also if there are no such regions.
    pub fn acknowledge_postcopy_memory(&mut self, request: FrontendCode) -> Result<(), FrontendError> {
        self.announce(request.message(), |machine, out| machine.acknowledge_postcopy_memory(request, out))
    }

    /// `SET_LOG_BASE`: where the back-end logs the pages that it writes. A bit stands for 4096 bytes of guest memory.
    ///
    /// # Errors
    /// [`Misuse`](FrontendError::Misuse) also if offset and size wrap around. Needs the protocol feature `LOG_SHMFD`.
    #[doc(alias = "SET_LOG_BASE")]
    pub fn set_log_base(&mut self, log: &Log, file: BorrowedFd<'_>) -> Result<(), FrontendError> {
        self.order(Request::SetLogBase(LogBase::Shared(*log), Some(file)))
    }

    /// `SET_LOG_FD`: the eventfd that tells of writes to the log.
    ///
    /// # Errors
    /// See [`FrontendError`].
    #[doc(alias = "SET_LOG_FD")]
    pub fn set_log_fd(&mut self, event: BorrowedFd<'_>) -> Result<(), FrontendError> {
        self.order(Request::SetLogFd(event))
    }
}

/// The regions of a table and their files.
pub(super) fn table<'f>(
    regions: &[(MemoryRegion, BorrowedFd<'f>)],
) -> Result<(MappedRegions, Handles<BorrowedFd<'f>>), FrontendError> {
    let (mut table, mut descriptors) = (MappedRegions::new(), Handles::new());
    for (region, descriptor) in regions {
        if table.push(*region).is_err() || descriptors.push(*descriptor).is_err() {
            return Err(FrontendError::TooManyRegions { found: regions.len(), limit: MAX_HANDLES });
        }
    }
    Ok((table, descriptors))
}

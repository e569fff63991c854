//! One region of guest memory: where it is, and its bytes in this process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use vm_memory::{
    GuestAddress, GuestMemoryError, GuestMemoryRegion, GuestMemoryRegionBytes, GuestRegionCollection,
    MemoryRegionAddress, VolatileSlice,
};

use vhost_core::{MemoryRegion, UserAddress};

use super::mapping::Mapping;
use super::{AddressSpace, MemoryError};

/// A region of guest memory that is mapped into this process, shared with whoever has the file.
///
/// It is unmapped when it is dropped. In a [`MemoryTable`](super::MemoryTable) it is held by
/// reference count, so that it stays as long as one snapshot of the table does.
#[derive(Debug)]
pub struct MappedRegion {
    region: MemoryRegion,
    mapping: Mapping,
}

/// Mapped guest memory as vm-memory sees it: a sorted collection of regions.
///
/// vm-memory's own `GuestMemoryMmap` is the same collection with another kind of region. That one
/// would have to keep the descriptors open or could outlive the mapping, and knows no huge pages.
pub type MappedMemory = GuestRegionCollection<MappedRegion>;

impl MappedRegion {
    /// Maps `region` from `descriptor`, which is closed afterwards: the mapping does not need it.
    ///
    /// The offset may be any; in files of huge pages it need not be at the start of one.
    ///
    /// A peer may make its file shorter afterwards, unless it has sealed it (`F_SEAL_SHRINK`);
    /// touching what is gone is then a `SIGBUS`, which nothing at mapping time can exclude.
    ///
    /// # Errors
    /// - [`EmptyRegion`](MemoryError::EmptyRegion), [`RegionWraps`](MemoryError::RegionWraps): the
    ///   numbers make no region.
    /// - [`NotAFile`](MemoryError::NotAFile), [`FileTooShort`](MemoryError::FileTooShort),
    ///   [`TooLarge`](MemoryError::TooLarge): the descriptor does not hold it.
    /// - [`System`](MemoryError::System): for example `mmap` with `EACCES` if the descriptor
    ///   cannot be written to.
    pub fn new(region: MemoryRegion, descriptor: OwnedFd) -> Result<Self, MemoryError> {
        check(&region)?;
        let mapping = Mapping::new(descriptor.as_fd(), region.mmap_offset, region.size)?;
        Ok(Self { region, mapping })
    }

    /// As [`new`](Self::new), for a descriptor that the kernel made and that has no size, as VDUSE passes them: the kernel
    /// vouches for all of `region`. What it has not filled with pages yet must not be touched; that is a `SIGBUS`.
    ///
    /// # Errors
    /// As [`new`](Self::new), without those about files.
    pub fn of_kernel(region: MemoryRegion, descriptor: OwnedFd) -> Result<Self, MemoryError> {
        check(&region)?;
        let mapping = Mapping::of_kernel(descriptor.as_fd(), region.mmap_offset, region.size)?;
        Ok(Self { region, mapping })
    }

    /// Maps the first `size` bytes of `file`; the user address is the one they get here.
    pub(super) fn of_this_process(guest_address: u64, size: u64, file: BorrowedFd<'_>) -> Result<Self, MemoryError> {
        let mut region = MemoryRegion {
            guest_address: vhost_core::GuestAddress(guest_address),
            size,
            user_address: UserAddress(0),
            mmap_offset: 0,
            xen: None,
        };
        check(&region)?;
        let mapping = Mapping::new(file, 0, size)?;
        region.user_address = UserAddress(mapping.address().addr() as u64);
        Ok(Self { region, mapping })
    }

    /// Where it is.
    #[must_use]
    pub fn region(&self) -> &MemoryRegion {
        &self.region
    }

    /// The address of its first byte in this process, for calls that take addresses, such as
    /// ioctls. Valid as long as the region lives.
    #[must_use]
    pub fn host_address(&self) -> *mut u8 {
        self.mapping.address()
    }

    /// The pages that it lies in: the first address, and bytes.
    pub(super) fn pages(&self) -> (usize, usize) {
        self.mapping.pages()
    }
}

/// Refuses a region without bytes, and one that wraps around in any space.
fn check(region: &MemoryRegion) -> Result<(), MemoryError> {
    if region.size == 0 {
        return Err(MemoryError::EmptyRegion(*region));
    }
    for space in [AddressSpace::Guest, AddressSpace::User, AddressSpace::File] {
        if start(region, space).checked_add(region.size).is_none() {
            return Err(MemoryError::RegionWraps { space, region: *region });
        }
    }
    Ok(())
}

/// Where a region begins in `space`.
pub(super) fn start(region: &MemoryRegion, space: AddressSpace) -> u64 {
    match space {
        AddressSpace::Guest => region.guest_address.0,
        AddressSpace::User => region.user_address.0,
        AddressSpace::File => region.mmap_offset,
    }
}

impl GuestMemoryRegion for MappedRegion {
    type B = ();

    fn len(&self) -> u64 {
        self.region.size
    }

    fn start_addr(&self) -> GuestAddress {
        GuestAddress(self.region.guest_address.0)
    }

    fn bitmap(&self) {}

    fn get_host_address(&self, address: MemoryRegionAddress) -> Result<*mut u8, GuestMemoryError> {
        match usize::try_from(address.0) {
            Ok(offset) if offset < self.mapping.size() => Ok(self.mapping.address().wrapping_add(offset)),
            _ => Err(GuestMemoryError::InvalidBackendAddress),
        }
    }

    fn get_slice(&self, offset: MemoryRegionAddress, count: usize) -> Result<VolatileSlice<'_>, GuestMemoryError> {
        usize::try_from(offset.0)
            .ok()
            .and_then(|offset| self.mapping.slice(offset, count))
            .ok_or(GuestMemoryError::InvalidBackendAddress)
    }
}

impl GuestMemoryRegionBytes for MappedRegion {}

#[cfg(test)]
mod tests;

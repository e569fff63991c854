//! All regions of guest memory at one moment.

use std::sync::Arc;

use vm_memory::{GuestAddressSpace, GuestMemoryRegion, MemoryRegionAddress, VolatileSlice};

use super::region::start;
use super::{AddressSpace, MappedMemory, MappedRegion, MemoryError, MemoryRegion};

/// The most regions that a table has: as many memory slots as the back-ends of QEMU and virtiofsd
/// offer, and more than any front-end uses.
pub const MAX_REGIONS: usize = 509;

/// A snapshot of guest memory: regions that overlap neither by guest nor by user address.
///
/// A table never changes. [`insert`](Self::insert) and [`remove`](Self::remove) make a new one that
/// shares the mappings; a region is unmapped when the last table that has it is dropped. Cloning
/// costs one reference count.
///
/// ```
/// use vhost_std::memory::{MemoryFile, MemoryTable};
/// use vm_memory::{Bytes, GuestAddress};
///
/// # fn main() -> Result<(), Box<dyn core::error::Error>> {
/// let low = MemoryFile::create("low", 0, 0x10000)?;
/// let high = MemoryFile::create("high", 0x1_0000_0000, 0x4000)?;
/// let table = MemoryTable::new([low.mapped().clone(), high.mapped().clone()])?;
///
/// table.guest_memory().write_obj(7_u32, GuestAddress(0x1_0000_0010))?;
/// let user = high.region().user_address.0 + 0x10;
/// assert_eq!(table.user_to_guest(user, 4)?, 0x1_0000_0010);
///
/// let smaller = table.remove(high.region())?;
/// assert!(smaller.user_to_guest(user, 4).is_err());
/// assert!(table.user_to_guest(user, 4).is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryTable {
    contents: Arc<Contents>,
}

/// The same regions three times, as each has its own order or owner.
#[derive(Debug, Default)]
struct Contents {
    by_guest: Vec<Arc<MappedRegion>>,
    by_user: Vec<Arc<MappedRegion>>,
    memory: Arc<MappedMemory>,
}

impl MemoryTable {
    /// A table of `regions`, in any order. One without regions is fine: it has no memory.
    ///
    /// # Errors
    /// [`Overlap`](MemoryError::Overlap), [`TooManyRegions`](MemoryError::TooManyRegions).
    pub fn new<R>(regions: impl IntoIterator<Item = R>) -> Result<Self, MemoryError>
    where
        R: Into<Arc<MappedRegion>>,
    {
        Self::from_arcs(regions.into_iter().map(Into::into).collect())
    }

    /// This table and `region`.
    ///
    /// # Errors
    /// As [`new`](Self::new). This table stays as it is in any case.
    pub fn insert(&self, region: impl Into<Arc<MappedRegion>>) -> Result<Self, MemoryError> {
        let mut regions = self.contents.by_guest.clone();
        regions.push(region.into());
        Self::from_arcs(regions)
    }

    /// This table without the region that has the guest address, size and user address of
    /// `region`. Its offset is not looked at: front-ends send zero for it.
    ///
    /// # Errors
    /// [`UnknownRegion`](MemoryError::UnknownRegion).
    pub fn remove(&self, region: &MemoryRegion) -> Result<Self, MemoryError> {
        let identity = |region: &MemoryRegion| (region.guest_address, region.size, region.user_address);
        let mut regions = self.contents.by_guest.clone();
        regions.retain(|mapped| identity(mapped.region()) != identity(region));
        if regions.len() == self.contents.by_guest.len() {
            return Err(MemoryError::UnknownRegion(*region));
        }
        Self::from_arcs(regions)
    }

    /// The regions, by guest address.
    #[must_use]
    pub fn regions(&self) -> &[Arc<MappedRegion>] {
        &self.contents.by_guest
    }

    /// The memory, by guest address, for vm-memory and what is built on it.
    #[must_use]
    pub fn guest_memory(&self) -> &MappedMemory {
        &self.contents.memory
    }

    /// The region that holds `address` of `space`, and the offset there in bytes.
    #[must_use]
    pub fn region_at(&self, space: AddressSpace, address: u64) -> Option<(&Arc<MappedRegion>, u64)> {
        let regions = if space == AddressSpace::User { &self.contents.by_user } else { &self.contents.by_guest };
        find(regions, space, address, 1).ok()
    }

    /// The regions as vm-memory sees them, to be kept for as long as they are used.
    #[must_use]
    pub fn shared(&self) -> Arc<MappedMemory> {
        Arc::clone(&self.contents.memory)
    }

    /// The guest address of `user_address`, if all of `length` bytes there are in one region.
    ///
    /// Rings are set up by user addresses. A ring must not cross regions: two that touch in guest
    /// addresses are not next to each other in this process.
    ///
    /// # Errors
    /// - [`NotMapped`](MemoryError::NotMapped): `user_address` is in no region, whatever `length`
    ///   is, also zero.
    /// - [`PastRegionEnd`](MemoryError::PastRegionEnd): it is in one that ends too early.
    pub fn user_to_guest(&self, user_address: u64, length: u64) -> Result<u64, MemoryError> {
        let by_user = &self.contents.by_user;
        let (region, offset) = find(by_user, AddressSpace::User, user_address, length)?;
        // Cannot overflow: the offset is below the size, and their sum was checked at mapping.
        Ok(region.region().guest_address.0.wrapping_add(offset))
    }

    /// `length` bytes at `guest_address`, if they are all in one region.
    ///
    /// # Errors
    /// As [`user_to_guest`](Self::user_to_guest).
    pub fn guest_slice(&self, guest_address: u64, length: usize) -> Result<VolatileSlice<'_>, MemoryError> {
        let (space, address) = (AddressSpace::Guest, guest_address);
        let (region, offset) = find(&self.contents.by_guest, space, address, length as u64)?;
        region.get_slice(MemoryRegionAddress(offset), length).map_err(|_| MemoryError::NotMapped { space, address })
    }

    fn from_arcs(regions: Vec<Arc<MappedRegion>>) -> Result<Self, MemoryError> {
        if regions.len() > MAX_REGIONS {
            return Err(MemoryError::TooManyRegions { count: regions.len() });
        }
        let by_user = sort(regions.clone(), AddressSpace::User)?;
        let by_guest = sort(regions, AddressSpace::Guest)?;
        // Sorted and without overlaps, so that only an empty list is refused.
        let memory = MappedMemory::from_arc_regions(by_guest.clone()).unwrap_or_default();
        Ok(Self { contents: Arc::new(Contents { by_guest, by_user, memory: Arc::new(memory) }) })
    }
}

impl GuestAddressSpace for MemoryTable {
    type M = MappedMemory;
    type T = Arc<MappedMemory>;

    fn memory(&self) -> Arc<MappedMemory> {
        Arc::clone(&self.contents.memory)
    }
}

/// Sorts by the addresses of `space` and refuses regions that share some.
fn sort(mut regions: Vec<Arc<MappedRegion>>, space: AddressSpace) -> Result<Vec<Arc<MappedRegion>>, MemoryError> {
    regions.sort_by_key(|mapped| start(mapped.region(), space));
    for (first, second) in regions.iter().zip(regions.iter().skip(1)) {
        let (first, second) = (*first.region(), *second.region());
        // The distance cannot be negative in a sorted list.
        if start(&second, space) - start(&first, space) < first.size {
            return Err(MemoryError::Overlap { space, first, second });
        }
    }
    Ok(regions)
}

/// The region of `regions`, sorted by `space`, that holds the range, and the offset in it.
fn find(
    regions: &[Arc<MappedRegion>],
    space: AddressSpace,
    address: u64,
    length: u64,
) -> Result<(&Arc<MappedRegion>, u64), MemoryError> {
    let behind = regions.partition_point(|mapped| start(mapped.region(), space) <= address);
    let candidate = behind.checked_sub(1).and_then(|at| regions.get(at));
    let not_mapped = MemoryError::NotMapped { space, address };
    let mapped = candidate.ok_or(not_mapped)?;
    let offset = address - start(mapped.region(), space);
    let available = mapped.region().size.saturating_sub(offset);
    if available == 0 {
        return Err(not_mapped);
    }
    if length > available {
        return Err(MemoryError::PastRegionEnd { space, address, length, available });
    }
    Ok((mapped, offset))
}

#[cfg(test)]
mod tests;

//! Which parts of the guest's memory are shared: no overlap, no wrap, found by binary search.

use core::fmt;

use crate::{
    address::{GuestAddress, UserAddress},
    wire::memory::{MAX_TABLE_REGIONS, MemoryRegion},
};

/// Where a memory region lies in both address spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegionExtent {
    /// First guest physical address.
    pub guest_address: GuestAddress,
    /// Bytes, not zero.
    pub size: u64,
    /// First address in the front-end's address space.
    pub user_address: UserAddress,
}

impl From<&MemoryRegion> for RegionExtent {
    fn from(region: &MemoryRegion) -> Self {
        Self { guest_address: region.guest_address, size: region.size, user_address: region.user_address }
    }
}

impl fmt::Display for RegionExtent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} bytes at guest {}, user {}", self.size, self.guest_address, self.user_address)
    }
}

impl RegionExtent {
    /// Whether the two share an address in either space. Both have been checked not to wrap.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let meet = |a: u64, b: u64| a < b.saturating_add(other.size) && b < a.saturating_add(self.size);
        meet(self.guest_address.0, other.guest_address.0) || meet(self.user_address.0, other.user_address.0)
    }
}

/// What is wrong with a memory region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemoryFault {
    /// The region has no byte.
    Empty(RegionExtent),
    /// The region wraps around the end of an address space or of its file.
    Wraps(RegionExtent),
    /// Two regions share an address.
    Overlap {
        /// The region that was there first.
        first: RegionExtent,
        /// The region that came later.
        second: RegionExtent,
    },
    /// There are more regions than slots.
    TooMany {
        /// How many slots there are.
        slots: usize,
    },
    /// No such region was added.
    Unknown(RegionExtent),
}

impl fmt::Display for MemoryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty(region) => write!(f, "the memory region of {region} is empty"),
            Self::Wraps(region) => write!(f, "the memory region of {region} wraps around"),
            Self::Overlap { first, second } => write!(f, "memory regions overlap: {first}; {second}"),
            Self::TooMany { slots } => write!(f, "more memory regions than the {slots} slots"),
            Self::Unknown(region) => write!(f, "no memory region of {region} was added"),
        }
    }
}

/// The regions of one memory table.
pub(crate) type TableExtents = heapless::Vec<RegionExtent, MAX_TABLE_REGIONS>;

/// The shared memory regions in the order of their guest addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MemoryMap<const REGIONS: usize> {
    regions: heapless::Vec<RegionExtent, REGIONS>,
}

impl<const REGIONS: usize> Default for MemoryMap<REGIONS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const REGIONS: usize> MemoryMap<REGIONS> {
    /// No memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { regions: heapless::Vec::new() }
    }

    /// The regions in the order of their guest addresses.
    #[must_use]
    pub fn regions(&self) -> &[RegionExtent] {
        &self.regions
    }

    /// Puts a region into its place. It was checked that there is room and that it is new.
    pub(crate) fn add(&mut self, extent: RegionExtent) {
        let mut carried = extent;
        for region in &mut self.regions {
            if region.guest_address > carried.guest_address {
                core::mem::swap(region, &mut carried);
            }
        }
        let _ = self.regions.push(carried);
    }

    pub(crate) fn remove(&mut self, guest_address: GuestAddress) {
        let mut later = self.regions.iter_mut().skip_while(|region| region.guest_address != guest_address);
        let Some(mut hole) = later.next() else { return };
        for region in later {
            core::mem::swap(hole, region);
            hole = region;
        }
        self.regions.pop();
    }

    pub(crate) fn replace(&mut self, table: &TableExtents) {
        self.regions.clear();
        for extent in table {
            self.add(*extent);
        }
    }
}

/// Checks that a region can be added to these.
pub(crate) fn check_add(
    present: impl Iterator<Item = RegionExtent>,
    slots: usize,
    region: &MemoryRegion,
) -> Result<RegionExtent, MemoryFault> {
    let second = check_alone(region)?;
    let mut free = slots;
    for first in present {
        if first.overlaps(&second) {
            return Err(MemoryFault::Overlap { first, second });
        }
        free = free.saturating_sub(1);
    }
    if free == 0 { Err(MemoryFault::TooMany { slots }) } else { Ok(second) }
}

/// Checks that a region was added: guest address, size and user address are the key.
pub(crate) fn check_remove(
    mut present: impl Iterator<Item = RegionExtent>,
    region: &MemoryRegion,
) -> Result<RegionExtent, MemoryFault> {
    let extent = RegionExtent::from(region);
    if present.any(|present| present == extent) { Ok(extent) } else { Err(MemoryFault::Unknown(extent)) }
}

/// Checks that these regions can be all the memory there is.
pub(crate) fn check_table(
    slots: usize,
    regions: impl Iterator<Item = MemoryRegion>,
) -> Result<TableExtents, MemoryFault> {
    let mut extents = TableExtents::new();
    for region in regions {
        let extent = check_add(extents.iter().copied(), slots, &region)?;
        extents.push(extent).map_err(|_| MemoryFault::TooMany { slots: MAX_TABLE_REGIONS })?;
    }
    Ok(extents)
}

fn check_alone(region: &MemoryRegion) -> Result<RegionExtent, MemoryFault> {
    let extent = RegionExtent::from(region);
    let starts = [region.guest_address.0, region.user_address.0, region.mmap_offset];
    if region.size == 0 {
        Err(MemoryFault::Empty(extent))
    } else if starts.iter().any(|start| start.checked_add(region.size).is_none()) {
        Err(MemoryFault::Wraps(extent))
    } else {
        Ok(extent)
    }
}

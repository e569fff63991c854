//! Which parts of the guest's memory are shared: no overlap, no wrap, found by binary search.

use core::fmt;

use crate::{
    address::{GuestAddress, UserAddress},
    wire::memory::{MAX_TABLE_REGIONS, MemoryRegion, MemoryTable},
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
    /// Their places among `regions` in the order of their user addresses.
    by_user_address: heapless::Vec<u16, REGIONS>,
}

impl<const REGIONS: usize> Default for MemoryMap<REGIONS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const REGIONS: usize> MemoryMap<REGIONS> {
    const PLACES: () = assert!(REGIONS <= 0xffff, "a place must fit into 16 bits");

    /// No memory.
    #[must_use]
    pub const fn new() -> Self {
        let () = Self::PLACES;
        Self { regions: heapless::Vec::new(), by_user_address: heapless::Vec::new() }
    }

    /// The regions in the order of their guest addresses.
    #[must_use]
    pub fn regions(&self) -> &[RegionExtent] {
        &self.regions
    }

    /// The region that begins at a guest address.
    #[must_use]
    pub(crate) fn at(&self, guest_address: GuestAddress) -> Option<&RegionExtent> {
        self.regions.get(self.place(guest_address)).filter(|region| region.guest_address == guest_address)
    }

    /// A region that shares an address with this one.
    pub(crate) fn overlapping(&self, extent: &RegionExtent) -> Option<&RegionExtent> {
        // None overlaps another, so if any overlaps it, then the last that begins before its end does.
        let end = GuestAddress(extent.guest_address.0.saturating_add(extent.size));
        let last = self.regions.get(self.place(end).wrapping_sub(1)).filter(|region| region.overlaps(extent));
        if last.is_some() {
            return last;
        }
        let end = UserAddress(extent.user_address.0.saturating_add(extent.size));
        let place = self.by_user_address.get(self.user_place(end).wrapping_sub(1))?;
        self.regions.get(usize::from(*place)).filter(|region| region.overlaps(extent))
    }

    /// Puts a region into its place. It was checked that there is room and that it is new.
    #[inline(never)]
    pub(crate) fn add(&mut self, extent: &RegionExtent) {
        let place = self.place(extent.guest_address);
        let user_place = self.user_place(extent.user_address);
        let (Ok(number), false) = (u16::try_from(place), self.regions.is_full()) else { return };
        for other in &mut self.by_user_address {
            *other = other.wrapping_add(u16::from(*other >= number));
        }
        insert(&mut self.regions, place, *extent);
        insert(&mut self.by_user_address, user_place, number);
    }

    pub(crate) fn remove(&mut self, guest_address: GuestAddress) {
        let place = self.place(guest_address);
        let Some(region) = self.regions.get(place).filter(|region| region.guest_address == guest_address) else {
            return;
        };
        let Ok(number) = u16::try_from(place) else { return };
        let mut user_place = self.user_place(region.user_address);
        if self.by_user_address.get(user_place) != Some(&number) {
            // A peer that grants what it should not can bring two of one address here.
            user_place = self.by_user_address.iter().position(|other| *other == number).unwrap_or(user_place);
        }
        remove(&mut self.by_user_address, user_place);
        remove(&mut self.regions, place);
        for other in &mut self.by_user_address {
            *other = other.wrapping_sub(u16::from(*other > number));
        }
    }

    pub(crate) fn replace(&mut self, table: &TableExtents) {
        self.regions.clear();
        self.by_user_address.clear();
        for extent in table {
            self.add(extent);
        }
    }

    /// Where in the order of guest addresses a region is, or would be, that begins at this one.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    fn place(&self, guest_address: GuestAddress) -> usize {
        self.regions.partition_point(|region| region.guest_address < guest_address)
    }

    /// The same in the order of user addresses.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    fn user_place(&self, user_address: UserAddress) -> usize {
        let region_at = |place: &u16| self.regions.get(usize::from(*place));
        self.by_user_address
            .partition_point(|place| region_at(place).is_some_and(|region| region.user_address < user_address))
    }
}

/// Puts a value into a place of a list that has room for it.
fn insert<T: Copy, const N: usize>(list: &mut heapless::Vec<T, N>, place: usize, value: T) {
    if list.push(value).is_err() {
        return;
    }
    let Some(tail) = list.get_mut(place..) else { return };
    if let Some(moved) = tail.len().checked_sub(1) {
        tail.copy_within(..moved, 1);
    }
    if let Some(first) = tail.first_mut() {
        *first = value;
    }
}

/// Takes a value out of its place in a list.
fn remove<T: Copy, const N: usize>(list: &mut heapless::Vec<T, N>, place: usize) {
    if let Some(tail) = list.get_mut(place..)
        && !tail.is_empty()
    {
        tail.copy_within(1.., 0);
        let _ = list.pop();
    }
}

/// Checks that these regions can be all the memory there is, and puts them into `extents`, which is empty.
#[inline(never)]
pub(crate) fn check_table(
    slots: usize,
    regions: &MemoryTable<'_>,
    extents: &mut TableExtents,
) -> Result<(), MemoryFault> {
    for at in 0..regions.len() {
        let Some(region) = &regions.get(at) else { break };
        let second = check_alone(region)?;
        for first in extents.iter().copied() {
            if first.overlaps(&second) {
                return Err(MemoryFault::Overlap { first, second });
            }
        }
        if extents.len() >= slots {
            return Err(MemoryFault::TooMany { slots });
        }
        if extents.push(second).is_err() {
            return Err(MemoryFault::TooMany { slots: MAX_TABLE_REGIONS });
        }
    }
    Ok(())
}

/// Checks what a region must be whatever others there are.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
pub(crate) fn check_alone(region: &MemoryRegion) -> Result<RegionExtent, MemoryFault> {
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

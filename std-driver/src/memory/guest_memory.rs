//! Mapped memory as the ring code of the core sees it: pieces that were looked up once and are used many times.

use core::sync::atomic::{AtomicU8, Ordering};
use std::sync::Arc;

use vhost_core::{Access, GuestAddress, GuestMemory, GuestRange, Load, Store, Unmapped};
use vm_memory::{Bytes, GuestMemoryRegion, MemoryRegionAddress, VolatileMemory, VolatileSlice};

use super::{AddressSpace, MappedRegion, MemoryTable};

/// A piece of memory that keeps its mapping alive: for what is used longer than one batch, such as a ring itself.
#[derive(Clone, Debug)]
pub struct OwnedRange {
    region: Arc<MappedRegion>,
    offset: usize,
    length: usize,
}

/// A piece of memory that lasts as long as the table it was found in: for the buffers of a batch.
#[derive(Clone, Copy, Debug)]
pub struct BorrowedRange<'m> {
    slice: VolatileSlice<'m>,
    address: GuestAddress,
}

/// A table whose pieces are [borrowed](BorrowedRange).
#[derive(Clone, Copy, Debug)]
pub struct Borrowed<'m>(pub &'m MemoryTable);

impl GuestMemory for MemoryTable {
    type Address = GuestAddress;
    type Range = OwnedRange;

    fn piece(&self, address: GuestAddress, length: u64, _access: Access) -> Result<OwnedRange, Unmapped> {
        let (region, offset, length) = find(self, address, length)?;
        Ok(OwnedRange { region: Arc::clone(region), offset, length })
    }
}

impl<'m> GuestMemory for Borrowed<'m> {
    type Address = GuestAddress;
    type Range = BorrowedRange<'m>;

    fn piece(&self, address: GuestAddress, length: u64, _access: Access) -> Result<BorrowedRange<'m>, Unmapped> {
        let (region, offset, length) = find(self.0, address, length)?;
        let slice = region.get_slice(MemoryRegionAddress(offset as u64), length).map_err(|_| Unmapped::Outside)?;
        Ok(BorrowedRange { slice, address })
    }
}

impl<'m> BorrowedRange<'m> {
    /// The bytes.
    #[must_use]
    pub fn slice(&self) -> VolatileSlice<'m> {
        self.slice
    }
}

/// The region that holds `address`, the offset there, and how many of `length` bytes it holds. Everything is mapped to be
/// read and written.
fn find(
    table: &MemoryTable,
    address: GuestAddress,
    length: u64,
) -> Result<(&Arc<MappedRegion>, usize, usize), Unmapped> {
    let (region, offset) = table.region_at(AddressSpace::Guest, address.0).ok_or(Unmapped::Outside)?;
    let rest = region.region().size.checked_sub(offset).ok_or(Unmapped::Outside)?;
    match (usize::try_from(offset), usize::try_from(length.min(rest))) {
        (Ok(offset), Ok(length @ 1..)) => Ok((region, offset, length)),
        _ => Err(Unmapped::Outside),
    }
}

impl OwnedRange {
    fn slice(&self) -> Option<VolatileSlice<'_>> {
        self.region.get_slice(MemoryRegionAddress(self.offset as u64), self.length).ok()
    }
}

macro_rules! ranges {
    ($($range:ty, |$this:ident| $length:expr, $address:expr, $slice:expr;)*) => {$(
        impl GuestRange for $range {
            fn len(&self) -> usize {
                let $this = self;
                $length
            }

            fn guest_address(&self) -> GuestAddress {
                let $this = self;
                $address
            }

            #[inline]
            fn load_u16(&self, offset: usize, order: Load) -> Option<u16> {
                let $this = self;
                let order = match order {
                    Load::Relaxed => Ordering::Relaxed,
                    Load::Acquire => Ordering::Acquire,
                };
                $slice?.load::<u16>(offset, order).ok().map(u16::from_le)
            }

            #[inline]
            fn store_u16(&self, offset: usize, value: u16, order: Store) -> Option<()> {
                let $this = self;
                let order = match order {
                    Store::Relaxed => Ordering::Relaxed,
                    Store::Release => Ordering::Release,
                };
                $slice?.store(value.to_le(), offset, order).ok()
            }

            fn fetch_or(&self, offset: usize, bits: u8) -> Option<u8> {
                let $this = self;
                let slice = $slice?;
                let byte = slice.get_atomic_ref::<AtomicU8>(offset).ok()?;
                Some(byte.fetch_or(bits, Ordering::Release))
            }

            #[inline]
            fn read_into(&self, offset: usize, out: &mut [u8]) -> Option<()> {
                let $this = self;
                $slice?.read_slice(out, offset).ok()
            }

            #[inline]
            fn write_from(&self, offset: usize, bytes: &[u8]) -> Option<()> {
                let $this = self;
                $slice?.write_slice(bytes, offset).ok()
            }
        }
    )*};
}

ranges! {
    OwnedRange, |this| this.length,
        GuestAddress(this.region.region().guest_address.0.wrapping_add(this.offset as u64)),
        this.slice();
    BorrowedRange<'_>, |this| this.slice.len(), this.address, Some(this.slice);
}

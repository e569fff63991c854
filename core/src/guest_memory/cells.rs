//! Memory of this thread alone: an array of bytes, for tests, models and loops without concurrency.

use core::cell::Cell;

use super::{Access, GuestMemory, GuestRange, Load, Store, Unmapped, locate};
use crate::address::GuestAddress;

/// Bytes that one thread reads and writes, placed at a guest address.
///
/// A driver and a device in the same thread can share them. They are no way to share memory with
/// anybody else, because the compiler may keep such bytes in registers.
#[derive(Clone, Copy, Debug)]
pub struct CellMemory<'a> {
    base: GuestAddress,
    cells: &'a [Cell<u8>],
}

/// A part of a [`CellMemory`].
#[derive(Clone, Copy, Debug)]
pub struct CellRange<'a> {
    address: GuestAddress,
    cells: &'a [Cell<u8>],
}

impl<'a> CellMemory<'a> {
    /// `cells` as guest memory that begins at `base`.
    #[must_use]
    pub const fn new(base: GuestAddress, cells: &'a [Cell<u8>]) -> Self {
        Self { base, cells }
    }
}

impl<'a> GuestMemory for CellMemory<'a> {
    type Address = GuestAddress;
    type Range = CellRange<'a>;

    fn piece(&self, address: GuestAddress, length: u64, _: Access) -> Result<CellRange<'a>, Unmapped> {
        let (offset, count) = locate(self.base, self.cells.len(), address, length)?;
        let end = offset.checked_add(count).ok_or(Unmapped::Outside)?;
        let cells = self.cells.get(offset..end).ok_or(Unmapped::Outside)?;
        Ok(CellRange { address, cells })
    }
}

impl<'a> CellRange<'a> {
    fn bytes(&self, offset: usize, length: usize) -> Option<&'a [Cell<u8>]> {
        self.cells.get(offset..offset.checked_add(length)?)
    }

    /// The two bytes of a number that lies at an even guest address.
    fn number(&self, offset: usize) -> Option<&'a [Cell<u8>; 2]> {
        let address = u64::try_from(offset).ok()?.checked_add(self.address.0)?;
        if address.is_multiple_of(2) { self.bytes(offset, 2)?.first_chunk() } else { None }
    }
}

impl GuestRange for CellRange<'_> {
    fn len(&self) -> usize {
        self.cells.len()
    }

    fn guest_address(&self) -> GuestAddress {
        self.address
    }

    fn load_u16(&self, offset: usize, _: Load) -> Option<u16> {
        let [low, high] = self.number(offset)?;
        Some(u16::from_le_bytes([low.get(), high.get()]))
    }

    fn store_u16(&self, offset: usize, value: u16, _: Store) -> Option<()> {
        let [low, high] = self.number(offset)?;
        let [low_byte, high_byte] = value.to_le_bytes();
        low.set(low_byte);
        high.set(high_byte);
        Some(())
    }

    fn fetch_or(&self, offset: usize, bits: u8) -> Option<u8> {
        let cell = self.cells.get(offset)?;
        Some(cell.replace(cell.get() | bits))
    }

    fn read_into(&self, offset: usize, out: &mut [u8]) -> Option<()> {
        let cells = self.bytes(offset, out.len())?;
        for (byte, cell) in out.iter_mut().zip(cells) {
            *byte = cell.get();
        }
        Some(())
    }

    fn write_from(&self, offset: usize, bytes: &[u8]) -> Option<()> {
        let cells = self.bytes(offset, bytes.len())?;
        for (cell, byte) in cells.iter().zip(bytes) {
            cell.set(*byte);
        }
        Some(())
    }
}

//! A piece of shared memory that this side lays out.

use std::sync::Arc;

use vhost_core::{Access, GuestAddress, GuestMemory, Unmapped, UserAddress};
use vm_memory::{Bytes, MemoryRegionAddress};

use super::DriverError;
use crate::memory::{MappedRegion, MemoryFile, OwnedRange};

/// A piece of one memory region, by offsets from its start. The other side may read and write it at any time.
///
/// The core's ring code takes it for guest memory: that of its own guest addresses.
#[derive(Clone, Debug)]
pub struct GuestArea {
    region: Arc<MappedRegion>,
    /// Where it begins in the region.
    start: u64,
    length: u64,
}

impl GuestArea {
    /// All of `memory`.
    #[must_use]
    pub fn of(memory: &MemoryFile) -> Self {
        Self { region: Arc::clone(memory.mapped()), start: 0, length: memory.region().size }
    }

    /// `length` bytes of this area from `offset` on.
    ///
    /// # Errors
    /// [`OutsideArea`](DriverError::OutsideArea).
    pub fn part(&self, offset: u64, length: u64) -> Result<Self, DriverError> {
        let outside = DriverError::OutsideArea { offset, length, available: self.length };
        match offset.checked_add(length) {
            Some(end) if end <= self.length => {
                Ok(Self { region: Arc::clone(&self.region), start: self.start + offset, length })
            }
            _ => Err(outside),
        }
    }

    /// Bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The guest address of the byte at `offset`.
    #[must_use]
    pub fn guest_address(&self, offset: u64) -> GuestAddress {
        GuestAddress(self.region.region().guest_address.0.wrapping_add(self.start).wrapping_add(offset))
    }

    /// The address of the byte at `offset` in this process.
    #[must_use]
    pub fn user_address(&self, offset: u64) -> UserAddress {
        UserAddress(self.region.region().user_address.0.wrapping_add(self.start).wrapping_add(offset))
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    /// [`OutsideArea`](DriverError::OutsideArea).
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DriverError> {
        let at = self.check(offset, bytes.len())?;
        self.region.write_slice(bytes, at).map_err(|_| self.outside(offset, bytes.len()))
    }

    /// Copies the bytes at `offset` into `buffer`.
    ///
    /// # Errors
    /// [`OutsideArea`](DriverError::OutsideArea).
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DriverError> {
        let at = self.check(offset, buffer.len())?;
        self.region.read_slice(buffer, at).map_err(|_| self.outside(offset, buffer.len()))
    }

    /// Writes zeros.
    ///
    /// # Errors
    /// [`OutsideArea`](DriverError::OutsideArea).
    pub fn clear(&self) -> Result<(), DriverError> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut offset = 0;
        while offset < self.length {
            let piece = (self.length - offset).min(ZEROS.len() as u64);
            self.write(offset, ZEROS.get(..piece as usize).unwrap_or_default())?;
            offset += piece;
        }
        Ok(())
    }

    /// `length` bytes at `offset`, for what is accessed often.
    pub(super) fn owned(&self, offset: u64, length: u64) -> Result<OwnedRange, DriverError> {
        let outside = DriverError::OutsideArea { offset, length, available: self.length };
        GuestMemory::range(self, self.guest_address(offset), length, Access::ReadWrite).map_err(|_| outside)
    }

    fn check(&self, offset: u64, length: usize) -> Result<MemoryRegionAddress, DriverError> {
        match offset.checked_add(length as u64) {
            Some(end) if end <= self.length => Ok(MemoryRegionAddress(self.start + offset)),
            _ => Err(self.outside(offset, length)),
        }
    }

    fn outside(&self, offset: u64, length: usize) -> DriverError {
        DriverError::OutsideArea { offset, length: length as u64, available: self.length }
    }
}

impl GuestMemory for GuestArea {
    type Address = GuestAddress;
    type Range = OwnedRange;

    fn piece(&self, address: GuestAddress, length: u64, _access: Access) -> Result<OwnedRange, Unmapped> {
        let left = address.0.checked_sub(self.guest_address(0).0).and_then(|offset| self.length.checked_sub(offset));
        let length = length.min(left.ok_or(Unmapped::Outside)?);
        OwnedRange::new(Arc::clone(&self.region), address, length).ok_or(Unmapped::Outside)
    }
}

//! The part of this machine's RAM that others share with it.

use core::{slice, sync::atomic::AtomicU16};

use vhost_core::{MemoryRegion, RingAddress, WordMemory};

use crate::machine::RAM;

/// Where the shared part begins in the file of the RAM, and where it ends. The image and its stack are below it.
const BEGIN: u64 = 16 << 20;
const END: u64 = 32 << 20;

/// A region of the front-end's memory, which lies in this machine's RAM.
#[derive(Clone, Copy)]
pub(crate) struct Region {
    extent: MemoryRegion,
    pub(crate) memory: WordMemory<'static>,
}

impl Region {
    /// `None` if the region is not in the shared part as a whole.
    pub(crate) fn find(extent: MemoryRegion) -> Option<Self> {
        let end = extent.mmap_offset.checked_add(extent.size)?;
        if extent.mmap_offset < BEGIN || end > END || !extent.mmap_offset.is_multiple_of(2) {
            return None;
        }
        let first = RAM.checked_add(usize::try_from(extent.mmap_offset).ok()?)?;
        let count = usize::try_from(extent.size).ok()? / 2;
        // SAFETY: these bytes are RAM for as long as the machine runs, and aligned; nothing of the image lies there, so
        // that nobody has another reference to them; the front-end writes to them at any time, as to atomics.
        let words = unsafe { slice::from_raw_parts(first as *const AtomicU16, count) };
        Some(Self { extent, memory: WordMemory::new(extent.guest_address, words)? })
    }

    /// The guest address of what the front-end has at its own address `address`, if it lies in the region.
    pub(crate) fn guest_address(&self, address: RingAddress) -> Option<u64> {
        let offset = address.0.checked_sub(self.extent.user_address.0).filter(|offset| *offset < self.extent.size)?;
        self.extent.guest_address.0.checked_add(offset)
    }
}

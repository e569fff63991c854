//! Guest memory with a ring in it, and the driver that fills it.

use core::sync::atomic::{Ordering, fence};
use std::sync::Arc;

use vhost_std::memory::{MemoryFile, MemoryTable};
use vm_memory::{Bytes, GuestAddress, VolatileSlice};

/// Descriptors of the rings, chains of a batch, descriptors of a chain.
pub(crate) const SIZE: u16 = 256;
pub(crate) const BATCH: u16 = 64;
pub(crate) const LINKS: u16 = 3;

/// Where rings are; buffers are in the last region.
pub(crate) const DESCRIPTORS: u64 = 0x1000;
pub(crate) const DRIVER: u64 = 0x3000;
pub(crate) const DEVICE: u64 = 0x4000;

const REGION: u64 = 0x20_0000;

/// `VIRTQ_DESC_F_NEXT` and `_WRITE`, and of packed rings `_AVAIL` and `_USED`.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// Guest memory of some regions.
pub(crate) struct Guest {
    pub(crate) table: MemoryTable,
    buffers: u64,
}

impl Guest {
    pub(crate) fn new(regions: usize) -> Self {
        let files = (0..regions as u64).map(|region| MemoryFile::create("guest", 2 * region * REGION, REGION).unwrap());
        let table = MemoryTable::new(files.map(|file| Arc::clone(file.mapped()))).unwrap();
        Self { table, buffers: 2 * (regions as u64 - 1) * REGION + 0x10_0000 }
    }

    fn slice(&self, address: u64, length: usize) -> VolatileSlice<'_> {
        self.table.guest_slice(address, length).unwrap()
    }

    /// Address, length and flags of each descriptor of a chain: a header, a page, a status.
    fn links(&self, chain: u16) -> [(u64, u32, u16); LINKS as usize] {
        let at = self.buffers + 0x2000 * u64::from(chain % BATCH);
        [(at, 16, NEXT), (at + 0x1000, 4096, NEXT | WRITE), (at + 0x20, 1, WRITE)]
    }

    /// Writes the whole descriptor table and all entries of the available ring.
    pub(crate) fn fill_split(&self) {
        self.slice(DRIVER, 0x2000).copy_from(&[0_u8; 0x2000]);
        for chain in 0..SIZE {
            let head = LINKS * (chain % BATCH);
            for (link, (address, length, flags)) in (head..).zip(self.links(chain)) {
                self.write_descriptor(link, address, length, [flags, link + 1]);
            }
            self.slice(DRIVER, 0x1000).write_obj(head.to_le(), 4 + 2 * usize::from(chain)).unwrap();
        }
    }

    /// Makes chains available up to this free-running index.
    pub(crate) fn show_split(&self, index: u16) {
        self.slice(DRIVER, 4).store(index.to_le(), 2, Ordering::Release).unwrap();
    }

    /// Empties a packed ring.
    pub(crate) fn clear_packed(&self) {
        self.slice(DESCRIPTORS, 0x4000).copy_from(&[0_u8; 0x4000]);
        // The driver wants a call at a place that does not come.
        self.slice(DRIVER, 4).store(0x7fff_u16.to_le(), 0, Ordering::Relaxed).unwrap();
        self.slice(DRIVER, 4).store(2_u16.to_le(), 2, Ordering::Relaxed).unwrap();
    }

    /// Makes a batch available in a packed ring, from this place on; the place behind it.
    pub(crate) fn show_packed(&self, (mut index, mut wrap): (u16, bool)) -> (u16, bool) {
        for chain in 0..BATCH {
            for (address, length, flags) in self.links(chain) {
                let lap = if wrap { AVAIL } else { USED };
                self.write_descriptor(index, address, length, [chain, flags | lap]);
                index += 1;
                if index == SIZE {
                    (index, wrap) = (0, !wrap);
                }
            }
        }
        fence(Ordering::SeqCst);
        (index, wrap)
    }

    fn write_descriptor(&self, index: u16, address: u64, length: u32, last: [u16; 2]) {
        let bytes = u128::from(address)
            | (u128::from(length) << 64)
            | (u128::from(last[0]) << 96)
            | (u128::from(last[1]) << 112);
        let at = GuestAddress(DESCRIPTORS + 16 * u64::from(index));
        self.table.guest_memory().write_slice(&bytes.to_le_bytes(), at).unwrap();
    }
}

//! Guest memory with a disk's ring in it, and the driver that fills it.

use core::sync::atomic::{Ordering, fence};
use std::sync::Arc;

use vhost_core::{RingLayout, VirtioFeatures};
use vhost_std::memory::{MemoryFile, MemoryTable};
use vhost_std::vring::{RingAddresses, Vring};
use vm_memory::{Bytes, VolatileSlice};

/// Requests of a batch.
pub(crate) const BATCH: u16 = 32;
/// Bytes of the disk.
pub(crate) const DISK: u64 = 1 << 20;

const SIZE: u16 = 128;
const LINKS: u16 = 3;
const BLOCK: u64 = 4096;

const DESCRIPTORS: u64 = 0x1000;
const DRIVER: u64 = 0x2000;
const DEVICE: u64 = 0x3000;
/// Headers, statuses and indirect tables, 128 bytes of each request; then the data.
const SMALL: u64 = 0x1_0000;
const DATA: u64 = 0x10_0000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// What a request is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Read,
    Write,
}

/// Where its descriptors are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Ring,
    Indirect,
}

#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) layout: RingLayout,
    pub(crate) table: Table,
    pub(crate) request: Request,
}

impl Shape {
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for layout in [RingLayout::Split, RingLayout::Packed] {
            for table in [Table::Indirect, Table::Ring] {
                all.extend([Request::Read, Request::Write].map(|request| Self { layout, table, request }));
            }
        }
        all
    }

    pub(crate) fn features(self) -> VirtioFeatures {
        let layout = match self.layout {
            RingLayout::Split => VirtioFeatures::empty(),
            RingLayout::Packed => VirtioFeatures::RING_PACKED,
        };
        layout | VirtioFeatures::RING_INDIRECT | VirtioFeatures::RING_EVENT_IDX
    }
}

/// A descriptor: address, length, and flags but those of a packed ring's laps.
type Link = (u64, u32, u16);

pub(crate) struct Guest {
    shape: Shape,
    table: MemoryTable,
    /// Split: the available index. Packed: the place of the next descriptor.
    index: u16,
    wrap: bool,
}

impl Guest {
    pub(crate) fn new(shape: Shape) -> Self {
        let file = MemoryFile::create("guest", 0, DATA + BLOCK * u64::from(BATCH)).unwrap();
        let table = MemoryTable::new([Arc::clone(file.mapped())]).unwrap();
        let guest = Self { shape, table, index: 0, wrap: true };
        for request in 0..BATCH {
            guest.prepare(request);
        }
        guest
    }

    /// The device's side.
    pub(crate) fn vring(&self) -> Vring {
        let place = vhost_core::GuestAddress;
        let addresses = RingAddresses { descriptor: place(DESCRIPTORS), driver: place(DRIVER), device: place(DEVICE) };
        let mut vring = Vring::new(0);
        vring.set_features(self.shape.features()).unwrap();
        vring.set_size(SIZE.into()).unwrap();
        vring.set_memory(self.table.clone(), Some(addresses)).unwrap();
        vring.start().unwrap();
        vring.enable();
        vring
    }

    /// Makes a batch available.
    pub(crate) fn show(&mut self) {
        for request in 0..BATCH {
            self.slice(status(request), 1).write_obj(0xff_u8, 0).unwrap();
            match self.shape.layout {
                RingLayout::Split => {
                    let slot = u64::from(self.index % SIZE);
                    self.slice(DRIVER + 4 + 2 * slot, 2).write_obj(self.head(request).to_le(), 0).unwrap();
                    self.index = self.index.wrapping_add(1);
                }
                RingLayout::Packed => self.links(request).into_iter().for_each(|link| self.show_packed(request, link)),
            }
        }
        match self.shape.layout {
            RingLayout::Split => self.slice(DRIVER, 4).store(self.index.to_le(), 2, Ordering::Release).unwrap(),
            RingLayout::Packed => fence(Ordering::SeqCst),
        }
    }

    /// Whether all requests of the batch were carried out.
    pub(crate) fn check(&self) {
        for request in 0..BATCH {
            assert_eq!(self.slice(status(request), 1).read_obj::<u8>(0).unwrap(), 0);
        }
    }

    fn slice(&self, address: u64, length: usize) -> VolatileSlice<'_> {
        self.table.guest_slice(address, length).unwrap()
    }

    /// Writes what stays: header, tables.
    fn prepare(&self, request: u16) {
        let kind: u32 = if self.shape.request == Request::Read { 0 } else { 1 };
        let header = u128::from(kind.to_le()) | (u128::from(request) * u128::from(BLOCK / 512)) << 64;
        self.slice(small(request), 16).copy_from(&header.to_le_bytes());
        let buffers = self.buffers(request);
        match (self.shape.table, self.shape.layout) {
            (Table::Indirect, layout) => {
                for (at, buffer) in (0..).zip(buffers) {
                    self.write(table(request), at, buffer, if layout == RingLayout::Split { at + 1 } else { 0 });
                }
                self.write(DESCRIPTORS, self.head(request), self.links(request)[0], 0);
            }
            (Table::Ring, RingLayout::Split) => {
                for (at, buffer) in (self.head(request)..).zip(buffers) {
                    self.write(DESCRIPTORS, at, buffer, at + 1);
                }
            }
            (Table::Ring, RingLayout::Packed) => {}
        }
    }

    /// The first descriptor of a request in a split ring.
    fn head(&self, request: u16) -> u16 {
        if self.shape.table == Table::Ring { LINKS * request } else { request }
    }

    /// The descriptors of a request in the ring itself.
    fn links(&self, request: u16) -> Vec<Link> {
        match self.shape.table {
            Table::Indirect => vec![(table(request), 16 * u32::from(LINKS), INDIRECT)],
            Table::Ring => self.buffers(request).to_vec(),
        }
    }

    fn buffers(&self, request: u16) -> [Link; LINKS as usize] {
        let data = if self.shape.request == Request::Read { WRITE } else { 0 };
        let page = DATA + BLOCK * u64::from(request);
        [(small(request), 16, NEXT), (page, BLOCK as u32, NEXT | data), (status(request), 1, WRITE)]
    }

    /// Puts a descriptor behind the others of a packed ring.
    fn show_packed(&mut self, request: u16, (address, length, flags): Link) {
        let lap = if self.wrap { AVAIL } else { USED };
        // The flags are last in a packed ring, and the id is before them.
        let bytes = descriptor(address, length, [request, flags | lap]);
        self.slice(DESCRIPTORS + 16 * u64::from(self.index), 16).copy_from(&bytes);
        self.index += 1;
        if self.index == SIZE {
            (self.index, self.wrap) = (0, !self.wrap);
        }
    }

    /// Writes a descriptor of a table. In that of a packed ring the flags are last too.
    fn write(&self, table: u64, index: u16, (address, length, flags): Link, next: u16) {
        let last = if self.shape.layout == RingLayout::Split { [flags, next] } else { [0, flags & !NEXT] };
        self.slice(table + 16 * u64::from(index), 16).copy_from(&descriptor(address, length, last));
    }
}

fn descriptor(address: u64, length: u32, [third, last]: [u16; 2]) -> [u8; 16] {
    let number = u128::from(address) | u128::from(length) << 64 | u128::from(third) << 96 | u128::from(last) << 112;
    number.to_le_bytes()
}

fn small(request: u16) -> u64 {
    SMALL + 128 * u64::from(request)
}

fn table(request: u16) -> u64 {
    small(request) + 16
}

fn status(request: u16) -> u64 {
    small(request) + 64
}

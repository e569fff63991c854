//! Guest memory for tests: bytes that a test writes and reads by hand.

use core::cell::Cell;

use vhost_core::{
    Access, CellMemory, CellRange, DeviceQueue, DeviceRing, DriverQueue, DriverRing, GuestAddress, GuestMemory,
    GuestRange, Layout, RingAddresses, RingLayout, RingParts, RingUser, VirtioFeatures, wire::vring::VringBase,
};

/// Where the parts of a test's ring are; small enough that every part fits a ring of 16.
pub(crate) const ADDRESSES: RingAddresses<GuestAddress> =
    RingAddresses { descriptor: GuestAddress(0x1000), driver: GuestAddress(0x1800), device: GuestAddress(0x1c00) };

/// Free for buffers and tables.
pub(crate) const FREE: u64 = 0x2000;

/// The first guest address, and the one behind the last.
pub(crate) const START: u64 = 0x1000;
pub(crate) const END: u64 = 0x8000;

/// Guest memory from `START` to `END`.
pub(crate) struct Guest {
    cells: Vec<Cell<u8>>,
}

impl Guest {
    pub(crate) fn new() -> Self {
        Self { cells: vec![Cell::new(0); (END - START) as usize] }
    }

    pub(crate) fn memory(&self) -> CellMemory<'_> {
        CellMemory::new(GuestAddress(START), &self.cells)
    }

    pub(crate) fn cells(&self) -> &[Cell<u8>] {
        &self.cells
    }

    pub(crate) fn range(&self, address: u64, length: u64) -> CellRange<'_> {
        self.memory().range(GuestAddress(address), length, Access::ReadWrite).unwrap()
    }

    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        let at = (address - START) as usize;
        for (cell, byte) in self.cells[at..at + bytes.len()].iter().zip(bytes) {
            cell.set(*byte);
        }
    }

    pub(crate) fn get<const N: usize>(&self, address: u64) -> [u8; N] {
        let at = (address - START) as usize;
        core::array::from_fn(|index| self.cells[at + index].get())
    }

    pub(crate) fn put_u16(&self, address: u64, number: u16) {
        self.put(address, &number.to_le_bytes());
    }

    pub(crate) fn get_u16(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.get(address))
    }

    /// Writes a descriptor of a table: address, length, flags, next.
    pub(crate) fn table_entry(&self, table: u64, index: u16, buffer: (u64, u32), flags: u16, next: u16) {
        let at = table + 16 * u64::from(index);
        self.put(at, &buffer.0.to_le_bytes());
        self.put(at + 8, &buffer.1.to_le_bytes());
        self.put_u16(at + 12, flags);
        self.put_u16(at + 14, next);
    }

    /// Writes a descriptor of an indirect table: in a packed ring it has the form of those in the ring, without links, as
    /// Linux writes it and the specification says (section "Indirect Flag: Scatter-Gather Support").
    pub(crate) fn indirect_entry(
        &self,
        features: VirtioFeatures,
        table: u64,
        index: u16,
        buffer: (u64, u32),
        (flags, next): (u16, u16),
    ) {
        match RingLayout::of(features) {
            RingLayout::Split => self.table_entry(table, index, buffer, flags, next),
            RingLayout::Packed => self.table_entry(table, index, buffer, 0, flags),
        }
    }

    /// Writes a descriptor of a packed ring: address, length, id, flags.
    pub(crate) fn ring_entry(&self, index: u16, buffer: (u64, u32), id: u16, flags: u16) {
        self.table_entry(ADDRESSES.descriptor.0, index, buffer, id, flags);
    }

    /// Puts `head` where the available entry `position` is, and lets the device see everything up to it.
    pub(crate) fn offer(&self, size: u16, position: u16, head: u16) {
        self.put_u16(ADDRESSES.driver.0 + 4 + 2 * u64::from(position % size), head);
        self.put_u16(ADDRESSES.driver.0 + 2, position.wrapping_add(1));
    }

    /// The used entry `position`: id and length.
    pub(crate) fn used(&self, size: u16, position: u16) -> (u32, u32) {
        let at = ADDRESSES.device.0 + 4 + 8 * u64::from(position % size);
        (u32::from_le_bytes(self.get(at)), u32::from_le_bytes(self.get(at + 4)))
    }

    pub(crate) fn used_index(&self) -> u16 {
        self.get_u16(ADDRESSES.device.0 + 2)
    }

    pub(crate) fn parts(&self, layout: RingLayout, size: u16, user: RingUser) -> RingParts<CellRange<'_>> {
        RingParts::translate(&self.memory(), ADDRESSES, layout, size.into(), user).unwrap()
    }

    /// The device's side of a new ring.
    pub(crate) fn device(&self, size: u16, features: VirtioFeatures) -> DeviceQueue<CellRange<'_>> {
        self.device_of(size, features)
    }

    /// The same, perhaps of a type for one layout only.
    pub(crate) fn device_of<L: Layout>(&self, size: u16, features: VirtioFeatures) -> DeviceRing<CellRange<'_>, L> {
        let layout = RingLayout::of(features);
        DeviceRing::new(self.parts(layout, size, RingUser::Device), size.into(), features, first_base(layout)).unwrap()
    }

    /// The driver's side of a new ring.
    pub(crate) fn driver<const N: usize>(&self, size: u16, features: VirtioFeatures) -> DriverQueue<CellRange<'_>, N> {
        self.driver_of(size, features)
    }

    /// The same, perhaps of a type for one layout only.
    pub(crate) fn driver_of<L: Layout, const N: usize>(
        &self,
        size: u16,
        features: VirtioFeatures,
    ) -> DriverRing<CellRange<'_>, L, N> {
        let parts = self.parts(RingLayout::of(features), size, RingUser::Driver);
        DriverRing::new(parts, size.into(), features).unwrap()
    }
}

/// The base of a ring that was never used.
pub(crate) fn first_base(layout: RingLayout) -> VringBase {
    match layout {
        RingLayout::Split => VringBase::split(0),
        RingLayout::Packed => VringBase::packed(0x8000_8000),
    }
}

/// `VIRTQ_DESC_F_NEXT`, `_WRITE` and `_INDIRECT`; in packed rings `_AVAIL` and `_USED`, too.
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;
pub(crate) const AVAIL: u16 = 1 << 7;
pub(crate) const USED: u16 = 1 << 15;

/// What a device gathers of a chain.
pub(crate) type Pieces<'a> = heapless::Vec<CellRange<'a>, 8>;

/// Where the pieces are, and their bytes.
pub(crate) fn places(pieces: &[CellRange<'_>]) -> Vec<(u64, usize)> {
    pieces.iter().map(|piece| (piece.guest_address().0, piece.len())).collect()
}

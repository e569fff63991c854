//! Both sides of a ring of either layout in memory that holds anything and changes at any time: no panic, every walk ends,
//! and a broken ring is an error. In memory that nobody else writes, everything arrives, once and as it was sent.

mod sides;

use core::cell::Cell;

use vhost_core::{CellMemory, GuestAddress, RingAddresses, RingLayout, VirtioFeatures, wire::vring::VringBase};

use crate::reader::Reader;

use sides::Sides;

/// Bytes of memory: the ring's parts, the indirect tables, and behind them whatever descriptors point to.
const MEMORY: usize = 0x800;

/// Whether anybody but the two sides writes to memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    Hostile,
    Honest,
}

/// Runs operations.
pub fn run(data: &[u8]) {
    let mut reader = Reader(data);
    let (Some(control), Some(size)) = (reader.byte(), reader.byte()) else { return };
    let packed = if control & 1 == 0 { VirtioFeatures::empty() } else { VirtioFeatures::RING_PACKED };
    let kind = if control & 2 == 0 { Memory::Hostile } else { Memory::Honest };
    let wanted = VirtioFeatures::from_bits_retain(reader.number()) - VirtioFeatures::RING_PACKED;
    let features = wanted | packed | VirtioFeatures::VERSION_1;
    let size = u32::from(size % 17);
    let base = u32::try_from(reader.number() & 0xffff_ffff).expect("32 bits");
    let layout = RingLayout::of(features);
    let base = match (kind, layout) {
        // Where a driver begins.
        (Memory::Honest, RingLayout::Split) => VringBase::split(0),
        (Memory::Honest, RingLayout::Packed) => VringBase::packed(0x8000_8000),
        (Memory::Hostile, RingLayout::Split) => VringBase::split(base),
        (Memory::Hostile, RingLayout::Packed) => VringBase::packed(base),
    };
    let cells: Vec<Cell<u8>> = (0..MEMORY).map(|_| Cell::new(0)).collect();
    let contents = reader.take(usize::from(control >> 2) * 8);
    if kind == Memory::Hostile {
        cells.iter().zip(contents).for_each(|(cell, byte)| cell.set(*byte));
    }
    let memory = CellMemory::new(GuestAddress(0), &cells);
    let [descriptor, driver, device] = [0, 0x100, 0x180].map(GuestAddress);
    let addresses = RingAddresses { descriptor, driver, device };
    let Some(mut sides) = Sides::new(&memory, addresses, size, features, base, kind) else { return };
    while let (Some(operation), Some(number)) = (reader.byte(), reader.byte()) {
        if operation % 12 == 11 {
            if kind == Memory::Hostile {
                cells[usize::from(number) * 2 % MEMORY].set(operation);
            }
        } else if sides.step(operation, number).is_none() {
            assert!(kind == Memory::Hostile, "a ring that nobody broke is broken");
            return;
        }
    }
    if kind == Memory::Honest {
        sides.finish();
    }
}

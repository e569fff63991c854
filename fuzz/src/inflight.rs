//! Going on from an in-flight record of any bytes: each chain once, none that the ring does not have.

use core::cell::Cell;

use vhost_core::{
    Access, CellMemory, CellRange, DeviceQueue, GuestAddress, GuestMemory, PopError, Resubmission, RingAddresses,
    RingLayout, RingParts, RingUser, VirtioFeatures, wire::vring::VringBase,
};

use crate::reader::Reader;

/// Where the record is, and how many of its bytes an input has.
pub const RECORD: usize = 0x400;
pub const RECORD_SIZE: usize = 0x140;
/// Bytes of memory.
pub const MEMORY: usize = 0x800;

/// Recovers, takes every chain again, and gives it back.
pub fn run(data: &[u8]) {
    let mut reader = Reader(data);
    let Some(control) = reader.byte() else { return };
    let Some(base) = reader.take(4).first_chunk().map(|bytes| u32::from_le_bytes(*bytes)) else { return };
    let packed = if control & 1 == 0 { VirtioFeatures::empty() } else { VirtioFeatures::RING_PACKED };
    let features = VirtioFeatures::VERSION_1 | VirtioFeatures::RING_INDIRECT | packed;
    let size = if packed.is_empty() { 1 << (control >> 1 & 3) } else { u16::from(control >> 1 & 7) + 1 };
    let cells: Vec<Cell<u8>> = (0..MEMORY).map(|_| Cell::new(0)).collect();
    for (cell, byte) in cells[RECORD..].iter().zip(reader.take(RECORD_SIZE)) {
        cell.set(*byte);
    }
    for (cell, byte) in cells.iter().zip(reader.0) {
        cell.set(*byte);
    }
    let memory = CellMemory::new(GuestAddress(0), &cells);
    let [descriptor, driver, device] = [0, 0x100, 0x180].map(GuestAddress);
    let addresses = RingAddresses { descriptor, driver, device };
    let layout = RingLayout::of(features);
    let base = if packed.is_empty() { VringBase::split(base) } else { VringBase::packed(base) };
    let length = DeviceQueue::<CellRange<'_>>::inflight_size(layout, size);
    let open = || {
        let parts = RingParts::translate(&memory, addresses, layout, size.into(), RingUser::Device).ok()?;
        let queue = DeviceQueue::new(parts, size.into(), features, base).ok()?;
        let record = memory.range(GuestAddress(RECORD as u64), length, Access::ReadWrite).expect("there is room");
        Some((queue, record))
    };
    let Some((mut first, record)) = open() else { return };
    let mut before = [Resubmission::default(); 8];
    let Ok(before) = first.recover(record, &mut before) else { return };
    // A process that ends here leaves a record from which the next one goes on in the same way.
    let (mut queue, record) = open().expect("as before");
    let mut room = [Resubmission::default(); 8];
    let found = queue.recover(record, &mut room).expect("as before");
    assert_eq!(before, found, "another process finds something else");
    // Head and entries have 16 bytes in a split ring's record and 32 in a packed one's; the counter is eight bytes behind.
    let line = if packed.is_empty() { 16 } else { 32 };
    let counter = |chain: &Resubmission| {
        let at = RECORD + line * (usize::from(chain.entry) + 1) + 8;
        u64::from_ne_bytes(core::array::from_fn(|byte| cells[at + byte].get()))
    };
    assert!(found.is_sorted_by_key(counter), "older chains come first");
    assert!(found.len() <= usize::from(size), "more chains than the ring has");
    assert!(usize::from(queue.held()) <= usize::from(size));
    let entries: std::collections::BTreeSet<_> = found.iter().map(|chain| chain.entry).collect();
    assert_eq!(entries.len(), found.len(), "a chain came twice");
    for resubmission in found.iter() {
        let mut pieces = heapless::Vec::<CellRange<'_>, 8>::new();
        let chain = match queue.pop_recovered(resubmission, &memory, &mut pieces) {
            Ok(chain) | Err(PopError::Malformed { chain, .. }) => chain,
            Err(_) => return,
        };
        if queue.push(chain, 0).is_err() {
            return;
        }
    }
    assert_eq!(queue.held(), 0, "everything came back");
}

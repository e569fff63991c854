//! Inflight records of every state: a back-end ends after any write to memory, and what it leaves is an input.

use core::cell::Cell;

use vhost_core::{
    Access, Buffer, CellMemory, CellRange, DeviceQueue, DriverQueue, GuestAddress, GuestMemory, Resubmission,
    RingAddresses, RingLayout, RingParts, RingUser, VirtioFeatures, wire::vring::VringBase,
};
use vhost_fuzz::inflight::{MEMORY, RECORD, RECORD_SIZE};

use crate::Seed;

pub fn all() -> Vec<Seed> {
    let mut inputs = Vec::new();
    for (layout, sizes) in [(RingLayout::Split, &[2, 4, 8][..]), (RingLayout::Packed, &[2, 3, 5, 8])] {
        for size in sizes {
            let states = life(layout, *size);
            let whole: Vec<_> = states.iter().map(|memory| input(layout, *size, &memory[RECORD..], memory)).collect();
            // The record of one moment beside the ring of the next: what ends in between leaves that.
            let torn = states.windows(2).flat_map(|pair| {
                [(0, 1), (1, 0)].map(|(record, ring)| input(layout, *size, &pair[record][RECORD..], &pair[ring]))
            });
            inputs.extend(whole.iter().cloned().chain(torn));
            // A record that somebody else wrote to: each byte of its head, and some behind.
            let last = &states[states.len() / 2];
            for at in (8..32).chain([40, 48, 64, 72]) {
                for value in [1, 0xff] {
                    let mut memory = last.clone();
                    memory[RECORD + at] ^= value;
                    inputs.push(input(layout, *size, &memory[RECORD..], &memory));
                }
            }
        }
    }
    inputs.into_iter().map(|input| ("inflight", input)).collect()
}

/// As the target reads it: layout and size, position, the record, the ring.
fn input(layout: RingLayout, size: u16, record: &[u8], ring: &[u8]) -> Vec<u8> {
    let control = match layout {
        RingLayout::Split => u8::try_from(size.ilog2()).unwrap() << 1,
        RingLayout::Packed => 1 | u8::try_from(size - 1).unwrap() << 1,
    };
    let base: u32 = if layout == RingLayout::Split { 0 } else { 0x8000_8000 };
    let end = RECORD - ring[..RECORD].iter().rev().take_while(|byte| **byte == 0).count();
    [&[control], &base.to_le_bytes()[..], &record[..RECORD_SIZE], &ring[..end]].concat()
}

/// Memory after every operation of a driver and a device.
fn life(layout: RingLayout, size: u16) -> Vec<Vec<u8>> {
    let cells: Vec<Cell<u8>> = (0..MEMORY).map(|_| Cell::new(0)).collect();
    let memory = CellMemory::new(GuestAddress(0), &cells);
    let mut states = vec![now(&cells)];
    let [descriptor, driver, device] = [0, 0x100, 0x180].map(GuestAddress);
    let addresses = RingAddresses { descriptor, driver, device };
    let packed = if layout == RingLayout::Packed { VirtioFeatures::RING_PACKED } else { VirtioFeatures::empty() };
    let features = VirtioFeatures::VERSION_1 | packed;
    let parts = |user| RingParts::translate(&memory, addresses, layout, size.into(), user).unwrap();
    let mut driver = DriverQueue::<CellRange<'_>, 8>::new(parts(RingUser::Driver), size.into(), features).unwrap();
    let base = if layout == RingLayout::Split { VringBase::split(0) } else { VringBase::packed(0x8000_8000) };
    let mut device = DeviceQueue::new(parts(RingUser::Device), size.into(), features, base).unwrap();
    let length = DeviceQueue::<CellRange<'_>>::inflight_size(layout, size);
    let record = memory.range(GuestAddress(RECORD as u64), length, Access::ReadWrite).unwrap();
    assert!(device.recover(record, &mut [Resubmission::default(); 8]).unwrap().is_empty());
    states.push(now(&cells));
    let mut held = Vec::new();
    for round in 0..2 * u64::from(size) {
        while let Ok(_token) = driver.add(&[Buffer { address: GuestAddress(0x700 + round), length: 4 }], &[]) {
            driver.publish().unwrap();
        }
        let mut pieces = heapless::Vec::<CellRange<'_>, 8>::new();
        while let Some(chain) = device.pop(&memory, &mut pieces).unwrap() {
            held.push(chain);
            states.push(now(&cells));
        }
        // Out of order, one by one and staged.
        let first = held.pop().unwrap();
        if round % 2 == 0 || held.is_empty() {
            device.push(first, 0).unwrap();
            states.push(now(&cells));
        } else {
            device.stage(first, 0).unwrap();
            states.push(now(&cells));
            device.stage(held.remove(0), 0).unwrap();
            states.push(now(&cells));
            device.publish().unwrap();
        }
        states.push(now(&cells));
        while driver.poll().unwrap().is_some() {}
    }
    states
}

fn now(cells: &[Cell<u8>]) -> Vec<u8> {
    cells.iter().map(Cell::get).collect()
}

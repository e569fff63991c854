//! Both sides of a ring of either layout in memory that holds anything and changes at any time: no panic, every walk ends,
//! and a broken ring is an error.

use core::cell::Cell;

use vhost_core::{
    Buffer, CellMemory, CellRange, Chain, DeviceQueue, DriverQueue, GuestAddress, PopError, RingAddresses, RingLayout,
    RingParts, RingUser, VirtioFeatures, wire::vring::VringBase,
};

use crate::reader::Reader;

/// Bytes of memory: the ring's parts, and behind them whatever descriptors point to.
const MEMORY: usize = 0x800;
/// The most pieces of a chain.
const PIECES: usize = 8;

/// Runs operations.
pub fn run(data: &[u8]) {
    let mut reader = Reader(data);
    let (Some(control), Some(size)) = (reader.byte(), reader.byte()) else { return };
    let packed = if control & 1 == 0 { VirtioFeatures::empty() } else { VirtioFeatures::RING_PACKED };
    let wanted = VirtioFeatures::from_bits_retain(reader.number()) - VirtioFeatures::RING_PACKED;
    let features = wanted | packed | VirtioFeatures::VERSION_1;
    let size = u32::from(size % 17);
    let base = u32::try_from(reader.number() & 0xffff_ffff).expect("32 bits");
    let base = if packed.is_empty() { VringBase::split(base) } else { VringBase::packed(base) };

    let cells: Vec<Cell<u8>> = (0..MEMORY).map(|_| Cell::new(0)).collect();
    for (cell, byte) in cells.iter().zip(reader.take(usize::from(control >> 1) * 4)) {
        cell.set(*byte);
    }
    let memory = CellMemory::new(GuestAddress(0), &cells);
    let [descriptor, driver, device] = [0, 0x100, 0x180].map(GuestAddress);
    let addresses = RingAddresses { descriptor, driver, device };
    let layout = RingLayout::of(features);
    let parts = |user| RingParts::<CellRange<'_>>::translate(&memory, addresses, layout, size, user);
    let (Ok(device_parts), Ok(driver_parts)) = (parts(RingUser::Device), parts(RingUser::Driver)) else { return };
    let Ok(mut device) = DeviceQueue::new(device_parts, size, features, base) else { return };
    let Ok(mut driver) = DriverQueue::<_, 16>::new(driver_parts, size, features) else { return };

    let mut taken: Vec<Chain> = Vec::new();
    while let (Some(operation), Some(number)) = (reader.byte(), reader.byte()) {
        let mut pieces = heapless::Vec::<CellRange<'_>, PIECES>::new();
        match operation % 12 {
            0 | 1 => match device.pop(&memory, &mut pieces) {
                Ok(Some(chain)) => {
                    assert!(usize::from(device.held()) <= size as usize && pieces.len() <= PIECES);
                    let (readable, writable) = chain.split(&pieces);
                    assert_eq!(readable.len() + writable.len(), pieces.len());
                    taken.push(chain);
                }
                Ok(None) => {}
                Err(PopError::Malformed { chain, .. }) => taken.push(chain),
                Err(_) => return,
            },
            2 | 3 => {
                if !taken.is_empty() {
                    let chain = taken.remove(usize::from(number) % taken.len());
                    let _ = device.push(chain, u32::from(operation) << 4);
                }
            }
            4 => drop(device.needs_call()),
            5 => drop(device.enable_kicks()),
            6 | 7 => {
                let buffer =
                    |seed: u8| Buffer { address: GuestAddress(u64::from(seed) * 8), length: u32::from(seed & 0xf) };
                let buffers = [number, operation, number ^ operation].map(buffer);
                let (readable, writable) = buffers.split_at(usize::from(number % 4));
                let _ = driver.add(readable, writable);
            }
            8 => drop(driver.publish().and_then(|()| driver.needs_kick())),
            9 => drop(driver.poll()),
            10 => drop(driver.enable_calls()),
            // Somebody writes to memory.
            _ => cells[usize::from(number) * 2 % MEMORY].set(operation),
        }
    }
}

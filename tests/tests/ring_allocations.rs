//! Taking chains and giving them back allocates nothing, in the core's rings and in a vring that a device serves.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::sync::Arc;

use vhost_core::{
    Buffer, DeviceQueue, DriverQueue, GuestAddress, RingAddresses, RingLayout, RingParts, RingUser, VirtioFeatures,
    wire::vring::VringBase,
};
use vhost_std::device::{Device, Queue};
use vhost_std::memory::{Borrowed, BorrowedRange, MemoryFile, MemoryTable, OwnedRange};
use vhost_std::vring::{Turn, Vring};
use vhost_tests::allocations::{Counting, allocations};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SIZE: u16 = 64;
const ADDRESSES: RingAddresses<GuestAddress> =
    RingAddresses { descriptor: GuestAddress(0x1000), driver: GuestAddress(0x2000), device: GuestAddress(0x3000) };
const BUFFERS: u64 = 0x10000;

const LAYOUTS: [VirtioFeatures; 2] = [VirtioFeatures::empty(), VirtioFeatures::RING_PACKED];

type Driver = DriverQueue<OwnedRange, 64>;

fn parts(table: &MemoryTable, features: VirtioFeatures, user: RingUser) -> RingParts<OwnedRange> {
    RingParts::translate(table, ADDRESSES, RingLayout::of(features), SIZE.into(), user).unwrap()
}

fn table() -> MemoryTable {
    let files = [(0, 0x10000), (BUFFERS, 0x10000)].map(|(at, size)| MemoryFile::create("guest", at, size).unwrap());
    MemoryTable::new(files.map(|file| Arc::clone(file.mapped()))).unwrap()
}

/// Makes chains of three buffers available until the ring is full; how many.
fn fill(driver: &mut Driver) -> u32 {
    let buffer = |at, length| Buffer { address: GuestAddress(BUFFERS + at), length };
    let mut count = 0;
    while driver.add(&[buffer(0, 16)], &[buffer(0x1000, 4096), buffer(0x20, 1)]).is_ok() {
        count += 1;
    }
    driver.publish().unwrap();
    count
}

/// Takes everything back; how many.
fn drain(driver: &mut Driver) -> u32 {
    let mut count = 0;
    while driver.poll().unwrap().is_some() {
        count += 1;
    }
    count
}

#[test]
fn a_ring_allocates_nothing() {
    for features in LAYOUTS {
        let table = table();
        let mut driver: Driver =
            DriverQueue::new(parts(&table, features, RingUser::Driver), SIZE.into(), features).unwrap();
        let base = if features.is_empty() { VringBase::split(0) } else { VringBase::packed(0x8000_8000) };
        let device = parts(&table, features, RingUser::Device);
        let mut device = DeviceQueue::new(device, SIZE.into(), features, base).unwrap();
        let mut chains = 0;
        let allocated = allocations(|| {
            for _ in 0..50 {
                let added = fill(&mut driver);
                let memory = Borrowed::new(&table);
                let mut pieces = heapless::Vec::<BorrowedRange<'_>, 8>::new();
                while let Some(chain) = device.pop(&memory, &mut pieces).unwrap() {
                    assert_eq!(pieces.len(), 3);
                    device.push(chain, 4097).unwrap();
                    device.needs_call().unwrap();
                }
                assert_eq!(drain(&mut driver), added);
                chains += added;
            }
        });
        assert_eq!((chains, allocated), (50 * u32::from(SIZE / 3), 0), "{features:?}");
    }
}

/// Completes everything.
struct Sink;

impl Device for Sink {
    fn device_id(&self) -> u32 {
        42
    }

    fn queues(&self) -> u16 {
        1
    }

    fn process(&self, queue: &mut Queue<'_>) {
        while let Some(chain) = queue.next() {
            let written = u32::try_from(chain.writable().len()).unwrap();
            queue.complete(chain, written);
        }
    }
}

#[test]
fn a_vring_allocates_nothing_once_it_is_warm() {
    for features in LAYOUTS {
        let table = table();
        let mut driver: Driver =
            DriverQueue::new(parts(&table, features, RingUser::Driver), SIZE.into(), features).unwrap();
        let mut vring = Vring::new(0);
        vring.set_features(features).unwrap();
        vring.set_size(SIZE.into()).unwrap();
        vring.set_memory(table.clone(), Some(ADDRESSES)).unwrap();
        vring.start().unwrap();
        vring.enable();
        let mut turn = || {
            let added = fill(&mut driver);
            assert_eq!(vring.process(&Sink), Ok(Turn::Idle));
            assert_eq!(drain(&mut driver), added);
        };
        turn();
        let allocated = allocations(|| (0..50).for_each(|_| turn()));
        assert_eq!(allocated, 0, "{features:?}");
    }
}

#[test]
fn allocations_are_counted() {
    assert_eq!(allocations(|| drop(core::hint::black_box(vec![1_u8; 100]))), 1);
}

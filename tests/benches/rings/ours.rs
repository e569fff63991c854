//! A device with a ring of this project.

use core::hint::black_box;
use core::time::Duration;
use std::time::Instant;

use vhost_core::{
    ChainBuffer, DeviceQueue, GuestAddress, NoRoom, RingAddresses, RingLayout, RingParts, RingUser, VirtioFeatures,
    wire::vring::VringBase,
};
use vhost_std::memory::{Borrowed, BorrowedRange, OwnedRange};
use vm_memory::VolatileSlice;

use crate::memory::{BATCH, DESCRIPTORS, DEVICE, DRIVER, Guest, SIZE};

pub(crate) const SPLIT: VirtioFeatures = VirtioFeatures::empty();
pub(crate) const PACKED: VirtioFeatures = VirtioFeatures::RING_PACKED;
pub(crate) const EVENT_IDX: VirtioFeatures = VirtioFeatures::RING_EVENT_IDX;

/// How chains are given back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Give {
    Each,
    /// All of a batch become visible at once.
    Batch,
    /// And after each, whether the driver wants a call.
    EachAndAsk,
}

pub(crate) struct Ours<'g> {
    guest: &'g Guest,
    queue: DeviceQueue<OwnedRange>,
    give: Give,
    pieces: Pieces<'g>,
    index: u16,
    place: (u16, bool),
}

/// The pieces of a chain, as a device wants them.
struct Pieces<'g>(Vec<VolatileSlice<'g>>);

impl<'g> ChainBuffer<BorrowedRange<'g>> for Pieces<'g> {
    fn clear(&mut self) {
        self.0.clear();
    }

    fn push(&mut self, piece: BorrowedRange<'g>) -> Result<(), NoRoom> {
        self.0.push(piece.slice());
        Ok(())
    }
}

impl<'g> Ours<'g> {
    pub(crate) fn new(guest: &'g Guest, features: VirtioFeatures, give: Give) -> Self {
        let layout = RingLayout::of(features);
        let addresses = RingAddresses {
            descriptor: GuestAddress(DESCRIPTORS),
            driver: GuestAddress(DRIVER),
            device: GuestAddress(DEVICE),
        };
        match layout {
            RingLayout::Split => guest.fill_split(),
            RingLayout::Packed => guest.clear_packed(),
        }
        let base = match layout {
            RingLayout::Split => VringBase::split(0),
            RingLayout::Packed => VringBase::packed(0x8000_8000),
        };
        let parts = RingParts::translate(&guest.table, addresses, layout, SIZE.into(), RingUser::Device).unwrap();
        let queue = DeviceQueue::new(parts, SIZE.into(), features, base).unwrap();
        Self { guest, queue, give, pieces: Pieces(Vec::with_capacity(8)), index: 0, place: (0, true) }
    }

    pub(crate) fn batch(&mut self) -> Duration {
        match self.queue.layout() {
            RingLayout::Split => {
                self.index = self.index.wrapping_add(BATCH);
                self.guest.show_split(self.index);
            }
            RingLayout::Packed => self.place = self.guest.show_packed(self.place),
        }
        let start = Instant::now();
        let memory = Borrowed::new(&self.guest.table);
        let mut count = 0;
        while let Some(chain) = self.queue.pop(&memory, &mut self.pieces).unwrap() {
            black_box(&self.pieces.0);
            count += 1;
            self.queue.stage(chain, 4097).unwrap();
            if self.give != Give::Batch {
                self.queue.publish().unwrap();
            }
            if self.give == Give::EachAndAsk {
                black_box(self.queue.needs_call().unwrap());
            }
        }
        self.queue.publish().unwrap();
        let time = start.elapsed();
        assert_eq!(count, BATCH);
        time
    }
}

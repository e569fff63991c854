//! A device with a ring of the `virtio-queue` crate.

use core::hint::black_box;
use core::time::Duration;
use std::time::Instant;

use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestMemoryBackend, VolatileSlice};

use crate::memory::{BATCH, DESCRIPTORS, DEVICE, DRIVER, Guest, SIZE};

/// Whether the device asks if the driver wants a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    Never,
    /// After each chain.
    Each,
}

pub(crate) struct Theirs<'g> {
    guest: &'g Guest,
    queue: Queue,
    asks: Asks,
    pieces: Vec<VolatileSlice<'g>>,
    index: u16,
}

impl<'g> Theirs<'g> {
    pub(crate) fn new(guest: &'g Guest, asks: Asks) -> Self {
        guest.fill_split();
        let mut queue = Queue::new(SIZE).unwrap();
        queue.set_desc_table_address(Some(DESCRIPTORS as u32), Some(0));
        queue.set_avail_ring_address(Some(DRIVER as u32), Some(0));
        queue.set_used_ring_address(Some(DEVICE as u32), Some(0));
        queue.set_event_idx(asks == Asks::Each);
        queue.set_ready(true);
        Self { guest, queue, asks, pieces: Vec::with_capacity(8), index: 0 }
    }

    pub(crate) fn batch(&mut self) -> Duration {
        self.index = self.index.wrapping_add(BATCH);
        self.guest.show_split(self.index);
        let start = Instant::now();
        let memory = self.guest.table.guest_memory();
        let mut count = 0;
        while let Some(chain) = self.queue.pop_descriptor_chain(memory) {
            let head = chain.head_index();
            self.pieces.clear();
            for descriptor in chain {
                let slice = memory.get_slice(descriptor.addr(), descriptor.len() as usize).unwrap();
                self.pieces.push(slice);
            }
            black_box(&self.pieces);
            count += 1;
            self.queue.add_used(memory, head, 4097).unwrap();
            if self.asks == Asks::Each {
                black_box(self.queue.needs_notification(memory).unwrap());
            }
        }
        let time = start.elapsed();
        assert_eq!(count, BATCH);
        time
    }
}

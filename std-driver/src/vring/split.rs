//! The indices and notifications of a split ring in guest memory. The only file that knows the `virtio-queue` crate.

use core::sync::atomic::{Ordering, fence};

use virtio_queue::{Error, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::RingAddresses;
use super::fault::{RingFault, RingPart};
use super::walk::{DESCRIPTOR_BYTES, Table};
use crate::memory::MappedMemory;

/// `VIRTQ_AVAIL_F_NO_INTERRUPT`
const NO_INTERRUPT: u16 = 1;

/// A running split ring.
pub(super) struct SplitRing {
    queue: Queue,
    addresses: RingAddresses,
}

impl SplitRing {
    /// Checks that the ring lies in `memory`. The next chain to take is `base`; where the next used one goes, the ring in
    /// memory says.
    pub(super) fn new(
        memory: &MappedMemory,
        addresses: RingAddresses,
        size: u16,
        base: u16,
        event_idx: bool,
    ) -> Result<Self, RingFault> {
        addresses.check(memory, size)?;
        let mut queue = Queue::new(size).map_err(|_| RingFault::NotConfigured)?;
        let halves = |address: u64| (Some(address as u32), Some((address >> 32) as u32));
        let (low, high) = halves(addresses.descriptor);
        queue.set_desc_table_address(low, high);
        let (low, high) = halves(addresses.available);
        queue.set_avail_ring_address(low, high);
        let (low, high) = halves(addresses.used);
        queue.set_used_ring_address(low, high);
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        queue.set_next_avail(base);
        let used = queue.used_idx(memory, Ordering::Acquire).map_err(access)?;
        queue.set_next_used(used.0);
        Ok(Self { queue, addresses })
    }

    /// Head of the next available chain, which counts as taken then.
    pub(super) fn next_head(&mut self, memory: &MappedMemory) -> Result<Option<u16>, RingFault> {
        match self.queue.iter(memory) {
            Ok(mut available) => Ok(available.next().map(|chain| chain.head_index())),
            Err(Error::InvalidAvailRingIndex) => Err(RingFault::AvailableAhead {
                available: self.queue.avail_idx(memory, Ordering::Relaxed).map_err(access)?.0,
                next: self.queue.next_avail(),
                size: self.queue.size(),
            }),
            Err(error) => Err(access(error)),
        }
    }

    /// Where chains are looked up.
    pub(super) fn table(&self) -> Table {
        Table::of_ring(self.addresses.descriptor, self.queue.size())
    }

    /// Gives a chain back; `head` is below the ring size.
    pub(super) fn push_used(&mut self, memory: &MappedMemory, head: u16, written: u32) -> Result<(), RingFault> {
        self.queue.add_used(memory, head, written).map_err(access)
    }

    /// Asks the driver not to kick, as far as it can be asked.
    pub(super) fn disable_kicks(&mut self, memory: &MappedMemory) -> Result<(), RingFault> {
        self.queue.disable_notification(memory).map_err(access)
    }

    /// Asks for a kick at the next available chain. True when there is one already, for which no kick will come.
    pub(super) fn enable_kicks(&mut self, memory: &MappedMemory) -> Result<bool, RingFault> {
        self.queue.enable_notification(memory).map_err(access)
    }

    /// Whether the driver wants to be signalled for what was given back since the last question.
    pub(super) fn needs_call(&mut self, memory: &MappedMemory) -> Result<bool, RingFault> {
        if self.queue.event_idx_enabled() {
            return self.queue.needs_notification(memory).map_err(access);
        }
        // The used index must be visible before the flags are read: the driver writes the flags, then looks at the index.
        fence(Ordering::SeqCst);
        let flags: u16 =
            memory.load(GuestAddress(self.addresses.available), Ordering::Relaxed).map_err(|_| RingFault::Access)?;
        Ok(u16::from_le(flags) & NO_INTERRUPT == 0)
    }

    /// Index of the next chain to take.
    pub(super) fn base(&self) -> u16 {
        self.queue.next_avail()
    }
}

fn access(_: Error) -> RingFault {
    RingFault::Access
}

impl RingAddresses {
    /// Whether each part is aligned and in `memory` as a whole.
    pub(super) fn check(&self, memory: &MappedMemory, size: u16) -> Result<(), RingFault> {
        for (part, address, length, alignment) in self.parts(size) {
            if !address.is_multiple_of(alignment) {
                return Err(RingFault::Misaligned { part, address });
            }
            let inside = usize::try_from(length).is_ok_and(|length| memory.check_range(GuestAddress(address), length));
            if !inside {
                return Err(RingFault::OutsideMemory { part, address, length });
            }
        }
        Ok(())
    }

    /// Each part with its address, bytes and alignment (specification, 2.7).
    fn parts(&self, size: u16) -> [(RingPart, u64, u64, u64); 3] {
        let size = u64::from(size);
        [
            (RingPart::Descriptor, self.descriptor, size * u64::from(DESCRIPTOR_BYTES), 16),
            // flags, index, the entries, used_event
            (RingPart::Available, self.available, 4 + 2 * size + 2, 2),
            // flags, index, the entries, avail_event
            (RingPart::Used, self.used, 4 + 8 * size + 2, 4),
        ]
    }
}

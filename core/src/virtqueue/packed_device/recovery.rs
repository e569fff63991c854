//! Going on where another device left a packed ring, from its inflight record.

use super::{FLAGS, PackedDevice, PackedDeviceState, load_flags};
use crate::{
    guest_memory::{GuestMemory, GuestRange, Load, Store},
    inflight::{Record, Resubmission},
    virtqueue::{
        chain::{Chain, ChainBuffer, Extent, Origin},
        descriptor::{available_flags, descriptor_offset, is_available, is_used},
        event::Place,
        fault::{PopError, RingFault, RingPart},
        gather::Gather,
        layout::RingLayout,
        part::store,
    },
};

impl<R: GuestRange> PackedDevice<R> {
    /// Records every chain in the inflight record in `range` from now on, and finds in it what its last writer left:
    /// the chains to take again with [`PackedDevice::pop_recovered`] before any other, oldest
    /// first. They count as taken, so the ring goes on behind them, wherever its base was.
    ///
    /// Call it before the first chain is taken; `room` holds as many entries as the ring.
    ///
    /// # Errors
    /// See the `Inflight` faults of [`RingFault`]. The ring goes on without a record then.
    pub fn recover<'r>(&mut self, range: R, room: &'r mut [Resubmission]) -> Result<&'r [Resubmission], RingFault> {
        let state = &mut self.state;
        self.inflight = None;
        let mut record = Record::open(range, state.size, RingLayout::Packed)?;
        let submitted = |place: Place| {
            let flags = load_flags(&self.parts.descriptor, place.index, Load::Acquire)?;
            Ok(!is_available(flags, place.wrap))
        };
        let found = record.recover_packed(state.next_used, submitted, room)?;
        state.next_used = found.used;
        state.held = found.slots;
        state.next_available = found.used.forward(found.slots, state.size);
        self.inflight = Some(record);
        self.hide_staged()?;
        Ok(found.resubmissions)
    }

    /// Takes the used flags away from descriptors that the last device staged and did not publish.
    ///
    /// Only the first one of a batch hides them, and the next batch may have another first one; then
    /// the driver would take chains back that are still in flight.
    fn hide_staged(&self) -> Result<(), RingFault> {
        let PackedDeviceState { size, held, next_used, .. } = self.state;
        for ahead in 0..held {
            let Place { index, wrap } = next_used.forward(ahead, size);
            if is_used(load_flags(&self.parts.descriptor, index, Load::Relaxed)?, wrap) {
                let offset = descriptor_offset(index).wrapping_add(FLAGS);
                let flags = available_flags(wrap);
                store(&self.parts.descriptor, RingPart::DescriptorRing, offset, flags, Store::Relaxed)?;
                if let Some(log) = &self.log {
                    log.mark_lying(&self.parts.descriptor, RingPart::DescriptorRing, offset, 2)?;
                }
            }
        }
        Ok(())
    }

    /// Takes a chain again that was in flight when the record's last writer ended.
    ///
    /// # Errors
    /// See [`PopError`].
    pub fn pop_recovered<M, B>(
        &mut self,
        resubmission: &Resubmission,
        memory: &M,
        buffer: &mut B,
    ) -> Result<Chain, PopError>
    where
        M: GuestMemory,
        B: ChainBuffer<M::Range>,
    {
        let state = &self.state;
        let mut gather = Gather::new(memory, buffer, state.features, state.size);
        let Resubmission { entry: record, position, slots, .. } = *resubmission;
        let inflight = self.inflight.as_ref().ok_or(RingFault::NoInflight)?;
        let (mut id, mut entry, mut is_sound) = (0, record, true);
        for _ in 0..slots {
            let (descriptor, next) = inflight.copy(entry)?;
            is_sound = is_sound && gather.packed(record, descriptor).is_some();
            (id, entry) = (descriptor.link, next);
        }
        gather.check()?;
        let (origin, extent) = (Origin::Record, Extent::default());
        gather.finish(Chain { id, position, slots, record, origin, extent })
    }
}

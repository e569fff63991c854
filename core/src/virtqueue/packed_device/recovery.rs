//! Going on where another device left a packed ring, from its inflight record.

use super::{FLAGS, PackedDevice, PackedDeviceState, access, load_flags};
use crate::{
    guest_memory::{GuestMemory, GuestRange, Load, Store},
    inflight::{InflightFault, PackedInflight, Resubmission},
    virtqueue::{
        chain::{Chain, ChainBuffer, Origin},
        descriptor::{available_flags, descriptor_offset, is_available, is_used},
        event::Place,
        fault::{PopError, RingFault},
        gather::{Gather, Indirect},
    },
};

impl<R: GuestRange> PackedDevice<R> {
    /// Records every chain in `inflight` from now on, and finds in it what its last writer left:
    /// the chains to take again with [`PackedDevice::pop_recovered`] before any other, oldest
    /// first. They count as taken, so the ring goes on behind them, wherever its base was.
    ///
    /// Call it before the first chain is taken; `room` holds as many entries as the ring.
    ///
    /// # Errors
    /// See [`InflightFault`](crate::InflightFault). The ring is as it was then.
    pub fn recover<'r>(
        &mut self,
        mut inflight: PackedInflight<R>,
        room: &'r mut [Resubmission],
    ) -> Result<&'r [Resubmission], RingFault> {
        let state = &mut self.state;
        let submitted = |place: Place| {
            let flags = load_flags(&self.parts.descriptor, place.index, Load::Acquire)?;
            Ok::<_, RingFault>(!is_available(flags, place.wrap))
        };
        let found = inflight.recover(state.next_used, submitted, room)?;
        state.next_used = found.used;
        state.held = found.slots;
        state.next_available = found.used.forward(found.slots, state.size);
        self.inflight = Some(inflight);
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
                let offset = descriptor_offset(index).saturating_add(FLAGS);
                self.parts.descriptor.store_u16(offset, available_flags(wrap), Store::Relaxed).ok_or(access(offset))?;
                if let Some(log) = &self.log {
                    log.mark_lying(&self.parts.descriptor, offset, 2)?;
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
        let mut gather = Gather::new(memory, buffer, Indirect::of(state.features, state.size));
        let Resubmission { entry: record, position, slots, .. } = *resubmission;
        let inflight = self.inflight.as_ref().ok_or(RingFault::Inflight(InflightFault::NoRecord))?;
        let (mut outcome, mut id) = (Ok(()), 0);
        for descriptor in inflight.chain(record, slots) {
            let descriptor = descriptor.map_err(RingFault::from)?;
            if outcome.is_ok() {
                outcome = gather.packed(record, descriptor);
            }
            id = descriptor.link;
        }
        let (extent, fault) = gather.finish(outcome)?;
        let chain = Chain { id, position, slots, record, origin: Origin::Record, extent };
        match fault {
            None => Ok(chain),
            Some(fault) => Err(PopError::Malformed { chain, fault }),
        }
    }
}

//! Going on where another device left a ring, from its inflight record.

use super::DeviceRing;
use crate::{
    guest_memory::{GuestMemory, GuestRange, Load, Store},
    inflight::{Journal, Record, Resubmission},
    virtqueue::{
        chain::{Chain, ChainBuffer, Entry, Origin},
        descriptor::{available_flags, is_available, is_used},
        fault::{PopError, RingFault, RingPart},
        gather::Gather,
        kind::Layout,
        layout::RingLayout,
        part::{flags_at, load_flags, store},
        position::Position,
    },
};

impl<R: GuestRange, L: Layout> DeviceRing<R, L> {
    /// Records every chain in the inflight record that lies in `range` from now on, and finds in it what its last writer left:
    /// the chains to take again with [`DeviceRing::pop_recovered`] before any other, oldest first. They count as taken, so the
    /// ring goes on behind them, wherever its base was.
    ///
    /// Call it before the first chain is taken; `room` holds as many entries as the ring.
    ///
    /// # Errors
    /// See the `Inflight` faults of [`RingFault`]. The ring goes on without a record then.
    pub fn recover<'r>(&mut self, range: R, room: &'r mut [Resubmission]) -> Result<&'r [Resubmission], RingFault> {
        let (layout, state) = (self.layout(), &mut self.state);
        self.inflight = None;
        let record = self.inflight.insert(Journal::new(Record::open(range, state.size, layout)?)).record();
        let descriptors = &self.parts.descriptor;
        let submitted = |place: Position| {
            let flags = load_flags(descriptors, place, Load::Acquire)?;
            Ok(!is_available(flags, place.wrap()))
        };
        let found = match layout {
            RingLayout::Split => record.recover_split(state.published, room),
            RingLayout::Packed => record.recover_packed(state.next_used, submitted, room).map(Some),
        };
        let found = match found {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(&[]),
            Err(fault) => {
                self.inflight = None;
                return Err(fault);
            }
        };
        // Whatever was taken and is not used is in the record. A front-end cannot know how much that is.
        (state.next_used, state.published, state.held) = (found.used, found.used, found.slots);
        state.next_available = found.used.forward(layout, found.slots, state.size);
        match layout {
            RingLayout::Split => state.known_available = state.next_available,
            RingLayout::Packed => self.hide_staged()?,
        }
        Ok(found.resubmissions)
    }

    /// Takes the used flags away from descriptors that the last device staged and did not publish.
    ///
    /// Only the first one of a batch hides them, and the next batch may have another first one; then
    /// the driver would take chains back that are still in flight.
    fn hide_staged(&self) -> Result<(), RingFault> {
        let mut place = self.state.next_used;
        for _ in 0..self.state.held {
            if is_used(load_flags(&self.parts.descriptor, place, Load::Relaxed)?, place.wrap()) {
                let (part, offset) = (RingPart::DescriptorRing, flags_at(place));
                store(&self.parts.descriptor, part, offset, available_flags(place.wrap()), Store::Relaxed)?;
                self.log(&self.parts.descriptor, part, offset, 2)?;
            }
            place = place.forward(RingLayout::Packed, 1, self.state.size);
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
        let Resubmission { entry: record, position, slots, .. } = *resubmission;
        let state = &self.state;
        let mut gather = Gather::new(memory, buffer, state.agreed, state.size);
        let mut entry = Entry { position, ..Entry::default() };
        match self.layout() {
            RingLayout::Split if record >= state.size => {
                return Err(RingFault::HeadBeyondTable { position, head: record, size: state.size }.into());
            }
            RingLayout::Split => {
                entry.split(record);
                gather.split(&self.parts.descriptor, record);
            }
            RingLayout::Packed => {
                let record_of_ring = self.inflight.as_mut().ok_or(RingFault::NoInflight)?.record();
                let mut next = record;
                for _ in 0..slots {
                    let (descriptor, behind) = record_of_ring.copy(next)?;
                    entry.add(&descriptor);
                    gather.packed(record, descriptor);
                    next = behind;
                }
            }
        }
        entry.record = record;
        gather.finish(entry, Origin::Record)
    }
}

//! Adding chains to a ring, and kicking the device.

use super::{
    AddError, Buffer, DriverRing, Staged,
    descriptors::{Descriptors, Measure},
};
use crate::{
    guest_memory::{AddressSpace, GuestRange, Store},
    virtqueue::{
        descriptor::{NEXT, available_flags},
        fault::{RingFault, RingPart},
        kind::Layout,
        layout::RingLayout,
        part::{INDEX, descriptor_offset, flags_at, ring_entry, store, write, write_descriptor},
    },
};

impl<R: GuestRange, L: Layout, const N: usize> DriverRing<R, L, N> {
    /// Adds a chain; the device sees it after [`DriverRing::publish`]. Returns its token.
    ///
    /// # Errors
    /// See [`AddError`].
    pub fn add<A: AddressSpace>(&mut self, readable: &[Buffer<A>], writable: &[Buffer<A>]) -> Result<u16, AddError> {
        let descriptors = Descriptors::Buffers(readable, writable);
        let measure = descriptors.measure(self.state.size)?;
        self.offer(&descriptors, measure)
    }

    /// Adds a chain whose descriptors are written to `table`, memory of the driver that the device
    /// reaches at its guest address until the chain comes back. It takes one descriptor of the ring.
    ///
    /// # Errors
    /// See [`AddError`].
    pub fn add_indirect<A: AddressSpace>(
        &mut self,
        table: &R,
        readable: &[Buffer<A>],
        writable: &[Buffer<A>],
    ) -> Result<u16, AddError> {
        let state = &self.state;
        if !state.agreed.indirect {
            return Err(AddError::IndirectNotNegotiated);
        }
        let descriptors = Descriptors::Buffers(readable, writable);
        let Measure { count, writable } = descriptors.measure(state.size)?;
        if state.free == 0 {
            return Err(AddError::Full { needed: 1, free: 0 });
        }
        let descriptor = descriptors.write_table(table, count, self.layout())?;
        self.offer(&descriptor, Measure { count: 1, writable })
    }

    /// Lets the device see every chain that was added.
    ///
    /// # Errors
    /// When the ring cannot be written any more.
    pub fn publish(&mut self) -> Result<(), RingFault> {
        let (layout, state) = (self.layout(), &mut self.state);
        let Staged { slots, flags } = core::mem::take(&mut state.staged);
        if slots == 0 {
            return Ok(());
        }
        let first = core::mem::replace(&mut state.published, state.next_available);
        state.unannounced.add(slots);
        let (range, part, offset, number) = match layout {
            RingLayout::Split => (&self.parts.driver, RingPart::AvailableRing, INDEX, state.next_available.0),
            RingLayout::Packed => (&self.parts.descriptor, RingPart::DescriptorRing, flags_at(first), flags),
        };
        // Entries, descriptors and buffers are visible before what tells of them.
        store(range, part, offset, number, Store::Release)
    }

    /// Whether the device wants to be kicked for what was published since the last question.
    ///
    /// # Errors
    /// When the ring cannot be read any more.
    pub fn needs_kick(&mut self) -> Result<bool, RingFault> {
        let (layout, state) = (self.layout(), &mut self.state);
        let wishes = self.parts.device_wishes(layout, state.size, state.agreed);
        wishes.want(&mut state.unannounced, state.published)
    }

    /// Writes the descriptors of a chain and makes it the next available one.
    #[cfg_attr(for_size, inline(never))]
    fn offer<A: AddressSpace>(&mut self, descriptors: &Descriptors<'_, A>, measure: Measure) -> Result<u16, AddError> {
        let layout = self.layout();
        let Self { parts, state } = self;
        let (count, token) = (measure.count, state.tokens.first_free);
        if count > state.free {
            return Err(AddError::Full { needed: count, free: state.free });
        }
        let [table, ring, _] = layout.parts();
        let (mut place, mut next, mut last) = (state.next_available, token, token);
        for taken in 1..=count {
            let Some(mut descriptor) = descriptors.get(taken.wrapping_sub(1)) else { break };
            if taken < count {
                descriptor.flags |= NEXT;
            }
            let mut index = next;
            match layout {
                RingLayout::Split => {
                    (last, next) = (next, state.tokens.next(next));
                    if taken < count {
                        descriptor.link = next;
                    }
                }
                RingLayout::Packed => {
                    (index, descriptor.link) = (place.index(), token);
                    descriptor.flags |= available_flags(place.wrap());
                    place = place.forward(layout, 1, state.size);
                    if state.staged.slots == 0 && taken == 1 {
                        // The flags of the first one come last.
                        state.staged.flags = descriptor.flags;
                        let [but_flags @ .., _, _] = &descriptor.to_ring();
                        write(&parts.descriptor, table.part, descriptor_offset(index), but_flags)?;
                        continue;
                    }
                }
            }
            write_descriptor(&parts.descriptor, table.part, index, layout, descriptor)?;
        }
        let (mut slots, mut tokens) = (count, 1);
        if layout == RingLayout::Split {
            let offset = ring_entry(place.0, state.size, 2);
            store(&parts.driver, ring.part, offset, token, Store::Relaxed)?;
            place = place.forward(layout, 1, state.size);
            (slots, tokens) = (1, count);
        }
        state.staged.slots = state.staged.slots.saturating_add(slots);
        state.next_available = place;
        state.free = state.free.wrapping_sub(count);
        Ok(state.tokens.take(tokens, last, count, measure.writable))
    }
}

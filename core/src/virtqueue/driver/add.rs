//! Adding chains to a ring, and kicking the device.

use super::{
    AddError, Buffer, DriverRing,
    descriptors::{Descriptors, Measure},
};
use crate::{
    guest_memory::{AddressSpace, GuestRange, Store},
    virtqueue::{
        descriptor::{Descriptor, NEXT, available_flags},
        fault::{RingFault, RingPart},
        kind::Layout,
        layout::{PartLayout, RingLayout},
        part::{INDEX, flags_at, ring_entry, slot_at, store, write, write_descriptor},
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
        let slots = state.published.distance(layout, state.next_available, state.size);
        if slots == 0 {
            return Ok(());
        }
        let (range, part, offset, number) = match layout {
            RingLayout::Split => (&self.parts.driver, RingPart::AvailableRing, INDEX, state.next_available.0),
            RingLayout::Packed => {
                (&self.parts.descriptor, RingPart::DescriptorRing, flags_at(state.published), state.first_flags)
            }
        };
        // Entries, descriptors and buffers are visible before what tells of them.
        store(range, part, offset, number, Store::Release)?;
        state.unannounced.add(slots);
        (state.published, state.first_flags) = (state.next_available, 0);
        Ok(())
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
        let (layout, Measure { count, writable }) = (self.layout(), measure);
        let (token, free, start) = (self.state.tokens.first_free, self.state.free, self.state.next_available);
        if count > free {
            return Err(AddError::Full { needed: count, free });
        }
        let mut last = token;
        for taken in 1..=count {
            let Some(descriptor) = descriptors.get(taken.wrapping_sub(1)) else { break };
            if layout == RingLayout::Split && taken > 1 {
                last = self.state.tokens.next(last);
            }
            if let Err(fault) = self.write_next(descriptor, last, taken < count) {
                // No chain is there, so none of its descriptors is.
                self.state.next_available = start;
                return Err(fault.into());
            }
        }
        let state = &mut self.state;
        let mut tokens = 1;
        if layout == RingLayout::Split {
            tokens = count;
            let offset = ring_entry(state.next_available.0, state.size, 2);
            store(&self.parts.driver, RingPart::AvailableRing, offset, token, Store::Relaxed)?;
            state.next_available = state.next_available.forward(layout, 1, state.size);
        }
        state.free = free.wrapping_sub(count);
        Ok(state.tokens.take(tokens, last, count, writable))
    }

    /// Writes a descriptor of a chain, which goes on behind it or not: the one that belongs to `token`, or the next one of a
    /// packed ring.
    #[cfg_attr(for_size, inline(never))]
    fn write_next(&mut self, mut descriptor: Descriptor, token: u16, goes_on: bool) -> Result<(), RingFault> {
        let (layout, state) = (self.layout(), &mut self.state);
        let [PartLayout { part, .. }, ..] = layout.parts();
        if goes_on {
            descriptor.flags |= NEXT;
        }
        if layout == RingLayout::Split {
            if goes_on {
                descriptor.link = state.tokens.next(token);
            }
            return write_descriptor(&self.parts.descriptor, *part, token, layout, descriptor);
        }
        let place = state.next_available;
        descriptor.link = token;
        descriptor.flags |= available_flags(place.wrap());
        if state.published == place {
            // The flags of the first one come last.
            state.first_flags = descriptor.flags;
            let [but_flags @ .., _, _] = &descriptor.to_ring();
            write(&self.parts.descriptor, *part, slot_at(place), but_flags)?;
        } else {
            write_descriptor(&self.parts.descriptor, *part, place.index(), layout, descriptor)?;
        }
        state.next_available = place.forward(layout, 1, state.size);
        Ok(())
    }
}

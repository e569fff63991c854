//! The driver's side of a packed ring.

use super::{
    descriptor::{Descriptor, NEXT, WRITE, available_flags, descriptor_offset, is_used},
    driver::{AddError, Buffer, Descriptors, DriverFault, Measure, Tokens, Used},
    event::{Place, disable, enable, wants_notification},
    fault::{RingFault, RingPart},
    layout::{RingLayout, RingParts},
    part::{load, read_descriptor, store, write},
};
use crate::{
    guest_memory::{AddressSpace, GuestRange, Load, Store},
    wire::{feature::VirtioFeatures, vring::VringBase},
};

/// Where the flags are in a descriptor, behind everything else.
const FLAGS: u32 = 14;

/// A packed ring as the driver sees it: adds chains, polls for those that come back. It has room
/// for a ring of up to `N` descriptors.
///
/// ```text
///   add, add, ... -> publish -> needs_kick? notify the device
///   poll -> Some ... None: enable_calls -> false: wait for a call
///    ^                                  true: more came, poll again
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PackedDriver<R, const N: usize> {
    parts: RingParts<R>,
    state: PackedDriverState<N>,
}

/// What the driver knows of a packed ring.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PackedDriverState<const N: usize> {
    tokens: Tokens<N>,
    /// Descriptors of the ring that are free.
    free: u16,
    next_available: Place,
    next_used: Place,
    /// The first descriptor that the device does not see yet, its flags, and how many follow.
    staged: Option<Staged>,
}

/// Chains whose first descriptor still lacks its flags, which hides all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Staged {
    index: u16,
    flags: u16,
    slots: u16,
}

impl<R: GuestRange, const N: usize> PackedDriver<R, N> {
    /// An empty ring of `size` descriptors, whose memory is zeroed here. Of `features`, the
    /// acknowledged ones, it goes by `RING_INDIRECT`, `RING_EVENT_IDX` and `IN_ORDER`.
    ///
    /// # Errors
    /// [`RingFault::Size`], [`RingFault::Capacity`], [`RingFault::Access`].
    pub fn new(parts: RingParts<R>, size: u32, features: VirtioFeatures) -> Result<Self, RingFault> {
        let tokens = Tokens::new(RingLayout::Packed, size, features)?;
        let size = tokens.size;
        for index in 0..size {
            write(&parts.descriptor, RingPart::DescriptorRing, descriptor_offset(index), [0; 16])?;
        }
        write(&parts.driver, RingPart::DriverEvent, 0, [0; 4])?;
        write(&parts.device, RingPart::DeviceEvent, 0, [0; 4])?;
        let (next_available, next_used) = (Place::START, Place::START);
        let state = PackedDriverState { tokens, free: size, next_available, next_used, staged: None };
        Ok(Self::resume(parts, state))
    }

    /// A ring that goes on as `state` says, perhaps in other memory.
    pub const fn resume(parts: RingParts<R>, state: PackedDriverState<N>) -> Self {
        Self { parts, state }
    }

    /// Adds a chain; the device sees it after [`PackedDriver::publish`]. Returns its token.
    ///
    /// # Errors
    /// See [`AddError`].
    pub fn add<A: AddressSpace>(&mut self, readable: &[Buffer<A>], writable: &[Buffer<A>]) -> Result<u16, AddError> {
        let descriptors = Descriptors::Buffers(readable, writable);
        let measure = descriptors.measure(self.state.tokens.size)?;
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
        let (tokens, descriptors) = (&self.state.tokens, Descriptors::Buffers(readable, writable));
        let (descriptor, measure) = tokens.indirect(&descriptors, table, RingLayout::Packed, self.state.free)?;
        self.offer(&descriptor, measure)
    }

    /// Lets the device see every chain that was added.
    ///
    /// # Errors
    /// When the ring cannot be written any more.
    pub fn publish(&mut self) -> Result<(), RingFault> {
        let Some(Staged { index, flags, slots }) = self.state.staged.take() else {
            return Ok(());
        };
        // All other descriptors, and the buffers, are visible before the flags that show the first.
        let offset = descriptor_offset(index).wrapping_add(FLAGS);
        store(&self.parts.descriptor, RingPart::DescriptorRing, offset, flags, Store::Release)?;
        self.state.tokens.unannounced.add(slots);
        Ok(())
    }

    /// Whether the device wants to be kicked for what was published since the last question.
    ///
    /// # Errors
    /// When the ring cannot be read any more.
    pub fn needs_kick(&mut self) -> Result<bool, RingFault> {
        let state = &mut self.state;
        let Some(count) = state.tokens.unannounced.take() else {
            return Ok(false);
        };
        // The device writes its wish and then looks at the ring; here it is the other way round.
        self.parts.device.full_fence();
        let published = state.published();
        let range = &self.parts.device;
        wants_notification(range, RingPart::DeviceEvent, state.tokens.event_idx(), published, count, state.tokens.size)
    }

    /// The next chain that came back; `None` when there is none.
    ///
    /// # Errors
    /// When the device broke the ring.
    pub fn poll(&mut self) -> Result<Option<Used>, DriverFault> {
        let entry = match self.state.tokens.batch {
            Some(batch) => batch,
            None if !self.has_used()? => return Ok(None),
            None => self.read_entry()?,
        };
        let state = &mut self.state;
        let (used, count) = state.tokens.settle(entry, state.next_used.index, RingLayout::Packed)?;
        state.free = state.free.wrapping_add(count);
        state.next_used = state.next_used.forward(count, state.tokens.size);
        Ok(Some(used))
    }

    /// Asks the device for no calls.
    ///
    /// # Errors
    /// When the ring cannot be written any more.
    pub fn disable_calls(&mut self) -> Result<(), RingFault> {
        disable(&self.parts.driver, RingPart::DriverEvent)
    }

    /// Asks the device to call for the next chain that it gives back. True when there is one
    /// already, for which no call may come.
    ///
    /// # Errors
    /// When the ring cannot be accessed any more.
    pub fn enable_calls(&mut self) -> Result<bool, DriverFault> {
        let PackedDriverState { next_used, .. } = self.state;
        enable(&self.parts.driver, RingPart::DriverEvent, self.state.tokens.event_idx(), next_used)?;
        self.parts.driver.full_fence();
        self.has_used()
    }

    /// Where a device begins that takes over from one which gave its chains back in the order in
    /// which it got them.
    #[must_use]
    pub fn base(&self) -> VringBase {
        let Place { index, wrap } = self.state.next_used;
        VringBase::Packed { available: index, available_wrap: wrap, used: index, used_wrap: wrap }
    }

    /// Descriptors of the ring that are free.
    #[must_use]
    pub fn free(&self) -> u16 {
        self.state.free
    }

    /// Chains that are out.
    #[must_use]
    pub fn outstanding(&self) -> u16 {
        self.state.tokens.outstanding
    }

    /// What the driver knows of the ring.
    #[must_use]
    pub fn state(&self) -> &PackedDriverState<N> {
        &self.state
    }

    /// Writes the descriptors of a chain; the first one of all that are not published lacks its
    /// flags.
    fn offer<A: AddressSpace>(&mut self, descriptors: &Descriptors<'_, A>, measure: Measure) -> Result<u16, AddError> {
        let Self { parts: RingParts { descriptor: ring, .. }, state } = self;
        let (count, token) = (measure.count, state.tokens.first_free);
        if count > state.free {
            return Err(AddError::Full { needed: count, free: state.free });
        }
        let mut place = state.next_available;
        for taken in 1..=count {
            let Some(descriptor) = descriptors.get(taken.wrapping_sub(1)) else { break };
            let next = if taken < count { NEXT } else { 0 };
            let flags = descriptor.flags | next | available_flags(place.wrap);
            write_descriptor(ring, place.index, descriptor, token)?;
            match &mut state.staged {
                Some(_) => {
                    let offset = descriptor_offset(place.index).wrapping_add(FLAGS);
                    store(ring, RingPart::DescriptorRing, offset, flags, Store::Relaxed)?;
                }
                None => state.staged = Some(Staged { index: place.index, flags, slots: 0 }),
            }
            place = place.forward(1, state.tokens.size);
        }
        if let Some(staged) = &mut state.staged {
            staged.slots = staged.slots.saturating_add(count);
        }
        state.next_available = place;
        state.free = state.free.wrapping_sub(count);
        Ok(state.tokens.take(1, token, count, measure.writable))
    }

    fn has_used(&self) -> Result<bool, DriverFault> {
        Ok(self.state.tokens.batch.is_some() || is_used(self.next_flags()?, self.state.next_used.wrap))
    }

    /// The flags of the next descriptor to come back. What they tell of is read after them.
    fn next_flags(&self) -> Result<u16, RingFault> {
        let offset = descriptor_offset(self.state.next_used.index).wrapping_add(FLAGS);
        load(&self.parts.descriptor, RingPart::DescriptorRing, offset, Load::Acquire)
    }

    fn read_entry(&self) -> Result<Used, DriverFault> {
        let index = self.state.next_used.index;
        let Descriptor { length, flags, link: token, .. } =
            read_descriptor(&self.parts.descriptor, RingPart::DescriptorRing, index, RingLayout::Packed)?;
        // The length says something only if the device wrote.
        Ok(Used { token, written: if flags & WRITE == 0 { 0 } else { length } })
    }
}

impl<const N: usize> PackedDriverState<N> {
    /// The place behind the last descriptor that the device sees.
    fn published(&self) -> Place {
        match self.staged {
            Some(Staged { index, flags, .. }) => {
                Place { index, wrap: flags & available_flags(true) == available_flags(true) }
            }
            None => self.next_available,
        }
    }
}

/// Writes everything of a descriptor but its flags.
fn write_descriptor<R: GuestRange>(ring: &R, index: u16, descriptor: Descriptor, token: u16) -> Result<(), RingFault> {
    let [a0, a1, a2, a3, a4, a5, a6, a7] = descriptor.address.to_le_bytes();
    let [l0, l1, l2, l3] = descriptor.length.to_le_bytes();
    let [i0, i1] = token.to_le_bytes();
    let bytes = [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, i0, i1];
    write(ring, RingPart::DescriptorRing, descriptor_offset(index), bytes)
}

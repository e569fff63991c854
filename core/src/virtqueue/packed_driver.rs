//! The driver's side of a packed ring.

use super::{
    descriptor::{Descriptor, NEXT, WRITE, available_flags, descriptor_offset, is_used},
    driver::{AddError, Buffer, DriverFault, Reuse, Tokens, Used, descriptors, measure, write_table},
    event::{Place, Unannounced, disable, enable, wants_notification},
    fault::{RingFault, RingPart},
    layout::{RingLayout, RingParts},
};
use crate::{
    guest_memory::{AddressSpace, GuestRange, Load, Store},
    wire::{feature::VirtioFeatures, vring::VringBase},
};

/// Where the flags are in a descriptor, behind everything else.
const FLAGS: usize = 14;

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
    size: u16,
    features: VirtioFeatures,
    tokens: Tokens<N>,
    outstanding: u16,
    /// Descriptors of the ring that are free.
    free: u16,
    next_available: Place,
    next_used: Place,
    /// The first descriptor that the device does not see yet, its flags, and how many follow.
    staged: Option<Staged>,
    unannounced: Unannounced,
    /// In order: the oldest chain that is out, and the end of the batch that is being polled.
    oldest: u16,
    batch: Option<Used>,
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
        let size = RingLayout::Packed.check_size(size)?;
        for index in 0..size {
            let offset = descriptor_offset(index);
            parts.descriptor.write(offset, [0; 16]).ok_or(access(offset))?;
        }
        for (range, part) in [(&parts.driver, RingPart::DriverEvent), (&parts.device, RingPart::DeviceEvent)] {
            range.write(0, [0; 4]).ok_or(RingFault::Access { part, offset: 0 })?;
        }
        let state = PackedDriverState {
            size,
            features,
            tokens: Tokens::new(size)?,
            outstanding: 0,
            free: size,
            next_available: Place::START,
            next_used: Place::START,
            staged: None,
            unannounced: Unannounced::default(),
            oldest: 0,
            batch: None,
        };
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
        let (count, writable_len) = measure(readable, writable, self.state.size)?;
        self.offer(descriptors(readable, writable), count, writable_len)
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
        if !self.state.features.contains(VirtioFeatures::RING_INDIRECT) {
            return Err(AddError::IndirectNotNegotiated);
        }
        let (count, writable_len) = measure(readable, writable, self.state.size)?;
        self.state.check_free(1)?;
        let descriptor = write_table(table, descriptors(readable, writable), count, RingLayout::Packed)?;
        self.offer([descriptor].into_iter(), 1, writable_len)
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
        let offset = descriptor_offset(index).saturating_add(FLAGS);
        self.parts.descriptor.store_u16(offset, flags, Store::Release).ok_or(access(offset))?;
        self.state.unannounced.add(slots);
        Ok(())
    }

    /// Whether the device wants to be kicked for what was published since the last question.
    ///
    /// # Errors
    /// When the ring cannot be read any more.
    pub fn needs_kick(&mut self) -> Result<bool, RingFault> {
        let state = &mut self.state;
        let Some(count) = state.unannounced.take() else {
            return Ok(false);
        };
        // The device writes its wish and then looks at the ring; here it is the other way round.
        self.parts.device.full_fence();
        let published = state.published();
        wants_notification(&self.parts.device, state.event_idx(), published, count, state.size)
            .ok_or(RingFault::Access { part: RingPart::DeviceEvent, offset: 0 })
    }

    /// The next chain that came back; `None` when there is none.
    ///
    /// # Errors
    /// When the device broke the ring.
    pub fn poll(&mut self) -> Result<Option<Used>, DriverFault> {
        let entry = match self.state.batch.take() {
            Some(batch) => batch,
            None if !self.has_used()? => return Ok(None),
            None => self.read_entry()?,
        };
        let state = &mut self.state;
        let position = state.next_used.index;
        let token = if state.in_order() { state.oldest } else { entry.token };
        let unknown = DriverFault::UnknownToken { position, token: token.into() };
        let (count, writable) = state.tokens.look_up(token).ok_or(unknown)?;
        // Of the chains before the last of a batch the device wrote everything.
        let written = if token == entry.token { entry.written.min(writable) } else { writable };
        if token != entry.token {
            state.batch = Some(entry);
        }
        let reuse = if state.in_order() { Reuse::FirstBack } else { Reuse::LastBack };
        state.oldest = state.tokens.next(token);
        state.tokens.give(token, 1, reuse);
        state.free = state.free.saturating_add(count);
        state.next_used = state.next_used.forward(count, state.size);
        state.outstanding = state.outstanding.saturating_sub(1);
        Ok(Some(Used { token, written }))
    }

    /// Asks the device for no calls.
    ///
    /// # Errors
    /// When the ring cannot be written any more.
    pub fn disable_calls(&mut self) -> Result<(), RingFault> {
        disable(&self.parts.driver).ok_or(RingFault::Access { part: RingPart::DriverEvent, offset: 0 })
    }

    /// Asks the device to call for the next chain that it gives back. True when there is one
    /// already, for which no call may come.
    ///
    /// # Errors
    /// When the ring cannot be accessed any more.
    pub fn enable_calls(&mut self) -> Result<bool, DriverFault> {
        let wish = enable(&self.parts.driver, self.state.event_idx(), self.state.next_used);
        wish.ok_or(RingFault::Access { part: RingPart::DriverEvent, offset: 0 })?;
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
        self.state.outstanding
    }

    /// What the driver knows of the ring.
    #[must_use]
    pub fn state(&self) -> &PackedDriverState<N> {
        &self.state
    }

    /// Writes the descriptors of a chain; the first one of all that are not published lacks its
    /// flags.
    fn offer(
        &mut self,
        descriptors: impl Iterator<Item = Descriptor>,
        count: u16,
        writable_len: u32,
    ) -> Result<u16, AddError> {
        let state = &mut self.state;
        state.check_free(count)?;
        let token = state.tokens.first_free();
        let mut place = state.next_available;
        for (left, descriptor) in (0..count).rev().zip(descriptors) {
            let next = if left > 0 { NEXT } else { 0 };
            let flags = descriptor.flags | next | available_flags(place.wrap);
            write_descriptor(&self.parts.descriptor, place.index, descriptor, token)?;
            match &mut state.staged {
                Some(_) => {
                    let offset = descriptor_offset(place.index).saturating_add(FLAGS);
                    self.parts.descriptor.store_u16(offset, flags, Store::Relaxed).ok_or(access(offset))?;
                }
                None => state.staged = Some(Staged { index: place.index, flags, slots: 0 }),
            }
            place = place.forward(1, state.size);
        }
        if let Some(staged) = &mut state.staged {
            staged.slots = staged.slots.saturating_add(count);
        }
        state.next_available = place;
        state.free = state.free.saturating_sub(count);
        state.outstanding = state.outstanding.saturating_add(1);
        Ok(state.tokens.take(1, token, count, writable_len))
    }

    fn has_used(&self) -> Result<bool, DriverFault> {
        Ok(self.state.batch.is_some() || is_used(self.next_flags()?, self.state.next_used.wrap))
    }

    /// The flags of the next descriptor to come back. What they tell of is read after them.
    fn next_flags(&self) -> Result<u16, RingFault> {
        let offset = descriptor_offset(self.state.next_used.index).saturating_add(FLAGS);
        self.parts.descriptor.load_u16(offset, Load::Acquire).ok_or(access(offset))
    }

    fn read_entry(&self) -> Result<Used, DriverFault> {
        let index = self.state.next_used.index;
        let offset = descriptor_offset(index);
        let Descriptor { length, flags, link: token, .. } =
            self.parts.descriptor.read(offset).map(Descriptor::from_ring).ok_or(access(offset))?;
        if self.state.tokens.look_up(token).is_none() {
            return Err(DriverFault::UnknownToken { position: index, token: token.into() });
        }
        // The length says something only if the device wrote.
        Ok(Used { token, written: if flags & WRITE == 0 { 0 } else { length } })
    }
}

impl<const N: usize> PackedDriverState<N> {
    fn check_free(&self, needed: u16) -> Result<(), AddError> {
        if needed <= self.free { Ok(()) } else { Err(AddError::Full { needed: needed.into(), free: self.free }) }
    }

    /// The place behind the last descriptor that the device sees.
    fn published(&self) -> Place {
        match self.staged {
            Some(Staged { index, flags, .. }) => {
                Place { index, wrap: flags & available_flags(true) == available_flags(true) }
            }
            None => self.next_available,
        }
    }

    fn event_idx(&self) -> bool {
        self.features.contains(VirtioFeatures::RING_EVENT_IDX)
    }

    fn in_order(&self) -> bool {
        self.features.contains(VirtioFeatures::IN_ORDER)
    }
}

/// Writes everything of a descriptor but its flags.
fn write_descriptor<R: GuestRange>(ring: &R, index: u16, descriptor: Descriptor, token: u16) -> Result<(), RingFault> {
    let [a0, a1, a2, a3, a4, a5, a6, a7] = descriptor.address.to_le_bytes();
    let [l0, l1, l2, l3] = descriptor.length.to_le_bytes();
    let [i0, i1] = token.to_le_bytes();
    let offset = descriptor_offset(index);
    ring.write(offset, [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, i0, i1]).ok_or(access(offset))
}

fn access(offset: usize) -> RingFault {
    RingFault::Access { part: RingPart::DescriptorRing, offset }
}

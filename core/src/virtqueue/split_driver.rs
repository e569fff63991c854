//! The driver's side of a split ring.

use super::{
    descriptor::{Descriptor, NEXT, descriptor_offset},
    driver::{AddError, Buffer, DriverFault, Reuse, Tokens, Used, descriptors, measure, write_table},
    event::{SUPPRESS, Unannounced, passed},
    fault::{RingFault, RingPart},
    layout::{RingLayout, RingParts},
};
use crate::{
    guest_memory::{AddressSpace, GuestRange, Load, Store},
    wire::{feature::VirtioFeatures, vring::VringBase},
};

/// Offsets in the available and the used ring: flags, index, then the entries.
const FLAGS: usize = 0;
const INDEX: usize = 2;
const ENTRIES: usize = 4;

/// A split ring as the driver sees it: adds chains, polls for those that come back. It has room for
/// a ring of up to `N` descriptors.
///
/// ```text
///   add, add, ... -> publish -> needs_kick? notify the device
///   poll -> Some ... None: enable_calls -> false: wait for a call
///    ^                                  true: more came, poll again
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SplitDriver<R, const N: usize> {
    parts: RingParts<R>,
    state: SplitDriverState<N>,
}

/// What the driver knows of a split ring.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SplitDriverState<const N: usize> {
    size: u16,
    features: VirtioFeatures,
    tokens: Tokens<N>,
    outstanding: u16,
    /// The next entry of the available ring to fill, and the index that the device sees.
    next_available: u16,
    published: u16,
    /// The next entry of the used ring to read, and the device's index when it was last looked at.
    next_used: u16,
    known_used: u16,
    unannounced: Unannounced,
    /// In order: the oldest chain that is out, and the end of the batch that is being polled.
    oldest: u16,
    batch: Option<Used>,
}

impl<R: GuestRange, const N: usize> SplitDriver<R, N> {
    /// An empty ring of `size` descriptors, whose memory is zeroed here. Of `features`, the
    /// acknowledged ones, it goes by `RING_INDIRECT`, `RING_EVENT_IDX` and `IN_ORDER`.
    ///
    /// # Errors
    /// [`RingFault::Size`], [`RingFault::Capacity`], [`RingFault::Access`].
    pub fn new(parts: RingParts<R>, size: u32, features: VirtioFeatures) -> Result<Self, RingFault> {
        let size = RingLayout::Split.check_size(size)?;
        for (range, part) in [(&parts.driver, RingPart::AvailableRing), (&parts.device, RingPart::UsedRing)] {
            range.write(FLAGS, [0; 4]).ok_or(RingFault::Access { part, offset: FLAGS })?;
        }
        let state = SplitDriverState {
            size,
            features,
            tokens: Tokens::new(size)?,
            outstanding: 0,
            next_available: 0,
            published: 0,
            next_used: 0,
            known_used: 0,
            unannounced: Unannounced::default(),
            oldest: 0,
            batch: None,
        };
        Ok(Self::resume(parts, state))
    }

    /// A ring that goes on as `state` says, perhaps in other memory.
    pub const fn resume(parts: RingParts<R>, state: SplitDriverState<N>) -> Self {
        Self { parts, state }
    }

    /// Adds a chain; the device sees it after [`SplitDriver::publish`]. Returns its token.
    ///
    /// # Errors
    /// See [`AddError`].
    pub fn add<A: AddressSpace>(&mut self, readable: &[Buffer<A>], writable: &[Buffer<A>]) -> Result<u16, AddError> {
        let (count, writable_len) = measure(readable, writable, self.state.size)?;
        self.state.check_free(count)?;
        let mut index = self.state.tokens.first_free();
        let mut last = index;
        for (left, mut descriptor) in (0..count).rev().zip(descriptors(readable, writable)) {
            (last, index) = (index, self.state.tokens.next(index));
            if left > 0 {
                descriptor.flags |= NEXT;
                descriptor.link = index;
            }
            self.write_descriptor(last, descriptor)?;
        }
        self.offer(count, last, writable_len)
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
        let descriptor = write_table(table, descriptors(readable, writable), count, RingLayout::Split)?;
        let index = self.state.tokens.first_free();
        self.write_descriptor(index, descriptor)?;
        self.offer(1, index, writable_len)
    }

    /// Lets the device see every chain that was added.
    ///
    /// # Errors
    /// When the ring cannot be written any more.
    pub fn publish(&mut self) -> Result<(), RingFault> {
        let state = &mut self.state;
        // Entries, descriptors and buffers are visible before the index that tells of them.
        let access = RingFault::Access { part: RingPart::AvailableRing, offset: INDEX };
        self.parts.driver.store_u16(INDEX, state.next_available, Store::Release).ok_or(access)?;
        state.unannounced.add(state.next_available.wrapping_sub(state.published));
        state.published = state.next_available;
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
        // The device writes its wish and then looks at the index; here it is the other way round.
        self.parts.device.full_fence();
        if state.event_idx() {
            let event = load(&self.parts.device, RingPart::UsedRing, state.event_offset(8), Load::Relaxed)?;
            return Ok(passed(event, state.published, count));
        }
        Ok(load(&self.parts.device, RingPart::UsedRing, FLAGS, Load::Relaxed)? & SUPPRESS == 0)
    }

    /// The next chain that came back; `None` when there is none.
    ///
    /// # Errors
    /// When the device broke the ring.
    pub fn poll(&mut self) -> Result<Option<Used>, DriverFault> {
        if !self.has_used()? {
            if let Some(batch) = self.state.batch {
                return Err(DriverFault::UnfinishedBatch { token: batch.token });
            }
            return Ok(None);
        }
        let state = &mut self.state;
        let entry = match state.batch.take() {
            Some(batch) => batch,
            None => Self::read_entry(&self.parts, state)?,
        };
        let token = if state.in_order() { state.oldest } else { entry.token };
        let position = state.next_used;
        let unknown = DriverFault::UnknownToken { position, token: token.into() };
        let (count, writable) = state.tokens.look_up(token).ok_or(unknown)?;
        // Of the chains before the last of a batch the device wrote everything.
        let written = if token == entry.token { entry.written.min(writable) } else { writable };
        if token != entry.token {
            state.batch = Some(entry);
        }
        let reuse = if state.in_order() { Reuse::FirstBack } else { Reuse::LastBack };
        if state.in_order() {
            // Descriptors are taken in the order of the table, so the next chain begins behind.
            let behind = state.oldest.wrapping_add(count);
            state.oldest = behind.checked_sub(state.size).unwrap_or(behind);
        }
        state.tokens.give(token, count, reuse);
        state.next_used = position.wrapping_add(1);
        state.outstanding = state.outstanding.saturating_sub(1);
        Ok(Some(Used { token, written }))
    }

    /// Asks the device for no calls, as far as it can be asked: with `EVENT_IDX` it does not call
    /// again until it was asked to.
    ///
    /// # Errors
    /// When the ring cannot be written any more.
    pub fn disable_calls(&mut self) -> Result<(), RingFault> {
        if self.state.event_idx() { Ok(()) } else { self.store_wish(FLAGS, SUPPRESS) }
    }

    /// Asks the device to call for the next chain that it gives back. True when there is one
    /// already, for which no call may come.
    ///
    /// # Errors
    /// When the ring cannot be accessed any more, or its index is wrong.
    pub fn enable_calls(&mut self) -> Result<bool, DriverFault> {
        if self.state.event_idx() {
            self.store_wish(self.state.event_offset(2), self.state.next_used)?;
        } else {
            self.store_wish(FLAGS, 0)?;
        }
        self.parts.driver.full_fence();
        self.has_used()
    }

    /// Where a device begins that takes over from one which gave its chains back in the order in
    /// which it got them.
    #[must_use]
    pub fn base(&self) -> VringBase {
        VringBase::Split { available: self.state.next_used }
    }

    /// Descriptors that are free.
    #[must_use]
    pub fn free(&self) -> u16 {
        self.state.tokens.free()
    }

    /// Chains that are out.
    #[must_use]
    pub fn outstanding(&self) -> u16 {
        self.state.outstanding
    }

    /// What the driver knows of the ring.
    #[must_use]
    pub fn state(&self) -> &SplitDriverState<N> {
        &self.state
    }

    /// Makes the chain of the first `count` free descriptors, up to `last`, the next available one.
    fn offer(&mut self, count: u16, last: u16, writable_len: u32) -> Result<u16, AddError> {
        let state = &mut self.state;
        let head = state.tokens.first_free();
        let offset = state.entry(state.next_available, 2);
        let access = RingFault::Access { part: RingPart::AvailableRing, offset };
        self.parts.driver.store_u16(offset, head, Store::Relaxed).ok_or(access)?;
        state.next_available = state.next_available.wrapping_add(1);
        state.outstanding = state.outstanding.saturating_add(1);
        Ok(state.tokens.take(count, last, count, writable_len))
    }

    fn has_used(&mut self) -> Result<bool, DriverFault> {
        let state = &mut self.state;
        if state.known_used == state.next_used {
            // What the index tells of is read after it.
            let used = load(&self.parts.device, RingPart::UsedRing, INDEX, Load::Acquire)?;
            let (next, outstanding) = (state.next_used, state.outstanding);
            if used.wrapping_sub(next) > outstanding {
                return Err(DriverFault::UsedAhead { used, next, outstanding });
            }
            state.known_used = used;
        }
        Ok(state.known_used != state.next_used)
    }

    fn read_entry(parts: &RingParts<R>, state: &SplitDriverState<N>) -> Result<Used, DriverFault> {
        let position = state.next_used;
        let offset = state.entry(position, 8);
        let access = RingFault::Access { part: RingPart::UsedRing, offset };
        let [i0, i1, i2, i3, w0, w1, w2, w3] = parts.device.read(offset).ok_or(access)?;
        let token = u32::from_le_bytes([i0, i1, i2, i3]);
        let unknown = DriverFault::UnknownToken { position, token };
        let token = u16::try_from(token).ok().filter(|token| state.tokens.look_up(*token).is_some());
        Ok(Used { token: token.ok_or(unknown)?, written: u32::from_le_bytes([w0, w1, w2, w3]) })
    }

    fn write_descriptor(&self, index: u16, descriptor: Descriptor) -> Result<(), RingFault> {
        let offset = descriptor_offset(index);
        let access = RingFault::Access { part: RingPart::DescriptorTable, offset };
        self.parts.descriptor.write(offset, descriptor.to_table()).ok_or(access)
    }

    fn store_wish(&self, offset: usize, value: u16) -> Result<(), RingFault> {
        let access = RingFault::Access { part: RingPart::AvailableRing, offset };
        self.parts.driver.store_u16(offset, value, Store::Relaxed).ok_or(access)
    }
}

impl<const N: usize> SplitDriverState<N> {
    fn check_free(&self, needed: u16) -> Result<(), AddError> {
        let free = self.tokens.free();
        if needed <= free { Ok(()) } else { Err(AddError::Full { needed: needed.into(), free }) }
    }

    /// Where the entry of a free-running index begins in a ring of entries of `bytes`.
    fn entry(&self, index: u16, bytes: usize) -> usize {
        // The size is a power of two.
        let slot = usize::from(index & self.size.wrapping_sub(1));
        slot.saturating_mul(bytes).saturating_add(ENTRIES)
    }

    /// Where the event index behind the entries of a ring is.
    fn event_offset(&self, bytes: usize) -> usize {
        usize::from(self.size).saturating_mul(bytes).saturating_add(ENTRIES)
    }

    fn event_idx(&self) -> bool {
        self.features.contains(VirtioFeatures::RING_EVENT_IDX)
    }

    fn in_order(&self) -> bool {
        self.features.contains(VirtioFeatures::IN_ORDER)
    }
}

fn load<R: GuestRange>(range: &R, part: RingPart, offset: usize, order: Load) -> Result<u16, RingFault> {
    range.load_u16(offset, order).ok_or(RingFault::Access { part, offset })
}

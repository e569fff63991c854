//! The driver's side of a split ring.

use super::{
    descriptor::{NEXT, descriptor_offset},
    driver::{AddError, Buffer, Descriptors, DriverFault, Measure, Tokens, Used},
    event::{SUPPRESS, passed},
    fault::{RingFault, RingPart},
    layout::{RingLayout, RingParts},
    part::{load, read, store, write},
};
use crate::{
    guest_memory::{AddressSpace, GuestRange, Load, Store},
    wire::{feature::VirtioFeatures, vring::VringBase},
};

/// Offsets in the available and the used ring: flags, index, then the entries.
const FLAGS: u32 = 0;
const INDEX: u32 = 2;
const ENTRIES: u32 = 4;

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
    tokens: Tokens<N>,
    /// The next entry of the available ring to fill, and the index that the device sees.
    next_available: u16,
    published: u16,
    /// The next entry of the used ring to read, and the device's index when it was last looked at.
    next_used: u16,
    known_used: u16,
}

impl<R: GuestRange, const N: usize> SplitDriver<R, N> {
    /// An empty ring of `size` descriptors, whose memory is zeroed here. Of `features`, the
    /// acknowledged ones, it goes by `RING_INDIRECT`, `RING_EVENT_IDX` and `IN_ORDER`.
    ///
    /// # Errors
    /// [`RingFault::Size`], [`RingFault::Capacity`], [`RingFault::Access`].
    pub fn new(parts: RingParts<R>, size: u32, features: VirtioFeatures) -> Result<Self, RingFault> {
        let tokens = Tokens::new(RingLayout::Split, size, features)?;
        write(&parts.driver, RingPart::AvailableRing, FLAGS, [0; 4])?;
        write(&parts.device, RingPart::UsedRing, FLAGS, [0; 4])?;
        let state = SplitDriverState { tokens, next_available: 0, published: 0, next_used: 0, known_used: 0 };
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
        let (descriptor, measure) = tokens.indirect(&descriptors, table, RingLayout::Split, tokens.free)?;
        self.offer(&descriptor, measure)
    }

    /// Lets the device see every chain that was added.
    ///
    /// # Errors
    /// When the ring cannot be written any more.
    pub fn publish(&mut self) -> Result<(), RingFault> {
        let state = &mut self.state;
        // Entries, descriptors and buffers are visible before the index that tells of them.
        store(&self.parts.driver, RingPart::AvailableRing, INDEX, state.next_available, Store::Release)?;
        state.tokens.unannounced.add(state.next_available.wrapping_sub(state.published));
        state.published = state.next_available;
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
        // The device writes its wish and then looks at the index; here it is the other way round.
        self.parts.device.full_fence();
        if state.tokens.event_idx() {
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
            if let Some(batch) = self.state.tokens.batch {
                return Err(DriverFault::UnfinishedBatch { token: batch.token });
            }
            return Ok(None);
        }
        let position = self.state.next_used;
        let entry = match self.state.tokens.batch {
            Some(batch) => batch,
            None => self.read_entry()?,
        };
        let (used, _) = self.state.tokens.settle(entry, position, RingLayout::Split)?;
        self.state.next_used = position.wrapping_add(1);
        Ok(Some(used))
    }

    /// Asks the device for no calls, as far as it can be asked: with `EVENT_IDX` it does not call
    /// again until it was asked to.
    ///
    /// # Errors
    /// When the ring cannot be written any more.
    pub fn disable_calls(&mut self) -> Result<(), RingFault> {
        if self.state.tokens.event_idx() { Ok(()) } else { self.store_wish(FLAGS, SUPPRESS) }
    }

    /// Asks the device to call for the next chain that it gives back. True when there is one
    /// already, for which no call may come.
    ///
    /// # Errors
    /// When the ring cannot be accessed any more, or its index is wrong.
    pub fn enable_calls(&mut self) -> Result<bool, DriverFault> {
        if self.state.tokens.event_idx() {
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
        self.state.tokens.free
    }

    /// Chains that are out.
    #[must_use]
    pub fn outstanding(&self) -> u16 {
        self.state.tokens.outstanding
    }

    /// What the driver knows of the ring.
    #[must_use]
    pub fn state(&self) -> &SplitDriverState<N> {
        &self.state
    }

    /// Writes the descriptors of a chain and makes it the next available one.
    fn offer<A: AddressSpace>(&mut self, descriptors: &Descriptors<'_, A>, measure: Measure) -> Result<u16, AddError> {
        let Self { parts, state } = self;
        let (count, head) = (measure.count, state.tokens.first_free);
        let free = state.tokens.free;
        if count > free {
            return Err(AddError::Full { needed: count, free });
        }
        let (mut index, mut last) = (head, head);
        for taken in 1..=count {
            let Some(mut descriptor) = descriptors.get(taken.wrapping_sub(1)) else { break };
            (last, index) = (index, state.tokens.next(index));
            if taken < count {
                descriptor.flags |= NEXT;
                descriptor.link = index;
            }
            write(&parts.descriptor, RingPart::DescriptorTable, descriptor_offset(last), descriptor.to_table())?;
        }
        let offset = state.entry(state.next_available, 2);
        store(&parts.driver, RingPart::AvailableRing, offset, head, Store::Relaxed)?;
        state.next_available = state.next_available.wrapping_add(1);
        Ok(state.tokens.take(count, last, count, measure.writable))
    }

    fn has_used(&mut self) -> Result<bool, DriverFault> {
        let state = &mut self.state;
        if state.known_used == state.next_used {
            // What the index tells of is read after it.
            let used = load(&self.parts.device, RingPart::UsedRing, INDEX, Load::Acquire)?;
            let (next, outstanding) = (state.next_used, state.tokens.outstanding);
            if used.wrapping_sub(next) > outstanding {
                return Err(DriverFault::UsedAhead { used, next, outstanding });
            }
            state.known_used = used;
        }
        Ok(state.known_used != state.next_used)
    }

    fn read_entry(&self) -> Result<Used, DriverFault> {
        let position = self.state.next_used;
        let offset = self.state.entry(position, 8);
        let [i0, i1, i2, i3, w0, w1, w2, w3] = read(&self.parts.device, RingPart::UsedRing, offset)?;
        let token = u32::from_le_bytes([i0, i1, i2, i3]);
        let unknown = DriverFault::UnknownToken { position, token };
        let token = u16::try_from(token).map_err(|_| unknown)?;
        Ok(Used { token, written: u32::from_le_bytes([w0, w1, w2, w3]) })
    }

    fn store_wish(&self, offset: u32, value: u16) -> Result<(), RingFault> {
        store(&self.parts.driver, RingPart::AvailableRing, offset, value, Store::Relaxed)
    }
}

impl<const N: usize> SplitDriverState<N> {
    /// Where the entry of a free-running index begins in a ring of entries of `bytes`.
    fn entry(&self, index: u16, bytes: u32) -> u32 {
        // The size is a power of two.
        let slot = u32::from(index & self.tokens.size.wrapping_sub(1));
        slot.wrapping_mul(bytes).wrapping_add(ENTRIES)
    }

    /// Where the event index behind the entries of a ring is.
    fn event_offset(&self, bytes: u32) -> u32 {
        u32::from(self.tokens.size).wrapping_mul(bytes).wrapping_add(ENTRIES)
    }
}

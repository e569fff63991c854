//! The device's side of a packed ring.

mod recovery;
mod untake;

use super::{
    chain::{Chain, ChainBuffer, Origin},
    descriptor::{AVAILABLE, Descriptor, NEXT, WRITE, descriptor_offset, is_available, used_flags},
    event::{Place, Unannounced, disable, enable, wants_notification},
    fault::{PopError, PushError, RingFault, RingPart},
    gather::{Gather, Indirect, Stop},
    layout::{RingLayout, RingParts},
    used_log::UsedLog,
};
use crate::{
    guest_memory::{GuestMemory, GuestRange, Load, Store},
    inflight::PackedInflight,
    wire::{feature::VirtioFeatures, vring::VringBase},
};

/// Offsets in a descriptor: length and id, flags.
const LENGTH: usize = 8;
const FLAGS: usize = 14;

/// A packed ring as the device sees it: takes chains, gives them back.
///
/// ```text
///   pop -> ... -> stage, stage, ... -> publish -> needs_call? notify the driver
///    ^ None: enable_kicks -> false: wait for a kick
///    |                       true: more came, go on
/// ```
/// The ring is guest memory and belongs to `R`; everything else is the plain value
/// [`PackedDeviceState`], so that a ring can be moved to other memory or looked at in a test.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PackedDevice<R> {
    parts: RingParts<R>,
    state: PackedDeviceState,
    inflight: Option<PackedInflight<R>>,
    log: Option<UsedLog<R>>,
}

/// What the device knows of a packed ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PackedDeviceState {
    size: u16,
    features: VirtioFeatures,
    /// The next descriptor to take.
    next_available: Place,
    /// The next descriptor to write as used.
    next_used: Place,
    /// Slots between `next_used` and `next_available`.
    held: u16,
    /// The first used descriptor that the driver does not see yet.
    staged: Option<Staged>,
    unannounced: Unannounced,
}

/// A batch of used descriptors whose first one still lacks its flags, which hides all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Staged {
    index: u16,
    flags: u16,
    slots: u16,
    chains: u16,
}

impl<R: GuestRange> PackedDevice<R> {
    /// A ring of `size` descriptors that goes on at `base`. Of `features`, the acknowledged ones,
    /// it goes by `RING_INDIRECT`, `RING_EVENT_IDX` and `IN_ORDER`.
    ///
    /// # Errors
    /// [`RingFault::Size`]; [`RingFault::Base`] for a split ring's base or one beyond the ring.
    pub fn new(parts: RingParts<R>, size: u32, features: VirtioFeatures, base: VringBase) -> Result<Self, RingFault> {
        let size = RingLayout::Packed.check_size(size)?;
        let state = match base {
            VringBase::Packed { available, available_wrap, used, used_wrap } if available < size && used < size => {
                let available = Place { index: available, wrap: available_wrap };
                PackedDeviceState::new(size, features, available, Place { index: used, wrap: used_wrap })
            }
            _ => return Err(RingFault::Base { layout: RingLayout::Packed, size, base }),
        };
        Ok(Self::resume(parts, state))
    }

    /// A ring that goes on as `state` says, perhaps in other memory. A record and a log have to be
    /// attached again.
    pub const fn resume(parts: RingParts<R>, state: PackedDeviceState) -> Self {
        Self { parts, state, inflight: None, log: None }
    }

    /// Goes on in other memory, where the same ring is now.
    pub fn relocate(&mut self, parts: RingParts<R>) {
        self.parts = parts;
    }

    /// Logs writes to the ring from now on, or no longer.
    pub fn set_log(&mut self, log: Option<UsedLog<R>>) {
        self.log = log;
    }

    /// Takes the next chain; `None` when there is none. Its pieces are in `buffer` then.
    ///
    /// With an inflight record, what was staged is published first.
    ///
    /// # Errors
    /// See [`PopError`].
    #[inline]
    pub fn pop<M, B>(&mut self, memory: &M, buffer: &mut B) -> Result<Option<Chain>, PopError>
    where
        M: GuestMemory,
        B: ChainBuffer<M::Range>,
    {
        let start = self.state.next_available;
        let head_flags = load_flags(&self.parts.descriptor, start.index, Load::Acquire)?;
        if !is_available(head_flags, start.wrap) {
            return Ok(None);
        }
        if self.inflight.is_some() {
            // The record's list of free entries must not grow while entries are taken from it.
            self.publish()?;
        }
        let state = &mut self.state;
        let mut gather = Gather::new(memory, buffer, Indirect::of(state.features, state.size));
        let mut outcome = Ok(());
        let mut record = None;
        let (mut index, mut slots, mut id) = (start.index, 0_u16, 0);
        let mut more = true;
        while more {
            if slots >= state.size {
                return Err(RingFault::EndlessChain { index: start.index, size: state.size }.into());
            }
            if slots >= state.size.wrapping_sub(state.held) {
                return Err(RingFault::Overcommitted { held: state.held, size: state.size }.into());
            }
            let mut descriptor = read(&self.parts.descriptor, index)?;
            if slots == 0 {
                // The flags that made the chain available; the copy may have other ones by now.
                descriptor.flags = head_flags;
            }
            more = descriptor.has(NEXT);
            if let Some(inflight) = &mut self.inflight {
                let entry = inflight.add(record, descriptor).map_err(RingFault::from)?;
                record.get_or_insert(entry);
            }
            if outcome.is_ok() {
                outcome = gather.packed(index, descriptor);
            }
            if let Err(Stop::Miss(miss)) = outcome {
                if let Some(inflight) = &mut self.inflight {
                    inflight.cancel(record).map_err(RingFault::from)?;
                }
                return Err(PopError::Miss(miss));
            }
            // Only the last one's counts.
            id = descriptor.link;
            slots = slots.wrapping_add(1);
            index = Place { index, wrap: true }.forward(1, state.size).index;
        }
        let (extent, fault) = gather.finish(outcome)?;
        if let Some(inflight) = &mut self.inflight {
            inflight.finish().map_err(RingFault::from)?;
        }
        state.held = state.held.wrapping_add(slots);
        state.next_available = start.forward(slots, state.size);
        let chain = Chain {
            id,
            position: start.to_word(),
            slots,
            record: record.unwrap_or_default(),
            origin: Origin::Ring,
            extent,
        };
        match fault {
            None => Ok(Some(chain)),
            Some(fault) => Err(PopError::Malformed { chain, fault }),
        }
    }

    /// Gives a chain back with the number of bytes written, and lets the driver see it.
    ///
    /// # Errors
    /// See [`PushError`].
    #[inline]
    pub fn push(&mut self, chain: Chain, written: u32) -> Result<(), PushError> {
        self.stage(chain, written)?;
        Ok(self.publish()?)
    }

    /// Gives a chain back; the driver sees it after [`PackedDevice::publish`].
    ///
    /// `written` counts the bytes from the start of the writable part on; it is cut down to what
    /// that part has.
    ///
    /// # Errors
    /// See [`PushError`].
    #[inline]
    pub fn stage(&mut self, chain: Chain, written: u32) -> Result<(), PushError> {
        self.give_back(&chain, chain.slots, 0)?;
        self.fill(chain.id, written.min(chain.extent.writable), chain.slots, 1)?;
        Ok(())
    }

    /// Gives chains back whose writable parts are all written completely. On an in-order ring that
    /// takes one used descriptor for all of them.
    ///
    /// # Errors
    /// See [`PushError`]. The chains before the one it names were given back.
    pub fn stage_filled(&mut self, chains: impl IntoIterator<Item = Chain>) -> Result<(), PushError> {
        let mut batch: Option<(Chain, u16, u16)> = None;
        let mut outcome = Ok(());
        for chain in chains {
            let (_, slots, count) =
                batch.take().map_or((None, 0, 0), |(last, slots, count)| (Some(last), slots, count));
            outcome = self.give_back(&chain, chain.slots, slots);
            if outcome.is_err() {
                break;
            }
            let slots = slots.wrapping_add(chain.slots);
            batch = Some((chain, slots, count.wrapping_add(1)));
            if !self.state.in_order() {
                self.fill_batch(batch.take())?;
            }
        }
        self.fill_batch(batch)?;
        outcome
    }

    /// Lets the driver see every chain that was staged.
    ///
    /// # Errors
    /// When the ring cannot be written any more.
    #[inline]
    pub fn publish(&mut self) -> Result<(), RingFault> {
        let state = &mut self.state;
        let Some(Staged { index, flags, slots, chains }) = state.staged.take() else {
            return Ok(());
        };
        if let Some(inflight) = &mut self.inflight {
            inflight.prepare(state.next_used)?;
        }
        // All other descriptors, and the buffers, are visible before the flags that show the first.
        let offset = descriptor_offset(index).saturating_add(FLAGS);
        self.parts.descriptor.store_u16(offset, flags, Store::Release).ok_or(access(offset))?;
        state.unannounced.add(slots);
        if let Some(inflight) = &mut self.inflight {
            inflight.commit(chains, state.next_used)?;
        }
        match &self.log {
            Some(log) => Ok(log.mark_lying(&self.parts.descriptor, offset, 2)?),
            None => Ok(()),
        }
    }

    /// Whether the driver wants to be called for what was published since the last question.
    ///
    /// # Errors
    /// When the ring cannot be read any more.
    #[inline]
    pub fn needs_call(&mut self) -> Result<bool, RingFault> {
        let state = &mut self.state;
        let Some(count) = state.unannounced.take() else {
            return Ok(false);
        };
        // The driver writes its wish and then looks at the ring; here it is the other way round.
        self.parts.driver.full_fence();
        let published = state.published();
        wants_notification(&self.parts.driver, state.event_idx(), published, count, state.size)
            .ok_or(RingFault::Access { part: RingPart::DriverEvent, offset: 0 })
    }

    /// Asks the driver not to kick.
    ///
    /// # Errors
    /// When the ring cannot be written any more.
    pub fn disable_kicks(&mut self) -> Result<(), RingFault> {
        self.wished(disable(&self.parts.device))
    }

    /// Asks the driver to kick at the next chain. True when there is one already, for which no kick
    /// may come.
    ///
    /// # Errors
    /// When the ring cannot be accessed any more.
    pub fn enable_kicks(&mut self) -> Result<bool, RingFault> {
        self.wished(enable(&self.parts.device, self.state.event_idx(), self.state.next_available))?;
        self.parts.device.full_fence();
        self.has_available()
    }

    /// Whether the next [`PackedDevice::pop`] finds a chain.
    ///
    /// # Errors
    /// When the ring cannot be read any more.
    pub fn has_available(&mut self) -> Result<bool, RingFault> {
        let next = self.state.next_available;
        Ok(is_available(load_flags(&self.parts.descriptor, next.index, Load::Acquire)?, next.wrap))
    }

    /// Back to the start of an empty ring, as after a reset of the device or of this ring. The
    /// record goes; chains that are out cannot be given back any more.
    pub fn reset(&mut self) {
        self.state = PackedDeviceState::new(self.state.size, self.state.features, Place::START, Place::START);
        self.inflight = None;
    }

    /// Where the ring goes on, for `GET_VRING_BASE`. Give every chain back before.
    #[must_use]
    pub fn base(&self) -> VringBase {
        let PackedDeviceState { next_available, next_used, .. } = self.state;
        VringBase::Packed {
            available: next_available.index,
            available_wrap: next_available.wrap,
            used: next_used.index,
            used_wrap: next_used.wrap,
        }
    }

    /// Descriptors taken and not given back.
    #[must_use]
    pub fn held(&self) -> u16 {
        self.state.held
    }

    /// Descriptors of the ring.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.state.size
    }

    /// What the device knows of the ring.
    #[must_use]
    pub fn state(&self) -> &PackedDeviceState {
        &self.state
    }

    /// Checks that this chain may go back now, `ahead` slots behind the next used one, and notes
    /// that it does.
    #[inline]
    fn give_back(&mut self, chain: &Chain, slots: u16, ahead: u16) -> Result<(), PushError> {
        let state = &mut self.state;
        let Some(held) = state.held.checked_sub(slots) else {
            return Err(PushError::NotTaken { chain: chain.clone() });
        };
        if state.in_order() && chain.position != state.next_used.forward(ahead, state.size).to_word() {
            return Err(PushError::NotInOrder { chain: chain.clone() });
        }
        if let Some(inflight) = &mut self.inflight {
            inflight.stage(chain.record).map_err(RingFault::from)?;
        }
        state.held = held;
        Ok(())
    }

    fn fill_batch(&mut self, batch: Option<(Chain, u16, u16)>) -> Result<(), RingFault> {
        match batch {
            Some((last, slots, chains)) => self.fill(last.id, last.extent.writable, slots, chains),
            None => Ok(()),
        }
    }

    /// Writes one used descriptor that stands for `chains` chains in `slots` slots.
    #[inline]
    fn fill(&mut self, id: u16, length: u32, slots: u16, chains: u16) -> Result<(), RingFault> {
        let state = &mut self.state;
        let Place { index, wrap } = state.next_used;
        let flags = used_flags(wrap) | if length > 0 { WRITE } else { 0 };
        let range = &self.parts.descriptor;
        let start = descriptor_offset(index);
        let at = |offset| start.saturating_add(offset);
        let ([l0, l1, l2, l3], [i0, i1]) = (length.to_le_bytes(), id.to_le_bytes());
        range.write(at(LENGTH), [l0, l1, l2, l3, i0, i1]).ok_or(access(at(LENGTH)))?;
        match &mut state.staged {
            Some(staged) => {
                range.store_u16(at(FLAGS), flags, Store::Relaxed).ok_or(access(at(FLAGS)))?;
                staged.slots = staged.slots.saturating_add(slots);
                staged.chains = staged.chains.wrapping_add(chains);
            }
            None => state.staged = Some(Staged { index, flags, slots, chains }),
        }
        state.next_used = state.next_used.forward(slots, state.size);
        match &self.log {
            Some(log) => Ok(log.mark_lying(range, at(LENGTH), 8)?),
            None => Ok(()),
        }
    }

    fn wished(&self, stored: Option<()>) -> Result<(), RingFault> {
        stored.ok_or(RingFault::Access { part: RingPart::DeviceEvent, offset: 0 })?;
        match &self.log {
            Some(log) => Ok(log.mark(&self.parts.device, 0, 4)?),
            None => Ok(()),
        }
    }
}

impl PackedDeviceState {
    fn new(size: u16, features: VirtioFeatures, next_available: Place, next_used: Place) -> Self {
        let unannounced = Unannounced::default();
        // What lies between the two is held by nobody: it went back before the base was read.
        Self { size, features, next_available, next_used, held: 0, staged: None, unannounced }
    }

    /// The place behind the last used descriptor that the driver sees.
    fn published(&self) -> Place {
        match self.staged {
            Some(Staged { index, flags, .. }) => Place { index, wrap: flags & AVAILABLE != 0 },
            None => self.next_used,
        }
    }

    #[inline]
    fn event_idx(&self) -> bool {
        self.features.contains(VirtioFeatures::RING_EVENT_IDX)
    }

    #[inline]
    fn in_order(&self) -> bool {
        self.features.contains(VirtioFeatures::IN_ORDER)
    }
}

#[inline]
fn read<R: GuestRange>(ring: &R, index: u16) -> Result<Descriptor, RingFault> {
    let offset = descriptor_offset(index);
    ring.read(offset).map(Descriptor::from_ring).ok_or(access(offset))
}

#[inline]
fn load_flags<R: GuestRange>(ring: &R, index: u16, order: Load) -> Result<u16, RingFault> {
    let offset = descriptor_offset(index).saturating_add(FLAGS);
    ring.load_u16(offset, order).ok_or(access(offset))
}

fn access(offset: usize) -> RingFault {
    RingFault::Access { part: RingPart::DescriptorRing, offset }
}

//! The device's side of a split ring.

mod recovery;
mod untake;

use super::{
    chain::{Chain, ChainBuffer, Extent, Origin},
    event::{SUPPRESS, Unannounced, passed},
    fault::{ChainFault, PopError, PushError, RingFault, RingPart},
    gather::{Gather, Indirect},
    layout::{RingLayout, RingParts},
    used_log::UsedLog,
};
use crate::{
    guest_memory::{GuestMemory, GuestRange, Load, Store},
    inflight::SplitInflight,
    wire::{feature::VirtioFeatures, vring::VringBase},
};

/// Offsets in the available and the used ring: flags, index, then the entries.
const FLAGS: usize = 0;
const INDEX: usize = 2;
const ENTRIES: usize = 4;

/// A split ring as the device sees it: takes chains, gives them back.
///
/// ```text
///   pop -> ... -> stage, stage, ... -> publish -> needs_call? notify the driver
///    ^ None: enable_kicks -> false: wait for a kick
///    |                       true: more came, go on
/// ```
/// The ring is guest memory and belongs to `R`; everything else is the plain value
/// [`SplitDeviceState`], so that a ring can be moved to other memory or looked at in a test.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SplitDevice<R> {
    parts: RingParts<R>,
    state: SplitDeviceState,
    inflight: Option<SplitInflight<R>>,
    log: Option<UsedLog<R>>,
}

/// What the device knows of a split ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SplitDeviceState {
    size: u16,
    features: VirtioFeatures,
    /// The next entry of the available ring to take.
    next_available: u16,
    /// The driver's index when it was last looked at.
    known_available: u16,
    /// The next entry of the used ring to fill.
    next_used: u16,
    /// The index that the driver sees.
    published: u16,
    /// Chains taken and not given back.
    held: u16,
    unannounced: Unannounced,
}

impl<R: GuestRange> SplitDevice<R> {
    /// A ring of `size` descriptors whose next chain is `base`; where the next used one goes, the
    /// ring in memory says. Of `features`, the acknowledged ones, it goes by `RING_INDIRECT`,
    /// `RING_EVENT_IDX` and `IN_ORDER`.
    ///
    /// # Errors
    /// [`RingFault::Size`], [`RingFault::Base`] for a packed ring's base, [`RingFault::Access`].
    pub fn new(parts: RingParts<R>, size: u32, features: VirtioFeatures, base: VringBase) -> Result<Self, RingFault> {
        let size = RingLayout::Split.check_size(size)?;
        let VringBase::Split { available } = base else {
            return Err(RingFault::Base { layout: RingLayout::Split, size, base });
        };
        let used = load(&parts.device, RingPart::UsedRing, INDEX, Load::Relaxed)?;
        let state = SplitDeviceState::new(size, features, available, used);
        Ok(Self::resume(parts, state))
    }

    /// A ring that goes on as `state` says, perhaps in other memory. A record and a log have to be
    /// attached again.
    pub const fn resume(parts: RingParts<R>, state: SplitDeviceState) -> Self {
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
    /// # Errors
    /// See [`PopError`].
    #[inline]
    pub fn pop<M, B>(&mut self, memory: &M, buffer: &mut B) -> Result<Option<Chain>, PopError>
    where
        M: GuestMemory,
        B: ChainBuffer<M::Range>,
    {
        let state = &mut self.state;
        if state.known_available == state.next_available && !self.look()? {
            return Ok(None);
        }
        let state = &mut self.state;
        if state.held >= state.size {
            return Err(RingFault::Overcommitted { held: state.held, size: state.size }.into());
        }
        let position = state.next_available;
        let offset = state.entry(position, 2);
        let head = load(&self.parts.driver, RingPart::AvailableRing, offset, Load::Relaxed)?;
        if head >= state.size {
            return Err(RingFault::HeadBeyondTable { position, head, size: state.size }.into());
        }
        let (extent, fault) = Self::gather(&self.parts, state, head, memory, buffer)?;
        if let Some(inflight) = &mut self.inflight {
            inflight.begin(head).map_err(RingFault::from)?;
        }
        state.next_available = position.wrapping_add(1);
        state.held = state.held.wrapping_add(1);
        let chain = Chain { id: head, position, slots: 1, record: head, origin: Origin::Ring, extent };
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

    /// Gives a chain back; the driver sees it after [`SplitDevice::publish`].
    ///
    /// `written` counts the bytes from the start of the writable part on; it is cut down to what
    /// that part has.
    ///
    /// # Errors
    /// See [`PushError`].
    #[inline]
    pub fn stage(&mut self, chain: Chain, written: u32) -> Result<(), PushError> {
        let length = written.min(chain.extent.writable);
        self.give_back(&chain)?;
        self.fill(chain.id, length, 1)?;
        Ok(())
    }

    /// Gives chains back whose writable parts are all written completely. On an in-order ring that
    /// takes one used entry for all of them.
    ///
    /// # Errors
    /// See [`PushError`]. The chains before the one it names were given back.
    pub fn stage_filled(&mut self, chains: impl IntoIterator<Item = Chain>) -> Result<(), PushError> {
        let mut batch: Option<(Chain, u16)> = None;
        let mut outcome = Ok(());
        for chain in chains {
            outcome = self.give_back(&chain);
            if outcome.is_err() {
                break;
            }
            let before = batch.take().map_or(0, |(_, count)| count);
            batch = Some((chain, before.wrapping_add(1)));
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
        let staged = state.next_used.wrapping_sub(state.published);
        if staged == 0 {
            return Ok(());
        }
        // Entries and buffers are visible before the index that tells of them.
        let access = RingFault::Access { part: RingPart::UsedRing, offset: INDEX };
        self.parts.device.store_u16(INDEX, state.next_used, Store::Release).ok_or(access)?;
        state.published = state.next_used;
        state.unannounced.add(staged);
        if let Some(inflight) = &mut self.inflight {
            inflight.commit(staged, state.published)?;
        }
        if let Some(log) = &self.log {
            log.mark(&self.parts.device, INDEX, 2)?;
        }
        Ok(())
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
        // The driver writes its wish and then looks at the index; here it is the other way round.
        self.parts.driver.full_fence();
        let part = RingPart::AvailableRing;
        if state.event_idx() {
            let event = load(&self.parts.driver, part, state.event_offset(2), Load::Relaxed)?;
            return Ok(passed(event, state.published, count));
        }
        Ok(load(&self.parts.driver, part, FLAGS, Load::Relaxed)? & SUPPRESS == 0)
    }

    /// Asks the driver not to kick, as far as it can be asked: with `EVENT_IDX` it does not kick
    /// again until it was asked to.
    ///
    /// # Errors
    /// When the ring cannot be written any more.
    pub fn disable_kicks(&mut self) -> Result<(), RingFault> {
        if self.state.event_idx() { Ok(()) } else { self.store_wish(FLAGS, SUPPRESS) }
    }

    /// Asks the driver to kick at the next chain. True when there is one already, for which no kick
    /// may come.
    ///
    /// # Errors
    /// When the ring cannot be accessed any more, or its index is wrong.
    pub fn enable_kicks(&mut self) -> Result<bool, RingFault> {
        if self.state.event_idx() {
            self.store_wish(self.state.event_offset(8), self.state.next_available)?;
        } else {
            self.store_wish(FLAGS, 0)?;
        }
        self.parts.device.full_fence();
        self.has_available()
    }

    /// Whether the next [`SplitDevice::pop`] finds a chain.
    ///
    /// # Errors
    /// When the ring cannot be read any more, or its index is wrong.
    pub fn has_available(&mut self) -> Result<bool, RingFault> {
        Ok(self.state.known_available != self.state.next_available || self.look()?)
    }

    /// Back to the start of an empty ring, as after a reset of the device or of this ring. The
    /// record goes; chains that are out cannot be given back any more.
    pub fn reset(&mut self) {
        self.state = SplitDeviceState::new(self.state.size, self.state.features, 0, 0);
        self.inflight = None;
    }

    /// Where the ring goes on, for `GET_VRING_BASE`. Give every chain back before.
    #[must_use]
    pub fn base(&self) -> VringBase {
        VringBase::Split { available: self.state.next_available }
    }

    /// Chains taken and not given back.
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
    pub fn state(&self) -> &SplitDeviceState {
        &self.state
    }

    /// Looks at the driver's index. True when there is a chain to take.
    #[inline]
    fn look(&mut self) -> Result<bool, RingFault> {
        let state = &mut self.state;
        // What the index tells of is read after it.
        let available = load(&self.parts.driver, RingPart::AvailableRing, INDEX, Load::Acquire)?;
        let ahead = available.wrapping_sub(state.next_available);
        if ahead > state.size {
            let (next, size) = (state.next_available, state.size);
            return Err(RingFault::AvailableAhead { available, next, size });
        }
        state.known_available = available;
        Ok(ahead != 0)
    }

    /// The chain at `head`, or what is wrong with it.
    #[inline]
    fn gather<M, B>(
        parts: &RingParts<R>,
        state: &SplitDeviceState,
        head: u16,
        memory: &M,
        buffer: &mut B,
    ) -> Result<(Extent, Option<ChainFault>), PopError>
    where
        M: GuestMemory,
        B: ChainBuffer<M::Range>,
    {
        let mut gather = Gather::new(memory, buffer, Indirect::of(state.features, state.size));
        let outcome = gather.split(&parts.descriptor, state.size, head);
        gather.finish(outcome)
    }

    /// Checks that this chain may go back now, and notes that it does.
    #[inline]
    fn give_back(&mut self, chain: &Chain) -> Result<(), PushError> {
        let state = &mut self.state;
        if state.held == 0 {
            return Err(PushError::NotTaken { chain: chain.clone() });
        }
        if state.in_order() && chain.position != state.next_available.wrapping_sub(state.held) {
            return Err(PushError::NotInOrder { chain: chain.clone() });
        }
        if let Some(inflight) = &mut self.inflight {
            inflight.stage(chain.id).map_err(RingFault::from)?;
        }
        state.held = state.held.wrapping_sub(1);
        Ok(())
    }

    fn fill_batch(&mut self, batch: Option<(Chain, u16)>) -> Result<(), RingFault> {
        match batch {
            Some((last, count)) => self.fill(last.id, last.extent.writable, count),
            None => Ok(()),
        }
    }

    /// Writes one used entry that stands for `count` chains.
    #[inline]
    fn fill(&mut self, id: u16, length: u32, count: u16) -> Result<(), RingFault> {
        let state = &mut self.state;
        let offset = state.entry(state.next_used, 8);
        let entry = u64::from(id) | (u64::from(length) << 32);
        let access = RingFault::Access { part: RingPart::UsedRing, offset };
        self.parts.device.write(offset, entry.to_le_bytes()).ok_or(access)?;
        if let Some(log) = &self.log {
            log.mark(&self.parts.device, offset, 8)?;
        }
        state.next_used = state.next_used.wrapping_add(count);
        Ok(())
    }

    fn store_wish(&self, offset: usize, value: u16) -> Result<(), RingFault> {
        let access = RingFault::Access { part: RingPart::UsedRing, offset };
        self.parts.device.store_u16(offset, value, Store::Relaxed).ok_or(access)?;
        match &self.log {
            Some(log) => Ok(log.mark(&self.parts.device, offset, 2)?),
            None => Ok(()),
        }
    }
}

impl SplitDeviceState {
    fn new(size: u16, features: VirtioFeatures, available: u16, used: u16) -> Self {
        Self {
            size,
            features,
            next_available: available,
            known_available: available,
            next_used: used,
            published: used,
            held: 0,
            unannounced: Unannounced::default(),
        }
    }

    /// Where the entry of a free-running index begins in a ring of entries of `bytes`.
    #[inline]
    fn entry(&self, index: u16, bytes: usize) -> usize {
        // The size is a power of two.
        let slot = usize::from(index & self.size.wrapping_sub(1));
        slot.saturating_mul(bytes).saturating_add(ENTRIES)
    }

    /// Where the event index behind the entries of a ring is.
    #[inline]
    fn event_offset(&self, bytes: usize) -> usize {
        usize::from(self.size).saturating_mul(bytes).saturating_add(ENTRIES)
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
fn load<R: GuestRange>(range: &R, part: RingPart, offset: usize, order: Load) -> Result<u16, RingFault> {
    range.load_u16(offset, order).ok_or(RingFault::Access { part, offset })
}

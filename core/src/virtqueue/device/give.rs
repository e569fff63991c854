//! Giving chains back to a ring, and calling the driver.

use super::DeviceRing;
use crate::{
    guest_memory::{GuestRange, Store},
    inflight::Step,
    virtqueue::{
        chain::Chain,
        descriptor::{WRITE, used_flags},
        fault::{PushError, RingFault, RingPart},
        kind::{Layout, for_layout},
        layout::RingLayout,
        part::{INDEX, LENGTH, flags_at, ring_entry, slot_at, store, write},
    },
};

/// Why a chain could not be given back: a [`PushError`] without the chain.
enum Refused {
    NotInOrder,
    NotTaken,
    Ring(RingFault),
}

impl Refused {
    #[cold]
    #[cfg_attr(for_size, inline(never))]
    fn error(self, chain: Chain) -> PushError {
        match self {
            Self::NotInOrder => PushError::NotInOrder { chain },
            Self::NotTaken => PushError::NotTaken { chain },
            Self::Ring(fault) => PushError::Ring(fault),
        }
    }
}

impl From<RingFault> for Refused {
    #[inline]
    fn from(fault: RingFault) -> Self {
        Self::Ring(fault)
    }
}

impl<R: GuestRange, L: Layout> DeviceRing<R, L> {
    /// Gives a chain back with the number of bytes written, and lets the driver see it.
    ///
    /// # Errors
    /// See [`PushError`].
    #[cfg_attr(not(for_size), inline)]
    pub fn push(&mut self, chain: Chain, written: u32) -> Result<(), PushError> {
        match self.stage_one(&chain, written) {
            Ok(()) => Ok(self.publish()?),
            Err(refused) => Err(refused.error(chain)),
        }
    }

    /// Gives a chain back; the driver sees it after [`DeviceRing::publish`].
    ///
    /// `written` counts the bytes from the start of the writable part on; it is cut down to what
    /// that part has.
    ///
    /// # Errors
    /// See [`PushError`].
    #[cfg_attr(not(for_size), inline(always))]
    pub fn stage(&mut self, chain: Chain, written: u32) -> Result<(), PushError> {
        self.stage_one(&chain, written).map_err(|refused| refused.error(chain))
    }

    /// Gives chains back whose writable parts are all written completely. On an in-order ring that
    /// takes one used entry or descriptor for all of them.
    ///
    /// # Errors
    /// See [`PushError`]. The chains before the one it names were given back.
    pub fn stage_filled(&mut self, chains: impl IntoIterator<Item = Chain>) -> Result<(), PushError> {
        let mut batch: Option<(Chain, Batch)> = None;
        let mut outcome = Ok(());
        for chain in chains {
            let before = batch.as_ref().map_or(Batch::default(), |(_, before)| *before);
            if let Err(refused) = self.give_back(self.layout(), &chain, before.slots) {
                outcome = Err(refused.error(chain));
                break;
            }
            let joined = before.with(&chain);
            batch = Some((chain, joined));
            if !self.state.agreed.in_order {
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
    #[cfg_attr(not(for_size), inline(always))]
    pub fn publish(&mut self) -> Result<(), RingFault> {
        for_layout!(self.layout(), layout => self.publish_in(layout))
    }

    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline(always))]
    fn publish_in(&mut self, layout: RingLayout) -> Result<(), RingFault> {
        if self.state.published == self.state.next_used {
            return Ok(());
        }
        if let Some(inflight) = &mut self.inflight {
            inflight.write(&Step::Prepare(self.state.next_used))?;
        }
        let state = &mut self.state;
        let (range, part, offset, number) = match layout {
            RingLayout::Split => (&self.parts.device, RingPart::UsedRing, INDEX, state.next_used.0),
            RingLayout::Packed => {
                let offset = flags_at(state.published);
                (&self.parts.descriptor, RingPart::DescriptorRing, offset, state.first_flags)
            }
        };
        // Everything else of what was given back, and the buffers, are visible before what tells of it.
        store(range, part, offset, number, Store::Release)?;
        state.first_flags = 0;
        let slots = state.published.distance(layout, state.next_used, state.size);
        state.unannounced.add(slots);
        state.published = state.next_used;
        let chains = core::mem::take(&mut state.staged);
        if let Some(inflight) = &mut self.inflight {
            inflight.write(&Step::Commit(chains, state.next_used))?;
        }
        self.log(range, part, offset, 2)
    }

    /// Whether the driver wants to be called for what was published since the last question.
    ///
    /// # Errors
    /// When the ring cannot be read any more.
    #[cfg_attr(not(for_size), inline)]
    pub fn needs_call(&mut self) -> Result<bool, RingFault> {
        let state = &mut self.state;
        let wishes = self.parts.driver_wishes(state.layout.layout(), state.size, state.agreed);
        wishes.want(&mut state.unannounced, state.published)
    }

    /// The place at which the driver wants to be called: `used_event`, or that of its event suppression area. When it is another
    /// than before, the driver has looked at the ring. `None` without
    /// [`VirtioFeatures::RING_EVENT_IDX`](crate::VirtioFeatures::RING_EVENT_IDX).
    ///
    /// # Errors
    /// When the ring cannot be read any more.
    #[cfg_attr(not(for_size), inline)]
    pub fn driver_event(&self) -> Result<Option<u16>, RingFault> {
        let state = &self.state;
        self.parts.driver_wishes(state.layout.layout(), state.size, state.agreed).place()
    }

    #[cfg_attr(not(for_size), inline(always))]
    fn stage_one(&mut self, chain: &Chain, written: u32) -> Result<(), Refused> {
        for_layout!(self.layout(), layout => self.stage_in(layout, chain, written))
    }

    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline(always))]
    fn stage_in(&mut self, layout: RingLayout, chain: &Chain, written: u32) -> Result<(), Refused> {
        self.give_back(layout, chain, 0)?;
        let written = written.min(chain.writable_len());
        Ok(self.fill(layout, chain.id(), written, Batch::default().with(chain))?)
    }

    /// Checks that this chain may go back now, `ahead` slots behind the next used one, and notes
    /// that it does.
    #[cfg_attr(not(for_size), inline)]
    fn give_back(&mut self, layout: RingLayout, chain: &Chain, ahead: u16) -> Result<(), Refused> {
        let (entry, state) = (chain.entry(), &mut self.state);
        let Some(held) = state.held.checked_sub(entry.slots) else {
            return Err(Refused::NotTaken);
        };
        if state.agreed.in_order {
            let oldest = match layout {
                RingLayout::Split => state.next_available.0.wrapping_sub(state.held),
                RingLayout::Packed => state.next_used.forward(layout, ahead, state.size).0,
            };
            if entry.position != oldest {
                return Err(Refused::NotInOrder);
            }
        }
        if let Some(inflight) = &mut self.inflight {
            inflight.write(&Step::Stage(entry.record))?;
        }
        state.held = held;
        Ok(())
    }

    fn fill_batch(&mut self, batch: Option<(Chain, Batch)>) -> Result<(), RingFault> {
        match batch {
            Some((last, batch)) => self.fill(self.layout(), last.id(), last.writable_len(), batch),
            None => Ok(()),
        }
    }

    /// Writes one used entry or descriptor that stands for a `batch`.
    #[cfg_attr(not(for_size), inline(always))]
    fn fill(&mut self, layout: RingLayout, id: u16, length: u32, batch: Batch) -> Result<(), RingFault> {
        let state = &mut self.state;
        let (id, long, mut is_hidden) = (u64::from(id), u64::from(length), false);
        let (range, part, offset, entry) = match layout {
            RingLayout::Split => (
                &self.parts.device,
                RingPart::UsedRing,
                ring_entry(state.next_used.0, state.size, 8),
                id | (long << 32),
            ),
            RingLayout::Packed => {
                let flags = used_flags(state.next_used.wrap()) | if length > 0 { WRITE } else { 0 };
                is_hidden = state.published == state.next_used;
                if is_hidden {
                    state.first_flags = flags;
                }
                let offset = slot_at(state.next_used).wrapping_add(LENGTH);
                let entry = long | (id << 32) | (u64::from(flags) << 48);
                (&self.parts.descriptor, RingPart::DescriptorRing, offset, entry)
            }
        };
        let bytes = entry.to_le_bytes();
        if is_hidden {
            // The flags of the first one come last.
            let [but_flags @ .., _, _] = &bytes;
            write(range, part, offset, but_flags)?;
        } else {
            write(range, part, offset, &bytes)?;
        }
        state.staged = state.staged.wrapping_add(batch.chains);
        state.next_used = state.next_used.forward(layout, batch.slots, state.size);
        self.log(range, part, offset, 8)
    }
}

/// Chains that are given back together.
#[derive(Clone, Copy, Default)]
struct Batch {
    slots: u16,
    chains: u16,
}

impl Batch {
    /// The `chain` too.
    #[cfg_attr(not(for_size), inline)]
    fn with(self, chain: &Chain) -> Self {
        Self { slots: self.slots.wrapping_add(chain.entry().slots), chains: self.chains.wrapping_add(1) }
    }
}

//! Taking chains from a ring, and leaving one there after all.

use super::DeviceRing;
use crate::{
    guest_memory::{GuestMemory, GuestRange, Load},
    inflight::Step,
    virtqueue::{
        chain::{Chain, ChainBuffer, Entry, Origin},
        descriptor::{NEXT, is_available},
        fault::{PopError, PushError, RingFault, RingPart},
        gather::Gather,
        kind::{Layout, for_layout},
        layout::RingLayout,
        part::{INDEX, load, load_flags, read_descriptor, ring_entry},
        position::Position,
    },
};

impl<R: GuestRange, L: Layout> DeviceRing<R, L> {
    /// Takes the next chain; `None` when there is none. Its pieces are in `buffer` then.
    ///
    /// In a packed ring with an inflight record, what was staged is published first.
    ///
    /// # Errors
    /// See [`PopError`].
    #[cfg_attr(not(for_size), inline(always))]
    pub fn pop<M, B>(&mut self, memory: &M, buffer: &mut B) -> Result<Option<Chain>, PopError>
    where
        M: GuestMemory,
        B: ChainBuffer<M::Range>,
    {
        for_layout!(self.layout(), layout => self.pop_from(layout, memory, buffer))
    }

    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline(always))]
    fn pop_from<M, B>(&mut self, layout: RingLayout, memory: &M, buffer: &mut B) -> Result<Option<Chain>, PopError>
    where
        M: GuestMemory,
        B: ChainBuffer<M::Range>,
    {
        let Some(flags) = self.look(layout)? else {
            return Ok(None);
        };
        let state = &self.state;
        if state.held >= state.size {
            return Err(RingFault::Overcommitted { held: state.held, size: state.size }.into());
        }
        let mut gather = Gather::new(memory, buffer, state.agreed, state.size);
        let mut entry = Entry { position: state.next_available.0, ..Entry::default() };
        match layout {
            RingLayout::Split => self.gather_split(&mut gather, &mut entry),
            RingLayout::Packed => self.gather_packed(&mut gather, &mut entry, flags)?,
        }
        let gathered = gather.finish(entry, Origin::Ring);
        // A malformed chain is taken too; otherwise the ring stays as it is.
        if matches!(gathered, Ok(_) | Err(PopError::Malformed { .. })) {
            let Entry { slots, record, .. } = entry;
            if let Some(inflight) = &mut self.inflight {
                inflight.write(&Step::Take(record))?;
            }
            let state = &mut self.state;
            state.held = state.held.wrapping_add(slots);
            state.next_available = state.next_available.forward(layout, slots, state.size);
        }
        gathered.map(Some)
    }

    /// Whether the next [`DeviceRing::pop`] finds a chain.
    ///
    /// # Errors
    /// When the ring cannot be read any more, or its index is wrong.
    pub fn has_available(&mut self) -> Result<bool, RingFault> {
        Ok(self.look(self.layout())?.is_some())
    }

    /// Asks the driver not to kick, as far as it can be asked: in a split ring with `EVENT_IDX` it does not kick
    /// again until it was asked to.
    ///
    /// # Errors
    /// When the ring cannot be written any more.
    pub fn disable_kicks(&mut self) -> Result<(), RingFault> {
        self.wish(None)
    }

    /// Asks the driver to kick at the next chain. True when there is one already, for which no kick
    /// may come.
    ///
    /// # Errors
    /// When the ring cannot be accessed any more, or its index is wrong.
    pub fn enable_kicks(&mut self) -> Result<bool, RingFault> {
        self.wish(Some(self.state.next_available))?;
        self.parts.device.full_fence();
        self.has_available()
    }

    /// Leaves the chain in the ring that was taken last, as if it had not been: it is the next one again.
    ///
    /// In a packed ring with an inflight record, what was staged is published first.
    ///
    /// # Errors
    /// [`PushError::NotTaken`] for any other chain, and for one that was [recovered](Self::pop_recovered).
    pub fn untake(&mut self, chain: Chain) -> Result<(), PushError> {
        let (layout, state) = (self.layout(), &self.state);
        let Entry { position, slots, record, .. } = chain.entry();
        let start = Position(position);
        let is_last = chain.origin == Origin::Ring && start.forward(layout, slots, state.size) == state.next_available;
        let Some(held) = state.held.checked_sub(slots).filter(|_| is_last) else {
            return Err(PushError::NotTaken { chain });
        };
        if self.inflight.is_some() && layout == RingLayout::Packed {
            // The record's list of free entries has those at its front that were staged.
            self.publish()?;
        }
        if let Some(inflight) = &mut self.inflight {
            inflight.record().untake(record)?;
        }
        (self.state.held, self.state.next_available) = (held, start);
        Ok(())
    }

    /// Looks whether there is a chain to take. In a packed ring it is the flags that tell of it.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    fn look(&mut self, layout: RingLayout) -> Result<Option<u16>, RingFault> {
        let next = self.state.next_available;
        if layout == RingLayout::Packed {
            let flags = load_flags(&self.parts.descriptor, next, Load::Acquire)?;
            return Ok(is_available(flags, next.wrap()).then_some(flags));
        }
        if self.state.known_available == next {
            // What the index tells of is read after it.
            let available = load(&self.parts.driver, RingPart::AvailableRing, INDEX, Load::Acquire)?;
            if available.wrapping_sub(next.0) > self.state.size {
                return Err(RingFault::AvailableAhead { available, next: next.0, size: self.state.size });
            }
            self.state.known_available = Position(available);
        }
        Ok((self.state.known_available != next).then_some(0))
    }

    #[cfg_attr(not(for_size), inline(always))]
    fn gather_split<M, B>(&self, gather: &mut Gather<'_, M, B>, entry: &mut Entry)
    where
        M: GuestMemory,
        B: ChainBuffer<M::Range>,
    {
        let (position, size) = (self.state.next_available.0, self.state.size);
        let part = RingPart::AvailableRing;
        let fault = match load(&self.parts.driver, part, ring_entry(position, size, 2), Load::Relaxed) {
            Ok(head) if head < size => {
                entry.split(head);
                return gather.split(&self.parts.descriptor, head);
            }
            Ok(head) => RingFault::HeadBeyondTable { position, head, size },
            Err(fault) => fault,
        };
        gather.broken(fault)
    }

    /// `flags` made the chain available.
    #[cfg_attr(not(for_size), inline)]
    fn gather_packed<M, B>(
        &mut self,
        gather: &mut Gather<'_, M, B>,
        entry: &mut Entry,
        flags: u16,
    ) -> Result<(), RingFault>
    where
        M: GuestMemory,
        B: ChainBuffer<M::Range>,
    {
        if self.inflight.is_some() {
            // The record's list of free entries must not grow while entries are taken from it.
            self.publish()?;
        }
        let state = &self.state;
        let (start, size, held) = (state.next_available, state.size, state.held);
        let mut next = start;
        loop {
            if entry.slots >= size.wrapping_sub(held) {
                return Err(match held {
                    0 => RingFault::EndlessChain { index: start.index(), size },
                    _ => RingFault::Overcommitted { held, size },
                });
            }
            let mut descriptor =
                read_descriptor(&self.parts.descriptor, RingPart::DescriptorRing, next.index(), RingLayout::Packed)?;
            let is_first = entry.slots == 0;
            if is_first {
                // The flags that made the chain available; the copy may have other ones by now.
                descriptor.flags = flags;
            }
            if let Some(inflight) = &mut self.inflight {
                let copied = inflight.write(&Step::Copy((!is_first).then_some(entry.record), &descriptor))?;
                if is_first {
                    entry.record = copied;
                }
            }
            entry.add(&descriptor);
            gather.packed(next.index(), descriptor);
            if gather.is_to_be_repeated() {
                return match &mut self.inflight {
                    Some(inflight) => inflight.write(&Step::Cancel(entry.record)).map(|_| ()),
                    None => Ok(()),
                };
            }
            if !descriptor.has(NEXT) {
                return Ok(());
            }
            next = next.forward(RingLayout::Packed, 1, size);
        }
    }

    fn wish(&self, at: Option<Position>) -> Result<(), RingFault> {
        let wishes = self.parts.device_wishes(self.layout(), self.state.size, self.state.agreed);
        if !wishes.write(at)? || self.log.is_none() {
            return Ok(());
        }
        let (offset, length) = wishes.extent();
        self.log(wishes.range, wishes.part.part, offset, length)
    }
}

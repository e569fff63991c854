//! Chains that come back from the device, and its calls.

use super::{DriverFault, DriverRing, Used};
use crate::{
    guest_memory::{GuestRange, Load},
    virtqueue::{
        descriptor::{WRITE, is_used},
        fault::{RingFault, RingPart},
        kind::Layout,
        layout::RingLayout,
        part::{INDEX, LENGTH, load, load_flags, read, ring_entry, slot_at},
        position::Position,
    },
};

impl<R: GuestRange, L: Layout, const N: usize> DriverRing<R, L, N> {
    /// The next chain that came back; `None` when there is none.
    ///
    /// # Errors
    /// When the device broke the ring.
    pub fn poll(&mut self) -> Result<Option<Used>, DriverFault> {
        let layout = self.layout();
        let has_used = self.has_used()?;
        let entry = match self.state.tokens.batch {
            Some(batch) if has_used => batch,
            Some(batch) => return Err(DriverFault::UnfinishedBatch { token: batch.token }),
            None if has_used => self.read_entry()?,
            None => return Ok(None),
        };
        let state = &mut self.state;
        let is_split = layout == RingLayout::Split;
        let position = if is_split { state.next_used.0 } else { state.next_used.index() };
        let settled = state.tokens.settle(entry, position, state.agreed.in_order, is_split)?;
        state.free = state.free.wrapping_add(settled.count);
        state.next_used = state.next_used.forward(layout, if is_split { 1 } else { settled.count }, state.size);
        Ok(Some(settled.used))
    }

    /// Asks the device for no calls, as far as it can be asked: in a split ring with `EVENT_IDX` it does not call
    /// again until it was asked to.
    ///
    /// # Errors
    /// When the ring cannot be written any more.
    pub fn disable_calls(&mut self) -> Result<(), RingFault> {
        self.wish(None)
    }

    /// Asks the device to call for the next chain that it gives back. True when there is one
    /// already, for which no call may come.
    ///
    /// # Errors
    /// When the ring cannot be accessed any more, or its index is wrong.
    pub fn enable_calls(&mut self) -> Result<bool, DriverFault> {
        self.wish(Some(self.state.next_used))?;
        self.parts.driver.full_fence();
        self.has_used()
    }

    #[cfg_attr(for_size, inline(never))]
    fn has_used(&mut self) -> Result<bool, DriverFault> {
        let (layout, state) = (self.layout(), &mut self.state);
        let next = state.next_used;
        if layout == RingLayout::Packed {
            // What the flags tell of is read after them.
            return Ok(state.tokens.batch.is_some()
                || is_used(load_flags(&self.parts.descriptor, next, Load::Acquire)?, next.wrap()));
        }
        if state.known_used == next {
            // What the index tells of is read after it.
            let used = load(&self.parts.device, RingPart::UsedRing, INDEX, Load::Acquire)?;
            let (next, outstanding) = (next.0, state.tokens.outstanding);
            if used.wrapping_sub(next) > outstanding {
                return Err(DriverFault::UsedAhead { used, next, outstanding });
            }
            state.known_used = Position(used);
        }
        Ok(state.known_used != next)
    }

    fn read_entry(&self) -> Result<Used, DriverFault> {
        let (position, size) = (self.state.next_used, self.state.size);
        let (range, part, offset) = match self.layout() {
            RingLayout::Split => (&self.parts.device, RingPart::UsedRing, ring_entry(position.0, size, 8)),
            RingLayout::Packed => {
                (&self.parts.descriptor, RingPart::DescriptorRing, slot_at(position).wrapping_add(LENGTH))
            }
        };
        let mut bytes = [0; 8];
        read(range, part, offset, &mut bytes)?;
        let [a0, a1, a2, a3, b0, b1, b2, b3] = bytes;
        let (first, second) = (u32::from_le_bytes([a0, a1, a2, a3]), u32::from_le_bytes([b0, b1, b2, b3]));
        match self.layout() {
            RingLayout::Split => {
                let unknown = DriverFault::UnknownToken { position: position.0, token: first };
                Ok(Used { token: u16::try_from(first).map_err(|_| unknown)?, written: second })
            }
            RingLayout::Packed => {
                // The length says something only if the device wrote.
                let flags = u16::from_le_bytes([b2, b3]);
                Ok(Used { token: u16::from_le_bytes([b0, b1]), written: if flags & WRITE == 0 { 0 } else { first } })
            }
        }
    }

    fn wish(&self, at: Option<Position>) -> Result<(), RingFault> {
        self.parts.driver_wishes(self.layout(), self.state.size, self.state.agreed).write(at).map(|_| ())
    }
}

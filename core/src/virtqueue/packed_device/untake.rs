//! Leaving a chain in a packed ring after all.

use super::PackedDevice;
use crate::{
    guest_memory::GuestRange,
    virtqueue::{
        chain::{Chain, Origin},
        event::Place,
        fault::{PushError, RingFault},
    },
};

impl<R: GuestRange> PackedDevice<R> {
    /// Leaves the chain in the ring that was taken last, as if it had not been: it is the next one again.
    ///
    /// With an inflight record, what was staged is published first.
    ///
    /// # Errors
    /// [`PushError::NotTaken`] for any other chain, and for one that was [recovered](Self::pop_recovered).
    pub fn untake(&mut self, chain: Chain) -> Result<(), PushError> {
        let state = &self.state;
        let start = Place::from_word(chain.position);
        let end = start.forward(chain.slots, state.size);
        let is_last = chain.origin == Origin::Ring && end == state.next_available;
        let Some(held) = state.held.checked_sub(chain.slots).filter(|_| is_last) else {
            return Err(PushError::NotTaken { chain });
        };
        if self.inflight.is_some() {
            // The record's list of free entries has those at its front that were staged.
            self.publish()?;
        }
        if let Some(inflight) = &mut self.inflight {
            inflight.untake(chain.record).map_err(RingFault::from)?;
        }
        (self.state.held, self.state.next_available) = (held, start);
        Ok(())
    }
}

//! Leaving a chain in a split ring after all.

use super::SplitDevice;
use crate::{
    guest_memory::GuestRange,
    virtqueue::{
        chain::{Chain, Origin},
        fault::{PushError, RingFault},
    },
};

impl<R: GuestRange> SplitDevice<R> {
    /// Leaves the chain in the ring that was taken last, as if it had not been: it is the next one again.
    ///
    /// # Errors
    /// [`PushError::NotTaken`] for any other chain, and for one that was [recovered](Self::pop_recovered).
    pub fn untake(&mut self, chain: Chain) -> Result<(), PushError> {
        let state = &mut self.state;
        let last = state.next_available.wrapping_sub(1);
        let is_last = chain.origin == Origin::Ring && chain.position == last;
        let Some(held) = state.held.checked_sub(1).filter(|_| is_last) else {
            return Err(PushError::NotTaken { chain });
        };
        if let Some(inflight) = &mut self.inflight {
            inflight.cancel(chain.id).map_err(RingFault::from)?;
        }
        (state.held, state.next_available) = (held, last);
        Ok(())
    }
}

//! Going on where another device left a split ring, from its inflight record.

use super::SplitDevice;
use crate::{
    guest_memory::{GuestMemory, GuestRange},
    inflight::{Resubmission, SplitInflight},
    virtqueue::{
        chain::{Chain, ChainBuffer, Origin},
        fault::{PopError, RingFault},
    },
};

impl<R: GuestRange> SplitDevice<R> {
    /// Records every chain in `inflight` from now on, and finds in it what its last writer left:
    /// the chains to take again with [`SplitDevice::pop_recovered`] before any other, oldest first.
    /// They count as taken, so the ring goes on behind them, wherever its base was.
    ///
    /// Call it before the first chain is taken; `room` holds as many entries as the ring.
    ///
    /// # Errors
    /// See [`InflightFault`](crate::InflightFault). The ring is as it was then.
    pub fn recover<'r>(
        &mut self,
        mut inflight: SplitInflight<R>,
        room: &'r mut [Resubmission],
    ) -> Result<&'r [Resubmission], RingFault> {
        let state = &mut self.state;
        let found = inflight.recover(state.published, room)?;
        self.inflight = Some(inflight);
        let Some(found) = found else {
            return Ok(&[]);
        };
        // Whatever was taken and is not used is in the record. A front-end cannot know how much that is.
        state.held = u16::try_from(found.len()).unwrap_or(u16::MAX);
        state.next_available = state.published.wrapping_add(state.held);
        state.known_available = state.next_available;
        Ok(found)
    }

    /// Takes a chain again that was in flight when the record's last writer ended.
    ///
    /// # Errors
    /// See [`PopError`].
    pub fn pop_recovered<M, B>(
        &mut self,
        resubmission: &Resubmission,
        memory: &M,
        buffer: &mut B,
    ) -> Result<Chain, PopError>
    where
        M: GuestMemory,
        B: ChainBuffer<M::Range>,
    {
        let Resubmission { entry: head, position, .. } = *resubmission;
        if head >= self.state.size {
            return Err(RingFault::HeadBeyondTable { position, head, size: self.state.size }.into());
        }
        let (extent, fault) = Self::gather(&self.parts, &self.state, head, memory, buffer)?;
        let chain = Chain { id: head, position, slots: 1, record: head, origin: Origin::Record, extent };
        match fault {
            None => Ok(chain),
            Some(fault) => Err(PopError::Malformed { chain, fault }),
        }
    }
}

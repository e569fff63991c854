//! The inflight record of a split ring: one entry for each descriptor, used by those that are the first of a chain.

use super::{Recovery, Resubmission, record::Record};
use crate::{
    guest_memory::GuestRange,
    virtqueue::{Position, RingFault},
};

/// Offset of the used index in the header, behind the last chain of the last batch.
const USED_AT: u32 = 14;

impl<R: GuestRange> Record<R> {
    /// Completes what the last writer left half done, and finds the chains in flight, oldest first;
    /// `None` when there was no last writer. `published` is the index of the used ring.
    pub(crate) fn recover_split<'r>(
        &mut self,
        published: Position,
        room: &'r mut [Resubmission],
    ) -> Result<Option<Recovery<'r>>, RingFault> {
        let used = published.0;
        if self.is_fresh()? {
            // Now that the ring is known, the empty record is complete.
            self.set_number(USED_AT, used)?;
            self.mark_used()?;
            return Ok(None);
        }
        let count = used.wrapping_sub(self.number(USED_AT)?);
        if count > self.ring {
            return Err(RingFault::InflightBatch { count, size: self.ring });
        }
        if count > 0 {
            self.forget_batch(count)?;
            self.set_number(USED_AT, used)?;
        }
        let (list, slots) = self.in_flight(room)?;
        for (order, resubmission) in (0..=u16::MAX).zip(list.iter_mut()) {
            resubmission.position = used.wrapping_add(order);
        }
        Ok(Some(Recovery { used: published, slots, resubmissions: list }))
    }

    /// The driver sees the last `count` chains that were staged; the used index is `used` now.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn commit_split(&mut self, count: u16, used: u16) -> Result<(), RingFault> {
        self.forget_batch(count)?;
        self.set_number(USED_AT, used)
    }
}

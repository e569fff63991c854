//! The inflight record of a split ring.

use super::{Age, InflightFault, Record, Resubmission, bytes_for, sort};
use crate::guest_memory::GuestRange;

/// Offsets in the header, and its bytes: features u64, version, size, last batch, used index.
const LAST_BATCH_AT: usize = 12;
const USED_AT: usize = 14;
const HEADER: u16 = 16;

/// Offsets in an entry, and its bytes: inflight u8, 5 of padding, next u16, counter u64.
const NEXT_AT: usize = 6;
const COUNTER_AT: usize = 8;
const ENTRY: u16 = 16;

/// The inflight record of a split ring: one entry for each descriptor, used by those that are the
/// first of a chain.
#[doc(alias = "QueueRegionSplit")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SplitInflight<R> {
    record: Record<R>,
    /// Descriptors of the ring; the record may have entries for more.
    ring: u16,
    /// What the next chain gets.
    counter: u64,
    /// The last chain of the last batch; links to the one before.
    last_batch: u16,
}

impl<R: GuestRange> SplitInflight<R> {
    /// Bytes of the record of a ring of `size` descriptors; also the distance to that of the next
    /// ring.
    #[must_use]
    pub fn size_for(size: u16) -> u64 {
        bytes_for(HEADER.into(), ENTRY.into(), size)
    }

    /// The record in `range` of a ring of `size` descriptors. One that nobody has used yet becomes
    /// an empty one.
    ///
    /// # Errors
    /// When it is too short, or of another version or size.
    pub fn open(range: R, size: u16) -> Result<Self, InflightFault> {
        let (record, age) = Record::open(range, size, Self::size_for)?;
        if age == Age::Fresh {
            for entry in 0..size {
                record.set_bytes(entry_at(entry), [0; 16])?;
            }
            record.set_number(LAST_BATCH_AT, 0)?;
            record.set_number(USED_AT, 0)?;
            record.set_bytes(0, [0; 8])?;
        }
        let last_batch = if age == Age::Fresh { 0 } else { record.number(LAST_BATCH_AT)? };
        Ok(Self { record, ring: size, counter: 0, last_batch })
    }

    /// Completes what the last writer left half done, and finds the chains in flight, oldest first;
    /// `None` when there was no last writer. `used` is the index of the used ring.
    pub(crate) fn recover<'r>(
        &mut self,
        used: u16,
        room: &'r mut [Resubmission],
    ) -> Result<Option<&'r [Resubmission]>, InflightFault> {
        let record = &self.record;
        let size = record.size;
        if record.number(super::VERSION_AT)? == 0 {
            // Now that the ring is known, the empty record is complete.
            record.set_number(USED_AT, used)?;
            record.mark_used()?;
            return Ok(None);
        }
        let count = used.wrapping_sub(record.number(USED_AT)?);
        if count > self.ring {
            return Err(InflightFault::Batch { count, size: self.ring });
        }
        if count > 0 {
            self.forget_batch(count)?;
            record.set_number(USED_AT, used)?;
        }
        let mut found: usize = 0;
        for entry in 0..size {
            if record.bytes(entry_at(entry))? == [0] {
                continue;
            }
            if entry >= self.ring {
                return Err(InflightFault::Entry { found: entry, size: self.ring });
            }
            let counter = u64::from_ne_bytes(record.bytes(entry_at(entry).saturating_add(COUNTER_AT))?);
            let no_room = InflightFault::NoRoom { room: room.len() };
            *room.get_mut(found).ok_or(no_room)? = Resubmission { entry, position: 0, slots: 1, counter };
            found = found.saturating_add(1);
        }
        let (list, _) = room.split_at_mut_checked(found).unwrap_or_default();
        sort::by_counter(list);
        for (order, resubmission) in (0..size).zip(list.iter_mut()) {
            resubmission.position = used.wrapping_add(order);
        }
        self.counter = list.last().map_or(0, |newest| newest.counter.wrapping_add(1));
        Ok(Some(list))
    }

    /// The chain at `head` was taken.
    #[inline]
    pub(crate) fn begin(&mut self, head: u16) -> Result<(), InflightFault> {
        let at = entry_at(head);
        self.record.set_bytes(at.saturating_add(COUNTER_AT), self.counter.to_ne_bytes())?;
        self.counter = self.counter.wrapping_add(1);
        self.record.set_bytes(at, [1])
    }

    /// The chain at `head` is not taken after all.
    pub(crate) fn cancel(&mut self, head: u16) -> Result<(), InflightFault> {
        self.record.set_bytes(entry_at(head), [0])
    }

    /// The chain at `head` has its used entry, which the driver does not see yet.
    #[inline]
    pub(crate) fn stage(&mut self, head: u16) -> Result<(), InflightFault> {
        self.record.set_number(entry_at(head).saturating_add(NEXT_AT), self.last_batch)?;
        self.record.set_number(LAST_BATCH_AT, head)?;
        self.last_batch = head;
        Ok(())
    }

    /// The driver sees the last `count` chains that were staged; the used index is `used` now.
    #[inline]
    pub(crate) fn commit(&mut self, count: u16, used: u16) -> Result<(), InflightFault> {
        self.forget_batch(count)?;
        self.record.set_number(USED_AT, used)
    }

    /// The last `count` chains of the list are no longer in flight.
    #[inline]
    fn forget_batch(&self, count: u16) -> Result<(), InflightFault> {
        let mut head = self.last_batch;
        let mut named_at = LAST_BATCH_AT;
        for left in (0..count).rev() {
            let at = entry_at(self.record.check_link(named_at, head)?);
            self.record.set_bytes(at, [0])?;
            if left > 0 {
                named_at = at.saturating_add(NEXT_AT);
                head = self.record.number(named_at)?;
            }
        }
        Ok(())
    }
}

#[inline]
fn entry_at(entry: u16) -> usize {
    usize::from(entry).saturating_mul(ENTRY.into()).saturating_add(HEADER.into())
}

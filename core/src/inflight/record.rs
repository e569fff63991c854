//! What the inflight records of both layouts share: header, entries, the list of a batch, and the search for what is in flight.

use core::sync::atomic::{Ordering, compiler_fence};

use super::{Resubmission, sort};
use crate::{
    guest_memory::{GuestRange, Load, Store},
    virtqueue::{Position, RingFault, RingLayout, RingPart, load, read, store, write},
};

/// What the parts of a record, one for each ring, are aligned to.
const ALIGNMENT: u32 = 64;

const PART: RingPart = RingPart::InflightRecord;

/// The version of the record that this is; 0 is one that nobody has used yet.
const VERSION: u16 = 1;

/// Offsets in the header of both layouts: features u64, version, size, the entry where a list of entries begins.
const VERSION_AT: u32 = 8;
const SIZE_AT: u32 = 10;
pub(super) const LIST_AT: u32 = 12;

/// Offsets in an entry: in flight u8, when it was taken u64; in a packed ring also its last entry and its descriptors.
pub(super) const COUNTER_AT: u32 = 8;
pub(super) const LAST_AT: u32 = 4;
pub(super) const NUM_AT: u32 = 6;

/// What an entry says of its chain.
pub(super) const IN_FLIGHT: u8 = 1;
pub(super) const DONE: u8 = 0;

/// The inflight record of a ring.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Record<R> {
    range: R,
    /// What the next chain gets.
    counter: u64,
    /// Entries of the record; and descriptors of the ring, which may be fewer.
    pub(super) size: u16,
    pub(super) ring: u16,
    pub(super) layout: RingLayout,
    /// Where the list of entries begins. Split: at the last chain of the last batch. Packed: at the first free one; the number
    /// behind the last entry when there is none.
    pub(super) list: u16,
    /// Packed: the first free entry before what is under way.
    pub(super) old_free: u16,
    /// Packed: where the last batch that the driver sees ends.
    pub(super) old_used: Position,
}

/// Makes a record of either layout one that nobody has used yet.
pub(crate) fn clear<R: GuestRange>(range: &R) -> Result<(), RingFault> {
    store(range, PART, VERSION_AT, 0, Store::Release)
}

/// Bytes of a record of `size` entries.
pub(crate) fn size_for(layout: RingLayout, size: u16) -> u32 {
    // Far from the end of 32 bits: 2 MiB at most.
    entry_at(layout, size).wrapping_add(ALIGNMENT - 1) & !(ALIGNMENT - 1)
}

/// Bytes of a header and of an entry.
const fn width(layout: RingLayout) -> u32 {
    match layout {
        RingLayout::Split => 16,
        RingLayout::Packed => 32,
    }
}

/// Where an entry begins, behind a header that is as long as an entry.
fn entry_at(layout: RingLayout, entry: u16) -> u32 {
    width(layout).wrapping_mul(u32::from(entry).wrapping_add(1))
}

impl<R: GuestRange> Record<R> {
    /// Checks the header of the record of a ring of `ring` descriptors. All of one that nobody has used becomes zero.
    ///
    /// It may have more entries than the ring: the front-end asks for one before the driver chooses how
    /// large the ring is, and other back-ends count what was asked for.
    pub(crate) fn open(range: R, ring: u16, layout: RingLayout) -> Result<Self, RingFault> {
        let found = u32::try_from(range.len()).unwrap_or(u32::MAX);
        if found < size_for(layout, ring) {
            return Err(RingFault::InflightTooShort { layout, size: ring, found });
        }
        let (old_free, old_used) = (0, Position::start(RingLayout::Packed));
        let mut record = Self { range, counter: 0, size: ring, ring, layout, list: 0, old_free, old_used };
        match record.number(VERSION_AT)? {
            0 => {
                for offset in (0..entry_at(layout, ring)).step_by(8) {
                    record.set_long(offset, 0)?;
                }
            }
            VERSION => {
                record.size = record.number(SIZE_AT)?;
                record.list = record.number(LIST_AT)?;
                if record.size < ring || found < size_for(layout, record.size) {
                    return Err(RingFault::InflightSize { expected: ring, found: record.size });
                }
            }
            found => return Err(RingFault::InflightVersion { found }),
        }
        Ok(record)
    }

    /// Whether nobody has used the record.
    pub(super) fn is_fresh(&self) -> Result<bool, RingFault> {
        Ok(self.number(VERSION_AT)? == 0)
    }

    /// Makes a fresh record a used one; everything else has been written.
    pub(super) fn mark_used(&self) -> Result<(), RingFault> {
        self.set_number(SIZE_AT, self.size)?;
        self.set_number(VERSION_AT, VERSION)
    }

    /// Where `field` of an entry is.
    #[cfg_attr(not(for_size), inline)]
    pub(super) fn at(&self, entry: u16, field: u32) -> u32 {
        entry_at(self.layout, entry).wrapping_add(field)
    }

    /// Where an entry names the next one of its list. In a packed ring the last entry of a chain does it.
    #[cfg_attr(not(for_size), inline)]
    pub(super) fn next_at(&self, entry: u16) -> u32 {
        let field = if self.layout == RingLayout::Split { 6 } else { 2 };
        self.at(entry, field)
    }

    /// Says of the chain at an entry whether it is [`IN_FLIGHT`] or [`DONE`].
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(super) fn set_mark(&self, entry: u16, mark: u8) -> Result<(), RingFault> {
        self.set_bytes(self.at(entry, 0), [mark])
    }

    /// The chain at an entry is the newest one.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn begin(&mut self, entry: u16) -> Result<(), RingFault> {
        self.set_long(self.at(entry, COUNTER_AT), self.counter)?;
        self.counter = self.counter.wrapping_add(1);
        self.set_mark(entry, IN_FLIGHT)
    }

    /// The list begins at this entry from now on.
    #[cfg_attr(not(for_size), inline)]
    pub(super) fn set_list(&mut self, entry: u16) -> Result<(), RingFault> {
        self.list = entry;
        self.set_number(LIST_AT, entry)
    }

    /// The chain at an entry was given back, which the driver does not see yet: it joins the list.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn stage(&mut self, entry: u16) -> Result<(), RingFault> {
        let last = self.last_of(entry)?;
        self.set_number(self.next_at(last), self.list)?;
        self.set_list(entry)
    }

    /// The last entry of the chain at an entry.
    #[cfg_attr(not(for_size), inline)]
    fn last_of(&self, entry: u16) -> Result<u16, RingFault> {
        match self.layout {
            RingLayout::Split => Ok(entry),
            RingLayout::Packed => self.link(self.at(entry, LAST_AT)),
        }
    }

    /// The first `count` chains of the list are no longer in flight.
    #[cfg_attr(not(for_size), inline)]
    pub(super) fn forget_batch(&self, count: u16) -> Result<(), RingFault> {
        let (mut head, mut named_at) = (self.list, LIST_AT);
        for left in (0..count).rev() {
            self.check_link(named_at, head)?;
            self.set_mark(head, DONE)?;
            if left > 0 {
                named_at = self.next_at(self.last_of(head)?);
                head = self.number(named_at)?;
            }
        }
        Ok(())
    }

    /// The chains in flight, oldest first, and the slots of all of them.
    pub(super) fn in_flight<'r>(
        &mut self,
        room: &'r mut [Resubmission],
    ) -> Result<(&'r mut [Resubmission], u16), RingFault> {
        let size = self.ring;
        let (mut found, mut total): (u16, u16) = (0, 0);
        for entry in 0..self.size {
            if self.bytes(self.at(entry, 0))? == [DONE] {
                continue;
            }
            let counter = self.long(self.at(entry, COUNTER_AT))?;
            let slots = if self.layout == RingLayout::Packed { self.number(self.at(entry, NUM_AT))? } else { 1 };
            let fault = match total.checked_add(slots) {
                _ if self.layout == RingLayout::Split && entry >= size => {
                    RingFault::InflightEntry { found: entry, size }
                }
                Some(sum) if slots > 0 && sum <= size => {
                    if let Some(place) = room.get_mut(usize::from(found)) {
                        *place = Resubmission { entry, position: 0, slots, counter };
                        (found, total) = (found.wrapping_add(1), sum);
                        continue;
                    }
                    RingFault::InflightNoRoom { room: found }
                }
                _ => RingFault::InflightTooManyDescriptors { size },
            };
            return Err(fault);
        }
        let (list, _) = room.split_at_mut_checked(found.into()).unwrap_or_default();
        sort::by_counter(list);
        self.counter = list.last().map_or(0, |newest| newest.counter.wrapping_add(1));
        Ok((list, total))
    }

    /// A 16-bit number in the machine's byte order.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(super) fn number(&self, offset: u32) -> Result<u16, RingFault> {
        load(&self.range, PART, offset, Load::Relaxed).map(|number| u16::from_ne_bytes(number.to_le_bytes()))
    }

    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(super) fn set_number(&self, offset: u32, number: u16) -> Result<(), RingFault> {
        let number = u16::from_le_bytes(number.to_ne_bytes());
        in_order();
        store(&self.range, PART, offset, number, Store::Release)
    }

    /// A 64-bit number in the machine's byte order.
    #[cfg_attr(not(for_size), inline)]
    pub(super) fn long(&self, offset: u32) -> Result<u64, RingFault> {
        self.bytes(offset).map(u64::from_ne_bytes)
    }

    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(super) fn set_long(&self, offset: u32, number: u64) -> Result<(), RingFault> {
        self.set_bytes(offset, number.to_ne_bytes())
    }

    #[cfg_attr(not(for_size), inline)]
    fn bytes<const N: usize>(&self, offset: u32) -> Result<[u8; N], RingFault> {
        let mut bytes = [0; N];
        read(&self.range, PART, offset, &mut bytes)?;
        Ok(bytes)
    }

    #[cfg_attr(not(for_size), inline)]
    fn set_bytes<const N: usize>(&self, offset: u32, bytes: [u8; N]) -> Result<(), RingFault> {
        in_order();
        write(&self.range, PART, offset, &bytes)
    }

    /// The number of an entry, at `offset`.
    #[cfg_attr(not(for_size), inline)]
    pub(super) fn link(&self, offset: u32) -> Result<u16, RingFault> {
        let found = self.number(offset)?;
        self.check_link(offset, found)?;
        Ok(found)
    }

    /// Checks a number of an entry that was read at `offset`.
    #[cfg_attr(not(for_size), inline)]
    pub(super) fn check_link(&self, offset: u32, found: u16) -> Result<(), RingFault> {
        if found < self.size { Ok(()) } else { Err(RingFault::InflightLink { offset, found }) }
    }
}

/// Keeps the compiler from changing the order of stores around it.
///
/// The next process sees all stores that this one made, wherever it ended, so the processor's order
/// does not matter.
fn in_order() {
    compiler_fence(Ordering::SeqCst);
}

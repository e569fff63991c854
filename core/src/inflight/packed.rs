//! The inflight record of a packed ring: copies of all descriptors that the device holds, in a list of free entries and the
//! lists that the chains in flight took from it.
//!
//! Used descriptors overwrite available ones, so the ring itself cannot tell what is in flight.

use super::{
    Recovery, Resubmission,
    record::{DONE, LAST_AT, LIST_AT, NUM_AT, Record},
};
use crate::{
    guest_memory::GuestRange,
    virtqueue::{Descriptor, NEXT, Position, RingFault, RingLayout},
};

/// Offsets in the header, behind the first free entry: the first free one before what is under way, the used place and the
/// old used place.
const OLD_FREE_AT: u32 = 14;
const PLACES_AT: u32 = 16;
const USED_AT: u32 = 16;
const OLD_USED_AT: u32 = 18;

/// Offsets of the copy in an entry: id, flags, length u32; address u64.
const COPY_AT: u32 = 16;
const ADDRESS_AT: u32 = 24;

impl<R: GuestRange> Record<R> {
    /// Completes what the last writer left half done, or takes it back, and finds the chains in
    /// flight.
    ///
    /// A fresh record begins at `base`. `submitted` tells whether the driver sees the descriptor at
    /// a place as used.
    pub(crate) fn recover_packed<'r>(
        &mut self,
        base: Position,
        submitted: impl FnOnce(Position) -> Result<bool, RingFault>,
        room: &'r mut [Resubmission],
    ) -> Result<Recovery<'r>, RingFault> {
        if self.is_fresh()? {
            for entry in 0..self.size {
                self.set_number(self.next_at(entry), entry.wrapping_add(1))?;
            }
            self.save(base)?;
            self.mark_used()?;
            return Ok(Recovery { used: base, slots: 0, resubmissions: &[] });
        }
        let (used, old_used) = self.places()?;
        // The wrap counters belong to the places: a batch of a whole lap changes nothing else.
        let completed = used != old_used && submitted(old_used)?;
        self.list = self.number(if completed { LIST_AT } else { OLD_FREE_AT })?;
        self.old_free = self.list;
        self.save(if completed { used } else { old_used })?;
        self.clear_free()?;
        let (list, slots) = self.in_flight(room)?;
        // In the order of their age they follow the used place in the ring.
        let mut place = self.old_used;
        for resubmission in list.iter_mut() {
            resubmission.position = place.0;
            place = place.forward(RingLayout::Packed, resubmission.slots, self.ring);
        }
        Ok(Recovery { used: self.old_used, slots, resubmissions: list })
    }

    /// Copies the next descriptor of the chain being taken, which began at entry `head` (`None`: it
    /// begins now). Returns its entry.
    #[cfg_attr(not(for_size), inline)]
    pub(super) fn add(&mut self, head: Option<u16>, descriptor: &Descriptor) -> Result<u16, RingFault> {
        let entry = self.list;
        self.check_link(LIST_AT, entry)?;
        let first = head.unwrap_or(entry);
        let num_at = self.at(first, NUM_AT);
        if head.is_none() {
            self.set_number(num_at, 0)?;
            self.begin(entry)?;
        }
        if !descriptor.has(NEXT) {
            self.set_number(self.at(first, LAST_AT), entry)?;
        }
        self.set_number(num_at, self.number(num_at)?.wrapping_add(1))?;
        self.set_long(self.at(entry, COPY_AT), copy_of(descriptor))?;
        self.set_long(self.at(entry, ADDRESS_AT), descriptor.address)?;
        // Behind the last entry there is none: whoever wants it finds out.
        let next = self.number(self.next_at(entry))?;
        self.set_list(next)?;
        Ok(entry)
    }

    /// The chain was taken.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn finish(&mut self) -> Result<(), RingFault> {
        self.old_free = self.list;
        self.set_number(OLD_FREE_AT, self.old_free)
    }

    /// The chain that began at entry `head` is not taken after all.
    pub(super) fn cancel(&mut self, head: u16) -> Result<(), RingFault> {
        self.set_list(self.old_free)?;
        self.set_mark(head, DONE)
    }

    /// The chain at entry `head` was taken last and is not taken after all. In a packed ring nothing may be staged.
    pub(crate) fn untake(&mut self, head: u16) -> Result<(), RingFault> {
        if self.layout == RingLayout::Packed {
            // Whoever recovers from in between finds it in flight, or in the list of free entries, or both: then it is free.
            self.stage(head)?;
            self.finish()?;
        }
        self.set_mark(head, DONE)
    }

    /// The driver is about to see used descriptors up to `used`.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn prepare(&mut self, used: Position) -> Result<(), RingFault> {
        self.save_places(used)
    }

    /// The driver sees the last `chains` chains that were staged, up to `used`.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn commit_packed(&mut self, chains: u16, used: Position) -> Result<(), RingFault> {
        self.forget_batch(chains)?;
        self.finish()?;
        self.old_used = used;
        self.save_places(used)
    }

    /// The copy of a descriptor at an entry, and the entry of the next one.
    pub(crate) fn copy(&self, entry: u16) -> Result<(Descriptor, u16), RingFault> {
        self.check_link(LIST_AT, entry)?;
        let address = self.long(self.at(entry, ADDRESS_AT))?;
        let copy = self.long(self.at(entry, COPY_AT))?;
        Ok((from_copy(copy, address), self.number(self.next_at(entry))?))
    }

    /// Entries in the list of free ones are not in flight, whatever they say.
    fn clear_free(&self) -> Result<(), RingFault> {
        let mut entry = self.list;
        // The list may be a loop; it has no more entries than there are.
        for _ in 0..self.size {
            if entry >= self.size {
                break;
            }
            self.set_mark(entry, DONE)?;
            entry = self.number(self.next_at(entry))?;
        }
        Ok(())
    }

    /// Nothing is under way, and the driver sees everything up to `used`.
    fn save(&mut self, used: Position) -> Result<(), RingFault> {
        self.set_list(self.list)?;
        self.finish()?;
        self.old_used = used;
        self.save_places(used)
    }

    /// Stores the used place and the old one together: a process that ends between index and wrap
    /// counter would leave a place that never was.
    #[cfg_attr(not(for_size), inline)]
    fn save_places(&self, used: Position) -> Result<(), RingFault> {
        let [u0, u1] = used.index().to_ne_bytes();
        let [o0, o1] = self.old_used.index().to_ne_bytes();
        let (wrap, old_wrap) = (u8::from(used.wrap()), u8::from(self.old_used.wrap()));
        self.set_long(PLACES_AT, u64::from_ne_bytes([u0, u1, o0, o1, wrap, old_wrap, 0, 0]))
    }

    /// The used place and the old one.
    fn places(&self) -> Result<(Position, Position), RingFault> {
        let [u0, u1, o0, o1, wrap, old_wrap, _, _] = self.long(PLACES_AT)?.to_ne_bytes();
        let (used, old_used) = (u16::from_ne_bytes([u0, u1]), u16::from_ne_bytes([o0, o1]));
        let size = self.ring;
        for (offset, found) in [(USED_AT, used), (OLD_USED_AT, old_used)] {
            if found >= size {
                return Err(RingFault::InflightPlace { offset, found });
            }
        }
        Ok((Position::packed(used, wrap != 0), Position::packed(old_used, old_wrap != 0)))
    }
}

/// Id, flags and length, as an entry holds them.
fn copy_of(descriptor: &Descriptor) -> u64 {
    let [i0, i1] = descriptor.link.to_ne_bytes();
    let [f0, f1] = descriptor.flags.to_ne_bytes();
    let [l0, l1, l2, l3] = descriptor.length.to_ne_bytes();
    u64::from_ne_bytes([i0, i1, f0, f1, l0, l1, l2, l3])
}

fn from_copy(copy: u64, address: u64) -> Descriptor {
    let [i0, i1, f0, f1, l0, l1, l2, l3] = copy.to_ne_bytes();
    Descriptor {
        address,
        length: u32::from_ne_bytes([l0, l1, l2, l3]),
        flags: u16::from_ne_bytes([f0, f1]),
        link: u16::from_ne_bytes([i0, i1]),
    }
}

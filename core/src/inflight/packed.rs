//! The inflight record of a packed ring: copies of all descriptors that the device holds.
//!
//! Used descriptors overwrite available ones, so the ring itself cannot tell what is in flight.

use super::{Age, InflightFault, Record, Resubmission, VERSION_AT, bytes_for, sort};
use crate::{
    guest_memory::GuestRange,
    virtqueue::{Descriptor, NEXT, Place},
};

/// Offsets in the header, and its bytes: features u64, version, size, free head, old free head, the
/// used place and the old used place, 2 of padding and 8 more.
const FREE_AT: usize = 12;
const OLD_FREE_AT: usize = 14;
const PLACES_AT: usize = 16;
const USED_AT: usize = 16;
const OLD_USED_AT: usize = 18;
const HEADER: u16 = 32;

/// Offsets in an entry, and its bytes: inflight u8, padding u8, next, last, num, counter u64, id,
/// flags, length u32, address u64.
const NEXT_AT: usize = 2;
const LAST_AT: usize = 4;
const NUM_AT: usize = 6;
const COUNTER_AT: usize = 8;
const COPY_AT: usize = 16;
const ADDRESS_AT: usize = 24;
const ENTRY: u16 = 32;

/// The inflight record of a packed ring: a list of free entries, and the lists of entries that the
/// chains in flight took from it.
#[doc(alias = "QueueRegionPacked")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PackedInflight<R> {
    record: Record<R>,
    /// Descriptors of the ring, which may be fewer than the entries of the record.
    ring: u16,
    /// What the next chain gets.
    counter: u64,
    /// The first free entry, and the first one before what is under way; the number behind the last
    /// entry when there is none.
    free: u16,
    old_free: u16,
    /// Where the last batch that the driver sees ends.
    old_used: Place,
}

/// What a record says about a ring.
pub(crate) struct PackedRecovery<'r> {
    /// The next used descriptor.
    pub(crate) used: Place,
    /// Slots in flight.
    pub(crate) slots: u16,
    /// The chains in flight, oldest first.
    pub(crate) resubmissions: &'r [Resubmission],
}

impl<R: GuestRange> PackedInflight<R> {
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
                record.set_bytes(entry_at(entry), [0; 32])?;
                record.set_number(entry_at(entry).saturating_add(NEXT_AT), entry.wrapping_add(1))?;
            }
            record.set_bytes(0, [0; 8])?;
        }
        Ok(Self { record, ring: size, counter: 0, free: 0, old_free: 0, old_used: Place::START })
    }

    /// Completes what the last writer left half done, or takes it back, and finds the chains in
    /// flight.
    ///
    /// A fresh record begins at `base`. `submitted` tells whether the driver sees the descriptor at
    /// a place as used.
    pub(crate) fn recover<'r, E: From<InflightFault>>(
        &mut self,
        base: Place,
        submitted: impl FnOnce(Place) -> Result<bool, E>,
        room: &'r mut [Resubmission],
    ) -> Result<PackedRecovery<'r>, E> {
        if self.record.number(VERSION_AT)? == 0 {
            self.save_free()?;
            self.old_used = base;
            self.save_places(base)?;
            self.record.mark_used()?;
            return Ok(PackedRecovery { used: base, slots: 0, resubmissions: &[] });
        }
        let (used, old_used) = self.places()?;
        self.old_used = old_used;
        // The wrap counters belong to the places: a batch of a whole lap changes nothing else.
        if used != old_used && submitted(old_used)? {
            self.free = self.record.number(FREE_AT)?;
            self.old_free = self.free;
            self.old_used = used;
        } else {
            self.old_free = self.record.number(OLD_FREE_AT)?;
            self.free = self.old_free;
        }
        self.save_free()?;
        self.save_places(self.old_used)?;
        self.clear_free()?;
        let (found, slots) = self.in_flight(room)?;
        let (list, _) = room.split_at_mut_checked(found).unwrap_or_default();
        self.place_by_age(list);
        Ok(PackedRecovery { used: self.old_used, slots, resubmissions: list })
    }

    /// Copies the next descriptor of the chain being taken, which began at entry `head` (`None`: it
    /// begins now). Returns its entry.
    #[inline]
    pub(crate) fn add(&mut self, head: Option<u16>, descriptor: Descriptor) -> Result<u16, InflightFault> {
        let record = &self.record;
        let entry = record.check_link(FREE_AT, self.free)?;
        let at = entry_at(entry);
        let first = entry_at(head.unwrap_or(entry));
        if head.is_none() {
            record.set_number(at.saturating_add(NUM_AT), 0)?;
            record.set_bytes(at.saturating_add(COUNTER_AT), self.counter.to_ne_bytes())?;
            self.counter = self.counter.wrapping_add(1);
            record.set_bytes(at, [1])?;
        }
        if !descriptor.has(NEXT) {
            record.set_number(first.saturating_add(LAST_AT), entry)?;
        }
        let num_at = first.saturating_add(NUM_AT);
        record.set_number(num_at, record.number(num_at)?.wrapping_add(1))?;
        record.set_bytes(at.saturating_add(COPY_AT), copy_of(descriptor))?;
        record.set_bytes(at.saturating_add(ADDRESS_AT), descriptor.address.to_ne_bytes())?;
        // Behind the last entry there is none: whoever wants it finds out.
        self.free = record.number(at.saturating_add(NEXT_AT))?;
        record.set_number(FREE_AT, self.free)?;
        Ok(entry)
    }

    /// The chain was taken.
    #[inline]
    pub(crate) fn finish(&mut self) -> Result<(), InflightFault> {
        self.old_free = self.free;
        self.record.set_number(OLD_FREE_AT, self.old_free)
    }

    /// The chain that began at entry `head` is not taken after all.
    pub(crate) fn cancel(&mut self, head: Option<u16>) -> Result<(), InflightFault> {
        self.free = self.old_free;
        self.record.set_number(FREE_AT, self.free)?;
        match head {
            Some(head) => self.record.set_bytes(entry_at(head), [0]),
            None => Ok(()),
        }
    }

    /// The chain at entry `head` was taken last and is not taken after all. Nothing may be staged.
    pub(crate) fn untake(&mut self, head: u16) -> Result<(), InflightFault> {
        // Whoever recovers from in between finds it in flight, or in the list of free entries, or both: then it is free.
        self.stage(head)?;
        self.finish()?;
        self.record.set_bytes(entry_at(head), [0])
    }

    /// The chain at entry `head` has its used descriptor, which the driver does not see yet.
    #[inline]
    pub(crate) fn stage(&mut self, head: u16) -> Result<(), InflightFault> {
        let last = self.record.link(entry_at(head).saturating_add(LAST_AT))?;
        self.record.set_number(entry_at(last).saturating_add(NEXT_AT), self.free)?;
        self.free = head;
        self.record.set_number(FREE_AT, head)
    }

    /// The driver is about to see used descriptors up to `used`.
    #[inline]
    pub(crate) fn prepare(&mut self, used: Place) -> Result<(), InflightFault> {
        self.save_places(used)
    }

    /// The driver sees the last `chains` chains that were staged, up to `used`.
    #[inline]
    pub(crate) fn commit(&mut self, chains: u16, used: Place) -> Result<(), InflightFault> {
        let record = &self.record;
        let mut head = self.free;
        let mut named_at = FREE_AT;
        for left in (0..chains).rev() {
            let at = entry_at(record.check_link(named_at, head)?);
            record.set_bytes(at, [0])?;
            if left > 0 {
                let last = record.link(at.saturating_add(LAST_AT))?;
                named_at = entry_at(last).saturating_add(NEXT_AT);
                head = record.number(named_at)?;
            }
        }
        self.finish()?;
        self.old_used = used;
        self.save_places(used)
    }

    /// The copies of the `slots` descriptors of the chain at entry `head`.
    pub(crate) fn chain(
        &self,
        head: u16,
        slots: u16,
    ) -> impl Iterator<Item = Result<Descriptor, InflightFault>> + use<'_, R> {
        let mut next = Ok(head);
        (0..slots).map(move |_| {
            let at = entry_at(self.record.check_link(FREE_AT, next?)?);
            let address = u64::from_ne_bytes(self.record.bytes(at.saturating_add(ADDRESS_AT))?);
            let descriptor = from_copy(self.record.bytes(at.saturating_add(COPY_AT))?, address);
            next = self.record.number(at.saturating_add(NEXT_AT));
            Ok(descriptor)
        })
    }

    /// Entries in the list of free ones are not in flight, whatever they say.
    fn clear_free(&self) -> Result<(), InflightFault> {
        let mut entry = self.free;
        // The list may be a loop; it has no more entries than there are.
        for _ in 0..self.record.size {
            if entry >= self.record.size {
                break;
            }
            self.record.set_bytes(entry_at(entry), [0])?;
            entry = self.record.number(entry_at(entry).saturating_add(NEXT_AT))?;
        }
        Ok(())
    }

    /// The chains in flight, in no order, and the slots of all of them.
    fn in_flight(&self, room: &mut [Resubmission]) -> Result<(usize, u16), InflightFault> {
        let (record, size) = (&self.record, self.ring);
        let (mut found, mut total): (usize, u16) = (0, 0);
        for entry in 0..record.size {
            let at = entry_at(entry);
            if record.bytes(at)? == [0] {
                continue;
            }
            let counter = u64::from_ne_bytes(record.bytes(at.saturating_add(COUNTER_AT))?);
            let slots = record.number(at.saturating_add(NUM_AT))?;
            total = match total.checked_add(slots) {
                Some(total) if slots > 0 && total <= size => total,
                _ => return Err(InflightFault::TooManyDescriptors { size }),
            };
            let no_room = InflightFault::NoRoom { room: room.len() };
            *room.get_mut(found).ok_or(no_room)? = Resubmission { entry, position: 0, slots, counter };
            found = found.saturating_add(1);
        }
        Ok((found, total))
    }

    /// Sorts the chains in flight: in that order they follow the used place in the ring.
    fn place_by_age(&mut self, list: &mut [Resubmission]) {
        sort::by_counter(list);
        let mut place = self.old_used;
        for resubmission in list.iter_mut() {
            resubmission.position = place.to_word();
            place = place.forward(resubmission.slots, self.ring);
        }
        self.counter = list.last().map_or(0, |newest| newest.counter.wrapping_add(1));
    }

    fn save_free(&self) -> Result<(), InflightFault> {
        self.record.set_number(FREE_AT, self.free)?;
        self.record.set_number(OLD_FREE_AT, self.old_free)
    }

    /// Stores the used place and the old one together: a process that ends between index and wrap
    /// counter would leave a place that never was.
    #[inline]
    fn save_places(&self, used: Place) -> Result<(), InflightFault> {
        let [u0, u1] = used.index.to_ne_bytes();
        let [o0, o1] = self.old_used.index.to_ne_bytes();
        let wraps = [u8::from(used.wrap), u8::from(self.old_used.wrap)];
        let [wrap, old_wrap] = wraps;
        self.record.set_bytes(PLACES_AT, [u0, u1, o0, o1, wrap, old_wrap, 0, 0])
    }

    /// The used place and the old one.
    fn places(&self) -> Result<(Place, Place), InflightFault> {
        let [u0, u1, o0, o1, wrap, old_wrap, _, _] = self.record.bytes(PLACES_AT)?;
        let size = self.ring;
        let place = |offset, index: [u8; 2], wrap: u8| match u16::from_ne_bytes(index) {
            index if index < size => Ok(Place { index, wrap: wrap != 0 }),
            found => Err(InflightFault::Place { offset, found, size }),
        };
        Ok((place(USED_AT, [u0, u1], wrap)?, place(OLD_USED_AT, [o0, o1], old_wrap)?))
    }
}

#[inline]
fn entry_at(entry: u16) -> usize {
    usize::from(entry).saturating_mul(ENTRY.into()).saturating_add(HEADER.into())
}

/// Id, flags and length, as an entry holds them.
#[inline]
fn copy_of(descriptor: Descriptor) -> [u8; 8] {
    let [i0, i1] = descriptor.link.to_ne_bytes();
    let [f0, f1] = descriptor.flags.to_ne_bytes();
    let [l0, l1, l2, l3] = descriptor.length.to_ne_bytes();
    [i0, i1, f0, f1, l0, l1, l2, l3]
}

fn from_copy(copy: [u8; 8], address: u64) -> Descriptor {
    let [i0, i1, f0, f1, l0, l1, l2, l3] = copy;
    Descriptor {
        address,
        length: u32::from_ne_bytes([l0, l1, l2, l3]),
        flags: u16::from_ne_bytes([f0, f1]),
        link: u16::from_ne_bytes([i0, i1]),
    }
}

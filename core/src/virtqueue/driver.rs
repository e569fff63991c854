//! What both layouts of the driver's side share: buffers, tokens and the list of free ones.

use core::fmt;

use super::{
    descriptor::{Descriptor, INDIRECT, NEXT, WRITE, descriptor_offset},
    event::Unannounced,
    fault::{RingFault, RingPart},
    layout::RingLayout,
    part::write,
};
use crate::{
    address::GuestAddress,
    guest_memory::{AddressSpace, GuestRange},
    wire::feature::VirtioFeatures,
};

/// A run of bytes that a driver gives to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Buffer<A = GuestAddress> {
    /// Where it begins, as the device will look it up.
    pub address: A,
    /// Its bytes, not zero.
    pub length: u32,
}

/// A chain that came back from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Used {
    /// What adding the chain gave.
    pub token: u16,
    /// Bytes the device says it wrote, from the start of the writable part on; no more than that
    /// part has.
    pub written: u32,
}

/// Why a chain was not added. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddError {
    /// Not enough descriptors are free. There are more when the device gives some back.
    Full {
        /// Descriptors the chain needs.
        needed: u16,
        /// Descriptors that are free.
        free: u16,
    },
    /// A chain needs one buffer at least, and each one byte at least.
    Empty,
    /// More descriptors than a chain on this ring may have.
    TooManyDescriptors {
        /// Descriptors of the chain; of more than 16 bits count the largest number.
        count: u16,
        /// The most there may be.
        limit: u16,
    },
    /// More than 2^32 - 1 bytes in all.
    TooLong,
    /// Indirect tables were not negotiated.
    IndirectNotNegotiated,
    /// The indirect table is too small for the chain.
    TableTooSmall {
        /// Descriptors of the chain.
        needed: u16,
        /// Descriptors that the table has room for.
        found: u16,
    },
    /// The ring cannot be written any more.
    Ring(RingFault),
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { needed, free } => write!(f, "{needed} descriptors needed, {free} free"),
            Self::Empty => f.write_str("a chain without bytes, or with a buffer without"),
            Self::TooManyDescriptors { count, limit } => write!(f, "chain of {count} descriptors, at most {limit}"),
            Self::TooLong => f.write_str("chain of more than 2^32 - 1 bytes"),
            Self::IndirectNotNegotiated => f.write_str("indirect tables were not negotiated"),
            Self::TableTooSmall { needed, found } => {
                write!(f, "indirect table of {found} descriptors, expected {needed}")
            }
            Self::Ring(fault) => write!(f, "{fault}"),
        }
    }
}

const _: () = assert!(size_of::<AddError>() == 8);

impl core::error::Error for AddError {}

impl From<RingFault> for AddError {
    fn from(fault: RingFault) -> Self {
        Self::Ring(fault)
    }
}

/// The device broke the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DriverFault {
    /// Split: the device's index tells of more chains than are out.
    UsedAhead {
        /// The device's index.
        used: u16,
        /// The driver's index.
        next: u16,
        /// Chains that are out.
        outstanding: u16,
    },
    /// A used entry names no chain that is out.
    UnknownToken {
        /// The entry: in a split ring its free-running index, in a packed one its slot.
        position: u16,
        /// What it names.
        token: u32,
    },
    /// On an in-order ring, a used entry stands for more chains than the index tells of.
    UnfinishedBatch {
        /// The last chain of the batch.
        token: u16,
    },
    /// The ring cannot be used any more.
    Ring(RingFault),
}

impl fmt::Display for DriverFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UsedAhead { used, next, outstanding } => {
                write!(f, "used index {used} is more than {outstanding} ahead of {next}")
            }
            Self::UnknownToken { position, token } => write!(f, "used entry {position} names chain {token}"),
            Self::UnfinishedBatch { token } => write!(f, "the used index ends before chain {token} of its batch"),
            Self::Ring(fault) => write!(f, "{fault}"),
        }
    }
}

impl core::error::Error for DriverFault {}

impl From<RingFault> for DriverFault {
    fn from(fault: RingFault) -> Self {
        Self::Ring(fault)
    }
}

/// What the driver remembers of each token; the device can write to rings, not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Slot {
    /// The next free token, or the next descriptor of a split chain.
    next: u16,
    /// Ring descriptors of the chain that has this token; 0 when none has.
    count: u16,
    /// Bytes of its writable part.
    writable: u32,
}

/// Tokens, free and in use, and what of the chains that are out does not depend on the layout.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tokens<const N: usize> {
    slots: [Slot; N],
    pub(crate) size: u16,
    pub(crate) features: VirtioFeatures,
    pub(crate) free: u16,
    pub(crate) first_free: u16,
    last_free: u16,
    /// Chains that are out.
    pub(crate) outstanding: u16,
    pub(crate) unannounced: Unannounced,
    /// In order: the oldest chain that is out, and the end of the batch that is being polled.
    oldest: u16,
    pub(crate) batch: Option<Used>,
}

impl<const N: usize> Tokens<N> {
    /// All of `size` tokens free.
    pub(crate) fn new(layout: RingLayout, size: u32, features: VirtioFeatures) -> Result<Self, RingFault> {
        let size = layout.check_size(size)?;
        if usize::from(size) > N {
            return Err(RingFault::Capacity { size, capacity: u32::try_from(N).unwrap_or(u32::MAX) });
        }
        let mut slots = [Slot { next: 0, count: 0, writable: 0 }; N];
        for (slot, next) in slots.iter_mut().zip(1..size) {
            slot.next = next;
        }
        Ok(Self {
            slots,
            size,
            features,
            free: size,
            first_free: 0,
            last_free: size.wrapping_sub(1),
            outstanding: 0,
            unannounced: Unannounced::default(),
            oldest: 0,
            batch: None,
        })
    }

    /// The token behind this one in its chain or in the free list.
    pub(crate) fn next(&self, token: u16) -> u16 {
        self.slots.get(usize::from(token)).map_or(0, |slot| slot.next)
    }

    /// Takes the first `tokens` free ones, of which `last` is the last, for a chain of `count` ring
    /// descriptors that has the first one as its token.
    pub(crate) fn take(&mut self, tokens: u16, last: u16, count: u16, writable: u32) -> u16 {
        let token = self.first_free;
        self.first_free = self.next(last);
        self.free = self.free.wrapping_sub(tokens);
        self.outstanding = self.outstanding.wrapping_add(1);
        if let Some(slot) = self.slots.get_mut(usize::from(token)) {
            (slot.count, slot.writable) = (count, writable);
        }
        token
    }

    /// The next chain that came back, as the used `entry` says; with its ring descriptors. In a split ring each of them had a
    /// token.
    pub(crate) fn settle(
        &mut self,
        entry: Used,
        position: u16,
        layout: RingLayout,
    ) -> Result<(Used, u16), DriverFault> {
        let in_order = self.features.contains(VirtioFeatures::IN_ORDER);
        // An entry that names no chain would never be reached in order.
        let token = if in_order && self.count_of(entry.token) > 0 { self.oldest } else { entry.token };
        let unknown = DriverFault::UnknownToken { position, token: token.into() };
        let slot = self.slots.get_mut(usize::from(token)).ok_or(unknown)?;
        let count = core::mem::take(&mut slot.count);
        if count == 0 {
            return Err(unknown);
        }
        // Of the chains before the last of a batch the device wrote everything.
        let written = if token == entry.token { entry.written.min(slot.writable) } else { slot.writable };
        self.batch = (token != entry.token).then_some(entry);
        self.give(token, if layout == RingLayout::Split { count } else { 1 }, in_order);
        self.outstanding = self.outstanding.wrapping_sub(1);
        Ok((Used { token, written }, count))
    }

    /// The ring descriptors of the chain with this token; 0 when there is none.
    fn count_of(&self, token: u16) -> u16 {
        self.slots.get(usize::from(token)).map_or(0, |slot| slot.count)
    }

    /// The chain with this token, of `tokens` tokens, came back. In order tokens go round; otherwise the last one that came
    /// back is given out first, because its descriptors are in the processor's cache.
    fn give(&mut self, token: u16, tokens: u16, in_order: bool) {
        let mut last = token;
        for _ in 1..tokens {
            last = self.next(last);
        }
        self.oldest = self.next(last);
        let (link, target) = if in_order { (self.last_free, token) } else { (last, self.first_free) };
        let was_empty = self.free == 0;
        self.free = self.free.wrapping_add(tokens);
        if was_empty || !in_order {
            self.first_free = token;
        }
        if was_empty || in_order {
            self.last_free = last;
        }
        if let Some(slot) = self.slots.get_mut(usize::from(link)).filter(|_| !was_empty) {
            slot.next = target;
        }
    }

    /// Writes `descriptors` to `table`, for a ring that has so many `free`; the descriptor of it, and what the chain takes.
    pub(crate) fn indirect<'b, R: GuestRange, A: AddressSpace>(
        &self,
        descriptors: &Descriptors<'b, A>,
        table: &R,
        layout: RingLayout,
        free: u16,
    ) -> Result<(Descriptors<'b, A>, Measure), AddError> {
        if !self.features.contains(VirtioFeatures::RING_INDIRECT) {
            return Err(AddError::IndirectNotNegotiated);
        }
        let Measure { count, writable } = descriptors.measure(self.size)?;
        if free == 0 {
            return Err(AddError::Full { needed: 1, free });
        }
        Ok((descriptors.write_table(table, count, layout)?, Measure { count: 1, writable }))
    }

    pub(crate) fn event_idx(&self) -> bool {
        self.features.contains(VirtioFeatures::RING_EVENT_IDX)
    }
}

/// The descriptors of a chain that a driver adds, without their links.
pub(crate) enum Descriptors<'b, A> {
    /// Readable buffers, writable ones.
    Buffers(&'b [Buffer<A>], &'b [Buffer<A>]),
    /// One that points to a table of all others.
    Indirect(Descriptor),
}

/// How many descriptors of the ring a chain takes, and how many bytes the device may write.
#[derive(Clone, Copy)]
pub(crate) struct Measure {
    pub(crate) count: u16,
    pub(crate) writable: u32,
}

impl<A: AddressSpace> Descriptors<'_, A> {
    #[cfg_attr(for_size, inline(never))]
    pub(crate) fn get(&self, index: u16) -> Option<Descriptor> {
        let (readable, writable) = match self {
            Self::Buffers(readable, writable) => (readable, writable),
            Self::Indirect(descriptor) => return Some(*descriptor),
        };
        let index = usize::from(index);
        let (buffer, flags) = match readable.get(index) {
            Some(buffer) => (buffer, 0),
            None => (writable.get(index.wrapping_sub(readable.len()))?, WRITE),
        };
        Some(Descriptor { address: buffer.address.number(), length: buffer.length, flags, link: 0 })
    }

    /// Counts the descriptors, at most `limit`, and the writable bytes.
    pub(crate) fn measure(&self, limit: u16) -> Result<Measure, AddError> {
        let mut measure = Measure { count: 0, writable: 0 };
        let mut total: u32 = 0;
        while let Some(descriptor) = self.get(measure.count) {
            if measure.count == limit {
                return Err(self.too_many(limit));
            }
            if descriptor.length == 0 {
                return Err(AddError::Empty);
            }
            total = total.checked_add(descriptor.length).ok_or(AddError::TooLong)?;
            if descriptor.has(WRITE) {
                measure.writable = measure.writable.wrapping_add(descriptor.length);
            }
            measure.count = measure.count.wrapping_add(1);
        }
        if measure.count == 0 { Err(AddError::Empty) } else { Ok(measure) }
    }

    fn too_many(&self, limit: u16) -> AddError {
        let count = match self {
            Self::Buffers(readable, writable) => readable.len().saturating_add(writable.len()),
            Self::Indirect(_) => 1,
        };
        AddError::TooManyDescriptors { count: u16::try_from(count).unwrap_or(u16::MAX), limit }
    }

    /// Writes them to an indirect `table`, `count` of them; returns the descriptor that points to it.
    ///
    /// In a split ring each descriptor names the next one. In a packed one they stand in order, and have
    /// the form of those in the ring.
    pub(crate) fn write_table<R: GuestRange>(
        &self,
        table: &R,
        count: u16,
        layout: RingLayout,
    ) -> Result<Self, AddError> {
        let found = u16::try_from(table.len() / 16).unwrap_or(u16::MAX);
        if count > found {
            return Err(AddError::TableTooSmall { needed: count, found });
        }
        let mut index: u16 = 0;
        while let Some(mut descriptor) = self.get(index) {
            let next = index.wrapping_add(1);
            if layout == RingLayout::Split && next < count {
                descriptor.flags |= NEXT;
                descriptor.link = next;
            }
            let bytes = match layout {
                RingLayout::Split => descriptor.to_table(),
                RingLayout::Packed => descriptor.to_ring(),
            };
            write(table, RingPart::IndirectTable, descriptor_offset(index), bytes)?;
            index = next;
        }
        let (address, length) = (table.guest_address().0, descriptor_offset(count));
        Ok(Self::Indirect(Descriptor { address, length, flags: INDIRECT, link: 0 }))
    }
}

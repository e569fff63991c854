//! What both layouts of the driver's side share: buffers, tokens and the list of free ones.

use core::fmt;

use super::{
    descriptor::{Descriptor, INDIRECT, NEXT, WRITE, descriptor_offset},
    fault::{RingFault, RingPart},
    layout::RingLayout,
};
use crate::{
    address::GuestAddress,
    guest_memory::{AddressSpace, GuestRange},
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
        needed: usize,
        /// Descriptors that are free.
        free: u16,
    },
    /// A chain needs one buffer at least, and each one byte at least.
    Empty,
    /// More descriptors than a chain on this ring may have.
    TooManyDescriptors {
        /// Descriptors of the chain.
        count: usize,
        /// The most there may be.
        limit: u16,
    },
    /// More than 2^32 - 1 bytes in all.
    TooLong,
    /// Indirect tables were not negotiated.
    IndirectNotNegotiated,
    /// The indirect table is too small for the chain.
    TableTooSmall {
        /// Bytes of the chain's descriptors.
        needed: usize,
        /// Bytes of the table.
        found: usize,
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
                write!(f, "indirect table of {found} bytes, expected {needed}")
            }
            Self::Ring(fault) => write!(f, "{fault}"),
        }
    }
}

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

/// The order in which tokens are given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reuse {
    /// The last one that came back first: its descriptors are in the processor's cache.
    LastBack,
    /// The first one that came back first, so that on an in-order ring tokens go round.
    FirstBack,
}

/// Tokens, free and in use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tokens<const N: usize> {
    slots: [Slot; N],
    size: u16,
    free: u16,
    first_free: u16,
    last_free: u16,
}

impl<const N: usize> Tokens<N> {
    /// All of `size` tokens free.
    pub(crate) fn new(size: u16) -> Result<Self, RingFault> {
        if usize::from(size) > N {
            return Err(RingFault::Capacity { size, capacity: N });
        }
        let mut slots = [Slot { next: 0, count: 0, writable: 0 }; N];
        for (slot, next) in slots.iter_mut().zip(1..=size) {
            slot.next = if next == size { 0 } else { next };
        }
        Ok(Self { slots, size, free: size, first_free: 0, last_free: size.saturating_sub(1) })
    }

    pub(crate) fn free(&self) -> u16 {
        self.free
    }

    pub(crate) fn first_free(&self) -> u16 {
        self.first_free
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
        self.free = self.free.saturating_sub(tokens);
        if let Some(slot) = self.slots.get_mut(usize::from(token)) {
            (slot.count, slot.writable) = (count, writable);
        }
        token
    }

    /// The ring descriptors and the writable bytes of the chain with this token, if there is one.
    pub(crate) fn look_up(&self, token: u16) -> Option<(u16, u32)> {
        match self.slots.get(usize::from(token)) {
            Some(slot) if slot.count > 0 && token < self.size => Some((slot.count, slot.writable)),
            _ => None,
        }
    }

    /// The chain with this token, of `tokens` tokens, came back.
    pub(crate) fn give(&mut self, token: u16, tokens: u16, reuse: Reuse) {
        let mut last = token;
        for _ in 1..tokens {
            last = self.next(last);
        }
        if let Some(slot) = self.slots.get_mut(usize::from(token)) {
            slot.count = 0;
        }
        let (link, target) = match reuse {
            _ if self.free == 0 => {
                (self.first_free, self.last_free) = (token, last);
                self.free = tokens;
                return;
            }
            Reuse::LastBack => (last, core::mem::replace(&mut self.first_free, token)),
            Reuse::FirstBack => (core::mem::replace(&mut self.last_free, last), token),
        };
        if let Some(slot) = self.slots.get_mut(usize::from(link)) {
            slot.next = target;
        }
        self.free = self.free.saturating_add(tokens);
    }
}

/// Counts the descriptors and the writable bytes of a chain.
pub(crate) fn measure<A>(readable: &[Buffer<A>], writable: &[Buffer<A>], limit: u16) -> Result<(u16, u32), AddError> {
    let count = readable.len().saturating_add(writable.len());
    let checked = match u16::try_from(count) {
        Ok(0) => return Err(AddError::Empty),
        Ok(checked) if checked <= limit => checked,
        _ => return Err(AddError::TooManyDescriptors { count, limit }),
    };
    let mut total: u32 = 0;
    for buffer in readable.iter().chain(writable) {
        if buffer.length == 0 {
            return Err(AddError::Empty);
        }
        total = total.checked_add(buffer.length).ok_or(AddError::TooLong)?;
    }
    // Part of the sum above, so it cannot be too large.
    Ok((checked, writable.iter().fold(0, |sum, buffer| sum.saturating_add(buffer.length))))
}

/// The descriptors of a chain, without their links.
pub(crate) fn descriptors<'b, A: AddressSpace>(
    readable: &'b [Buffer<A>],
    writable: &'b [Buffer<A>],
) -> impl Iterator<Item = Descriptor> + use<'b, A> {
    let descriptor = |flags| {
        move |buffer: &Buffer<A>| Descriptor { address: buffer.address.number(), length: buffer.length, flags, link: 0 }
    };
    readable.iter().map(descriptor(0)).chain(writable.iter().map(descriptor(WRITE)))
}

/// Writes an indirect table; returns the descriptor that points to it.
///
/// In a split ring each descriptor names the next one. In a packed one they stand in order, and have
/// the form of those in the ring.
pub(crate) fn write_table<R: GuestRange>(
    table: &R,
    descriptors: impl Iterator<Item = Descriptor>,
    count: u16,
    layout: RingLayout,
) -> Result<Descriptor, AddError> {
    let (needed, found) = (descriptor_offset(count), table.len());
    if needed > found {
        return Err(AddError::TableTooSmall { needed, found });
    }
    for (next, mut descriptor) in (1..=count).zip(descriptors) {
        if layout == RingLayout::Split && next < count {
            descriptor.flags |= NEXT;
            descriptor.link = next;
        }
        let offset = descriptor_offset(next.wrapping_sub(1));
        let access = RingFault::Access { part: RingPart::IndirectTable, offset };
        let bytes = match layout {
            RingLayout::Split => descriptor.to_table(),
            RingLayout::Packed => descriptor.to_ring(),
        };
        table.write(offset, bytes).ok_or(access)?;
    }
    let length = u32::from(count).wrapping_mul(16);
    Ok(Descriptor { address: table.guest_address().0, length, flags: INDIRECT, link: 0 })
}

//! The descriptors of a chain that a driver adds.

use super::{AddError, Buffer};
use crate::{
    guest_memory::{AddressSpace, GuestRange},
    virtqueue::{
        descriptor::{Descriptor, INDIRECT, NEXT, WRITE},
        fault::RingPart,
        layout::RingLayout,
        part::{descriptor_offset, write_descriptor},
    },
};

/// The descriptors of a chain that a driver adds, without their links.
pub(super) enum Descriptors<'b, A> {
    /// Readable buffers, writable ones.
    Buffers(&'b [Buffer<A>], &'b [Buffer<A>]),
    /// One that points to a table of all others.
    Indirect(Descriptor),
}

/// How many descriptors of the ring a chain takes, and how many bytes the device may write.
#[derive(Clone, Copy)]
pub(super) struct Measure {
    pub(super) count: u16,
    pub(super) writable: u32,
}

impl<A: AddressSpace> Descriptors<'_, A> {
    #[cfg_attr(for_size, inline(never))]
    pub(super) fn get(&self, index: u16) -> Option<Descriptor> {
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
    pub(super) fn measure(&self, limit: u16) -> Result<Measure, AddError> {
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
    pub(super) fn write_table<R: GuestRange>(
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
            write_descriptor(table, RingPart::IndirectTable, index, layout, descriptor)?;
            index = next;
        }
        let (address, length) = (table.guest_address().0, descriptor_offset(count));
        Ok(Self::Indirect(Descriptor { address, length, flags: INDIRECT, link: 0 }))
    }
}

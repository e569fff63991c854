//! Accesses to the parts of a ring, which tell where they failed.

use super::{
    descriptor::{DESCRIPTOR_BYTES, Descriptor},
    fault::{RingFault, RingPart},
    layout::RingLayout,
    position::Position,
};
use crate::guest_memory::{GuestRange, Load, Store};

/// Split: where the index is in the available and the used ring, behind the flags, and where the entries begin.
pub(crate) const INDEX: u32 = 2;
const ENTRIES: u32 = 4;

/// Packed: where length and id are in a descriptor, and where the flags are, behind everything else.
pub(crate) const LENGTH: u32 = 8;
const FLAGS: u32 = 14;

/// An offset as memory counts. What is too far for that is in no memory either.
#[inline]
pub(crate) fn place(offset: u32) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// Where descriptor `index` begins in its table or ring.
#[inline]
pub(crate) fn descriptor_offset(index: u16) -> u32 {
    u32::from(index).wrapping_mul(u32::from(DESCRIPTOR_BYTES))
}

/// Packed: where the descriptor at `position` begins.
#[inline]
pub(crate) fn slot_at(position: Position) -> u32 {
    descriptor_offset(position.index())
}

/// Packed: where the flags of the descriptor at `position` are.
#[inline]
pub(crate) fn flags_at(position: Position) -> u32 {
    slot_at(position).wrapping_add(FLAGS)
}

/// Split: where the entry of a free-running `index` begins in a ring of `size` entries of `bytes`.
#[inline]
pub(crate) fn ring_entry(index: u16, size: u16, bytes: u32) -> u32 {
    // The size is a power of two.
    let slot = u32::from(index & size.wrapping_sub(1));
    slot.wrapping_mul(bytes).wrapping_add(ENTRIES)
}

/// Apart, so that what is done after an access begins with no choice of values.
#[cfg_attr(not(for_size), cold)]
#[cfg_attr(not(for_size), inline(never))]
fn inaccessible(part: RingPart, offset: u32) -> RingFault {
    RingFault::Access { part, offset }
}

#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline(always))]
pub(crate) fn load<R: GuestRange>(range: &R, part: RingPart, offset: u32, order: Load) -> Result<u16, RingFault> {
    range.load_u16(place(offset), order).ok_or_else(|| inaccessible(part, offset))
}

/// Packed: the flags of the descriptor at `position`.
#[cfg_attr(not(for_size), inline)]
pub(crate) fn load_flags<R: GuestRange>(ring: &R, position: Position, order: Load) -> Result<u16, RingFault> {
    load(ring, RingPart::DescriptorRing, flags_at(position), order)
}

#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline(always))]
pub(crate) fn store<R: GuestRange>(
    range: &R,
    part: RingPart,
    offset: u32,
    value: u16,
    order: Store,
) -> Result<(), RingFault> {
    range.store_u16(place(offset), value, order).ok_or_else(|| inaccessible(part, offset))
}

/// Copies bytes from `offset`. They go to where they are needed, because an array within a `Result` stands at an odd place.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline(always))]
pub(crate) fn read<R: GuestRange>(range: &R, part: RingPart, offset: u32, out: &mut [u8]) -> Result<(), RingFault> {
    range.read_into(place(offset), out).ok_or_else(|| inaccessible(part, offset))
}

/// A copy of the descriptor at `index` of a table or ring of `layout`.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline(always))]
pub(crate) fn read_descriptor<R: GuestRange>(
    range: &R,
    part: RingPart,
    index: u16,
    layout: RingLayout,
) -> Result<Descriptor, RingFault> {
    let offset = descriptor_offset(index);
    let number = range.read_u128(place(offset)).ok_or_else(|| inaccessible(part, offset))?;
    Ok(match layout {
        RingLayout::Split => Descriptor::from_table(number),
        RingLayout::Packed => Descriptor::from_ring(number),
    })
}

/// Writes the descriptor at `index` of a table or ring of `layout`.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline(always))]
pub(crate) fn write_descriptor<R: GuestRange>(
    range: &R,
    part: RingPart,
    index: u16,
    layout: RingLayout,
    descriptor: Descriptor,
) -> Result<(), RingFault> {
    let bytes = match layout {
        RingLayout::Split => descriptor.to_table(),
        RingLayout::Packed => descriptor.to_ring(),
    };
    write(range, part, descriptor_offset(index), &bytes)
}

/// Copies bytes to `offset`.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline(always))]
pub(crate) fn write<R: GuestRange>(range: &R, part: RingPart, offset: u32, bytes: &[u8]) -> Result<(), RingFault> {
    range.write_from(place(offset), bytes).ok_or_else(|| inaccessible(part, offset))
}

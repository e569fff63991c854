//! Accesses to the parts of a ring, which tell where they failed.

use super::{
    descriptor::{Descriptor, descriptor_offset},
    fault::{RingFault, RingPart},
    layout::RingLayout,
};
use crate::guest_memory::{GuestRange, Load, Store};

/// An offset as memory counts. What is too far for that is in no memory either.
#[inline]
pub(crate) fn place(offset: u32) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
pub(crate) fn load<R: GuestRange>(range: &R, part: RingPart, offset: u32, order: Load) -> Result<u16, RingFault> {
    range.load_u16(place(offset), order).ok_or(RingFault::Access { part, offset })
}

#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
pub(crate) fn store<R: GuestRange>(
    range: &R,
    part: RingPart,
    offset: u32,
    value: u16,
    order: Store,
) -> Result<(), RingFault> {
    range.store_u16(place(offset), value, order).ok_or(RingFault::Access { part, offset })
}

/// Copies bytes from `offset`.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
pub(crate) fn read<R: GuestRange, const N: usize>(
    range: &R,
    part: RingPart,
    offset: u32,
) -> Result<[u8; N], RingFault> {
    range.read(place(offset)).ok_or(RingFault::Access { part, offset })
}

/// A copy of the descriptor at `index` of a table or ring of `layout`.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
pub(crate) fn read_descriptor<R: GuestRange>(
    range: &R,
    part: RingPart,
    index: u16,
    layout: RingLayout,
) -> Result<Descriptor, RingFault> {
    let bytes = read(range, part, descriptor_offset(index))?;
    Ok(match layout {
        RingLayout::Split => Descriptor::from_table(bytes),
        RingLayout::Packed => Descriptor::from_ring(bytes),
    })
}

/// Copies bytes to `offset`.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
pub(crate) fn write<R: GuestRange, const N: usize>(
    range: &R,
    part: RingPart,
    offset: u32,
    bytes: [u8; N],
) -> Result<(), RingFault> {
    range.write(place(offset), bytes).ok_or(RingFault::Access { part, offset })
}

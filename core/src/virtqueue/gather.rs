//! Collects the buffers of a chain: each descriptor is copied once, checked, and translated.

use super::{
    chain::{ChainBuffer, Extent, NoRoom},
    descriptor::{Descriptor, INDIRECT, NEXT, WRITE, descriptor_offset},
    fault::{ChainFault, ChainFaultKind, PopError, RingFault, RingPart},
};
use crate::{
    guest_memory::{Access, AddressSpace, GuestMemory, GuestRange, Miss, Unmapped},
    wire::feature::VirtioFeatures,
};

/// The most descriptors of an indirect chain on a small ring. The specification allows no more than
/// the ring has, but drivers go by the device's limits instead, and QEMU takes up to this many.
const INDIRECT_MIN_LIMIT: u16 = 1024;

/// Bytes of a descriptor in an indirect table.
const TABLE_ENTRY: u32 = 16;

/// Why the walk along a chain ended early.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    Fault(ChainFault),
    Miss(Miss),
    Ring(RingFault),
}

impl From<RingFault> for Stop {
    fn from(fault: RingFault) -> Self {
        Self::Ring(fault)
    }
}

/// A chain being gathered.
pub(crate) struct Gather<'c, M, B> {
    memory: &'c M,
    buffer: &'c mut B,
    indirect: Indirect,
    extent: Extent,
}

/// Whether chains may use indirect tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Indirect {
    Negotiated { ring_size: u16 },
    Refused,
}

impl Indirect {
    #[inline]
    pub(crate) fn of(features: VirtioFeatures, ring_size: u16) -> Self {
        if features.contains(VirtioFeatures::RING_INDIRECT) { Self::Negotiated { ring_size } } else { Self::Refused }
    }
}

impl<'c, M: GuestMemory, B: ChainBuffer<M::Range>> Gather<'c, M, B> {
    pub(crate) fn new(memory: &'c M, buffer: &'c mut B, indirect: Indirect) -> Self {
        buffer.clear();
        Self { memory, buffer, indirect, extent: Extent::default() }
    }

    /// What was gathered; or the chain's fault, and nothing of it can be used.
    #[inline]
    pub(crate) fn finish(self, outcome: Result<(), Stop>) -> Result<(Extent, Option<ChainFault>), PopError> {
        match outcome {
            Ok(()) => Ok((self.extent, None)),
            Err(Stop::Fault(fault)) => {
                self.buffer.clear();
                Ok((Extent::default(), Some(fault)))
            }
            Err(Stop::Miss(miss)) => Err(PopError::Miss(miss)),
            Err(Stop::Ring(fault)) => Err(PopError::Ring(fault)),
        }
    }

    /// Follows the chain of a split ring that begins at `head` of its descriptor `table`.
    #[inline]
    pub(crate) fn split<R: GuestRange>(&mut self, table: &R, size: u16, head: u16) -> Result<(), Stop> {
        let mut index = head;
        // A chain that does not end within `size` descriptors loops.
        for _ in 0..size {
            let descriptor = read(table, RingPart::DescriptorTable, index, Descriptor::from_table)?;
            if descriptor.has(INDIRECT) {
                return self.split_indirect(index, descriptor);
            }
            self.buffer_of(descriptor).map_err(at(RingPart::DescriptorTable, index))?;
            match successor(descriptor, size).map_err(at(RingPart::DescriptorTable, index))? {
                Some(next) => index = next,
                None => return Ok(()),
            }
        }
        Err(at(RingPart::DescriptorTable, index)(ChainFaultKind::TooManyDescriptors { limit: size }.into()))
    }

    /// Takes one descriptor of a packed ring, which stands at `index`.
    #[inline]
    pub(crate) fn packed(&mut self, index: u16, descriptor: Descriptor) -> Result<(), Stop> {
        if descriptor.has(INDIRECT) {
            return self.packed_indirect(index, descriptor);
        }
        self.buffer_of(descriptor).map_err(at(RingPart::DescriptorRing, index))
    }

    fn split_indirect(&mut self, index: u16, descriptor: Descriptor) -> Result<(), Stop> {
        let opened = self.open(descriptor).map_err(at(RingPart::DescriptorTable, index))?;
        let (table, entries, limit) = opened;
        // A chain of more descriptors than the table has loops.
        let limit = limit.min(entries);
        let mut index = 0;
        for _ in 0..limit {
            let descriptor = read(&table, RingPart::IndirectTable, index, Descriptor::from_table)?;
            let here = at(RingPart::IndirectTable, index);
            if descriptor.has(INDIRECT) {
                return Err(here(ChainFaultKind::NestedIndirect.into()));
            }
            self.buffer_of(descriptor).map_err(&here)?;
            match successor(descriptor, entries).map_err(&here)? {
                Some(next) => index = next,
                None => return Ok(()),
            }
        }
        Err(at(RingPart::IndirectTable, index)(ChainFaultKind::TooManyDescriptors { limit }.into()))
    }

    /// All descriptors of the table, in order; they have the form of those in the ring (virtio,
    /// section "Indirect Flag: Scatter-Gather Support").
    fn packed_indirect(&mut self, index: u16, descriptor: Descriptor) -> Result<(), Stop> {
        let opened = self.open(descriptor).map_err(at(RingPart::DescriptorRing, index))?;
        let (table, entries, limit) = opened;
        if entries > limit {
            let here = at(RingPart::IndirectTable, limit);
            return Err(here(ChainFaultKind::TooManyDescriptors { limit }.into()));
        }
        for index in 0..entries {
            let descriptor = read(&table, RingPart::IndirectTable, index, Descriptor::from_ring)?;
            let here = at(RingPart::IndirectTable, index);
            if descriptor.has(INDIRECT) {
                return Err(here(ChainFaultKind::NestedIndirect.into()));
            }
            self.buffer_of(descriptor).map_err(here)?;
        }
        Ok(())
    }

    /// The indirect table that `descriptor` points to, its entries, and how many a chain may use.
    fn open(&self, descriptor: Descriptor) -> Result<(M::Range, u16, u16), Refused> {
        let Descriptor { address, length, .. } = descriptor;
        let Indirect::Negotiated { ring_size } = self.indirect else {
            return Err(ChainFaultKind::IndirectNotNegotiated.into());
        };
        if descriptor.has(NEXT) {
            return Err(ChainFaultKind::IndirectWithNext.into());
        }
        if length == 0 || !length.is_multiple_of(TABLE_ENTRY) {
            return Err(ChainFaultKind::IndirectLength { length }.into());
        }
        let table = self.memory.range(M::Address::from_number(address), length.into(), Access::Read);
        let table = table.map_err(|cause| refusal(cause, ChainFaultKind::IndirectUnmapped { address, length }))?;
        // Indices have 16 bits: nothing can point behind the 65,535 descriptors of a larger table.
        let entries = u16::try_from(length / TABLE_ENTRY).unwrap_or(u16::MAX);
        Ok((table, entries, ring_size.max(INDIRECT_MIN_LIMIT)))
    }

    #[inline]
    fn buffer_of(&mut self, descriptor: Descriptor) -> Result<(), Refused> {
        let Descriptor { address, length, .. } = descriptor;
        let writable = descriptor.has(WRITE);
        if length == 0 {
            return Err(ChainFaultKind::Empty { address }.into());
        }
        if !writable && self.extent.writable > 0 {
            return Err(ChainFaultKind::ReadableAfterWritable { address }.into());
        }
        // The driver counts used bytes in 32 bits, and the specification allows no more in all.
        let total = self.extent.readable.checked_add(self.extent.writable).and_then(|sum| sum.checked_add(length));
        if total.is_none() {
            return Err(ChainFaultKind::TooLong.into());
        }
        let access = if writable { Access::Write } else { Access::Read };
        let pieces = self.pieces(address, length, access)?;
        let Extent { readable_pieces, readable, writable: written } = &mut self.extent;
        if writable {
            *written = written.saturating_add(length);
        } else {
            *readable = readable.saturating_add(length);
            *readable_pieces = readable_pieces.saturating_add(pieces);
        }
        Ok(())
    }

    /// Adds one buffer, as several pieces where it crosses from one region into the next.
    #[inline]
    fn pieces(&mut self, address: u64, length: u32, access: Access) -> Result<usize, Refused> {
        let unmapped = ChainFaultKind::Unmapped { address, length };
        let (mut at, mut left) = (address, u64::from(length));
        let mut pieces: usize = 0;
        loop {
            let piece = self.memory.piece(M::Address::from_number(at), left, access);
            let piece = piece.map_err(|cause| refusal(cause, unmapped))?;
            let found = u64::try_from(piece.len()).unwrap_or(u64::MAX);
            self.buffer.push(piece)?;
            pieces = pieces.saturating_add(1);
            left = match left.checked_sub(found) {
                Some(0) => return Ok(pieces),
                // A memory that gives nothing, or more than was asked for, does not keep its contract.
                Some(rest) if found > 0 => rest,
                _ => return Err(unmapped.into()),
            };
            at = at.checked_add(found).ok_or(Refused::Fault(unmapped))?;
        }
    }
}

/// Why a descriptor does not become a buffer.
enum Refused {
    Fault(ChainFaultKind),
    Miss(Miss),
}

impl From<ChainFaultKind> for Refused {
    fn from(kind: ChainFaultKind) -> Self {
        Self::Fault(kind)
    }
}

impl From<NoRoom> for Refused {
    fn from(_: NoRoom) -> Self {
        Self::Fault(ChainFaultKind::TooManyPieces)
    }
}

fn refusal(cause: Unmapped, kind: ChainFaultKind) -> Refused {
    match cause {
        Unmapped::Outside | Unmapped::Denied(_) => Refused::Fault(kind),
        Unmapped::Miss(miss) => Refused::Miss(miss),
    }
}

/// Says which descriptor was refused.
fn at(part: RingPart, index: u16) -> impl Fn(Refused) -> Stop {
    move |refused| match refused {
        Refused::Fault(kind) => Stop::Fault(ChainFault { part, index, kind }),
        Refused::Miss(miss) => Stop::Miss(miss),
    }
}

#[inline]
fn read<R: GuestRange>(
    table: &R,
    part: RingPart,
    index: u16,
    decode: fn([u8; 16]) -> Descriptor,
) -> Result<Descriptor, RingFault> {
    let offset = descriptor_offset(index);
    table.read(offset).map(decode).ok_or(RingFault::Access { part, offset })
}

/// The next descriptor of a chain in a table of `size`.
#[inline]
fn successor(descriptor: Descriptor, size: u16) -> Result<Option<u16>, Refused> {
    match descriptor.link {
        _ if !descriptor.has(NEXT) => Ok(None),
        next if next < size => Ok(Some(next)),
        next => Err(ChainFaultKind::NextBeyondTable { next, size }.into()),
    }
}

//! Collects the buffers of a chain: each descriptor is copied once, checked, and translated.

use super::{
    agreed::Agreed,
    chain::{Chain, ChainBuffer, Entry, Extent, Origin},
    descriptor::{Descriptor, INDIRECT, NEXT, WRITE},
    fault::{ChainFault, ChainFaultKind, PopError, RingFault, RingPart},
    kind::for_layout,
    layout::RingLayout,
    part::read_descriptor,
};
use crate::guest_memory::{Access, AddressSpace, GuestMemory, GuestRange, Miss, Unmapped};

/// The most descriptors of an indirect chain on a small ring. The specification allows no more than
/// the ring has, but drivers go by the device's limits instead, and QEMU takes up to this many.
const INDIRECT_MIN_LIMIT: u16 = 1024;

/// Bytes of a descriptor in an indirect table.
const TABLE_ENTRY: u32 = 16;

/// Why the walk along a chain ended early.
#[derive(Clone, Copy, Debug)]
enum Stop {
    Fault(ChainFault),
    Miss(Miss),
    Ring(RingFault),
}

impl Stop {
    #[cfg_attr(not(for_size), cold)]
    fn error(self, entry: Entry, origin: Origin) -> PopError {
        match self {
            Self::Fault(fault) => PopError::Malformed { chain: Chain::new(entry, origin, Extent::default()), fault },
            Self::Miss(miss) => PopError::Miss(miss),
            Self::Ring(fault) => PopError::Ring(fault),
        }
    }
}

/// The buffers of a chain being gathered. Its steps are `None` when the chain cannot be followed further; `stop` tells why then.
pub(crate) struct Gather<'c, M, B> {
    memory: &'c M,
    buffer: &'c mut B,
    ring_size: u16,
    has_indirect: bool,
    extent: Extent,
    stop: Option<Stop>,
}

/// The descriptors that a walk goes through.
#[derive(Clone, Copy)]
struct Table {
    part: RingPart,
    layout: RingLayout,
    entries: u16,
    /// The most descriptors of a chain.
    limit: u16,
}

impl<'c, M: GuestMemory, B: ChainBuffer<M::Range>> Gather<'c, M, B> {
    #[cfg_attr(for_size, inline(always))]
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn new(memory: &'c M, buffer: &'c mut B, agreed: Agreed, ring_size: u16) -> Self {
        buffer.clear();
        Self { memory, buffer, ring_size, has_indirect: agreed.indirect, extent: Extent::default(), stop: None }
    }

    /// Whether no chain can be taken: none is malformed, but a translation is missing or the ring is broken.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn is_to_be_repeated(&self) -> bool {
        matches!(self.stop, Some(Stop::Miss(_) | Stop::Ring(_)))
    }

    /// The chain at `entry` with what was gathered; of a malformed one nothing can be used.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline(always))]
    pub(crate) fn finish(self, entry: Entry, origin: Origin) -> Result<Chain, PopError> {
        match self.stop {
            None => Ok(Chain::new(entry, origin, self.extent)),
            Some(stop) => {
                self.buffer.clear();
                Err(stop.error(entry, origin))
            }
        }
    }

    /// Follows the chain of a split ring that begins at `head` of its descriptor `table`.
    #[cfg_attr(not(for_size), inline(always))]
    pub(crate) fn split<R: GuestRange>(&mut self, table: &R, head: u16) {
        let (part, layout) = (RingPart::DescriptorTable, RingLayout::Split);
        let Some(first) = self.read(table, part, head, layout) else { return };
        // A chain of more descriptors than the table has loops.
        let ring = Table { part, layout, entries: self.ring_size, limit: self.ring_size };
        self.walk(table, ring, head, first);
    }

    /// Takes one descriptor of a packed ring, which stands at `index`. A malformed chain is taken to its end.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn packed(&mut self, index: u16, descriptor: Descriptor) {
        if self.stop.is_some() {
            return;
        }
        let part = RingPart::DescriptorRing;
        if descriptor.has(INDIRECT) {
            self.indirect(part, index, descriptor, RingLayout::Packed);
        } else {
            self.buffer_of(part, index, descriptor);
        }
    }

    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline(always))]
    fn read<R: GuestRange>(&mut self, range: &R, part: RingPart, index: u16, layout: RingLayout) -> Option<Descriptor> {
        match read_descriptor(range, part, index, layout) {
            Ok(descriptor) => Some(descriptor),
            Err(fault) => {
                self.broken(fault);
                None
            }
        }
    }

    /// Takes the descriptors of a chain from that at `index` of a table on, the `first` one, and those of an indirect table
    /// that the last one points to.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline(always))]
    fn walk<R: GuestRange>(&mut self, range: &R, table: Table, index: u16, first: Descriptor) -> Option<()> {
        let Table { part, layout, entries, limit } = table;
        let (mut index, mut descriptor, mut left) = (index, first, limit);
        loop {
            if descriptor.has(INDIRECT) {
                return match part {
                    RingPart::IndirectTable => self.refuse(part, index, ChainFaultKind::NestedIndirect),
                    _ => self.indirect(part, index, descriptor, layout),
                };
            }
            self.buffer_of(part, index, descriptor)?;
            index = match layout {
                // The descriptors of an indirect table, all of them, in order (virtio, section "Indirect Flag:
                // Scatter-Gather Support").
                RingLayout::Packed if index.wrapping_add(1) < entries => index.wrapping_add(1),
                RingLayout::Split if descriptor.has(NEXT) && descriptor.link < entries => descriptor.link,
                RingLayout::Split if descriptor.has(NEXT) => {
                    let kind = ChainFaultKind::NextBeyondTable { next: descriptor.link, size: entries };
                    return self.refuse(part, index, kind);
                }
                _ => return None,
            };
            left = left.wrapping_sub(1);
            if left == 0 {
                return self.refuse(part, index, ChainFaultKind::TooManyDescriptors { limit });
            }
            descriptor = self.read(range, part, index, layout)?;
        }
    }

    /// Takes the descriptors of the indirect table that the `descriptor` at `index` of `part` points to.
    #[cfg_attr(for_size, inline(never))]
    fn indirect(&mut self, part: RingPart, index: u16, descriptor: Descriptor, layout: RingLayout) -> Option<()> {
        let Descriptor { address, length, .. } = descriptor;
        let kind = if !self.has_indirect {
            ChainFaultKind::IndirectNotNegotiated
        } else if descriptor.has(NEXT) {
            ChainFaultKind::IndirectWithNext
        } else if length == 0 || !length.is_multiple_of(TABLE_ENTRY) {
            ChainFaultKind::IndirectLength { length }
        } else {
            match self.memory.range(M::Address::from_number(address), length.into(), Access::Read) {
                Ok(range) => {
                    // Indices have 16 bits: nothing can point behind the 65,535 descriptors of a larger table.
                    let entries = u16::try_from(length / TABLE_ENTRY).unwrap_or(u16::MAX);
                    return self.indirect_table(&range, entries, layout);
                }
                Err(Unmapped::Miss(miss)) => return self.miss(miss),
                Err(_) => ChainFaultKind::IndirectUnmapped { address, length },
            }
        };
        self.refuse(part, index, kind)
    }

    fn indirect_table(&mut self, range: &M::Range, entries: u16, layout: RingLayout) -> Option<()> {
        let part = RingPart::IndirectTable;
        let mut limit = self.ring_size.max(INDIRECT_MIN_LIMIT);
        match layout {
            RingLayout::Packed if entries > limit => {
                return self.refuse(part, limit, ChainFaultKind::TooManyDescriptors { limit });
            }
            RingLayout::Packed => {}
            // A chain of more descriptors than the table has loops.
            RingLayout::Split => limit = limit.min(entries),
        }
        for_layout!(layout, layout => {
            let first = self.read(range, part, 0, layout)?;
            self.walk(range, Table { part, layout, entries, limit }, 0, first)
        })
    }

    /// Takes the buffer of the `descriptor` at `index` of `part`.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline(always))]
    fn buffer_of(&mut self, part: RingPart, index: u16, descriptor: Descriptor) -> Option<()> {
        let Descriptor { address, length, .. } = descriptor;
        let extent = &mut self.extent;
        let kind = if length == 0 {
            ChainFaultKind::Empty { address }
        } else if !descriptor.has(WRITE) && extent.writable() > 0 {
            ChainFaultKind::ReadableAfterWritable { address }
        } else if let Some(all) = extent.all.checked_add(length) {
            extent.all = all;
            if !descriptor.has(WRITE) {
                extent.readable = all;
            }
            match self.pieces(descriptor) {
                None => return Some(()),
                Some(Refused::Miss) => return None,
                Some(Refused::Unmapped) => ChainFaultKind::Unmapped { address, length },
                Some(Refused::NoRoom) => ChainFaultKind::TooManyPieces,
            }
        } else {
            // The driver counts used bytes in 32 bits, and the specification allows no more in all.
            ChainFaultKind::TooLong
        };
        self.refuse(part, index, kind)
    }

    /// Adds one buffer, as several pieces where it crosses from one region into the next. Tells why it could not.
    #[cfg_attr(not(for_size), inline(always))]
    fn pieces(&mut self, descriptor: Descriptor) -> Option<Refused> {
        let access = if descriptor.has(WRITE) { Access::Write } else { Access::Read };
        let (mut at, mut left) = (descriptor.address, u64::from(descriptor.length));
        loop {
            let piece = match self.memory.piece(M::Address::from_number(at), left, access) {
                Ok(piece) => piece,
                Err(Unmapped::Miss(miss)) => {
                    self.miss(miss);
                    return Some(Refused::Miss);
                }
                Err(_) => return Some(Refused::Unmapped),
            };
            let found = u64::try_from(piece.len()).unwrap_or(u64::MAX);
            if self.buffer.push(piece).is_err() {
                return Some(Refused::NoRoom);
            }
            if access == Access::Read {
                self.extent.readable_pieces = self.extent.readable_pieces.wrapping_add(1);
            }
            if found == left {
                return None;
            }
            let Some(rest) = behind(at, left, found) else { return Some(Refused::Unmapped) };
            (at, left) = rest;
        }
    }

    /// The chain is malformed at the descriptor `index` of `part`.
    #[cold]
    fn refuse(&mut self, part: RingPart, index: u16, kind: ChainFaultKind) -> Option<()> {
        self.stop = Some(Stop::Fault(ChainFault { part, index, kind }));
        None
    }

    /// The ring cannot be read, or is wrong.
    #[cfg_attr(not(for_size), cold)]
    pub(crate) fn broken(&mut self, fault: RingFault) {
        self.stop = Some(Stop::Ring(fault));
    }

    #[cold]
    fn miss(&mut self, miss: Miss) -> Option<()> {
        self.stop = Some(Stop::Miss(miss));
        None
    }
}

/// What of the `left` bytes at `at` lies behind those that were `found`.
#[cfg_attr(not(for_size), cold)]
fn behind(at: u64, left: u64, found: u64) -> Option<(u64, u64)> {
    // A memory that gives nothing, or more than was asked for, does not keep its contract.
    let rest = left.checked_sub(found).filter(|_| found > 0)?;
    Some((at.checked_add(found)?, rest))
}

/// Why a buffer has no pieces.
enum Refused {
    Unmapped,
    NoRoom,
    /// The translation that is missing was noted.
    Miss,
}

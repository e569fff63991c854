//! Walks a descriptor chain: copies each descriptor once, checks it, and translates its buffer.

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileSlice};

use super::fault::ChainFaultKind;
use crate::chain::Extent;
use crate::memory::MappedMemory;

/// Bytes of a descriptor: address u64, length u32, flags u16, next u16, all little-endian.
pub(super) const DESCRIPTOR_BYTES: u32 = 16;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// The most descriptors of an indirect chain on a small ring. The specification allows no more than the ring has, but
/// drivers go by the device's limits instead, and QEMU takes up to this many.
const INDIRECT_MIN_LIMIT: u16 = 1024;

/// Descriptors in guest memory, and how many of them a chain may use.
#[derive(Clone, Copy)]
pub(super) struct Table {
    address: u64,
    size: u16,
    limit: u16,
    indirect: bool,
}

impl Table {
    /// The descriptor table of a ring of `size`.
    pub(super) fn of_ring(address: u64, size: u16) -> Self {
        Self { address, size, limit: size, indirect: false }
    }

    pub(super) fn contains(&self, index: u16) -> bool {
        index < self.size
    }

    fn indirect(&self, descriptor: Descriptor) -> Result<Self, ChainFaultKind> {
        let Descriptor { address, length, flags, .. } = descriptor;
        if self.indirect {
            return Err(ChainFaultKind::NestedIndirect);
        }
        if flags & NEXT != 0 {
            return Err(ChainFaultKind::IndirectWithNext);
        }
        if length == 0 || !length.is_multiple_of(DESCRIPTOR_BYTES) {
            return Err(ChainFaultKind::IndirectTableLength { length });
        }
        // `next` has 16 bits, so that nothing can point behind the 65,535 descriptors that are left of a larger table.
        let size = u16::try_from(length / DESCRIPTOR_BYTES).unwrap_or(u16::MAX);
        Ok(Self { address, size, limit: self.size.max(INDIRECT_MIN_LIMIT).min(size), indirect: true })
    }

    fn read(&self, memory: &MappedMemory, index: u16) -> Result<Descriptor, ChainFaultKind> {
        let offset = u64::from(index) * u64::from(DESCRIPTOR_BYTES);
        let outside = ChainFaultKind::TableOutsideMemory { address: self.address.saturating_add(offset) };
        let address = self.address.checked_add(offset).ok_or(outside)?;
        let mut bytes = [0; DESCRIPTOR_BYTES as usize];
        memory.read_slice(&mut bytes, GuestAddress(address)).map_err(|_| outside)?;
        Ok(Descriptor::decode(bytes))
    }
}

#[derive(Clone, Copy)]
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn decode(bytes: [u8; 16]) -> Self {
        let whole = u128::from_le_bytes(bytes);
        Self {
            address: whole as u64,
            length: (whole >> 64) as u32,
            flags: (whole >> 96) as u16,
            next: (whole >> 112) as u16,
        }
    }
}

/// Adds the buffers of the chain that begins at `head` to `slices`.
pub(super) fn walk<'m>(
    memory: &'m MappedMemory,
    ring: Table,
    head: u16,
    slices: &mut Vec<VolatileSlice<'m>>,
) -> Result<Extent, ChainFaultKind> {
    if !ring.contains(head) {
        return Err(ChainFaultKind::HeadBeyondRing { size: ring.size });
    }
    let mut table = ring;
    let mut index = head;
    let mut used: u16 = 0;
    let mut extent = Extent::default();
    loop {
        let descriptor = table.read(memory, index)?;
        if descriptor.flags & INDIRECT != 0 {
            table = table.indirect(descriptor)?;
            (index, used) = (0, 0);
            continue;
        }
        used = used.saturating_add(1);
        if used > table.limit {
            return Err(ChainFaultKind::TooManyDescriptors { limit: table.limit });
        }
        translate(memory, descriptor, slices, &mut extent)?;
        if descriptor.flags & NEXT == 0 {
            return Ok(extent);
        }
        if !table.contains(descriptor.next) {
            return Err(ChainFaultKind::NextBeyondTable { next: descriptor.next, size: table.size });
        }
        index = descriptor.next;
    }
}

/// Adds one buffer, as several slices where it crosses from one memory region into the next.
fn translate<'m>(
    memory: &'m MappedMemory,
    descriptor: Descriptor,
    slices: &mut Vec<VolatileSlice<'m>>,
    extent: &mut Extent,
) -> Result<(), ChainFaultKind> {
    let Descriptor { address, length, flags, .. } = descriptor;
    let writable = flags & WRITE != 0;
    if length == 0 {
        return Err(ChainFaultKind::Empty { address });
    }
    if !writable && extent.writable_len > 0 {
        return Err(ChainFaultKind::ReadableAfterWritable { address });
    }
    let outside = ChainFaultKind::OutsideMemory { address, length };
    let count = usize::try_from(length).map_err(|_| outside)?;
    for slice in memory.get_slices(GuestAddress(address), count) {
        slices.push(slice.map_err(|_| outside)?);
    }
    if writable {
        extent.writable_len += u64::from(length);
    } else {
        extent.readable_len += u64::from(length);
        extent.readable_slices = slices.len();
    }
    // Specification, 2.7.5.2: no more than 2^32 bytes; the length in the used ring has 32 bits.
    if extent.readable_len.saturating_add(extent.writable_len) > u64::from(u32::MAX) {
        return Err(ChainFaultKind::TooLong);
    }
    Ok(())
}

//! What a connection knows of its guest: the memory, and where the front-end says the rings are.

use std::os::fd::OwnedFd;

use vhost_core::{
    GuestAddress, Handles, MemoryRegion, MemoryTable as RegionList, Negotiated, ProtocolFeatures, RingAddress,
    wire::vring::VringAddr,
};

use crate::{
    memory::{MappedRegion, MemoryError, MemoryTable},
    vring::{RingAddresses, Vring},
};

/// The guest of one connection.
#[derive(Debug, Default)]
pub(super) struct Guest {
    memory: MemoryTable,
    /// As they came, because memory may come after them and change under them.
    rings: Vec<Option<VringAddr>>,
}

impl Guest {
    pub(super) fn new(rings: u16) -> Self {
        Self { memory: MemoryTable::default(), rings: vec![None; usize::from(rings)] }
    }

    /// The whole memory anew. Nothing changes here: the caller commits it.
    pub(super) fn replaced(regions: &RegionList<'_>, handles: Handles<OwnedFd>) -> Result<MemoryTable, MemoryError> {
        let mapped = regions.iter().zip(handles).map(|(region, handle)| MappedRegion::new(region, handle));
        MemoryTable::new(mapped.collect::<Result<Vec<_>, _>>()?)
    }

    /// The memory with one more region.
    pub(super) fn with(&self, region: MemoryRegion, handle: OwnedFd) -> Result<MemoryTable, MemoryError> {
        self.memory.insert(MappedRegion::new(region, handle)?)
    }

    /// The memory without a region.
    pub(super) fn without(&self, region: &MemoryRegion) -> Result<MemoryTable, MemoryError> {
        self.memory.remove(region)
    }

    pub(super) fn set_memory(&mut self, memory: MemoryTable) {
        self.memory = memory;
    }

    pub(super) fn set_ring(&mut self, index: usize, address: VringAddr) {
        if let Some(ring) = self.rings.get_mut(index) {
            *ring = Some(address);
        }
    }

    pub(super) fn forget_rings(&mut self) {
        self.rings.fill(None);
    }

    /// Whether everything is known that a ring needs to start; a ring may be kicked before.
    pub(super) fn is_complete(&self, index: usize) -> bool {
        !self.memory.regions().is_empty() && matches!(self.rings.get(index), Some(Some(_)))
    }

    /// Gives a ring the memory, and its place in it as far as that is known.
    ///
    /// A ring that runs and has no place any more is stopped; it keeps the fault.
    pub(super) fn place(&self, ring: &mut Vring, size: Option<u16>, negotiated: &Negotiated) {
        let address = self.rings.get(usize::from(ring.index())).copied().flatten();
        let addresses = address.zip(size).and_then(|(address, size)| self.translate(&address, size, negotiated).ok());
        // The fault is kept in the ring and reported through its error descriptor.
        let _ = ring.set_memory(self.memory.shared(), addresses);
    }

    /// Ring addresses are user addresses unless `GPA_ADDRESSES` is negotiated. Each part must lie in
    /// one region.
    fn translate(&self, address: &VringAddr, size: u16, negotiated: &Negotiated) -> Result<RingAddresses, MemoryError> {
        let size = u64::from(size);
        let part = |start: RingAddress, each: u64, fixed: u64| -> Result<u64, MemoryError> {
            if negotiated.protocol.contains(ProtocolFeatures::GPA_ADDRESSES) {
                return Ok(GuestAddress(start.0).0);
            }
            self.memory.user_to_guest(start.0, size * each + fixed)
        };
        // Split rings: sizes as in virtio, section "Split Virtqueues", with the event fields.
        Ok(RingAddresses {
            descriptor: part(address.descriptor(), 16, 0)?,
            available: part(address.available(), 2, 6)?,
            used: part(address.used(), 8, 6)?,
        })
    }
}

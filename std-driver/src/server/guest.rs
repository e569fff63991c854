//! What a connection knows of its guest: the memory, and where the front-end says the rings are.

use std::{os::fd::OwnedFd, sync::Arc};

use vhost_core::{
    GuestAddress, Handles, MemoryRegion, MemoryTable as RegionList, Negotiated, ProtocolFeatures, RingAddress,
    wire::vring::VringAddr,
};

use crate::{
    memory::{MappedMemory, MappedRegion, MemoryError, MemoryTable},
    vring::RingAddresses,
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

    /// Where a ring lies; `None` as long as its addresses, its size or the memory are missing, because they come in any order.
    pub(super) fn place(
        &self,
        index: usize,
        size: Option<u16>,
        negotiated: &Negotiated,
    ) -> Result<Option<RingAddresses>, MemoryError> {
        let address = self.rings.get(index).copied().flatten().filter(|_| !self.memory.regions().is_empty());
        address.zip(size).map(|(address, size)| self.translate(&address, size, negotiated)).transpose()
    }

    /// The memory as rings hold it.
    pub(super) fn shared_memory(&self) -> Arc<MappedMemory> {
        self.memory.shared()
    }

    /// Ring addresses are user addresses unless `GPA_ADDRESSES` is negotiated. Each part must lie in
    /// one region.
    pub(super) fn translate(
        &self,
        address: &VringAddr,
        size: u16,
        negotiated: &Negotiated,
    ) -> Result<RingAddresses, MemoryError> {
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

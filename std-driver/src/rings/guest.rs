//! What is known of a guest: the memory, and what is wished of its rings.

use std::{os::fd::OwnedFd, sync::Arc};

use vhost_core::{
    GuestAddress, Handles, Iova, Logging, MemoryRegion, MemoryTable as RegionList, RingAddress, RingAddresses,
    RingLayout, VringAddresses,
};

use crate::{
    eventfd::EventFd,
    iommu::Iommu,
    memory::{AddressSpace, LogFile, MappedRegion, MemoryError, MemoryTable},
    vring::{BehindIommu, Place, RingLog},
};

/// A guest, for as long as somebody processes its rings.
#[derive(Debug, Default)]
pub(crate) struct Guest {
    memory: MemoryTable,
    /// If its drivers use addresses of their own.
    iommu: Option<Arc<Iommu>>,
    log: Option<LogFile>,
    /// What tells the front-end that pages were marked.
    log_signal: Option<Arc<EventFd>>,
    /// Whether writes are logged: `LOG_ALL` is acknowledged.
    logging: Logging,
    rings: Vec<Wish>,
}

/// What is wished of a ring, as it came: the rest may come later, and memory may change under it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wish {
    pub(super) size: Option<u16>,
    pub(super) addresses: Option<VringAddresses>,
    /// Kicked, and not stopped since.
    pub(super) started: bool,
}

impl Guest {
    pub(crate) fn new(rings: u16) -> Self {
        Self { rings: vec![Wish::default(); usize::from(rings)], ..Self::default() }
    }

    /// The whole memory anew. Nothing changes here: the caller commits it.
    pub(crate) fn replaced(regions: &RegionList<'_>, handles: Handles<OwnedFd>) -> Result<MemoryTable, MemoryError> {
        let mapped = regions.iter().zip(handles).map(|(region, handle)| MappedRegion::new(region, handle));
        MemoryTable::new(mapped.collect::<Result<Vec<_>, _>>()?)
    }

    /// The memory with one more region.
    pub(crate) fn with(&self, region: MemoryRegion, handle: OwnedFd) -> Result<MemoryTable, MemoryError> {
        self.memory.insert(MappedRegion::new(region, handle)?)
    }

    /// The memory without a region.
    pub(crate) fn without(&self, region: &MemoryRegion) -> Result<MemoryTable, MemoryError> {
        self.memory.remove(region)
    }

    pub(super) fn set_memory(&mut self, memory: MemoryTable) {
        self.memory = memory;
    }

    pub(super) fn set_iommu(&mut self, iommu: Option<Arc<Iommu>>) {
        self.iommu = iommu;
    }

    pub(super) fn wish(&mut self, ring: u64, change: impl FnOnce(&mut Wish)) {
        if let Some(wish) = usize::try_from(ring).ok().and_then(|index| self.rings.get_mut(index)) {
            change(wish);
        }
    }

    pub(super) fn set_log(&mut self, log: LogFile) {
        self.log = Some(log);
    }

    pub(super) fn set_log_signal(&mut self, signal: Arc<EventFd>) {
        self.log_signal = Some(signal);
    }

    /// Whether the log there is, if there is one, holds a ring that is logged under such an address.
    pub(super) fn check_log(
        &self,
        addresses: &VringAddresses,
        layout: RingLayout,
        size: Option<u16>,
    ) -> Result<(), MemoryError> {
        match (&self.log, addresses.logging, size) {
            (Some(log), Logging::On, Some(size)) => {
                let [.., device] = layout.lengths(size);
                log.check_holds(addresses.log, device)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn set_logging(&mut self, logging: Logging) {
        self.logging = logging;
    }

    /// Where a ring's writes are logged, if they are.
    pub(super) fn ring_log(&self, ring: u64) -> Option<RingLog> {
        let file = self.log.clone().filter(|_| self.logging == Logging::On)?.signalling(self.log_signal.clone());
        let used = self.wished(ring).addresses.filter(|addresses| addresses.logging == Logging::On);
        Some(RingLog { file, used: used.map(|addresses| addresses.log) })
    }

    pub(super) fn forget_rings(&mut self) {
        self.rings.fill(Wish::default());
        self.iommu = None;
    }

    pub(super) fn forget(&mut self) {
        *self = Self { rings: vec![Wish::default(); self.rings.len()], ..Self::default() };
    }

    pub(super) fn is_started(&self, ring: u64) -> bool {
        self.wished(ring).started
    }

    pub(super) fn is_any_started(&self) -> bool {
        self.rings.iter().any(|wish| wish.started)
    }

    /// Where a ring lies; `None` as long as its addresses, its size or the memory are missing, because they come in any order.
    pub(super) fn place(
        &self,
        ring: u64,
        layout: RingLayout,
        space: AddressSpace,
    ) -> Result<Option<Place>, MemoryError> {
        let Wish { size, addresses, .. } = self.wished(ring);
        let addresses = addresses.filter(|_| !self.memory.regions().is_empty());
        addresses.zip(size).map(|(addresses, size)| self.translate(&addresses, layout, size, space)).transpose()
    }

    /// The memory as rings hold it.
    pub(super) fn memory(&self) -> MemoryTable {
        self.memory.clone()
    }

    /// Where a ring of this size and with these addresses would lie. Each part that is told by user addresses must lie in
    /// one region; what a driver's own addresses mean is found out when the ring starts.
    pub(super) fn translate(
        &self,
        addresses: &VringAddresses,
        layout: RingLayout,
        size: u16,
        space: AddressSpace,
    ) -> Result<Place, MemoryError> {
        // Specification, section "Ring addresses".
        if let Some(iommu) = &self.iommu {
            let addresses = RingAddresses {
                descriptor: Iova(addresses.descriptor.0),
                driver: Iova(addresses.available.0),
                device: Iova(addresses.used.0),
            };
            return Ok(Place::Behind(BehindIommu { iommu: Arc::clone(iommu), space, addresses }));
        }
        let part = |start: RingAddress, length: u64| match space {
            AddressSpace::User => self.memory.user_to_guest(start.0, length).map(GuestAddress),
            // Offsets in files are nobody's ring addresses.
            AddressSpace::Guest | AddressSpace::File => Ok(GuestAddress(start.0)),
        };
        let [descriptor, driver, device] = layout.lengths(size);
        Ok(Place::Guest(RingAddresses {
            descriptor: part(addresses.descriptor, descriptor)?,
            driver: part(addresses.available, driver)?,
            device: part(addresses.used, device)?,
        }))
    }

    pub(super) fn wished(&self, ring: u64) -> Wish {
        usize::try_from(ring).ok().and_then(|index| self.rings.get(index)).copied().unwrap_or_default()
    }
}

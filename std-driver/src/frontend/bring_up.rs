//! Starting and stopping a whole device.

use std::os::fd::BorrowedFd;

use vhost_core::{
    FrontendRequest, MemoryRegion, MemoryTable, Postcopy, ProtocolFeatures, RegionExtent, VirtioFeatures,
    wire::{inflight::Inflight, vring::VringBase},
};

use super::{
    Enabled, Frontend, FrontendError, VringAddresses,
    batch::Batch,
    call::Request,
    memory::{self, SharedFile},
    vring,
};

/// Device status: the driver has found the device, knows how to drive it, and features are agreed on (virtio, section
/// "Device Status Field").
pub(super) const FEATURES_OK: u8 = 1 | 2 | 8;
/// Device status: all of that, and the driver is set up.
pub(super) const DRIVER_OK: u8 = FEATURES_OK | 4;

/// What a device needs to run.
#[derive(Clone, Copy, Debug)]
pub struct DeviceSetup<'s> {
    /// The memory of the guest, all that rings and buffers lie in.
    pub memory: &'s [(MemoryRegion, BorrowedFd<'s>)],
    /// The rings to start.
    pub rings: &'s [RingSetup<'s>],
    /// The record of the requests in flight, if there is one.
    pub inflight: Option<(Inflight, BorrowedFd<'s>)>,
}

/// What a ring needs to run.
#[derive(Clone, Copy, Debug)]
pub struct RingSetup<'s> {
    /// Which ring.
    pub ring: u8,
    /// Descriptors, 1 to 32768, in a split ring a power of two.
    pub size: u16,
    /// Where the back-end begins.
    pub base: VringBase,
    /// Where the ring lies.
    pub addresses: VringAddresses,
    /// The eventfd that tells the back-end of new buffers; without one it polls.
    pub kick: Option<BorrowedFd<'s>>,
    /// The eventfd that tells the driver of used buffers; without one it polls.
    pub call: Option<BorrowedFd<'s>>,
    /// The eventfd that tells of an error of the ring, if anybody cares.
    pub error: Option<BorrowedFd<'s>>,
}

/// Where the back-end stood when a ring was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoppedRing {
    /// Which ring.
    pub ring: u8,
    /// Where the next back-end goes on.
    pub base: VringBase,
}

impl Frontend {
    /// Starts the device: memory, rings, and what else was negotiated. Features must be agreed on before.
    ///
    /// Also starts a device again that was [torn down](Self::tear_down). The order of the requests is that of QEMU for a
    /// disk, which every back-end knows.
    ///
    /// After an error that does not end the session the device is started in part; `tear_down` stops what runs.
    ///
    /// ```no_run
    /// use std::os::fd::AsFd;
    /// use vhost_core::VirtioFeatures;
    /// use vhost_std::driver::{DriverRing, GuestArea, RingOptions};
    /// use vhost_std::eventfd::EventFd;
    /// use vhost_std::frontend::{DeviceSetup, Frontend, RingSetup};
    /// use vhost_std::memory::MemoryFile;
    ///
    /// # fn start(mut frontend: Frontend) -> Result<(), Box<dyn core::error::Error>> {
    /// let memory = MemoryFile::create("guest", 0, 0x10_0000)?;
    /// // Here the driver is this program; in a virtual machine the guest says where its rings lie.
    /// let options = RingOptions { size: 128, features: VirtioFeatures::VERSION_1, table_size: 0 };
    /// let ring = DriverRing::new(GuestArea::of(&memory), &options)?;
    /// let (kick, call) = (EventFd::new()?, EventFd::new()?);
    /// let ring = RingSetup {
    ///     ring: 0,
    ///     size: ring.size(),
    ///     base: ring.base(),
    ///     addresses: ring.user_addresses(),
    ///     kick: Some(kick.as_fd()),
    ///     call: Some(call.as_fd()),
    ///     error: None,
    /// };
    /// let memory = [(*memory.region(), memory.as_fd())];
    /// frontend.bring_up(&DeviceSetup { memory: &memory, rings: &[ring], inflight: None })?;
    /// // … and when the guest is paused or moved:
    /// let stopped = frontend.tear_down()?;
    /// assert_eq!(stopped[0].ring, 0); // and `stopped[0].base` is where the next back-end goes on
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`FrontendError`] and [`share_memory`](Self::share_memory).
    pub fn bring_up(&mut self, setup: &DeviceSetup<'_>) -> Result<(), FrontendError> {
        let negotiated = self.negotiated();
        if negotiated.acknowledged != self.agreed {
            // A reset has taken them away.
            self.set_features(self.agreed)?;
        }
        self.raise_status(FEATURES_OK)?;
        self.memory_slots()?;
        self.together(|frontend, batch| frontend.set_up(setup, batch))?;
        self.raise_status(DRIVER_OK)
    }

    fn set_up<'s>(&mut self, setup: &DeviceSetup<'s>, batch: &mut Batch<'s>) -> Result<(), FrontendError> {
        if let Some((record, file)) = setup.inflight {
            batch.order(self, Request::SetInflightFd(record, file))?;
        }
        // VPP learns from these how many rings there are, so they come first.
        for ring in setup.rings {
            batch.order(self, vring::call(ring.ring, ring.call))?;
            if ring.error.is_some() {
                batch.order(self, vring::err(ring.ring, ring.error))?;
            }
        }
        self.share(setup.memory, batch)?;
        for ring in setup.rings {
            batch.order(self, vring::num(ring.ring, ring.size))?;
            batch.order(self, vring::base(ring.ring, ring.base))?;
            batch.order(self, vring::addr(ring.ring, &ring.addresses))?;
            batch.order(self, vring::kick(ring.ring, ring.kick))?;
        }
        if self.can_enable() {
            for ring in setup.rings {
                batch.order(self, vring::enable(ring.ring, Enabled::Yes))?;
            }
        }
        Ok(())
    }

    /// Stops all rings that are started, and tells where the back-end stood in each. Memory and features stay, but where
    /// the device status is negotiated the device is reset.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn tear_down(&mut self) -> Result<Vec<StoppedRing>, FrontendError> {
        let rings = (0..=u8::MAX).filter(|ring| self.vring(*ring).is_started());
        let rings: Vec<u8> = rings.collect();
        if self.can_enable() {
            self.together(|frontend, batch| {
                rings.iter().try_for_each(|ring| batch.order(frontend, vring::enable(*ring, Enabled::No)))
            })?;
        }
        let mut stopped = Vec::with_capacity(rings.len());
        for ring in rings {
            stopped.push(StoppedRing { ring, base: self.get_vring_base(ring)? });
        }
        if self.has(ProtocolFeatures::STATUS) {
            self.set_status(0)?;
        }
        Ok(stopped)
    }

    /// Makes `regions` the memory that is shared with the back-end.
    ///
    /// Where the back-end has memory slots, regions that it has already are left alone, those that are not wanted any more
    /// are removed, and the others are added. Else, or if it has no slot, it gets all of them as one table.
    ///
    /// # Errors
    /// [`TooManyRegions`](FrontendError::TooManyRegions): more than the slots, or than eight without slots.
    pub fn share_memory(&mut self, regions: &[(MemoryRegion, BorrowedFd<'_>)]) -> Result<(), FrontendError> {
        self.memory_slots()?;
        self.together(|frontend, batch| frontend.share(regions, batch))
    }

    fn share<'s>(
        &mut self,
        regions: &[(MemoryRegion, BorrowedFd<'s>)],
        batch: &mut Batch<'s>,
    ) -> Result<(), FrontendError> {
        let slots = self.memory_slots()?;
        if slots == 0 {
            return self.share_table(regions, batch);
        }
        let limit = usize::try_from(slots).unwrap_or(usize::MAX);
        if regions.len() > limit {
            return Err(FrontendError::TooManyRegions { found: regions.len(), limit });
        }
        let shared = self.shared.lock().machine.session().memory().regions().to_vec();
        let wanted: Vec<_> = regions.iter().map(|(region, file)| SharedFile::new(region, *file)).collect();
        let files = self.files.clone();
        let is_there = |file: &SharedFile| files.contains(file) && shared.contains(&file.extent);
        for extent in &shared {
            let mut kept = wanted.iter().flatten().filter(|file| is_there(file));
            if !kept.any(|file| file.extent == *extent) {
                let RegionExtent { guest_address, size, user_address } = *extent;
                let region = MemoryRegion { guest_address, size, user_address, mmap_offset: 0, xen: None };
                batch.order(self, Request::RemMemReg(region))?;
                self.remember_removed(&region);
            }
        }
        // Until a removal is confirmed its region counts as shared.
        batch.confirm(self)?;
        for ((region, file), wanted) in regions.iter().zip(&wanted) {
            if !wanted.as_ref().is_some_and(is_there) {
                if self.postcopy() == Postcopy::Off {
                    batch.order(self, Request::AddMemReg(*region, *file))?;
                    self.remember_added(region, *file);
                } else {
                    self.add_mem_reg(region, *file)?;
                }
            }
        }
        Ok(())
    }

    /// As one table.
    fn share_table<'s>(
        &mut self,
        regions: &[(MemoryRegion, BorrowedFd<'s>)],
        batch: &mut Batch<'s>,
    ) -> Result<(), FrontendError> {
        if self.postcopy() != Postcopy::Off {
            // It is answered with the places of the regions.
            batch.confirm(self)?;
            return self.set_mem_table(regions).map(drop);
        }
        let (table, files) = memory::table(regions)?;
        batch.order(self, FrontendRequest::SetMemTable(MemoryTable::new(&table), files))?;
        self.remember_table(regions);
        Ok(())
    }

    /// How many regions can be shared one by one; zero if only a table can.
    fn memory_slots(&mut self) -> Result<u64, FrontendError> {
        if !self.has(ProtocolFeatures::CONFIGURE_MEM_SLOTS) {
            return Ok(0);
        }
        let slots = match self.slots {
            Some(slots) => slots,
            None => self.get_max_mem_slots()?,
        };
        self.slots = Some(slots);
        Ok(slots)
    }

    /// Adds these bits to the device status, where it is negotiated: DPDK does not begin before `DRIVER_OK`.
    pub(super) fn raise_status(&mut self, bits: u8) -> Result<(), FrontendError> {
        if !self.has(ProtocolFeatures::STATUS) {
            return Ok(());
        }
        let status = self.get_status()?;
        self.set_status(status | bits)
    }

    /// Whether rings are enabled one by one; else all of them are, always.
    pub(super) fn can_enable(&self) -> bool {
        self.negotiated().acknowledged.contains(VirtioFeatures::PROTOCOL_FEATURES)
    }

    pub(super) fn has(&self, features: ProtocolFeatures) -> bool {
        self.negotiated().protocol.contains(features)
    }
}

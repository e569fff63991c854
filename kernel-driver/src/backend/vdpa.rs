//! A vDPA device as a [`VhostBackend`].

mod pause;

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use vhost_core::uapi::bits::{BackendFeatures, DeviceStatus};
use vhost_core::uapi::iotlb::Access;
use vhost_core::wire::vring::VringBase;
use vhost_core::{
    Iova, LogArea, MemoryRegion, RingAddress, RingAddresses, RingLayout, VhostBackend, VirtioFeatures, VringAddresses,
    VringSetting,
};
use vhost_std::memory::MemoryTable;

use super::plan::{Plans, map_all};
use crate::device::VhostDevice;
use crate::error::KernelError;
use crate::vdpa::{Batch, Mapping, Vdpa, VringSwitch};

/// What is behind vhost-vdpa as a [`VhostBackend`].
///
/// Guest addresses are the device's I/O virtual addresses, and rings are found by their user addresses. `DRIVER_OK` fixes
/// the rings of a vDPA device: to start, stop or move one, the device is reset and started anew with all that shall run, each
/// going on where it was. A device that cannot be [suspended](BackendFeatures::SUSPEND) is first left without kicks until
/// nothing is under way; one that completes requests out of order should not be given new ones meanwhile.
#[derive(Debug)]
pub struct VdpaBackend {
    vdpa: Vdpa,
    plans: Plans,
    acknowledged: Option<VirtioFeatures>,
    backend_features: BackendFeatures,
    table: MemoryTable,
    /// Whether the device knows the memory of `table`.
    mapped: bool,
    running: BTreeSet<u16>,
}

impl VdpaBackend {
    /// A device that was just opened.
    ///
    /// # Errors
    /// The errno of an ioctl.
    pub fn new(vdpa: Vdpa) -> Result<Self, KernelError> {
        let count = u16::try_from(vdpa.vring_count()?).unwrap_or(u16::MAX);
        let backend_features = vdpa.backend_features()?;
        Ok(Self {
            vdpa,
            plans: Plans::new(count),
            acknowledged: None,
            backend_features,
            table: MemoryTable::default(),
            mapped: false,
            running: BTreeSet::new(),
        })
    }

    /// The device, for its type and its configuration space.
    #[must_use]
    pub fn vdpa(&self) -> &Vdpa {
        &self.vdpa
    }

    fn layout(&self) -> RingLayout {
        RingLayout::of(self.acknowledged.unwrap_or_default())
    }

    /// Brings the device from reset to where features are settled.
    fn negotiate(&self, features: VirtioFeatures) -> Result<(), KernelError> {
        self.vdpa.reset()?;
        self.vdpa.raise_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER)?;
        let own = self.vdpa.features()? & VirtioFeatures::ACCESS_PLATFORM;
        self.vdpa.set_features(features | own)?;
        self.vdpa.raise_status(DeviceStatus::FEATURES_OK).map(drop)
    }

    /// Has the device reach all memory of `table`, and nothing else that it could reach before; at one go if it can, so that
    /// it learns nothing of what is refused.
    fn map(&mut self, table: &MemoryTable) -> Result<(), KernelError> {
        mappings(table).try_for_each(|mapping| mapping.user_address().map(drop))?;
        let before = self.mapped.then(|| self.table.clone());
        let one_go = self.backend_features.contains(BackendFeatures::IOTLB_BATCH);
        let batch = one_go.then(|| self.vdpa.batch(0)).transpose()?;
        let outcome = self.replace(before.as_ref(), table);
        let kept = outcome.is_err().then(|| {
            // None of the new shall be in the way of the next.
            for mapping in mappings(table) {
                let _ = self.vdpa.unmap(0, mapping.iova, mapping.size);
            }
            before.is_some() && self.replace(None, &self.table).is_ok()
        });
        let ended = batch.map_or(Ok(()), Batch::end);
        self.mapped = kept.unwrap_or(true);
        if outcome.is_ok() {
            self.table = table.clone();
        }
        outcome.and(ended)
    }

    fn replace(&self, before: Option<&MemoryTable>, after: &MemoryTable) -> Result<(), KernelError> {
        for mapping in before.into_iter().flat_map(mappings) {
            self.vdpa.unmap(0, mapping.iova, mapping.size)?;
        }
        mappings(after).try_for_each(|mapping| self.vdpa.map(0, &mapping))
    }

    /// Starts exactly these rings on a device that does not run.
    fn start(&mut self, rings: BTreeSet<u16>) -> Result<(), KernelError> {
        let (Some(features), false) = (self.acknowledged, rings.is_empty()) else { return Ok(()) };
        self.negotiate(features)?;
        if self.mapped && !self.backend_features.contains(BackendFeatures::IOTLB_PERSIST) {
            // The reset may have taken it away.
            self.map(&self.table.clone())?;
        }
        for ring in &rings {
            self.tell(*ring)?;
        }
        self.vdpa.raise_status(DeviceStatus::DRIVER_OK)?;
        for ring in &rings {
            self.plans.get(*ring)?.kick()?;
        }
        self.running = rings;
        Ok(())
    }

    /// Tells the device all that is known of a ring.
    fn tell(&self, ring: u16) -> Result<(), KernelError> {
        let (plan, index) = (self.plans.get(ring)?, u32::from(ring));
        let (Some(size), Some(addresses)) = (plan.size, plan.addresses) else { return Ok(()) };
        let places = self.places(ring, size, &addresses)?;
        self.vdpa.set_vring_num(index, size.into())?;
        self.vdpa.set_vring_base(index, plan.base.unwrap_or(self.first()))?;
        self.vdpa.set_vring_addresses(index, places)?;
        plan.tell_eventfds(&self.vdpa, index)?;
        Ok(self.vdpa.switch_vring(index, VringSwitch::Enabled)?)
    }

    /// Where an empty ring begins.
    fn first(&self) -> VringBase {
        match self.layout() {
            RingLayout::Split => VringBase::Split { available: 0 },
            RingLayout::Packed => VringBase::Packed { available: 0, available_wrap: true, used: 0, used_wrap: true },
        }
    }

    /// Where the parts of a ring are for the device.
    fn places(&self, ring: u16, size: u16, addresses: &VringAddresses) -> Result<RingAddresses<Iova>, KernelError> {
        let [descriptors, driver, device] = self.layout().lengths(size);
        let least = if self.layout() == RingLayout::Split { 2 } else { 4 };
        let place = |address: RingAddress, length, alignment| {
            if !address.0.is_multiple_of(alignment) {
                return Err(KernelError::Misaligned { ring: ring.into(), address, alignment });
            }
            Ok(Iova(self.table.user_to_guest(address.0, length)?))
        };
        Ok(RingAddresses {
            descriptor: place(addresses.descriptor, descriptors, 16)?,
            driver: place(addresses.available, driver, least)?,
            device: place(addresses.used, device, 4)?,
        })
    }

    /// Has all rings run that can.
    fn update(&mut self) -> Result<(), KernelError> {
        let wanted = self.plans.runnable();
        if wanted == self.running || self.acknowledged.is_none() {
            return Ok(());
        }
        self.pause()?;
        self.start(wanted)
    }
}

impl VhostBackend for VdpaBackend {
    type Handle = dyn AsFd;
    type Memory = dyn AsFd;
    type Error = KernelError;

    fn set_owner(&mut self) -> Result<(), KernelError> {
        self.vdpa.set_owner()?;
        Ok(self.vdpa.set_backend_features(self.backend_features)?)
    }

    fn features(&mut self) -> Result<VirtioFeatures, KernelError> {
        Ok(self.vdpa.features()?.difference(VirtioFeatures::ACCESS_PLATFORM))
    }

    fn acknowledge(&mut self, features: VirtioFeatures) -> Result<(), KernelError> {
        if !self.running.is_empty() {
            return if self.acknowledged == Some(features) { Ok(()) } else { Err(KernelError::RingsRun) };
        }
        self.negotiate(features)?;
        self.acknowledged = Some(features);
        self.update()
    }

    /// Where the device takes a whole table at once, it learns of all changes together. Others have no memory for a moment in
    /// between, so the rings of hardware are better stopped before. Only memory that a file shares can be mapped, in whole
    /// pages.
    fn set_memory(&mut self, regions: &[(MemoryRegion, &Self::Memory)]) -> Result<(), KernelError> {
        self.map(&map_all(regions)?)
    }

    fn set_log(&mut self, _: &LogArea<'_, Self::Memory>) -> Result<(), KernelError> {
        Err(KernelError::Unsupported { what: "dirty log" })
    }

    fn set_vring(&mut self, ring: u16, setting: VringSetting<'_, Self::Handle>) -> Result<(), KernelError> {
        let (runs, index) = (self.running.contains(&ring), u32::from(ring));
        match setting {
            VringSetting::Size(_) | VringSetting::Base(_) if runs => return Err(KernelError::RingRuns { ring }),
            VringSetting::Addresses(addresses) if runs => {
                self.places(ring, self.plans.get(ring)?.size.unwrap_or(1), &addresses)?;
                self.pause()?;
                self.plans.set(ring, setting)?;
            }
            _ => self.plans.set(ring, setting)?,
        }
        if runs {
            match setting {
                VringSetting::Kick(kick) => self.vdpa.set_vring_kick(index, kick.map(AsFd::as_fd))?,
                VringSetting::Call(call) => self.vdpa.set_vring_call(index, call.map(AsFd::as_fd))?,
                VringSetting::Error(error) => self.vdpa.set_vring_error(index, error.map(AsFd::as_fd))?,
                _ => {}
            }
        }
        self.update()
    }

    fn stop_vring(&mut self, ring: u16) -> Result<VringBase, KernelError> {
        self.plans.get_mut(ring)?.stop();
        self.update()?;
        Ok(self.plans.get(ring)?.base.unwrap_or(self.first()))
    }

    fn reset(&mut self) -> Result<(), KernelError> {
        self.running.clear();
        self.vdpa.reset()?;
        let count = u16::try_from(self.vdpa.vring_count()?).unwrap_or(u16::MAX);
        (self.plans, self.acknowledged) = (Plans::new(count), None);
        Ok(())
    }
}

/// How a device is to reach a monitor's memory: guest addresses are its own.
fn mappings(table: &MemoryTable) -> impl Iterator<Item = Mapping<'_>> {
    table.regions().iter().map(|mapped| {
        let iova = Iova(mapped.region().guest_address.0);
        Mapping::all_of(mapped, iova, Access::ReadWrite)
    })
}

//! The kernel's devices as a [`VhostBackend`], for virtual machine monitors that do not care who processes rings.
//!
//! A [`KernelBackend`] is vhost-net, vhost-vsock or vhost-scsi, a [`VdpaBackend`] what is behind vhost-vdpa. Rings are told
//! to the kernel when they start, so that settings may come in any order.

mod control;
mod plan;
mod vdpa;

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::Arc;

use vhost_core::wire::vring::VringBase;
use vhost_core::{
    GuestAddress, LogArea, MemoryRegion, RingLayout, UserAddress, VhostBackend, VirtioFeatures, VringSetting,
};
use vhost_std::memory::MappedRegion;

pub use self::control::{ConnectedNet, RingControl, TargetedScsi};
pub use self::vdpa::VdpaBackend;

use self::plan::{Plans, duplicate, map_all};
use crate::device::VhostDevice;
use crate::error::KernelError;
use crate::memory::MemoryDevice;

/// vhost-net, vhost-vsock or vhost-scsi as a [`VhostBackend`].
///
/// Of these devices some stop all of their rings to start or stop one: [`RingControl`] says which. Memory is mapped here
/// once more, from the files that are given.
#[derive(Debug)]
pub struct KernelBackend<C> {
    control: C,
    plans: Plans,
    acknowledged: VirtioFeatures,
    running: BTreeSet<u16>,
}

impl<C: RingControl> KernelBackend<C> {
    /// A device that was just opened.
    #[must_use]
    pub fn new(control: C) -> Self {
        let plans = Plans::new(control.vring_count());
        Self { control, plans, acknowledged: VirtioFeatures::empty(), running: BTreeSet::new() }
    }

    /// The device with what its rings are connected with.
    #[must_use]
    pub fn control(&self) -> &C {
        &self.control
    }

    /// Makes exactly these rings run, as far as the others allow.
    fn run(&mut self, wanted: &BTreeSet<u16>) -> Result<(), KernelError> {
        if *wanted == self.running {
            return Ok(());
        }
        let staying = if self.control.stops_together() { BTreeSet::new() } else { &self.running & wanted };
        self.control.run(&staying)?;
        for ring in &core::mem::replace(&mut self.running, staying.clone()) - &staying {
            let device = self.control.device();
            self.plans.get_mut(ring)?.base = Some(device.vring_base(ring.into(), RingLayout::Split)?);
            // vhost-scsi would start it again with the others.
            device.clear_vring_addresses(ring.into())?;
        }
        for ring in wanted - &staying {
            self.tell(ring)?;
        }
        if let Err(error) = self.control.run(wanted) {
            // Some may have started and gone on from where they were.
            self.control.run(&staying)?;
            for ring in wanted - &staying {
                let base = self.control.device().vring_base(ring.into(), RingLayout::Split)?;
                self.plans.get_mut(ring)?.base = Some(base);
            }
            return Err(error.into());
        }
        self.running.clone_from(wanted);
        for ring in wanted - &staying {
            self.plans.get(ring)?.kick()?;
        }
        Ok(())
    }

    /// Tells the kernel all that is known of a ring.
    fn tell(&self, ring: u16) -> Result<(), KernelError> {
        let (device, index) = (self.control.device(), u32::from(ring));
        let plan = self.plans.get(ring)?;
        let (Some(size), Some(addresses)) = (plan.size, plan.addresses) else { return Ok(()) };
        device.set_vring_num(index, size.into())?;
        device.set_vring_base(index, plan.base.unwrap_or(VringBase::Split { available: 0 }))?;
        device.set_vring_addresses(index, &addresses)?;
        Ok(plan.tell_eventfds(device, index)?)
    }

    /// Does something with these rings stopped, and starts them again whatever comes of it.
    fn without<T>(
        &mut self,
        stopped: &BTreeSet<u16>,
        change: impl FnOnce(&mut Self) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        let before = self.running.clone();
        self.run(&(&before - stopped))?;
        let outcome = change(self);
        self.run(&before)?;
        outcome
    }
}

impl<C: RingControl> VhostBackend for KernelBackend<C> {
    type Handle = dyn AsFd;
    type Memory = dyn AsFd;
    type Error = KernelError;

    fn set_owner(&mut self) -> Result<(), KernelError> {
        Ok(self.control.device().set_owner()?)
    }

    fn features(&mut self) -> Result<VirtioFeatures, KernelError> {
        Ok(self.control.device().features()?.difference(self.control.hidden_features()))
    }

    fn acknowledge(&mut self, features: VirtioFeatures) -> Result<(), KernelError> {
        let hidden = features & self.control.hidden_features();
        if !hidden.is_empty() {
            return Err(KernelError::NotOffered { features: hidden });
        }
        let changed = (features ^ self.acknowledged).difference(VirtioFeatures::LOG_ALL);
        if !changed.is_empty() && !self.running.is_empty() {
            return Err(KernelError::RingsRun);
        }
        self.control.device().set_features(features | self.control.own_features())?;
        self.acknowledged = features;
        Ok(())
    }

    fn set_memory(&mut self, regions: &[(MemoryRegion, &Self::Memory)]) -> Result<(), KernelError> {
        let table = map_all(regions)?;
        let running = self.running.clone();
        self.without(&running, |backend| backend.control.device().set_memory(&table))
    }

    fn set_log(&mut self, log: &LogArea<'_, Self::Memory>) -> Result<(), KernelError> {
        if self.control.hidden_features().contains(VirtioFeatures::LOG_ALL) {
            return Err(KernelError::Unsupported { what: "dirty log" });
        }
        let region = MemoryRegion::new(GuestAddress(0), log.size, UserAddress(0), log.offset);
        let log = MappedRegion::new(region, duplicate(log.memory.as_fd())?)?;
        self.control.device().set_log(&Arc::new(log))
    }

    fn set_vring(&mut self, ring: u16, setting: VringSetting<'_, Self::Handle>) -> Result<(), KernelError> {
        let runs = self.running.contains(&ring);
        match setting {
            VringSetting::Addresses(addresses) if runs => {
                self.control.device().check_vring_addresses(ring.into(), &addresses)?;
                return self.without(&BTreeSet::from([ring]), |backend| backend.plans.set(ring, setting));
            }
            VringSetting::Size(_) | VringSetting::Base(_) if runs => return Err(KernelError::RingRuns { ring }),
            _ => self.plans.set(ring, setting)?,
        }
        if runs {
            let (device, index) = (self.control.device(), u32::from(ring));
            match setting {
                VringSetting::Kick(kick) => device.set_vring_kick(index, kick.map(AsFd::as_fd))?,
                VringSetting::Call(call) => device.set_vring_call(index, call.map(AsFd::as_fd))?,
                VringSetting::Error(error) => device.set_vring_error(index, error.map(AsFd::as_fd))?,
                _ => {}
            }
        }
        self.run(&self.plans.runnable())
    }

    fn stop_vring(&mut self, ring: u16) -> Result<VringBase, KernelError> {
        self.plans.get_mut(ring)?.stop();
        self.run(&self.plans.runnable())?;
        Ok(self.plans.get(ring)?.base.unwrap_or(VringBase::Split { available: 0 }))
    }

    fn reset(&mut self) -> Result<(), KernelError> {
        self.run(&BTreeSet::new())?;
        self.plans = Plans::new(self.control.vring_count());
        Ok(())
    }
}

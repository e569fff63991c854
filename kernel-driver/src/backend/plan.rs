//! What a monitor wants of rings, whether they run or not.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::fcntl_dupfd_cloexec;
use vhost_core::wire::vring::VringBase;
use vhost_core::{MemoryRegion, VringAddresses, VringSetting};
use vhost_std::eventfd::{EventFd, EventFdError};
use vhost_std::memory::{MappedRegion, MemoryTable};
use vhost_std::system_error::SystemError;

use crate::device::VhostDevice;
use crate::error::KernelError;

/// What a monitor wants of one ring.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) size: Option<u16>,
    pub(super) base: Option<VringBase>,
    pub(super) addresses: Option<VringAddresses>,
    /// `None`: the ring is stopped. `Some(None)`: it runs, and nobody kicks.
    kick: Option<Option<EventFd>>,
    call: Option<EventFd>,
    error: Option<EventFd>,
    enabled: bool,
}

impl Plan {
    /// Tells a device which eventfds the ring has.
    pub(super) fn tell_eventfds(&self, device: &impl VhostDevice, ring: u32) -> Result<(), SystemError> {
        device.set_vring_call(ring, self.call.as_ref().map(AsFd::as_fd))?;
        device.set_vring_error(ring, self.error.as_ref().map(AsFd::as_fd))?;
        self.tell_kick(device, ring)
    }

    /// Tells a device on which eventfd the ring is kicked.
    pub(super) fn tell_kick(&self, device: &impl VhostDevice, ring: u32) -> Result<(), SystemError> {
        device.set_vring_kick(ring, self.kick.iter().flatten().next().map(AsFd::as_fd))
    }

    /// Has a ring that was just started be looked at: while it stood still its kick may have been taken from the counter.
    pub(super) fn kick(&self) -> Result<(), SystemError> {
        self.kick.iter().flatten().try_for_each(EventFd::signal)
    }

    /// The ring no longer runs.
    pub(super) fn stop(&mut self) {
        self.kick = None;
    }
}

/// What a monitor wants of all rings of a device.
#[derive(Debug)]
pub(super) struct Plans(Vec<Plan>);

impl Plans {
    pub(super) fn new(count: u16) -> Self {
        Self((0..count).map(|_| Plan::default()).collect())
    }

    pub(super) fn get(&self, ring: u16) -> Result<&Plan, KernelError> {
        self.0.get(usize::from(ring)).ok_or(self.no_such_ring(ring))
    }

    pub(super) fn get_mut(&mut self, ring: u16) -> Result<&mut Plan, KernelError> {
        let missing = self.no_such_ring(ring);
        self.0.get_mut(usize::from(ring)).ok_or(missing)
    }

    /// The rings that have all they need to run, and are enabled.
    pub(super) fn runnable(&self) -> BTreeSet<u16> {
        let runs = |plan: &Plan| plan.enabled && plan.size.is_some() && plan.addresses.is_some() && plan.kick.is_some();
        (0..).zip(&self.0).filter(|(_, plan)| runs(plan)).map(|(ring, _)| ring).collect()
    }

    /// Keeps a wish.
    pub(super) fn set(&mut self, ring: u16, setting: VringSetting<'_, dyn AsFd>) -> Result<(), KernelError> {
        let owned = |handle: Option<&dyn AsFd>| handle.map(|handle| eventfd(handle.as_fd(), ring)).transpose();
        let plan = self.get_mut(ring)?;
        match setting {
            VringSetting::Size(size) => plan.size = Some(size),
            VringSetting::Base(base) => plan.base = Some(base),
            VringSetting::Addresses(addresses) => plan.addresses = Some(addresses),
            VringSetting::Kick(kick) => plan.kick = Some(owned(kick)?),
            VringSetting::Call(call) => plan.call = owned(call)?,
            VringSetting::Error(error) => plan.error = owned(error)?,
            VringSetting::Enable => plan.enabled = true,
            VringSetting::Disable => plan.enabled = false,
        }
        Ok(())
    }

    fn no_such_ring(&self, ring: u16) -> KernelError {
        KernelError::NoSuchRing { ring, count: self.0.len() }
    }
}

/// Maps the regions of a monitor here, at their user addresses.
pub(super) fn map_all(regions: &[(MemoryRegion, &dyn AsFd)]) -> Result<MemoryTable, KernelError> {
    let mapped = regions
        .iter()
        .map(|(region, file)| -> Result<_, KernelError> { Ok(MappedRegion::new(*region, duplicate(file.as_fd())?)?) });
    Ok(MemoryTable::new(mapped.collect::<Result<Vec<_>, _>>()?)?)
}

fn eventfd(descriptor: BorrowedFd<'_>, ring: u16) -> Result<EventFd, KernelError> {
    EventFd::try_from(duplicate(descriptor)?).map_err(|error| match error {
        EventFdError::System(error) => error.into(),
        _ => KernelError::NotAnEventFd { ring },
    })
}

pub(super) fn duplicate(descriptor: BorrowedFd<'_>) -> Result<OwnedFd, KernelError> {
    fcntl_dupfd_cloexec(descriptor, 0).map_err(|errno| SystemError { call: "fcntl", errno }.into())
}

//! The rings of a served device.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::Errno;
use vhost_core::wire::vring::VringBase;
use vhost_core::{GuestAddress, VirtioFeatures};
use vhost_std::eventfd::{EventFd, EventFdError};
use vhost_std::memory::MemoryTable;
use vhost_std::system_error::SystemError;
use vhost_std::vring::{RingAddresses, SharedVring, Vring};
use vhost_std::worker::RingLoop;
use vm_memory::Bytes;

use crate::error::KernelError;
use crate::vduse::{VduseDevice, VringState};

/// Where a ring begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Where the driver has set it.
    WhereTheDriverSays,
    /// Behind what is used: another process has served the ring before.
    AfterUsed,
}

/// The rings of a served device.
#[derive(Debug)]
pub(super) struct Rings(Vec<ServedRing>);

#[derive(Debug)]
struct ServedRing {
    ring: Arc<SharedVring>,
    /// What the ring signals for its driver.
    call: EventFd,
    /// Where the driver has set it up.
    addresses: Option<RingAddresses>,
    /// It was started since, which does not say that it still runs: a ring that is broken stops for good.
    started: bool,
    /// It stands still because the driver has taken its memory away.
    away: bool,
    /// The driver is to be called, and could not be yet.
    call_due: bool,
}

impl Rings {
    pub(super) fn new(count: u16, ring_loop: &RingLoop) -> Result<Self, KernelError> {
        let rings = (0..count).map(|index| -> Result<ServedRing, KernelError> {
            let mut ring = Vring::new(index);
            let call = EventFd::new()?;
            ring.set_call(Some(call.try_clone()?.into())).map_err(own_eventfd)?;
            let ring = Arc::new(SharedVring::new(ring));
            ring_loop.add(Arc::clone(&ring))?;
            Ok(ServedRing { ring, call, addresses: None, started: false, away: false, call_due: false })
        });
        rings.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn set_features(&self, features: VirtioFeatures) -> Result<(), KernelError> {
        self.0.iter().try_for_each(|served| Ok(served.ring.lock().set_features(features)?))
    }

    /// Takes over what the driver has set up. The rings are not started.
    pub(super) fn set_up(&mut self, vduse: &VduseDevice, table: &MemoryTable, begin: Begin) -> Result<(), KernelError> {
        for (index, served) in (0..).zip(&mut self.0) {
            (served.addresses, served.started, served.away) = (None, false, false);
            let mut ring = served.ring.lock();
            let state = vduse.vring(index, ring.layout())?;
            if !state.ready {
                continue;
            }
            let kick = EventFd::new()?;
            vduse.set_vring_kick(index, Some(kick.as_fd()))?;
            let [descriptor, driver, device] =
                [state.addresses.descriptor, state.addresses.driver, state.addresses.device]
                    .map(|iova| GuestAddress(iova.0));
            let addresses = RingAddresses { descriptor, driver, device };
            ring.stop();
            ring.set_size(state.size)?;
            ring.set_base(match begin {
                Begin::WhereTheDriverSays => state.base,
                Begin::AfterUsed => after_used(&state, table),
            })?;
            ring.set_memory(table.clone(), Some(addresses))?;
            ring.set_kick(Some(kick.into()))?;
            served.addresses = Some(addresses);
        }
        Ok(())
    }

    /// Starts the rings that the driver has set up; those that were started go on.
    pub(super) fn start(&mut self) {
        for served in self.0.iter_mut().filter(|served| served.addresses.is_some() && !served.started) {
            served.started = true;
            let mut ring = served.ring.lock();
            // A fault stays in the ring's faults.
            if ring.start().is_ok() {
                ring.enable();
            }
        }
    }

    pub(super) fn are_started(&self) -> bool {
        self.0.iter().any(|served| served.started)
    }

    /// The driver has reset the device: nothing of before counts any more.
    pub(super) fn stop(&mut self) {
        for served in &mut self.0 {
            let mut ring = served.ring.lock();
            ring.reset();
            (served.addresses, served.started) = (None, false);
            (served.away, served.call_due) = (false, false);
        }
    }

    /// Has the rings go on in other memory. One that is not there any more stops until it is: a driver may change its memory
    /// piece by piece.
    pub(super) fn move_to(&mut self, table: &MemoryTable) {
        for served in self.0.iter_mut().filter(|served| served.addresses.is_some()) {
            let mut ring = served.ring.lock();
            // A fault stays in the ring's faults.
            let moved = ring.set_memory(table.clone(), served.addresses);
            if served.away {
                served.away = ring.start().is_err();
            } else {
                served.away = served.started && moved.is_err();
            }
        }
    }

    pub(super) fn base(&self, index: u32) -> Result<VringBase, KernelError> {
        let served = usize::try_from(index).ok().and_then(|index| self.0.get(index));
        let missing = KernelError::NoSuchRing { ring: u16::try_from(index).unwrap_or(u16::MAX), count: self.0.len() };
        Ok(served.ok_or(missing)?.ring.lock().base())
    }

    /// Calls the drivers of rings that have signalled; false if the kernel takes no calls yet.
    pub(super) fn call_driver(&mut self, vduse: &VduseDevice) -> Result<bool, KernelError> {
        let mut all = true;
        for (index, served) in (0..).zip(&mut self.0) {
            served.call_due |= served.call.drain()? > 0;
            if !served.call_due {
                continue;
            }
            served.call_due = match vduse.inject_vring_interrupt(index) {
                Ok(()) => false,
                // The driver becomes ready only after it was told so.
                Err(SystemError { errno: Errno::INVAL, .. }) => true,
                Err(error) => return Err(error.into()),
            };
            all &= !served.call_due;
        }
        Ok(all)
    }
}

/// The eventfd is one that was just made, so that nothing can be wrong with its kind.
fn own_eventfd(error: EventFdError) -> SystemError {
    match error {
        EventFdError::System(error) => error,
        _ => SystemError { call: "eventfd", errno: Errno::INVAL },
    }
}

/// Where a split ring goes on that another process has served in order: behind its last used chain.
fn after_used(state: &VringState, table: &MemoryTable) -> VringBase {
    /// Offset of the index in the used ring.
    const INDEX: u64 = 2;
    let at = vm_memory::GuestAddress(state.addresses.device.0.saturating_add(INDEX));
    let index = table.guest_memory().read_obj::<u16>(at).map(u16::from_le);
    index.map_or(state.base, |available| VringBase::Split { available })
}

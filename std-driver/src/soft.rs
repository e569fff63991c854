//! A device without another process: its rings are handled by threads of this one, or by the caller's loop.
//!
//! ```
//! use std::{os::fd::AsFd, sync::Arc};
//! use vhost_core::{
//!     GuestAddress, Logging, RingAddress, VhostBackend, VirtioFeatures, VringAddresses, VringSetup, wire::vring::VringBase,
//! };
//! use vhost_std::{
//!     device::{Device, Queue},
//!     deadline::Deadline,
//!     eventfd::EventFd,
//!     memory::MemoryFile,
//!     soft::{RingThreads, SoftBackend},
//! };
//! use vm_memory::{Bytes, MemoryRegionAddress};
//!
//! /// Gives every buffer back as it came.
//! struct Null;
//!
//! impl Device for Null {
//!     fn device_id(&self) -> u32 {
//!         42
//!     }
//!     fn queues(&self) -> u16 {
//!         1
//!     }
//!     fn process(&self, queue: &mut Queue<'_>) {
//!         while let Some(chain) = queue.next() {
//!             queue.complete(chain, 0);
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let mut backend = SoftBackend::new(Arc::new(Null), RingThreads::Shared(1))?;
//! let memory = MemoryFile::create("guest", 0, 0x4000)?;
//! let (kick, call) = (EventFd::new()?, EventFd::new()?);
//! let user = memory.region().user_address.0;
//! let [descriptor, available, used] = [0, 0x1000, 0x2000].map(|offset| RingAddress(user + offset));
//!
//! backend.acknowledge(VirtioFeatures::VERSION_1)?;
//! backend.set_memory(&[(*memory.region(), &memory as &dyn AsFd)])?;
//! let (base, error) = (VringBase::Split { available: 0 }, None);
//! let (log, logging) = (GuestAddress(0), Logging::Off);
//! let addresses = VringAddresses { descriptor, available, used, log, logging };
//! backend.start_vring(0, &VringSetup { size: 8, base, addresses, kick: Some(&kick), call: Some(&call), error })?;
//!
//! // What the driver does: descriptor 0 is a buffer of 16 bytes at 0x3000, and it is available.
//! let at = |offset| MemoryRegionAddress(offset);
//! memory.mapped().write_obj(0x3000_u64.to_le(), at(0))?;
//! memory.mapped().write_obj(16_u32.to_le(), at(8))?;
//! memory.mapped().store(1_u16.to_le(), at(0x1002), core::sync::atomic::Ordering::Release)?;
//! kick.signal()?;
//!
//! call.wait(Deadline::NEVER)?;
//! assert_eq!(backend.stop_vring(0)?, VringBase::Split { available: 1 });
//! # Ok(())
//! # }
//! ```

mod error;

use core::{fmt, time::Duration};
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use vhost_core::{LogArea, MemoryRegion, VhostBackend, VirtioFeatures, VringSetting, wire::vring::VringBase};

pub use self::error::SoftError;
pub use crate::rings::{RingError, RingThreads};

use crate::{
    device::Device,
    inflight::InflightRecord,
    memory::{AddressSpace, LogFile, MappedRegion, MemoryTable},
    rings::{Control, Guest, RING_FEATURES, RingSet},
    system_error::SystemError,
    vring::{RingFaults, RingMisuse},
    worker::WorkerError,
};

/// A device and its rings in this process. Dropping it stops them and resets the device.
///
/// Descriptors are duplicated, and memory is mapped once more, so that the caller can let go of what was given.
pub struct SoftBackend {
    device: Arc<dyn Device>,
    rings: RingSet,
    guest: Guest,
    acknowledged: VirtioFeatures,
}

impl SoftBackend {
    /// Makes the rings of `device` and starts the threads that were asked for.
    ///
    /// # Errors
    /// When the system gives no descriptor or no thread.
    pub fn new(device: Arc<dyn Device>, threads: RingThreads) -> Result<Self, WorkerError> {
        let rings = RingSet::new(&device, threads, Duration::ZERO)?;
        let guest = Guest::new(rings.count());
        Ok(Self { device, rings, guest, acknowledged: VirtioFeatures::empty() })
    }

    /// The device, for its type and its configuration space.
    #[must_use]
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// How many rings the device has.
    #[must_use]
    pub fn vrings(&self) -> u16 {
        self.rings.count()
    }

    /// Makes memory that is mapped already all the memory there is, as [`set_memory`](VhostBackend::set_memory) does with
    /// files. User addresses are those of the regions.
    pub fn set_mapped_memory(&mut self, memory: MemoryTable) {
        self.control().set_memory(memory);
    }

    /// Has all rings record their requests in `record` from their next start on, for whoever goes on after this process has
    /// ended, and first process what is in flight there. Features must be agreed on before; a new record comes from
    /// [`inflight::create`](crate::inflight::create).
    ///
    /// # Errors
    /// When a ring runs, or the record is too small for rings of the layout that was agreed on.
    pub fn set_inflight(&mut self, record: Option<&InflightRecord>) -> Result<(), SoftError> {
        for ring in 0..self.vrings() {
            self.while_stopped(ring)?;
        }
        Ok(self.control().set_inflight(record)?)
    }

    /// What went wrong on a ring; `None` if there is no such ring.
    #[must_use]
    pub fn faults(&self, ring: u16) -> Option<RingFaults> {
        self.rings.lock(usize::from(ring)).map(|vring| *vring.faults())
    }

    /// Gives every ring that has work a turn, if the caller processes them. Never waits. Call it when
    /// [`descriptor`](Self::descriptor) is readable.
    ///
    /// # Errors
    /// When a system call fails, which only a bug can cause.
    pub fn process(&self) -> Result<(), SystemError> {
        self.rings.turn()
    }

    /// What to wait for before [`process`](Self::process); `None` with threads.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.rings.caller_fd()
    }

    fn control(&mut self) -> Control<'_> {
        let (device, rings, guest) = (&*self.device, &self.rings, &mut self.guest);
        Control { device, rings, guest, addresses: AddressSpace::User }
    }

    fn while_stopped(&mut self, ring: u16) -> Result<(), SoftError> {
        let control = self.control();
        let vring = control.ring(ring.into())?;
        if vring.is_started() && vring.is_enabled() { Err(RingMisuse::Running.into()) } else { Ok(()) }
    }
}

impl VhostBackend for SoftBackend {
    type Handle = dyn AsFd;
    type Memory = dyn AsFd;
    type Error = SoftError;

    /// Does nothing: the device is this process' own.
    fn set_owner(&mut self) -> Result<(), SoftError> {
        Ok(())
    }

    fn features(&mut self) -> Result<VirtioFeatures, SoftError> {
        // There is nobody to ask for translations: whoever has an IOMMU gives this back-end what lies behind it.
        let features = RING_FEATURES.difference(VirtioFeatures::ACCESS_PLATFORM);
        Ok(VirtioFeatures::from_bits_retain(self.device.features()) | features)
    }

    fn acknowledge(&mut self, features: VirtioFeatures) -> Result<(), SoftError> {
        let excess = features.difference(self.features()?);
        if !excess.is_empty() {
            return Err(SoftError::NotOffered { excess });
        }
        let changed = features.symmetric_difference(self.acknowledged);
        if changed.difference(VirtioFeatures::LOG_ALL) != VirtioFeatures::empty() {
            for ring in 0..self.vrings() {
                self.while_stopped(ring)?;
            }
        }
        self.acknowledged = features;
        self.control().acknowledge(features);
        Ok(())
    }

    fn set_memory(&mut self, regions: &[(MemoryRegion, &Self::Memory)]) -> Result<(), SoftError> {
        let mapped = regions.iter().map(|(region, file)| {
            let mapped = MappedRegion::new(*region, duplicate(file.as_fd())?)?;
            Ok::<_, SoftError>(mapped)
        });
        let table = MemoryTable::new(mapped.collect::<Result<Vec<_>, _>>()?)?;
        self.set_mapped_memory(table);
        Ok(())
    }

    fn set_log(&mut self, log: &LogArea<'_, Self::Memory>) -> Result<(), SoftError> {
        let file = LogFile::map(log.size, log.offset, duplicate(log.memory.as_fd())?)?;
        Ok(self.control().set_log(file)?)
    }

    fn set_vring(&mut self, ring: u16, setting: VringSetting<'_, Self::Handle>) -> Result<(), SoftError> {
        let index = u64::from(ring);
        let owned = |handle: Option<&Self::Handle>| handle.map(|handle| duplicate(handle.as_fd())).transpose();
        match setting {
            VringSetting::Size(size) => {
                self.while_stopped(ring)?;
                self.control().set_size(index, size.into())?;
            }
            VringSetting::Base(base) => {
                self.while_stopped(ring)?;
                self.control().set_base(index, base)?;
            }
            VringSetting::Addresses(addresses) => self.control().set_addresses(index, addresses)?,
            VringSetting::Kick(kick) => self.control().set_kick(index, owned(kick)?)?,
            VringSetting::Call(call) => self.control().set_call(index, owned(call)?)?,
            VringSetting::Error(error) => self.control().set_error(index, owned(error)?)?,
            VringSetting::Enable => self.control().ring(index)?.enable(),
            VringSetting::Disable => {
                let control = self.control();
                control.disable(&mut *control.ring(index)?);
            }
        }
        Ok(())
    }

    fn stop_vring(&mut self, ring: u16) -> Result<VringBase, SoftError> {
        Ok(self.control().stop(ring.into())?)
    }

    /// Memory stays.
    fn reset(&mut self) -> Result<(), SoftError> {
        self.acknowledged = VirtioFeatures::empty();
        self.control().reset();
        Ok(())
    }
}

impl Drop for SoftBackend {
    fn drop(&mut self) {
        self.control().forget();
    }
}

impl fmt::Debug for SoftBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftBackend")
            .field("device_id", &self.device.device_id())
            .field("acknowledged", &self.acknowledged)
            .field("rings", &self.rings)
            .finish_non_exhaustive()
    }
}

fn duplicate(descriptor: BorrowedFd<'_>) -> Result<OwnedFd, SoftError> {
    let duplicated = rustix::io::fcntl_dupfd_cloexec(descriptor, 0);
    duplicated.map_err(|errno| SoftError::System(SystemError { call: "fcntl", errno }))
}

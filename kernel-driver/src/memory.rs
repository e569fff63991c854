//! The memory of this process that a kernel device works with: it stays mapped for as long as the kernel may touch it.
//!
//! The kernel gets addresses of this process and checks next to nothing about them. So addresses never come from the
//! caller here: rings, the dirty log and translations are looked up in mapped regions, and each region is held until the
//! kernel has been told of something else.

mod held;
mod translations;

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vhost_core::uapi::layout::{FeaturesArray, NO_FILE, VringState};
use vhost_core::uapi::vhost::{VHOST_SET_FEATURES, VHOST_SET_FEATURES_ARRAY, VHOST_SET_LOG_FD, VHOST_SET_VRING_NUM};
use vhost_core::{VirtioFeatures, VringAddresses};
use vhost_std::memory::{MappedRegion, MemoryTable};
use vhost_std::system_error::SystemError;

pub(crate) use self::held::{Held, locate};
pub(crate) use self::translations::Translations;

use crate::device::{VhostDevice, unless_unknown};
use crate::error::KernelError;
use crate::ioctl;

pub(crate) mod sealed {
    use super::MemoryState;

    /// Keeps the bookkeeping in this crate.
    pub trait Sealed {
        /// What the kernel knows of this process' memory.
        fn memory_state(&self) -> &MemoryState;
    }
}

/// What the kernel knows of this process' memory, behind a lock that is held during the calls that change it.
#[derive(Debug, Default)]
pub struct MemoryState(Mutex<Held>);

impl MemoryState {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Held> {
        // What is held is changed in one step after each call, so that a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A vhost device that works in this process' memory: net, vsock or scsi.
///
/// Addresses of rings are I/O virtual ones once `VIRTIO_F_ACCESS_PLATFORM` is acknowledged, and otherwise user addresses
/// of the [memory](Self::set_memory)'s regions. Only memory that is shared by its file can be used, since only that can be
/// mapped here.
pub trait MemoryDevice: VhostDevice + sealed::Sealed {
    /// Acknowledges virtio features.
    ///
    /// `VIRTIO_F_ACCESS_PLATFORM` begins with an empty IOTLB each time. When it comes or goes, rings lose their addresses,
    /// which meant something else before.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if they were not on offer; [`NoLog`](KernelError::NoLog) for `VHOST_F_LOG_ALL`.
    #[doc(alias = "VHOST_SET_FEATURES")]
    fn set_features(&self, features: VirtioFeatures) -> Result<(), KernelError> {
        let mut held = self.memory_state().lock();
        held.before_features(self.as_fd(), features)?;
        ioctl::write(self.as_fd(), VHOST_SET_FEATURES, features.bits())?;
        held.after_features(features);
        Ok(())
    }

    /// Acknowledges virtio features in words of 64; false if the kernel knows no array, and none is acknowledged then. See
    /// [`features_array`](VhostDevice::features_array).
    ///
    /// # Errors
    /// As [`set_features`](Self::set_features).
    #[doc(alias = "VHOST_SET_FEATURES_ARRAY")]
    fn set_features_array(&self, words: &[u64]) -> Result<bool, KernelError> {
        let features = VirtioFeatures::from_bits_retain(words.first().copied().unwrap_or(0));
        let mut held = self.memory_state().lock();
        held.before_features(self.as_fd(), features)?;
        let head = |count| FeaturesArray::new(count as u64);
        let answer = ioctl::exchange_array(self.as_fd(), VHOST_SET_FEATURES_ARRAY, head, words);
        let known = unless_unknown(answer)?.is_some();
        if known {
            held.after_features(features);
        }
        Ok(known)
    }

    /// Makes these regions all the memory there is, also while rings run. Rings keep their addresses.
    ///
    /// # Errors
    /// `E2BIG` for more regions than the kernel's limit, which is 64 unless `vhost` was loaded with another one;
    /// [`LogTooSmall`](KernelError::LogTooSmall).
    #[doc(alias = "VHOST_SET_MEM_TABLE")]
    fn set_memory(&self, table: &MemoryTable) -> Result<(), KernelError> {
        let mut held = self.memory_state().lock();
        held.check_log_for(table)?;
        let regions: Vec<&MappedRegion> = table.regions().iter().map(Arc::as_ref).collect();
        ioctl::set_mem_table(self.as_fd(), &regions)?;
        held.after_memory(table);
        Ok(())
    }

    /// Sets a ring's number of descriptors. Not while it runs, and before its addresses.
    ///
    /// # Errors
    /// `EINVAL` unless it is a power of two from 1 to 32768, `EBUSY` while the ring runs;
    /// [`RingGrows`](KernelError::RingGrows).
    #[doc(alias = "VHOST_SET_VRING_NUM")]
    fn set_vring_num(&self, ring: u32, size: u32) -> Result<(), KernelError> {
        let mut held = self.memory_state().lock();
        held.check_size(ring, size)?;
        ioctl::write(self.as_fd(), VHOST_SET_VRING_NUM, VringState::new(ring, size))?;
        held.after_size(ring, size);
        Ok(())
    }

    /// Sets where a ring's parts are; their log address, if any, is a guest address. After its size and the memory.
    ///
    /// # Errors
    /// [`Memory`](KernelError::Memory) if a part is not all in one region; [`Misaligned`](KernelError::Misaligned);
    /// [`NoRingSize`](KernelError::NoRingSize); [`NoLog`](KernelError::NoLog), [`LogTooSmall`](KernelError::LogTooSmall).
    #[doc(alias = "VHOST_SET_VRING_ADDR")]
    fn set_vring_addresses(&self, ring: u32, addresses: &VringAddresses) -> Result<(), KernelError> {
        let mut held = self.memory_state().lock();
        let (argument, placed) = held.place(ring, addresses)?;
        ioctl::set_vring_addr(self.as_fd(), argument)?;
        held.after_addresses(ring, placed);
        Ok(())
    }

    /// Tells whether [`set_vring_addresses`](Self::set_vring_addresses) could set these. Nothing changes.
    ///
    /// # Errors
    /// As there.
    fn check_vring_addresses(&self, ring: u32, addresses: &VringAddresses) -> Result<(), KernelError> {
        self.memory_state().lock().place(ring, addresses).map(drop)
    }

    /// Takes a ring's addresses away; it does not start without new ones. Not while it runs.
    ///
    /// # Errors
    /// The errno of `VHOST_SET_VRING_ADDR`.
    #[doc(alias = "VHOST_SET_VRING_ADDR")]
    fn clear_vring_addresses(&self, ring: u32) -> Result<(), SystemError> {
        self.memory_state().lock().forget_addresses_of(self.as_fd(), ring)
    }

    /// Has the kernel mark pages that it writes to in `log`, from its first byte on: one bit for each 4096 bytes of guest
    /// memory. It begins when `VHOST_F_LOG_ALL` is acknowledged.
    ///
    /// # Errors
    /// [`LogTooSmall`](KernelError::LogTooSmall), and the errno of `VHOST_SET_LOG_BASE`.
    #[doc(alias = "VHOST_SET_LOG_BASE")]
    fn set_log(&self, log: &Arc<MappedRegion>) -> Result<(), KernelError> {
        let mut held = self.memory_state().lock();
        held.check_log(log.region().size)?;
        ioctl::set_log_base(self.as_fd(), log)?;
        held.after_log(log);
        Ok(())
    }

    /// Sets the eventfd that is signalled when the log was written to; `None` takes it away.
    ///
    /// # Errors
    /// The errno of `VHOST_SET_LOG_FD`.
    #[doc(alias = "VHOST_SET_LOG_FD")]
    fn set_log_signal(&self, signal: Option<BorrowedFd<'_>>) -> Result<(), SystemError> {
        let descriptor = signal.map_or(NO_FILE, |signal| signal.as_raw_fd());
        ioctl::write(self.as_fd(), VHOST_SET_LOG_FD, descriptor)
    }
}

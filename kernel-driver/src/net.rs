//! vhost-net: the kernel moves frames between rings and a tap device or a packet socket.

mod packet;
mod tap;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vhost_core::uapi::vhost::{VHOST_NET_SET_BACKEND, VHOST_RESET_OWNER};
use vhost_std::system_error::SystemError;

pub use self::packet::PacketSocket;
pub use self::tap::{Tap, TapOptions};

use crate::device::{self, VhostDevice, vring_file};
use crate::ioctl;
use crate::iotlb::IotlbDevice;
use crate::memory::{self, MemoryDevice, MemoryState};
use crate::node;

/// The ring of frames for the driver.
pub const RECEIVE_RING: u32 = 0;
/// The ring of frames from the driver.
pub const TRANSMIT_RING: u32 = 1;

/// Bytes in front of each frame of a device with `VIRTIO_F_VERSION_1` or `VIRTIO_NET_F_MRG_RXBUF`.
pub const HEADER_SIZE: usize = 12;

/// A vhost-net device: one pair of rings. A network device with several queue pairs has one of these for each.
///
/// Rings stop when this is dropped.
#[derive(Debug)]
pub struct Net {
    descriptor: OwnedFd,
    memory: MemoryState,
    running: Mutex<BTreeSet<u32>>,
}

impl Net {
    /// Opens `/dev/vhost-net`.
    ///
    /// # Errors
    /// The errno of `open`, for example `ENOENT` if the kernel has no vhost-net and `EACCES` without the right to it.
    pub fn open() -> Result<Self, SystemError> {
        node::open(Path::new("/dev/vhost-net")).map(Self::new)
    }

    /// Takes a descriptor of `/dev/vhost-net` that is as it was when it was opened. It is put into non-blocking mode.
    ///
    /// # Errors
    /// The errno of `fcntl`.
    pub fn from_descriptor(descriptor: OwnedFd) -> Result<Self, SystemError> {
        node::adopt(descriptor).map(Self::new)
    }

    fn new(descriptor: OwnedFd) -> Self {
        Self { descriptor, memory: MemoryState::default(), running: Mutex::default() }
    }

    /// Connects a ring with a tap device or a packet socket, which starts it; `None` stops it, and nothing of it is under
    /// way any more then.
    ///
    /// # Errors
    /// `ENOTSOCK` if the descriptor is neither, `EFAULT` if the ring is not set up or, with an IOTLB, its used part is not
    /// reachable; that is told as a [miss](IotlbDevice::next_miss) too.
    #[doc(alias = "VHOST_NET_SET_BACKEND")]
    pub fn set_backend(&self, ring: u32, backend: Option<BorrowedFd<'_>>) -> Result<(), SystemError> {
        let mut running = self.running();
        ioctl::write(self.as_fd(), VHOST_NET_SET_BACKEND, vring_file(ring, backend))?;
        if backend.is_some() {
            running.insert(ring)
        } else {
            running.remove(&ring)
        };
        Ok(())
    }

    /// Stops the rings and gives the device up: it is as it was when it was opened.
    ///
    /// # Errors
    /// `EPERM` for anybody but the owner.
    #[doc(alias = "VHOST_RESET_OWNER")]
    pub fn reset_owner(&self) -> Result<(), SystemError> {
        let (mut held, mut running) = (self.memory.lock(), self.running());
        ioctl::none(self.as_fd(), VHOST_RESET_OWNER)?;
        held.forget();
        running.clear();
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Net {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // Closing the descriptor stops the rings, unless it was duplicated; memory goes in any case.
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner);
        for ring in core::mem::take(running) {
            // It fails in a child of the owner only, whose memory is another one.
            let _ = self.set_backend(ring, None);
        }
    }
}

impl device::sealed::Sealed for Net {}
impl VhostDevice for Net {}
impl memory::sealed::Sealed for Net {
    fn memory_state(&self) -> &MemoryState {
        &self.memory
    }
}
impl MemoryDevice for Net {}
impl IotlbDevice for Net {}

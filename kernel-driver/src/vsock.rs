//! vhost-vsock: the kernel connects the sockets of a guest with those of this machine.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use vhost_core::uapi::vhost::{VHOST_VSOCK_SET_GUEST_CID, VHOST_VSOCK_SET_RUNNING};
use vhost_std::system_error::SystemError;

use crate::device::{self, VhostDevice};
use crate::ioctl;
use crate::iotlb::IotlbDevice;
use crate::memory::{self, MemoryDevice, MemoryState};
use crate::node;

/// The ring of packets for the guest.
pub const RECEIVE_RING: u32 = 0;
/// The ring of packets from the guest. The third ring of a vsock device, for events, is the VMM's own.
pub const TRANSMIT_RING: u32 = 1;

/// A vhost-vsock device.
///
/// Rings stop when this is dropped, and sockets that are connected with the guest are reset. To start over, open another
/// one: an owner cannot be given up here.
#[derive(Debug)]
pub struct Vsock {
    descriptor: OwnedFd,
    memory: MemoryState,
}

impl Vsock {
    /// Opens `/dev/vhost-vsock`.
    ///
    /// # Errors
    /// The errno of `open`, for example `ENOENT` if the kernel has no vhost-vsock and `EACCES` without the right to it.
    pub fn open() -> Result<Self, SystemError> {
        node::open(Path::new("/dev/vhost-vsock")).map(Self::new)
    }

    /// Takes a descriptor of `/dev/vhost-vsock` that is as it was when it was opened. It is put into non-blocking mode.
    ///
    /// # Errors
    /// The errno of `fcntl`.
    pub fn from_descriptor(descriptor: OwnedFd) -> Result<Self, SystemError> {
        node::adopt(descriptor).map(Self::new)
    }

    fn new(descriptor: OwnedFd) -> Self {
        Self { descriptor, memory: MemoryState::default() }
    }

    /// Sets the guest's context id, its address: 3 or more, and not `u32::MAX`.
    ///
    /// # Errors
    /// `EINVAL` for a number that no guest can have, `EADDRINUSE` if another guest of this machine has it.
    #[doc(alias = "VHOST_VSOCK_SET_GUEST_CID")]
    pub fn set_guest_cid(&self, cid: u32) -> Result<(), SystemError> {
        ioctl::write(self.as_fd(), VHOST_VSOCK_SET_GUEST_CID, u64::from(cid))
    }

    /// Starts both rings.
    ///
    /// # Errors
    /// `EFAULT` if a ring is not set up or, with an IOTLB, its used part is not reachable; that is told as a
    /// [miss](IotlbDevice::next_miss) too.
    #[doc(alias = "VHOST_VSOCK_SET_RUNNING")]
    pub fn start(&self) -> Result<(), SystemError> {
        ioctl::write(self.as_fd(), VHOST_VSOCK_SET_RUNNING, 1)
    }

    /// Stops both rings; nothing of them is under way any more then.
    ///
    /// # Errors
    /// The errno of `VHOST_VSOCK_SET_RUNNING`.
    #[doc(alias = "VHOST_VSOCK_SET_RUNNING")]
    pub fn stop(&self) -> Result<(), SystemError> {
        ioctl::write(self.as_fd(), VHOST_VSOCK_SET_RUNNING, 0)
    }
}

impl AsFd for Vsock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        // Closing the descriptor stops the rings, unless it was duplicated; memory goes in any case. It fails without an
        // owner, when nothing runs, and in a child of the owner, whose memory is another one.
        let _ = self.stop();
    }
}

impl device::sealed::Sealed for Vsock {}
impl VhostDevice for Vsock {}
impl memory::sealed::Sealed for Vsock {
    fn memory_state(&self) -> &MemoryState {
        &self.memory
    }
}
impl MemoryDevice for Vsock {}
impl IotlbDevice for Vsock {}

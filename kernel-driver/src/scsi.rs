//! vhost-scsi: the kernel's SCSI target serves the rings of a guest.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use vhost_core::uapi::layout::{ScsiTarget, VringWorker, WorkerState};
use vhost_core::uapi::vhost::{
    VHOST_ATTACH_VRING_WORKER, VHOST_FREE_WORKER, VHOST_GET_VRING_WORKER, VHOST_NEW_WORKER, VHOST_SCSI_CLEAR_ENDPOINT,
    VHOST_SCSI_GET_ABI_VERSION, VHOST_SCSI_GET_EVENTS_MISSED, VHOST_SCSI_SET_ENDPOINT, VHOST_SCSI_SET_EVENTS_MISSED,
};
use vhost_std::system_error::SystemError;

use crate::device::{self, VhostDevice};
use crate::ioctl;
use crate::memory::{self, MemoryDevice, MemoryState};
use crate::node;

/// The ring of task management requests.
pub const CONTROL_RING: u32 = 0;
/// The ring of events.
pub const EVENT_RING: u32 = 1;
/// The first ring of commands.
pub const COMMAND_RING: u32 = 2;

/// The version of the interface that this is written for.
const ABI_VERSION: i32 = 1;

/// A worker thread of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(u32);

/// A vhost-scsi device.
///
/// It is taken off its target when this is dropped. There is no IOTLB, and there are no backend features.
#[derive(Debug)]
pub struct Scsi {
    descriptor: OwnedFd,
    memory: MemoryState,
    endpoint: Mutex<Option<ScsiTarget>>,
}

impl Scsi {
    /// Opens `/dev/vhost-scsi`.
    ///
    /// # Errors
    /// The errno of `open`, for example `ENOENT` if the kernel has no vhost-scsi and `EACCES` without the right to it.
    pub fn open() -> Result<Self, SystemError> {
        node::open(Path::new("/dev/vhost-scsi")).map(Self::new)
    }

    /// Takes a descriptor of `/dev/vhost-scsi` that is as it was when it was opened. It is put into non-blocking mode.
    ///
    /// # Errors
    /// The errno of `fcntl`.
    pub fn from_descriptor(descriptor: OwnedFd) -> Result<Self, SystemError> {
        node::adopt(descriptor).map(Self::new)
    }

    fn new(descriptor: OwnedFd) -> Self {
        Self { descriptor, memory: MemoryState::default(), endpoint: Mutex::default() }
    }

    /// The version of the kernel's interface: 1.
    ///
    /// # Errors
    /// The errno of `VHOST_SCSI_GET_ABI_VERSION`.
    #[doc(alias = "VHOST_SCSI_GET_ABI_VERSION")]
    pub fn abi_version(&self) -> Result<i32, SystemError> {
        ioctl::read(self.as_fd(), VHOST_SCSI_GET_ABI_VERSION)
    }

    /// Connects the device with the target of this world wide name (`naa.` and 16 digits), which starts the rings that are
    /// set up.
    ///
    /// # Errors
    /// `EFAULT` if a ring's setup is wrong, `ENODEV` if there is no such target with a nexus, `EEXIST` if there is a
    /// connection, `EINVAL` if the name has more than 223 bytes.
    #[doc(alias = "VHOST_SCSI_SET_ENDPOINT")]
    pub fn set_endpoint(&self, world_wide_name: &str) -> Result<(), SystemError> {
        let too_long = SystemError { call: VHOST_SCSI_SET_ENDPOINT.row().name, errno: Errno::INVAL };
        let mut name = [0; 224];
        let place = name.get_mut(..world_wide_name.len()).filter(|place| place.len() < 224).ok_or(too_long)?;
        place.copy_from_slice(world_wide_name.as_bytes());
        let target = ScsiTarget::new(ABI_VERSION, name, 0, 0);

        let (mut held, mut endpoint) =
            (self.memory.lock(), self.endpoint.lock().unwrap_or_else(PoisonError::into_inner));
        // Commands keep addresses of the table that they came in until they are done.
        held.begin_requests();
        let outcome = ioctl::write(self.as_fd(), VHOST_SCSI_SET_ENDPOINT, target);
        if outcome.is_err() && endpoint.is_none() {
            held.finish_requests();
        }
        outcome?;
        *endpoint = Some(target);
        Ok(())
    }

    /// Takes the device off its target, which stops the rings; no command is under way any more then.
    ///
    /// # Errors
    /// `ENODEV` if it has no target.
    #[doc(alias = "VHOST_SCSI_CLEAR_ENDPOINT")]
    pub fn clear_endpoint(&self) -> Result<(), SystemError> {
        let (mut held, mut endpoint) =
            (self.memory.lock(), self.endpoint.lock().unwrap_or_else(PoisonError::into_inner));
        let none = SystemError { call: VHOST_SCSI_CLEAR_ENDPOINT.row().name, errno: Errno::NODEV };
        ioctl::write(self.as_fd(), VHOST_SCSI_CLEAR_ENDPOINT, endpoint.ok_or(none)?)?;
        *endpoint = None;
        held.finish_requests();
        Ok(())
    }

    /// Sets whether events were missed because the event ring was empty.
    ///
    /// # Errors
    /// The errno of `VHOST_SCSI_SET_EVENTS_MISSED`.
    #[doc(alias = "VHOST_SCSI_SET_EVENTS_MISSED")]
    pub fn set_events_missed(&self, missed: u32) -> Result<(), SystemError> {
        ioctl::write(self.as_fd(), VHOST_SCSI_SET_EVENTS_MISSED, missed)
    }

    /// Whether events were missed; not zero if they were.
    ///
    /// # Errors
    /// The errno of `VHOST_SCSI_GET_EVENTS_MISSED`.
    #[doc(alias = "VHOST_SCSI_GET_EVENTS_MISSED")]
    pub fn events_missed(&self) -> Result<u32, SystemError> {
        ioctl::read(self.as_fd(), VHOST_SCSI_GET_EVENTS_MISSED)
    }

    /// Makes one more worker thread, which serves no ring yet.
    ///
    /// # Errors
    /// The errno of `VHOST_NEW_WORKER`: `EINVAL` before there is an owner, `EFAULT` unless workers are tasks of the owner,
    /// `ENOTTY` or `ENOBUFS` before Linux 6.5.
    #[doc(alias = "VHOST_NEW_WORKER")]
    pub fn new_worker(&self) -> Result<WorkerId, SystemError> {
        ioctl::read(self.as_fd(), VHOST_NEW_WORKER).map(|state| WorkerId(state.worker()))
    }

    /// Ends a worker thread.
    ///
    /// # Errors
    /// `EBUSY` while it serves a ring, `ENODEV` if there is none.
    #[doc(alias = "VHOST_FREE_WORKER")]
    pub fn free_worker(&self, worker: WorkerId) -> Result<(), SystemError> {
        ioctl::write(self.as_fd(), VHOST_FREE_WORKER, WorkerState::new(worker.0))
    }

    /// Has a worker serve a ring.
    ///
    /// # Errors
    /// `ENODEV` if there is no such worker.
    #[doc(alias = "VHOST_ATTACH_VRING_WORKER")]
    pub fn attach_vring_worker(&self, ring: u32, worker: WorkerId) -> Result<(), SystemError> {
        ioctl::write(self.as_fd(), VHOST_ATTACH_VRING_WORKER, VringWorker::new(ring, worker.0))
    }

    /// The worker that serves a ring.
    ///
    /// # Errors
    /// The errno of `VHOST_GET_VRING_WORKER`.
    #[doc(alias = "VHOST_GET_VRING_WORKER")]
    pub fn vring_worker(&self, ring: u32) -> Result<WorkerId, SystemError> {
        let argument = VringWorker::new(ring, 0);
        ioctl::exchange(self.as_fd(), VHOST_GET_VRING_WORKER, argument).map(|state| WorkerId(state.worker()))
    }
}

impl AsFd for Scsi {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Scsi {
    fn drop(&mut self) {
        // Closing the descriptor does it too, unless it was duplicated; memory goes in any case. It fails if there is no
        // target, and in a child of the owner, whose memory is another one.
        let _ = self.clear_endpoint();
    }
}

impl device::sealed::Sealed for Scsi {}
impl VhostDevice for Scsi {}
impl memory::sealed::Sealed for Scsi {
    fn memory_state(&self) -> &MemoryState {
        &self.memory
    }
}
impl MemoryDevice for Scsi {}

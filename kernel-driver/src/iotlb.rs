//! The device IOTLB of vhost-net and vhost-vsock: the kernel asks for translations, and gets them.

use core::time::Duration;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use vhost_core::uapi::iotlb::{Access, IOTLB_MESSAGE_SIZE, IotlbMessage, IotlbRequest, IotlbVersion};
use vhost_core::{Iova, UserAddress};
use vhost_std::deadline::Deadline;
use vhost_std::system_error::SystemError;

use crate::error::KernelError;
use crate::memory::{MemoryDevice, locate};

/// An address that the kernel has no translation for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Miss {
    /// The address.
    pub iova: Iova,
    /// What the device wants to do there.
    pub access: Access,
}

/// A vhost device whose addresses go through an IOTLB, once `VIRTIO_F_ACCESS_PLATFORM` is acknowledged: net or vsock.
///
/// The descriptor becomes readable when there is a miss. One miss may be told twice. The ring that missed goes on by
/// itself when it gets its translation.
pub trait IotlbDevice: MemoryDevice {
    /// Lets the device reach `size` bytes of memory, which are at `user_address` in one of its regions, at `iova`.
    ///
    /// An older translation of the same addresses stays and may win: [`invalidate`](Self::invalidate) it first. The used
    /// part of a ring must be reachable before the ring starts.
    ///
    /// # Errors
    /// [`Memory`](KernelError::Memory) if the bytes are not all in one region, and [`Iotlb`](KernelError::Iotlb).
    #[doc(alias = "VHOST_IOTLB_UPDATE")]
    fn translate(&self, iova: Iova, size: u64, user_address: UserAddress, access: Access) -> Result<(), KernelError> {
        let mut held = self.memory_state().lock();
        let (region, here) = locate(held.table(), user_address, size)?;
        let region = region.clone();
        send(self.as_fd(), IotlbVersion::V1, IotlbRequest::Update { iova, size, user_address: here, access })?;
        held.translations.add(0, iova, size, &region);
        Ok(())
    }

    /// Takes all translations back that have a part in these addresses. None is in use any more afterwards.
    ///
    /// # Errors
    /// [`Iotlb`](KernelError::Iotlb).
    #[doc(alias = "VHOST_IOTLB_INVALIDATE")]
    fn invalidate(&self, iova: Iova, size: u64) -> Result<(), KernelError> {
        let mut held = self.memory_state().lock();
        send(self.as_fd(), IotlbVersion::V1, IotlbRequest::Invalidate { iova, size })?;
        held.translations.remove(0, iova, size);
        Ok(())
    }

    /// The next miss; `None` if there is none now.
    ///
    /// # Errors
    /// The errno of `read`; [`Message`](KernelError::Message) if it is not a miss.
    #[doc(alias = "VHOST_IOTLB_MISS")]
    fn next_miss(&self) -> Result<Option<Miss>, KernelError> {
        receive(self.as_fd())
    }

    /// Waits for the next miss; `None` if the deadline came first.
    ///
    /// # Errors
    /// As [`next_miss`](Self::next_miss), or the errno of `poll`.
    fn wait_for_miss(&self, deadline: Deadline) -> Result<Option<Miss>, KernelError> {
        loop {
            if let Some(miss) = receive(self.as_fd())? {
                return Ok(Some(miss));
            }
            let remaining = deadline.remaining();
            if remaining == Some(Duration::ZERO) {
                return Ok(None);
            }
            wait_readable(self.as_fd(), remaining)?;
        }
    }
}

/// Writes a message, always whole: of a part of it the kernel would say that it has taken more than it was given.
pub(crate) fn send(fd: BorrowedFd<'_>, version: IotlbVersion, request: IotlbRequest) -> Result<(), KernelError> {
    let bytes = IotlbMessage { version, request }.encode();
    match retry_on_intr(|| rustix::io::write(fd, &bytes)) {
        Ok(_) => Ok(()),
        Err(errno) => Err(KernelError::Iotlb { request, errno }),
    }
}

/// Reads a miss. The descriptor is in non-blocking mode.
fn receive(fd: BorrowedFd<'_>) -> Result<Option<Miss>, KernelError> {
    let mut bytes = [0; IOTLB_MESSAGE_SIZE];
    match retry_on_intr(|| rustix::io::read(fd, &mut bytes)) {
        Ok(length) => match IotlbMessage::decode(bytes.get(..length).unwrap_or_default())?.request {
            IotlbRequest::Miss { iova, access } => Ok(Some(Miss { iova, access })),
            // No kernel sends anything else; it asks for nothing.
            _ => Ok(None),
        },
        Err(Errno::AGAIN) => Ok(None),
        Err(errno) => Err(SystemError { call: "read", errno }.into()),
    }
}

pub(crate) fn wait_readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<(), SystemError> {
    // A duration beyond the system's range is as good as none.
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(&mut [PollFd::new(&fd, PollFlags::IN)], timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(SystemError { call: "poll", errno }),
    }
}

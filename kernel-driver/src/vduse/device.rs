//! `/dev/vduse/NAME`: what a device asks the kernel, and what the kernel asks it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::{Errno, retry_on_intr};
use vhost_core::uapi::layout::NO_FILE;
use vhost_core::uapi::vduse::{
    VDUSE_DEV_GET_FEATURES, VDUSE_DEV_INJECT_CONFIG_IRQ, VDUSE_DEV_SET_CONFIG, VDUSE_VQ_GET_INFO, VDUSE_VQ_INJECT_IRQ,
    VDUSE_VQ_SETUP, VDUSE_VQ_SETUP_KICKFD,
};
use vhost_core::uapi::vduse_layout::{ConfigData, VringConfig, VringEventfd, VringInfo};
use vhost_core::uapi::vduse_message::{VDUSE_MESSAGE_SIZE, VduseAnswer, VduseMessage, VduseVersion};
use vhost_core::wire::vring::VringBase;
use vhost_core::{Iova, RingAddresses, RingLayout, VirtioFeatures};
use vhost_std::system_error::SystemError;

use crate::error::KernelError;
use crate::{ioctl, node};

/// What the driver set up for a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringState {
    /// Number of descriptors.
    pub size: u32,
    /// Where its parts are.
    pub addresses: RingAddresses<Iova>,
    /// Where to begin.
    pub base: VringBase,
    /// Whether the driver has enabled it.
    pub ready: bool,
}

/// A VDUSE device that this process is.
///
/// The descriptor becomes readable when the kernel asks something. Requests that are not answered within 30 seconds (the
/// device's `msg_timeout`) break the device for good; those that are not answered when this is dropped go to whoever opens
/// the device next.
#[derive(Debug)]
pub struct VduseDevice {
    descriptor: OwnedFd,
    version: VduseVersion,
}

impl VduseDevice {
    /// Opens a device that was made with this version of the interface.
    ///
    /// # Errors
    /// The errno of `open`, for example `EBUSY` if somebody has it open.
    pub fn open(name: &str, version: VduseVersion) -> Result<Self, SystemError> {
        Ok(Self::of(node::open(&Path::new("/dev/vduse").join(name))?, version))
    }

    pub(super) fn of(descriptor: OwnedFd, version: VduseVersion) -> Self {
        Self { descriptor, version }
    }

    /// The version of the interface.
    #[must_use]
    pub fn version(&self) -> VduseVersion {
        self.version
    }

    /// The next thing that the kernel asks; `None` if there is none now. Each wants an [`answer`](Self::answer).
    ///
    /// # Errors
    /// The errno of `read`; [`Message`](KernelError::Message). A broken device has no requests: `poll` tells it by `POLLERR`.
    pub fn next_request(&self) -> Result<Option<VduseMessage>, KernelError> {
        let mut bytes = [0; VDUSE_MESSAGE_SIZE];
        match retry_on_intr(|| rustix::io::read(&self.descriptor, &mut bytes)) {
            Ok(length) => Ok(Some(VduseMessage::decode(bytes.get(..length).unwrap_or_default(), self.version)?)),
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(SystemError { call: "read", errno }.into()),
        }
    }

    /// Answers the request with this number.
    ///
    /// # Errors
    /// `ENOENT` if the kernel has not asked it, or no longer wants to know.
    pub fn answer(&self, id: u32, answer: VduseAnswer) -> Result<(), SystemError> {
        let bytes = answer.encode(id);
        match retry_on_intr(|| rustix::io::write(&self.descriptor, &bytes)) {
            Ok(_) => Ok(()),
            Err(errno) => Err(SystemError { call: "write", errno }),
        }
    }

    /// The features that the driver has acknowledged.
    ///
    /// # Errors
    /// The errno of `VDUSE_DEV_GET_FEATURES`.
    #[doc(alias = "VDUSE_DEV_GET_FEATURES")]
    pub fn features(&self) -> Result<VirtioFeatures, SystemError> {
        ioctl::read(self.as_fd(), VDUSE_DEV_GET_FEATURES).map(VirtioFeatures::from_bits_retain)
    }

    /// Changes bytes of the configuration space from `offset` on.
    ///
    /// # Errors
    /// `EINVAL` if there are not as many, or none are written.
    #[doc(alias = "VDUSE_DEV_SET_CONFIG")]
    pub fn set_config(&self, offset: u32, data: &[u8]) -> Result<(), SystemError> {
        let head = |length| ConfigData::new(offset, u32::try_from(length).unwrap_or(0));
        ioctl::exchange_array(self.as_fd(), VDUSE_DEV_SET_CONFIG, head, data).map(drop)
    }

    /// Tells the driver that the configuration has changed.
    ///
    /// # Errors
    /// `EINVAL` unless the driver is ready.
    #[doc(alias = "VDUSE_DEV_INJECT_CONFIG_IRQ")]
    pub fn inject_config_interrupt(&self) -> Result<(), SystemError> {
        ioctl::none(self.as_fd(), VDUSE_DEV_INJECT_CONFIG_IRQ)
    }

    /// Sets up a ring of at most `largest` descriptors. Every ring needs it before the device goes on the bus.
    ///
    /// `group` is the group that it belongs to; 0 in version 0.
    ///
    /// # Errors
    /// `EINVAL` if there is no such ring or group.
    #[doc(alias = "VDUSE_VQ_SETUP")]
    pub fn set_up_vring(&self, ring: u32, largest: u16, group: u32) -> Result<(), SystemError> {
        ioctl::write(self.as_fd(), VDUSE_VQ_SETUP, VringConfig::new(ring, largest, group, [0; 20]))
    }

    /// What the driver set up for a ring.
    ///
    /// # Errors
    /// `EINVAL` if there is no such ring.
    #[doc(alias = "VDUSE_VQ_GET_INFO")]
    pub fn vring(&self, ring: u32, layout: RingLayout) -> Result<VringState, SystemError> {
        let nowhere = Iova(0);
        let argument = VringInfo::new(ring, 0, nowhere, nowhere, nowhere, [0; 8], 0);
        let info = ioctl::exchange(self.as_fd(), VDUSE_VQ_GET_INFO, argument)?;
        Ok(VringState {
            size: info.num(),
            addresses: RingAddresses { descriptor: info.descriptor(), driver: info.driver(), device: info.device() },
            base: info.base(layout),
            ready: info.ready() != 0,
        })
    }

    /// Sets the eventfd that the driver's kicks come on; `None` takes it away. A reset does so too. A kick of before is
    /// there at once.
    ///
    /// # Errors
    /// `EINVAL` if there is no such ring, or if it is no eventfd.
    #[doc(alias = "VDUSE_VQ_SETUP_KICKFD")]
    pub fn set_vring_kick(&self, ring: u32, kick: Option<BorrowedFd<'_>>) -> Result<(), SystemError> {
        let descriptor = kick.map_or(NO_FILE, |kick| kick.as_raw_fd());
        ioctl::write(self.as_fd(), VDUSE_VQ_SETUP_KICKFD, VringEventfd::new(ring, descriptor))
    }

    /// Calls the driver of a ring.
    ///
    /// # Errors
    /// `EINVAL` unless the driver is ready, which it becomes a moment after that is
    /// [answered](Self::answer).
    #[doc(alias = "VDUSE_VQ_INJECT_IRQ")]
    pub fn inject_vring_interrupt(&self, ring: u32) -> Result<(), SystemError> {
        ioctl::write(self.as_fd(), VDUSE_VQ_INJECT_IRQ, ring)
    }
}

impl AsFd for VduseDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

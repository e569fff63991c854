//! `/dev/vduse/control`: making and removing devices.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use vhost_core::VirtioFeatures;
use vhost_core::uapi::vduse::{VDUSE_CREATE_DEV, VDUSE_DESTROY_DEV, VDUSE_GET_API_VERSION, VDUSE_SET_API_VERSION};
use vhost_core::uapi::vduse_layout::{DeviceConfig, DeviceName, NAME_SIZE};
use vhost_core::uapi::vduse_message::VduseVersion;
use vhost_std::system_error::SystemError;

use crate::{ioctl, node};

/// What a device is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceOptions<'o> {
    /// Its name, of 1 to 255 bytes: it is `/dev/vduse/NAME` then.
    pub name: &'o str,
    /// The virtio vendor.
    pub vendor_id: u32,
    /// The virtio device type. Kernels take block (2) and network (1) devices, newer ones file systems (26).
    pub device_id: u32,
    /// The features on offer. `VIRTIO_F_ACCESS_PLATFORM` must be among them.
    pub features: VirtioFeatures,
    /// The number of rings.
    pub vring_count: u32,
    /// The alignment of rings in bytes: a power of two, at most a page.
    pub vring_align: u32,
    /// The number of groups of rings; 1 in version 0.
    pub group_count: u32,
    /// The number of address spaces; 1 in version 0.
    pub address_space_count: u32,
    /// The configuration space, of at most a page.
    pub config: &'o [u8],
}

const NODE: &str = "/dev/vduse/control";

/// `/dev/vduse/control`, open.
#[derive(Debug)]
pub struct Control {
    descriptor: OwnedFd,
    version: VduseVersion,
}

impl Control {
    /// Opens it, to make devices with this version of the interface.
    ///
    /// # Errors
    /// The errno of `open`, for example `ENOENT` if the kernel has no VDUSE; `EINVAL` if it does not know the version.
    pub fn open(version: VduseVersion) -> Result<Self, SystemError> {
        let descriptor = node::open(Path::new(NODE))?;
        ioctl::write(descriptor.as_fd(), VDUSE_SET_API_VERSION, version.number())?;
        Ok(Self { descriptor, version })
    }

    /// The version that devices are made with.
    #[must_use]
    pub fn version(&self) -> VduseVersion {
        self.version
    }

    /// The newest version that the kernel knows.
    ///
    /// # Errors
    /// As [`open`](Self::open), and the errno of `VDUSE_GET_API_VERSION`.
    #[doc(alias = "VDUSE_GET_API_VERSION")]
    pub fn newest_version() -> Result<u64, SystemError> {
        // To ask is to select it, and where one was selected newer kernels tell that one.
        ioctl::read(node::open(Path::new(NODE))?.as_fd(), VDUSE_GET_API_VERSION)
    }

    /// Makes a device.
    ///
    /// # Errors
    /// `EEXIST` if there is one of this name, `EPERM` for a network device without `CAP_NET_ADMIN`, `EINVAL` for what the
    /// kernel does not take: a name, a device type, features, an alignment or a size.
    #[doc(alias = "VDUSE_CREATE_DEV")]
    pub fn create(&self, options: &DeviceOptions<'_>) -> Result<(), SystemError> {
        let name = name_of(options.name, VDUSE_CREATE_DEV.row().name)?;
        let counts = match self.version {
            VduseVersion::V0 => (0, 0),
            VduseVersion::V1 => (options.group_count, options.address_space_count),
        };
        let head = |config_size| {
            DeviceConfig::new(
                name,
                options.vendor_id,
                options.device_id,
                options.features.bits(),
                options.vring_count,
                options.vring_align,
                counts.0,
                counts.1,
                [0; 44],
                u32::try_from(config_size).unwrap_or(0),
            )
        };
        ioctl::exchange_array(self.as_fd(), VDUSE_CREATE_DEV, head, options.config).map(drop)
    }

    /// Removes a device.
    ///
    /// # Errors
    /// `EBUSY` while it is on the vdpa bus or somebody has it open, `EINVAL` if there is none of this name.
    #[doc(alias = "VDUSE_DESTROY_DEV")]
    pub fn destroy(&self, name: &str) -> Result<(), SystemError> {
        let name = name_of(name, VDUSE_DESTROY_DEV.row().name)?;
        ioctl::write(self.as_fd(), VDUSE_DESTROY_DEV, DeviceName::new(name))
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn name_of(name: &str, call: &'static str) -> Result<[u8; NAME_SIZE], SystemError> {
    let mut bytes = [0; NAME_SIZE];
    match bytes.get_mut(..name.len()) {
        // The zero behind it must fit too.
        Some(place) if place.len() < NAME_SIZE => place.copy_from_slice(name.as_bytes()),
        _ => return Err(SystemError { call, errno: Errno::INVAL }),
    }
    Ok(bytes)
}

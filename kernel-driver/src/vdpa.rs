//! vhost-vdpa: a virtio device of hardware, or of another process by VDUSE, whose rings the driver shares with it.
//!
//! The device reaches memory at I/O virtual addresses only, wherever [`Vdpa::map`] has put it. Addresses of rings and in
//! descriptors are such addresses: they are an [`Iova`] here, which no address of this process can be taken for.

mod address_space;
mod bus;
mod config;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vhost_core::uapi::bits::DeviceStatus;
use vhost_core::uapi::layout::{NO_FILE, VringAddr, VringState};
use vhost_core::uapi::vhost::{
    VHOST_SET_FEATURES, VHOST_SET_VRING_NUM, VHOST_VDPA_GET_DEVICE_ID, VHOST_VDPA_GET_STATUS, VHOST_VDPA_GET_VQS_COUNT,
    VHOST_VDPA_GET_VRING_NUM, VHOST_VDPA_GET_VRING_SIZE, VHOST_VDPA_RESUME, VHOST_VDPA_SET_CONFIG_CALL,
    VHOST_VDPA_SET_STATUS, VHOST_VDPA_SET_VRING_ENABLE, VHOST_VDPA_SUSPEND,
};
use vhost_core::{GuestAddress, Iova, RingAddress, RingAddresses, VirtioFeatures};
use vhost_std::system_error::SystemError;

pub use self::address_space::{Batch, Mapping};
pub use self::bus::{add_to_bus, remove_from_bus};

use crate::device::{self, VhostDevice, vring_state};
use crate::error::KernelError;
use crate::memory::Translations;
use crate::{ioctl, node};

/// Whether the device takes buffers from a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VringSwitch {
    /// It does.
    Enabled,
    /// It does not.
    Disabled,
}

/// A device behind `/dev/vhost-vdpa-*`.
///
/// ```no_run
/// use std::path::Path;
/// use vhost_core::uapi::bits::DeviceStatus;
/// use vhost_core::uapi::iotlb::Access;
/// use vhost_core::{Iova, VirtioFeatures};
/// use vhost_kernel::VhostDevice;
/// use vhost_kernel::vdpa::{Mapping, Vdpa};
/// use vhost_std::memory::MemoryFile;
///
/// # fn main() -> Result<(), Box<dyn core::error::Error>> {
/// let device = Vdpa::open(Path::new("/dev/vhost-vdpa-0"))?;
/// device.set_owner()?;
/// device.set_backend_features(device.backend_features()?)?;
/// device.raise_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER)?;
/// device.set_features(device.features()? & (VirtioFeatures::VERSION_1 | VirtioFeatures::ACCESS_PLATFORM))?;
/// device.raise_status(DeviceStatus::FEATURES_OK)?;
///
/// let memory = MemoryFile::create("guest", 0, 0x10_0000)?;
/// device.map(0, &Mapping::all_of(memory.mapped(), Iova(0x8000_0000), Access::ReadWrite))?;
/// // ... rings, then:
/// device.raise_status(DeviceStatus::DRIVER_OK)?;
/// # Ok(())
/// # }
/// ```
///
/// Opening resets the device, and so does dropping this. Nobody else can open it meanwhile.
#[derive(Debug)]
pub struct Vdpa {
    descriptor: OwnedFd,
    translations: Mutex<Translations>,
}

impl Vdpa {
    /// Opens a device node.
    ///
    /// # Errors
    /// The errno of `open`, for example `EBUSY` if somebody has it open.
    pub fn open(path: &Path) -> Result<Self, SystemError> {
        node::open(path).map(Self::new)
    }

    /// Takes a descriptor of a device node that is as it was when it was opened. It is put into non-blocking mode.
    ///
    /// # Errors
    /// The errno of `fcntl`.
    pub fn from_descriptor(descriptor: OwnedFd) -> Result<Self, SystemError> {
        node::adopt(descriptor).map(Self::new)
    }

    fn new(descriptor: OwnedFd) -> Self {
        Self { descriptor, translations: Mutex::default() }
    }

    fn translations(&self) -> MutexGuard<'_, Translations> {
        self.translations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The virtio device type: 1 network, 2 block, ...
    ///
    /// # Errors
    /// The errno of `VHOST_VDPA_GET_DEVICE_ID`.
    #[doc(alias = "VHOST_VDPA_GET_DEVICE_ID")]
    pub fn device_id(&self) -> Result<u32, SystemError> {
        ioctl::read(self.as_fd(), VHOST_VDPA_GET_DEVICE_ID)
    }

    /// Acknowledges virtio features. Before [`FEATURES_OK`](DeviceStatus::FEATURES_OK).
    ///
    /// # Errors
    /// `EOPNOTSUPP` if they were not on offer, `EBUSY` after `FEATURES_OK`, `EINVAL` without
    /// `VIRTIO_F_ACCESS_PLATFORM`.
    #[doc(alias = "VHOST_SET_FEATURES")]
    pub fn set_features(&self, features: VirtioFeatures) -> Result<(), SystemError> {
        ioctl::write(self.as_fd(), VHOST_SET_FEATURES, features.bits())
    }

    /// The device status.
    ///
    /// # Errors
    /// The errno of `VHOST_VDPA_GET_STATUS`.
    #[doc(alias = "VHOST_VDPA_GET_STATUS")]
    pub fn status(&self) -> Result<DeviceStatus, SystemError> {
        ioctl::read(self.as_fd(), VHOST_VDPA_GET_STATUS).map(DeviceStatus::from_bits_retain)
    }

    /// Writes the device status. Success does not say that the device has taken it: see
    /// [`raise_status`](Self::raise_status).
    ///
    /// # Errors
    /// `EINVAL` if a bit would go away that is set, unless all do.
    #[doc(alias = "VHOST_VDPA_SET_STATUS")]
    pub fn set_status(&self, status: DeviceStatus) -> Result<(), SystemError> {
        ioctl::write(self.as_fd(), VHOST_VDPA_SET_STATUS, status.bits())
    }

    /// Adds bits to the device status and looks whether the device has taken them.
    ///
    /// # Errors
    /// [`StatusRefused`](KernelError::StatusRefused): without [`FEATURES_OK`](DeviceStatus::FEATURES_OK) it cannot work with
    /// the features.
    pub fn raise_status(&self, bits: DeviceStatus) -> Result<DeviceStatus, KernelError> {
        let wanted = self.status()? | bits;
        self.set_status(wanted)?;
        let found = self.status()?;
        if found.contains(wanted) { Ok(found) } else { Err(KernelError::StatusRefused { wanted, found }) }
    }

    /// Resets the device: status, features and rings are as they were when it was opened. Whether mappings outlive it is
    /// [`IOTLB_PERSIST`](vhost_core::uapi::bits::BackendFeatures::IOTLB_PERSIST); without it they may or may not.
    ///
    /// # Errors
    /// The errno of the ioctl; [`StatusRefused`](KernelError::StatusRefused) if the device does not get there.
    pub fn reset(&self) -> Result<(), KernelError> {
        self.set_status(DeviceStatus::empty())?;
        match self.status()? {
            found if found.is_empty() => Ok(()),
            found => Err(KernelError::StatusRefused { wanted: DeviceStatus::empty(), found }),
        }
    }

    /// Number of rings.
    ///
    /// # Errors
    /// The errno of `VHOST_VDPA_GET_VQS_COUNT`, which is as old as Linux 5.18.
    #[doc(alias = "VHOST_VDPA_GET_VQS_COUNT")]
    pub fn vring_count(&self) -> Result<u32, SystemError> {
        ioctl::read(self.as_fd(), VHOST_VDPA_GET_VQS_COUNT)
    }

    /// The largest number of descriptors that a ring may have.
    ///
    /// # Errors
    /// The errno of `VHOST_VDPA_GET_VRING_NUM`.
    #[doc(alias = "VHOST_VDPA_GET_VRING_NUM")]
    pub fn vring_num_max(&self) -> Result<u16, SystemError> {
        ioctl::read(self.as_fd(), VHOST_VDPA_GET_VRING_NUM)
    }

    /// The largest number of descriptors of one ring.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if all are alike, `ENOTTY` before Linux 6.9.
    #[doc(alias = "VHOST_VDPA_GET_VRING_SIZE")]
    pub fn vring_size(&self, ring: u32) -> Result<u32, SystemError> {
        vring_state(self.as_fd(), VHOST_VDPA_GET_VRING_SIZE, ring)
    }

    /// Sets a ring's number of descriptors.
    ///
    /// # Errors
    /// [`RingSize`](KernelError::RingSize) if it is more than [`vring_num_max`](Self::vring_num_max), which not every kernel
    /// checks; `EINVAL` if it is no power of two.
    #[doc(alias = "VHOST_SET_VRING_NUM")]
    pub fn set_vring_num(&self, ring: u32, size: u32) -> Result<(), KernelError> {
        let largest = self.vring_num_max()?.into();
        if size > largest {
            return Err(KernelError::RingSize { found: size, largest });
        }
        Ok(ioctl::write(self.as_fd(), VHOST_SET_VRING_NUM, VringState::new(ring, size))?)
    }

    /// Sets where a ring's parts are.
    ///
    /// # Errors
    /// `EINVAL` if one is not aligned, and after [`DRIVER_OK`](DeviceStatus::DRIVER_OK) unless the device is suspended.
    #[doc(alias = "VHOST_SET_VRING_ADDR")]
    pub fn set_vring_addresses(&self, ring: u32, addresses: RingAddresses<Iova>) -> Result<(), SystemError> {
        let [descriptor, used, available] =
            [addresses.descriptor, addresses.device, addresses.driver].map(|iova| RingAddress(iova.0));
        let argument = VringAddr::new(ring, 0, descriptor, used, available, GuestAddress(0));
        ioctl::set_vring_addr(self.as_fd(), argument)
    }

    /// Enables or disables a ring; whether the device did is not told.
    ///
    /// # Errors
    /// The errno of `VHOST_VDPA_SET_VRING_ENABLE`.
    #[doc(alias = "VHOST_VDPA_SET_VRING_ENABLE")]
    pub fn switch_vring(&self, ring: u32, switch: VringSwitch) -> Result<(), SystemError> {
        let num = u32::from(switch == VringSwitch::Enabled);
        ioctl::write(self.as_fd(), VHOST_VDPA_SET_VRING_ENABLE, VringState::new(ring, num))
    }

    /// Sets the eventfd that is signalled when the configuration changes; `None` takes it away.
    ///
    /// # Errors
    /// The errno of `VHOST_VDPA_SET_CONFIG_CALL`.
    #[doc(alias = "VHOST_VDPA_SET_CONFIG_CALL")]
    pub fn set_config_call(&self, call: Option<BorrowedFd<'_>>) -> Result<(), SystemError> {
        let descriptor = call.map_or(NO_FILE, |call| call.as_raw_fd());
        ioctl::write(self.as_fd(), VHOST_VDPA_SET_CONFIG_CALL, descriptor)
    }

    /// Stops the device without a reset: rings keep their places, which can be read then. Does nothing before
    /// [`DRIVER_OK`](DeviceStatus::DRIVER_OK).
    ///
    /// # Errors
    /// `EOPNOTSUPP` without [`SUSPEND`](vhost_core::uapi::bits::BackendFeatures::SUSPEND).
    #[doc(alias = "VHOST_VDPA_SUSPEND")]
    pub fn suspend(&self) -> Result<(), SystemError> {
        ioctl::none(self.as_fd(), VHOST_VDPA_SUSPEND)
    }

    /// Has a suspended device go on.
    ///
    /// # Errors
    /// `EOPNOTSUPP` without [`RESUME`](vhost_core::uapi::bits::BackendFeatures::RESUME).
    #[doc(alias = "VHOST_VDPA_RESUME")]
    pub fn resume(&self) -> Result<(), SystemError> {
        ioctl::none(self.as_fd(), VHOST_VDPA_RESUME)
    }
}

impl AsFd for Vdpa {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Vdpa {
    fn drop(&mut self) {
        // Closing the descriptor does it too, unless it was duplicated; memory goes in any case.
        let _ = self.set_status(DeviceStatus::empty());
    }
}

impl device::sealed::Sealed for Vdpa {}
impl VhostDevice for Vdpa {}

//! VDUSE: a process is a vDPA device of the kernel.
//!
//! A [`Control`] makes a device, which is then a [`VduseDevice`] here and a name for the vdpa bus. Once it is
//! [added](add_to_bus) there, a driver of the kernel takes it: `virtio_vdpa` makes a disk or an interface of this machine of
//! it, `vhost_vdpa` a `/dev/vhost-vdpa-*` for a virtual machine monitor.

mod control;
mod device;
mod memory;
mod region;
mod server;

pub use self::control::{Control, DeviceOptions};
pub use self::device::{VduseDevice, VringState};
pub use self::region::Region;
pub use self::server::{RingChoice, VduseRefusal, VduseServer};
pub use crate::vdpa::remove_from_bus;

use vhost_std::system_error::SystemError;

/// The management device that stands for all of VDUSE.
const MANAGEMENT_DEVICE: &str = "vduse";

/// Puts a VDUSE device on the vdpa bus, where the first driver that was loaded takes it.
///
/// This returns when that driver is done with the device, which must answer it meanwhile: whoever serves the device is
/// another thread or process.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`, `ENOENT` if the kernel has no vdpa bus, `ENODEV` if VDUSE is not on it, `EINVAL` if there
/// is no such device or one of its rings is not set up, `EEXIST` if it is on the bus.
#[doc(alias = "VDPA_CMD_DEV_NEW")]
pub fn add_to_bus(name: &str) -> Result<(), SystemError> {
    crate::vdpa::add_to_bus(MANAGEMENT_DEVICE, name)
}

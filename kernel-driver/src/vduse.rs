//! VDUSE: a process is a vDPA device of the kernel.
//!
//! A [`Control`] makes a device, which is then a [`VduseDevice`] here and a name for the vdpa bus. Once it is
//! [added](add_to_bus) there, a driver of the kernel takes it: `virtio_vdpa` makes a disk or an interface of this machine of
//! it, `vhost_vdpa` a `/dev/vhost-vdpa-*` for a virtual machine monitor.

mod bus;
mod control;
mod device;
mod memory;
mod region;
mod server;

pub use self::bus::{add_to_bus, remove_from_bus};
pub use self::control::{Control, DeviceOptions};
pub use self::device::{VduseDevice, VringState};
pub use self::region::Region;
pub use self::server::{RingChoice, VduseServer};

//! The Linux kernel's side of vhost: `/dev/vhost-net`, `/dev/vhost-vsock` and `/dev/vhost-scsi`.
//!
//! The kernel processes the rings of a device; a virtual machine monitor opens the device, tells it where guest memory and
//! the rings are, and starts it:
//!
//! ```no_run
//! use std::os::fd::AsFd;
//! use vhost_core::VirtioFeatures;
//! use vhost_core::wire::vring::VringBase;
//! use vhost_kernel::net::{Net, TRANSMIT_RING, Tap, TapOptions};
//! use vhost_kernel::{MemoryDevice, VhostDevice};
//! use vhost_std::driver::{GuestArea, RingOptions, SplitRing};
//! use vhost_std::eventfd::EventFd;
//! use vhost_std::memory::{MemoryFile, MemoryTable};
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let tap = Tap::open("vm%d", &TapOptions::default())?;
//! tap.set_up()?;
//! let memory = MemoryFile::create("guest", 0, 0x10_0000)?;
//! let ring = RingOptions { size: 256, features: VirtioFeatures::VERSION_1, table_size: 0 };
//! let ring = SplitRing::new(GuestArea::of(&memory), &ring)?; // in a virtual machine the guest's driver has it
//! let kick = EventFd::new()?;
//!
//! let net = Net::open()?;
//! net.set_owner()?;
//! net.set_features(net.features()? & VirtioFeatures::VERSION_1)?;
//! net.set_memory(&MemoryTable::new([memory.mapped().clone()])?)?;
//! net.set_vring_num(TRANSMIT_RING, 256)?;
//! net.set_vring_base(TRANSMIT_RING, VringBase::Split { available: 0 })?;
//! net.set_vring_addresses(TRANSMIT_RING, &ring.user_addresses())?;
//! net.set_vring_kick(TRANSMIT_RING, Some(kick.as_fd()))?;
//! net.set_backend(TRANSMIT_RING, Some(tap.as_fd()))?;
//! # Ok(())
//! # }
//! ```
//!
//! Every call keeps the kernel's errno with the name of the ioctl. Numbers and layouts are [`vhost_core::uapi`]; mapped
//! memory is [`vhost_std::memory`]. Memory that the kernel works in stays mapped while it does, and only memory that a file
//! shares can be used.
//!
//! What this crate does not do yet: vhost-vdpa and VDUSE.
#![deny(unsafe_code)]

mod device;
mod error;
mod ioctl;
mod iotlb;
mod memory;
pub mod net;
mod netlink;
mod node;
pub mod scsi;
pub mod vsock;

pub use device::{RingEndian, VhostDevice, WorkerKind};
pub use error::KernelError;
pub use iotlb::{IotlbDevice, Miss};
pub use memory::MemoryDevice;

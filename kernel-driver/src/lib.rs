//! The Linux kernel's side of vhost: vhost-net, vhost-vsock, vhost-scsi, vhost-vdpa and VDUSE.
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
//! use vhost_std::driver::{GuestArea, RingOptions, DriverRing};
//! use vhost_std::eventfd::EventFd;
//! use vhost_std::memory::{MemoryFile, MemoryTable};
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let tap = Tap::open("vm%d", &TapOptions::default())?;
//! tap.set_up()?;
//! let memory = MemoryFile::create("guest", 0, 0x10_0000)?;
//! let ring = RingOptions { size: 256, features: VirtioFeatures::VERSION_1, table_size: 0 };
//! let ring = DriverRing::new(GuestArea::of(&memory), &ring)?; // in a virtual machine the guest's driver has it
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
//! The other way round, [`vduse`] makes a [`Device`](vhost_std::device::Device) of ours a device of the kernel, and
//! [`vdpa`] drives such a device, or hardware.
//!
//! | module | what it is |
//! |---|---|
//! | [`VhostDevice`] | the calls that all devices take |
//! | [`MemoryDevice`] | memory, rings and the dirty log of net, vsock and scsi |
//! | [`IotlbDevice`] | translations of net and vsock |
//! | [`net`], [`vsock`], [`scsi`] | those devices; tap devices and packet sockets |
//! | [`vdpa`] | vhost-vdpa: status, configuration, address spaces |
//! | [`vduse`] | making and serving devices; the vdpa bus |
//! | [`backend`] | all of these as a [`VhostBackend`](vhost_core::VhostBackend) |
//!
//! Every call keeps the kernel's errno with the name of the ioctl. Numbers and layouts are [`vhost_core::uapi`]; mapped
//! memory is [`vhost_std::memory`]. Memory that the kernel works in stays mapped while it does, and only memory that a file
//! shares can be used.
//!
//! What this crate does not do: several address spaces of a VDUSE device of ours, and doorbells that are mapped into a guest.
#![deny(unsafe_code)]

pub mod backend;
mod device;
mod error;
mod ioctl;
mod iotlb;
mod memory;
pub mod net;
mod netlink;
mod node;
pub mod scsi;
pub mod vdpa;
pub mod vduse;
pub mod vsock;

pub use device::{RingEndian, VhostDevice, WorkerKind};
pub use error::KernelError;
pub use iotlb::{IotlbDevice, Miss};
pub use memory::MemoryDevice;

//! The kernel's vhost, vhost-vdpa and VDUSE interfaces as pure data: numbers, layouts and messages.
//!
//! Both sides can use this: a program that calls these interfaces (`vhost-kernel` does), and a kernel that serves them.
//! Nothing here makes a system call, and every layout is the kernel's on every machine: fields of fixed size in the
//! machine's byte order.
//!
//! | module | what it is |
//! |---|---|
//! | [`ioctl`] | what an ioctl's number is made of |
//! | [`vhost`] | the table of the ioctls of `/dev/vhost-*`, among them vhost-vdpa |
//! | [`vduse`] | the table of the ioctls of `/dev/vduse/*` |
//! | [`layout`], [`vduse_layout`] | what they carry |
//! | [`iotlb`] | what is read from and written to a vhost descriptor |
//! | [`vduse_message`] | what is read from and written to a VDUSE device |
//! | [`bits`] | device status and backend features |
//!
//! How a kernel serves one call, once it has copied the bytes of the argument in:
//!
//! ```
//! use vhost_core::uapi::ioctl::IoctlNumber;
//! use vhost_core::uapi::vhost::{VHOST_SET_VRING_NUM, VhostIoctl};
//!
//! let (number, argument) = (0x4008_af10, [1, 0, 0, 0, 0, 1, 0, 0]);
//! let call = VhostIoctl::from_number(IoctlNumber(number)).ok_or("ENOTTY")?;
//! assert_eq!(call.number().size(), argument.len());
//! match call {
//!     VhostIoctl::SetVringNum => {
//!         let state = VHOST_SET_VRING_NUM.argument(&argument).ok_or("EFAULT")?;
//! #       #[cfg(target_endian = "little")]
//!         assert_eq!((state.index(), state.num()), (1, 256));
//!     }
//!     other => return Err(other.name()),
//! }
//! # Ok::<(), &str>(())
//! ```

pub mod bits;
pub mod ioctl;
pub mod iotlb;
pub mod layout;
mod message_fault;
mod table;
pub mod vduse;
pub mod vduse_layout;
pub mod vduse_message;
pub mod vhost;

pub use message_fault::MessageFault;

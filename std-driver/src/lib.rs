//! vhost-user over Unix sockets: a typed front-end for virtual machine monitors, and a server for
//! devices.
//!
//! The protocol itself is [`vhost_core`]; here are the sockets, the mapped guest memory, the rings
//! and their threads. Data flows one way: bytes → [`endpoint`] (frames) → `vhost_core`'s machines
//! (typed requests) → [`server`] or the caller → [`device`], and back. [`soft`] is a device without the way to it.
//!
//! What this crate does not do: emulate a whole virtual machine, or talk to the kernel's vhost
//! devices (that is `vhost-kernel`).
#![deny(unsafe_code)]

pub mod block;
pub mod chain;
pub mod console;
pub mod deadline;
pub mod device;
pub mod driver;
pub mod endpoint;
pub mod entropy;
pub mod eventfd;
mod file_kind;
pub mod frontend;
pub mod guest_io;
pub mod host_notifiers;
mod incoming;
pub mod inflight;
mod iommu;
pub mod memory;
pub mod net;
mod outgoing;
pub mod poller;
mod rings;
pub mod server;
pub mod shared_memory;
pub mod shared_objects;
pub mod socket;
pub mod soft;
pub mod system_error;
pub mod vring;
pub mod worker;

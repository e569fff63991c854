//! The kernel's vhost, vhost-vdpa and VDUSE interfaces: their numbers and layouts, and `vhost-kernel` on a real kernel.
//!
//! [`guest`] boots a guest in which this program itself runs the tests of [`inside`].
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod guest;
mod header;
mod inside;
mod iotlb;
mod literals;
mod numbers;
mod results;
mod vduse_messages;

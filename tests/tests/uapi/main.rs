//! The kernel's vhost, vhost-vdpa and VDUSE interfaces: their numbers, layouts and messages.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod header;
mod iotlb;
mod literals;
mod numbers;
mod vduse_messages;

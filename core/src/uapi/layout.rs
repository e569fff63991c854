//! Bytes: the arguments of vhost ioctls.
//!
//! A ring's state and addresses are laid out as in vhost-user.

use crate::address::{GuestAddress, Iova, UserAddress};
use crate::wire::scalar::layout;

pub use crate::wire::vring::{VringAddr, VringState};

layout! {
    /// A ring and a descriptor: an eventfd, or what a vhost-net ring is connected with.
    pub struct VringFile (8 bytes) {
        /// The ring, from 0.
        field index: u32,
        /// The descriptor, or [`NO_FILE`].
        field fd: i32,
    }
}

/// Stands for a descriptor where one is taken away.
pub const NO_FILE: i32 = -1;

layout! {
    /// What stands in front of the regions of a memory table.
    pub struct MemoryTable (8 bytes) {
        /// How many regions follow.
        field count: u32,
        /// Zero.
        field reserved: u32,
    }
}

layout! {
    /// A region of a memory table.
    pub struct MemoryRegion (32 bytes) {
        /// First guest physical address.
        field guest_address: GuestAddress,
        /// Bytes.
        field size: u64,
        /// First address in the owner's address space.
        field user_address: UserAddress,
        /// Zero.
        field flags: u64,
    }
}

layout! {
    /// Where the dirty log is: a bitmap as long as guest memory needs.
    pub struct LogBase (8 bytes) {
        /// Its first address in the owner's address space.
        field user_address: UserAddress,
    }
}

layout! {
    /// A worker thread.
    pub struct WorkerState (4 bytes) {
        /// Its number.
        field worker: u32,
    }
}

layout! {
    /// A ring and the worker thread that serves it.
    pub struct VringWorker (8 bytes) {
        /// The ring, from 0.
        field index: u32,
        /// The worker's number.
        field worker: u32,
    }
}

layout! {
    /// What stands in front of the 64-bit words of an array of features.
    pub struct FeaturesArray (8 bytes) {
        /// How many words follow.
        field count: u64,
    }
}

layout! {
    /// A target of vhost-scsi.
    pub struct ScsiTarget (232 bytes) {
        /// The version of the interface.
        field abi_version: i32,
        /// The target's world wide name, ended by a zero.
        field world_wide_name: [u8; 224],
        /// The target portal group; today's kernels use all of a target.
        field portal_group: u16,
        /// Zero.
        field reserved: u16,
    }
}

layout! {
    /// What stands in front of bytes of the configuration space.
    pub struct ConfigRange (8 bytes) {
        /// Offset of the first byte.
        field offset: u32,
        /// How many bytes follow.
        field length: u32,
    }
}

layout! {
    /// A range of I/O virtual addresses; its last address is part of it.
    pub struct IovaRange (16 bytes) {
        /// The first address.
        field first: Iova,
        /// The last address.
        field last: Iova,
    }
}

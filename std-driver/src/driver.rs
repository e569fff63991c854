//! The driver's side of a device: rings that buffers are put into, and a client for disks.
//!
//! In a virtual machine this is the guest's work. Here it is for programs that use a device without a guest, such as
//! tools and tests: a [`DriverRing`], split or packed, in memory that is shared with a back-end, and a [`BlockClient`] that
//! reads and writes a disk through such rings.

mod area;
mod block;
mod error;
mod layout;
mod ring;

pub use self::{
    area::GuestArea,
    block::{
        BlockClient, BlockClientError, BlockClientOptions, BlockLimits, BlockQueue, BlockRequest, BlockStatus,
        Completion, Unmap,
    },
    error::DriverError,
    layout::{CAPACITY, RingOptions},
    ring::{DriverRing, Kick, Used},
};
pub use crate::block::SECTOR;
pub use vhost_core::Buffer;

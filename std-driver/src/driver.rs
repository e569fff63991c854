//! The driver's side of a device: rings that buffers are put into, and a client for disks.
//!
//! In a virtual machine this is the guest's work. Here it is for programs that use a device without a guest, such as
//! tools and tests: a [`SplitRing`] in memory that is shared with a back-end, and a [`BlockClient`] that reads and writes
//! a disk through such rings.

mod area;
mod block;
mod error;
mod layout;
mod split;

pub use self::{
    area::GuestArea,
    block::{
        BlockClient, BlockClientError, BlockClientOptions, BlockLimits, BlockQueue, BlockRequest, BlockStatus,
        Completion, SECTOR, Unmap,
    },
    error::{DeviceFault, DriverError},
    layout::RingOptions,
    split::{Buffer, Kick, SplitRing, Used},
};

//! Virtqueues, split and packed, from both sides.
//!
//! ```text
//!   driver                                              device
//!   add, publish --- needs_kick? kick ---------------->  pop ... pop
//!   poll ... poll <------------- needs_call? call ---  stage ... publish
//! ```
//! A ring is guest memory, read and written through [`GuestRange`](crate::GuestRange)s that were
//! translated once. Whatever the other side writes is copied before it is checked and used. Nothing
//! here allocates, waits or panics: a broken ring is an error, and every walk has a bound.
//!
//! What is not here: legacy rings of the other byte order, and waiting. Notifications are decided
//! here and sent by the caller.

mod chain;
mod descriptor;
mod device;
mod driver;
mod driver_queue;
mod event;
mod fault;
mod gather;
mod layout;
mod packed_device;
mod packed_driver;
mod part;
mod split_device;
mod split_driver;
mod used_log;

pub use self::{
    chain::{Chain, ChainBuffer, NoRoom},
    device::{DeviceQueue, DeviceQueueState},
    driver::{AddError, Buffer, DriverFault, Used},
    driver_queue::{DriverQueue, DriverQueueState},
    fault::{ChainFault, ChainFaultKind, PartFault, PopError, PushError, RingFault, RingPart},
    layout::{MAX_RING_SIZE, RingAddresses, RingLayout, RingParts, RingUser},
    packed_device::{PackedDevice, PackedDeviceState},
    packed_driver::{PackedDriver, PackedDriverState},
    split_device::{SplitDevice, SplitDeviceState},
    split_driver::{SplitDriver, SplitDriverState},
    used_log::UsedLog,
};
pub(crate) use self::{
    descriptor::{Descriptor, NEXT},
    event::Place,
    part::{load, read, store, write},
};

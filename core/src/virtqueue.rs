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

mod agreed;
mod by_address;
mod chain;
mod descriptor;
mod device;
mod driver;
mod event;
mod fault;
mod gather;
mod kind;
mod layout;
mod part;
mod position;
mod used_log;

pub(crate) use self::{
    by_address::ByAddress,
    descriptor::{Descriptor, NEXT},
    part::{load, read, store, write},
    position::Position,
};
pub use self::{
    chain::{Chain, ChainBuffer, NoRoom},
    device::{
        DeviceQueue, DeviceQueueState, DeviceRing, DeviceState, PackedDevice, PackedDeviceState, SplitDevice,
        SplitDeviceState,
    },
    driver::{
        AddError, Buffer, DriverFault, DriverQueue, DriverQueueState, DriverRing, DriverState, PackedDriver,
        PackedDriverState, SplitDriver, SplitDriverState, Used,
    },
    fault::{ChainFault, ChainFaultKind, PartFault, PopError, PushError, RingFault, RingPart},
    kind::{Layout, PackedLayout, SplitLayout},
    layout::{MAX_RING_SIZE, RingAddresses, RingLayout, RingParts, RingUser},
    used_log::UsedLog,
};

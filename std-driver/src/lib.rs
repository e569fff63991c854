//! Under construction.

pub mod block;
pub mod chain;
pub mod deadline;
pub mod device;
pub mod driver;
pub mod endpoint;
pub mod eventfd;
mod file_kind;
pub mod frontend;
pub mod guest_io;
pub mod memory;
pub mod poller;
pub mod socket;
pub mod system_error;
pub mod vring;
pub mod worker;

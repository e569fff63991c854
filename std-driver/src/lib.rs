//! Under construction.

pub mod deadline;
pub mod eventfd;
pub mod memory;
pub mod socket;
pub mod system_error;

//! Under construction.

pub mod deadline;
pub mod endpoint;
pub mod eventfd;
mod file_kind;
pub mod memory;
pub mod socket;
pub mod system_error;

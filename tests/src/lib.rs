//! Under construction.

pub mod guest;
pub mod program;

//! Under construction.

pub mod program;

//! Bytes: the header, the two tables of requests, feature bits, and the layout of every payload.
//!
//! Nothing here knows what was negotiated; it only reads and writes.

pub(crate) mod scalar;

pub mod backend_request;
pub mod config;
pub mod crypto;
pub mod feature;
pub mod frontend_request;
pub mod fs_cache;
mod gate;
pub mod gpu;
pub mod header;
pub mod inflight;
pub mod iotlb;
pub mod log;
pub mod memory;
pub mod migration;
pub(crate) mod misfit;
pub mod payload;
mod payload_fault;
pub mod row;
pub mod shared;
mod size_rule;
mod table;
pub mod vring;
pub(crate) mod writer;

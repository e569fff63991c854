//! Virtqueues, inflight records, dirty logs and IOTLBs, from their public interface.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, reason = "the numbers of states are for the reader")]

mod crash;
mod drivers;
mod guest;
mod malformed;
mod memory;
mod model;
mod packed_device;
mod split_device;

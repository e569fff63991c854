//! Virtqueues, inflight records, dirty logs and IOTLBs, from their public interface.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, reason = "an exploration tells how much it has seen")]

mod broken_memory;
mod crash;
mod dirty_log;
mod drivers;
mod guest;
mod hostile;
mod inflight_leftovers;
mod inflight_record;
mod iotlb;
mod malformed;
mod memory;
mod model;
mod packed_device;
mod pair;
mod sizes_and_bases;
mod split_device;
mod untake;
mod weak_memory;

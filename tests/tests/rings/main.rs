//! Virtqueues, inflight records, dirty logs and IOTLBs, from their public interface.

mod crash;
mod drivers;
mod guest;
mod malformed;
mod memory;
mod model;
mod packed_device;
mod split_device;

//! Virtqueues, inflight records, dirty logs and IOTLBs, from their public interface.

mod crash;
mod guest;
mod model;

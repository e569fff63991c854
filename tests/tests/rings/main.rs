//! Virtqueues, inflight records, dirty logs and IOTLBs, from their public interface.

mod guest;
mod model;

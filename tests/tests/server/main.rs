//! The back-end server from outside: front-ends, guest memory and rings are made by hand, byte by byte.
//!
//! A test whose name begins with a letter and a number shows what a back-end does about a habit of real front-ends: F for
//! framing and descriptors, R for replies, S for states.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod channel;
mod cuts;
mod device;
mod dirty_log;
mod exhaustion;
mod faults;
mod framing;
mod handles;
mod hostile;
mod inflight;
mod iotlb;
mod iotlb_frames;
mod kicks;
mod leaks;
mod memory;
mod negotiation;
mod postcopy;
mod qemu_listens;
mod read_ahead;
mod reconnect;
mod ring_setup;
mod session;
mod shared_memory;
mod start_stop;
mod state;
mod support;
mod tool;
mod waiting;

//! Many messages in one read, on every channel: each gets its own descriptors, however they were sent and cut.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod endpoint;
mod exact;
mod images;
mod line;
mod sample;
mod senders;
mod shares;

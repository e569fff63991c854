//! The GPU channel: all twelve messages, both machines, a recorded session.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod backend;
mod codec;
mod frontend;
mod message;
mod pair;
mod recorded;
mod stream;

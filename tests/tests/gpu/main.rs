//! The GPU channel: all twelve messages, both machines, a recorded session.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, reason = "an exploration tells how much it has seen")]

mod backend;
mod codec;
mod explore;
mod frontend;
mod message;
mod pair;
mod recorded;
mod stream;

//! `vhost-core` from its public interface: recorded sessions, both machines joined, every row of the tables, bad input,
//! refusals, and what real peers do.
//!
//! Bytes come from the hand-made fixtures and from recordings, never from the crate under test, unless the test says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, reason = "an exploration tells how much it has seen")]

mod answers;
mod bad_input;
mod cuts;
mod explore;
mod joined;
mod machines;
mod pair;
mod peers;
mod recorded;
mod stage;
mod start_orders;
mod table;

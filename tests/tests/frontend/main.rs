//! The front-end from outside: against back-ends that speak the wire by hand and do as the test says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod bring_up;
mod calls;
mod channel;
mod channel_alone;
mod deadlines;
mod disk;
mod disk_by_hand;
mod ends;
mod flood;
mod leaks;
mod leaks_by_thousands;
mod pacing;
mod pacing_fall_back;
mod postcopy;
mod reconnect;
mod refusals;
mod replies;
mod requests;
mod script;
mod shared_memory;

//! The devices of the program `vhost-user` beside the disk, used by what they are made for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod console;
mod machine;
mod net;
mod rng;

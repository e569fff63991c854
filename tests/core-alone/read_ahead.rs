//! The tests of read-ahead that need no socket: a part of the target of the same name in `vhost-tests`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

#[path = "../tests/read_ahead/images.rs"]
mod images;
#[path = "../tests/read_ahead/line.rs"]
mod line;
#[path = "../tests/read_ahead/sample.rs"]
mod sample;
#[path = "../tests/read_ahead/senders.rs"]
mod senders;
#[path = "../tests/read_ahead/shares.rs"]
mod shares;

//! A running guest moves from one QEMU to another, each with a back-end of ours on the same image.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod disk;

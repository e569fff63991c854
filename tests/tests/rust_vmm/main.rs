//! rust-vmm's `vhost`: its front-end against our back-end, our front-end against its back-end, both through whole sessions and
//! with every method that both have.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod backend_channel;
mod our_frontend;
mod postcopy;
mod recorder;
mod their_backend;
mod their_channel;
mod their_frontend;

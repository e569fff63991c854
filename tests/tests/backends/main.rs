//! One suite for everybody who processes rings for a VMM: a real disk workload through `VhostBackend`, whoever is behind it.
//! Beside it, what they all do in somebody's event loop, and what they do when there is nothing to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod driver;
mod event_loops;
mod form;
mod hooks;
mod idle;
mod soft;
mod soft_inflight;
mod subject;
mod suite;
mod user;

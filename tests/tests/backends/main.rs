//! One suite for everybody who processes rings for a VMM: a real disk workload through `VhostBackend`, whoever is behind it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod driver;
mod soft;
mod subject;
mod suite;
mod user;

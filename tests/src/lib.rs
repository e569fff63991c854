//! Test support for the vhost crates: wire fixtures written by hand, recorded sessions, fake peers, real peers, a guest to
//! boot, and the counting of what must not leak.
//!
//! Nothing here uses the crates under test. The tests themselves are in `tests/tests/` and see public interfaces only.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

pub mod allocations;
pub mod descriptors;
pub mod dialog;
pub mod driver;
pub mod explore;
pub mod guest;
pub mod numbers;
pub mod program;
pub mod rounds;
pub mod tracked;
pub mod userfault;
pub mod vectors;
pub mod wire;

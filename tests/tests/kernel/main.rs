//! `vhost-kernel` on a real kernel.
//!
//! [`guest`] boots a guest in which this program itself runs the tests of [`inside`].
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

#[path = "../backends/driver.rs"]
mod driver;
#[path = "../backends/form.rs"]
mod form;
mod guest;
mod inside;
mod results;
#[path = "../backends/subject.rs"]
#[allow(dead_code, reason = "other subjects need more of it")]
mod subject;
#[path = "../backends/suite.rs"]
#[allow(unused_macros, unused_imports, reason = "its tests run in the guest, by name")]
mod suite;

//! The words of errors: what was expected, what came, and where.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod messages;
mod rings;
mod session;

/// Compares values as they show themselves with the words expected of them.
#[track_caller]
fn say<T: core::fmt::Display>(cases: impl IntoIterator<Item = (T, &'static str)>) {
    for (value, words) in cases {
        assert_eq!(value.to_string(), words);
    }
}

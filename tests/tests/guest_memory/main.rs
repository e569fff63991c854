//! A Linux guest's memory changes under our disk: modules are plugged in and out.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod disk;
mod hot_plug;

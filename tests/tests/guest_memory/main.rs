//! A Linux guest's memory under our disk: modules are plugged in and out, and an IOMMU stands before it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod disk;
mod hot_plug;
mod iommu;

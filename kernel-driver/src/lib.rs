//! The Linux kernel's side of vhost: `/dev/vhost-*`, `/dev/vhost-vdpa-*` and VDUSE.
//!
//! This crate is empty for now; its place in the workspace is settled, its contents are not
//! written yet. Use `vhost-std` for back-ends in other processes.
#![deny(unsafe_code)]

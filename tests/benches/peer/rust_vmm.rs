//! The program of the package `rust-vmm-disk`, which is no member of the workspace.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds it and gives its place.
pub(crate) fn disk() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("rust-vmm-disk");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rust-vmm-disk");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--quiet", "--locked"]).current_dir(folder).env("CARGO_TARGET_DIR", &target);
    assert!(cargo.status().unwrap().success(), "rust-vmm-disk is not built");
    target.join("release/rust-vmm-disk")
}

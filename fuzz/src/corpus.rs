//! The committed inputs: one file a target, one input a line, in hexadecimal digits.

use std::{fs, io, path::PathBuf};

/// The file of a target's inputs.
pub fn path(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target).with_extension("hex")
}

/// The inputs of a target.
pub fn read(target: &str) -> io::Result<Vec<Vec<u8>>> {
    fs::read_to_string(path(target))?.lines().map(|line| bytes(line).ok_or(io::ErrorKind::InvalidData.into())).collect()
}

/// A line of hexadecimal digits as bytes.
fn bytes(line: &str) -> Option<Vec<u8>> {
    let digits = line.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// A line of hexadecimal digits.
pub fn line(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).chain(["\n".to_owned()]).collect()
}

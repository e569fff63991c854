//! Descriptors that this program was started with.

#![allow(unsafe_code, reason = "the only way to own a descriptor that is known by its number")]

use std::{
    fs,
    io::{Error, ErrorKind},
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

/// Takes the socket that was inherited as descriptor `number`.
///
/// Call it before anything else in this program opens a descriptor, and once for a number.
pub(crate) fn socket(number: RawFd) -> Result<OwnedFd, Error> {
    let target = fs::read_link(format!("/proc/self/fd/{number}"))?;
    if !target.to_string_lossy().starts_with("socket:") {
        return Err(Error::new(ErrorKind::InvalidInput, format!("a socket was expected, {} came", target.display())));
    }
    // SAFETY: `from_raw_fd` needs an open descriptor that nobody else owns. It is open: /proc knew
    // it just now. Nobody else owns it: it is not one of the standard streams (the argument parser
    // asks for 3 or more), and this program has opened nothing of its own yet, so it is inherited.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

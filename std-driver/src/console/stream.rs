//! A descriptor that is read or written without waiting.

use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use crate::system_error::SystemError;

/// A descriptor in non-blocking mode, which gets its old mode back at the end: a shell may have lent its terminal.
#[derive(Debug)]
pub(super) struct Stream {
    descriptor: OwnedFd,
    before: OFlags,
}

impl Stream {
    /// Takes two descriptors, which may be the same open file: the modes of both are looked at before either is changed.
    pub(super) fn pair(first: OwnedFd, second: OwnedFd) -> Result<(Self, Self), SystemError> {
        let modes = [&first, &second].map(|descriptor| fcntl_getfl(descriptor).map_err(SystemError::of("fcntl")));
        let [first_mode, second_mode] = modes;
        let first = Self { descriptor: first, before: first_mode? };
        let second = Self { descriptor: second, before: second_mode? };
        for stream in [&first, &second] {
            fcntl_setfl(&stream.descriptor, stream.before | OFlags::NONBLOCK).map_err(SystemError::of("fcntl"))?;
        }
        Ok((first, second))
    }

    /// Reads into `buffer`; how many bytes. None if nothing is there now, or nobody will ever type any more.
    pub(super) fn read(&self, buffer: &mut [u8]) -> usize {
        rustix::io::retry_on_intr(|| rustix::io::read(&self.descriptor, &mut *buffer)).unwrap_or(0)
    }

    /// Writes the beginning of `bytes`; how many. All of them if nobody will ever read any more.
    pub(super) fn write(&self, bytes: &[u8]) -> usize {
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.descriptor, bytes)) {
            Ok(count) => count,
            Err(Errno::AGAIN) => 0,
            Err(_) => bytes.len(),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = fcntl_setfl(&self.descriptor, self.before);
    }
}

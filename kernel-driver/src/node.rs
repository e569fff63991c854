//! Opening device nodes.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use vhost_std::system_error::SystemError;

/// Opens a device node for reading and writing, without waiting when it is read.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, SystemError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| SystemError { call: "open", errno })
}

/// Takes a descriptor that somebody else has opened, and puts it into non-blocking mode.
pub(crate) fn adopt(descriptor: OwnedFd) -> Result<OwnedFd, SystemError> {
    let failed = |errno| SystemError { call: "fcntl", errno };
    let flags = fcntl_getfl(descriptor.as_fd()).map_err(failed)?;
    fcntl_setfl(descriptor.as_fd(), flags | OFlags::NONBLOCK).map_err(failed)?;
    Ok(descriptor)
}

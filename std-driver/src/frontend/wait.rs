//! Waiting for several descriptors at once.

use std::os::fd::BorrowedFd;

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{deadline::Deadline, system_error::SystemError};

/// Waits until one of the events, an error or a hang-up is there; which descriptors have one. `None` at the deadline.
pub(crate) fn wait_for_any<const N: usize>(
    descriptors: [(BorrowedFd<'_>, PollFlags); N],
    deadline: Deadline,
) -> Result<Option<[bool; N]>, SystemError> {
    let mut polled = descriptors.map(|(descriptor, events)| PollFd::from_borrowed_fd(descriptor, events));
    loop {
        // Computed anew in each round: a signal must not lengthen the wait. What the kernel cannot represent is for ever.
        let timeout = deadline.remaining().and_then(|remaining| Timespec::try_from(remaining).ok());
        match poll(&mut polled, timeout.as_ref()) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(polled.map(|polled| !polled.revents().is_empty()))),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(SystemError::of("poll")(errno)),
        }
    }
}

//! What a connection waits for, and what of it has come.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{deadline::Deadline, system_error::SystemError};

/// Which descriptors there is something to do at.
#[derive(Clone, Copy)]
pub(super) struct Ready {
    pub(super) main: bool,
    pub(super) notifier: bool,
    pub(super) channel: bool,
    pub(super) rings: bool,
}

impl Ready {
    /// Nobody has looked: any of them may be.
    pub(super) const UNKNOWN: Self = Self { main: true, notifier: true, channel: true, rings: true };
}

/// The descriptors of a connection, and the one that ends it.
pub(super) struct Descriptors<'c> {
    pub(super) main: BorrowedFd<'c>,
    pub(super) main_events: PollFlags,
    pub(super) notifier: BorrowedFd<'c>,
    pub(super) channel: Option<BorrowedFd<'c>>,
    pub(super) rings: Option<BorrowedFd<'c>>,
    pub(super) stop: BorrowedFd<'c>,
}

impl Descriptors<'_> {
    /// Waits for any of these, and no longer than the deadline; `None` when it is the one that ends the connection.
    pub(super) fn wait(&self, deadline: Deadline) -> Result<Option<Ready>, SystemError> {
        // Those that are always there first; each costs time in every call.
        let mut polled: heapless::Vec<PollFd<'_>, 5> = heapless::Vec::new();
        let optional = [self.channel, self.rings];
        let others = [self.notifier, self.stop].into_iter().chain(optional.into_iter().flatten());
        let main = PollFd::from_borrowed_fd(self.main, self.main_events);
        let others = others.map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
        polled.extend(core::iter::once(main).chain(others));
        let limit = deadline.remaining().and_then(|limit| Timespec::try_from(limit).ok());
        rustix::io::retry_on_intr(|| poll(&mut polled, limit.as_ref())).map_err(SystemError::of("poll"))?;
        let mut found = polled.iter().map(|polled| !polled.revents().is_empty());
        let mut next = |is_there: bool| is_there && found.next().unwrap_or(false);
        let (main, notifier, stop) = (next(true), next(true), next(true));
        let (channel, rings) = (next(self.channel.is_some()), next(self.rings.is_some()));
        Ok((!stop).then_some(Ready { main, notifier, channel, rings }))
    }
}

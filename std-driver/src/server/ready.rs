//! What a connection waits for, and what of it has come.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{deadline::Deadline, system_error::SystemError};

/// Which descriptors there is something to do at.
#[derive(Clone, Copy)]
pub(super) struct Ready {
    pub(super) main: bool,
    pub(super) notifier: bool,
    pub(super) iommu: bool,
    pub(super) channel: bool,
    pub(super) transfer: bool,
    pub(super) rings: bool,
}

impl Ready {
    /// Nobody has looked: any of them may be.
    pub(super) const UNKNOWN: Self =
        Self { main: true, notifier: true, iommu: true, channel: true, transfer: true, rings: true };
}

/// The descriptors of a connection, and the one that ends it.
pub(super) struct Descriptors<'c> {
    pub(super) main: BorrowedFd<'c>,
    pub(super) main_events: PollFlags,
    pub(super) notifier: BorrowedFd<'c>,
    pub(super) iommu: BorrowedFd<'c>,
    /// With what it is waited for.
    pub(super) channel: Option<(BorrowedFd<'c>, PollFlags)>,
    pub(super) transfer: Option<BorrowedFd<'c>>,
    pub(super) rings: Option<BorrowedFd<'c>>,
    pub(super) stop: BorrowedFd<'c>,
}

impl Descriptors<'_> {
    /// Waits for any of these, and no longer than the deadline; `None` when it is the one that ends the connection.
    pub(super) fn wait(&self, deadline: Deadline) -> Result<Option<Ready>, SystemError> {
        // Only those that are there: each costs time in every call.
        let mut polled: heapless::Vec<PollFd<'_>, 7> = heapless::Vec::new();
        let always = [self.notifier, self.iommu, self.stop];
        let readable = |descriptor: Option<_>| descriptor.map(|descriptor| (descriptor, PollFlags::IN));
        let optional = [self.channel, readable(self.transfer), readable(self.rings)];
        let always = always.map(|descriptor| (descriptor, PollFlags::IN));
        let others = always.into_iter().chain(optional.into_iter().flatten());
        let main = PollFd::from_borrowed_fd(self.main, self.main_events);
        let others = others.map(|(descriptor, events)| PollFd::from_borrowed_fd(descriptor, events));
        polled.extend(core::iter::once(main).chain(others));
        let limit = deadline.remaining().and_then(|limit| Timespec::try_from(limit).ok());
        rustix::io::retry_on_intr(|| poll(&mut polled, limit.as_ref())).map_err(SystemError::of("poll"))?;
        let mut found = polled.iter().map(|polled| !polled.revents().is_empty());
        let [main, notifier, iommu, stop] = core::array::from_fn(|_| found.next().unwrap_or(false));
        let [channel, transfer, rings] =
            optional.map(|descriptor| descriptor.is_some() && found.next().unwrap_or(false));
        Ok((!stop).then_some(Ready { main, notifier, iommu, channel, transfer, rings }))
    }
}

//! The kick descriptor of a ring, which is watched and never read; or a clock in its place, for a driver that does not kick.

use core::fmt;
use core::time::Duration;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use crate::poller::{Poller, Token, WatchError};
use crate::system_error::SystemError;

/// How long a driver that does not kick waits at most: a hundredth of a processor while nothing happens.
const CLOCK_PERIOD: Duration = Duration::from_millis(1);

/// The kick descriptor and the poller that watches it.
///
/// Closing a descriptor does not end epoll's interest in it while the peer holds a copy, so this unwatches before it closes.
#[derive(Default)]
pub(super) struct Kick {
    fd: Option<OwnedFd>,
    /// Whether the descriptor is a clock of our own.
    is_clock: bool,
    watch: Option<(Arc<Poller>, Token)>,
}

impl Kick {
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// The new descriptor is watched before the old one is let go, so that a refusal changes nothing.
    pub(super) fn replace(&mut self, fd: Option<OwnedFd>) -> Result<(), WatchError> {
        if let (Some(fd), Some((poller, token))) = (&fd, &self.watch) {
            poller.watch(fd.as_fd(), *token)?;
        }
        self.release();
        self.fd = fd;
        Ok(())
    }

    /// A clock takes the place of the descriptor. It stands still until it is wound.
    pub(super) fn replace_by_clock(&mut self) -> Result<(), WatchError> {
        let clock = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
            .map_err(|errno| WatchError::System(SystemError { call: "timerfd_create", errno }))?;
        self.replace(Some(clock))?;
        self.is_clock = true;
        Ok(())
    }

    /// Has the clock, if there is one, kick once after its period. It need not be read: winding it forgets the last time.
    pub(super) fn wind_clock(&self) {
        if let Some(clock) = self.fd.as_ref().filter(|_| self.is_clock)
            && let Ok(it_value) = CLOCK_PERIOD.try_into()
        {
            let once = Itimerspec { it_interval: Default::default(), it_value };
            // It can only fail for a descriptor that is no clock.
            let _ = timerfd_settime(clock, TimerfdTimerFlags::empty(), &once);
        }
    }

    pub(super) fn watch(&mut self, poller: Arc<Poller>, token: Token) -> Result<(), WatchError> {
        self.unwatch();
        if let Some(fd) = &self.fd {
            poller.watch(fd.as_fd(), token)?;
        }
        self.watch = Some((poller, token));
        Ok(())
    }

    pub(super) fn unwatch(&mut self) {
        if let (Some(fd), Some((poller, _))) = (&self.fd, &self.watch) {
            poller.unwatch(fd.as_fd());
        }
        self.watch = None;
    }

    /// Has the ring scanned as if it had been kicked.
    pub(super) fn schedule(&self) {
        if let Some((poller, token)) = &self.watch {
            poller.schedule(*token);
        }
    }

    fn release(&mut self) {
        if let (Some(fd), Some((poller, _))) = (&self.fd, &self.watch) {
            poller.unwatch(fd.as_fd());
        }
        self.fd = None;
        self.is_clock = false;
    }
}

impl Drop for Kick {
    fn drop(&mut self) {
        self.release();
    }
}

impl fmt::Debug for Kick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.watch.as_ref().map(|(_, token)| token);
        f.debug_struct("Kick").field("fd", &self.fd).field("is_clock", &self.is_clock).field("token", &token).finish()
    }
}

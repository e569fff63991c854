//! The kick descriptor of a ring, which is watched and never read.

use core::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::poller::{Poller, Token, WatchError};

/// The kick descriptor and the poller that watches it.
///
/// Closing a descriptor does not end epoll's interest in it while the peer holds a copy, so this unwatches before it closes.
#[derive(Default)]
pub(super) struct Kick {
    fd: Option<OwnedFd>,
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
        f.debug_struct("Kick").field("fd", &self.fd).field("token", &token).finish()
    }
}

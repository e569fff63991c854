//! Waiting for kicks: an `epoll` instance that many threads may change while one waits on it.
//!
//! Descriptors are watched edge-triggered and never read: every write to an eventfd is reported once, read or not. A
//! descriptor that always has something to say, or that hung up, cannot keep the waiting thread busy, and none can block
//! it.

use core::fmt;
use core::time::Duration;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::eventfd::EventFd;
use crate::system_error::SystemError;

/// Events fetched with one system call.
const BATCH: usize = 32;

/// The caller's name for what it watches; any value but `u64::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What is waited for on a descriptor. A hang-up or an error counts as either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// There is something to read.
    Readable,
    /// There is room to write.
    Writable,
}

/// Marks the poller's own eventfd.
const WAKE: Token = Token(u64::MAX);

/// Watches descriptors, and takes messages from other threads that something is due.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    wake: EventFd,
    due: Mutex<Vec<Token>>,
}

impl Poller {
    /// An empty poller.
    ///
    /// # Errors
    /// When the process or the system has no descriptors left.
    pub fn new() -> Result<Self, SystemError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(SystemError::of("epoll_create1"))?;
        let wake = EventFd::new()?;
        let poller = Self { epoll, wake, due: Mutex::new(Vec::new()) };
        add(&poller.epoll, poller.wake.as_fd(), Readiness::Readable, WAKE).map_err(SystemError::of("epoll_ctl"))?;
        Ok(poller)
    }

    /// Reports `token` whenever `fd` becomes readable or hangs up. The caller unwatches `fd` before it closes it.
    ///
    /// # Errors
    /// When the descriptor cannot be waited for (a regular file), is being watched already, or the system refuses.
    pub fn watch(&self, fd: BorrowedFd<'_>, token: Token) -> Result<(), WatchError> {
        self.watch_for(fd, Readiness::Readable, token)
    }

    /// As [`watch`](Self::watch), for what `fd` becomes.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub fn watch_for(&self, fd: BorrowedFd<'_>, readiness: Readiness, token: Token) -> Result<(), WatchError> {
        add(&self.epoll, fd, readiness, token).map_err(|errno| match errno {
            Errno::PERM => WatchError::NotPollable,
            Errno::EXIST => WatchError::AlreadyWatched,
            errno => WatchError::System(SystemError { call: "epoll_ctl", errno }),
        })
    }

    /// Stops watching `fd`. An event that was under way may still be reported once.
    pub fn unwatch(&self, fd: BorrowedFd<'_>) {
        // The only failure is that it was not watched.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Makes [`Poller::wait`] report `token` soon, from any thread.
    pub fn schedule(&self, token: Token) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        // Who is on the list already has a wake-up under way, and a list of every request would grow without bound.
        if !due.contains(&token) {
            due.push(token);
            drop(due);
            self.wake();
        }
    }

    /// Makes the next [`Poller::wait`] report `token` at once. One that is under way goes on, and so does who waits for
    /// [`Poller::fd`].
    pub(crate) fn keep(&self, token: Token) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        if !due.contains(&token) {
            due.push(token);
        }
    }

    fn has_due(&self) -> bool {
        !self.due.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Makes [`Poller::wait`] return soon, from any thread.
    pub fn wake(&self) {
        // No peer has this descriptor, so that nothing can be wrong with it.
        let _ = self.wake.signal();
    }

    /// Waits until something is reported or scheduled, `timeout` has passed (`None`: for ever), or a signal came, and adds
    /// what happened to `tokens`. One token may be there twice.
    ///
    /// # Errors
    /// When the system call fails, which only a bug can cause.
    pub fn wait(&self, timeout: Option<Duration>, tokens: &mut Vec<Token>) -> Result<(), SystemError> {
        // A duration beyond the system's range is as good as none.
        let timeout = if self.has_due() { Some(Duration::ZERO) } else { timeout };
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let nothing = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [nothing; BATCH];
        let count = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            Err(errno) => {
                return Err(SystemError { call: "epoll_wait", errno });
            }
        };
        let reported = events.iter().take(count).map(|event| Token(event.data.u64()));
        tokens.extend(reported.filter(|token| *token != WAKE));
        tokens.append(&mut self.due.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// Becomes readable when [`Poller::wait`] has something to report; for the caller's own event loop.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn add(epoll: &OwnedFd, fd: BorrowedFd<'_>, readiness: Readiness, token: Token) -> Result<(), Errno> {
    let awaited = match readiness {
        Readiness::Readable => epoll::EventFlags::IN,
        Readiness::Writable => epoll::EventFlags::OUT,
    };
    epoll::add(epoll, fd, epoll::EventData::new_u64(token.0), awaited | epoll::EventFlags::ET)
}

/// A descriptor cannot be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchError {
    /// A regular file or directory: it is always ready, and the kernel refuses to wait for it.
    NotPollable,
    /// The same descriptor is in the poller already.
    AlreadyWatched,
    /// The kernel refused for another reason.
    System(SystemError),
}

impl fmt::Display for WatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPollable => f.write_str("a descriptor to wait for was expected, a regular file or directory came"),
            Self::AlreadyWatched => f.write_str("this descriptor is being watched already"),
            Self::System(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for WatchError {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

    use super::*;

    const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

    fn reported(poller: &Poller) -> Vec<Token> {
        let mut tokens = Vec::new();
        poller.wait(AT_ONCE, &mut tokens).unwrap();
        tokens
    }

    fn kick(fd: &OwnedFd) {
        assert_eq!(rustix::io::write(fd, &1_u64.to_ne_bytes()), Ok(8));
    }

    fn new_eventfd() -> OwnedFd {
        eventfd(0, EventfdFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn each_write_to_an_eventfd_is_reported_once_without_reading_it() {
        let (poller, fd) = (Poller::new().unwrap(), new_eventfd());
        poller.watch(fd.as_fd(), Token(3)).unwrap();
        for _ in 0..5 {
            kick(&fd);
            assert_eq!(reported(&poller), [Token(3)]);
            assert_eq!(reported(&poller), []);
        }
    }

    #[test]
    fn a_kick_before_watching_is_reported() {
        let (poller, fd) = (Poller::new().unwrap(), new_eventfd());
        kick(&fd);
        poller.watch(fd.as_fd(), Token(3)).unwrap();
        assert_eq!(reported(&poller), [Token(3)]);
    }

    #[test]
    fn a_pipe_whose_writer_went_away_is_reported_once() {
        let poller = Poller::new().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        poller.watch(read.as_fd(), Token(1)).unwrap();
        drop(write);
        assert_eq!(reported(&poller), [Token(1)]);
        assert_eq!(reported(&poller), []);
    }

    #[test]
    fn a_regular_file_is_refused_by_name() {
        let poller = Poller::new().unwrap();
        let file = tempfile::tempfile().unwrap();
        assert_eq!(poller.watch(file.as_fd(), Token(1)), Err(WatchError::NotPollable));
        let fd = new_eventfd();
        poller.watch(fd.as_fd(), Token(1)).unwrap();
        assert_eq!(poller.watch(fd.as_fd(), Token(2)), Err(WatchError::AlreadyWatched));
    }

    #[test]
    fn after_unwatch_nothing_more_is_reported_although_others_hold_the_eventfd() {
        let (poller, fd) = (Poller::new().unwrap(), new_eventfd());
        let theirs = fd.try_clone().unwrap();
        poller.watch(fd.as_fd(), Token(1)).unwrap();
        poller.unwatch(fd.as_fd());
        drop(fd);
        kick(&theirs);
        assert_eq!(reported(&poller), []);
    }

    #[test]
    fn scheduling_from_another_thread_ends_the_wait() {
        let poller = Arc::new(Poller::new().unwrap());
        let other = Arc::clone(&poller);
        let thread = std::thread::spawn(move || other.schedule(Token(9)));
        let mut tokens = Vec::new();
        while tokens.is_empty() {
            poller.wait(None, &mut tokens).unwrap();
        }
        thread.join().unwrap();
        assert_eq!(tokens, [Token(9)]);
        poller.wake();
        poller.wait(None, &mut tokens).unwrap();
        assert_eq!(tokens, [Token(9)], "a bare wake-up reports nothing");
    }

    #[test]
    fn what_is_scheduled_many_times_is_reported_once() {
        let poller = Poller::new().unwrap();
        for token in [4, 5, 4, 4, 5] {
            poller.schedule(Token(token));
        }
        assert_eq!(reported(&poller), [Token(4), Token(5)]);
        poller.schedule(Token(4));
        assert_eq!(reported(&poller), [Token(4)]);
    }

    #[test]
    fn its_descriptor_is_readable_while_something_is_due() {
        let poller = Poller::new().unwrap();
        let readable = |poller: &Poller| {
            let mut fds = [PollFd::from_borrowed_fd(poller.fd(), PollFlags::IN)];
            poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
        };
        assert_eq!(reported(&poller), []);
        assert!(!readable(&poller));
        poller.schedule(Token(4));
        assert!(readable(&poller));
        assert_eq!(reported(&poller), [Token(4)]);
        assert!(!readable(&poller));
    }
}

//! Event counters: kicks and calls between the two sides of a ring.

mod error;
mod kernel_signal;
mod signal_ring;

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, readlink};
use rustix::io::{Errno, ReadWriteFlags};

pub use self::error::EventFdError;
use self::signal_ring::SignalRing;
use crate::deadline::{Deadline, Wait};
use crate::file_kind;
use crate::system_error::SystemError;

/// What `/proc` calls an eventfd. No path can look like it, as paths begin with a slash.
const EVENTFD_LINK: &[u8] = b"anon_inode:[eventfd]";

/// An eventfd: a counter that one side signals and the other side drains.
///
/// A descriptor that a peer has sent becomes one by `EventFd::try_from(descriptor)`, which refuses
/// everything that is not an eventfd: writing to a regular file would fill a disk, to a pipe or a
/// socket whose other end is closed would raise `SIGPIPE`, to a pipe that is full would block.
/// Linux peers have no reason to send anything else.
///
/// The peer shares the file and may at any time put it into blocking mode, or fill the counter.
/// Neither makes a call block, and the mode is never changed, as a peer may rely on it. Draining asks
/// for no wait by a flag of the call. A signal to an eventfd of a peer is given by the kernel, as the
/// completion of an operation that it was asked for, and never waits then: an operation of an `io_uring`
/// if the eventfd is signalled often, which takes little longer than writing to it and a descriptor
/// more, and an asynchronous one (see `io_submit`) if not, or if there is no `io_uring`. Where the system
/// has neither, or a sandbox refuses them, the mode is looked at before each write instead; then a peer that both changes the
/// mode and fills the counter *between* two system calls can hold a signal up, until somebody drains
/// the counter. So it is with an eventfd of one's own that a hostile peer was given.
///
/// ```
/// use vhost_std::deadline::Deadline;
/// use vhost_std::eventfd::EventFd;
///
/// # fn main() -> Result<(), Box<dyn core::error::Error>> {
/// let kick = EventFd::new()?;
/// kick.signal()?;
/// kick.signal()?;
/// assert_eq!(kick.wait(Deadline::NEVER)?, Some(2));
/// assert_eq!(kick.drain()?, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct EventFd {
    descriptor: OwnedFd,
    origin: Origin,
    ring: SignalRing,
}

/// Who has made an eventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    This,
    Peer,
}

impl EventFd {
    /// A new counter at zero, close-on-exec and in non-blocking mode.
    ///
    /// # Errors
    /// The errno of `eventfd`, for example `EMFILE`.
    pub fn new() -> Result<Self, SystemError> {
        let descriptor =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(SystemError::of("eventfd"))?;
        Ok(Self::of(descriptor, Origin::This))
    }

    fn of(descriptor: OwnedFd, origin: Origin) -> Self {
        Self { descriptor, origin, ring: SignalRing::default() }
    }

    /// A second descriptor of the same counter.
    ///
    /// # Errors
    /// The errno of `fcntl`, for example `EMFILE`.
    pub fn try_clone(&self) -> Result<Self, SystemError> {
        let descriptor = rustix::io::fcntl_dupfd_cloexec(&self.descriptor, 0).map_err(SystemError::of("fcntl"))?;
        Ok(Self::of(descriptor, self.origin))
    }

    /// Adds one to the counter. A counter that is full will wake its reader anyway, so that counts
    /// as done.
    ///
    /// # Errors
    /// The errno of `write` or of `fcntl`.
    pub fn signal(&self) -> Result<(), SystemError> {
        let by_kernel = match self.origin {
            Origin::Peer => self.ring.signal(self.as_fd()).or_else(|| kernel_signal::signal(self.as_fd())),
            Origin::This => None,
        };
        by_kernel.map_or_else(|| self.signal_by_write(), Ok)
    }

    fn signal_by_write(&self) -> Result<(), SystemError> {
        let mode = fcntl_getfl(&self.descriptor).map_err(SystemError::of("fcntl"))?;
        if !mode.contains(OFlags::NONBLOCK) && !self.is_ready(PollFlags::OUT)? {
            return Ok(());
        }
        let one = 1_u64.to_ne_bytes();
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.descriptor, &one)) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(SystemError::of("write")(errno)),
        }
    }

    /// Takes the count and sets it back to zero; zero if nobody has signalled. Never waits.
    ///
    /// # Errors
    /// The errno of `preadv2`.
    pub fn drain(&self) -> Result<u64, SystemError> {
        let mut count = [0; size_of::<u64>()];
        let outcome = rustix::io::retry_on_intr(|| {
            let mut vector = [IoSliceMut::new(&mut count)];
            // An offset of -1 stands for a file that has none.
            let flags = ReadWriteFlags::NOWAIT;
            rustix::io::preadv2(&self.descriptor, &mut vector, u64::MAX, flags)
        });
        match outcome {
            Ok(_) => Ok(u64::from_ne_bytes(count)),
            Err(Errno::AGAIN) => Ok(0),
            // Before Linux 5.8, or where a filter knows only the old calls.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.drain_after_poll(),
            Err(errno) => Err(SystemError::of("preadv2")(errno)),
        }
    }

    /// Waits until the counter is not zero, takes the count and sets it back to zero.
    ///
    /// `None` if the deadline came first.
    ///
    /// # Errors
    /// As [`drain`](Self::drain), or the errno of `poll`.
    pub fn wait(&self, deadline: Deadline) -> Result<Option<u64>, SystemError> {
        loop {
            match self.drain()? {
                0 => {}
                count => return Ok(Some(count)),
            }
            if deadline.wait_for(self.as_fd(), PollFlags::IN)? == Wait::Expired {
                return Ok(None);
            }
        }
    }

    fn drain_after_poll(&self) -> Result<u64, SystemError> {
        if !self.is_ready(PollFlags::IN)? {
            return Ok(0);
        }
        let mut count = [0; size_of::<u64>()];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.descriptor, &mut count)) {
            Ok(_) => Ok(u64::from_ne_bytes(count)),
            Err(Errno::AGAIN) => Ok(0),
            Err(errno) => Err(SystemError::of("read")(errno)),
        }
    }

    /// Whether `event` is there right now. An overflown counter reports an error, which is not it.
    fn is_ready(&self, event: PollFlags) -> Result<bool, SystemError> {
        const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut polled = [PollFd::new(&self.descriptor, event)];
        rustix::io::retry_on_intr(|| poll(&mut polled, Some(&AT_ONCE))).map_err(SystemError::of("poll"))?;
        Ok(polled.iter().any(|polled| polled.revents().contains(event)))
    }
}

impl TryFrom<OwnedFd> for EventFd {
    type Error = EventFdError;

    /// Takes `descriptor` if it is an eventfd, and closes it if not. Its mode stays as it is.
    fn try_from(descriptor: OwnedFd) -> Result<Self, EventFdError> {
        check_kind(descriptor.as_fd())?;
        Ok(Self::of(descriptor, Origin::Peer))
    }
}

impl From<EventFd> for OwnedFd {
    fn from(event: EventFd) -> Self {
        event.descriptor
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn check_kind(descriptor: BorrowedFd<'_>) -> Result<(), EventFdError> {
    // The descriptors of this thread: a thread may have a table of its own.
    let path = format!("/proc/thread-self/fd/{}", descriptor.as_raw_fd());
    match readlink(path, Vec::new()) {
        Ok(link) if link.as_bytes() == EVENTFD_LINK => Ok(()),
        Ok(link) => Err(EventFdError::WrongKind { found: link.to_string_lossy().into_owned() }),
        // No /proc, as in many sandboxes.
        Err(_) => check_kind_without_proc(descriptor),
    }
}

/// Excludes everything that can be written to with harm: files, devices, pipes and sockets.
///
/// What stays are the files that the kernel makes without a file type. Next to eventfds these are
/// for example epoll and timer descriptors, and those take no writes.
fn check_kind_without_proc(descriptor: BorrowedFd<'_>) -> Result<(), EventFdError> {
    let stat = fstat(descriptor).map_err(SystemError::of("fstat"))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Unknown => Ok(()),
        kind => Err(EventFdError::WrongKind { found: file_kind::name_of(kind).to_owned() }),
    }
}

#[cfg(test)]
mod tests;

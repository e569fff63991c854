//! Deadlines: the moment after which a blocking call gives up.

use core::time::Duration;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::system_error::SystemError;

/// The moment after which a blocking call gives up, or never.
///
/// A deadline is a point in time and not a length of time, so that one value covers all the
/// steps of a longer operation, for example a request and its reply.
///
/// ```
/// use core::time::Duration;
/// use vhost_std::deadline::Deadline;
///
/// let deadline = Deadline::after(Duration::from_secs(5));
/// assert!(deadline.remaining() <= Some(Duration::from_secs(5)));
/// assert_eq!(Deadline::NEVER.remaining(), None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Deadline {
    moment: Option<Instant>,
}

impl Deadline {
    /// No limit. The default.
    pub const NEVER: Self = Self { moment: None };

    /// `duration` from now. One that lies too far ahead to be represented is [`NEVER`](Self::NEVER).
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        Self { moment: Instant::now().checked_add(duration) }
    }

    /// At `moment`; one that has passed makes a call take what is there and wait for nothing.
    #[must_use]
    pub const fn at(moment: Instant) -> Self {
        Self { moment: Some(moment) }
    }

    /// Whether there is no limit at all.
    #[must_use]
    pub const fn is_never(self) -> bool {
        self.moment.is_none()
    }

    /// The time that is left, zero once it has passed; `None` without a limit.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        self.moment.map(|moment| moment.saturating_duration_since(Instant::now()))
    }

    /// Whether the moment is over.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }

    /// Waits until one of `events`, an error or a hang-up is there, or until the deadline.
    ///
    /// Looks at the descriptor at least once, also when the deadline has passed.
    pub(crate) fn wait_for(self, descriptor: BorrowedFd<'_>, events: PollFlags) -> Result<Wait, SystemError> {
        loop {
            // Computed anew in each round: a signal must not lengthen the wait.
            let timeout = self.remaining().map(to_timespec);
            let mut polled = [PollFd::from_borrowed_fd(descriptor, events)];
            match poll(&mut polled, timeout.as_ref()) {
                Ok(0) => return Ok(Wait::Expired),
                Ok(_) => return Ok(Wait::Ready),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(SystemError::of("poll")(errno)),
            }
        }
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The next call on the descriptor will not block.
    Ready,
    /// The deadline came first.
    Expired,
}

/// The longest time that the kernel takes, if `duration` is longer.
fn to_timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_deadline_beyond_the_clock_is_no_deadline() {
        assert_eq!(Deadline::after(Duration::MAX), Deadline::NEVER);
        assert!(Deadline::default().is_never());
    }

    #[test]
    fn remaining_counts_down_to_zero_and_stays_there() {
        let hour = Duration::from_secs(3600);
        let first = Deadline::after(hour).remaining().unwrap();
        assert!(first <= hour && first > Duration::ZERO);
        let passed = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        assert_eq!(Deadline::at(passed).remaining(), Some(Duration::ZERO));
        assert!(Deadline::at(passed).has_passed());
        assert!(!Deadline::after(hour).has_passed() && !Deadline::NEVER.has_passed());
    }

    #[test]
    fn the_longest_timeout_is_one_that_the_kernel_takes() {
        assert_eq!(to_timespec(Duration::MAX).tv_sec, i64::MAX);
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"x").unwrap();
        let mut polled = [PollFd::new(&reader, PollFlags::IN)];
        let timeout = to_timespec(Duration::MAX);
        assert_eq!(poll(&mut polled, Some(&timeout)), Ok(1));
    }

    #[test]
    fn a_wait_ends_at_the_deadline_but_looks_first() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let passed = Deadline::after(Duration::ZERO);
        let wait = || passed.wait_for(reader.as_fd(), PollFlags::IN);
        assert_eq!(wait(), Ok(Wait::Expired));
        writer.write_all(b"x").unwrap();
        assert_eq!(wait(), Ok(Wait::Ready));
    }

    #[test]
    fn a_wait_does_not_end_before_the_deadline() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let moment = Instant::now() + Duration::from_millis(20);
        let wait = Deadline::at(moment).wait_for(reader.as_fd(), PollFlags::IN);
        assert_eq!(wait, Ok(Wait::Expired));
        assert!(Instant::now() >= moment);
    }

    #[test]
    fn a_hang_up_ends_a_wait() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(writer);
        let wait = Deadline::NEVER.wait_for(reader.as_fd(), PollFlags::IN);
        assert_eq!(wait, Ok(Wait::Ready));
    }
}

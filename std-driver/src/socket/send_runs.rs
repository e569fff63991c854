//! Sending many runs of bytes, each with its own descriptors, in one system call.

use core::mem::MaybeUninit;
use core::sync::atomic::Ordering;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmmsg};

use super::{MAX_HANDLES, Socket, SocketError};
use crate::deadline::{Deadline, Wait};
use crate::system_error::SystemError;

/// Bytes, and the descriptors that go with the first of them.
#[derive(Clone, Copy, Debug)]
pub struct Run<'r> {
    /// One message or more. Only the first has descriptors.
    pub bytes: &'r [u8],
    /// The descriptors, at most [`MAX_HANDLES`].
    pub handles: &'r [BorrowedFd<'r>],
}

/// Runs in one system call. The room for their descriptors is on the stack.
const AT_ONCE: usize = 32;

const SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_HANDLES));

impl Socket {
    /// Sends all of these, in order: one system call for up to 32, as long as the kernel takes everything at once.
    ///
    /// # Errors
    /// As [`send`](Self::send): after a timeout before the first byte the call may be repeated, after any other error that
    /// comes later nothing more can be sent.
    pub fn send_runs(&self, runs: &[Run<'_>], deadline: Deadline) -> Result<(), SocketError> {
        for run in runs {
            self.check_sendable(run.bytes, run.handles)?;
        }
        let length = runs.iter().map(|run| run.bytes.len()).sum();
        let (mut rest, mut sent) = (runs, 0);
        while !rest.is_empty() {
            let step = self.send_some(rest, deadline);
            match step {
                Ok(Some((whole, bytes))) => {
                    sent += bytes;
                    rest = rest.get(whole..).unwrap_or_default();
                    continue;
                }
                Ok(None) => match deadline.wait_for(self.as_fd(), PollFlags::OUT) {
                    Ok(Wait::Ready) => continue,
                    Ok(Wait::Expired) if sent == 0 => return Err(SocketError::TimedOut),
                    Ok(Wait::Expired) => self.break_sending(),
                    Err(error) => {
                        self.break_sending();
                        return Err(error.into());
                    }
                },
                // The rest of a run did not go, and the peer has its beginning.
                Err(SocketError::TimedOut | SocketError::TimedOutPartWay { .. }) => self.break_sending(),
                Err(error) => {
                    if sent > 0 {
                        self.break_sending();
                    }
                    return Err(error);
                }
            }
            return Err(SocketError::TimedOutPartWay { sent, length });
        }
        Ok(())
    }

    /// One system call, and more for the rest of a run that was taken in part: how many runs and bytes went. `None` if it
    /// would have to wait.
    fn send_some(&self, runs: &[Run<'_>], deadline: Deadline) -> Result<Option<(usize, usize)>, SocketError> {
        let Some((whole, last)) = transmit(self.as_fd(), runs, deadline)? else { return Ok(None) };
        let bytes = runs.iter().take(whole).map(|run| run.bytes.len()).sum();
        let Some(run) = whole.checked_sub(1).and_then(|at| runs.get(at)) else { return Ok(None) };
        let rest = run.bytes.get(last..).unwrap_or_default();
        if !rest.is_empty() {
            // The peer has the beginning: there is no way back.
            self.send(rest, &[], deadline).inspect_err(|_| self.break_sending())?;
        }
        Ok(Some((whole, bytes)))
    }

    fn break_sending(&self) {
        self.sending_broken.store(true, Ordering::Relaxed);
    }
}

/// How many runs were taken, and how many bytes of the last of them.
fn transmit(
    socket: BorrowedFd<'_>,
    runs: &[Run<'_>],
    deadline: Deadline,
) -> Result<Option<(usize, usize)>, SystemError> {
    // Without a limit the kernel may as well do the waiting, in the same call.
    let flags = if deadline.is_never() { SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL | SendFlags::DONTWAIT };
    let runs = runs.get(..AT_ONCE).unwrap_or(runs);
    let mut spaces = [[MaybeUninit::uninit(); SPACE]; AT_ONCE];
    let vectors: heapless::Vec<_, AT_ONCE> = runs.iter().map(|run| [IoSlice::new(run.bytes)]).collect();
    let mut controls: heapless::Vec<_, AT_ONCE> = runs
        .iter()
        .zip(&mut spaces)
        .map(|(run, space)| {
            let mut control = SendAncillaryBuffer::new(space);
            let fits = run.handles.is_empty() || control.push(SendAncillaryMessage::ScmRights(run.handles));
            debug_assert!(fits, "the caller checks that there are at most MAX_HANDLES");
            control
        })
        .collect();
    let mut headers: heapless::Vec<_, AT_ONCE> =
        vectors.iter().zip(&mut controls).map(|(vector, control)| MMsgHdr::new(vector, control)).collect();
    loop {
        return match sendmmsg(socket, &mut headers, flags) {
            Ok(count) => {
                let last = count.checked_sub(1).and_then(|at| headers.get(at));
                Ok(Some((count, last.map_or(0, MMsgHdr::bytes_sent))))
            }
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(SystemError::of("sendmmsg")(errno)),
        };
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::socket::Received;

    fn passed() -> Deadline {
        Deadline::after(Duration::ZERO)
    }

    /// What came in how many system calls, each with its descriptors.
    fn drain(socket: &Socket) -> Vec<(Vec<u8>, usize)> {
        let mut all = Vec::new();
        let mut buffer = vec![0; 1 << 20];
        while let Some(Received::Data { bytes, handles }) = socket.try_receive(&mut buffer).unwrap() {
            all.push((buffer[..bytes].to_vec(), handles.len()));
        }
        all
    }

    /// The promise that reading ahead rests on, and what a sender must do for it.
    #[test]
    fn the_kernel_ends_a_read_behind_the_first_run_with_descriptors() {
        let (near, far) = Socket::pair().unwrap();
        let fd = near.as_fd();
        let runs = [("A", 0), ("B", 1), ("C", 0), ("D", 2), ("E", 0), ("F", 0)];
        let expected = [("AB", 1), ("CD", 2), ("EF", 0)].map(|(bytes, count)| (bytes.as_bytes().to_vec(), count));
        for (bytes, count) in runs {
            near.send(bytes.as_bytes(), &[fd; 2][..count], Deadline::NEVER).unwrap();
        }
        assert_eq!(drain(&far), expected);
        let together = runs.map(|(bytes, count)| (bytes.as_bytes(), [fd; 2], count));
        let together =
            Vec::from_iter(together.iter().map(|(bytes, handles, count)| Run { bytes, handles: &handles[..*count] }));
        near.send_runs(&together, Deadline::NEVER).unwrap();
        assert_eq!(drain(&far), expected, "one call is the same as many");
    }

    #[test]
    fn more_runs_than_go_at_once_arrive_in_order() {
        let (near, far) = Socket::pair().unwrap();
        let bytes = Vec::from_iter(0..=255_u8);
        let fd = [near.as_fd()];
        let runs = Vec::from_iter(bytes.chunks(1).map(|bytes| Run { bytes, handles: &fd }));
        for deadline in [Deadline::NEVER, Deadline::after(Duration::from_secs(3600))] {
            near.send_runs(&runs[..100], deadline).unwrap();
            let arrived = drain(&far);
            assert!(arrived.iter().all(|(bytes, handles)| bytes.len() == 1 && *handles == 1));
            assert!(arrived.iter().flat_map(|(bytes, _)| bytes).copied().eq(0..100));
        }
    }

    #[test]
    fn runs_longer_than_the_buffer_go_on_when_there_is_room() {
        let (near, far) = Socket::pair().unwrap();
        let bytes = Vec::from_iter((0..3_000_000_u32).map(|at| (at % 251) as u8));
        let runs = [&bytes[..10], &bytes[10..2_000_000], &bytes[2_000_000..]].map(|bytes| Run { bytes, handles: &[] });
        for deadline in [Deadline::NEVER, Deadline::after(Duration::from_secs(3600))] {
            let mut received = Vec::new();
            std::thread::scope(|scope| {
                let sender = scope.spawn(|| near.send_runs(&runs, deadline));
                let mut buffer = vec![0; 65536];
                while received.len() < bytes.len() {
                    let Received::Data { bytes, .. } = far.receive(&mut buffer, Deadline::NEVER).unwrap() else {
                        panic!("the stream ended after {} bytes", received.len());
                    };
                    received.extend_from_slice(&buffer[..bytes]);
                }
                sender.join().unwrap().unwrap();
            });
            assert!(received == bytes);
        }
    }

    #[test]
    fn a_timeout_before_the_first_byte_breaks_nothing_and_a_later_one_does() {
        let (near, far) = Socket::pair().unwrap();
        let block = vec![0; 1 << 16];
        while near.try_send(&block, &[]).unwrap().is_some() {}
        while near.try_send(&[0], &[]).unwrap().is_some() {}
        let short = [Run { bytes: b"x", handles: &[] }; 2];
        assert_eq!(near.send_runs(&short, passed()), Err(SocketError::TimedOut));
        drain(&far);
        near.send_runs(&short, passed()).unwrap();
        let long = [Run { bytes: &block, handles: &[] }; 64];
        assert!(matches!(near.send_runs(&long, passed()), Err(SocketError::TimedOutPartWay { .. })));
        assert!(near.is_sending_broken());
    }

    #[test]
    fn misuse_and_a_peer_that_has_gone_are_errors() {
        let (near, far) = Socket::pair().unwrap();
        let empty = [Run { bytes: b"x", handles: &[] }, Run { bytes: b"", handles: &[] }];
        assert_eq!(near.send_runs(&empty, Deadline::NEVER), Err(SocketError::NothingToSend));
        let handles = [near.as_fd(); MAX_HANDLES + 1];
        let many = [Run { bytes: b"x", handles: &handles }];
        assert_eq!(near.send_runs(&many, Deadline::NEVER), Err(SocketError::TooManyGiven { given: 9 }));
        assert!(drain(&far).is_empty());
        drop(far);
        let gone = near.send_runs(&empty[..1], Deadline::NEVER);
        assert_eq!(gone, Err(SystemError { call: "sendmmsg", errno: Errno::PIPE }.into()));
    }
}

//! Sending bytes, with descriptors on the first of them.

use core::mem::MaybeUninit;
use core::sync::atomic::Ordering;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::{MAX_HANDLES, Socket, SocketError};
use crate::deadline::{Deadline, Wait};
use crate::system_error::SystemError;

impl Socket {
    /// Sends all of `bytes`, with `handles` on the first byte.
    ///
    /// One system call, as long as the kernel takes everything at once. What it leaves is sent
    /// after it, without descriptors.
    ///
    /// # Errors
    /// - [`TimedOut`](SocketError::TimedOut): nothing was sent, the call may be repeated.
    /// - [`TimedOutPartWay`](SocketError::TimedOutPartWay), or any other error after the first
    ///   byte: the peer waits for the rest of a message that it will not get. All later sends
    ///   fail with [`SendingBroken`](SocketError::SendingBroken).
    /// - [`TooManyGiven`](SocketError::TooManyGiven), [`NothingToSend`](SocketError::NothingToSend):
    ///   nothing was sent.
    /// - [`System`](SocketError::System): `EPIPE` if the peer has closed its end.
    pub fn send(&self, bytes: &[u8], handles: &[BorrowedFd<'_>], deadline: Deadline) -> Result<(), SocketError> {
        self.check_sendable(bytes, handles)?;
        // Without a limit the kernel may as well do the waiting, in the same call.
        let flags = if deadline.is_never() { SendFlags::empty() } else { SendFlags::DONTWAIT };
        let mut rest = bytes;
        let mut handles = handles;
        while !rest.is_empty() {
            let step = match transmit(self.as_fd(), rest, handles, flags) {
                Ok(Some(sent)) => {
                    rest = rest.get(sent..).unwrap_or_default();
                    handles = &[];
                    Ok(())
                }
                Ok(None) => self.wait_for_room(deadline, bytes.len() - rest.len(), bytes.len()),
                Err(error) => Err(error.into()),
            };
            if step.is_err() && rest.len() < bytes.len() {
                self.sending_broken.store(true, Ordering::Relaxed);
            }
            step?;
        }
        Ok(())
    }

    /// Sends what can be sent at once, with `handles` on the first byte, and never waits.
    ///
    /// `None` if there was no room: nothing was sent, not even the descriptors. Else the number of
    /// bytes that were sent; all descriptors went with them. If it is less than `bytes.len()`, the
    /// caller must send the rest, without descriptors, before anything else.
    ///
    /// # Errors
    /// As [`send`](Self::send), but neither of the timeouts.
    pub fn try_send(&self, bytes: &[u8], handles: &[BorrowedFd<'_>]) -> Result<Option<usize>, SocketError> {
        self.check_sendable(bytes, handles)?;
        Ok(transmit(self.as_fd(), bytes, handles, SendFlags::DONTWAIT)?)
    }

    pub(super) fn check_sendable(&self, bytes: &[u8], handles: &[BorrowedFd<'_>]) -> Result<(), SocketError> {
        if handles.len() > MAX_HANDLES {
            return Err(SocketError::TooManyGiven { given: handles.len() });
        }
        if bytes.is_empty() {
            return Err(SocketError::NothingToSend);
        }
        if self.is_sending_broken() {
            return Err(SocketError::SendingBroken);
        }
        Ok(())
    }

    fn wait_for_room(&self, deadline: Deadline, sent: usize, length: usize) -> Result<(), SocketError> {
        match deadline.wait_for(self.as_fd(), PollFlags::OUT)? {
            Wait::Ready => Ok(()),
            Wait::Expired if sent == 0 => Err(SocketError::TimedOut),
            Wait::Expired => Err(SocketError::TimedOutPartWay { sent, length }),
        }
    }
}

/// One system call, repeated only if a signal came before it did anything.
///
/// `None` if it would have to wait.
fn transmit(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    handles: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<Option<usize>, SystemError> {
    let flags = flags | SendFlags::NOSIGNAL;
    let (call, outcome) = if handles.is_empty() {
        // Cheaper than `sendmsg`: the kernel has no header to copy.
        let send = || rustix::net::send(socket, bytes, flags);
        ("send", rustix::io::retry_on_intr(send))
    } else {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_HANDLES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fits = control.push(SendAncillaryMessage::ScmRights(handles));
        debug_assert!(fits, "the callers check that there are at most MAX_HANDLES");
        let vector = [IoSlice::new(bytes)];
        let send = || rustix::net::sendmsg(socket, &vector, &mut control, flags);
        ("sendmsg", rustix::io::retry_on_intr(send))
    };
    match outcome {
        Ok(sent) => Ok(Some(sent)),
        Err(Errno::AGAIN) => Ok(None),
        Err(errno) => Err(SystemError::of(call)(errno)),
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::socket::Received;

    fn passed() -> Deadline {
        Deadline::after(Duration::ZERO)
    }

    /// Sends single bytes until none fits any more.
    fn fill(socket: &Socket) {
        while socket.try_send(&[0; 4096], &[]).unwrap().is_some() {}
        while socket.try_send(&[0], &[]).unwrap().is_some() {}
    }

    fn drain(socket: &Socket) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = vec![0; 1 << 20];
        while let Some(Received::Data { bytes, .. }) = socket.try_receive(&mut buffer).unwrap() {
            all.extend_from_slice(&buffer[..bytes]);
        }
        all
    }

    #[test]
    fn a_long_message_goes_through_in_parts_with_its_descriptors_once() {
        for (deadline, non_blocking) in
            [(Deadline::NEVER, false), (Deadline::NEVER, true), (Deadline::after(Duration::from_secs(3600)), false)]
        {
            let (near, far) = Socket::pair().unwrap();
            rustix::io::ioctl_fionbio(&near, non_blocking).unwrap();
            let message: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
            let mut received = Vec::new();
            let mut arrivals = Vec::new();
            std::thread::scope(|scope| {
                let sender = scope.spawn(|| near.send(&message, &[near.as_fd()], deadline));
                let mut buffer = vec![0; 65536];
                while received.len() < message.len() {
                    let Received::Data { bytes, handles } = far.receive(&mut buffer, Deadline::NEVER).unwrap() else {
                        panic!("the stream ended after {} bytes", received.len());
                    };
                    if handles.len() > 0 {
                        arrivals.push((received.len(), handles.len()));
                    }
                    received.extend_from_slice(&buffer[..bytes]);
                }
                sender.join().unwrap().unwrap();
            });
            assert!(received == message);
            assert_eq!(arrivals, [(0, 1)]);
        }
    }

    #[test]
    fn a_full_socket_times_out_and_can_be_used_again() {
        let (near, far) = Socket::pair().unwrap();
        fill(&near);
        let handle = near.as_fd();
        assert_eq!(near.send(b"late", &[handle], passed()), Err(SocketError::TimedOut));
        assert_eq!(near.try_send(b"late", &[handle]), Ok(None));
        drain(&far);
        near.send(b"again", &[], passed()).unwrap();
        assert_eq!(drain(&far), b"again");
    }

    #[test]
    fn a_timeout_within_a_message_breaks_sending() {
        let (near, far) = Socket::pair().unwrap();
        let message = vec![7; 16 << 20];
        let error = near.send(&message, &[], passed()).unwrap_err();
        let SocketError::TimedOutPartWay { sent, length } = error else {
            panic!("{error:?}");
        };
        assert_eq!(length, message.len());
        assert_eq!(drain(&far).len(), sent);
        assert!(near.is_sending_broken());
        assert_eq!(near.send(b"x", &[], Deadline::NEVER), Err(SocketError::SendingBroken));
        assert_eq!(near.try_send(b"x", &[]), Err(SocketError::SendingBroken));
        assert!(drain(&far).is_empty());
        // The other direction is whole.
        far.send(b"y", &[], Deadline::NEVER).unwrap();
        assert_eq!(drain(&near), b"y");
    }

    #[test]
    fn what_try_send_leaves_can_be_sent_after_it() {
        let (near, far) = Socket::pair().unwrap();
        let message: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
        let mut received = Vec::new();
        let mut rest = &message[..];
        while !rest.is_empty() {
            match near.try_send(rest, &[]).unwrap() {
                Some(sent) => rest = &rest[sent..],
                None => received.extend(drain(&far)),
            }
        }
        received.extend(drain(&far));
        assert!(received == message);
    }

    #[test]
    fn a_peer_that_has_gone_is_an_error() {
        let (near, far) = Socket::pair().unwrap();
        drop(far);
        for (handles, call) in [(&[][..], "send"), (&[near.as_fd()][..], "sendmsg")] {
            let sent = near.send(b"x", handles, Deadline::NEVER);
            let errno = Errno::PIPE;
            assert_eq!(sent, Err(SystemError { call, errno }.into()));
        }
    }

    #[test]
    fn misuse_sends_nothing() {
        let (near, far) = Socket::pair().unwrap();
        let handles = [near.as_fd(); MAX_HANDLES + 1];
        assert_eq!(near.send(b"x", &handles, Deadline::NEVER), Err(SocketError::TooManyGiven { given: 9 }));
        assert_eq!(near.send(b"", &handles[..1], Deadline::NEVER), Err(SocketError::NothingToSend));
        assert_eq!(near.try_send(b"", &[]), Err(SocketError::NothingToSend));
        assert!(far.try_receive(&mut [0; 8]).unwrap().is_none());
    }

    #[test]
    fn the_most_descriptors_arrive_in_order() {
        let (near, far) = Socket::pair().unwrap();
        // Their sizes tell them apart, as their numbers cannot.
        let memories: Vec<OwnedFd> = (0..MAX_HANDLES)
            .map(|at| {
                let file = rustix::fs::memfd_create("order", rustix::fs::MemfdFlags::CLOEXEC);
                let file = file.unwrap();
                rustix::fs::ftruncate(&file, at as u64).unwrap();
                file
            })
            .collect();
        let handles: Vec<BorrowedFd<'_>> = memories.iter().map(AsFd::as_fd).collect();
        near.send(b"eight", &handles, Deadline::NEVER).unwrap();
        let received = far.receive(&mut [0; 64], Deadline::NEVER).unwrap();
        let Received::Data { handles, .. } = received else {
            panic!("nothing came");
        };
        let sizes: Vec<i64> = handles.map(|file| rustix::fs::fstat(&file).unwrap().st_size).collect();
        assert_eq!(sizes, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}

//! Receiving bytes and the descriptors that came with them.

use core::fmt;
use core::mem::MaybeUninit;
use core::sync::atomic::Ordering;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recv, recvmsg};

use super::{MAX_HANDLES, Socket, SocketError};
use crate::deadline::{Deadline, Wait};
use crate::system_error::SystemError;

/// Room for one descriptor too many, so that too many can be told from lost ones, and for the
/// credentials that come along if somebody has asked this socket for them.
const CONTROL_SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_HANDLES + 1), ScmCredentials(1));

/// What one call has received.
#[derive(Debug)]
#[must_use]
pub enum Received {
    /// Bytes, and the descriptors that came with them.
    Data {
        /// How many bytes at the start of the buffer were written, at least one.
        bytes: usize,
        /// The descriptors. They belong to the message whose first byte opened the piece of the
        /// stream that this call has read up to its end.
        handles: ReceivedHandles,
    },
    /// The peer will send no more.
    EndOfStream,
}

/// The descriptors of one [`Received::Data`]: an iterator of at most [`MAX_HANDLES`] `OwnedFd`.
///
/// Those that are not taken are closed when it is dropped.
#[derive(Default)]
pub struct ReceivedHandles {
    /// The first `filled` hold a descriptor; those before `next` were taken.
    slots: [Option<OwnedFd>; MAX_HANDLES],
    next: usize,
    filled: usize,
}

impl Socket {
    /// Waits for data and receives what one system call gives, at most `buffer.len()` bytes.
    ///
    /// The kernel ends a read behind the first piece of the stream that carries descriptors, so
    /// that descriptors of two messages never come together.
    ///
    /// Without a deadline, on a socket in blocking mode, it is a single system call. With one it is
    /// a single system call if data is there already, else three.
    ///
    /// # Errors
    /// - [`TimedOut`](SocketError::TimedOut): nothing was received.
    /// - [`TooManyReceived`](SocketError::TooManyReceived),
    ///   [`HandlesLost`](SocketError::HandlesLost): all that came was closed, and all later
    ///   receives fail with [`ReceivingBroken`](SocketError::ReceivingBroken).
    /// - [`NoRoom`](SocketError::NoRoom): `buffer` is empty.
    /// - [`System`](SocketError::System): `ECONNRESET` if the peer has closed its end with data of
    ///   ours unread.
    pub fn receive(&self, buffer: &mut [u8], deadline: Deadline) -> Result<Received, SocketError> {
        // Without a limit the kernel may as well do the waiting, in the same call.
        let flags = if deadline.is_never() { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        loop {
            if let Some(received) = self.receive_once::<CONTROL_SPACE>(buffer, flags)? {
                return Ok(received);
            }
            if deadline.wait_for(self.as_fd(), PollFlags::IN)? == Wait::Expired {
                return Err(SocketError::TimedOut);
            }
        }
    }

    /// Receives what is there already, at most `buffer.len()` bytes; `None` if nothing is.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), but never `TimedOut`.
    pub fn try_receive(&self, buffer: &mut [u8]) -> Result<Option<Received>, SocketError> {
        self.receive_once::<CONTROL_SPACE>(buffer, RecvFlags::DONTWAIT)
    }

    /// Waits for bytes with which no descriptors are to come, and receives what one system call gives, at most
    /// `buffer.len()` of them: at least one, or zero if the peer will send no more.
    ///
    /// It costs less than [`receive`](Self::receive), as the kernel has no header to copy and nothing to hand over.
    /// Descriptors that come nevertheless are closed by the kernel, unseen; it ends a read behind them, but not before.
    ///
    /// With a deadline it waits before it looks: two system calls, as an answer is rarely there already.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), but for what is wrong with descriptors.
    pub fn receive_bytes(&self, buffer: &mut [u8], deadline: Deadline) -> Result<usize, SocketError> {
        if buffer.is_empty() {
            return Err(SocketError::NoRoom);
        }
        if self.is_receiving_broken() {
            return Err(SocketError::ReceivingBroken);
        }
        let flags = if deadline.is_never() { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        let mut waits = !deadline.is_never();
        loop {
            if waits && deadline.wait_for(self.as_fd(), PollFlags::IN)? == Wait::Expired {
                return Err(SocketError::TimedOut);
            }
            match recv(&self.descriptor, &mut *buffer, flags) {
                Ok((bytes, _)) => return Ok(bytes),
                Err(Errno::INTR) => {}
                // The socket is in non-blocking mode, or somebody else has taken what was there.
                Err(Errno::AGAIN) => waits = true,
                Err(errno) => return Err(SystemError::of("recv")(errno).into()),
            }
        }
    }

    /// One system call, repeated only if a signal interrupts it. `None` if it would have to wait.
    fn receive_once<const SPACE: usize>(
        &self,
        buffer: &mut [u8],
        flags: RecvFlags,
    ) -> Result<Option<Received>, SocketError> {
        if buffer.is_empty() {
            return Err(SocketError::NoRoom);
        }
        if self.is_receiving_broken() {
            return Err(SocketError::ReceivingBroken);
        }
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut vector = [IoSliceMut::new(buffer)];
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let message = match rustix::io::retry_on_intr(|| recvmsg(&self.descriptor, &mut vector, &mut control, flags)) {
            Ok(message) => message,
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(SystemError::of("recvmsg")(errno).into()),
        };
        let handles = take_handles(&mut control, message.flags)
            .inspect_err(|_| self.receiving_broken.store(true, Ordering::Relaxed))?;
        Ok(Some(match message.bytes {
            0 => Received::EndOfStream,
            bytes => Received::Data { bytes, handles },
        }))
    }
}

/// Takes the descriptors out of the control messages; on an error all of them are closed.
fn take_handles(control: &mut RecvAncillaryBuffer<'_>, flags: ReturnFlags) -> Result<ReceivedHandles, SocketError> {
    let mut handles = ReceivedHandles::default();
    let mut received = 0;
    for message in control.drain() {
        // Whatever else comes was asked for by whoever made this socket, not sent by the peer.
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            for descriptor in descriptors {
                received += 1;
                handles.push(descriptor);
            }
        }
    }
    if received > MAX_HANDLES {
        Err(SocketError::TooManyReceived { received })
    } else if flags.contains(ReturnFlags::CTRUNC) {
        Err(SocketError::HandlesLost { received })
    } else {
        Ok(handles)
    }
}

impl ReceivedHandles {
    /// Keeps `descriptor`, or closes it if there is no room.
    fn push(&mut self, descriptor: OwnedFd) {
        if let Some(slot) = self.slots.get_mut(self.filled) {
            *slot = Some(descriptor);
            self.filled += 1;
        }
    }

    /// The descriptors that have not been taken yet.
    fn as_slice(&self) -> &[Option<OwnedFd>] {
        self.slots.get(self.next..self.filled).unwrap_or_default()
    }
}

impl Iterator for ReceivedHandles {
    type Item = OwnedFd;

    fn next(&mut self) -> Option<OwnedFd> {
        let handle = self.slots.get_mut(self.next)?.take()?;
        self.next += 1;
        Some(handle)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.as_slice().len();
        (left, Some(left))
    }
}

impl ExactSizeIterator for ReceivedHandles {}
impl core::iter::FusedIterator for ReceivedHandles {}

impl fmt::Debug for ReceivedHandles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.as_slice().iter().flatten()).finish()
    }
}

#[cfg(test)]
mod tests;

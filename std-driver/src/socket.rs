//! Unix stream sockets that pass descriptors: bytes and descriptors in, bytes and descriptors out.
//!
//! Nothing here knows a message. A [`Socket`] sends a run of bytes with the descriptors on its
//! first byte, and receives what one system call gives. What makes a message is decided above.

mod connect;
mod error;
mod listener;
mod receive;
mod send;
mod send_runs;

use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType};

pub use self::error::SocketError;
pub use self::listener::{ListenError, Listener, Occupant};
pub use self::receive::{Received, ReceivedHandles};
pub use self::send_runs::Run;
use crate::system_error::SystemError;

/// The most descriptors that one message carries (vhost-user, section "Communication").
pub const MAX_HANDLES: usize = vhost_core::MAX_HANDLES;

/// A connected Unix stream socket.
///
/// All methods take `&self`: one thread may send while another receives. Two threads that send
/// (or two that receive) at the same time would mix their bytes; whoever shares a socket so must
/// put them in order.
///
/// It works the same whether the descriptor is in blocking or in non-blocking mode, and never
/// changes the mode, as the descriptor may be shared. Received descriptors are close-on-exec.
/// Writing to a peer that has gone is an error, never a `SIGPIPE`.
///
/// ```
/// use core::time::Duration;
/// use std::os::fd::AsFd;
/// use vhost_std::deadline::Deadline;
/// use vhost_std::socket::{Received, Socket, SocketError};
///
/// # fn main() -> Result<(), Box<dyn core::error::Error>> {
/// let (near, far) = Socket::pair()?;
/// let (reader, _writer) = std::io::pipe()?;
/// near.send(b"take this", &[reader.as_fd()], Deadline::NEVER)?;
///
/// let deadline = Deadline::after(Duration::from_secs(5));
/// let mut buffer = [0; 64];
/// match far.receive(&mut buffer, deadline)? {
///     Received::Data { bytes, handles } => {
///         assert_eq!(&buffer[..bytes], b"take this");
///         assert_eq!(handles.len(), 1); // each an `OwnedFd`
///     }
///     Received::EndOfStream => unreachable!("the peer is still there"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Socket {
    descriptor: OwnedFd,
    /// A message was sent in part: what follows would be taken for the rest of it.
    sending_broken: AtomicBool,
    /// Bytes were taken from the stream and lost with their descriptors.
    receiving_broken: AtomicBool,
}

impl Socket {
    /// Two sockets connected to each other.
    ///
    /// # Errors
    /// The errno of `socketpair`.
    pub fn pair() -> Result<(Self, Self), SystemError> {
        let family = AddressFamily::UNIX;
        let (first, second) = rustix::net::socketpair(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(SystemError::of("socketpair"))?;
        Ok((first.into(), second.into()))
    }

    /// Ends the connection in both directions, also for a thread that waits in a call on it.
    ///
    /// What the peer has sent already can still be received.
    ///
    /// # Errors
    /// The errno of `shutdown`.
    pub fn shut_down(&self) -> Result<(), SystemError> {
        rustix::net::shutdown(&self.descriptor, Shutdown::Both).map_err(SystemError::of("shutdown"))
    }

    /// Whether nothing more can be sent, because a message went out only in part.
    #[must_use]
    pub fn is_sending_broken(&self) -> bool {
        // No data is published by the flags: they are set and read by callers that order
        // themselves, as two senders at a time are not allowed.
        self.sending_broken.load(Ordering::Relaxed)
    }

    /// Whether nothing more can be received, because bytes were lost with their descriptors.
    #[must_use]
    pub fn is_receiving_broken(&self) -> bool {
        self.receiving_broken.load(Ordering::Relaxed)
    }
}

impl From<OwnedFd> for Socket {
    /// Takes `descriptor` as a connected Unix stream socket. Anything else fails at first use.
    fn from(descriptor: OwnedFd) -> Self {
        Self { descriptor, sending_broken: AtomicBool::new(false), receiving_broken: AtomicBool::new(false) }
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        OwnedFd::from(stream).into()
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.descriptor
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deadline::Deadline;

    #[test]
    fn a_pair_is_close_on_exec() {
        let (near, far) = Socket::pair().unwrap();
        for socket in [&near, &far] {
            let flags = rustix::io::fcntl_getfd(socket).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
    }

    #[test]
    fn a_socket_converts_from_a_stream_and_to_a_descriptor() {
        let (near, far) = UnixStream::pair().unwrap();
        let near = Socket::from(Socket::from(near).descriptor);
        let far = Socket::from(OwnedFd::from(Socket::from(far)));
        near.send(b"x", &[], Deadline::NEVER).unwrap();
        let received = far.receive(&mut [0; 8], Deadline::NEVER).unwrap();
        assert!(matches!(received, Received::Data { bytes: 1, .. }));
    }

    #[test]
    fn shutting_down_wakes_a_receiver() {
        let (near, _far) = Socket::pair().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| near.receive(&mut [0; 8], Deadline::NEVER));
            // Right in either order: before the receive it ends it at once, after it wakes it.
            near.shut_down().unwrap();
            let received = waiting.join().unwrap().unwrap();
            assert!(matches!(received, Received::EndOfStream));
        });
    }
}

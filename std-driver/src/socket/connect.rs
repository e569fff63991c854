//! Connecting to a socket in the file system.

use core::time::Duration;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{Socket, SocketError};
use crate::deadline::Deadline;
use crate::system_error::SystemError;

/// The first and the longest pause between two attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The shortest limit that the kernel does not take for "none".
const SHORTEST_TIMEOUT: Duration = Duration::from_micros(1);

impl Socket {
    /// Connects to the socket at `path`, which must be there.
    ///
    /// # Errors
    /// - [`System`](SocketError::System): the errno of `connect`, for example `ENOENT`, or
    ///   `ECONNREFUSED` if nobody listens.
    /// - [`TimedOut`](SocketError::TimedOut): the listener's queue stayed full up to the deadline.
    pub fn connect(path: impl AsRef<Path>, deadline: Deadline) -> Result<Self, SocketError> {
        let address = address_of(path.as_ref(), "connect")?;
        connect_once(&address, deadline)
    }

    /// Connects to the socket at `path` as soon as somebody listens there.
    ///
    /// Tries again, with pauses of up to 50 ms, while the path does not exist or nobody listens.
    ///
    /// # Errors
    /// As [`connect`](Self::connect). At the deadline it is the error of the last attempt, so that
    /// it says what was missing.
    pub fn connect_when_ready(path: impl AsRef<Path>, deadline: Deadline) -> Result<Self, SocketError> {
        let address = address_of(path.as_ref(), "connect")?;
        let (mut pause, longest) = PAUSES;
        loop {
            let error = match connect_once(&address, deadline) {
                Err(SocketError::System(error)) if is_not_ready(error) => error,
                outcome => return outcome,
            };
            let remaining = deadline.remaining().unwrap_or(longest);
            if remaining.is_zero() {
                return Err(error.into());
            }
            thread::sleep(pause.min(remaining));
            pause = (pause * 2).min(longest);
        }
    }
}

fn is_not_ready(error: SystemError) -> bool {
    matches!(error.errno, Errno::NOENT | Errno::CONNREFUSED)
}

fn connect_once(address: &SocketAddrUnix, deadline: Deadline) -> Result<Socket, SocketError> {
    let socket = new_socket(SocketType::STREAM)?;
    // A full queue cannot be polled for before the connection exists, so the kernel does the wait.
    let limit = |limit| set_socket_timeout(&socket, Timeout::Send, limit).map_err(SystemError::of("setsockopt"));
    if let Some(remaining) = deadline.remaining() {
        limit(Some(remaining.max(SHORTEST_TIMEOUT)))?;
    }
    loop {
        match rustix::net::connect(&socket, address) {
            Ok(()) => break,
            Err(Errno::AGAIN) => return Err(SocketError::TimedOut),
            Err(Errno::INTR) => {
                if let Some(remaining) = deadline.remaining() {
                    limit(Some(remaining.max(SHORTEST_TIMEOUT)))?;
                }
            }
            Err(errno) => return Err(SystemError::of("connect")(errno).into()),
        }
    }
    if !deadline.is_never() {
        limit(None)?;
    }
    Ok(socket.into())
}

/// The address of `path`, for `call`.
pub(super) fn address_of(path: &Path, call: &'static str) -> Result<SocketAddrUnix, SystemError> {
    if path.as_os_str().is_empty() {
        // The kernel would take it for a name outside the file system.
        return Err(SystemError::of(call)(Errno::NOENT));
    }
    SocketAddrUnix::new(path).map_err(SystemError::of(call))
}

/// A new Unix socket, close-on-exec and in blocking mode.
pub(super) fn new_socket(kind: SocketType) -> Result<OwnedFd, SystemError> {
    rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).map_err(SystemError::of("socket"))
}

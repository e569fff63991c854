//! A socket in the file system that others connect to.

use core::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::PollFlags;
use rustix::fs::{FileType, Stat, lstat, unlink};
use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, SocketFlags, SocketType};

use super::connect::{address_of, new_socket};
use super::{Socket, SocketError};
use crate::deadline::{Deadline, Wait};
use crate::system_error::SystemError;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// A listening Unix stream socket.
///
/// One made by [`bind`](Self::bind) removes its path when it is dropped, if the path is still its
/// own and nobody has put another socket there.
#[derive(Debug)]
pub struct Listener {
    descriptor: OwnedFd,
    bound: Option<BoundPath>,
}

/// A path and what was put there: the path alone may mean something else by now.
#[derive(Debug)]
struct BoundPath {
    path: PathBuf,
    identity: Identity,
}

/// Device and inode, which no other file has as long as this one exists.
type Identity = (u64, u64);

impl Listener {
    /// Listens at `path`.
    ///
    /// A socket that a dead process has left there is replaced. One that a living process has is
    /// left alone, without disturbing it by a connection; so is any other file.
    ///
    /// Two processes that replace the same dead socket at the same time may take it from each
    /// other; nothing in the kernel prevents it. Both then listen, but only one can be reached.
    ///
    /// # Errors
    /// - [`Occupied`](ListenError::Occupied): there is something that must not be replaced.
    /// - [`System`](ListenError::System): another call failed, for example `bind` with `ENOENT`
    ///   if the directory does not exist, or with `ENAMETOOLONG` if `path` has over 108 bytes.
    pub fn bind(path: impl AsRef<Path>) -> Result<Self, ListenError> {
        let path = path.as_ref();
        let address = address_of(path, "bind")?;
        let descriptor = new_socket(SocketType::STREAM)?;
        match rustix::net::bind(&descriptor, &address) {
            Err(Errno::ADDRINUSE) => {
                remove_dead_socket(path, &address)?;
                rustix::net::bind(&descriptor, &address).map_err(SystemError::of("bind"))?;
            }
            outcome => outcome.map_err(SystemError::of("bind"))?,
        }
        // Remembered in full, as the process may have changed its directory when it is removed.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let identity = identity_of(&look_at(&path)?);
        let mut listener = Self::from_descriptor(descriptor)?;
        listener.bound = Some(BoundPath { path, identity });
        rustix::net::listen(&listener.descriptor, BACKLOG).map_err(SystemError::of("listen"))?;
        Ok(listener)
    }

    /// Takes a descriptor that listens already, for example one that a service manager has passed.
    ///
    /// Puts it into non-blocking mode, since accepting has no flag to do so for one call. Its path
    /// stays when it is dropped.
    ///
    /// # Errors
    /// The errno of `ioctl`.
    pub fn from_descriptor(descriptor: OwnedFd) -> Result<Self, SystemError> {
        rustix::io::ioctl_fionbio(&descriptor, true).map_err(SystemError::of("ioctl"))?;
        Ok(Self { descriptor, bound: None })
    }

    /// The path that is removed at the end, if there is one; in full.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.bound.as_ref().map(|bound| bound.path.as_path())
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// - [`TimedOut`](SocketError::TimedOut): nobody connected up to the deadline.
    /// - [`System`](SocketError::System): the errno of `accept`, for example `EMFILE`.
    pub fn accept(&self, deadline: Deadline) -> Result<Socket, SocketError> {
        loop {
            if let Some(socket) = self.try_accept()? {
                return Ok(socket);
            }
            if deadline.wait_for(self.as_fd(), PollFlags::IN)? == Wait::Expired {
                return Err(SocketError::TimedOut);
            }
        }
    }

    /// A connection that waits already, if there is one.
    ///
    /// # Errors
    /// As [`accept`](Self::accept), but never `TimedOut`.
    pub fn try_accept(&self) -> Result<Option<Socket>, SocketError> {
        loop {
            match rustix::net::accept_with(&self.descriptor, SocketFlags::CLOEXEC) {
                Ok(descriptor) => return Ok(Some(descriptor.into())),
                Err(Errno::AGAIN) => return Ok(None),
                // The peer gave up while it waited: the next one may be good.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(errno) => return Err(SystemError::of("accept")(errno).into()),
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(bound) = &self.bound else { return };
        let ours = look_at(&bound.path).is_ok_and(|stat| identity_of(&stat) == bound.identity);
        if ours {
            // A drop cannot report; a socket that stays is replaced by the next listener.
            let _ = unlink(&bound.path);
        }
    }
}

/// Why nothing listens at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenError {
    /// A system call failed.
    System(SystemError),
    /// There is something at the path that must not be replaced.
    Occupied {
        /// The path, as it was given.
        path: PathBuf,
        /// What is there.
        occupant: Occupant,
    },
}

/// What is at a path that a listener was to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Occupant {
    /// A socket of a living process.
    LivingSocket,
    /// A file that is not a socket.
    OtherFile,
}

impl fmt::Display for ListenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => error.fmt(formatter),
            Self::Occupied { path, occupant } => {
                let occupant = match occupant {
                    Occupant::LivingSocket => "the socket of a living process",
                    Occupant::OtherFile => "a file that is not a socket",
                };
                write!(formatter, "{} is {occupant}", path.display())
            }
        }
    }
}

impl core::error::Error for ListenError {}

impl From<SystemError> for ListenError {
    fn from(error: SystemError) -> Self {
        Self::System(error)
    }
}

/// Makes way at `path` if there is a socket that belongs to no process any more.
fn remove_dead_socket(path: &Path, address: &SocketAddrUnix) -> Result<(), ListenError> {
    let occupied = |occupant| ListenError::Occupied { path: path.to_owned(), occupant };
    let found = match lstat(path) {
        Err(Errno::NOENT) => return Ok(()),
        outcome => outcome.map_err(SystemError::of("lstat"))?,
    };
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
        return Err(occupied(Occupant::OtherFile));
    }
    // A datagram socket cannot connect to a stream socket, and the error tells whether there is
    // one: EPROTOTYPE if somebody has it, listening or not yet, ECONNREFUSED if nobody does. A
    // stream socket would find the same out, but be accepted and served as a peer.
    let probe = new_socket(SocketType::DGRAM)?;
    match rustix::net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => {}
        Err(Errno::NOENT) => return Ok(()),
        _ => return Err(occupied(Occupant::LivingSocket)),
    }
    // Another process may have replaced it since it was looked at.
    if identity_of(&look_at(path)?) != identity_of(&found) {
        return Err(occupied(Occupant::LivingSocket));
    }
    match unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(SystemError::of("unlink")(errno).into()),
    }
}

fn look_at(path: &Path) -> Result<Stat, SystemError> {
    lstat(path).map_err(SystemError::of("lstat"))
}

fn identity_of(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests;

//! A device's state on its way between the two sides: `SET_DEVICE_STATE_FD` to `CHECK_DEVICE_STATE`.
//!
//! The channel is a pipe or a socket, whose other end is the front-end's. Nothing here waits for it: what cannot be moved
//! now is moved when the channel is ready, between other requests.

use core::fmt;
use core::time::Duration;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat},
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};

use super::ready::{Waiter, Watched};
use crate::{
    device::{Device, DeviceState, StateError},
    file_kind,
    poller::{Poller, Readiness, Token, WatchError},
    system_error::SystemError,
};

/// Bytes moved with one system call.
const PIECE: usize = 64 << 10;

/// Why a device's state did not arrive.
#[derive(Debug)]
pub(super) enum TransferError {
    /// The device has no state, which was told.
    NoState,
    /// The state moves only while all rings are stopped (vhost-user, section "Migrating back-end state").
    Running,
    /// The channel is something else than a pipe or a socket.
    NotAChannel { found: &'static str },
    /// There was no transfer, or it was asked for already.
    NothingTransferred,
    /// The front-end did not take, or give, all of it.
    Incomplete { moved: usize },
    /// The front-end gives more than the device's state can have.
    TooLong { most: usize },
    /// The device does not give or take its state.
    Device(StateError),
    /// A system call failed.
    System(SystemError),
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoState => f.write_str("this device has no state"),
            Self::Running => f.write_str("the state moves only while all rings are stopped"),
            Self::NotAChannel { found } => write!(f, "expected a pipe or a socket for the state, got {found}"),
            Self::NothingTransferred => f.write_str("no state was transferred"),
            Self::Incomplete { moved } => {
                write!(f, "the transfer of the state has not ended, {moved} bytes were moved")
            }
            Self::TooLong { most } => write!(f, "expected a state of {most} bytes at most, more came"),
            Self::Device(error) => write!(f, "the device: {error}"),
            Self::System(error) => error.fmt(f),
        }
    }
}

impl From<SystemError> for TransferError {
    fn from(error: SystemError) -> Self {
        Self::System(error)
    }
}

/// A transfer, under way or ended.
#[derive(Debug)]
pub(super) struct Transfer {
    way: Way,
    progress: Progress,
    watched: Option<Watched>,
}

#[derive(Debug)]
enum Way {
    /// To the front-end: the bytes, and how many of them it has.
    Save { state: Vec<u8>, moved: usize },
    /// From the front-end: the bytes so far, and how many there can be.
    Load { state: Vec<u8>, most: usize },
}

#[derive(Debug)]
enum Progress {
    /// The channel is still open.
    Open(Channel),
    /// Its end came.
    Ended(Result<(), TransferError>),
}

impl Transfer {
    /// Begins to give the device's state to the front-end.
    pub(super) fn save(device: &dyn DeviceState, channel: OwnedFd) -> Result<Self, TransferError> {
        let channel = Channel::new(channel, Readiness::Writable)?;
        let state = device.save().map_err(TransferError::Device)?;
        Ok(Self { way: Way::Save { state, moved: 0 }, progress: Progress::Open(channel), watched: None })
    }

    /// Begins to take the device's state from the front-end.
    pub(super) fn load(device: &dyn DeviceState, channel: OwnedFd) -> Result<Self, TransferError> {
        let channel = Channel::new(channel, Readiness::Readable)?;
        let way = Way::Load { state: Vec::new(), most: device.size_max() };
        Ok(Self { way, progress: Progress::Open(channel), watched: None })
    }

    /// Moves what can be moved without waiting. What ends the transfer closes the channel.
    pub(super) fn step(&mut self, device: &dyn Device) {
        let Progress::Open(channel) = &self.progress else { return };
        let moved = match &mut self.way {
            Way::Save { state, moved } => channel.write(state, moved),
            Way::Load { state, most } => channel.read(state, *most),
        };
        let ended = match (moved, &mut self.way) {
            (Ok(Moved::ForNow), _) => return,
            (Ok(Moved::All), Way::Load { state, .. }) => {
                let loaded = device.state().ok_or(TransferError::NoState);
                loaded.and_then(|device| device.load(&core::mem::take(state)).map_err(TransferError::Device))
            }
            (Ok(Moved::All), Way::Save { .. }) => Ok(()),
            (Err(error), _) => Err(error),
        };
        self.progress = Progress::Ended(ended);
    }

    /// A ring was started: what has not moved yet moves no more.
    pub(super) fn interrupt(&mut self) {
        if matches!(self.progress, Progress::Open(_)) {
            self.progress = Progress::Ended(Err(TransferError::Running));
        }
    }

    /// How the transfer ended.
    pub(super) fn conclude(mut self, device: &dyn Device) -> Result<(), TransferError> {
        self.step(device);
        match (self.progress, self.way) {
            (Progress::Ended(outcome), _) => outcome,
            (Progress::Open(_), Way::Save { moved, .. }) => Err(TransferError::Incomplete { moved }),
            (Progress::Open(_), Way::Load { state, .. }) => Err(TransferError::Incomplete { moved: state.len() }),
        }
    }

    /// Becomes readable when [`step`](Self::step) has something to do; `None` when it has nothing any more.
    pub(super) fn event(&self) -> Option<BorrowedFd<'_>> {
        match &self.progress {
            Progress::Open(channel) => Some(channel.poller.fd()),
            Progress::Ended(_) => None,
        }
    }

    /// Has that watched. It is nobody else's, so that its end is the end of it.
    pub(super) fn watch(&mut self, waiter: &Waiter) -> Result<(), SystemError> {
        match &self.progress {
            Progress::Open(channel) => waiter.watch_transfer(&mut self.watched, channel.poller.fd()),
            Progress::Ended(_) => Ok(()),
        }
    }
}

/// How far a step came.
enum Moved {
    /// To the end.
    All,
    /// The rest follows when the channel is ready.
    ForNow,
}

/// One end of a pipe, or a socket.
#[derive(Debug)]
struct Channel {
    descriptor: OwnedFd,
    kind: Kind,
    readiness: Readiness,
    poller: Poller,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Pipe,
    Socket,
}

impl Channel {
    fn new(descriptor: OwnedFd, readiness: Readiness) -> Result<Self, TransferError> {
        let stat = fstat(&descriptor).map_err(SystemError::of("fstat"))?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo => Kind::Pipe,
            FileType::Socket => Kind::Socket,
            found => return Err(TransferError::NotAChannel { found: file_kind::name_of(found) }),
        };
        if matches!(kind, Kind::Pipe) {
            // The mode belongs to this end of the pipe, which the front-end has no more use for.
            let mode = fcntl_getfl(&descriptor).map_err(SystemError::of("fcntl"))?;
            fcntl_setfl(&descriptor, mode | OFlags::NONBLOCK).map_err(SystemError::of("fcntl"))?;
        }
        let poller = Poller::new()?;
        poller.watch_for(descriptor.as_fd(), readiness, Token(0)).map_err(|error| match error {
            WatchError::System(error) => error,
            WatchError::NotPollable | WatchError::AlreadyWatched => {
                SystemError { call: "epoll_ctl", errno: Errno::PERM }
            }
        })?;
        Ok(Self { descriptor, kind, readiness, poller })
    }

    /// Gives the front-end what it takes now of the bytes that are not `moved` yet.
    fn write(&self, state: &[u8], moved: &mut usize) -> Result<Moved, TransferError> {
        self.wait_for_no_time()?;
        while let Some(rest) = state.get(*moved..).filter(|rest| !rest.is_empty()) {
            let piece = rest.get(..PIECE).unwrap_or(rest);
            if !self.is_ready()? {
                return Ok(Moved::ForNow);
            }
            let written = match self.kind {
                Kind::Pipe => rustix::io::write(&self.descriptor, piece).map_err(SystemError::of("write")),
                Kind::Socket => {
                    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                    send(&self.descriptor, piece, flags).map_err(SystemError::of("send"))
                }
            };
            match written {
                Ok(count) => *moved = moved.saturating_add(count),
                Err(SystemError { errno: Errno::AGAIN, .. }) => return Ok(Moved::ForNow),
                Err(SystemError { errno: Errno::INTR, .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Moved::All)
    }

    /// Takes what the front-end has given so far, up to its end; no more than `most` bytes in all.
    fn read(&self, state: &mut Vec<u8>, most: usize) -> Result<Moved, TransferError> {
        self.wait_for_no_time()?;
        let mut piece = vec![0; PIECE];
        while self.is_ready()? {
            let read = match self.kind {
                Kind::Pipe => rustix::io::read(&self.descriptor, &mut piece[..]).map_err(SystemError::of("read")),
                Kind::Socket => {
                    let received = recv(&self.descriptor, &mut piece[..], RecvFlags::DONTWAIT);
                    received.map(|(count, _)| count).map_err(SystemError::of("recv"))
                }
            };
            match read {
                Ok(0) => return Ok(Moved::All),
                Ok(count) if state.len().saturating_add(count) > most => return Err(TransferError::TooLong { most }),
                Ok(count) => state.extend_from_slice(piece.get(..count).unwrap_or_default()),
                Err(SystemError { errno: Errno::AGAIN, .. }) => return Ok(Moved::ForNow),
                Err(SystemError { errno: Errno::INTR, .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Moved::ForNow)
    }

    /// Forgets that the channel was ready: what follows looks for itself.
    fn wait_for_no_time(&self) -> Result<(), SystemError> {
        self.poller.wait(Some(Duration::ZERO), &mut Vec::new())
    }

    /// Whether bytes can be moved without waiting, whatever the front-end has made of the channel's mode.
    fn is_ready(&self) -> Result<bool, SystemError> {
        let wanted = match self.readiness {
            Readiness::Readable => PollFlags::IN,
            Readiness::Writable => PollFlags::OUT,
        };
        let mut polled = [PollFd::new(&self.descriptor, wanted)];
        rustix::io::retry_on_intr(|| poll(&mut polled, Some(&Timespec::default()))).map_err(SystemError::of("poll"))?;
        let [polled] = polled;
        let found = polled.revents();
        if self.readiness == Readiness::Writable && found.contains(PollFlags::ERR) {
            // Nobody reads the pipe. To write to it would be a signal, which could end the process.
            return Err(SystemError { call: "poll", errno: Errno::PIPE });
        }
        Ok(!found.is_empty())
    }
}

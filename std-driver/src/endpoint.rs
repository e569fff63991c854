//! Frames over a socket: what comes in is put together, what goes out goes in one piece.

use core::fmt;
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use vhost_core::{Channel, DecodeError, Dialect, Frame, Handles, Transmit, wire::header::Header};

use crate::{
    deadline::Deadline,
    incoming::Incoming,
    outgoing::Outgoing,
    socket::{Received, Run, Socket, SocketError},
    system_error::SystemError,
};

/// One end of a channel: a socket, and what is coming in on it.
pub struct Endpoint {
    socket: Socket,
    incoming: Incoming,
    observer: Option<Arc<dyn Observer>>,
    outgoing: Outgoing,
}

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From this side to the peer.
    Sent,
    /// From the peer to this side.
    Received,
}

/// Somebody who looks at every message that passes an [`Endpoint`], for a trace or a test.
pub trait Observer: Send + Sync {
    /// A message was sent whole, or received whole; with so many descriptors.
    fn message(&self, direction: Direction, header: &Header, payload: &[u8], handles: usize);
}

/// How far a socket is read.
#[derive(Clone, Copy)]
pub(crate) enum Reading {
    /// Until it has nothing: whoever is told only of changes hears of the next one.
    ToTheEnd,
    /// Until all is read that was there: whoever asks again hears of the rest.
    WhatIsThere,
}

/// Why a channel is of no further use, or, with [`SocketError::TimedOut`], not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointError {
    /// The socket.
    Socket(SocketError),
    /// The bytes.
    Bytes(DecodeError),
    /// The peer closed the connection in the middle of a message.
    Truncated,
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => error.fmt(f),
            Self::Bytes(error) => error.fmt(f),
            Self::Truncated => f.write_str("the peer closed the connection in the middle of a message"),
        }
    }
}

impl core::error::Error for EndpointError {}

impl From<SocketError> for EndpointError {
    fn from(error: SocketError) -> Self {
        Self::Socket(error)
    }
}

impl From<DecodeError> for EndpointError {
    fn from(error: DecodeError) -> Self {
        Self::Bytes(error)
    }
}

/// What an endpoint has received.
#[derive(Debug)]
#[must_use]
pub enum Message<'b> {
    /// A whole message.
    Frame(Frame<'b, OwnedFd>),
    /// The peer closed the connection between two messages.
    Closed,
    /// Nothing whole is there yet; only [`Endpoint::try_receive`] says so.
    NotYet,
}

impl Endpoint {
    /// A channel over a socket on which nothing was received yet.
    ///
    /// It reads as many messages at once as there are; see [`exact`](Self::exact). The channel of the back-end speaks the
    /// standard dialect; see [`in_dialect`](Self::in_dialect).
    #[must_use]
    pub fn new(socket: Socket, channel: Channel) -> Self {
        Self::over(socket, Incoming::ahead(channel, Dialect::Standard))
    }

    /// The back-end's channel of a session in one of the older dialects of virtio-fs, whose messages have other descriptors.
    #[must_use]
    pub fn in_dialect(socket: Socket, dialect: Dialect) -> Self {
        Self::over(socket, Incoming::ahead(Channel::Backend, dialect))
    }

    /// A channel that is never read beyond the message that is waited for: at two system calls a message, for a socket
    /// that somebody else reads too, or that does not keep the promise of [`ReadAhead`](vhost_core::ReadAhead).
    #[must_use]
    pub fn exact(socket: Socket, channel: Channel) -> Self {
        Self::over(socket, Incoming::exact(channel))
    }

    fn over(socket: Socket, incoming: Incoming) -> Self {
        Self { socket, incoming, observer: None, outgoing: Outgoing::default() }
    }

    /// Has every message from now on seen by `observer`; `None` for nobody.
    pub fn observe(&mut self, observer: Option<Arc<dyn Observer>>) {
        self.observer = observer;
    }

    /// Waits for a whole message.
    ///
    /// # Errors
    /// [`SocketError::TimedOut`] when the deadline passed; what has arrived is kept, so the call may
    /// be repeated. The channel is of no use after any other error.
    pub fn receive(&mut self, deadline: Deadline) -> Result<Message<'_>, EndpointError> {
        self.fill(|socket, incoming| {
            let received = socket.receive(incoming.read_buf(), deadline)?;
            Ok(Some(incoming.take_in(received)))
        })
    }

    /// Waits for a whole message that has no descriptors, at less cost; see [`Socket::receive_bytes`].
    ///
    /// Only for whoever waits for no message with descriptors: as by [`receive`](Self::receive), what is behind this message
    /// is read along, and then its descriptors are closed too. Somebody who [`observe`](Self::observe)s sees what came
    /// nevertheless.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_without_handles(&mut self, deadline: Deadline) -> Result<Message<'_>, EndpointError> {
        if self.observer.is_some() {
            return self.receive(deadline);
        }
        self.fill(|socket, incoming| {
            let bytes = socket.receive_bytes(incoming.read_buf(), deadline)?;
            incoming.filled_without_handles(bytes);
            Ok(Some(bytes))
        })
    }

    /// Takes a whole message if it is there, and never waits.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), but never a timeout.
    pub fn try_receive(&mut self) -> Result<Message<'_>, EndpointError> {
        self.fill(|socket, incoming| {
            let received = socket.try_receive(incoming.read_buf())?;
            Ok(received.map(|received| incoming.take_in(received)))
        })
    }

    /// How many bytes of the image behind the last message were not received yet; only messages of the GPU channel have
    /// images. What is left of it when the next message is received is skipped.
    #[must_use]
    pub fn image_left(&self) -> usize {
        self.incoming.image_left()
    }

    /// Waits for bytes of that image and puts them straight to where they are wanted: at least one, at most as many as fit.
    /// How many; zero if nothing is left or nothing fits.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_image(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<usize, EndpointError> {
        let count = self.image_left().min(buffer.len());
        let room = buffer.get_mut(..count).unwrap_or_default();
        let there = self.incoming.take_image(room);
        if there > 0 || room.is_empty() {
            return Ok(there);
        }
        match self.socket.receive(room, deadline)? {
            Received::EndOfStream => Err(EndpointError::Truncated),
            Received::Data { handles, .. } if handles.len() > 0 => {
                Err(EndpointError::Bytes(DecodeError::HandlesAfterStart { channel: Channel::Gpu }))
            }
            Received::Data { bytes, .. } => {
                self.incoming.image_read(bytes);
                Ok(bytes)
            }
        }
    }

    /// Sends a message in one piece.
    ///
    /// # Errors
    /// See [`Socket::send`].
    pub fn send<H: AsFd>(&self, transmit: &Transmit<'_, H>, deadline: Deadline) -> Result<(), SocketError> {
        let sent = if transmit.handles.is_empty() {
            self.socket.send(transmit.bytes, &[], deadline)
        } else {
            self.socket.send(transmit.bytes, &borrowed(&transmit.handles), deadline)
        };
        if sent.is_ok() {
            self.saw_sent(transmit.bytes, transmit.handles.len());
        }
        sent
    }

    /// Sends several messages in as few system calls as their descriptors allow.
    ///
    /// # Errors
    /// See [`Socket::send_runs`].
    pub fn send_runs(&self, runs: &[Run<'_>], deadline: Deadline) -> Result<(), SocketError> {
        self.socket.send_runs(runs, deadline)
    }

    /// Sends as much of a message as the peer takes at once, and keeps the rest for [`flush`](Self::flush).
    ///
    /// # Errors
    /// See [`Socket::try_send`]; and the errno of `fcntl` if descriptors that wait cannot be duplicated.
    pub fn offer<H: AsFd>(&mut self, transmit: &Transmit<'_, H>) -> Result<(), SocketError> {
        let handles = borrowed(&transmit.handles);
        let sent = if self.has_unsent() { None } else { self.socket.try_send(transmit.bytes, &handles)? };
        let waiting = match sent {
            Some(_) => Handles::new(),
            None => {
                let owned = handles.iter().map(|handle| rustix::io::fcntl_dupfd_cloexec(handle, 0));
                owned.collect::<Result<_, _>>().map_err(SystemError::of("fcntl"))?
            }
        };
        let rest = transmit.bytes.get(sent.unwrap_or(0)..).unwrap_or_default();
        self.outgoing.push(rest, waiting);
        self.saw_sent(transmit.bytes, handles.len());
        Ok(())
    }

    /// Keeps a message for [`flush`](Self::flush), so that it goes together with those before and after it.
    pub fn keep(&mut self, transmit: Transmit<'_, OwnedFd>) {
        self.saw_sent(transmit.bytes, transmit.handles.len());
        self.outgoing.push(transmit.bytes, transmit.handles);
    }

    /// Sends what was kept, as far as the peer takes it.
    ///
    /// # Errors
    /// See [`Socket::try_send`].
    pub fn flush(&mut self) -> Result<(), SocketError> {
        self.outgoing.flush(&self.socket)
    }

    /// Whether something is kept that was not sent: after a [`flush`](Self::flush), wait until the socket is writable.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// How many bytes are kept.
    #[must_use]
    pub(crate) fn unsent(&self) -> usize {
        self.outgoing.len()
    }

    /// Whether [`try_receive`](Self::try_receive) has a message or an error without asking the socket, whose descriptor
    /// then need not be readable: look here before waiting for it.
    #[must_use]
    pub fn has_received(&self) -> bool {
        self.incoming.has_next()
    }

    /// Whether the last thing received was all that is to be read. More may have come since, and makes the socket readable;
    /// but that the peer has closed may have been there before.
    #[must_use]
    pub(crate) fn is_read(&self, reading: Reading) -> bool {
        matches!(reading, Reading::WhatIsThere) && self.incoming.was_emptied()
    }

    pub(crate) fn saw_sent(&self, bytes: &[u8], handles: usize) {
        if let Some(observer) = &self.observer
            && let Some((header, payload)) = Header::split_from(bytes)
        {
            observer.message(Direction::Sent, header, payload, handles);
        }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The next message, for which `receive` is called as long as more is needed: it tells how many bytes it has
    /// received, zero at the end of the stream and `None` if there is nothing yet.
    #[inline]
    fn fill(
        &mut self,
        receive: impl Fn(&Socket, &mut Incoming) -> Result<Option<usize>, SocketError>,
    ) -> Result<Message<'_>, EndpointError> {
        while !self.incoming.has_next() {
            match receive(&self.socket, &mut self.incoming)? {
                None => return Ok(Message::NotYet),
                Some(1..) => {}
                Some(0) if self.incoming.is_between_messages() => return Ok(Message::Closed),
                Some(0) => return Err(EndpointError::Truncated),
            }
        }
        let Some(frame) = self.incoming.next()? else { return Ok(Message::NotYet) };
        if let Some(observer) = &self.observer {
            observer.message(Direction::Received, &frame.header, frame.payload, frame.handles.len());
        }
        Ok(Message::Frame(frame))
    }
}

fn borrowed<H: AsFd>(handles: &Handles<H>) -> Handles<BorrowedFd<'_>> {
    handles.iter().map(AsFd::as_fd).collect()
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("socket", &self.socket).field("incoming", &self.incoming).finish()
    }
}

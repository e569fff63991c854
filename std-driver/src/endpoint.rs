//! Frames over a socket: what comes in is put together, what goes out goes in one piece.

use core::fmt;
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use vhost_core::{Assembler, Channel, DecodeError, Frame, MAX_HANDLES, Transmit, wire::header::Header};

use crate::{
    deadline::Deadline,
    socket::{Received, Socket, SocketError},
};

/// One end of a channel: a socket, and the message that is coming in on it.
pub struct Endpoint {
    socket: Socket,
    assembler: Box<Assembler<OwnedFd>>,
    observer: Option<Arc<dyn Observer>>,
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
    #[must_use]
    pub fn new(socket: Socket, channel: Channel) -> Self {
        Self { socket, assembler: Box::new(Assembler::new(channel)), observer: None }
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
        self.fill(|socket, buffer| socket.receive(buffer, deadline).map(Some))
    }

    /// Takes a whole message if it is there, and never waits.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), but never a timeout.
    pub fn try_receive(&mut self) -> Result<Message<'_>, EndpointError> {
        self.fill(Socket::try_receive)
    }

    /// Sends a message in one piece.
    ///
    /// # Errors
    /// See [`Socket::send`].
    pub fn send<H: AsFd>(&self, transmit: &Transmit<'_, H>, deadline: Deadline) -> Result<(), SocketError> {
        let handles: heapless::Vec<BorrowedFd<'_>, MAX_HANDLES> = transmit.handles.iter().map(AsFd::as_fd).collect();
        self.socket.send(transmit.bytes, &handles, deadline)?;
        if let Some(observer) = &self.observer
            && let Some((header, payload)) = Header::split_from(transmit.bytes)
        {
            observer.message(Direction::Sent, header, payload, handles.len());
        }
        Ok(())
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    fn fill(
        &mut self,
        receive: impl Fn(&Socket, &mut [u8]) -> Result<Option<Received>, SocketError>,
    ) -> Result<Message<'_>, EndpointError> {
        while !self.assembler.is_whole() {
            match receive(&self.socket, self.assembler.read_buf())? {
                None => return Ok(Message::NotYet),
                Some(Received::Data { bytes, handles }) => self.assembler.filled(bytes, handles)?,
                Some(Received::EndOfStream) if self.assembler.is_between_messages() => return Ok(Message::Closed),
                Some(Received::EndOfStream) => return Err(EndpointError::Truncated),
            }
        }
        let Some(frame) = self.assembler.take() else { return Ok(Message::NotYet) };
        if let Some(observer) = &self.observer {
            observer.message(Direction::Received, &frame.header, frame.payload, frame.handles.len());
        }
        Ok(Message::Frame(frame))
    }
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("socket", &self.socket).field("assembler", &self.assembler).finish()
    }
}

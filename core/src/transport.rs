//! Any transport: two methods for people who bring their own.

use core::fmt;

use crate::{
    assembler::{Assembler, Frame, Handles, Transmit},
    error::DecodeError,
    read_ahead::ReadAhead,
};

/// What carries bytes and handles from one side to the other: a socket, a serial line, a ring in
/// shared memory, a test's queue.
///
/// Bytes arrive in order, in pieces of any size. Handles arrive with a piece whose first byte is
/// the first byte of the message they were sent with, which a sender of whole messages and a
/// receiver of no more than was asked for get by themselves.
///
/// A front-end over any transport:
///
/// ```
/// # use vhost_core::{Assembler, Channel, Delivery, Frontend, FrontendConfig, FrontendReply, FrontendRequest, Handles,
/// #     MAX_MESSAGE, Transmit, Transport, VirtioFeatures, receive};
/// // A line that only ever answers GET_FEATURES, with VERSION_1.
/// struct Line(std::collections::VecDeque<u8>);
///
/// impl Transport for Line {
///     type Handle = u8; // a number stands for a descriptor
///     type Error = core::convert::Infallible;
///
///     fn send(&mut self, message: Transmit<'_, u8>) -> Result<(), Self::Error> {
///         assert_eq!(message.bytes[0], 1);
///         let header = vhost_core::wire::header::Header::reply_to(1, 8).to_bytes();
///         self.0.extend(header.into_iter().chain((1_u64 << 32).to_ne_bytes()));
///         Ok(())
///     }
///
///     fn receive(&mut self, buffer: &mut [u8], _: &mut Handles<u8>) -> Result<usize, Self::Error> {
///         let count = buffer.len().min(self.0.len()).min(5); // pieces of any size
///         buffer[..count].iter_mut().for_each(|byte| *byte = self.0.pop_front().unwrap_or(0));
///         Ok(count)
///     }
/// }
///
/// let mut line = Line(Default::default());
/// let mut frontend = Frontend::<1, 8, 4>::new(FrontendConfig::new(1));
/// let mut assembler = Assembler::<u8>::new(Channel::Frontend);
/// let mut out = [0; MAX_MESSAGE];
/// line.send(frontend.request(FrontendRequest::GetFeatures, Delivery::Acknowledged, &mut out)?)?;
/// let frame = receive(&mut line, &mut assembler)?.expect("the line is not closed");
/// assert_eq!(frontend.handle_reply(frame)?, FrontendReply::GetFeatures(VirtioFeatures::VERSION_1));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
///
/// A back-end over any transport is the same loop from the other side: [`receive`] a frame,
/// [`Backend::handle_request`](crate::Backend::handle_request), act,
/// [`Backend::answer`](crate::Backend::answer), send. Its own channel is a second transport with
/// [`Channel::Backend`](crate::Channel::Backend).
pub trait Transport {
    /// What stands for a descriptor; dropping it closes it.
    type Handle;
    /// Why it cannot go on.
    type Error;

    /// Sends a whole message, with its handles on the first byte.
    ///
    /// # Errors
    /// The transport is of no use any more.
    fn send(&mut self, message: Transmit<'_, Self::Handle>) -> Result<(), Self::Error>;

    /// Waits for bytes and puts at least one, at most as many as fit, into `buffer`, and the handles
    /// that came with them into `handles`. Zero: the peer has closed.
    ///
    /// # Errors
    /// The transport is of no use any more.
    fn receive(&mut self, buffer: &mut [u8], handles: &mut Handles<Self::Handle>) -> Result<usize, Self::Error>;
}

/// Why no message could be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReceiveError<E> {
    /// The transport.
    Transport(E),
    /// The bytes.
    Bytes(DecodeError),
    /// The peer closed in the middle of a message.
    Truncated,
}

impl<E: fmt::Display> fmt::Display for ReceiveError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(error) => error.fmt(f),
            Self::Bytes(error) => error.fmt(f),
            Self::Truncated => f.write_str("the peer closed in the middle of a message"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for ReceiveError<E> {}

/// Waits for a whole message; `None` when the peer has closed between two.
///
/// # Errors
/// See [`ReceiveError`]; the channel is of no use after one.
pub fn receive<'a, T: Transport, const CAP: usize>(
    transport: &mut T,
    assembler: &'a mut Assembler<T::Handle, CAP>,
) -> Result<Option<Frame<'a, T::Handle>>, ReceiveError<T::Error>> {
    while !assembler.is_whole() {
        let mut handles = Handles::new();
        match transport.receive(assembler.read_buf(), &mut handles).map_err(ReceiveError::Transport)? {
            0 if assembler.is_between_messages() => return Ok(None),
            0 => return Err(ReceiveError::Truncated),
            count => {
                // The iterator of `Handles` itself could panic where it is dropped, as far as a compiler can see.
                handles.reverse();
                assembler.filled(count, core::iter::from_fn(|| handles.pop())).map_err(ReceiveError::Bytes)?;
            }
        }
    }
    Ok(assembler.take())
}

/// The same with [`ReadAhead`]: fewer calls of the transport, which must keep the promise that is
/// told there.
///
/// # Errors
/// See [`ReceiveError`]; the channel is of no use after one.
pub fn receive_ahead<'a, T: Transport, const CAP: usize>(
    transport: &mut T,
    incoming: &'a mut ReadAhead<T::Handle, CAP>,
) -> Result<Option<Frame<'a, T::Handle>>, ReceiveError<T::Error>> {
    while !incoming.has_next() {
        let mut handles = Handles::new();
        match transport.receive(incoming.read_buf(), &mut handles).map_err(ReceiveError::Transport)? {
            0 if incoming.is_between_messages() => return Ok(None),
            0 => return Err(ReceiveError::Truncated),
            count => {
                // As above.
                handles.reverse();
                incoming.filled(count, core::iter::from_fn(|| handles.pop()));
            }
        }
    }
    incoming.next().map_err(ReceiveError::Bytes)
}

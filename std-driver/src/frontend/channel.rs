//! The channel on which the back-end asks and the front-end answers.

use core::fmt;
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::{event::PollFlags, net::Shutdown};
use vhost_core::{Answered, ApiMisuse, BackendReply, Fault, Transmit, Verdict, wire::header::Header};

use super::{BackendRequestHandlerMut, Refusal, handler::dispatch, shared::Shared, wait::wait_for_any};
use crate::{
    deadline::Deadline,
    endpoint::{Endpoint, EndpointError, Message, Reading},
    socket::{Socket, SocketError},
    system_error::SystemError,
};

/// Bytes of the longest answer: header and one number.
pub(super) const MAX_ANSWER: usize = Header::SIZE + 8;

/// Requests that one call of [`BackendChannel::process`] carries out, beside those that were read already, so that a busy
/// back-end does not hold up the caller's loop.
const MAX_REQUESTS: usize = 64;

/// The front-end's end of the channel for requests of the back-end.
///
/// It works independently of the [`Frontend`](super::Frontend) that has made it, in one of three ways: polled and
/// [`process`](Self::process)ed in the caller's event loop; [`run`](Self::run) on a thread of its own; or served whenever
/// a call of the front-end waits, see [`Frontend::attach`](super::Frontend::attach).
///
/// Some back-ends wait for the answer to a request before they serve the front-end again. So whoever handles a request by
/// calling the front-end, or calls the front-end without serving this channel elsewhere, may wait for ever.
///
/// ```no_run
/// use vhost_std::deadline::Deadline;
/// use vhost_std::frontend::{BackendRequestHandlerMut, Frontend, Refusal};
///
/// struct Display;
///
/// impl BackendRequestHandlerMut for Display {
///     fn config_changed(&mut self) -> Result<(), Refusal> {
///         Ok(()) // read it again, and interrupt the guest
///     }
/// }
///
/// # fn serve(mut frontend: Frontend) -> Result<(), Box<dyn core::error::Error>> {
/// let mut channel = frontend.set_backend_req_fd()?;
/// let stopper = channel.stopper()?;
/// let thread = std::thread::spawn(move || channel.run(Display, Deadline::NEVER));
/// // The front-end is used meanwhile; and at the end:
/// stopper.stop()?;
/// # drop(thread);
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct BackendChannel {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    /// Which of the channels this is that the back-end was given.
    number: u64,
    unsent: Option<Unsent>,
    end: Option<Result<(), ChannelError>>,
}

/// Whether more requests may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum ChannelState {
    /// They may.
    Open,
    /// The back-end has closed the channel, or was given another one.
    Closed,
}

/// Why a channel is closed although the back-end has not closed it. The connection itself is not concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelError {
    /// Reading or writing.
    Endpoint(EndpointError),
    /// What the back-end has sent.
    Fault(Fault),
}

/// Closes a channel while another thread [`run`](BackendChannel::run)s it.
#[derive(Debug)]
pub struct ChannelStopper(OwnedFd);

/// An answer that the socket had no room for, or only in part.
struct Unsent {
    bytes: [u8; MAX_ANSWER],
    length: usize,
    sent: usize,
    descriptor: Option<OwnedFd>,
}

/// What one step has found.
enum Step {
    Done,
    NothingToDo,
    Closed,
}

impl BackendChannel {
    pub(super) fn new(socket: Socket, shared: &Arc<Shared>) -> Self {
        let (number, dialect) = {
            let mut state = shared.lock();
            (state.replace_channel(), state.machine.session().dialect())
        };
        let endpoint = Endpoint::in_dialect(socket, dialect);
        Self { endpoint, shared: Arc::clone(shared), number, unsent: None, end: None }
    }

    /// Carries out the requests that are there, and waits for nothing but `handler`.
    ///
    /// To be called when the channel's descriptor is readable, or when it is writable while
    /// [`has_unsent`](Self::has_unsent). It ends after some requests even if there are more: then the descriptor is still
    /// readable, as no request that was read stays behind.
    ///
    /// # Errors
    /// See [`ChannelError`]. The channel is closed, and later calls fail with the same error.
    pub fn process(&mut self, mut handler: impl BackendRequestHandlerMut) -> Result<ChannelState, ChannelError> {
        self.process_as_far_as(Reading::ToTheEnd, &mut handler)
    }

    pub(super) fn process_as_far_as(
        &mut self,
        reading: Reading,
        handler: &mut dyn BackendRequestHandlerMut,
    ) -> Result<ChannelState, ChannelError> {
        for count in 0_usize.. {
            if let Some(end) = self.end {
                return end.map(|()| ChannelState::Closed);
            }
            let asks_socket = !self.endpoint.has_received();
            if asks_socket && (count >= MAX_REQUESTS || count > 0 && self.endpoint.is_read(reading)) {
                break;
            }
            match self.step(handler) {
                Ok(Step::Done) => {}
                Ok(Step::NothingToDo) => break,
                Ok(Step::Closed) => self.close(Ok(())),
                Err(error) => self.close(if error.says_closed() { Ok(()) } else { Err(error) }),
            }
        }
        match self.end {
            Some(end) => end.map(|()| ChannelState::Closed),
            None => Ok(ChannelState::Open),
        }
    }

    /// Carries out requests until the channel is closed, or until the deadline: then it is still open.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub fn run(
        &mut self,
        mut handler: impl BackendRequestHandlerMut,
        deadline: Deadline,
    ) -> Result<ChannelState, ChannelError> {
        loop {
            let state = self.process_as_far_as(Reading::WhatIsThere, &mut handler)?;
            let Some(interest) = self.interest() else { return Ok(state) };
            match wait_for_any([interest], deadline) {
                // Not even a back-end that never pauses keeps it beyond the deadline.
                Ok(Some(_)) if !deadline.has_passed() => {}
                Ok(_) => return Ok(ChannelState::Open),
                Err(error) => return Err(EndpointError::Socket(error.into()).into()),
            }
        }
    }

    /// Whether an answer waits for room in the socket: then nothing else is done until it is sent.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.unsent.is_some()
    }

    /// What closes the channel from another thread.
    ///
    /// # Errors
    /// The errno of `fcntl`, for example `EMFILE`.
    pub fn stopper(&self) -> Result<ChannelStopper, SystemError> {
        let descriptor = rustix::io::fcntl_dupfd_cloexec(self.endpoint.as_fd(), 0).map_err(SystemError::of("fcntl"))?;
        Ok(ChannelStopper(descriptor))
    }

    /// What to poll for; `None` once the channel is closed.
    pub(super) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let events = if self.has_unsent() { PollFlags::OUT } else { PollFlags::IN };
        self.end.is_none().then_some((self.endpoint.as_fd(), events))
    }

    fn step(&mut self, handler: &mut dyn BackendRequestHandlerMut) -> Result<Step, ChannelError> {
        if !self.send_rest()? {
            return Ok(Step::NothingToDo);
        }
        let taken = match self.endpoint.try_receive()? {
            Message::NotYet => return Ok(Step::NothingToDo),
            Message::Closed => return Ok(Step::Closed),
            Message::Frame(frame) => {
                let mut state = self.shared.lock();
                if !state.is_current(self.number) {
                    return Ok(Step::Closed);
                }
                state.machine.handle_request(frame)
            }
        };
        let reply = match taken {
            Ok(request) => dispatch(request, handler),
            Err(rejection) if rejection.verdict() == Verdict::Refuse => {
                BackendReply::Refused(Refusal::UNSUPPORTED.number())
            }
            Err(rejection) => return Err(ChannelError::Fault(rejection.fault())),
        };
        self.answer(reply)
    }

    fn answer(&mut self, reply: BackendReply<OwnedFd>) -> Result<Step, ChannelError> {
        let mut bytes = [0; MAX_ANSWER];
        let answered = {
            let mut state = self.shared.lock();
            if !state.is_current(self.number) {
                return Ok(Step::Closed);
            }
            match state.machine.answer_backend(reply, &mut bytes) {
                Ok(answered) => answered,
                // A new channel has come in between, though its number is not set yet.
                Err(ApiMisuse::NothingToAnswer) => return Ok(Step::Closed),
                Err(misuse) => return Err(ChannelError::Fault(misuse.into())),
            }
        };
        let Transmit { bytes: written, mut handles } = match answered {
            Answered::Send(transmit) => transmit,
            Answered::Silent => return Ok(Step::Done),
            Answered::Close => return Ok(Step::Closed),
        };
        let length = written.len();
        self.unsent = Some(Unsent { bytes, length, sent: 0, descriptor: handles.pop() });
        Ok(if self.send_rest()? { Step::Done } else { Step::NothingToDo })
    }

    /// Sends what there is room for; whether everything is sent.
    fn send_rest(&mut self) -> Result<bool, ChannelError> {
        while let Some(unsent) = &mut self.unsent {
            let rest = unsent.bytes.get(unsent.sent..unsent.length).unwrap_or_default();
            let descriptor = unsent.descriptor.as_ref().map(AsFd::as_fd);
            let Some(sent) =
                self.endpoint.socket().try_send(rest, descriptor.as_slice()).map_err(EndpointError::from)?
            else {
                return Ok(false);
            };
            unsent.descriptor = None;
            unsent.sent += sent;
            if unsent.sent >= unsent.length {
                self.unsent = None;
            }
        }
        Ok(true)
    }

    fn close(&mut self, end: Result<(), ChannelError>) {
        self.unsent = None;
        self.end = Some(end);
        // It fails only for a connection that has ended already.
        let _ = self.endpoint.socket().shut_down();
    }
}

impl ChannelStopper {
    /// Closes the channel: whoever runs it comes back.
    ///
    /// # Errors
    /// The errno of `shutdown`.
    pub fn stop(&self) -> Result<(), SystemError> {
        rustix::net::shutdown(&self.0, Shutdown::Both).map_err(SystemError::of("shutdown"))
    }
}

impl AsFd for BackendChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.endpoint.as_fd()
    }
}

impl fmt::Debug for BackendChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendChannel")
            .field("endpoint", &self.endpoint)
            .field("has_unsent", &self.has_unsent())
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl ChannelError {
    /// Whether the back-end has closed its end, with an answer unread or while one was sent.
    fn says_closed(&self) -> bool {
        use rustix::io::Errno;
        let Self::Endpoint(EndpointError::Socket(SocketError::System(error))) = self else { return false };
        matches!(error.errno, Errno::PIPE | Errno::CONNRESET)
    }
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the channel of the back-end: ")?;
        match self {
            Self::Endpoint(error) => error.fmt(f),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

impl core::error::Error for ChannelError {}

impl From<EndpointError> for ChannelError {
    fn from(error: EndpointError) -> Self {
        Self::Endpoint(error)
    }
}

//! One call: a request out, its answer in.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use vhost_core::{ApiMisuse, Delivery, FrontendReply, FrontendRequest, MessageName, wire::row::HandleRule};

use super::{Closed, Confirmation, Frontend, FrontendError, wait::wait_for_any};
use crate::{
    deadline::Deadline,
    endpoint::{EndpointError, Message},
    socket::SocketError,
};

/// A request with descriptors of the caller.
pub(super) type Request<'b> = FrontendRequest<'b, BorrowedFd<'b>>;
/// A reply with descriptors of ours.
pub(super) type Reply<'b> = FrontendReply<'b, OwnedFd>;

/// Whether an answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Answer,
    Nothing,
}

impl Frontend {
    /// Makes a request that succeeds or fails and tells nothing else.
    pub(super) fn order(&mut self, request: Request<'_>) -> Result<(), FrontendError> {
        self.call(request, &mut |_| ())
    }

    /// Makes a request and reads its reply with `read`, which gets none but the reply to this request.
    pub(super) fn ask<T>(
        &mut self,
        request: Request<'_>,
        read: impl FnOnce(Reply<'_>) -> Option<T>,
    ) -> Result<T, FrontendError> {
        let message = request.code().message();
        let (mut read, mut found) = (Some(read), None);
        self.call(request, &mut |reply| found = read.take().and_then(|read| read(reply)))?;
        found.ok_or_else(|| misfit(message))
    }

    /// Makes a request and shows its reply to `read`: all calls are this one.
    #[inline(never)]
    fn call(&mut self, request: Request<'_>, read: &mut dyn FnMut(Reply<'_>)) -> Result<(), FrontendError> {
        self.check_alive()?;
        let message = request.code().message();
        let deadline = self.limit.deadline();
        let outcome = self.converse(message, request, deadline, read);
        self.conclude(Some(message), outcome)
    }

    /// Looks whether the back-end has gone or has spoken unasked: to be called when the socket is readable, or now and
    /// then, while no call is under way. Never waits.
    ///
    /// # Errors
    /// [`Closed`](FrontendError::Closed), or what else ended the session.
    pub fn process(&mut self) -> Result<(), FrontendError> {
        self.check_alive()?;
        let outcome = match self.endpoint.try_receive() {
            Ok(Message::NotYet) => Ok(()),
            Ok(Message::Closed) => Err(self.closed(None)),
            Ok(Message::Frame(frame)) => {
                let outcome = self.shared.lock().machine.handle_reply(frame);
                outcome.map(drop).map_err(|fault| FrontendError::of_fault(None, fault))
            }
            Err(error) => Err(FrontendError::of_endpoint(None, self.previous, error)),
        };
        self.conclude(None, outcome)
    }

    /// Sends a message that is never answered and that the machine writes.
    pub(super) fn announce(
        &mut self,
        message: MessageName,
        write: impl for<'o> FnOnce(
            &mut super::shared::Machine,
            &'o mut [u8],
        ) -> Result<vhost_core::Transmit<'o, OwnedFd>, ApiMisuse>,
    ) -> Result<(), FrontendError> {
        self.check_alive()?;
        let deadline = self.limit.deadline();
        let transmit = write(&mut self.shared.lock().machine, &mut self.out[..])?;
        let outcome = self.endpoint.send(&transmit, deadline);
        let outcome = outcome.map_err(|error| FrontendError::of_socket(Some(message), self.previous, error));
        self.conclude(Some(message), outcome)
    }

    /// Remembers how a call ended.
    pub(super) fn conclude<T>(
        &mut self,
        during: Option<MessageName>,
        outcome: Result<T, FrontendError>,
    ) -> Result<T, FrontendError> {
        match &outcome {
            Ok(_) => self.previous = during.or(self.previous),
            Err(error) => self.ended = error.ends_session().map(|end| (during, end)),
        }
        outcome
    }

    pub(super) fn check_alive(&self) -> Result<(), FrontendError> {
        match self.ended {
            Some((during, end)) => Err(FrontendError::Ended { during, end }),
            None => Ok(()),
        }
    }

    fn converse(
        &mut self,
        message: MessageName,
        request: Request<'_>,
        deadline: Deadline,
        read: &mut dyn FnMut(Reply<'_>),
    ) -> Result<(), FrontendError> {
        match self.send(message, request, self.confirmation.delivery(), deadline)? {
            Due::Answer => self.receive(message, deadline, read),
            Due::Nothing => {
                read(Reply::Done);
                match self.confirmation {
                    Confirmation::Barrier => {
                        self.send(message, Request::GetFeatures, Delivery::Unacknowledged, deadline)?;
                        self.receive(message, deadline, &mut |_| ())
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// Sends a request of the call about `message`.
    pub(super) fn send(
        &mut self,
        message: MessageName,
        request: Request<'_>,
        delivery: Delivery,
        deadline: Deadline,
    ) -> Result<Due, FrontendError> {
        let (transmit, due) = {
            let mut state = self.shared.lock();
            let before = state.machine.outstanding();
            let transmit = state.machine.request(request, delivery, &mut self.out[..])?;
            (transmit, if state.machine.outstanding() > before { Due::Answer } else { Due::Nothing })
        };
        match self.endpoint.send(&transmit, deadline) {
            Ok(()) => Ok(due),
            Err(error) => Err(FrontendError::of_socket(Some(message), self.previous, error)),
        }
    }

    /// Receives the answer to the oldest request, for the call about `message`.
    pub(super) fn receive(
        &mut self,
        message: MessageName,
        deadline: Deadline,
        read: &mut dyn FnMut(Reply<'_>),
    ) -> Result<(), FrontendError> {
        let (waiting_for, previous) = (Some(message), self.previous);
        if self.attached.is_some() && !self.endpoint.has_received() {
            // The answer is rarely there already.
            let outcome = self.serve_until_readable(deadline);
            outcome.map_err(|error| FrontendError::of_endpoint(waiting_for, previous, error))?;
        }
        loop {
            let received = match self.attached {
                Some(_) => self.endpoint.try_receive(),
                None if answers_without_handles(message) => self.endpoint.receive_without_handles(deadline),
                None => self.endpoint.receive(deadline),
            };
            match received {
                Ok(Message::Frame(frame)) => {
                    let reply = self.shared.lock().machine.handle_reply(frame);
                    match reply {
                        Ok(Reply::Refused(number)) => return Err(FrontendError::Refused { request: message, number }),
                        Ok(reply) => read(reply),
                        Err(fault) => return Err(FrontendError::of_fault(waiting_for, fault)),
                    }
                    return Ok(());
                }
                Ok(Message::Closed) => return Err(self.closed(waiting_for)),
                Ok(Message::NotYet) => self.serve_until_readable(deadline),
                Err(error) => Err(error),
            }
            .map_err(|error| FrontendError::of_endpoint(waiting_for, previous, error))?;
        }
    }

    /// Waits until there is something to receive, and serves the attached channel meanwhile.
    fn serve_until_readable(&mut self, deadline: Deadline) -> Result<(), EndpointError> {
        let main = (self.endpoint.as_fd(), PollFlags::IN);
        let channel = self.attached.as_ref().and_then(|attached| attached.channel.interest());
        let ready = match channel {
            Some(channel) => wait_for_any([main, channel], deadline),
            None => wait_for_any([main], deadline).map(|ready| ready.map(|[main]| [main, false])),
        };
        match ready.map_err(SocketError::from)? {
            None => return Err(SocketError::TimedOut.into()),
            // What has come on the connection itself goes first: it may end the wait.
            Some([true, _]) | Some([false, false]) => {}
            // A channel that always has something to say keeps no call beyond its deadline.
            Some([false, true]) if deadline.has_passed() => return Err(SocketError::TimedOut.into()),
            Some([false, true]) => {
                if let Some(attached) = &mut self.attached {
                    attached.serve();
                }
            }
        }
        Ok(())
    }

    fn closed(&self, waiting_for: Option<MessageName>) -> FrontendError {
        FrontendError::Closed(Closed { waiting_for, previous: self.previous, within_message: false })
    }
}

/// Whether no descriptor belongs to the answer to a request.
fn answers_without_handles(request: MessageName) -> bool {
    request.row().is_some_and(|row| row.reply_handles == HandleRule::None)
}

/// The machine lets none but the answer to the request through, so this is never seen.
fn misfit(expected: MessageName) -> FrontendError {
    FrontendError::Misuse(ApiMisuse::AnswerDoesNotFit { expected, found: None })
}
